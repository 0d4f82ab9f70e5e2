//! Who uses a block device: what has to let go of it before somebody else may write to it.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{OFlags, major, minor},
    io::Errno,
};

use crate::{mountinfo, swaps};

/// Who uses a block device, as far as it can be seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceUse {
    /// Where it, or a partition of it, is mounted in this process's mount namespace.
    pub mounts: Vec<PathBuf>,
    /// Devices that are built on it, as the kernel names them: `dm-3`, `md0`.
    pub holders: Vec<String>,
    /// True when it is, or has, a swap area that is in use.
    pub swap: bool,
    /// True when somebody has it for himself: one of the above, a mount in another namespace, or a program that opened it with
    /// `O_EXCL`.
    pub exclusive: bool,
}

impl DeviceUse {
    /// True when nobody uses it.
    #[must_use]
    pub fn is_free(&self) -> bool {
        !self.exclusive && self.mounts.is_empty() && self.holders.is_empty() && !self.swap
    }

    /// Who uses it, as the end of a sentence: `it is mounted at /srv and is part of dm-3`. Empty when nobody does.
    #[must_use]
    pub fn words(&self) -> String {
        let mut words = Vec::new();
        if !self.mounts.is_empty() {
            let places: Vec<String> = self.mounts.iter().map(|place| place.display().to_string()).collect();
            words.push(format!("is mounted at {}", places.join(", ")));
        }
        if !self.holders.is_empty() {
            words.push(format!("is part of {}", self.holders.join(", ")));
        }
        if self.swap {
            words.push("holds swap space in use".to_owned());
        }
        if words.is_empty() && self.exclusive {
            words.push("is mounted in another mount namespace, or a program keeps it for itself".to_owned());
        }
        if words.is_empty() { String::new() } else { format!("it {}", words.join(" and ")) }
    }
}

/// Who uses the block device at `path`. Changes nothing.
///
/// # Errors
/// It is not there, or no block device (`ENOTBLK`); the mount table cannot be read.
pub fn of_device(path: &Path) -> io::Result<DeviceUse> {
    let metadata = fs::metadata(path)?;
    if !metadata.file_type().is_block_device() {
        return Err(Errno::NOTBLK.into());
    }
    let devices = with_partitions(metadata.rdev());
    let mounts = mountinfo::mounts()?.into_iter().filter(|entry| devices.contains(&entry.device_number()));
    let swaps = swaps::swaps().unwrap_or_default();
    let is_swap = |area: &swaps::SwapArea| fs::metadata(&area.path).is_ok_and(|area| devices.contains(&area.rdev()));
    Ok(DeviceUse {
        mounts: mounts.map(|entry| entry.mount_point).collect(),
        holders: devices.iter().flat_map(|device| holders(*device)).collect(),
        swap: swaps.iter().filter(|area| !area.is_file).any(is_swap),
        exclusive: is_exclusive(path)?,
    })
}

/// Opens a block device to write to it, for ourselves alone: nobody can mount it meanwhile.
///
/// # Errors
/// `EBUSY` when somebody uses it; those of open(2).
pub fn claim(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(OFlags::EXCL.bits().cast_signed()).open(path)
}

fn is_exclusive(path: &Path) -> io::Result<bool> {
    match OpenOptions::new().read(true).custom_flags(OFlags::EXCL.bits().cast_signed()).open(path) {
        Ok(_) => Ok(false),
        Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => Ok(true),
        Err(error) => Err(error),
    }
}

fn sysfs(device: u64) -> PathBuf {
    PathBuf::from(format!("/sys/dev/block/{}:{}", major(device), minor(device)))
}

/// The device and its partitions.
fn with_partitions(device: u64) -> Vec<u64> {
    let partition = |entry: fs::DirEntry| {
        let place = entry.path();
        place.join("partition").exists().then_some(())?;
        let (major, minor) = fs::read_to_string(place.join("dev"))
            .ok()?
            .trim()
            .split_once(':')
            .map(|(a, b)| (a.to_owned(), b.to_owned()))?;
        Some(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?))
    };
    let entries = fs::read_dir(sysfs(device)).into_iter().flatten().flatten();
    std::iter::once(device).chain(entries.filter_map(partition)).collect()
}

fn holders(device: u64) -> Vec<String> {
    let entries = fs::read_dir(sysfs(device).join("holders")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_block_device_is_refused() {
        for path in ["/dev/null", "/"] {
            let error = of_device(Path::new(path)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(Errno::NOTBLK.raw_os_error()), "{path}");
        }
    }

    #[test]
    fn users_are_named() {
        let none = DeviceUse::default();
        assert!(none.is_free() && none.words().is_empty());
        let mounted = DeviceUse { mounts: vec!["/srv".into()], holders: vec!["dm-3".into()], ..none.clone() };
        assert_eq!(mounted.words(), "it is mounted at /srv and is part of dm-3");
        let hidden = DeviceUse { exclusive: true, ..none };
        assert!(!hidden.is_free() && hidden.words().contains("another mount namespace"));
    }
}
