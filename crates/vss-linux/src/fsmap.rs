//! Whose the blocks of a mounted file system are, and which are free (FS_IOC_GETFSMAP, ioctl_getfsmap(2)).
//!
//! What is in use is the device without what is told to be free: ext4 has no record at all for a block group that is wholly in
//! use, so the records of what is used leave gaps.

use std::{
    io,
    ops::Range,
    os::fd::{AsFd, AsRawFd},
};

/// `struct fsmap` of include/uapi/linux/fsmap.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Record {
    device: u32,
    flags: u32,
    physical: u64,
    owner: u64,
    offset: u64,
    length: u64,
    reserved: [u64; 3],
}

/// Records that the kernel fills in one call.
const RECORDS: usize = 1024;

/// `struct fsmap_head` with its array.
#[repr(C)]
#[derive(Debug, Clone)]
struct Head {
    flags: u32,
    output_flags: u32,
    count: u32,
    entries: u32,
    reserved: [u64; 6],
    keys: [Record; 2],
    records: [Record; RECORDS],
}

/// `FS_IOC_GETFSMAP`, `_IOWR('X', 59, struct fsmap_head)` without the array: 192 bytes.
const FS_IOC_GETFSMAP: rustix::ioctl::Opcode = rustix::ioctl::opcode::read_write::<[u8; 192]>(b'X', 59);
/// The owner is one of the kernel's own (`FMR_OF_SPECIAL_OWNER`).
const SPECIAL_OWNER: u32 = 0x10;
/// The record is the last (`FMR_OF_LAST`).
const LAST: u32 = 0x20;
/// `FMR_OWN_FREE`, `FMR_OWNER(0, 1)`.
const FREE: u64 = 1;

/// Whose a run of blocks is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// It is free.
    Nobody,
    /// The file's with this inode number. What several files share is told once for each. Only XFS with a reverse mapping
    /// tells it ([`crate::reflink::xfs_tells_owners`]), and only who has CAP_SYS_ADMIN.
    File(u64),
    /// The file system's own, or not known.
    Other,
}

/// Room for the kernel's answers: made beforehand, so that asking allocates nothing.
#[derive(Debug, Clone)]
pub struct SpaceMap(Box<Head>);

impl Default for SpaceMap {
    fn default() -> Self {
        Self(Box::new(Head {
            flags: 0,
            output_flags: 0,
            count: 0,
            entries: 0,
            reserved: [0; 6],
            keys: [Record::default(); 2],
            records: [Record::default(); RECORDS],
        }))
    }
}

impl SpaceMap {
    /// Calls `each` with every run that the file system that `file` lies on tells of, ascending, in bytes from the beginning of
    /// its device. Works while it is frozen. What is in memory only (delayed allocation) counts as free: flush it before.
    ///
    /// # Errors
    /// `EOPNOTSUPP` or `ENOTTY` from a file system that does not tell (ext4 and XFS do since Linux 4.12).
    pub fn each(&mut self, file: impl AsFd, mut each: impl FnMut(Owner, Range<u64>)) -> io::Result<()> {
        let all = u64::MAX;
        self.0.keys = [
            Record::default(),
            Record {
                device: u32::MAX,
                flags: u32::MAX,
                physical: all,
                owner: all,
                offset: all,
                length: 0,
                ..Default::default()
            },
        ];
        // What the file system itself lies on; the log of XFS may be on another.
        let device = rustix::fs::fstat(&file)?.st_dev;
        // The kernel's old 32-bit form, as `new_encode_dev` writes it.
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let device = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
        loop {
            self.0.count = RECORDS as u32;
            self.0.entries = 0;
            // SAFETY: FS_IOC_GETFSMAP reads the head with its keys and writes at most `count` records behind it; Head
            // mirrors fsmap_head and has room for that many.
            let result =
                unsafe { libc::ioctl(file.as_fd().as_raw_fd(), FS_IOC_GETFSMAP as libc::Ioctl, &raw mut *self.0) };
            if result != 0 {
                return Err(io::Error::last_os_error());
            }
            let found = &self.0.records[..(self.0.entries as usize).min(RECORDS)];
            for record in found {
                let owner = match record.flags & SPECIAL_OWNER {
                    0 => Owner::File(record.owner),
                    _ if record.owner == FREE => Owner::Nobody,
                    _ => Owner::Other,
                };
                if record.device == device {
                    each(owner, record.physical..record.physical.saturating_add(record.length));
                }
            }
            match found.last() {
                Some(last) if last.flags & LAST == 0 => self.0.keys[0] = *last,
                _ => return Ok(()),
            }
        }
    }
}

/// `struct xfs_fs_eofblocks` of fs/xfs/libxfs/xfs_fs.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct BeyondEnds {
    version: u32,
    flags: u32,
    owners: [u32; 4],
    least_size: u64,
    reserved: [u64; 12],
}

/// `XFS_IOC_FREE_EOFBLOCKS`, `_IOR('X', 58, struct xfs_fs_eofblocks)`: the kernel reads what it is said to write.
const XFS_IOC_FREE_EOFBLOCKS: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<BeyondEnds>(b'X', 58);
/// Only of files that are at least so large (`XFS_EOF_FLAGS_MINFILESIZE`).
const OF_SIZE: u32 = 1 << 4;

/// Waits until files that were deleted before have no blocks any more: XFS ends them in the background, and they are owners
/// until then. Blocks while the file system is frozen.
///
/// # Errors
/// No permission. On other file systems nothing is done.
pub fn end_deletions(file: impl AsFd) -> io::Result<()> {
    // What files have beyond their ends is theirs: none is as large as this. What is waited for afterwards is wanted.
    let none = BeyondEnds { version: 1, flags: OF_SIZE, owners: [0; 4], least_size: u64::MAX, reserved: [0; 12] };
    // SAFETY: XFS_IOC_FREE_EOFBLOCKS reads one struct xfs_fs_eofblocks, which BeyondEnds mirrors and which lives through the
    // call, and writes nothing.
    let result = unsafe {
        libc::ioctl(file.as_fd().as_raw_fd(), XFS_IOC_FREE_EOFBLOCKS as libc::Ioctl, std::ptr::from_ref(&none))
    };
    match io::Error::last_os_error() {
        error if result != 0 && error.raw_os_error() != Some(libc::ENOTTY) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calls_have_the_kernels_numbers() {
        assert_eq!((FS_IOC_GETFSMAP, XFS_IOC_FREE_EOFBLOCKS), (0xc0c0_583b, 0x8080_583a));
        assert_eq!(std::mem::offset_of!(Head, records), 192);
    }

    #[test]
    fn proc_tells_nothing() {
        let file = std::fs::File::open("/proc/version").unwrap();
        assert!(SpaceMap::default().each(&file, |_, _| ()).is_err());
    }
}
