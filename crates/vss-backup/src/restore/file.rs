//! A regular file: whether the right one is there, and putting its contents together.

use super::place::TEMPORARY;
use super::{Failed, Restoring};
use crate::attributes::{self, Inode, Stat};
use crate::data::CopyError;
use crate::entry::{Entry, Kind, Parts};
use crate::failure::stopped;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

impl Restoring<'_> {
    pub(super) fn file(&mut self, entries: &[(usize, Entry)]) -> Result<(), Failed> {
        let Some((_, newest)) = entries.last() else { return Ok(()) };
        let (path, name) = (newest.path.as_path(), newest.path.file_name().unwrap_or_default());
        if name.as_bytes().starts_with(TEMPORARY.as_bytes())
            && let Some(parent) = path.parent()
        {
            self.odd_names.entry(parent.to_owned()).or_default().insert(name.to_owned());
        }
        // The newest whole file, and the parts that came after it.
        let whole = entries.iter().rposition(|(_, entry)| entry.parts.is_none());
        let parts = &entries[whole.map_or(0, |at| at + 1)..];
        let there = self.place.there(path)?;
        if let Some(first) = &newest.link
            && parts.is_empty()
        {
            return self.link(first, newest, there);
        }
        if newest.kind != Kind::File {
            return self.special(newest, there);
        }
        if parts.is_empty() && self.is_right(newest, there.as_ref())? {
            self.totals.kept += 1;
            return Ok(());
        }
        let (temporary, file) = self.place.temporary(path)?;
        let written = self.contents(entries, whole, parts, &file, there.as_ref()).and_then(|bytes| {
            let applied =
                attributes::apply(Inode::Open(file.as_fd()), Kind::File, &newest.attributes, &mut self.losses);
            applied.map_err(|error| self.place.failed(path, error))?;
            Ok(bytes)
        });
        let placed = written.and_then(|bytes| {
            if !parts.is_empty() && self.is_same_file(path, &file, there.as_ref())? {
                self.place.discard(path, &temporary);
                self.totals.kept += 1;
                return Ok(0);
            }
            let over_what_is_there = !parts.is_empty() && whole.is_none();
            if over_what_is_there {
                // Nobody else has the rest of it: it must not be lost with the power.
                file.sync_all().map_err(|error| self.place.failed(path, error))?;
            }
            self.place.put(newest, &temporary, there.as_ref(), over_what_is_there)?;
            Ok(bytes)
        });
        match placed {
            Ok(bytes) => {
                self.totals.bytes += bytes;
                if attributes::is_locked(&newest.attributes) {
                    self.to_lock.push((path.to_owned(), newest.attributes.clone()));
                }
                Ok(())
            }
            Err(failed) => {
                self.place.discard(path, &temporary);
                Err(failed)
            }
        }
    }

    /// True when the right file is there already.
    fn is_right(&mut self, entry: &Entry, there: Option<&Stat>) -> Result<bool, Failed> {
        let Some(there) = there else { return Ok(false) };
        if there.kind != entry.kind || Some(there.size) != entry.size || there.modified != entry.attributes.modified {
            return Ok(false);
        }
        let Some(file) = self.place.open(&entry.path) else { return Ok(false) };
        let digest = self.copier.digest(&file, there.size, self.progress);
        let is_right = match digest {
            Ok(digest) => Some(digest) == entry.digest,
            Err(CopyError::Stopped) => return Err(Failed::All(stopped())),
            Err(_) => false,
        };
        let is_same = attributes::read(Inode::Open(file.as_fd()), there).is_ok_and(|mut found| {
            found.accessed = entry.attributes.accessed;
            // Locks come last, and after an interruption they may not have come.
            found.flags = entry.attributes.flags;
            found == entry.attributes
        });
        // Contents and time are those of the backup: the rest is made so too, where the file system can.
        if is_right && !is_same {
            attributes::apply(Inode::Open(file.as_fd()), Kind::File, &entry.attributes, &mut self.losses)
                .map_err(|error| self.place.failed(&entry.path, error))?;
        }
        if is_right && attributes::is_locked(&entry.attributes) {
            self.to_lock.push((entry.path.clone(), entry.attributes.clone()));
        }
        Ok(is_right)
    }

    /// True when the file at the place has the same contents and was changed at the same time.
    fn is_same_file(&mut self, path: &Path, new: &File, there: Option<&Stat>) -> Result<bool, Failed> {
        let stat = Stat::of(Inode::Open(new.as_fd())).map_err(|error| self.place.failed(path, error))?;
        let candidate = there.filter(|there| there.size == stat.size && there.modified == stat.modified);
        let Some(file) = candidate.and_then(|_| self.place.open(path)) else { return Ok(false) };
        let one = self.copier.digest(new, stat.size, self.progress);
        let other = self.copier.digest(&file, stat.size, self.progress);
        let failed = |error| self.place.copy_failed(path, error);
        Ok(one.map_err(failed)? == other.map_err(failed)?)
    }

    /// Writes the contents: the whole file, or what is there, and the parts over it.
    fn contents(
        &mut self,
        entries: &[(usize, Entry)],
        whole: Option<usize>,
        parts: &[(usize, Entry)],
        file: &File,
        there: Option<&Stat>,
    ) -> Result<u64, Failed> {
        let mut bytes = 0;
        match whole.map(|at| &entries[at]) {
            Some((at, entry)) => {
                let source = self.source(*at, entry)?;
                attributes::prepare(file, &entry.attributes);
                let size = entry.size.unwrap_or_default();
                let digest = self.copier.copy(&source, file, size, self.progress);
                let digest = digest.map_err(|error| self.place.copy_failed(&entry.path, error))?;
                if Some(digest) != entry.digest && entry.link.is_none() {
                    return Err(Failed::One("it is damaged in the backup: its checksum does not fit".to_owned()));
                }
                bytes += size;
            }
            None => self.beneath(parts, file, there)?,
        }
        for (at, entry) in parts {
            let Some(of) = &entry.parts else { continue };
            let source = self.source(*at, entry)?;
            let Some(size) = of.bytes() else {
                return Err(Failed::One("the list of its parts is damaged in the backup".to_owned()));
            };
            let digest = self.copier.digest(&source, size, self.progress);
            if Some(digest.map_err(|error| self.place.copy_failed(&entry.path, error))?) != entry.digest {
                return Err(Failed::One("its parts are damaged in the backup: their checksum does not fit".to_owned()));
            }
            let mut from = 0;
            for range in &of.ranges {
                let moved = self.copier.move_range(&source, from, file, range.offset, range.length, self.progress);
                moved.map_err(|error| self.place.copy_failed(&entry.path, error))?;
                from += range.length;
            }
            if let Some(size) = entry.size {
                file.set_len(size).map_err(|error| self.place.failed(&entry.path, error))?;
            }
            bytes += size;
        }
        Ok(bytes)
    }

    /// What the parts are put over when no backup of the chain has the whole file: the one that is there.
    fn beneath(&mut self, parts: &[(usize, Entry)], file: &File, there: Option<&Stat>) -> Result<(), Failed> {
        let Some((_, first)) = parts.first() else { return Ok(()) };
        if let Some(there) = there {
            let Some(old) = self.place.open(&first.path).filter(|_| there.kind == Kind::File) else {
                return Err(Failed::One("what is there is no file to put parts into".to_owned()));
            };
            let copied = self.copier.copy(&old, file, there.size, self.progress);
            copied.map_err(|error| self.place.copy_failed(&first.path, error))?;
            return Ok(());
        }
        let covered = first.parts.as_ref().map_or(Some(0), Parts::bytes);
        if first.size.is_some_and(|size| covered.is_some_and(|covered| covered < size)) {
            let message = "only parts of it are in the backup, and there is no file to put them into";
            return Err(Failed::One(message.to_owned()));
        }
        Ok(())
    }

    /// The file of the data tree that has the contents of an entry.
    fn source(&mut self, at: usize, entry: &Entry) -> Result<File, Failed> {
        let Some(holder) = self.chain.holder(at, entry) else {
            return Err(Failed::One("the backup that holds it is not in the chain".to_owned()));
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let (parent, name) = (entry.path.parent().unwrap_or(&entry.path), entry.path.file_name().unwrap_or_default());
        let opened = self
            .data
            .directory(holder, parent)
            .and_then(|directory| Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?));
        let file = File::from(opened.map_err(|error| Failed::unreadable(&error))?);
        match Stat::of(Inode::Open(file.as_fd())) {
            Ok(stat) if stat.kind == Kind::File => Ok(file),
            Ok(_) => Err(Failed::One("it is no file in the backup".to_owned())),
            Err(error) => Err(Failed::unreadable(&error)),
        }
    }
}
