//! Putting files back: everything in a backup, below another directory, at its original path.
//!
//! A file appears at its place whole, with its checksum compared, or not at all. What is there already and right is left
//! alone, so that an interrupted run goes on where it was.

use crate::attributes::{self, Inode, Losses, Stat};
use crate::chain::Chain;
use crate::data::{Copier, CopyError};
use crate::dir_chain::DirChain;
use crate::directory::{Failure, Totals};
use crate::entry::{Attributes, Entry, Kind};
use crate::failure::{is_of_all, reading, stopped, writing};
use crate::progress::Progress;
use crate::target::{allow_open_files, make_special, remove};
use crate::tree::names;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use vss_model::{VssCode, VssError};

/// What is not at its place yet is called so, and a number.
const TEMPORARY: &str = ".vss-restore-";
/// So many failures are told one by one.
const FAILURES: usize = 1000;

/// What restoring came to.
#[derive(Debug, Default)]
pub struct Restored {
    /// What was put back.
    pub totals: Totals,
    /// What was not, the first of it.
    pub failures: Vec<Failure>,
    /// How much more was not.
    pub more_failures: u64,
    /// What the file system could not keep: a few words each.
    pub losses: Vec<String>,
}

/// Puts everything back below `other`, which exists or is made.
///
/// # Errors
/// `VSS_E_INSUFFICIENT_STORAGE` when the file system is full, `E_ABORT` when `progress` wished to stop: the same call goes on
/// later. `E_INVALIDARG` for a directory in a backup. What fails for one file is in the result.
pub fn restore(
    chain: &Chain,
    other: &Path,
    overwrite: bool,
    progress: &mut dyn Progress,
) -> Result<Restored, VssError> {
    allow_open_files();
    std::fs::create_dir_all(other).map_err(|error| writing(other, &error))?;
    let other = other.canonicalize().map_err(|error| reading(other, &error))?;
    for one in chain.generations() {
        if other.starts_with(one.directory.path()) {
            let message = format!("{} is in the backup itself", other.display());
            return Err(VssError::new(VssCode::InvalidArgument, message).with_hint("Restore to another directory"));
        }
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&other, flags, Mode::empty()).map_err(|error| reading(&other, &error.into()))?;
    let open = |one: &crate::chain::Generation| {
        let data = one.directory.data().map_err(|error| reading(one.directory.path(), &error))?;
        Ok(DirChain::new(data, false))
    };
    let mut restoring = Restoring {
        chain,
        data: chain.generations().iter().map(open).collect::<Result<_, VssError>>()?,
        other,
        place: DirChain::new(root, true),
        overwrite,
        copier: Copier::default(),
        losses: Losses::default(),
        restored: Restored::default(),
        failed_links: HashSet::new(),
        to_lock: Vec::new(),
        odd_names: HashMap::new(),
        progress,
    };
    let mut entries = chain.entries()?;
    loop {
        let of_path = entries.next()?;
        if of_path.is_empty() {
            break;
        }
        restoring.put_back(chain.of_newest(of_path))?;
    }
    restoring.finish()
}

/// Why one path was not put back.
enum Failed {
    One(String),
    All(VssError),
}

impl From<CopyError> for Failed {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Source(error) => Self::One(format!("the backup cannot be read: {error}")),
            CopyError::Target(error) if is_of_all(&error) => Self::All(writing(Path::new("the directory"), &error)),
            CopyError::Target(error) => Self::One(error.to_string()),
            CopyError::Stopped => Self::All(stopped()),
        }
    }
}

struct Restoring<'a> {
    chain: &'a Chain,
    data: Vec<DirChain>,
    other: PathBuf,
    place: DirChain,
    overwrite: bool,
    copier: Copier,
    losses: Losses,
    restored: Restored,
    /// First names of files that were not put back.
    failed_links: HashSet<PathBuf>,
    /// Files that nobody can change once their flags are set; they may get more names first.
    to_lock: Vec<(PathBuf, Attributes)>,
    /// Names of the backup, by directory, that look like ours.
    odd_names: HashMap<PathBuf, HashSet<OsString>>,
    progress: &'a mut dyn Progress,
}

impl Restoring<'_> {
    /// Puts one path back, of which the generations have these entries, oldest first.
    fn put_back(&mut self, entries: Vec<(usize, Entry)>) -> Result<(), VssError> {
        let Some((_, newest)) = entries.last() else { return Ok(()) };
        let path = newest.path.clone();
        let kind = newest.kind;
        self.progress.at(&path, &self.restored.totals);
        if self.progress.stop() {
            return Err(stopped());
        }
        let done = match kind {
            Kind::Directory => self.directory(newest),
            _ => self.file(&entries),
        };
        match done {
            Ok(()) if kind == Kind::Directory => self.restored.totals.directories += 1,
            Ok(()) => self.restored.totals.files += 1,
            Err(Failed::All(error)) => return Err(error),
            Err(Failed::One(message)) => {
                if kind != Kind::Directory {
                    self.failed_links.insert(path.clone());
                }
                self.fail(path, message);
            }
        }
        Ok(())
    }

    fn fail(&mut self, path: PathBuf, message: String) {
        if self.restored.failures.len() < FAILURES {
            self.restored.failures.push(Failure { path, message, components: Vec::new() });
        } else {
            self.restored.more_failures += 1;
        }
    }

    fn target(&self, path: &Path, error: impl Into<io::Error>) -> Failed {
        let error = error.into();
        let place = self.other.join(path.strip_prefix("/").unwrap_or(path));
        if is_of_all(&error) { Failed::All(writing(&place, &error)) } else { Failed::One(error.to_string()) }
    }

    fn file(&mut self, entries: &[(usize, Entry)]) -> Result<(), Failed> {
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
        let there = self.there(path)?;
        if let Some(first) = &newest.link
            && parts.is_empty()
        {
            return self.link(first, newest, there);
        }
        if newest.kind != Kind::File {
            return self.special(newest, there);
        }
        if parts.is_empty() && self.is_right(newest, there.as_ref())? {
            self.restored.totals.kept += 1;
            return Ok(());
        }
        let (temporary, file) = self.temporary(path)?;
        let written = self.contents(entries, whole, parts, &file, there.as_ref()).and_then(|bytes| {
            let applied =
                attributes::apply(Inode::Open(file.as_fd()), Kind::File, &newest.attributes, &mut self.losses);
            applied.map_err(|error| self.target(path, error))?;
            Ok(bytes)
        });
        let placed = written.and_then(|bytes| {
            if !parts.is_empty() && self.is_same_file(path, &file, there.as_ref())? {
                self.discard(path, &temporary);
                self.restored.totals.kept += 1;
                return Ok(0);
            }
            self.put_in_place(path, &temporary, there.as_ref(), !parts.is_empty() && whole.is_none())?;
            Ok(bytes)
        });
        match placed {
            Ok(bytes) => {
                self.restored.totals.bytes += bytes;
                if attributes::is_locked(&newest.attributes) {
                    self.to_lock.push((path.to_owned(), newest.attributes.clone()));
                }
                Ok(())
            }
            Err(failed) => {
                self.discard(path, &temporary);
                Err(failed)
            }
        }
    }

    /// What is at the place of `path`.
    fn there(&mut self, path: &Path) -> Result<Option<Stat>, Failed> {
        let name = path.file_name().unwrap_or_default();
        let found = self.place.directory(path.parent().unwrap_or(path)).and_then(|directory| {
            match Stat::of(Inode::Named(directory, name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                found => found.map(Some),
            }
        });
        found.map_err(|error| self.target(path, error))
    }

    /// True when the right file is there already.
    fn is_right(&mut self, entry: &Entry, there: Option<&Stat>) -> Result<bool, Failed> {
        let Some(there) = there else { return Ok(false) };
        if there.kind != entry.kind || Some(there.size) != entry.size || there.modified != entry.attributes.modified {
            return Ok(false);
        }
        let Some(file) = self.open_there(&entry.path) else { return Ok(false) };
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
                .map_err(|error| self.target(&entry.path, error))?;
        }
        if is_right && attributes::is_locked(&entry.attributes) {
            self.to_lock.push((entry.path.clone(), entry.attributes.clone()));
        }
        Ok(is_right)
    }

    fn open_there(&mut self, path: &Path) -> Option<File> {
        let directory = self.place.directory(path.parent()?).ok()?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(directory, path.file_name()?, flags, Mode::empty()).ok().map(File::from)
    }

    /// True when the file at the place has the same contents and was changed at the same time.
    fn is_same_file(&mut self, path: &Path, new: &File, there: Option<&Stat>) -> Result<bool, Failed> {
        let stat = Stat::of(Inode::Open(new.as_fd())).map_err(|error| self.target(path, error))?;
        let candidate = there.filter(|there| there.size == stat.size && there.modified == stat.modified);
        let Some(file) = candidate.and_then(|_| self.open_there(path)) else { return Ok(false) };
        let one = self.copier.digest(new, stat.size, self.progress)?;
        Ok(self.copier.digest(&file, stat.size, self.progress)? == one)
    }

    /// A new file beside the place of `path`.
    fn temporary(&mut self, path: &Path) -> Result<(OsString, File), Failed> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut made = None;
        self.with_free_name(path, |directory, name| {
            made = Some(File::from(rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?));
            Ok(())
        })
        .and_then(|name| made.map(|file| (name, file)).ok_or_else(|| Failed::One("no name is free".to_owned())))
    }

    /// Calls `make` with names of ours until one is free.
    fn with_free_name(
        &mut self,
        path: &Path,
        mut make: impl FnMut(std::os::fd::BorrowedFd<'_>, &OsStr) -> io::Result<()>,
    ) -> Result<OsString, Failed> {
        let parent = path.parent().unwrap_or(path);
        let made = self.place.directory(parent).and_then(|directory| {
            for number in 0_u32.. {
                let name = OsString::from(format!("{TEMPORARY}{number}"));
                // The backup may have such a name too.
                if path.file_name() == Some(&name) {
                    continue;
                }
                match make(directory, &name) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    made => return made.map(|()| name),
                }
            }
            Err(Errno::EXIST.into())
        });
        made.map_err(|error| self.target(path, error))
    }

    fn discard(&mut self, path: &Path, temporary: &OsStr) {
        if let Ok(directory) = self.place.directory(path.parent().unwrap_or(path)) {
            // Where it stays, the end of the directory takes it away.
            let _ = rustix::fs::unlinkat(directory, temporary, AtFlags::empty());
        }
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
                let digest = self.copier.copy(&source, file, size, self.progress)?;
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
            let size = of.ranges.iter().map(|range| range.length).sum();
            if Some(self.copier.digest(&source, size, self.progress)?) != entry.digest {
                return Err(Failed::One("its parts are damaged in the backup: their checksum does not fit".to_owned()));
            }
            let mut from = 0;
            for range in &of.ranges {
                self.copier.move_range(&source, from, file, range.offset, range.length, self.progress)?;
                from += range.length;
            }
            if let Some(size) = entry.size {
                file.set_len(size).map_err(|error| self.target(&entry.path, error))?;
            }
            bytes += size;
        }
        Ok(bytes)
    }

    /// What the parts are put over when no backup of the chain has the whole file: the one that is there.
    fn beneath(&mut self, parts: &[(usize, Entry)], file: &File, there: Option<&Stat>) -> Result<(), Failed> {
        let Some((_, first)) = parts.first() else { return Ok(()) };
        if let Some(there) = there {
            let Some(old) = self.open_there(&first.path).filter(|_| there.kind == Kind::File) else {
                return Err(Failed::One("what is there is no file to put parts into".to_owned()));
            };
            self.copier.copy(&old, file, there.size, self.progress)?;
            return Ok(());
        }
        let covered: u64 = first.parts.iter().flat_map(|parts| &parts.ranges).map(|range| range.length).sum();
        if first.size.is_some_and(|size| covered < size) {
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
        let opened = self.data[holder]
            .directory(parent)
            .and_then(|directory| Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?));
        let file = File::from(opened.map_err(|error| Failed::from(CopyError::Source(error)))?);
        match Stat::of(Inode::Open(file.as_fd())) {
            Ok(stat) if stat.kind == Kind::File => Ok(file),
            Ok(_) => Err(Failed::One("it is no file in the backup".to_owned())),
            Err(error) => Err(CopyError::Source(error).into()),
        }
    }

    /// Gives what has a name of ours its own.
    fn put_in_place(
        &mut self,
        path: &Path,
        temporary: &OsStr,
        there: Option<&Stat>,
        onto_what_is_there: bool,
    ) -> Result<(), Failed> {
        let name = path.file_name().unwrap_or_default();
        let replace = (self.overwrite || onto_what_is_there) && there.is_some();
        if replace && there.is_some_and(|there| there.kind == Kind::Directory) {
            return Err(Failed::One("a directory is there".to_owned()));
        }
        let flags = if replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        let placed = self.place.directory(path.parent().unwrap_or(path)).and_then(|directory| {
            match renameat_with(directory, temporary, directory, name, flags) {
                // A file system that cannot, or that somebody else does not use while we do.
                Err(Errno::INVAL) if there.is_none() => {
                    Ok(rustix::fs::renameat(directory, temporary, directory, name)?)
                }
                done => Ok(done?),
            }
        });
        placed.map_err(|error| {
            if error.kind() == io::ErrorKind::AlreadyExists {
                Failed::One("something else is there; --overwrite replaces it".to_owned())
            } else {
                self.target(path, error)
            }
        })
    }

    fn link(&mut self, first: &Path, entry: &Entry, there: Option<Stat>) -> Result<(), Failed> {
        if self.failed_links.contains(first) {
            return Err(Failed::One(format!("it is a hard link to {}, which was not restored", first.display())));
        }
        let path = entry.path.as_path();
        let of_first = self.there(first)?;
        if of_first.map(|stat| stat.identity()) == there.map(|stat| stat.identity()) && there.is_some() {
            self.restored.totals.kept += 1;
            return Ok(());
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = self.place.directory(first.parent().unwrap_or(first)).and_then(|parent| {
            Ok(rustix::fs::openat(parent, first.file_name().unwrap_or_default(), flags, Mode::empty())?)
        });
        let file = opened.map_err(|error| self.target(path, error))?;
        let made = self.with_free_name(path, |directory, name| {
            Ok(rustix::fs::linkat(&file, c"", directory, name, AtFlags::EMPTY_PATH)?)
        });
        let temporary = match made {
            // This file system has no room for more names: a file of its own.
            Err(Failed::One(_)) if entry.kind == Kind::File => return self.copy_of_first(first, entry, there),
            made => made?,
        };
        self.put_in_place(path, &temporary, there.as_ref(), false).inspect_err(|_| self.discard(path, &temporary))
    }

    /// Restores a further name as a file of its own.
    fn copy_of_first(&mut self, first: &Path, entry: &Entry, there: Option<Stat>) -> Result<(), Failed> {
        let path = entry.path.as_path();
        let Some(source) = self.open_there(first) else { return Err(Failed::One("its first name is gone".to_owned())) };
        let (temporary, file) = self.temporary(path)?;
        let copied = self.copier.copy(&source, &file, entry.size.unwrap_or_default(), self.progress);
        let placed = copied.map_err(Failed::from).and_then(|_| {
            let applied = attributes::apply(Inode::Open(file.as_fd()), Kind::File, &entry.attributes, &mut self.losses);
            applied.map_err(|error| self.target(path, error))?;
            self.put_in_place(path, &temporary, there.as_ref(), false)
        });
        placed.inspect_err(|_| self.discard(path, &temporary))
    }

    fn special(&mut self, entry: &Entry, there: Option<Stat>) -> Result<(), Failed> {
        let path = entry.path.as_path();
        if self.is_right_special(entry, there.as_ref()) {
            self.restored.totals.kept += 1;
            return Ok(());
        }
        let temporary = self.with_free_name(path, |directory, name| make_special(directory, name, entry))?;
        let mut losses = std::mem::take(&mut self.losses);
        let applied = self.place.directory(path.parent().unwrap_or(path)).and_then(|directory| {
            attributes::apply(Inode::Named(directory, &temporary), entry.kind, &entry.attributes, &mut losses)
        });
        self.losses = losses;
        let placed = match applied {
            Ok(()) => self.put_in_place(path, &temporary, there.as_ref(), false),
            Err(error) => Err(self.target(path, error)),
        };
        placed.inspect_err(|_| self.discard(path, &temporary))
    }

    fn is_right_special(&mut self, entry: &Entry, there: Option<&Stat>) -> bool {
        let Some(there) = there.filter(|there| there.kind == entry.kind) else { return false };
        let name = entry.path.file_name().unwrap_or_default();
        let Ok(directory) = self.place.directory(entry.path.parent().unwrap_or(&entry.path)) else { return false };
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

    /// Everything in the directory is there; now it gets its own attributes, and what interrupted runs left goes.
    fn directory(&mut self, entry: &Entry) -> Result<(), Failed> {
        let path = entry.path.as_path();
        let odd = self.odd_names.remove(path).unwrap_or_default();
        let is_root = path.parent().is_none();
        let mut losses = std::mem::take(&mut self.losses);
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
            attributes::apply(inode, Kind::Directory, &entry.attributes, &mut losses)?;
            attributes::lock(directory, &entry.attributes, &mut losses)
        });
        self.losses = losses;
        done.map_err(|error| self.target(path, error))
    }

    fn finish(mut self) -> Result<Restored, VssError> {
        for (path, attributes) in std::mem::take(&mut self.to_lock) {
            let Some(file) = self.open_there(&path) else { continue };
            let locked = attributes::lock(&file, &attributes, &mut self.losses);
            if let Err(error) = locked {
                self.fail(path, error.to_string());
            }
        }
        let root = self.place.directory(Path::new("/")).map_err(|error| reading(&self.other, &error))?;
        rustix::fs::syncfs(root).map_err(|error| writing(&self.other, &error.into()))?;
        self.restored.losses = self.losses.into_lines();
        Ok(self.restored)
    }
}
