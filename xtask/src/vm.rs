//! `cargo xtask vm`: a command in a virtual machine, on a kernel with device-mapper, LVM, ublk and NBD, whatever this machine's
//! own kernel has. Nothing but Debian's packages is needed; the kernel is kept in `target/vm` between runs.

mod cache;
mod debian;
pub(crate) mod image;
pub(crate) mod kernel;
pub(crate) mod lane;
pub(crate) mod machine;
mod share;
pub(crate) mod systemd;

use crate::house;
use crate::interrupt::Interrupt;
use crate::packages::{self, Package};
use crate::vm::kernel::Kernel;
use crate::vm::lane::Job;
use crate::vm::machine::Done;
use crate::vm::systemd::SystemdGuest;
use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the lane guest takes.
const PACKAGES: [Package; 6] = [
    Package { name: "qemu-system-x86", program: machine::QEMU },
    Package { name: "seabios", program: "/usr/share/seabios/bios-256k.bin" },
    Package { name: "kmod", program: "depmod" },
    Package { name: "udev", program: "/lib/systemd/systemd-udevd" },
    Package { name: "xz-utils", program: "xz" },
    Package { name: "debian-archive-keyring", program: "/usr/share/keyrings/debian-archive-keyring.gpg" },
];

/// The packages for a guest on this machine.
pub(crate) fn packages() -> Vec<Package> {
    [&PACKAGES[..], &[share::package()]].concat()
}

/// Exit statuses as env(1) and timeout(1) have them.
const DIED: u8 = 125;
const TIMED_OUT: u8 = 124;

/// Options of the task.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A raw image for the next disk: /dev/vda, /dev/vdb... Writes are kept
    #[arg(long = "disk", value_name = "FILE")]
    disks: Vec<PathBuf>,
    /// A raw image for /dev/nvme0n1
    #[arg(long, value_name = "FILE")]
    nvme: Option<PathBuf>,
    /// End the machine after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    limit: u64,
    /// The machine's memory
    #[arg(long, value_name = "MIB", default_value_t = 1536)]
    memory: u32,
    /// Run it in a Debian of its own with systemd as its first process, and the programs as they were built last
    #[arg(long, conflicts_with_all = ["disks", "nvme", "memory"])]
    systemd: bool,
    /// What to run, as root, in this directory
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Why no machine can be started here, whatever was installed.
pub(crate) fn obstacle() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("a virtual machine that sees this machine's files takes root");
    }
    (!cfg!(target_arch = "x86_64")).then_some("the virtual machines are built for x86_64 alone")
}

/// Where kernel and images are kept.
pub(crate) fn caches() -> Result<PathBuf> {
    Ok(house::target()?.join("vm"))
}

/// Runs the command; returns its exit status, 125 when the machine died before it had ended, 124 when its time was over.
pub(crate) fn run(arguments: &Arguments, interrupt: &Interrupt) -> Result<u8> {
    if let Some(why) = obstacle() {
        bail!("{why}");
    }
    let disks = arguments.disks.iter().map(|disk| image_file(disk)).collect::<Result<Vec<_>>>()?;
    let nvme = arguments.nvme.as_deref().map(image_file).transpose()?;
    packages::need(&packages(), interrupt)?;
    let kernel = Kernel::ensure(&caches()?, interrupt)?;
    let output = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    let done = if arguments.systemd {
        packages::need(&image::PACKAGES, interrupt)?;
        let image = image::ensure(&caches()?, &kernel, interrupt)?;
        let debug = house::target()?.join("debug");
        let guest = SystemdGuest::new(&kernel, &image, &house::PROGRAMS.map(|name| debug.join(name)), interrupt)?;
        let words = arguments.command.iter().map(|word| String::from_utf8_lossy(&lane::quoted(word)).into_owned());
        let script = words.collect::<Vec<_>>().join(" ");
        guest.boot(&script, Duration::from_secs(arguments.limit), &output, interrupt)?
    } else {
        in_lane(arguments, &disks, nvme.as_deref(), &kernel, &output, interrupt)?
    };
    Ok(match done {
        Done::With(status) => status,
        Done::TimedOut(console) => {
            eprintln!("xtask: the virtual machine was ended after {} s. Its console:\n{console}", arguments.limit);
            TIMED_OUT
        }
        Done::Died(console) => {
            eprintln!("xtask: the virtual machine went off before the command had ended. Its console:\n{console}");
            DIED
        }
    })
}

fn image_file(path: &Path) -> Result<PathBuf> {
    ensure!(path.is_file(), "{} is no file", path.display());
    path.canonicalize().with_context(|| format!("cannot use {}", path.display()))
}

fn in_lane(
    arguments: &Arguments,
    disks: &[PathBuf],
    nvme: Option<&Path>,
    kernel: &Kernel,
    output: &File,
    interrupt: &Interrupt,
) -> Result<Done> {
    let job = Job {
        command: &arguments.command,
        directory: &std::env::current_dir()?,
        environment: &[],
        disks,
        nvme,
        memory_mib: arguments.memory,
        limit: Duration::from_secs(arguments.limit),
    };
    lane::run(&job, kernel, output, interrupt)
}
