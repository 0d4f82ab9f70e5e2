//! Further names of a file that was restored.

use super::{Failed, Restoring};
use crate::attributes::{self, Inode, Stat};
use crate::entry::{Entry, Kind};
use rustix::fs::{AtFlags, Mode, OFlags};
use std::os::fd::AsFd;
use std::path::Path;

impl Restoring<'_> {
    pub(super) fn link(&mut self, first: &Path, entry: &Entry, there: Option<Stat>) -> Result<(), Failed> {
        if self.failed_links.contains(first) {
            return Err(Failed::One(format!("it is a hard link to {}, which was not restored", first.display())));
        }
        let path = entry.path.as_path();
        let of_first = self.place.there(first)?;
        if of_first.map(|stat| stat.identity()) == there.map(|stat| stat.identity()) && there.is_some() {
            self.totals.kept += 1;
            return Ok(());
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = self.place.parent(first).and_then(|parent| {
            Ok(rustix::fs::openat(parent, first.file_name().unwrap_or_default(), flags, Mode::empty())?)
        });
        let file = opened.map_err(|error| self.place.failed(path, error))?;
        let made = self.place.with_free_name(path, |directory, name| {
            Ok(rustix::fs::linkat(&file, c"", directory, name, AtFlags::EMPTY_PATH)?)
        });
        let temporary = match made {
            // This file system has no room for more names: a file of its own.
            Err(Failed::One(_)) if entry.kind == Kind::File => return self.copy_of_first(first, entry, there),
            made => made?,
        };
        self.place.put(entry, &temporary, there.as_ref(), false).inspect_err(|_| self.place.discard(path, &temporary))
    }

    /// Restores a further name as a file of its own.
    fn copy_of_first(&mut self, first: &Path, entry: &Entry, there: Option<Stat>) -> Result<(), Failed> {
        let path = entry.path.as_path();
        let Some(source) = self.place.open(first) else { return Err(Failed::One("its first name is gone".to_owned())) };
        let (temporary, file) = self.place.temporary(path)?;
        let copied = self.copier.copy(&source, &file, entry.size.unwrap_or_default(), self.progress);
        let placed = copied.map_err(|error| self.place.copy_failed(path, error)).and_then(|_| {
            let applied = attributes::apply(Inode::Open(file.as_fd()), Kind::File, &entry.attributes, &mut self.losses);
            applied.map_err(|error| self.place.failed(path, error))?;
            self.place.put(entry, &temporary, there.as_ref(), false)
        });
        placed.inspect_err(|_| self.place.discard(path, &temporary))
    }
}
