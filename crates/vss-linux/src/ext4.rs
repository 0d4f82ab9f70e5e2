//! What an ext4 says of itself on disk: may it be read without its log, and without a look for what was left half done?

use std::{fs::File, io, os::unix::fs::FileExt};

/// Where the superblock begins.
const SUPERBLOCK_AT: u64 = 1024;

/// `EXT4_VALID_FS`, alone: no error was found, and nothing is left to be ended.
const VALID: u16 = 1;
/// `EXT4_FEATURE_COMPAT_HAS_JOURNAL`.
const HAS_JOURNAL: u32 = 0x4;
/// `EXT4_FEATURE_INCOMPAT_RECOVER`: the log is to be replayed.
const RECOVER: u32 = 0x4;
/// `EXT4_FEATURE_RO_COMPAT_ORPHAN_PRESENT`: the orphan file names files.
const ORPHAN_PRESENT: u32 = 0x1_0000;

/// True when the ext4 at byte `offset` of `image` was left as an unmount or FIFREEZE leaves it, with no file that was deleted
/// while it was open: a writable mount would have nothing to replay and nothing to end. Without a log it cannot be told.
///
/// # Errors
/// It cannot be read.
pub fn is_whole(image: &File, offset: u64) -> io::Result<bool> {
    let mut superblock = [0; 1024];
    match image.read_exact_at(&mut superblock, offset + SUPERBLOCK_AT) {
        Ok(()) => Ok(says_whole(&superblock)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// By the offsets of `struct ext4_super_block`, fs/ext4/ext4.h.
fn says_whole(superblock: &[u8; 1024]) -> bool {
    let two = |at: usize| u16::from_le_bytes([superblock[at], superblock[at + 1]]);
    let four = |at: usize| u32::from(two(at)) | u32::from(two(at + 2)) << 16;
    let (magic, state, last_orphan) = (two(0x38), two(0x3a), four(0xe8));
    let (compatible, incompatible, read_only_compatible) = (four(0x5c), four(0x60), four(0x64));
    magic == 0xef53
        && state == VALID
        && compatible & HAS_JOURNAL != 0
        && incompatible & RECOVER == 0
        && read_only_compatible & ORPHAN_PRESENT == 0
        && last_orphan == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_left_half_done_is_seen() {
        let mut whole = [0; 1024];
        for (at, byte) in [(0x38, 0x53), (0x39, 0xef), (0x3a, 1), (0x5c, 4)] {
            whole[at] = byte;
        }
        assert!(says_whole(&whole));
        // No ext4; an error; orphans to be ended; no log; a log to be replayed; an orphan file with files; a list of them.
        for (at, byte) in [(0x38, 0), (0x3a, 3), (0x3a, 5), (0x5c, 0), (0x60, 4), (0x66, 1), (0xe8, 12), (0xeb, 1)] {
            let mut other = whole;
            other[at] = byte;
            assert!(!says_whole(&other), "{byte:#x} at {at:#x}");
        }
    }

    #[test]
    fn what_is_no_file_system_is_not_whole() {
        assert!(!is_whole(&File::open("/dev/zero").unwrap(), 0).unwrap());
        assert!(!is_whole(&File::open("/dev/null").unwrap(), 0).unwrap());
    }
}
