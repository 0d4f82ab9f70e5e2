//! Which device a volume is that is put back: found by its file system's uuid, wherever it is attached now. Its name alone says
//! nothing: after a reboot another disk may have it.

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};
use vss_linux::{block_device, clock, fs_uuid, mountinfo};
use vss_model::{Volume, VssCode, VssError};
use vss_provider::{failure::failed, outer};

/// A device as it is attached: another one at its name, or the same one attached anew, is not equal to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attachment {
    #[serde(with = "vss_model::path_text")]
    path: PathBuf,
    /// The boot in which it is.
    boot_id: String,
    /// The number of its disk in that boot; none: the kernel tells none.
    disk: Option<u64>,
}

impl Attachment {
    /// How the device at `path` is attached now.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let disk = block_device::disk_sequence(fs::metadata(path)?.rdev()).ok();
        Ok(Self { path: path.to_owned(), boot_id: clock::boot_id()?, disk })
    }

    /// True when it was attached all the time since.
    pub(crate) fn is_still_there(&self) -> bool {
        self.disk.is_some() && Self::of(&self.path).is_ok_and(|now| now == *self)
    }
}

/// Finds the volume's device; `begun_on` is the one on which its revert was begun. No device with another file system is ever
/// taken, whatever it was before.
///
/// # Errors
/// `VSS_E_OBJECT_NOT_FOUND` when it is not there; `VSS_E_PROVIDER_VETO` when two have its uuid.
pub(crate) fn find(volume: &Volume, begun_on: Option<&Attachment>) -> Result<PathBuf, VssError> {
    let place = volume.mount_point.display();
    match (with_uuid(volume).as_slice(), begun_on) {
        ([device], _) => Ok(device.clone()),
        // Half written, a superblock may be none for a while.
        ([], Some(begun)) if begun.is_still_there() && has_no_superblock(&begun.path) => Ok(begun.path.clone()),
        ([], _) => Err(VssError::new(VssCode::ObjectNotFound, format!("The device of {place} is not there"))
            .with_hint("Attach the disk and try again")),
        ([one, other, ..], _) => Err(VssError::new(
            VssCode::ProviderVeto,
            format!(
                "{} and {} both have the file system of {place}, and it is not known which one it is",
                one.display(),
                other.display()
            ),
        )
        .with_hint("Detach the clone and try again")),
    }
}

/// Every device with the file system of the volume, but for shadow copies and what other devices are built on: a leg of a RAID
/// and a path of a multipath device have the superblock too.
fn with_uuid(volume: &Volume) -> Vec<PathBuf> {
    let is_built_on =
        |sysfs: &Path| fs::read_dir(sysfs.join("holders")).is_ok_and(|mut holders| holders.next().is_some());
    // Nothing is attached to most loop devices, and opening an empty drive takes long.
    let is_empty = |sysfs: &Path| fs::read_to_string(sysfs.join("size")).is_ok_and(|size| size.trim() == "0");
    let entries = fs::read_dir("/sys/class/block").into_iter().flatten().flatten().map(|entry| entry.path());
    let names = entries.filter(|sysfs| !is_built_on(sysfs) && !is_empty(sysfs)).filter_map(|sysfs| {
        // sysfs writes the slash in names such as `cciss/c0d0` as an exclamation mark.
        Some(Path::new("/dev").join(sysfs.file_name()?.to_str()?.replace('!', "/")))
    });
    let has_uuid = |device: &PathBuf| {
        matches!(fs_uuid::of_device(device, &volume.fs_type), Ok(Some(uuid)) if uuid.to_string() == volume.uuid)
            && !outer::is_shadow_copy(device)
    };
    // Where nobody makes the kernel's names in `/dev`, it has that by which it was mounted.
    let mut found: Vec<_> = names.chain(fs::canonicalize(&volume.source)).filter(has_uuid).collect();
    let number = |device: &PathBuf| fs::metadata(device).map_or(0, |found| found.rdev());
    found.sort_by_key(number);
    found.dedup_by_key(|device| number(device));
    found
}

/// The block of a device or an image that has the superblock of ext4 or XFS, as a digest. No CRC-32C: the superblocks have
/// their own in them, with which that of any is the same.
pub(crate) fn superblock(file: &File) -> io::Result<[u8; 32]> {
    let mut block = [0; 4096];
    file.read_exact_at(&mut block, 0)?;
    Ok(*blake3::hash(&block).as_bytes())
}

fn has_no_superblock(device: &Path) -> bool {
    ["ext4", "xfs", "btrfs"].iter().all(|kind| matches!(fs_uuid::of_device(device, kind), Ok(None)))
}

/// Opens a device to write to it, for this alone: a mounted one refuses that.
///
/// # Errors
/// `VSS_E_PROVIDER_VETO` when it is mounted or in use.
pub(crate) fn claim(path: &Path) -> Result<File, VssError> {
    let mounts = mountinfo::mounts().map_err(|error| failed("The mount table cannot be read", &error))?;
    if let Some(entry) = mounts.iter().find(|entry| outer::device_of(entry).is_some_and(|device| device == path)) {
        return Err(VssError::new(
            VssCode::ProviderVeto,
            format!("{} is mounted at {}", path.display(), entry.mount_point.display()),
        )
        .with_hint(format!("Unmount it first: umount {}", entry.mount_point.display())));
    }
    let flags = OFlags::RDWR | OFlags::EXCL | OFlags::DIRECT | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(device) => Ok(File::from(device)),
        Err(Errno::BUSY) => Err(VssError::new(VssCode::ProviderVeto, format!("{} is in use", path.display()))
            .with_hint("Unmount it everywhere, also in other mount namespaces, and stop what uses it")),
        Err(error) => Err(failed(format!("{} cannot be opened", path.display()), &error.into())),
    }
}
