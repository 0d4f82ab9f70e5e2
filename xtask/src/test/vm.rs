//! The part that runs in virtual machines: one binary of tests (`tests/tests/vm/`), each of its modules in the guest that it is for.

use crate::interrupt::{Ended, Interrupt};
use crate::packages::{self, Package};
use crate::test::build::{Built, Test};
use crate::test::report::Report;
use crate::vm::kernel::Kernel;
use crate::vm::lane::{self, Job};
use crate::vm::machine::Done;
use crate::vm::systemd::SystemdGuest;
use crate::vm::{self, image};
use crate::{house, test};
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The target with the tests.
pub(crate) const TARGET: &str = "vm";

/// What the tests in the lane guest use of this machine.
const LANE_PACKAGES: [Package; 4] = [
    Package { name: "lvm2", program: "lvm" },
    Package { name: "thin-provisioning-tools", program: "thin_check" },
    packages::BTRFS,
    packages::EXT4,
];

/// Longest time of a guest; what runs longer is ended and has failed. The longest needs 100 s on two cores, and several times that
/// beside other work.
const LIMIT: Duration = Duration::from_secs(480);

/// Size of the lane guest's disks; the files are sparse.
const DISK_BYTES: u64 = 512 << 20;

/// Memory of the lane guest in MiB.
const MEMORY_MIB: u32 = 1536;

/// Runs the part.
pub(crate) fn run(built: &Built, interrupt: &Interrupt, report: &mut Report) -> Result<()> {
    let tests =
        built.tests.iter().find(|test| test.is_house(TARGET)).context("the tests for the guests are not built")?;
    if let Some(why) = vm::obstacle() {
        report.skip("vm", why);
        return Ok(());
    }
    let needed = [&vm::packages()[..], &image::PACKAGES[..], &LANE_PACKAGES[..]].concat();
    if let Err(error) = packages::need(&needed, interrupt) {
        // Not when somebody has pressed Ctrl-C.
        interrupt.sleep(Duration::ZERO)?;
        report.skip("vm", &format!("{error:#}"));
        return Ok(());
    }
    let caches = vm::caches()?;
    let kernel = Kernel::ensure(&caches, interrupt)?;
    let part = Part { tests, kernel: &kernel, interrupt };
    part.lane(report)?;
    part.systemd(&image::ensure(&caches, &kernel, interrupt)?, report)
}

struct Part<'a> {
    tests: &'a Test,
    kernel: &'a Kernel,
    interrupt: &'a Interrupt,
}

impl Part<'_> {
    fn lane(&self, report: &mut Report) -> Result<()> {
        let place = TempDir::with_prefix("vss-vm-disks-")?;
        let disks = ["vda", "vdb"].map(|name| place.path().join(name));
        let nvme = place.path().join("nvme");
        for disk in disks.iter().chain([&nvme]) {
            File::create_new(disk)?.set_len(DISK_BYTES)?;
        }
        let executable = self.tests.executable.clone().into();
        let job = Job {
            command: &[executable, "--test-threads=1".into(), "--show-output".into(), "lane::".into()],
            directory: &self.tests.directory,
            environment: &[("VSS_VM_GUEST", "lane")],
            disks: &disks,
            nvme: Some(&nvme),
            memory_mib: MEMORY_MIB,
            limit: LIMIT,
        };
        self.guest("lane", report, |log| lane::run(&job, self.kernel, log, self.interrupt)).map(drop)
    }

    fn systemd(&self, image: &Path, report: &mut Report) -> Result<()> {
        let debug = self.tests.executable.ancestors().nth(2).context("the tests lie in target/debug/deps")?;
        let mut programs: Vec<PathBuf> = house::PROGRAMS.iter().map(|name| debug.join(name)).collect();
        programs.push(self.tests.executable.clone());
        let guest = SystemdGuest::new(self.kernel, image, &programs, self.interrupt)?;
        let house = guest.house();
        if let Some(client) = test::varlink_client(self.interrupt)? {
            // Its modules alone; what else is in the environment is for installing.
            let copy = house.join("programs/python");
            fs::create_dir(&copy)?;
            let mut command = std::process::Command::new("cp");
            self.interrupt.check(command.arg("-r").arg(client.library()?.join("varlink")).arg(copy))?;
        }
        let name = self.tests.executable.file_name().context("a program has a name")?.to_string_lossy().into_owned();
        let command = |module: &str| {
            format!("VSS_VM_GUEST={module} /run/house/programs/{name} --test-threads=1 --show-output {module}::\n")
        };
        // The power is cut off after the first script, whatever came of it; the first failure is the script's.
        let first = format!("{}first=$?\n{}test $? -eq 0 -a $first -eq 0\n", command("systemd"), command("cut_off"));
        if !self.guest("systemd", report, |log| guest.boot(&first, LIMIT, log, self.interrupt))? {
            // What the next boot looks for was not left behind.
            return Ok(());
        }
        self.guest("rebooted", report, |log| guest.boot(&command("rebooted"), LIMIT, log, self.interrupt)).map(drop)
    }

    /// Runs a guest, its output going to a log, and counts what it says; true when its tests came to their end.
    fn guest(&self, name: &str, report: &mut Report, run: impl FnOnce(&File) -> Result<Done>) -> Result<bool> {
        let path = test::log_path(&format!("vm-{name}"))?;
        let began = Instant::now();
        let done = run(&File::create(&path)?)?;
        let said = fs::read(&path)?;
        let mut text = String::from_utf8_lossy(&said).into_owned();
        let is_whole = matches!(done, Done::With(_));
        let ended = match done {
            Done::With(status) => Ended::With(ExitStatus::from_raw(i32::from(status) << 8)),
            Done::TimedOut(console) => {
                text.push_str(&format!("\nIts console:\n{console}\n"));
                Ended::TimedOut
            }
            Done::Died(console) => {
                text.push_str(&format!(
                    "\nThe virtual machine went off before its tests had ended. Its console:\n{console}\n"
                ));
                Ended::With(ExitStatus::from_raw(1 << 8))
            }
        };
        let good = report.read(&format!("guest {name}"), ended, &text);
        println!("   guest {name}: {} s{}", began.elapsed().as_secs(), if good { "" } else { ": FAILED" });
        if !good {
            println!("{}\n   (all of it: {})", test::tail(&text), path.display());
        }
        Ok(is_whole)
    }
}
