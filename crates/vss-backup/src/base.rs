//! The backup that another one builds on: what it holds at a path, and what of that counts on.

use crate::directory::{BackupDirectory, Beginning, Completion};
use crate::entry::{Entry, Kind, Time};
use crate::failure::reading;
use crate::manifest::Reader;
use crate::order::compare;
use std::cmp::Ordering;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use uuid::Uuid;
use vss_model::VssError;

/// The kernel stamps changes with the time of its last tick, which is at most 10 ms ago: of two changes in one tick, one before
/// the cut and one after it, the inode does not tell. The rest is for a clock that was set back a little.
const TICK: i64 = 2;

/// What was changed before this was not changed again unseen after the backup had begun.
pub(crate) fn settled(beginning: &Beginning) -> Time {
    Time(beginning.began_at.unix_seconds() - TICK, 0)
}

/// A whole backup that another one builds on.
#[derive(Debug)]
pub struct BaseBackup {
    id: Uuid,
    manifest: Reader<BufReader<File>>,
    path: PathBuf,
    settled: Time,
}

impl BaseBackup {
    /// Opens the manifest of a backup.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(directory: &BackupDirectory, completion: &Completion) -> Result<Self, VssError> {
        let path = directory.manifest();
        let manifest = Reader::open(&path).map_err(|error| reading(&path, &error))?;
        Ok(Self { id: completion.beginning.id, manifest, path, settled: settled(&completion.beginning) })
    }

    /// The next entry before `path`, which is asked for next.
    pub(crate) fn before(&mut self, path: &Path) -> Result<Option<Entry>, VssError> {
        let next =
            self.manifest.peek().map(|next| next.is_some_and(|next| compare(&next.path, path) == Ordering::Less));
        let entry = next.and_then(|is_before| if is_before { self.manifest.next() } else { Ok(None) });
        entry.map_err(|error| reading(&self.path, &error))
    }

    /// The entry of `path`.
    pub(crate) fn at(&mut self, path: &Path) -> Result<Option<Entry>, VssError> {
        self.manifest.at(path).map_err(|error| reading(&self.path, &error))
    }

    /// True when the contents of `entry` are by their version those that this backup has.
    pub(crate) fn has_version(&self, entry: &Entry, of_base: &Entry) -> bool {
        entry.is_same_version(of_base) && of_base.version.changed < self.settled
    }

    /// The backup that holds what this one has in this entry.
    pub(crate) fn holder(&self, of_base: &Entry) -> Uuid {
        of_base.held_by.unwrap_or(self.id)
    }

    /// Makes `entry` one whose contents are as this backup has them: its own, or parts over those of its own base.
    pub(crate) fn hold(&self, entry: &mut Entry, of_base: &Entry) {
        entry.digest = of_base.digest;
        entry.parts.clone_from(&of_base.parts);
        entry.held_by = Some(self.holder(of_base));
    }
}

/// True when `of_base` is a file that can stand for one with the size and the time of `entry`.
pub(crate) fn looks_same(entry: &Entry, of_base: &Entry) -> bool {
    of_base.kind == Kind::File
        && of_base.link.is_none()
        && of_base.size == entry.size
        && of_base.attributes.modified == entry.attributes.modified
}
