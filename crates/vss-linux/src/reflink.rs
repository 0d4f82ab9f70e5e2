//! Files that share their blocks: FICLONE and what must be known before it (ioctl_ficlone(2)).

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use linux_raw_sys::{general as abi, ioctl as numbers};

/// Makes `target` share every block of `source`: one ioctl, no data is copied. Writes back what is dirty in `source` first.
/// Allocates no memory of this process.
///
/// # Errors
/// `EOPNOTSUPP` on a file system that cannot, `EXDEV` for two file systems (before Linux 5.18 also for two mounts), `EINVAL`
/// on btrfs when one of the two has no checksums, `ETXTBSY` for a swap file in use, `ENOSPC`. Blocks while the file system
/// is frozen.
pub fn clone(source: impl AsFd, target: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::ioctl_ficlone(target, source)?)
}

/// As [`clone`], of the first `length` bytes alone: a multiple of the block size, or up to the end.
///
/// # Errors
/// As [`clone`].
pub fn clone_beginning(source: impl AsFd, target: impl AsFd, length: u64) -> io::Result<()> {
    let range = abi::file_clone_range {
        src_fd: i64::from(source.as_fd().as_raw_fd()),
        src_offset: 0,
        src_length: length,
        dest_offset: 0,
    };
    // SAFETY: FICLONERANGE reads one file_clone_range, which lives through the call.
    let result =
        unsafe { libc::ioctl(target.as_fd().as_raw_fd(), numbers::FICLONERANGE as libc::Ioctl, &raw const range) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `struct xfs_fsop_geom` of fs/xfs/libxfs/xfs_fs.h, the first version of the call that has the feature flags: 112 bytes.
#[repr(C)]
#[derive(Clone, Copy)]
struct XfsGeometry {
    sizes: [u32; 8],
    blocks: [u64; 4],
    uuid: [u8; 16],
    stripes: [u32; 2],
    version: i32,
    flags: u32,
    sectors: [u32; 2],
    directory_block: u32,
}

/// `XFS_IOC_FSGEOMETRY_V1`, `_IOR('X', 100, struct xfs_fsop_geom_v1)`.
const XFS_IOC_FSGEOMETRY_V1: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<XfsGeometry>(b'X', 100);
/// `XFS_FSOP_GEOM_FLAGS_RMAPBT`.
const XFS_RMAPBT: u32 = 1 << 19;
/// `XFS_FSOP_GEOM_FLAGS_REFLINK`.
const XFS_REFLINK: u32 = 1 << 20;

/// True when the XFS that `file` lies on was made with shared blocks (`mkfs.xfs -m reflink=1`, the default since xfsprogs
/// 5.1).
///
/// # Errors
/// `ENOTTY` when it is not XFS.
pub fn xfs_shares_blocks(file: impl AsFd) -> io::Result<bool> {
    Ok(xfs_flags(file)? & XFS_REFLINK != 0)
}

/// True when the XFS that `file` lies on knows of each block whose it is, also of one that several files share
/// (`mkfs.xfs -m rmapbt=1`, the default since xfsprogs 6.5).
///
/// # Errors
/// `ENOTTY` when it is not XFS.
pub fn xfs_tells_owners(file: impl AsFd) -> io::Result<bool> {
    Ok(xfs_flags(file)? & XFS_RMAPBT != 0)
}

fn xfs_flags(file: impl AsFd) -> io::Result<u32> {
    // SAFETY: XFS_IOC_FSGEOMETRY_V1 writes one struct xfs_fsop_geom_v1, which XfsGeometry mirrors, and reads nothing.
    let geometry =
        unsafe { rustix::ioctl::ioctl(file, rustix::ioctl::Getter::<XFS_IOC_FSGEOMETRY_V1, XfsGeometry>::new()) }?;
    Ok(geometry.flags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn the_geometry_has_the_kernels_number() {
        assert_eq!(XFS_IOC_FSGEOMETRY_V1, 0x8070_5864);
    }

    #[test]
    fn proc_shares_nothing() {
        let file = File::open("/proc/version").unwrap();
        assert!(xfs_shares_blocks(&file).is_err() && xfs_tells_owners(&file).is_err());
        assert!(clone_beginning(&file, &file, 4096).is_err());
    }
}
