//! What to trace: a range of sectors of one disk, as the block layer names it in its events.
//!
//! A bio to a partition carries the whole disk and the absolute sector by the time it is traced; one to a device-mapper
//! device carries that device's own number, before it is mapped. So the disk of a partition is its parent, and every other
//! block device is its own.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::TraceError;

/// Which sectors to trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Major and minor of the whole disk.
    pub disk: (u32, u32),
    /// First sector (512 bytes) of the range on the disk.
    pub start_sector: u64,
    /// Sectors (512 bytes) of the range; at least 1.
    pub sectors: u64,
    /// The driver takes bios as they are and has no requests: completions are seen at the bio (device-mapper, zram, md).
    pub bio_based: bool,
}

impl Target {
    /// The range of a block device, partition or whole, of this number (`st_dev` of a mounted file system, `st_rdev` of a
    /// device's node).
    ///
    /// # Errors
    /// It is no block device (btrfs, overlay, NFS and the like have a number of their own), or its writes cannot all be seen:
    /// a zoned device, one with DAX, or a device without requests whose driver hands bios on as they are, so that their
    /// completion is another device's.
    pub fn of(device_number: u64) -> Result<Self, TraceError> {
        let number = (rustix::fs::major(device_number), rustix::fs::minor(device_number));
        let node = PathBuf::from(format!("/sys/dev/block/{}:{}", number.0, number.1));
        let Ok(node) = fs::canonicalize(&node) else {
            return Err(refused(&format!("{}:{}", number.0, number.1), "it is no block device"));
        };
        let name = name_of(&node);
        let is_partition = node.join("partition").exists();
        let whole = if is_partition { node.parent().unwrap_or(&node) } else { &node };
        let disk = if is_partition { read_number(&whole.join("dev"), &name)? } else { number };
        let sectors = read_u64(&node.join("size"), &name)?;
        if sectors == 0 {
            return Err(refused(&name, "it has no sectors"));
        }
        let start_sector = if is_partition { read_u64(&node.join("start"), &name)? } else { 0 };
        let bio_based = !whole.join("mq").exists();
        match unseen(whole, bio_based) {
            Some(reason) => Err(refused(&name, reason)),
            None => Ok(Self { disk, start_sector, sectors, bio_based }),
        }
    }

    /// Bytes of the range.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.sectors << 9
    }
}

/// Why writes to the disk with this directory in sysfs cannot all be seen, if so.
fn unseen(disk: &Path, bio_based: bool) -> Option<&'static str> {
    let is = |attribute: &str, value: &str| read_text(&disk.join(attribute)).is_some_and(|text| text == value);
    if disk.join("queue/zoned").exists() && !is("queue/zoned", "none") {
        return Some("it is a zoned device");
    }
    // A file system may be mounted with dax, and any owner of a file may wish it for that file (FS_XFLAG_DAX). Without this
    // attribute the kernel grants neither, whatever lies below the disk.
    if is("queue/dax", "1") {
        return Some("it has DAX, by which files are written past the block layer");
    }
    if bio_based { hands_on(disk) } else { None }
}

/// Why completions of the disk without requests cannot be seen at its own bios, if so. Only drivers that are known to end the
/// bios that they were given, under their own device, are taken: one that sends a bio on to another device makes its
/// completion that device's.
fn hands_on(disk: &Path) -> Option<&'static str> {
    if disk.join("md").exists() {
        return match read_text(&disk.join("md/level")).as_deref() {
            Some("raid0" | "linear") => Some("md of this level hands writes on to its members untraced"),
            _ => None,
        };
    }
    let name = name_of(disk);
    let is_known = disk.join("dm").exists() || ["zram", "ram", "pmem"].iter().any(|kind| name.starts_with(kind));
    (!is_known).then_some("its driver has no requests, and whether it reports each completion is not known")
}

fn name_of(node: &Path) -> String {
    node.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn refused(device: &str, reason: &str) -> TraceError {
    TraceError::Device { device: device.to_owned(), reason: reason.to_owned() }
}

fn read_text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim_end().to_owned())
}

fn read_u64(path: &Path, device: &str) -> Result<u64, TraceError> {
    let number = read_text(path).and_then(|text| text.parse().ok());
    number.ok_or_else(|| refused(device, &format!("{} holds no number", path.display())))
}

fn read_number(path: &Path, device: &str) -> Result<(u32, u32), TraceError> {
    let text = read_text(path).unwrap_or_default();
    let numbers = text.split_once(':').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    numbers.ok_or_else(|| refused(device, &format!("{} holds no device number", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::makedev;

    #[test]
    fn what_is_no_block_device_is_refused() {
        let error = Target::of(makedev(0, 1)).unwrap_err();
        assert!(error.to_string().contains("no block device"), "{error}");
    }

    #[test]
    fn what_sysfs_says_of_a_disk_decides() {
        let directory = std::env::temp_dir().join(format!("vss-trace-target-{}", std::process::id()));
        let reason = |name: &str, attributes: &[(&str, &str)], bio_based: bool| {
            let disk = directory.join(name);
            for (attribute, value) in attributes {
                let file = disk.join(attribute);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, format!("{value}\n")).unwrap();
            }
            let reason = unseen(&disk, bio_based);
            fs::remove_dir_all(&directory).unwrap();
            reason.unwrap_or_default()
        };
        let plain = [("queue/zoned", "none"), ("queue/dax", "0")];
        assert_eq!((reason("sda", &plain, false), reason("dm-0", &[("dm/name", "x")], true)), ("", ""));
        assert_eq!((reason("zram0", &plain, true), reason("md0", &[("md/level", "raid1")], true)), ("", ""));
        assert!(reason("pmem0", &[("queue/dax", "1")], true).contains("DAX"));
        assert!(reason("dm-0", &[("queue/dax", "1"), ("dm/name", "x")], true).contains("DAX"));
        assert!(reason("nvme0n1", &[("queue/dax", "1")], false).contains("DAX"));
        assert!(reason("sda", &[("queue/zoned", "host-managed")], false).contains("zoned"));
        assert!(reason("md0", &[("md/level", "raid0")], true).contains("members"));
        assert!(reason("drbd0", &plain, true).contains("no requests"));
    }

    #[test]
    fn every_whole_disk_of_this_machine_is_its_own() {
        for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
            let (major, minor) = read_number(&entry.path().join("dev"), "disk").unwrap();
            match Target::of(makedev(major, minor)) {
                Ok(target) => {
                    assert_eq!((target.disk, target.start_sector), ((major, minor), 0));
                    assert_eq!(target.bio_based, !entry.path().join("mq").exists());
                }
                Err(error) => println!("{error}"),
            }
        }
    }
}
