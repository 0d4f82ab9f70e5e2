//! The volume that is copied: what stands in the way of it, and what is open of it while a set is made.

use crate::copier::Origin;
use rustix::fs::{Mode, OFlags};
use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};
use vss_linux::{
    aio::{self, Queue},
    block_device,
    fsmap::{Owner, SpaceMap},
    loop_device, mountinfo, statfs,
};
use vss_model::{Volume, VssCode, VssError};
use vss_provider::{
    Support,
    failure::failed,
    outer::{self, is_shadow_copy},
};

/// Can this volume be mirrored in principle?
///
/// # Errors
/// `VSS_E_PROVIDER_VETO` when it cannot be examined.
pub(crate) fn support(volume: &Volume) -> Result<Support, VssError> {
    let no = |reason: String| Ok(Support::No(reason));
    if !matches!(volume.fs_type.as_str(), "ext4" | "xfs") {
        return no(format!("it is {}, and only ext4 and xfs are mirrored", volume.fs_type));
    }
    let Some(device) = outer::device_node(volume.device_number) else {
        return no("it lies on no block device".to_owned());
    };
    if is_shadow_copy(&device) {
        return no("it is a shadow copy itself".to_owned());
    }
    let (major, minor) = (rustix::fs::major(volume.device_number), rustix::fs::minor(volume.device_number));
    let deleted = loop_device::backing_file_of(major, minor).filter(|file| vss_provider::store::holds(file));
    if deleted.is_some() {
        return no("it is a shadow copy itself".to_owned());
    }
    let mounts = mountinfo::mounts().map_err(|error| failed("The mount table cannot be read", &error))?;
    let entry = mounts.iter().find(|entry| entry.mount_id == volume.mount_id);
    if let Some(what) = outer::part_elsewhere(entry, &volume.fs_type, &device)? {
        return no(format!("its {what} lies on another device"));
    }
    Ok(Support::Yes)
}

/// What is open of the volume.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) mount_point: PathBuf,
    /// Of the mount and of the block device.
    pub(crate) device_number: u64,
    /// The device, open for reading past the page cache.
    pub(crate) device: File,
    /// The root directory of the mount, to flush it and to ask it what is free.
    pub(crate) directory: File,
    /// Bytes of the device.
    pub(crate) size: u64,
}

impl Source {
    /// Opens it.
    pub(crate) fn open(volume: &Volume) -> Result<Self, VssError> {
        let mount_point = volume.mount_point.clone();
        let cannot =
            |what: &dyn std::fmt::Display, error: &std::io::Error| failed(format!("{what} cannot be opened"), error);
        let node = outer::device_node(volume.device_number).ok_or_else(|| gone(volume))?;
        let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        let device = rustix::fs::open(&node, flags, Mode::empty())
            .map(File::from)
            .map_err(|error| cannot(&node.display(), &error.into()))?;
        let directory = File::open(&mount_point).map_err(|error| cannot(&mount_point.display(), &error))?;
        let found = rustix::fs::fstat(&directory).map_err(|error| cannot(&mount_point.display(), &error.into()))?;
        if found.st_dev != volume.device_number {
            return Err(gone(volume));
        }
        let size = block_device::size(&device).map_err(|error| cannot(&node.display(), &error))?;
        Ok(Self { mount_point, device_number: volume.device_number, device, directory, size })
    }

    /// Bytes in use: all of the device that the file system does not call free. The size that it tells leaves out the journal
    /// and the inode tables of ext4 and the log of XFS, and those are copied too.
    pub(crate) fn in_use(&self) -> Result<u64, VssError> {
        let space = statfs::of_fd(&self.directory)
            .map_err(|error| failed(format!("The space of {} cannot be read", self.mount_point.display()), &error))?;
        Ok(self.size.saturating_sub(space.free))
    }

    /// Writes back everything dirty: what is only in memory is no write that could be traced.
    pub(crate) fn flush(&self) -> Result<(), VssError> {
        rustix::fs::syncfs(&self.directory)
            .map_err(|error| failed(format!("{} cannot be written back", self.mount_point.display()), &error.into()))
    }

    /// Calls `each` with every run of bytes that the file system tells of, and whose it is.
    pub(crate) fn owners(
        &self,
        map: &mut SpaceMap,
        each: impl FnMut(Owner, std::ops::Range<u64>),
    ) -> Result<(), VssError> {
        map.each(&self.directory, each)
            .map_err(|error| failed(format!("{} does not tell what is free", self.mount_point.display()), &error))
    }
}

impl Source {
    /// Fills `into` from `offset`; what lies behind the end is zeroes. Allocates nothing.
    pub(crate) fn read(&self, into: &mut [u8], offset: u64) -> std::io::Result<()> {
        let (into, offset) = self.within(into, offset);
        self.device.read_exact_at(into, offset)
    }

    /// The part of a piece that is on the device; the rest becomes zeroes. Allocates nothing.
    pub(crate) fn within<'a>(&self, into: &'a mut [u8], offset: u64) -> (&'a mut [u8], u64) {
        let there = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(into.len());
        let (from_device, behind) = into.split_at_mut(there);
        behind.fill(0);
        (from_device, offset)
    }
}

impl Origin for Source {
    fn read_all(&self, queue: &mut Queue, pieces: &mut [(&mut [u8], u64)]) -> Result<(), aio::Failed> {
        let mut there: Vec<_> = pieces.iter_mut().map(|(into, offset)| self.within(into, *offset)).collect();
        queue.read(&self.device, &mut there)
    }

    fn unreadable(&self, offset: u64, error: &std::io::Error) -> VssError {
        VssError::new(
            VssCode::ProviderVeto,
            format!("The device of {} cannot be read at byte {offset}: {error}", self.mount_point.display()),
        )
        .with_hint("Look for the device's errors in dmesg")
    }
}

fn gone(volume: &Volume) -> VssError {
    VssError::new(
        VssCode::ObjectNotFound,
        format!("{} is not mounted any more", Path::new(&volume.mount_point).display()),
    )
    .with_hint("Mount it again")
}
