//! The outer file system: the one that an image and its copies lie on. It has to be mounted; nobody's own mount is used.
//!
//! It is found again by its type and uuid. Of several with the same uuid (a copy of an XFS that is mounted beside it) the
//! one on the device that was remembered counts, and none that is a shadow copy.

use rustix::{fs::OFlags, io::Errno};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};
use vss_linux::{
    btrfs::{self, Access},
    fs_uuid, loop_device, mount,
    mountinfo::{self, MountEntry},
};
use vss_model::{VssCode, VssError};
use vss_provider::{failure::failed, store};

/// What a file system is found by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct OuterName {
    /// `xfs` or `btrfs`.
    pub(crate) fs_type: String,
    /// In text form.
    pub(crate) uuid: String,
    /// The device that it was on; one of them on btrfs.
    pub(crate) device: PathBuf,
}

/// One file system, reached through a mount of its top that is attached nowhere; unmounted when it is dropped.
#[derive(Debug)]
pub(crate) struct Outer {
    name: OuterName,
    /// Its root directory (on btrfs: of subvolume 5), open for reading.
    top: OwnedFd,
    /// The mount itself, which ends with this descriptor.
    _mount: OwnedFd,
}

impl Outer {
    /// Reaches the file system; none when it is not mounted now. A read-only one is reached to read from it.
    pub(crate) fn open(name: &OuterName) -> Result<Option<Self>, VssError> {
        let Some(entry) = find(name)? else { return Ok(None) };
        let device = device_of(&entry).unwrap_or_else(|| PathBuf::from(&entry.source));
        // The same superblock as that of the mount that was found.
        let read_only = entry.is_file_system_read_only();
        let mounted = if name.fs_type == "btrfs" {
            let access = if read_only { Access::ReadOnly } else { Access::ReadWrite };
            btrfs::mount_detached(std::slice::from_ref(&device), btrfs::TOP_LEVEL, access)
        } else {
            mount::mount_device(&name.fs_type, &device, read_only, &[])
        };
        let cannot = |what: &str, error: &std::io::Error| {
            failed(format!("The {} on {} cannot be {what}", name.fs_type, device.display()), error)
        };
        let mounted = mounted.map_err(|error| cannot("mounted once more", &error))?;
        let top = mount::open_beneath(&mounted, Path::new(""), OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|error| cannot("opened", &error))?;
        Ok(Some(Self { name: name.clone(), top, _mount: mounted }))
    }

    /// What it is found by.
    pub(crate) fn name(&self) -> &OuterName {
        &self.name
    }

    /// Brings every change of directories so far to the disk.
    pub(crate) fn commit(&self) -> Result<(), VssError> {
        let done = if self.name.fs_type == "btrfs" {
            btrfs::commit_transaction(self)
        } else {
            // On XFS the log up to here, whatever is in it.
            rustix::fs::fsync(self).map_err(std::io::Error::from)
        };
        done.map_err(|error| {
            failed(format!("The {} {} cannot be written to disk", self.name.fs_type, self.name.uuid), &error)
        })
    }
}

impl AsFd for Outer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.top.as_fd()
    }
}

/// True when the file system is mounted in this namespace.
pub(crate) fn is_mounted(name: &OuterName) -> Result<bool, VssError> {
    Ok(find(name)?.is_some())
}

/// Refuses when the file system is mounted read-only.
pub(crate) fn check_is_writable(name: &OuterName) -> Result<(), VssError> {
    match find(name)? {
        Some(entry) if entry.is_file_system_read_only() => Err(VssError::new(
            VssCode::ProviderVeto,
            format!("The {} at {}, where the image lies, is read-only", name.fs_type, entry.mount_point.display()),
        )
        .with_hint("Mount it writable: making a copy writes to it")),
        _ => Ok(()),
    }
}

/// A mount of the file system, on the device that was remembered if it is on that; none when there is none.
fn find(name: &OuterName) -> Result<Option<MountEntry>, VssError> {
    let mounts = mountinfo::mounts().map_err(|error| failed("The mount table cannot be read", &error))?;
    let found = mounts.into_iter().filter(|entry| is_it(entry, name));
    Ok(found.min_by_key(|entry| device_of(entry).is_none_or(|device| device != name.device)))
}

fn is_it(entry: &MountEntry, name: &OuterName) -> bool {
    if entry.fs_type != name.fs_type {
        return false;
    }
    let Some(device) = device_of(entry) else { return false };
    let has_uuid =
        matches!(fs_uuid::of_device(&device, &name.fs_type), Ok(Some(uuid)) if uuid.to_string() == name.uuid);
    has_uuid && !is_shadow_copy(&device)
}

/// True when the device is attached to a copy in a store.
pub(crate) fn is_shadow_copy(device: &Path) -> bool {
    let Some(name) = device.file_name() else { return false };
    loop_device::backing_file(&Path::new("/sys/class/block").join(name)).is_some_and(|image| store::holds(&image))
}

/// The block device of a mount: by the kernel's numbers where they are those of a device, else what was mounted.
pub(crate) fn device_of(entry: &MountEntry) -> Option<PathBuf> {
    let sysfs = fs::canonicalize(format!("/sys/dev/block/{}:{}", entry.major, entry.minor)).ok();
    let by_number = sysfs.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
    match by_number {
        // sysfs writes the slash in names such as `cciss/c0d0` as an exclamation mark.
        Some(name) => Some(Path::new("/dev").join(name.replace('!', "/"))),
        None => fs::canonicalize(&entry.source).ok().filter(|source| source.starts_with("/dev")),
    }
}

/// True when `error` says that the file system has no shared blocks.
pub(crate) fn cannot_share(error: &std::io::Error) -> bool {
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    is(Errno::OPNOTSUPP) || is(Errno::NOTTY)
}
