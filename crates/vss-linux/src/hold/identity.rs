//! Which file system a descriptor belongs to, in terms that another process can recognise later.

use std::fmt;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, StatxFlags, fstat, major, minor, statx};
use rustix::io::Errno;

/// `FS_IOC_GETFSUUID`, `_IOR(0x15, 0, struct fsuuid2)` (include/uapi/linux/fs.h, since Linux 6.9).
const FS_IOC_GETFSUUID: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<FsUuid>(0x15, 0);

/// `struct fsuuid2`.
#[repr(C)]
#[derive(Clone, Copy)]
struct FsUuid {
    length: u8,
    bytes: [u8; 16],
}

/// A mounted file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// st_dev: major and minor number.
    pub device: (u32, u32),
    /// Id of the mount through which it was opened (statx(2), STATX_MNT_ID); 0 where the kernel does not tell. A kernel
    /// uses a number again after an unmount: it helps to find the file system, it never proves which one it is.
    pub mount: u64,
    /// UUID of the superblock, where kernel and file system tell it.
    pub uuid: Option<[u8; 16]>,
}

impl Identity {
    /// Of the file system that `directory` lies on.
    ///
    /// # Errors
    /// Those of fstat(2) and statx(2).
    pub fn of(directory: impl AsFd) -> Result<Self, Errno> {
        let stat = fstat(&directory)?;
        let extended = statx(&directory, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
        let told = extended.stx_mask & StatxFlags::MNT_ID.bits() != 0;
        Ok(Self {
            device: (major(stat.st_dev), minor(stat.st_dev)),
            mount: if told { extended.stx_mnt_id } else { 0 },
            uuid: uuid(&directory),
        })
    }

    /// True when both mean the same file system: same device, and no contradiction in the UUID. The mount may differ.
    pub fn is_same_file_system(&self, other: &Self) -> bool {
        self.device == other.device
            && match (self.uuid, other.uuid) {
                (Some(ours), Some(theirs)) => ours == theirs,
                _ => true,
            }
    }
}

/// The 16 bytes of a UUID in the usual text form.
pub(super) struct UuidText(pub(super) [u8; 16]);

impl fmt::Display for UuidText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl UuidText {
    pub(super) fn parse(text: &str) -> Option<[u8; 16]> {
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        if digits.len() != 32 || !digits.is_ascii() {
            return None;
        }
        let mut bytes = [0; 16];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * index..2 * index + 2], 16).ok()?;
        }
        Some(bytes)
    }
}

fn uuid(directory: impl AsFd) -> Option<[u8; 16]> {
    // SAFETY: FS_IOC_GETFSUUID fills a struct fsuuid2, whose layout FsUuid has; all bit patterns are values of it.
    let answer = unsafe {
        rustix::ioctl::ioctl(directory, rustix::ioctl::Getter::<{ FS_IOC_GETFSUUID }, FsUuid>::new())
    };
    answer.ok().filter(|uuid| uuid.length == 16).map(|uuid| uuid.bytes)
}
