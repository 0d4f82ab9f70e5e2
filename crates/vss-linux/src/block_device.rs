//! Facts about a block device: how large it is, what lies below it, since when it is mounted, and what of it is under way.

use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use rustix::ioctl::{Getter, ioctl, opcode};

/// `BLKGETSIZE64`, `_IOR(0x12, 114, size_t)`.
const BLKGETSIZE64: rustix::ioctl::Opcode = opcode::read::<u64>(0x12, 114);

/// Bytes of the device. Allocates nothing.
///
/// # Errors
/// `ENOTTY` when it is no block device.
pub fn size(device: impl AsFd) -> io::Result<u64> {
    // SAFETY: BLKGETSIZE64 writes one u64 and reads nothing.
    Ok(unsafe { ioctl(device, Getter::<BLKGETSIZE64, u64>::new()) }?)
}

/// Bytes of the smallest read or write that the device takes: what O_DIRECT must be a multiple of.
///
/// # Errors
/// `ENOTTY` when it is no block device.
pub fn sector(device: impl AsFd) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: BLKSSZGET writes one int, which lives through the call.
    let result = unsafe {
        libc::ioctl(device.as_fd().as_raw_fd(), linux_raw_sys::ioctl::BLKSSZGET as libc::Ioctl, &raw mut bytes)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    u64::try_from(bytes).map_err(io::Error::other)
}

/// The number of the disk in this boot (`diskseq`, Linux 5.15): another one each time when a medium is put into a drive or an
/// image is attached to a loop device. Of a partition that of its disk.
///
/// # Errors
/// There is no such device, or the kernel is older.
pub fn disk_sequence(device_number: u64) -> io::Result<u64> {
    number_in(&disk(device_number)?.join("diskseq"))
}

/// True for a device of device-mapper, or a partition of one: what lies below it can be exchanged (`dmsetup load`,
/// `lvconvert --merge`), and it stays the same device.
///
/// # Errors
/// There is no such device, or sysfs is not mounted.
pub fn is_mapped(device_number: u64) -> io::Result<bool> {
    Ok(disk(device_number)?.join("dm").exists())
}

/// The number in this boot of the mounting of the ext4 or XFS on the device: another one after it was unmounted everywhere.
///
/// It is that of the directory in sysfs which lives as long as the file system is mounted. No number comes twice in a boot:
/// those of sysfs have 64 bits, and go up (Linux 5.5).
///
/// # Errors
/// None is mounted on it; sysfs is not mounted.
pub fn mounting(device_number: u64) -> io::Result<u64> {
    let (major, minor) = (rustix::fs::major(device_number), rustix::fs::minor(device_number));
    let device = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}"))?;
    let name = device.file_name().unwrap_or_default();
    let found = fs::metadata(Path::new("/sys/fs/ext4").join(name));
    Ok(found.or_else(|_| fs::metadata(Path::new("/sys/fs/xfs").join(name)))?.ino())
}

/// Bytes of the largest read or write that stays one request, wherever the pages of its memory lie: the kernel cuts what is
/// longer, or has more segments, into several.
///
/// # Errors
/// There is no such device, or sysfs is not mounted.
pub fn largest_request(device_number: u64) -> io::Result<u64> {
    let queue = disk(device_number)?.join("queue");
    let by_length = number_in(&queue.join("max_sectors_kb"))?.saturating_mul(1024);
    let by_segments = number_in(&queue.join("max_segments"))?.saturating_mul(rustix::param::page_size() as u64);
    Ok(by_length.min(by_segments))
}

/// The directory in sysfs of the device, of a partition that of its disk.
fn disk(device_number: u64) -> io::Result<PathBuf> {
    let (major, minor) = (rustix::fs::major(device_number), rustix::fs::minor(device_number));
    let mut directory = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}"))?;
    if directory.join("partition").exists() {
        directory.pop();
    }
    Ok(directory)
}

fn number_in(file: &Path) -> io::Result<u64> {
    fs::read_to_string(file)?.trim().parse().map_err(io::Error::other)
}

/// Requests to a device that are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnderWay {
    /// Reads.
    pub reads: u64,
    /// Writes, discards and the like.
    pub writes: u64,
}

/// True when the kernel counts the requests to the device that are under way (`queue/iostats`); otherwise [`under_way`] has
/// none, whatever is.
///
/// # Errors
/// There is no such device, or sysfs is not mounted.
pub fn counts_under_way(device_number: u64) -> io::Result<bool> {
    Ok(number_in(&disk(device_number)?.join("queue/iostats"))? == 1)
}

/// The requests to the device that are under way now (`/sys/dev/block/M:N/inflight`).
///
/// # Errors
/// There is no such device, or sysfs is not mounted.
pub fn under_way(device_number: u64) -> io::Result<UnderWay> {
    let (major, minor) = (rustix::fs::major(device_number), rustix::fs::minor(device_number));
    let text = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/inflight"))?;
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(reads)), Some(Ok(writes))) => Ok(UnderWay { reads, writes }),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("inflight is {text:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_device_has_no_size() {
        assert_eq!(BLKGETSIZE64, 0x8008_1272);
        let file = fs::File::open("/proc/version").unwrap();
        assert!(size(&file).is_err() && sector(&file).is_err() && under_way(0).is_err());
        assert!(counts_under_way(0).is_err() && is_mapped(0).is_err() && mounting(0).is_err());
        assert!(disk_sequence(0).is_err() && largest_request(0).is_err());
    }
}
