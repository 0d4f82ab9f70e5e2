//! Symbolic links, pipes, sockets and devices.

use super::link::FirstLink;
use super::{Failed, Making};
use crate::attributes::{self, Inode};
use crate::entry::{Entry, Kind};
use crate::target::{make_special, remove};
use crate::walk::Found;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

impl Making<'_> {
    /// Makes anything but a file or a directory.
    pub(super) fn special(&mut self, found: &Found<'_>, entry: &mut Entry) -> Result<(), Failed> {
        if found.stat.links > 1 && self.link(found.path, &found.stat, entry)? {
            return Ok(());
        }
        if entry.kind == Kind::Symlink {
            let target = rustix::fs::readlinkat(found.directory, found.name, Vec::new());
            let target = target.map_err(|error| Failed::One(error.into()))?;
            entry.target = Some(OsString::from_vec(target.into_bytes()).into());
        }
        if matches!(entry.kind, Kind::CharacterDevice | Kind::BlockDevice) {
            entry.device = Some(found.stat.special);
        }
        let resumed = self.resumed;
        let name = found.path.file_name().unwrap_or_default();
        let made = self.parent(found.path).and_then(|directory| {
            if resumed {
                remove(directory, name)?;
            }
            make_special(directory, name, entry)
        });
        made.map_err(|error| self.target(found.path, error))?;
        let mut losses = std::mem::take(&mut self.losses);
        let applied = self.parent(found.path).and_then(|directory| {
            attributes::apply(Inode::Named(directory, name), entry.kind, &entry.attributes, &mut losses)
        });
        self.losses = losses;
        applied.map_err(|error| self.target(found.path, error))?;
        if found.stat.links > 1 {
            let first = FirstLink { path: found.path.to_owned(), remaining: found.stat.links - 1, held_by: None };
            self.links.insert(found.stat.identity(), first);
        }
        Ok(())
    }
}
