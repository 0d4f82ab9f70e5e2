//! A directory of which everything is there.

use super::place::TEMPORARY;
use super::{Failed, Restoring};
use crate::attributes::{self, Inode, Stat};
use crate::entry::{Attributes, Entry, Kind};
use crate::target::remove;
use crate::tree::names;
use std::os::unix::ffi::OsStrExt;

impl Restoring<'_> {
    /// Everything in the directory is there; now it gets its own attributes, and what interrupted runs left goes.
    pub(super) fn directory(&mut self, entry: &Entry) -> Result<(), Failed> {
        let path = entry.path.as_path();
        let odd = self.odd_names.remove(path).unwrap_or_default();
        let is_root = path.parent().is_none();
        let done = self.place.directory(path).and_then(|directory| {
            let inode = Inode::Open(directory);
            for name in names(directory)? {
                if name.as_bytes().starts_with(TEMPORARY.as_bytes()) && !odd.contains(&name) {
                    remove(directory, &name)?;
                }
            }
            let found = attributes::read(inode, &Stat::of(inode)?)?;
            let same = Attributes { accessed: found.accessed, ..entry.attributes.clone() } == found;
            // The directory to restore to is not one of the backup's.
            if is_root || same {
                return Ok(());
            }
            attributes::apply(inode, Kind::Directory, &entry.attributes, &mut self.losses)?;
            attributes::lock(directory, &entry.attributes, &mut self.losses)
        });
        done.map_err(|error| self.place.failed(path, error))
    }
}
