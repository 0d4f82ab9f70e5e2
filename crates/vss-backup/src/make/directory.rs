//! A directory of which everything is there.

use super::{Failed, Making};
use crate::attributes::{self, Inode, Stat};
use crate::entry::{Attributes, Entry, Kind, Time, Version};
use crate::target::remove;
use crate::tree::names;
use crate::walk::Left;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

impl Making<'_> {
    /// Takes away what runs before have left in a directory and this one has not.
    fn tidy(&mut self, path: &Path) -> io::Result<()> {
        let Some(kept) = self.kept_names.pop() else { return Ok(()) };
        let directory = self.data.directory(path)?;
        for name in names(directory)? {
            if kept.binary_search(&name).is_err() {
                remove(directory, &name)?;
            }
        }
        Ok(())
    }

    pub(super) fn finish_directory(&mut self, left: &Left<'_>) -> Result<Entry, Failed> {
        self.in_base(left.path).map_err(Failed::All)?;
        let attributes = match left.directory.map(|fd| (fd, Stat::of(Inode::Open(fd)))) {
            Some((fd, Ok(stat))) => (attributes::read(Inode::Open(fd), &stat).map_err(Failed::One)?, stat.version),
            Some((_, Err(error))) => return Err(Failed::One(error)),
            // Above every copy, and not there any more.
            None => (private_directory(), Version::default()),
        };
        let (attributes, version) = attributes;
        if self.resumed {
            self.tidy(left.path).map_err(|error| self.target(left.path, error))?;
        }
        let mut losses = std::mem::take(&mut self.losses);
        let applied = self
            .data
            .directory(left.path)
            .and_then(|directory| attributes::apply(Inode::Open(directory), Kind::Directory, &attributes, &mut losses));
        self.losses = losses;
        applied.map_err(|error| self.target(left.path, error))?;
        Ok(self.directory(left, attributes, version))
    }

    pub(super) fn directory(&self, left: &Left<'_>, attributes: Attributes, version: Version) -> Entry {
        let components = self.components(left.sets, None);
        Entry::new(left.path.to_owned(), Kind::Directory, attributes, components, version)
    }
}

pub(super) fn private_directory() -> Attributes {
    Attributes {
        mode: 0o700,
        uid: 0,
        gid: 0,
        modified: Time::default(),
        accessed: Time::default(),
        xattrs: BTreeMap::new(),
        flags: 0,
    }
}
