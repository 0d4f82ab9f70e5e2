//! A file system of the test's own: a sparse image, a loop device, a mount. Everything is undone when it is dropped, and
//! whatever the test left frozen is thawed.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;
use vss_linux::loop_device::{AttachOptions, LoopDevice};
use vss_linux::{device_use, freeze};

use crate::instance::wait_until;

/// Dropping waits so long for thaw and unmount, then leaves the rest to a thread.
const TEARDOWN_LIMIT: Duration = Duration::from_secs(10);

/// A kind of file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// At least 8 MiB.
    Ext4,
    /// At least 300 MiB (mkfs.xfs refuses less).
    Xfs,
    /// At least 110 MiB.
    Btrfs,
}

impl Kind {
    /// As mount(2) calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }
}

/// A mounted file system in an image file.
#[derive(Debug)]
pub struct LoopFs {
    parts: Option<Parts>,
}

#[derive(Debug)]
struct Parts {
    kind: Kind,
    mount: PathBuf,
    image: PathBuf,
    device: LoopDevice,
    /// Last: removed when nothing is mounted in it any more.
    directory: TempDir,
}

/// True when the kernel can mount the kind, after its module was asked for.
fn is_known(kind: Kind) -> bool {
    let is_listed = || {
        let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        known.lines().any(|line| line.trim_start_matches("nodev").trim() == kind.name())
    };
    // A kernel with the file system built in has no module of it, and needs none.
    is_listed() || (Command::new("modprobe").arg(kind.name()).output().is_ok() && is_listed())
}

impl LoopFs {
    /// True when a test that needs file systems of these kinds has to be left out here; says so in one line.
    #[must_use]
    pub fn skips(test: &str, kinds: &[Kind]) -> bool {
        let missing = Self::missing(kinds);
        if let Some(why) = &missing {
            println!("SKIPPED: {test}: {why}");
        }
        missing.is_some()
    }

    /// Why file systems of these kinds cannot be made here, if so.
    #[must_use]
    pub fn missing(kinds: &[Kind]) -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("needs root".to_owned());
        }
        if !Path::new("/dev/loop-control").exists() {
            return Some("needs loop devices".to_owned());
        }
        kinds.iter().find_map(|kind| {
            let program = format!("mkfs.{}", kind.name());
            let found = Command::new(&program).arg("-V").output().is_ok();
            if !found {
                Some(format!("needs {program}"))
            } else if !is_known(*kind) {
                Some(format!("the kernel has no {}", kind.name()))
            } else {
                None
            }
        })
    }

    /// A new, empty file system, in the directory for temporary files.
    ///
    /// # Errors
    /// See [`LoopFs::missing`], or there is no space.
    pub fn new(kind: Kind, size_mib: u64) -> anyhow::Result<Self> {
        Self::new_in(&std::env::temp_dir(), kind, size_mib)
    }

    /// A new, empty file system whose image lies in `directory`: on another [`LoopFs`] for a nested one, which has to be
    /// dropped first.
    ///
    /// # Errors
    /// As [`LoopFs::new`].
    pub fn new_in(directory: &Path, kind: Kind, size_mib: u64) -> anyhow::Result<Self> {
        let directory = TempDir::with_prefix_in("vss-loopfs-", directory)?;
        // Programs under other accounts have files in it, database servers for example.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        let image = directory.path().join("image");
        File::create_new(&image)?.set_len(size_mib << 20)?;
        Self::make(directory, image, kind)
    }

    /// A new, empty file system on an image that is there already and stays; what else it needs is in the directory for
    /// temporary files.
    ///
    /// # Errors
    /// As [`LoopFs::new`].
    pub fn new_on(image: &Path, kind: Kind) -> anyhow::Result<Self> {
        Self::make(TempDir::with_prefix("vss-loopfs-")?, image.to_owned(), kind)
    }

    fn make(directory: TempDir, image: PathBuf, kind: Kind) -> anyhow::Result<Self> {
        let options: &[&str] = match kind {
            Kind::Ext4 => &["-q", "-F", "-E", "nodiscard"],
            Kind::Xfs => &["-q", "-f", "-K"],
            Kind::Btrfs => &["-q", "-f", "-K"],
        };
        let made = Command::new(format!("mkfs.{}", kind.name())).args(options).arg(&image).output()?;
        if !made.status.success() {
            bail!("mkfs.{}: {}", kind.name(), String::from_utf8_lossy(&made.stderr));
        }
        Self::show(directory, image, kind)
    }

    /// The file system that is in an image already: what a power cut has left, for example.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn existing(image: &Path, kind: Kind) -> anyhow::Result<Self> {
        Self::show(TempDir::with_prefix("vss-loopfs-")?, image.to_owned(), kind)
    }

    fn show(directory: TempDir, image: PathBuf, kind: Kind) -> anyhow::Result<Self> {
        let device = LoopDevice::attach(&image, AttachOptions { autoclear: true, ..AttachOptions::default() })?;
        let point = directory.path().join("mount");
        fs::create_dir(&point)?;
        mount(device.path(), &point, kind.name(), MountFlags::empty(), None)
            .with_context(|| format!("mounting {} on {}", device.path().display(), point.display()))?;
        Ok(Self { parts: Some(Parts { kind, mount: point, image, device, directory }) })
    }

    fn parts(&self) -> &Parts {
        self.parts.as_ref().expect("taken only by drop")
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.parts().mount
    }

    /// The image file.
    #[must_use]
    pub fn image(&self) -> &Path {
        &self.parts().image
    }

    /// The loop device.
    #[must_use]
    pub fn device(&self) -> &Path {
        self.parts().device.path()
    }

    /// Its root directory, open: for FIFREEZE and FITHAW by the test itself. Close it before the file system is dropped.
    ///
    /// # Errors
    /// It is not mounted any more.
    pub fn open(&self) -> anyhow::Result<File> {
        Ok(File::open(self.path())?)
    }

    /// Unmounts it. Nobody may use it.
    ///
    /// # Errors
    /// Somebody uses it for 10 s.
    pub fn unmount(&self) -> anyhow::Result<()> {
        unmount_idle(self.path())
    }

    /// Mounts it again after [`LoopFs::unmount`].
    ///
    /// # Errors
    /// Those of mount(2): what is there is no file system of the kind.
    pub fn mount(&self) -> anyhow::Result<()> {
        let kind = self.parts().kind.name();
        mount(self.device(), self.path(), kind, MountFlags::empty(), None)
            .with_context(|| format!("mounting {} on {}", self.device().display(), self.path().display()))
    }

    /// Unmounts it, lets the file system's own checker look at it, and mounts it again. Nobody may use it.
    ///
    /// # Errors
    /// The checker finds anything, or a log that would have to be replayed; somebody uses it.
    pub fn check(&self) -> anyhow::Result<()> {
        let Parts { kind, mount: point, .. } = self.parts();
        self.unmount()?;
        // A mount namespace that another test made holds a copy of every mount until it ends.
        let is_free = || device_use::of_device(self.device()).is_ok_and(|used| !used.exclusive);
        if !wait_until(TEARDOWN_LIMIT, is_free) {
            bail!("{} is mounted somewhere else still", point.display());
        }
        let program: &[&str] = match kind {
            Kind::Ext4 => &["e2fsck", "-fn"],
            Kind::Xfs => &["xfs_repair", "-n"],
            Kind::Btrfs => &["btrfs", "check", "--readonly"],
        };
        let checked = Command::new(program[0]).args(&program[1..]).arg(self.device()).output()?;
        self.mount()?;
        let said = [checked.stdout, checked.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        // e2fsck(8) passes over a journal that it may not replay, and only says so.
        if !checked.status.success() || said.contains("skipping journal recovery") {
            bail!("{program:?} of {}: {}: {said}", point.display(), checked.status);
        }
        Ok(())
    }

    /// Starts to create and write a file in it. A frozen file system lets it wait.
    #[must_use]
    pub fn start_write(&self) -> PendingWrite {
        let (tell, told) = mpsc::channel();
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let path = self.path().join(format!("probe-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        let started = Instant::now();
        thread::spawn(move || {
            let written = fs::write(&path, "written").and_then(|()| fs::remove_file(&path));
            // Nobody may be listening any more.
            let _ = tell.send(written.map(|()| started.elapsed()));
        });
        PendingWrite(told)
    }

    /// True when a write does not get through in 300 ms. Only good to show that something *is* frozen: a busy disk may take as
    /// long.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.start_write().finish(Duration::from_millis(300)).is_none()
    }
}

/// A write that may be waiting for a thaw.
#[derive(Debug)]
pub struct PendingWrite(mpsc::Receiver<std::io::Result<Duration>>);

impl PendingWrite {
    /// How long the write took since its start; `None` when it is not through within `limit` from now.
    ///
    /// # Panics
    /// The write failed.
    #[must_use]
    pub fn finish(&self, limit: Duration) -> Option<Duration> {
        self.0.recv_timeout(limit).ok().map(|written| written.expect("a probe can be written"))
    }
}

/// Unmounts what nobody goes on using. A program that ended just now may still be on its way out, and one that lists the
/// volumes of the machine has each of them open for a moment.
///
/// # Errors
/// Somebody uses it for 10 s.
pub fn unmount_idle(point: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + TEARDOWN_LIMIT;
    while let Err(error) = unmount(point, UnmountFlags::empty()) {
        if error != Errno::BUSY || Instant::now() > deadline {
            return Err(error).with_context(|| format!("unmounting {}", point.display()));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

impl Drop for LoopFs {
    fn drop(&mut self) {
        let Some(Parts { mount, device, directory, .. }) = self.parts.take() else { return };
        let (tell, told) = mpsc::channel::<()>();
        // In a thread, because each of these can wait for ever when the test has failed badly.
        thread::spawn(move || {
            let _ = File::open(&mount).map(freeze::thaw);
            let _ = unmount(&mount, UnmountFlags::DETACH);
            // The last user is gone: autoclear detaches the image.
            drop(device);
            drop(directory);
            drop(tell);
        });
        let _ = told.recv_timeout(TEARDOWN_LIMIT);
    }
}

/// Thaws a file system at the end of its time, unless it is dropped before: every test that freezes one itself has one.
#[derive(Debug)]
pub struct ThawTimer {
    _cancel: mpsc::Sender<()>,
}

/// Thaws the file system of `directory` after `limit`.
#[must_use]
pub fn thaw_timer(directory: File, limit: Duration) -> ThawTimer {
    let (cancel, cancelled) = mpsc::channel();
    thread::spawn(move || {
        if cancelled.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = freeze::thaw(directory);
        }
    });
    ThawTimer { _cancel: cancel }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::ensure;

    /// Writes past the mounted file system to its device.
    fn damage(file_system: &LoopFs) -> anyhow::Result<()> {
        let request = "set_inode_field <2> links_count 77";
        let done = Command::new("debugfs").args(["-w", "-R", request]).arg(file_system.device()).output()?;
        ensure!(done.status.success(), "{done:?}");
        Ok(())
    }

    #[test]
    fn damage_is_found() -> anyhow::Result<()> {
        if LoopFs::skips("damage_is_found", &[Kind::Ext4]) {
            return Ok(());
        }
        let file_system = LoopFs::new(Kind::Ext4, 16)?;
        fs::write(file_system.path().join("file"), "x")?;
        file_system.check()?;
        damage(&file_system)?;
        let found = file_system.check().err().context("the damage was not found")?;
        ensure!(found.to_string().contains("e2fsck"), "{found:#}");
        ensure!(file_system.path().join("file").exists(), "it is not mounted again");
        Ok(())
    }
}
