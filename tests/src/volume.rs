//! A btrfs volume whose files, subvolumes and mounts a test knows, so that it can tell what is not its own.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use vss_linux::mountinfo;

use crate::loopfs::{Kind, LoopFs};

/// A mounted btrfs file system; its volume is the top-level subvolume.
#[derive(Debug)]
pub struct Volume {
    file_system: LoopFs,
}

impl Volume {
    /// A new, empty volume of 256 MiB (sparse).
    ///
    /// # Errors
    /// As [`LoopFs::new`].
    pub fn new() -> anyhow::Result<Self> {
        Self::of_size(256)
    }

    /// The same of this size, in MiB.
    ///
    /// # Errors
    /// As [`LoopFs::new`].
    pub fn of_size(mib: u64) -> anyhow::Result<Self> {
        Ok(Self { file_system: LoopFs::new(Kind::Btrfs, mib)? })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file_system.path()
    }

    /// Where it is mounted, for a command line.
    ///
    /// # Panics
    /// The directory for temporary files is not UTF-8.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path().to_str().expect("a path in UTF-8")
    }

    /// The file system.
    #[must_use]
    pub fn file_system(&self) -> &LoopFs {
        &self.file_system
    }

    /// Writes a file and makes the directories above it.
    ///
    /// # Errors
    /// Those of mkdir(2) and write(2).
    pub fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let path = self.path().join(file);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        Ok(fs::write(path, text)?)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It is not there, or not UTF-8.
    pub fn read(&self, file: &str) -> anyhow::Result<String> {
        let path = self.path().join(file);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// Makes a subvolume.
    ///
    /// # Errors
    /// What btrfs says.
    pub fn make_subvolume(&self, place: &str) -> anyhow::Result<()> {
        btrfs(["subvolume", "create"], &self.path().join(place)).map(drop)
    }

    /// Makes a subvolume and mounts it at `at`, which is made: a volume of its own.
    ///
    /// # Errors
    /// What btrfs says; those of mount(2).
    pub fn mount_subvolume(&self, place: &str, at: &Path) -> anyhow::Result<Mounted> {
        self.make_subvolume(place)?;
        fs::create_dir_all(at)?;
        let option = std::ffi::CString::new(format!("subvol={place}"))?;
        mount(self.file_system.device(), at, "btrfs", MountFlags::empty(), Some(option.as_c_str()))?;
        Ok(Mounted(at.to_owned()))
    }

    /// Every subvolume below the top level, by its path there.
    ///
    /// # Errors
    /// What btrfs says.
    pub fn subvolumes(&self) -> anyhow::Result<Vec<String>> {
        let listed = btrfs(["subvolume", "list"], self.path())?;
        Ok(listed.lines().filter_map(|line| Some(line.split_once(" path ")?.1.to_owned())).collect())
    }

    /// The subvolumes of the store in which copies lie.
    ///
    /// # Errors
    /// What btrfs says.
    pub fn copies(&self) -> anyhow::Result<Vec<String>> {
        Ok(self.subvolumes()?.into_iter().filter(|path| path.starts_with(".vss/")).collect())
    }

    /// Deletes a subvolume behind everybody's back.
    ///
    /// # Errors
    /// What btrfs says.
    pub fn delete_subvolume(&self, place: &str) -> anyhow::Result<()> {
        btrfs(["subvolume", "delete"], &self.path().join(place)).map(drop)
    }

    /// Checks that no copy is left, and that the file system is mounted just where the test has mounted it.
    ///
    /// # Errors
    /// What is left.
    pub fn is_clean(&self) -> anyhow::Result<()> {
        let copies = self.copies()?;
        ensure!(copies.is_empty(), "copies are left: {copies:?}");
        ensure!(!self.path().join(".vss").exists(), "the directory .vss is left");
        let places = self.places()?;
        ensure!(places == [self.path()], "still mounted at {places:?}");
        Ok(())
    }

    /// Where the file system is mounted, in this mount namespace.
    ///
    /// # Errors
    /// The mount table cannot be read.
    pub fn places(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mounts = mountinfo::mounts()?;
        let device = self.file_system.device();
        Ok(mounts.into_iter().filter(|one| Path::new(&one.source) == device).map(|one| one.mount_point).collect())
    }

    /// Takes the mount away, as an administrator does.
    ///
    /// # Errors
    /// As [`LoopFs::unmount`]: somebody uses it, and goes on using it.
    pub fn unmount(&self) -> anyhow::Result<()> {
        self.file_system.unmount()
    }

    /// Mounts it again after [`Volume::unmount`].
    ///
    /// # Errors
    /// Those of mount(2).
    pub fn mount(&self) -> std::io::Result<()> {
        Ok(mount(self.file_system.device(), self.path(), "btrfs", MountFlags::empty(), None)?)
    }
}

fn btrfs(words: [&str; 2], path: &Path) -> anyhow::Result<String> {
    let mut command = Command::new("btrfs");
    let output = command.args(words).arg(path).output()?;
    if !output.status.success() {
        bail!("btrfs {} {}: {}", words.join(" "), path.display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A mount of the test's own, undone when it is dropped.
#[derive(Debug)]
pub struct Mounted(PathBuf);

impl Mounted {
    /// Shows the directory `from` at `to`, which is made.
    ///
    /// # Errors
    /// Those of mkdir(2) and mount(2).
    pub fn bind(from: &Path, to: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(to)?;
        mount_bind(from, to)?;
        Ok(Self(to.to_owned()))
    }

    /// Mounts a file system in memory at `to`, which is made: 1 MiB.
    ///
    /// # Errors
    /// Those of mkdir(2) and mount(2).
    pub fn memory(to: &Path) -> anyhow::Result<Self> {
        Self::memory_of(to, 1)
    }

    /// The same of this size, in MiB.
    ///
    /// # Errors
    /// As [`Mounted::memory`].
    pub fn memory_of(to: &Path, mib: u64) -> anyhow::Result<Self> {
        fs::create_dir_all(to)?;
        let size = CString::new(format!("size={mib}m"))?;
        mount("none", to, "tmpfs", MountFlags::empty(), Some(size.as_c_str()))?;
        Ok(Self(to.to_owned()))
    }

    /// Mounts at `to`, which is made, what sshfs(1) mounts, of a server that answers nothing: whoever asks it anything waits
    /// until the file is closed.
    ///
    /// # Errors
    /// Those of mkdir(2) and mount(2), and of opening /dev/fuse.
    pub fn unanswered(to: &Path) -> anyhow::Result<(Self, File)> {
        fs::create_dir_all(to)?;
        let server = File::options().read(true).write(true).open("/dev/fuse").context("/dev/fuse")?;
        let options = CString::new(format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd()))?;
        mount("user@server:/", to, "fuse.sshfs", MountFlags::empty(), Some(options.as_c_str()))?;
        Ok((Self(to.to_owned()), server))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where it is, for a command line.
    ///
    /// # Panics
    /// The path is not UTF-8.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}
