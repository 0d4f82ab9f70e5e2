//! A volume in a sparse file, on a loop device of its own, mounted: for the demo and the benchmarks. (The tests' file
//! systems are in `vss-tests`, which builds the whole service; a task that shows the service should start sooner.)

use crate::interrupt::Interrupt;
use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use vss_linux::loop_device::{AttachOptions, LoopDevice};

/// A kind of file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Btrfs,
    Ext4,
    Xfs,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Btrfs => "btrfs",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    /// How it is made, quietly and without discarding the whole image.
    fn mkfs(self) -> Command {
        let options: &[&str] = match self {
            Self::Btrfs | Self::Xfs => &["-q", "-K"],
            Self::Ext4 => &["-q", "-F", "-E", "nodiscard,lazy_itable_init=0"],
        };
        let mut command = Command::new(format!("mkfs.{}", self.name()));
        command.args(options);
        command
    }
}

/// A mounted volume. Dropping it unmounts it; the kernel then detaches its loop device.
#[derive(Debug)]
pub(crate) struct Volume {
    mount: PathBuf,
    device: LoopDevice,
}

impl Volume {
    /// Makes a btrfs volume of `gib` GiB: its image beside the mount point `directory`, which is created.
    pub(crate) fn create(directory: &Path, gib: u64, interrupt: &Interrupt) -> Result<Self> {
        Self::create_of(Kind::Btrfs, directory, gib << 10, interrupt)
    }

    /// Makes a volume of this kind and of `mib` MiB, as [`Volume::create`].
    pub(crate) fn create_of(kind: Kind, directory: &Path, mib: u64, interrupt: &Interrupt) -> Result<Self> {
        let image = directory.with_extension("img");
        File::create_new(&image)?.set_len(mib << 20)?;
        // Its advice on standard output is not for our user.
        interrupt.output(kind.mkfs().arg(&image))?;
        fs::create_dir(directory)?;
        let device = LoopDevice::attach(&image, AttachOptions { autoclear: true, ..AttachOptions::default() })
            .context("cannot attach a loop device")?;
        mount(device.path(), directory, kind.name(), MountFlags::empty(), None).with_context(|| {
            format!("cannot mount {} (does this kernel have {}?)", device.path().display(), kind.name())
        })?;
        Ok(Self { mount: directory.to_path_buf(), device })
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.mount
    }

    /// Waits until everything written so far is on disk: on the volume, and its image on the file system below.
    pub(crate) fn settle(&self) -> Result<()> {
        rustix::fs::syncfs(File::open(&self.mount)?)?;
        Ok(File::open(self.mount.with_extension("img"))?.sync_all()?)
    }

    /// Its loop device.
    pub(crate) fn device(&self) -> &Path {
        self.device.path()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Fails when it is not mounted any more.
        let _ = unmount(&self.mount, UnmountFlags::DETACH);
    }
}
