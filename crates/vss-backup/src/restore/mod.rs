//! Putting files back: everything in a backup, below another directory, at its original path.
//!
//! A file appears at its place whole, with its checksum compared, or not at all. What is there already and right is left
//! alone, so that an interrupted run goes on where it was. Until everything is there the directory has a mark.

mod data_trees;
mod directory;
mod file;
mod file_systems;
mod link;
mod place;
mod special;

use self::data_trees::DataTrees;
use self::place::Place;
use crate::attributes::{self, Losses};
use crate::chain::Chain;
use crate::data::Copier;
use crate::directory::{Failure, Totals};
use crate::entry::{Attributes, Entry, Kind};
use crate::failure::{Failures, reading, stopped};
use crate::progress::Progress;
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};
use vss_model::{VssCode, VssError};

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
    /// The file that says that not everything is restored; none when everything is.
    pub mark: Option<PathBuf>,
}

/// Puts everything back below `other`, which exists or is made.
///
/// # Errors
/// `VSS_E_INSUFFICIENT_STORAGE` when the file system is full, `E_ABORT` when `progress` wished to stop: the same call goes on
/// later. `E_INVALIDARG` for a directory in a backup, `VSS_E_BAD_STATE` when another process restores there. What fails for
/// one file is in the result.
pub fn restore(
    chain: &Chain,
    other: &Path,
    overwrite: bool,
    progress: &mut dyn Progress,
) -> Result<Restored, VssError> {
    let other = resolved(other)?;
    refuse_backups(chain, &other)?;
    let data = DataTrees::open(chain)?;
    let mut entries = chain.entries()?;
    let mut restoring = Restoring {
        chain,
        data,
        place: Place::begin(&other, chain.id(), overwrite)?,
        copier: Copier::default(),
        losses: Losses::default(),
        totals: Totals::default(),
        failures: Failures::default(),
        failed_links: HashSet::new(),
        to_lock: Vec::new(),
        odd_names: HashMap::new(),
        progress,
    };
    loop {
        let of_path = entries.next()?;
        if of_path.is_empty() {
            break;
        }
        restoring.put_back(chain.of_newest(of_path))?;
    }
    restoring.finish()
}

/// Where `path` is, or will be once it is made: what is there of the way is followed, symbolic links too, and what is not
/// will be plain directories.
fn resolved(path: &Path) -> Result<PathBuf, VssError> {
    let absolute = std::path::absolute(path).map_err(|error| reading(path, &error))?;
    let mut real = PathBuf::new();
    for part in absolute.components() {
        if part == Component::ParentDir {
            real.pop();
        } else {
            real.push(part);
            real = real.canonicalize().unwrap_or(real);
        }
    }
    Ok(real)
}

/// Before anything is made: `other` may not be there yet.
fn refuse_backups(chain: &Chain, other: &Path) -> Result<(), VssError> {
    if chain.generations().iter().any(|one| other.starts_with(one.directory.path())) {
        return Err(VssError::new(VssCode::InvalidArgument, format!("{} is in the backup itself", other.display()))
            .with_hint("Restore to another directory"));
    }
    Ok(())
}

/// Why one path was not put back.
enum Failed {
    One(String),
    All(VssError),
}

impl Failed {
    /// The backup has it and does not give it.
    fn unreadable(error: &io::Error) -> Self {
        Self::One(format!("the backup cannot be read: {error}"))
    }
}

struct Restoring<'a> {
    chain: &'a Chain,
    data: DataTrees,
    place: Place,
    copier: Copier,
    losses: Losses,
    totals: Totals,
    failures: Failures,
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
        self.progress.at(&path, &self.totals);
        if self.progress.stop() {
            return Err(stopped());
        }
        let done = match kind {
            Kind::Directory => self.directory(newest),
            _ => self.file(&entries),
        };
        match done {
            Ok(()) if kind == Kind::Directory => self.totals.directories += 1,
            Ok(()) => self.totals.files += 1,
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
        self.failures.add(Failure { path, message, components: Vec::new() });
    }

    fn finish(mut self) -> Result<Restored, VssError> {
        for (path, attributes) in std::mem::take(&mut self.to_lock) {
            let Some(file) = self.place.open(&path) else { continue };
            if let Err(error) = attributes::lock(&file, &attributes, &mut self.losses) {
                self.fail(path, error.to_string());
            }
        }
        let is_whole = self.failures.first.is_empty();
        let mark = (!is_whole).then(|| self.place.mark());
        self.place.end(is_whole)?;
        let Failures { first: failures, more: more_failures } = self.failures;
        Ok(Restored { totals: self.totals, failures, more_failures, losses: self.losses.into_lines(), mark })
    }
}
