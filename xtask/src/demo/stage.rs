//! Everything that the demo puts into the machine, in one temporary directory, and its removal.

use crate::house;
use crate::interrupt::Interrupt;
use crate::volume::Volume;
use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};
use rustix::mount::{UnmountFlags, unmount};
use serde_json::Value;
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vss_linux::mountinfo;
use vss_linux::process::{PidFd, Signal};

/// Space that the volume, the repository and one copy take together, with some to spare.
const SPACE_GIB: u64 = 4;
/// How long the service on demand may take to end after its last command, and after being told to.
const SERVICE_END: Duration = Duration::from_secs(10);
/// Settings of the demo's own service: this machine's scripts are none of its business.
const SETTINGS: &str = "[writers]\nscript_directory = \"DIR/writers.d\"\nfreeze_directory = \"DIR/freeze.d\"\n";

/// Which applications of this machine the demo's service knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writers {
    /// None.
    None,
    /// PostgreSQL.
    Postgresql,
}

/// Prints a heading.
pub(super) fn say(heading: &str) {
    println!("\n== {heading}");
}

/// Prints a command as one would type it.
pub(super) fn tour(command: &Command) {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args()).map(OsStr::to_string_lossy);
    println!("$ {}", words.collect::<Vec<_>>().join(" "));
}

/// A line of a demo's table.
pub(super) type TableRow = (&'static str, String);

/// The table at the end of a demo.
pub(super) fn table(rows: &[TableRow]) -> String {
    rows.iter().fold(String::new(), |mut table, (name, value)| {
        // Writing to a String cannot fail.
        let _ = writeln!(table, "{name:<26}{value}");
        table
    })
}

/// What the record of a set says of its level and of the time that it took from others.
pub(super) fn set_rows(set: &Value) -> [TableRow; 3] {
    let instant = if set["atomic"] == true { "one instant" } else { "several instants" };
    let ms = |key: &str| set[key].as_u64().map_or_else(|| "?".to_owned(), |ms| format!("{ms} ms"));
    [
        ("consistency level", format!("{} ({instant})", set["consistency"].as_str().unwrap_or("?"))),
        ("freeze (writers)", ms("freeze_ms")),
        ("hold (writes)", ms("hold_ms")),
    ]
}

/// The volume, a service of the demo's own, and a backup repository. Dropping it takes everything away.
#[derive(Debug)]
pub(super) struct Stage {
    vss: PathBuf,
    volume: Option<Volume>,
    directory: TempDir,
}

impl Stage {
    /// Makes the volume, of `gib` GiB. `programs` is where ours lie.
    pub(super) fn set_up(programs: &Path, gib: u64, writers: Writers, interrupt: &Interrupt) -> Result<Self> {
        let place = house::scratch();
        let space = rustix::fs::statvfs(&place)?;
        ensure!(
            space.f_bavail * space.f_frsize >= SPACE_GIB << 30,
            "the demo needs {SPACE_GIB} GiB in {} (TMPDIR)",
            place.display()
        );
        let directory = TempDir::with_prefix_in("vss-demo-", place)?;
        // A server on the volume does not run as root.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
        let mut stage = Self { vss: programs.join("vss"), volume: None, directory };
        for name in ["run", "state", "cache"] {
            fs::create_dir(stage.path(name))?;
        }
        let settings = SETTINGS.replace("DIR", &stage.path("state").to_string_lossy());
        let postgresql = writers == Writers::Postgresql;
        fs::write(stage.path("state").join("vss.toml"), format!("{settings}postgresql = {postgresql}\n"))?;
        let volume = Volume::create(&stage.path("volume"), gib, interrupt)?;
        println!("{} on {}", volume.path().display(), volume.device().display());
        stage.volume = Some(volume);
        Ok(stage)
    }

    /// A path in the demo's directory.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where the volume is mounted.
    pub(super) fn volume(&self) -> &Path {
        self.volume.as_ref().map_or(Path::new(""), Volume::path)
    }

    /// Waits until the volume is at rest.
    pub(super) fn settle(&self) -> Result<()> {
        self.volume.as_ref().map_or(Ok(()), Volume::settle)
    }

    /// A `vss` command on the demo's own service, which it starts by itself.
    pub(super) fn vss(&self, arguments: &[&str]) -> Command {
        let mut command = self.with_repository(Command::new(&self.vss));
        command.args(arguments);
        command.arg("--runtime-dir").arg(self.path("run")).arg("--state-dir").arg(self.path("state"));
        command
    }

    /// Runs restic on the demo's repository.
    pub(super) fn restic(&self, arguments: &[&str], interrupt: &Interrupt) -> Result<()> {
        let mut command = self.with_repository(Command::new("restic"));
        command.args(arguments);
        tour(&command);
        interrupt.check(&mut command)
    }

    fn with_repository(&self, mut command: Command) -> Command {
        command
            .env("RESTIC_REPOSITORY", self.path("repository"))
            .env("RESTIC_PASSWORD", "demo")
            .env("RESTIC_CACHE_DIR", self.path("cache"));
        command
    }

    /// True when the service has opened its sockets.
    pub(super) fn is_served(&self) -> bool {
        self.path("run").join("requester").exists()
    }

    /// Waits for the end of the service, and sees to it.
    fn end_service(&self) -> Result<()> {
        let path = self.path("run").join("instance.lock");
        let Ok(lock) = File::open(&path) else { return Ok(()) };
        let ended = |limit| {
            let deadline = Instant::now() + limit;
            while Instant::now() < deadline {
                if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
                    return true;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            false
        };
        if ended(SERVICE_END) {
            return Ok(());
        }
        // Its number is in the lock that it holds.
        let pid = fs::read_to_string(&path)?.trim().parse().context("the lock names no process")?;
        let service = PidFd::open(pid)?;
        service.signal(Signal::TERM)?;
        if !ended(SERVICE_END) {
            service.signal(Signal::KILL)?;
            ensure!(ended(SERVICE_END), "the service (process {pid}) does not end");
        }
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = self.end_service() {
            eprintln!("xtask: {error:#}");
        }
        let ours = |entry: &mountinfo::MountEntry| entry.mount_point.starts_with(self.directory.path());
        for entry in mountinfo::mounts().unwrap_or_default().iter().rev().filter(|entry| ours(entry)) {
            // One that a service left behind, or the volume itself; what is still in use goes when its last user does.
            let _ = unmount(&entry.mount_point, UnmountFlags::DETACH);
        }
    }
}
