//! The uuid of a file system: asked of the kernel for a mounted one, read from the superblock for a device.

use std::{fs::File, io, os::fd::AsFd, os::unix::fs::FileExt, path::Path};

use rustix::ioctl::{Getter, ioctl, opcode};

/// A file system's uuid, 16 bytes, most significant first. `Display` is the text form with hyphens.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FsUuid(pub [u8; 16]);

impl std::fmt::Display for FsUuid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for FsUuid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FsUuid({self})")
    }
}

/// `struct fsuuid2` of include/uapi/linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct FsUuid2 {
    length: u8,
    uuid: [u8; 16],
}

/// `FS_IOC_GETFSUUID`, `_IOR(0x15, 0, struct fsuuid2)`: ext4 since Linux 6.0, every file system with a uuid since 6.9.
const FS_IOC_GETFSUUID: rustix::ioctl::Opcode = opcode::read::<FsUuid2>(0x15, 0);

/// The uuid of the mounted file system that `file` lies on; none when it has none (tmpfs before 6.9, overlay, vfat).
///
/// # Errors
/// `ENOTTY` from a kernel or a file system that does not know the question; use [`of_device`] then.
pub fn of_fd(file: impl AsFd) -> io::Result<Option<FsUuid>> {
    // SAFETY: FS_IOC_GETFSUUID writes one `struct fsuuid2`, which FsUuid2 mirrors, and reads nothing.
    let answer = unsafe { ioctl(file, Getter::<FS_IOC_GETFSUUID, FsUuid2>::new()) }?;
    Ok((usize::from(answer.length) == answer.uuid.len() && answer.uuid != [0; 16]).then_some(FsUuid(answer.uuid)))
}

/// Where a file system keeps its magic number and its uuid.
struct Superblock {
    types: &'static [&'static str],
    magic_at: u64,
    magic: &'static [u8],
    uuid_at: u64,
}

/// From fs/btrfs/accessors.h, fs/ext4/ext4.h and fs/xfs/libxfs/xfs_format.h.
const SUPERBLOCKS: [Superblock; 3] = [
    Superblock { types: &["btrfs"], magic_at: 0x1_0040, magic: b"_BHRfS_M", uuid_at: 0x1_0020 },
    Superblock { types: &["ext2", "ext3", "ext4"], magic_at: 0x438, magic: &[0x53, 0xef], uuid_at: 0x468 },
    Superblock { types: &["xfs"], magic_at: 0, magic: b"XFSB", uuid_at: 32 },
];

/// The uuid in the superblock on `device`; none when there is no file system of type `fs_type` on it, or the type is none
/// of btrfs, ext2 to ext4 and xfs.
///
/// # Errors
/// The device cannot be opened or read.
pub fn of_device(device: &Path, fs_type: &str) -> io::Result<Option<FsUuid>> {
    let Some(layout) = SUPERBLOCKS.iter().find(|layout| layout.types.contains(&fs_type)) else {
        return Ok(None);
    };
    let file = File::open(device)?;
    let mut found = [0_u8; 8];
    let magic = &mut found[..layout.magic.len()];
    let mut uuid = [0_u8; 16];
    let read = file.read_exact_at(magic, layout.magic_at).and_then(|()| file.read_exact_at(&mut uuid, layout.uuid_at));
    match read {
        Ok(()) => Ok((magic == layout.magic).then_some(FsUuid(uuid))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_has_hyphens() {
        let uuid = FsUuid(*b"0123456789abcdef");
        assert_eq!(uuid.to_string(), "30313233-3435-3637-3839-616263646566");
    }

    #[test]
    fn the_ioctl_has_the_kernels_number() {
        assert_eq!(FS_IOC_GETFSUUID, 0x8011_1500);
    }

    #[test]
    fn what_is_no_file_system_has_none() {
        assert_eq!(of_device(Path::new("/dev/zero"), "xfs").unwrap(), None);
        assert_eq!(of_device(Path::new("/dev/null"), "btrfs").unwrap(), None);
        assert_eq!(of_device(Path::new("/dev/null"), "tmpfs").unwrap(), None);
    }
}
