//! The outer file system: the one that images and copies lie on. It has to be mounted; nobody's own mount is used.
//!
//! It is found again by its type and uuid. Of several with the same uuid (a copy of an XFS that is mounted beside it) the
//! one on the device that was remembered counts, and none that is a shadow copy.

use crate::{failure::failed, store};
use rustix::{fs::OFlags, io::Errno};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
};
use vss_linux::{
    btrfs::{self, Access},
    fs_uuid, loop_device, mount,
    mountinfo::{self, MountEntry},
};
use vss_model::{VssCode, VssError};

/// What a file system is found by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OuterName {
    /// As the kernel names it: `xfs`, `btrfs`, `ext4`.
    pub fs_type: String,
    /// In text form.
    pub uuid: String,
    /// The device that it was on; one of them on btrfs.
    pub device: PathBuf,
}

/// One file system, reached through a mount of its top that is attached nowhere; unmounted when it is dropped.
#[derive(Debug)]
pub struct Outer {
    name: OuterName,
    /// Its root directory (on btrfs: of subvolume 5), open for reading.
    top: OwnedFd,
    /// The mount itself, which ends with this descriptor.
    _mount: OwnedFd,
}

impl Outer {
    /// Reaches the file system; none when it is not mounted now. A read-only one is reached to read from it.
    ///
    /// # Errors
    /// `VSS_E_PROVIDER_VETO` when it cannot be mounted once more.
    pub fn open(name: &OuterName) -> Result<Option<Self>, VssError> {
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
        let cannot = |what: &str, error: &io::Error| {
            failed(format!("The {} on {} cannot be {what}", name.fs_type, device.display()), error)
        };
        let mounted = mounted.map_err(|error| cannot("mounted once more", &error))?;
        let top = mount::open_beneath(&mounted, Path::new(""), OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|error| cannot("opened", &error))?;
        Ok(Some(Self { name: name.clone(), top, _mount: mounted }))
    }

    /// What it is found by.
    #[must_use]
    pub fn name(&self) -> &OuterName {
        &self.name
    }
}

impl AsFd for Outer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.top.as_fd()
    }
}

/// True when the file system is mounted in this namespace.
///
/// # Errors
/// `VSS_E_PROVIDER_VETO` when the mount table cannot be read.
pub fn is_mounted(name: &OuterName) -> Result<bool, VssError> {
    Ok(find(name)?.is_some())
}

/// Refuses when the file system is mounted read-only.
///
/// # Errors
/// `VSS_E_PROVIDER_VETO`.
pub fn check_is_writable(name: &OuterName) -> Result<(), VssError> {
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
    let mut mounts = mountinfo::mounts().map_err(|error| failed("The mount table cannot be read", &error))?;
    mounts.retain(|entry| entry.fs_type == name.fs_type);
    // That first, and no other device is opened once it is found: one that is open cannot be let go of by others.
    mounts.sort_by_cached_key(|entry| device_of(entry).is_none_or(|device| device != name.device));
    Ok(mounts.into_iter().find(|entry| is_it(entry, name)))
}

fn is_it(entry: &MountEntry, name: &OuterName) -> bool {
    let Some(device) = device_of(entry) else { return false };
    let has_uuid =
        matches!(fs_uuid::of_device(&device, &name.fs_type), Ok(Some(uuid)) if uuid.to_string() == name.uuid);
    has_uuid && !is_shadow_copy(&device)
}

/// True when the device is attached to a copy in a store.
#[must_use]
pub fn is_shadow_copy(device: &Path) -> bool {
    let Some(name) = device.file_name() else { return false };
    loop_device::backing_file(&Path::new("/sys/class/block").join(name)).is_some_and(|image| store::holds(&image))
}

/// The block device of a mount: by the kernel's numbers where they are those of a device, else what was mounted.
#[must_use]
pub fn device_of(entry: &MountEntry) -> Option<PathBuf> {
    device_node(entry.device_number())
        .or_else(|| fs::canonicalize(&entry.source).ok().filter(|source| source.starts_with("/dev")))
}

/// The node in `/dev` of the block device with this number; none when there is no such device.
#[must_use]
pub fn device_node(device_number: u64) -> Option<PathBuf> {
    let (major, minor) = (rustix::fs::major(device_number), rustix::fs::minor(device_number));
    let sysfs = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    // sysfs writes the slash in names such as `cciss/c0d0` as an exclamation mark.
    let name = sysfs.file_name()?.to_str()?.replace('!', "/");
    Some(Path::new("/dev").join(name))
}

/// The mount of this namespace that holds `path`, by its words alone: no file system is asked.
#[must_use]
pub fn covering<'a>(path: &Path, mounts: &'a [MountEntry]) -> Option<&'a MountEntry> {
    let over = mounts.iter().filter(|entry| path.starts_with(&entry.mount_point));
    // A later mount hides an earlier one at its place; of equal ones the last is taken.
    over.max_by_key(|entry| entry.mount_point.components().count())
}

/// Which of its parts a file system has on another device than its own; a copy of that device alone would lack it. None
/// when all is on one. Of XFS the log and the realtime part, by the options of its mount; of ext4 the journal, by the
/// superblock on `device`.
///
/// # Errors
/// `VSS_E_PROVIDER_VETO` when `device` cannot be read.
pub fn part_elsewhere(
    entry: Option<&MountEntry>,
    fs_type: &str,
    device: &Path,
) -> Result<Option<&'static str>, VssError> {
    for (option, what) in [("logdev", "log"), ("rtdev", "realtime part")] {
        if entry.is_some_and(|entry| entry.super_option(option).is_some()) {
            return Ok(Some(what));
        }
    }
    if fs_type != "ext4" {
        return Ok(None);
    }
    /// `s_journal_dev` of the superblock, which begins at 1024 (fs/ext4/ext4.h).
    const JOURNAL_DEVICE: u64 = 1024 + 0xe4;
    let mut journal = [0; 4];
    File::open(device)
        .and_then(|file| file.read_exact_at(&mut journal, JOURNAL_DEVICE))
        .map_err(|error| failed(format!("{} cannot be read", device.display()), &error))?;
    Ok((journal != [0; 4]).then_some("journal"))
}

/// The uuid of the file system that `file` lies on, mounted by `host`, in text form.
///
/// # Errors
/// `NotFound` when it has none.
pub fn uuid_of(file: impl AsFd, host: &MountEntry) -> io::Result<String> {
    if host.fs_type == "btrfs" {
        return Ok(btrfs::uuid(file)?.to_string());
    }
    // XFS tells its uuid since Linux 6.9.
    if let Ok(Some(uuid)) = fs_uuid::of_fd(file) {
        return Ok(uuid.to_string());
    }
    let device = device_of(host).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let uuid = fs_uuid::of_device(&device, &host.fs_type)?;
    uuid.map(|uuid| uuid.to_string()).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// True when `error` says that the file system has no shared blocks.
#[must_use]
pub fn cannot_share(error: &io::Error) -> bool {
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    is(Errno::OPNOTSUPP) || is(Errno::NOTTY)
}
