//! Which file system a descriptor belongs to, in terms that another process can recognise later.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, StatxFlags, fstat, major, minor, statx};
use rustix::io::Errno;

use crate::fs_uuid::{self, FsUuid};

/// A mounted file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// st_dev: major and minor number.
    pub device: (u32, u32),
    /// Id of the mount through which it was opened (statx(2), STATX_MNT_ID); 0 where the kernel does not tell. A kernel
    /// uses a number again after an unmount: it helps to find the file system, it never proves which one it is.
    pub mount: u64,
    /// UUID of the superblock, where kernel and file system tell it.
    pub uuid: Option<FsUuid>,
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
            uuid: fs_uuid::of_fd(&directory).ok().flatten(),
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

/// Reads the text form of a UUID.
pub(super) fn parse_uuid(text: &str) -> Option<FsUuid> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 || !digits.is_ascii() {
        return None;
    }
    let mut bytes = [0; 16];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(FsUuid(bytes))
}
