//! Further names of an inode that was met.

use super::{Failed, Making};
use crate::attributes::Stat;
use crate::entry::Entry;
use crate::target::remove;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// The first path of an inode with several.
pub(super) struct FirstLink {
    pub(super) path: PathBuf,
    /// How many names of it were not met yet.
    pub(super) remaining: u32,
    pub(super) held_by: Option<Uuid>,
}

impl Making<'_> {
    /// Makes a further name of an inode that was met. False: it was not, or it can have no more names here.
    pub(super) fn link(&mut self, path: &Path, stat: &Stat, entry: &mut Entry) -> Result<bool, Failed> {
        let Some(first) = self.links.get_mut(&stat.identity()) else { return Ok(false) };
        first.remaining -= 1;
        let (to, held_by, last) = (first.path.clone(), first.held_by, first.remaining == 0);
        if held_by.is_none() {
            match self.second_name(&to, path) {
                Ok(()) => {}
                // It becomes the first name of a second file.
                Err(error) if error.raw_os_error() == Some(Errno::MLINK.raw_os_error()) => return Ok(false),
                Err(error) => return Err(self.target(path, error)),
            }
        }
        if last {
            self.links.remove(&stat.identity());
        }
        entry.link = Some(to);
        entry.held_by = held_by;
        Ok(true)
    }

    fn second_name(&mut self, first: &Path, second: &Path) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = first.file_name().unwrap_or_default();
        let file = rustix::fs::openat(self.parent(first)?, name, flags, Mode::empty())?;
        let resumed = self.resumed;
        let (directory, name) = (self.parent(second)?, second.file_name().unwrap_or_default());
        if resumed {
            remove(directory, name)?;
        }
        Ok(rustix::fs::linkat(&file, c"", directory, name, AtFlags::EMPTY_PATH)?)
    }
}
