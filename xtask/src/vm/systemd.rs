//! The systemd guest: a Debian of its own, with systemd as its first process and what is under test where a package puts it.

use crate::house;
use crate::interrupt::Interrupt;
use crate::vm::kernel::Kernel;
use crate::vm::machine::{Done, Machine};
use crate::vm::share::Shared;
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// What the image's unit runs.
const START: &str = include_str!("start.sh");

/// Memory in MiB.
const MEMORY_MIB: u32 = 1536;

/// Size of the two disks besides the system's; the files are sparse.
const DISK_BYTES: u64 = 320 << 20;

/// A guest that can be booted again and again: its disks live as long as this.
#[derive(Debug)]
pub(crate) struct SystemdGuest<'a> {
    kernel: &'a Kernel,
    place: TempDir,
    system: PathBuf,
    disks: Vec<PathBuf>,
}

impl<'a> SystemdGuest<'a> {
    /// A guest that was never booted, with these programs and a copy of `image`. Besides the system's disk it has
    /// /dev/vda and /dev/vdb, which are empty.
    pub(crate) fn new(kernel: &'a Kernel, image: &Path, programs: &[PathBuf], interrupt: &Interrupt) -> Result<Self> {
        let place = TempDir::with_prefix("vss-vm-")?;
        let house = place.path().join("house");
        fs::create_dir_all(house.join("programs"))?;
        for program in programs {
            let name = program.file_name().context("a program has a name")?;
            fs::copy(program, house.join("programs").join(name))
                .with_context(|| format!("{} is not built", program.display()))?;
        }
        interrupt.check(Command::new("cp").arg("-r").arg(house::root().join("packaging")).arg(&house))?;
        fs::write(house.join("start"), START)?;
        let system = place.path().join("system");
        interrupt.check(Command::new("cp").arg("--sparse=always").arg(image).arg(&system))?;
        let mut disks = Vec::new();
        for name in ["vda", "vdb"] {
            let disk = place.path().join(name);
            File::create_new(&disk)?.set_len(DISK_BYTES)?;
            disks.push(disk);
        }
        Ok(Self { kernel, place, system, disks })
    }

    /// A directory that the guest sees as /run/house.
    pub(crate) fn house(&self) -> PathBuf {
        self.place.path().join("house")
    }

    /// Boots it, runs the lines of shell, and takes its power away.
    ///
    /// # Errors
    /// It cannot be started; a signal came.
    pub(crate) fn boot(&self, script: &str, limit: Duration, output: &File, interrupt: &Interrupt) -> Result<Done> {
        let house = self.house();
        fs::write(house.join("command"), script)?;
        let shares = [Shared { tag: "house", directory: &house, is_still: false }];
        let machine = Machine {
            kernel: self.kernel.file(),
            append: "root=/dev/nvme0n1 rw".to_owned(),
            memory_mib: MEMORY_MIB,
            nvme: Some(self.system.clone()),
            disks: &self.disks,
            shares: &shares,
        };
        machine.run(limit, output, &house, self.place.path(), interrupt)
    }
}
