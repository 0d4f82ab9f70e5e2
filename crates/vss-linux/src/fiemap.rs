//! Where a file lies on its device (FS_IOC_FIEMAP).

use std::{
    io,
    ops::Range,
    os::fd::{AsFd, AsRawFd},
};

use linux_raw_sys::ioctl as numbers;

/// Extents that the kernel fills in one call.
const EXTENTS: usize = 512;

/// `struct fiemap_extent` of include/uapi/linux/fiemap.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct RawExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

/// `struct fiemap`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
}

#[repr(C)]
struct Request {
    head: Head,
    extents: [RawExtent; EXTENTS],
}

/// `FIEMAP_FLAG_SYNC`: what is in memory only is written back first.
const SYNC: u32 = 1;
/// `FIEMAP_EXTENT_LAST`.
const LAST: u32 = 1;
/// No place on the device: `FIEMAP_EXTENT_UNKNOWN`, `_DELALLOC`, `_ENCODED`.
const NOWHERE: u32 = 2 | 4 | 8;
/// `FIEMAP_EXTENT_UNWRITTEN`.
const UNWRITTEN: u32 = 0x800;
/// `FIEMAP_EXTENT_SHARED`.
const SHARED: u32 = 0x2000;

/// One piece of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Bytes of the file.
    pub logical: Range<u64>,
    /// Where they lie on the device, in bytes; none when they have no place of their own there.
    pub physical: Option<Range<u64>>,
    /// Nothing was written there since it was allocated: whatever is on the device, it is read as zeroes.
    pub is_unwritten: bool,
    /// Other files have these blocks, too, or this one has them twice.
    pub is_shared: bool,
}

/// In how many pieces the file lies on its device. What is only in memory yet does not count.
///
/// # Errors
/// `EOPNOTSUPP` on a file system that does not tell.
pub fn count(file: impl AsFd) -> io::Result<u32> {
    let mut request = Head { length: u64::MAX, ..Head::default() };
    // SAFETY: with an extent count of 0 FS_IOC_FIEMAP reads and writes one struct fiemap without its array, which Head
    // mirrors.
    let result =
        unsafe { libc::ioctl(file.as_fd().as_raw_fd(), numbers::FS_IOC_FIEMAP as libc::Ioctl, &raw mut request) };
    if result == 0 { Ok(request.mapped_extents) } else { Err(io::Error::last_os_error()) }
}

/// The pieces that the file lies in, ascending; holes are left out. What is in memory only is written back first.
///
/// # Errors
/// `EOPNOTSUPP` on a file system that does not tell.
pub fn pieces(file: impl AsFd) -> io::Result<Vec<Piece>> {
    let mut request = Box::new(Request { head: Head::default(), extents: [RawExtent::default(); EXTENTS] });
    let mut pieces = Vec::new();
    let mut start = 0_u64;
    loop {
        request.head =
            Head { start, length: u64::MAX - start, flags: SYNC, extent_count: EXTENTS as u32, ..Head::default() };
        // SAFETY: FS_IOC_FIEMAP reads the head and writes it and at most `extent_count` extents behind it; Request mirrors
        // struct fiemap and has room for that many.
        let result =
            unsafe { libc::ioctl(file.as_fd().as_raw_fd(), numbers::FS_IOC_FIEMAP as libc::Ioctl, &raw mut *request) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        let found = &request.extents[..(request.head.mapped_extents as usize).min(EXTENTS)];
        pieces.extend(found.iter().map(|extent| Piece {
            logical: extent.logical..extent.logical.saturating_add(extent.length),
            physical:
                (extent.flags & NOWHERE == 0).then(|| extent.physical..extent.physical.saturating_add(extent.length)),
            is_unwritten: extent.flags & UNWRITTEN != 0,
            is_shared: extent.flags & SHARED != 0,
        }));
        match found.last() {
            Some(last) if last.flags & LAST == 0 => start = last.logical.saturating_add(last.length),
            _ => return Ok(pieces),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_are_the_kernels() {
        assert_eq!((size_of::<Head>(), size_of::<RawExtent>()), (32, 56));
    }

    #[test]
    fn proc_tells_nothing() {
        let file = std::fs::File::open("/proc/version").unwrap();
        assert!(count(&file).is_err() && pieces(&file).is_err());
    }
}
