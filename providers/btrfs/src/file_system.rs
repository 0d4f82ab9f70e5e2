//! Reaching a btrfs file system by its uuid: the devices that it is on, and a detached mount of its top level subvolume.
//!
//! A device may carry another file system by the time that a copy is deleted. So a device counts only when its superblock
//! has the uuid, and a mount only when the kernel says so too.

use rustix::{fs::OFlags, io::Errno};
use std::{
    fs,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};
use vss_linux::{
    btrfs::{self, Access},
    fs_uuid, mount,
    mountinfo::{self, MountEntry},
};
use vss_model::{VssCode, VssError};
use vss_provider::failure::{failed, is};

/// Devices that are remembered and tried for one file system.
const MOST_DEVICES: usize = 256;

/// The top level subvolume of one file system, mounted and attached nowhere; unmounted when it is dropped.
#[derive(Debug)]
pub(crate) struct FileSystem {
    uuid: String,
    devices: Vec<PathBuf>,
    /// The root, open for reading: an ioctl takes no O_PATH descriptor, which is what a detached mount is.
    top: OwnedFd,
    /// The mount itself, which ends with this descriptor.
    _mount: OwnedFd,
}

impl FileSystem {
    /// Mounts the file system `uuid`, which is known to have been on `devices`; none when it cannot be reached now. One that
    /// is mounted read-only is refused for [`Access::ReadWrite`].
    pub(crate) fn open(uuid: &str, devices: &[PathBuf], access: Access) -> Result<Option<Self>, VssError> {
        let devices = devices_of(uuid, devices);
        if devices.is_empty() {
            return Ok(None);
        }
        if access == Access::ReadWrite {
            check_is_writable(uuid, &devices)?;
        }
        let mount = match btrfs::mount_detached(&devices, btrfs::TOP_LEVEL, access) {
            Ok(mount) => mount,
            // A device went away, or another one of the file system is missing.
            Err(error) if [Errno::NODEV, Errno::NXIO, Errno::NOENT].iter().any(|errno| is(&error, *errno)) => {
                return Ok(None);
            }
            Err(error) => return Err(failed(format!("The btrfs file system {uuid} cannot be mounted"), &error)),
        };
        let examined = mount::open_beneath(&mount, Path::new(""), OFlags::RDONLY | OFlags::DIRECTORY)
            .and_then(|top| Ok((btrfs::uuid(&top)?, top)));
        let (found, top) =
            examined.map_err(|error| failed(format!("The btrfs file system {uuid} cannot be examined"), &error))?;
        Ok((found.to_string() == uuid).then(|| Self { uuid: uuid.to_owned(), devices, top, _mount: mount }))
    }

    /// Its uuid in text form.
    pub(crate) fn uuid(&self) -> &str {
        &self.uuid
    }

    /// Brings every change so far to the disk.
    pub(crate) fn commit(&self) -> Result<(), VssError> {
        btrfs::commit_transaction(self)
            .map_err(|error| failed(format!("The btrfs file system {} cannot be written to disk", self.uuid), &error))
    }

    /// A detached mount of subvolume `id`: nosuid, nodev.
    pub(crate) fn mount_subvolume(&self, id: u64, access: Access) -> Result<OwnedFd, VssError> {
        btrfs::mount_detached(&self.devices, id, access)
            .map_err(|error| failed(format!("Subvolume {id} of {} cannot be mounted", self.uuid), &error))
    }
}

impl AsFd for FileSystem {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.top.as_fd()
    }
}

/// True when the file system `uuid` is mounted somewhere, in any namespace.
pub(crate) fn is_mounted(uuid: &str) -> bool {
    sysfs(uuid).exists()
}

/// The devices that the mounted file system `uuid` is on, by the kernel's word; empty when it is not mounted.
pub(crate) fn mounted_devices(uuid: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(sysfs(uuid).join("devices")) else { return Vec::new() };
    let mut devices: Vec<PathBuf> = entries
        .take(MOST_DEVICES)
        .filter_map(Result::ok)
        // sysfs writes the slash in names such as `cciss/c0d0` as an exclamation mark.
        .map(|entry| Path::new("/dev").join(entry.file_name().to_string_lossy().replace('!', "/")))
        .collect();
    devices.sort();
    devices
}

/// Refuses when the file system is mounted read-only: our own writable mount would make it writable for everybody.
pub(crate) fn check_is_writable(uuid: &str, devices: &[PathBuf]) -> Result<(), VssError> {
    let mounts = mountinfo::mounts().map_err(|error| failed("The mount table cannot be read", &error))?;
    let is_ours = |entry: &&MountEntry| {
        let source = Path::new(&entry.source);
        // Names of device-mapper are links: `/dev/mapper/name` is `/dev/dm-0`.
        entry.fs_type == "btrfs"
            && entry.is_file_system_read_only()
            && devices
                .iter()
                .any(|device| device == source || fs::canonicalize(source).is_ok_and(|real| real == *device))
    };
    let Some(entry) = mounts.iter().find(is_ours) else { return Ok(()) };
    Err(VssError::new(
        VssCode::ProviderVeto,
        format!("The btrfs file system {uuid} is mounted read-only at {}", entry.mount_point.display()),
    )
    .with_hint("Mount it writable: making and deleting a snapshot writes to it"))
}

/// Devices whose superblock has `uuid`: those that the kernel uses, those that are `known`, the one that udev names.
fn devices_of(uuid: &str, known: &[PathBuf]) -> Vec<PathBuf> {
    let mut devices = mounted_devices(uuid);
    devices.extend(known.iter().take(MOST_DEVICES).cloned());
    devices.extend(fs::canonicalize(Path::new("/dev/disk/by-uuid").join(uuid)));
    let mut of_uuid: Vec<PathBuf> = Vec::new();
    for device in devices {
        let is_one = || matches!(fs_uuid::of_device(&device, "btrfs"), Ok(Some(found)) if found.to_string() == uuid);
        if !of_uuid.contains(&device) && is_one() {
            of_uuid.push(device);
        }
    }
    of_uuid
}

/// The directory that the kernel has for each mounted btrfs file system (fs/btrfs/sysfs.c).
fn sysfs(uuid: &str) -> PathBuf {
    Path::new("/sys/fs/btrfs").join(uuid)
}
