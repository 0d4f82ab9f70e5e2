//! Making a backup: everything that is selected is copied into the data tree, and written down.

use crate::attributes::{self, Inode, Losses, Stat};
use crate::base::{BaseBackup, looks_same};
use crate::data::{Copier, CopyError};
use crate::digest::Digest;
use crate::dir_chain::DirChain;
use crate::directory::{BackupDirectory, Beginning, Completion, Failure, Totals};
use crate::entry::{Attributes, Entry, Kind, Version};
use crate::failure::{is_of_all, reading, stopped, writing};
use crate::manifest::{Reader, Writer};
use crate::progress::Progress;
use crate::selection::{Selection, Take};
use crate::target::{allow_open_files, make_special, remove};
use crate::tree::{Tree, names};
use crate::walk::{Found, Left, Visitor, Walk};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use uuid::Uuid;
use vss_model::{Consistency, Instant, SetId, VssError};

/// So many failures are told one by one.
const FAILURES: usize = 1000;

/// What copying came to. The backup is not whole before [`Outcome::complete`].
#[derive(Debug)]
pub struct Outcome {
    /// What was put into it.
    pub totals: Totals,
    /// The components that are not whole.
    pub failed_components: BTreeSet<u32>,
    /// What is missing, the first of it.
    pub failures: Vec<Failure>,
    /// How much more is missing.
    pub more_failures: u64,
    /// What the data tree could not keep and the manifest has: a few words each.
    pub losses: Vec<String>,
}

/// Copies what is selected into the directory.
///
/// # Errors
/// The directory cannot be written: `VSS_E_INSUFFICIENT_STORAGE` when it is full; `E_ABORT` when `progress` wished to stop.
/// The same call goes on later. What cannot be read is no error here but a failure of its components.
pub fn copy(
    directory: &BackupDirectory,
    selection: &Selection,
    trees: &[Tree],
    base: Option<BaseBackup>,
    progress: &mut dyn Progress,
) -> Result<Outcome, VssError> {
    allow_open_files();
    let old = directory.old_journal().map(|path| Reader::open(&path)).transpose();
    let old = old.map_err(|error| reading(directory.path(), &error))?;
    let failed = |error: io::Error| writing(directory.path(), &error);
    let data = directory.data().map_err(failed)?;
    let mut making = Making {
        selection,
        trees,
        at: directory.path(),
        data: DirChain::new(data, true),
        journal: Writer::create(&directory.journal()).map_err(failed)?,
        resumed: old.is_some(),
        old,
        base,
        links: HashMap::new(),
        kept_names: Vec::new(),
        copier: Copier::default(),
        losses: Losses::default(),
        totals: Totals::default(),
        failed_components: BTreeSet::new(),
        failures: Vec::new(),
        more_failures: 0,
        progress,
    };
    let walked = Walk::new(selection, trees).run(&mut making).and_then(|()| making.in_base(Path::new("/")).map(|_| ()));
    // What is done is done, whatever came after it.
    let flushed = making.journal.flush();
    walked?;
    flushed.map_err(failed)?;
    Ok(Outcome {
        totals: making.totals,
        failed_components: making.failed_components,
        failures: making.failures,
        more_failures: making.more_failures,
        losses: making.losses.into_lines(),
    })
}

impl Outcome {
    /// Brings the backup to the disk and declares it whole. The documents are written before.
    ///
    /// # Errors
    /// The directory cannot be written; the backup stays half-made.
    pub fn complete(
        self,
        directory: &BackupDirectory,
        beginning: Beginning,
        set_id: Option<SetId>,
        consistency: Option<Consistency>,
    ) -> Result<Completion, VssError> {
        directory.complete(|manifest, documents| Completion {
            beginning,
            finished_at: Instant::now(),
            set_id,
            consistency,
            totals: self.totals,
            failed_components: self.failed_components.into_iter().collect(),
            failures: self.failures,
            more_failures: self.more_failures,
            manifest,
            documents,
        })
    }
}

/// The first path of an inode with several.
struct FirstLink {
    path: PathBuf,
    /// How many names of it were not met yet.
    remaining: u32,
    held_by: Option<Uuid>,
}

struct Making<'a> {
    selection: &'a Selection,
    trees: &'a [Tree],
    at: &'a Path,
    data: DirChain,
    journal: Writer,
    /// A run before has left something.
    resumed: bool,
    old: Option<Reader<BufReader<File>>>,
    base: Option<BaseBackup>,
    /// Inodes with several names, as long as some were not met: no more than there are such inodes.
    links: HashMap<(u32, u32, u64), FirstLink>,
    /// For each directory on the way the names that belong into it; where a run before may have left others.
    kept_names: Vec<Vec<OsString>>,
    copier: Copier,
    losses: Losses,
    totals: Totals,
    failed_components: BTreeSet<u32>,
    failures: Vec<Failure>,
    more_failures: u64,
    progress: &'a mut dyn Progress,
}

/// What became of one file.
enum Done {
    Written(Box<Entry>),
    /// Nothing changed, and nobody wants it.
    Unwanted,
}

/// Why one file did not become part of the backup.
enum Failed {
    /// It alone.
    One(io::Error),
    /// Everything.
    All(VssError),
}

impl Making<'_> {
    /// Where `path` lies in the data tree, for messages.
    fn place(&self, path: &Path) -> PathBuf {
        self.at.join("data").join(path.strip_prefix("/").unwrap_or(path))
    }

    /// An error of the data tree: of this file alone, or of all.
    fn target(&self, path: &Path, error: io::Error) -> Failed {
        if is_of_all(&error) { Failed::All(writing(&self.place(path), &error)) } else { Failed::One(error) }
    }

    fn components(&self, sets: &[usize], partial: Option<usize>) -> Vec<u32> {
        let of_sets = sets.iter().filter_map(|&set| self.selection.sets[set].component);
        let of_partial = partial.and_then(|one| self.selection.partial_files[one].component);
        of_sets.chain(of_partial).collect::<BTreeSet<u32>>().into_iter().collect()
    }

    fn fail(&mut self, path: &Path, components: Vec<u32>, error: &io::Error) {
        self.failed_components.extend(&components);
        if self.failures.len() < FAILURES {
            self.failures.push(Failure { path: path.to_owned(), message: error.to_string(), components });
        } else {
            self.more_failures += 1;
        }
    }

    fn write_down(&mut self, entry: &Entry) -> Result<(), VssError> {
        if self.resumed
            && entry.is_here()
            && let (Some(names), Some(name)) = (self.kept_names.last_mut(), entry.path.file_name())
        {
            names.push(name.to_owned());
        }
        self.journal.write(entry).map_err(|error| writing(self.at, &error))
    }

    /// Copies one file, or finds that it need not be.
    fn take(&mut self, found: &Found<'_>) -> Result<Done, Failed> {
        let named = Inode::Named(found.directory, found.name);
        let blank = |stat: &Stat, attributes: Attributes, components: Vec<u32>| Entry {
            path: found.path.to_owned(),
            kind: stat.kind,
            attributes,
            size: (stat.kind == Kind::File).then_some(stat.size),
            digest: None,
            target: None,
            device: None,
            link: None,
            parts: None,
            held_by: None,
            components,
            version: stat.version,
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
        } else if let Some(digest) = old.and_then(|old| self.kept(&old, &entry)) {
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

    /// What the backup before has at `path`; what it has before that and the selection says nothing of is noted as held by it.
    fn in_base(&mut self, path: &Path) -> Result<Option<Entry>, VssError> {
        let Some(mut base) = self.base.take() else { return Ok(None) };
        while let Some(mut entry) = base.before(path)? {
            let components = self.selection.carriers(&entry, self.trees);
            if components.is_empty() {
                continue;
            }
            entry.held_by = Some(base.holder(&entry));
            entry.components = components;
            self.totals.unchanged += u64::from(entry.kind != Kind::Directory);
            self.write_down(&entry)?;
        }
        let found = base.at(path)?;
        self.base = Some(base);
        Ok(found)
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
    fn kept(&mut self, old: &Entry, entry: &Entry) -> Option<Digest> {
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
        (Some(digest) == old.digest).then_some(digest)
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

    fn parent(&mut self, path: &Path) -> io::Result<BorrowedFd<'_>> {
        self.data.directory(path.parent().unwrap_or(path))
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

    /// Makes a further name of an inode that was met. False: it was not, or it can have no more names here.
    fn link(&mut self, path: &Path, stat: &Stat, entry: &mut Entry) -> Result<bool, Failed> {
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

    /// Makes anything but a file or a directory.
    fn special(&mut self, found: &Found<'_>, entry: &mut Entry) -> Result<(), Failed> {
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

    fn finish_directory(&mut self, left: &Left<'_>) -> Result<Entry, Failed> {
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

    fn directory(&self, left: &Left<'_>, attributes: Attributes, version: Version) -> Entry {
        Entry {
            path: left.path.to_owned(),
            kind: Kind::Directory,
            attributes,
            size: None,
            digest: None,
            target: None,
            device: None,
            link: None,
            parts: None,
            held_by: None,
            components: self.components(left.sets, None),
            version,
        }
    }
}

impl Visitor for Making<'_> {
    fn file(&mut self, found: &Found<'_>) -> Result<(), VssError> {
        self.progress.at(found.path, &self.totals);
        if self.progress.stop() {
            return Err(stopped());
        }
        match self.take(found) {
            Ok(Done::Written(entry)) => {
                self.totals.files += 1;
                self.write_down(&entry)
            }
            Ok(Done::Unwanted) => Ok(()),
            Err(Failed::One(error)) => {
                // What is there of it is not the file.
                if let Ok(directory) = self.parent(found.path) {
                    let _ = remove(directory, found.path.file_name().unwrap_or_default());
                }
                self.trouble(found.path, found.sets, found.partial, error)
            }
            Err(Failed::All(error)) => Err(error),
        }
    }

    fn enter(&mut self, path: &Path) -> Result<(), VssError> {
        if self.progress.stop() {
            return Err(stopped());
        }
        if self.resumed {
            if let Some(name) = path.file_name() {
                let is_other = |stat: io::Result<Stat>| stat.is_ok_and(|stat| stat.kind != Kind::Directory);
                let made = self.parent(path).and_then(|parent| {
                    if is_other(Stat::of(Inode::Named(parent, name))) { remove(parent, name) } else { Ok(()) }
                });
                made.map_err(|error| writing(&self.place(path), &error))?;
            }
            self.kept_names.push(Vec::new());
        }
        // Also a directory in which nothing is selected has to be there.
        match self.data.directory(path) {
            Ok(_) => Ok(()),
            Err(error) => Err(writing(&self.place(path), &error)),
        }
    }

    fn leave(&mut self, left: &Left<'_>) -> Result<(), VssError> {
        let entry = match self.finish_directory(left) {
            Ok(entry) => entry,
            Err(Failed::One(error)) => {
                self.trouble(left.path, left.sets, None, error)?;
                self.directory(left, private_directory(), Version::default())
            }
            Err(Failed::All(error)) => return Err(error),
        };
        self.totals.directories += 1;
        self.write_down(&entry)
    }

    fn trouble(
        &mut self,
        path: &Path,
        sets: &[usize],
        partial: Option<usize>,
        error: io::Error,
    ) -> Result<(), VssError> {
        let components = self.components(sets, partial);
        self.fail(path, components, &error);
        Ok(())
    }
}

fn private_directory() -> Attributes {
    Attributes {
        mode: 0o700,
        uid: 0,
        gid: 0,
        modified: crate::entry::Time::default(),
        accessed: crate::entry::Time::default(),
        xattrs: std::collections::BTreeMap::new(),
        flags: 0,
    }
}
