//! What the kernel says of mounts, block devices and swap space, read once for a judgement.
//!
//! Everything comes from /proc, sysfs and the device nodes in /dev: no file system that is mounted is asked, so a dead server,
//! an automount point or a frozen volume delays nobody here.

use super::walk::Mounts;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use vss_linux::mountinfo::{self, MountEntry};
use vss_linux::swaps;
use vss_model::{VssCode, VssError};

/// Where sysfs names every block device, partitions too.
const BLOCK_DEVICES: &str = "/sys/class/block";
/// Where sysfs names the devices of each btrfs.
const BTRFS: &str = "/sys/fs/btrfs";
/// Types of file systems that /dev may be without anybody having to be asked.
const MEMORY_TYPES: [&str; 3] = ["devtmpfs", "tmpfs", "ramfs"];
/// Types of file systems with an anonymous device number that lie on block devices all the same.
const ON_SEVERAL_DEVICES: [&str; 2] = ["bcachefs", "btrfs"];

/// Major and minor number of a block device or a superblock.
pub type DeviceNumber = (u32, u32);

/// A block device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// What it is made of: the disk of a partition, the devices below a mapped one or an array.
    pub below: Vec<DeviceNumber>,
    /// The file of a loop device, as the kernel names it.
    pub backing_file: Option<PathBuf>,
}

/// Swap space in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swap {
    /// The file or the device's node.
    pub path: PathBuf,
    /// The device; none for a file.
    pub device: Option<DeviceNumber>,
}

/// What the kernel says.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The mounts.
    pub mounts: Mounts,
    /// The block devices.
    pub devices: BTreeMap<DeviceNumber, Device>,
    /// The devices of each superblock without a device number of its own.
    pub devices_of: BTreeMap<DeviceNumber, BTreeSet<DeviceNumber>>,
    /// The swap space.
    pub swaps: Vec<Swap>,
}

impl Facts {
    /// Reads them now.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when the mount table cannot be read. A device that goes while it is read is left out.
    pub fn read() -> Result<Self, VssError> {
        let entries = mountinfo::mounts()
            .map_err(|error| VssError::new(VssCode::Unexpected, format!("The mount table cannot be read: {error}")))?;
        let mounts = Mounts::new(entries);
        let (devices, names) = block_devices();
        let groups = btrfs_groups(&names);
        let mut devices_of: BTreeMap<DeviceNumber, BTreeSet<DeviceNumber>> = BTreeMap::new();
        let anonymous = |entry: &&MountEntry| ON_SEVERAL_DEVICES.contains(&entry.fs_type.as_str());
        for entry in mounts.entries().iter().filter(anonymous) {
            devices_of.entry((entry.major, entry.minor)).or_insert_with(|| {
                // bcachefs names all its devices, btrfs one.
                let named = entry.source.split(':').filter_map(|source| node(Path::new(source), &mounts, &names));
                let mut members: BTreeSet<DeviceNumber> = named.collect();
                let groups = groups.iter().filter(|group| !group.is_disjoint(&members)).flatten();
                members.extend(groups.copied().collect::<Vec<_>>());
                members
            });
        }
        for entry in mounts.entries().iter().filter(|entry| entry.fs_type == "xfs") {
            let others = ["logdev", "rtdev"].into_iter().filter_map(|option| entry.super_option(option));
            let others: BTreeSet<_> = others.filter_map(|path| node(Path::new(path), &mounts, &names)).collect();
            devices_of.entry((entry.major, entry.minor)).or_default().extend(others);
        }
        // A kernel without swapping has no list of it.
        let areas = swaps::swaps().unwrap_or_default().into_iter();
        let swaps = areas
            .filter_map(|area| {
                let device = if area.is_file { None } else { Some(node(&area.path, &mounts, &names)?) };
                Some(Swap { path: without_mark(area.path), device })
            })
            .collect();
        Ok(Self { mounts, devices, devices_of, swaps })
    }
}

/// All block devices, and their numbers by name.
fn block_devices() -> (BTreeMap<DeviceNumber, Device>, BTreeMap<String, DeviceNumber>) {
    let directories: Vec<(String, PathBuf)> = names(Path::new(BLOCK_DEVICES))
        .into_iter()
        .filter_map(|name| Some((name.clone(), fs::canonicalize(Path::new(BLOCK_DEVICES).join(name)).ok()?)))
        .collect();
    let mut numbers: BTreeMap<String, DeviceNumber> = BTreeMap::new();
    for (name, directory) in &directories {
        let number = fs::read_to_string(directory.join("dev")).ok();
        numbers.extend(number.and_then(|text| parse_number(text.trim_end())).map(|number| (name.clone(), number)));
    }
    let mut devices = BTreeMap::new();
    for (name, directory) in &directories {
        let Some(number) = numbers.get(name) else { continue };
        let mut below = names(&directory.join("slaves"));
        if directory.join("partition").exists() {
            below
                .extend(directory.parent().and_then(Path::file_name).and_then(|disk| disk.to_str()).map(str::to_owned));
        }
        let backing_file = fs::read_to_string(directory.join("loop/backing_file")).ok();
        let device = Device {
            below: below.iter().filter_map(|name| numbers.get(name).copied()).collect(),
            backing_file: backing_file
                .map(|text| without_mark(PathBuf::from(text.strip_suffix('\n').unwrap_or(&text)))),
        };
        devices.insert(*number, device);
    }
    (devices, numbers)
}

/// A file's path without what the kernel adds when it has no name any more. Its file system is the same.
fn without_mark(path: PathBuf) -> PathBuf {
    path.to_str().and_then(|text| text.strip_suffix(" (deleted)")).map(PathBuf::from).unwrap_or(path)
}

/// The devices of each btrfs that the kernel has open.
fn btrfs_groups(numbers: &BTreeMap<String, DeviceNumber>) -> Vec<BTreeSet<DeviceNumber>> {
    let of_one = |uuid: String| {
        let devices = names(&Path::new(BTRFS).join(uuid).join("devices"));
        devices.iter().filter_map(|name| numbers.get(name).copied()).collect()
    };
    names(Path::new(BTRFS)).into_iter().map(of_one).collect()
}

/// The device that a node in /dev stands for; by its name alone where /dev is not in memory, or has no such node.
fn node(path: &Path, mounts: &Mounts, numbers: &BTreeMap<String, DeviceNumber>) -> Option<DeviceNumber> {
    let is_in_memory = mounts.holder(path).is_some_and(|entry| MEMORY_TYPES.contains(&entry.fs_type.as_str()));
    if is_in_memory
        && let Ok(metadata) = fs::metadata(path)
        && metadata.file_type().is_block_device()
    {
        return Some((rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev())));
    }
    // sysfs writes the slash of a name like cciss/c0d0 so.
    let name = path.strip_prefix("/dev").ok()?.to_str()?.replace('/', "!");
    numbers.get(&name).copied()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn parse_number(text: &str) -> Option<DeviceNumber> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_the_devices_of_its_mounts() {
        let facts = Facts::read().unwrap();
        // A device number in the mount table is one of sysfs, unless the table is of a container that sees no devices.
        for entry in facts.mounts.entries().iter().filter(|entry| entry.major != 0) {
            let number = (entry.major, entry.minor);
            assert!(facts.devices.contains_key(&number) || facts.devices.is_empty(), "{number:?} {entry:?}");
        }
    }

    #[test]
    fn a_file_without_a_name_is_where_it_was() {
        assert_eq!(without_mark("/a b/image".into()), Path::new("/a b/image"));
        assert_eq!(without_mark("/a/image (deleted)".into()), Path::new("/a/image"));
    }

    #[test]
    fn a_device_number_is_two_numbers() {
        assert_eq!(parse_number("254:16"), Some((254, 16)));
        assert_eq!(parse_number("254"), None);
    }
}
