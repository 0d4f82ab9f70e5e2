//! A regular file: whether its contents are taken, from where they are known already, and copying them.

use super::link::FirstLink;
use super::{Failed, Making};
use crate::attributes::{self, Inode, Stat};
use crate::base::looks_same;
use crate::data::CopyError;
use crate::digest::Digest;
use crate::entry::{Attributes, Entry, Kind};
use crate::failure::{reading, stopped};
use crate::selection::Take;
use crate::target::remove;
use crate::walk::Found;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// What became of one file.
pub(super) enum Done {
    Written(Box<Entry>),
    /// Nothing changed, and nobody wants it.
    Unwanted,
}

impl Making<'_> {
    /// Copies one file, or finds that it need not be.
    pub(super) fn take(&mut self, found: &Found<'_>) -> Result<Done, Failed> {
        let named = Inode::Named(found.directory, found.name);
        let blank = |stat: &Stat, attributes: Attributes, components: Vec<u32>| Entry {
            size: (stat.kind == Kind::File).then_some(stat.size),
            ..Entry::new(found.path.to_owned(), stat.kind, attributes, components, stat.version)
        };
        let components = self.components(found.sets, found.partial);
        let old = match &mut self.old {
            Some(old) => old.at(found.path).map_err(|error| Failed::All(reading(self.at, &error)))?,
            None => None,
        };
        let base = self.in_base(found.path).map_err(Failed::All)?;
        if found.stat.kind != Kind::File {
            let attributes = attributes::read(named, &found.stat).map_err(Failed::One)?;
            let mut entry = blank(&found.stat, attributes, components);
            self.special(found, &mut entry)?;
            return Ok(Done::Written(Box::new(entry)));
        }
        let source = File::from(found.tree.file(found.directory, found.name).map_err(Failed::One)?);
        let opened = Inode::Open(source.as_fd());
        let stat = Stat::of(opened).map_err(Failed::One)?;
        if stat.identity() != found.stat.identity() {
            return Err(Failed::One(io::Error::other("it was replaced while it was read")));
        }
        let takes: Vec<Take> = found.sets.iter().map(|&set| self.selection.sets[set].take).collect();
        let whole = takes.contains(&Take::Whole) && found.partial.is_none();
        let later = |take: &Take| matches!(take, Take::ModifiedAfter(time) if stat.modified > *time);
        let changed = takes.contains(&Take::Changed);
        let wanted = whole || found.partial.is_some() || changed || takes.iter().any(later);
        if !wanted && self.base.is_none() {
            return Ok(Done::Unwanted);
        }
        let attributes = attributes::read(opened, &stat).map_err(Failed::One)?;
        let mut entry = blank(&stat, attributes, components);
        if let Some(partial) = found.partial {
            self.parts(found, partial, &source, &mut entry)?;
            return Ok(Done::Written(Box::new(entry)));
        }
        if stat.links > 1 && self.link(found.path, &stat, &mut entry)? {
            return Ok(Done::Written(Box::new(entry)));
        }
        let by_version = !whole && changed;
        let same = match base.filter(|base| looks_same(&entry, base)) {
            Some(base) if self.is_unchanged(&entry, &base, wanted, by_version, &source)? => Some(base),
            _ => None,
        };
        if let (Some(same), Some(base)) = (same, &self.base) {
            base.hold(&mut entry, &same);
            self.totals.unchanged += 1;
        } else if let Some(digest) = old.and_then(|old| self.kept(&old, &entry, &source)) {
            entry.digest = Some(digest);
            self.totals.kept += 1;
            self.totals.bytes += stat.size;
        } else {
            entry.digest = Some(self.contents(found.path, &source, &entry)?);
            self.totals.bytes += stat.size;
        }
        if stat.links > 1 {
            let first = FirstLink { path: found.path.to_owned(), remaining: stat.links - 1, held_by: entry.held_by };
            self.links.insert(stat.identity(), first);
        }
        Ok(Done::Written(Box::new(entry)))
    }

    /// True when the backup before has these contents: by the writer's word, by the inode, or by the contents themselves.
    fn is_unchanged(
        &mut self,
        entry: &Entry,
        of_base: &Entry,
        wanted: bool,
        by_version: bool,
        source: &File,
    ) -> Result<bool, Failed> {
        let Some(base) = &self.base else { return Ok(false) };
        if !wanted || (by_version && base.has_version(entry, of_base)) {
            return Ok(true);
        }
        // Of parts there is no checksum of the whole.
        if of_base.parts.is_some() || of_base.digest.is_none() {
            return Ok(false);
        }
        match self.copier.digest(source, entry.size.unwrap_or_default(), self.progress) {
            Ok(digest) => Ok(Some(digest) == of_base.digest),
            Err(error) => Err(self.copy_error(&entry.path, error)),
        }
    }

    /// The checksum of what a run before has copied, when that is the same version and undamaged.
    fn kept(&mut self, old: &Entry, entry: &Entry, source: &File) -> Option<Digest> {
        if !old.is_same_version(entry) || old.parts.is_some() || !old.is_here() || old.link.is_some() {
            return None;
        }
        let parent = entry.path.parent()?;
        let directory = self.data.directory(parent).ok()?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(directory, entry.path.file_name()?, flags, Mode::empty()).ok()?);
        let stat = Stat::of(Inode::Open(file.as_fd())).ok()?;
        if stat.kind != Kind::File || Some(stat.size) != entry.size {
            return None;
        }
        let digest = self.copier.digest(&file, stat.size, self.progress).ok()?;
        if Some(digest) != old.digest {
            return None;
        }
        // Changed in the same tick as before the run that copied it, it would look the same: then only its contents tell.
        if old.version.changed >= self.settled
            && self.copier.digest(source, stat.size, self.progress).ok() != Some(digest)
        {
            return None;
        }
        // A power cut may have taken what does not belong to the contents.
        attributes::apply(Inode::Open(file.as_fd()), entry.kind, &entry.attributes, &mut self.losses).ok()?;
        Some(digest)
    }

    /// Makes the new, empty file of `path`, in place of what a run before has left there.
    fn create(&mut self, path: &Path) -> Result<File, Failed> {
        let name = path.file_name().unwrap_or_default();
        let resumed = self.resumed;
        let made = self.parent(path).and_then(|directory| {
            if resumed {
                remove(directory, name)?;
            }
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            Ok(File::from(rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?))
        });
        made.map_err(|error| self.target(path, error))
    }

    fn contents(&mut self, path: &Path, source: &File, entry: &Entry) -> Result<Digest, Failed> {
        let target = self.create(path)?;
        attributes::prepare(&target, &entry.attributes);
        let copied = self.copier.copy(source, &target, entry.size.unwrap_or_default(), self.progress);
        let digest = copied.map_err(|error| self.copy_error(path, error))?;
        attributes::apply(Inode::Open(target.as_fd()), entry.kind, &entry.attributes, &mut self.losses)
            .map_err(|error| self.target(path, error))?;
        Ok(digest)
    }

    fn copy_error(&self, path: &Path, error: CopyError) -> Failed {
        match error {
            CopyError::Source(error) => Failed::One(error),
            CopyError::Target(error) => self.target(path, error),
            CopyError::Stopped => Failed::All(stopped()),
        }
    }

    fn parts(&mut self, found: &Found<'_>, partial: usize, source: &File, entry: &mut Entry) -> Result<(), Failed> {
        let parts = self.selection.partial_files[partial].parts.clone();
        let target = self.create(found.path)?;
        let gathered = self.copier.gather(source, &target, &parts.ranges, self.progress);
        let (size, digest) = gathered.map_err(|error| self.copy_error(found.path, error))?;
        attributes::apply(Inode::Open(target.as_fd()), entry.kind, &entry.attributes, &mut self.losses)
            .map_err(|error| self.target(found.path, error))?;
        entry.digest = Some(digest);
        entry.parts = Some(parts);
        self.totals.bytes += size;
        Ok(())
    }
}
