//! Making a backup: everything that is selected is copied into the data tree, and written down.

mod directory;
mod file;
mod link;
mod special;

use self::directory::private_directory;
use self::file::Done;
use self::link::FirstLink;
use crate::attributes::{Inode, Losses, Stat};
use crate::base::{BaseBackup, settled};
use crate::data::Copier;
use crate::dir_chain::DirChain;
use crate::directory::{BackupDirectory, Beginning, Completion, Failure, Totals};
use crate::entry::{Entry, Kind, Time, Version};
use crate::failure::{Failures, is_of_all, reading, stopped, writing};
use crate::manifest::{Reader, Writer};
use crate::progress::Progress;
use crate::selection::{NotCopied, Selection};
use crate::target::{allow_open_files, remove};
use crate::tree::Tree;
use crate::walk::{Found, Left, Visitor, Walk};
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use vss_model::{Consistency, Instant, SetId, VssError};

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
    /// Directories of file sets that are not there: nothing of them is in the backup.
    pub absent: Vec<PathBuf>,
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
    let data = directory.make_data().map_err(failed)?;
    let mut making = Making {
        selection,
        trees,
        at: directory.path(),
        data: DirChain::new(data, true),
        journal: Writer::create(&directory.journal()).map_err(failed)?,
        resumed: old.is_some(),
        old,
        settled: settled(&directory.beginning()?),
        base,
        links: HashMap::new(),
        kept_names: Vec::new(),
        copier: Copier::default(),
        losses: Losses::default(),
        totals: Totals::default(),
        failed_components: BTreeSet::new(),
        failures: Failures::default(),
        absent: Vec::new(),
        progress,
    };
    for mount in &selection.not_copied {
        making.lack(mount);
    }
    let walked = Walk::new(selection, trees).run(&mut making).and_then(|()| making.in_base(Path::new("/")).map(|_| ()));
    // What is done is done, whatever came after it.
    let flushed = making.journal.flush();
    walked?;
    flushed.map_err(failed)?;
    Ok(Outcome {
        totals: making.totals,
        failed_components: making.failed_components,
        failures: making.failures.first,
        more_failures: making.failures.more,
        absent: making.absent,
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

struct Making<'a> {
    selection: &'a Selection,
    trees: &'a [Tree],
    at: &'a Path,
    data: DirChain,
    journal: Writer,
    /// A run before has left something.
    resumed: bool,
    old: Option<Reader<BufReader<File>>>,
    /// Of what was changed before this, the same version has the same contents.
    settled: Time,
    base: Option<BaseBackup>,
    /// Inodes with several names, as long as some were not met: no more than there are such inodes.
    links: HashMap<(u32, u32, u64), FirstLink>,
    /// For each directory on the way the names that belong into it; where a run before may have left others.
    kept_names: Vec<Vec<OsString>>,
    copier: Copier,
    losses: Losses,
    totals: Totals,
    failed_components: BTreeSet<u32>,
    failures: Failures,
    absent: Vec<PathBuf>,
    progress: &'a mut dyn Progress,
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

    fn parent(&mut self, path: &Path) -> io::Result<BorrowedFd<'_>> {
        self.data.directory(path.parent().unwrap_or(path))
    }

    fn components(&self, sets: &[usize], partial: impl IntoIterator<Item = usize>) -> Vec<u32> {
        let of_sets = sets.iter().filter_map(|&set| self.selection.sets[set].component);
        let of_partial = partial.into_iter().filter_map(|one| self.selection.partial_files[one].component);
        of_sets.chain(of_partial).collect::<BTreeSet<u32>>().into_iter().collect()
    }

    fn fail(&mut self, path: &Path, components: Vec<u32>, error: &io::Error) {
        self.failed_components.extend(&components);
        self.failures.add(Failure { path: path.to_owned(), message: error.to_string(), components });
    }

    /// Every component that owns files at a mount of which there is no copy has failed.
    fn lack(&mut self, mount: &NotCopied) {
        let sets = self.selection.sets_over(&mount.at);
        if !sets.is_empty() {
            let why = io::Error::other(format!("it is in no copy: {}", mount.why));
            self.fail(&mount.at, self.components(&sets, None), &why);
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
                self.trouble(found.path, found.sets, found.partial.as_slice(), error)
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
                self.trouble(left.path, left.sets, &[], error)?;
                self.directory(left, private_directory(), Version::default())
            }
            Err(Failed::All(error)) => return Err(error),
        };
        self.totals.directories += 1;
        self.write_down(&entry)
    }

    fn trouble(&mut self, path: &Path, sets: &[usize], partial: &[usize], error: io::Error) -> Result<(), VssError> {
        let components = self.components(sets, partial.iter().copied());
        self.fail(path, components, &error);
        Ok(())
    }

    fn absent(&mut self, path: &Path) {
        self.absent.push(path.to_owned());
    }
}
