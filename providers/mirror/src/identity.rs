//! By what the image of a mirror is known again: what is known of a mirror says nothing about another file that has its name.

use crate::mirror;
use rustix::{
    fs::{AtFlags, Statx, StatxFlags, StatxTimestamp},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use std::os::fd::AsFd;
use vss_model::{ShadowId, VssError};
use vss_provider::{failure::failed, image_copy, store::Store};

/// Seconds and nanoseconds of the file system's clock.
type Time = (i64, u32);

/// An image at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Given again when the file is gone, and so no proof alone.
    inode: u64,
    /// When the file was made; none where the file system does not say (ext4 with inodes of 128 bytes).
    born: Option<Time>,
    bytes: u64,
    /// When it was written to last. Renaming and sealing it and sharing its blocks leave this as it is, and so do
    /// defragmentation and another mount.
    written: Time,
}

impl Identity {
    /// That of an open file.
    pub(crate) fn of(file: impl AsFd) -> Result<Self, VssError> {
        let found = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, wanted());
        found.map(Self::from).map_err(|error| failed("The image cannot be examined", &error.into()))
    }

    /// That of the file `name` of a store; none when there is none.
    pub(crate) fn at(store: &Store, name: &str) -> Result<Option<Self>, VssError> {
        match rustix::fs::statx(store, name, AtFlags::SYMLINK_NOFOLLOW, wanted()) {
            Ok(found) => Ok(Some(found.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(failed(format!("{name} cannot be examined"), &error.into())),
        }
    }

    /// That of a mirror's image, by the name that it has: its own or that of the copy it is lent to.
    pub(crate) fn of_mirror(store: &Store, key: &str, lent: Option<ShadowId>) -> Result<Option<Self>, VssError> {
        Self::at(store, &lent.map_or_else(|| mirror::image_name(key), image_copy::file_name))
    }

    /// True when both are of one file that kept its length.
    pub(crate) fn is_of_same(&self, other: &Self) -> bool {
        (self.inode, self.born, self.bytes) == (other.inode, other.born, other.bytes)
    }

    /// Bytes of the file.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn wanted() -> StatxFlags {
    StatxFlags::INO | StatxFlags::SIZE | StatxFlags::MTIME | StatxFlags::BTIME
}

impl From<Statx> for Identity {
    fn from(found: Statx) -> Self {
        let time = |time: StatxTimestamp| (time.tv_sec, time.tv_nsec);
        let is_born = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::BTIME);
        Self {
            inode: found.stx_ino,
            born: is_born.then(|| time(found.stx_btime)),
            bytes: found.stx_size,
            written: time(found.stx_mtime),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};

    #[test]
    fn another_file_of_the_same_name_is_told_and_so_is_a_write() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open_or_make(File::open(place.path()).unwrap()).unwrap();
        let path = place.path().join(".vss/x");
        let at = || Identity::at(&store, "x").unwrap();
        assert_eq!(at(), None);
        fs::write(&path, [1; 8192]).unwrap();
        let first = at().unwrap();
        assert_eq!(Identity::of(File::open(&path).unwrap()).unwrap(), first);
        assert!(first.born.is_some() && first.bytes() == 8192, "{first:?}");
        // What is done to the image of a mirror beside writing to it.
        fs::rename(&path, place.path().join(".vss/y")).unwrap();
        let file = File::open(place.path().join(".vss/y")).unwrap();
        rustix::fs::fchmod(&file, rustix::fs::Mode::RUSR).unwrap();
        fs::rename(place.path().join(".vss/y"), &path).unwrap();
        assert_eq!(at().unwrap(), first);
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(&path, [2; 8192]).unwrap();
        let written = at().unwrap();
        assert!(written.is_of_same(&first) && written != first, "{written:?}");
        // Its number is given again, on ext4.
        fs::remove_file(&path).unwrap();
        fs::write(&path, [1; 8192]).unwrap();
        assert!(!at().unwrap().is_of_same(&written));
        fs::write(&path, [1; 4096]).unwrap();
        let shorter = at().unwrap();
        fs::write(&path, [1; 8192]).unwrap();
        assert!(!at().unwrap().is_of_same(&shorter));
    }
}
