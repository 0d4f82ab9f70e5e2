//! Symbolic links, pipes, sockets and devices.

use super::{Failed, Restoring};
use crate::attributes::{self, Inode, Stat};
use crate::entry::{Entry, Kind};
use crate::target::make_special;
use std::os::unix::ffi::OsStrExt;

impl Restoring<'_> {
    pub(super) fn special(&mut self, entry: &Entry, there: Option<Stat>) -> Result<(), Failed> {
        let path = entry.path.as_path();
        if self.is_right_special(entry, there.as_ref()) {
            self.totals.kept += 1;
            return Ok(());
        }
        let temporary = self.place.with_free_name(path, |directory, name| make_special(directory, name, entry))?;
        let applied = self.place.parent(path).and_then(|directory| {
            attributes::apply(Inode::Named(directory, &temporary), entry.kind, &entry.attributes, &mut self.losses)
        });
        let placed = match applied {
            Ok(()) => self.place.put(entry, &temporary, there.as_ref(), false),
            Err(error) => Err(self.place.failed(path, error)),
        };
        placed.inspect_err(|_| self.place.discard(path, &temporary))
    }

    fn is_right_special(&mut self, entry: &Entry, there: Option<&Stat>) -> bool {
        let Some(there) = there.filter(|there| there.kind == entry.kind) else { return false };
        let name = entry.path.file_name().unwrap_or_default();
        let Ok(directory) = self.place.parent(&entry.path) else { return false };
        let is_same = match entry.kind {
            Kind::Symlink => rustix::fs::readlinkat(directory, name, Vec::new()).is_ok_and(|target| {
                entry.target.as_ref().is_some_and(|wanted| wanted.as_os_str().as_bytes() == target.to_bytes())
            }),
            Kind::CharacterDevice | Kind::BlockDevice => entry.device == Some(there.special),
            _ => true,
        };
        is_same
            && attributes::read(Inode::Named(directory, name), there).is_ok_and(|mut found| {
                found.accessed = entry.attributes.accessed;
                found == entry.attributes
            })
    }
}
