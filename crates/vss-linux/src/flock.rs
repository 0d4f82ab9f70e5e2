//! Looking at locks of flock(2) without taking one, by /proc/locks (proc_locks(5)). Taking and giving back belongs to those
//! who need a lock.

use crate::mountinfo;
use rustix::fs::{AtFlags, StatxFlags};
use std::{fs, io, os::fd::AsFd};

/// True when somebody holds an exclusive flock(2) on this file. One that is held from outside of our pid namespace is not
/// seen.
///
/// # Errors
/// `/proc/locks` or the mount table cannot be read.
pub fn is_locked(file: impl AsFd) -> io::Result<bool> {
    let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::INO | StatxFlags::MNT_ID)?;
    // The kernel names the superblock, as mountinfo does; st_dev may be another number (btrfs, overlayfs).
    let device = mountinfo::mounts()?
        .iter()
        .find(|entry| entry.mount_id == stat.stx_mnt_id)
        .map_or((stat.stx_dev_major, stat.stx_dev_minor), |entry| (entry.major, entry.minor));
    Ok(names(&fs::read_to_string("/proc/locks")?, device, stat.stx_ino))
}

/// True when the text of /proc/locks has an exclusive flock that is held on this file. A line that begins with `->` after
/// its number is of one who waits.
fn names(locks: &str, (major, minor): (u32, u32), inode: u64) -> bool {
    let place = format!("{major:02x}:{minor:02x}:{inode}");
    locks.lines().any(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        words.next() == Some("FLOCK")
            && words.any(|word| word == "WRITE")
            && words.nth(1).is_some_and(|word| word == place)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{FlockOperation, flock};

    #[test]
    fn only_an_exclusive_flock_that_is_held_counts() {
        let file = ((8, 1), 77);
        let locked = |line: &str| names(line, file.0, file.1);
        assert!(locked("1: FLOCK  ADVISORY  WRITE 12 08:01:77 0 EOF"));
        assert!(locked("9: POSIX  ADVISORY  WRITE 1 00:01:5 0 EOF\n12: FLOCK  ADVISORY  WRITE 12 08:01:77 0 EOF\n"));
        for other in [
            "1: FLOCK  ADVISORY  READ 12 08:01:77 0 EOF",
            "1: -> FLOCK  ADVISORY  WRITE 12 08:01:77 0 EOF",
            "1: POSIX  ADVISORY  WRITE 12 08:01:77 0 EOF",
            "1: FLOCK  ADVISORY  WRITE 12 08:01:777 0 EOF",
            "1: FLOCK  ADVISORY  WRITE 12 08:11:77 0 EOF",
            "1: FLOCK",
            "",
        ] {
            assert!(!locked(other), "{other}");
        }
    }

    #[test]
    fn a_real_lock_is_seen_and_not_taken() {
        let path = std::env::temp_dir().join(format!("vss-flock-{}", std::process::id()));
        let file = fs::File::create(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(!is_locked(&file).unwrap());
        flock(&file, FlockOperation::LockShared).unwrap();
        assert!(!is_locked(&file).unwrap(), "shared");
        flock(&file, FlockOperation::LockExclusive).unwrap();
        assert!(is_locked(&file).unwrap());
        flock(&file, FlockOperation::Unlock).unwrap();
        assert!(!is_locked(&file).unwrap());
    }
}
