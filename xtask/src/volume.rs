//! A btrfs volume in a sparse file, on a loop device of its own, mounted: for the demo and the benchmarks. (The tests' file
//! systems are in `vss-tests`, which builds the whole service; a task that shows the service should start sooner.)

use crate::interrupt::Interrupt;
use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use vss_linux::loop_device::{AttachOptions, LoopDevice};

/// A mounted volume. Dropping it unmounts it; the kernel then detaches its loop device.
#[derive(Debug)]
pub(crate) struct Volume {
    mount: PathBuf,
    device: LoopDevice,
}

impl Volume {
    /// Makes a volume of `gib` GiB: its image beside the mount point `directory`, which is created.
    pub(crate) fn create(directory: &Path, gib: u64, interrupt: &Interrupt) -> Result<Self> {
        let image = directory.with_extension("img");
        File::create_new(&image)?.set_len(gib << 30)?;
        // Its advice on standard output is not for our user.
        interrupt.output(Command::new("mkfs.btrfs").args(["-q", "-K"]).arg(&image))?;
        fs::create_dir(directory)?;
        let device = LoopDevice::attach(&image, AttachOptions { autoclear: true, ..AttachOptions::default() })
            .context("cannot attach a loop device")?;
        mount(device.path(), directory, "btrfs", MountFlags::empty(), None)
            .with_context(|| format!("cannot mount {} (does this kernel have btrfs?)", device.path().display()))?;
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
