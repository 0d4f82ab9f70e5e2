//! A backup and the earlier ones that it builds on, read as one.

use crate::directory::{BackupDirectory, Completion, file_digest};
use crate::entry::Entry;
use crate::failure::{DAMAGED, reading};
use crate::manifest::Reader;
use crate::order::compare;
use crate::target::allow_open_files;
use std::cmp::Ordering;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use uuid::Uuid;
use vss_model::{VssCode, VssError};

/// Longer chains are an error of whoever made them.
const LONGEST: usize = 10_000;

/// One backup of the chain.
#[derive(Debug)]
pub struct Generation {
    /// Its directory, locked.
    pub directory: BackupDirectory,
    /// What it is.
    pub completion: Completion,
}

/// The backups, oldest first.
#[derive(Debug)]
pub struct Chain(Vec<Generation>);

impl Chain {
    /// Opens these directories and what they build on. An earlier backup is looked for among the directories, then where it
    /// was when the later one was made, then beside that one.
    ///
    /// # Errors
    /// As [`BackupDirectory::open`]; `E_INVALIDARG` when the directories are no chain; `VSS_E_OBJECT_NOT_FOUND` when an
    /// earlier backup is not there; `VSS_E_CORRUPT_XML_DOCUMENT` when a manifest is damaged.
    pub fn open(directories: &[PathBuf]) -> Result<Self, VssError> {
        allow_open_files();
        let mut given = directories.iter().map(|path| generation(path)).collect::<Result<Vec<_>, _>>()?;
        let is_base = |one: &Generation, all: &[Generation]| {
            all.iter().any(|other| other.base() == Some(one.completion.beginning.id))
        };
        let Some(newest) = (0..given.len()).rfind(|&at| !is_base(&given[at], &given)) else {
            return Err(if given.is_empty() {
                VssError::new(VssCode::InvalidArgument, "No backup is given")
                    .with_hint("Name the directory of one: --from DIRECTORY")
            } else {
                endless()
            });
        };
        let mut chain = vec![given.remove(newest)];
        while let Some(base) = chain.last().and_then(|last| last.completion.beginning.request.base.clone()) {
            let found = match given.iter().position(|one| one.completion.beginning.id == base.id) {
                Some(at) => given.remove(at),
                None => look_for(base.id, &base.directory, chain.last())?,
            };
            chain.push(found);
            if chain.len() > LONGEST {
                return Err(endless());
            }
        }
        if let Some(other) = given.first() {
            let message =
                format!("{} is not one of the backups that the others build on", other.directory.path().display());
            return Err(VssError::new(VssCode::InvalidArgument, message)
                .with_hint("Name one backup, or a full one and those that were made after it"));
        }
        chain.reverse();
        Ok(Self(chain))
    }

    /// The backups, oldest first.
    #[must_use]
    pub fn generations(&self) -> &[Generation] {
        &self.0
    }

    /// The id of the newest one.
    pub(crate) fn id(&self) -> Uuid {
        self.0.last().map(|newest| newest.completion.beginning.id).unwrap_or_default()
    }

    /// Which one holds the contents of an entry of the generation `at`.
    pub(crate) fn holder(&self, at: usize, entry: &Entry) -> Option<usize> {
        match entry.held_by {
            None => Some(at),
            Some(id) => self.0.iter().position(|one| one.completion.beginning.id == id),
        }
    }

    /// What counts of the entries of one path, oldest first: nothing where the newest backup does not list it, and nothing
    /// from before it was gone for a while.
    pub(crate) fn of_newest(&self, mut entries: Vec<(usize, Entry)>) -> Vec<(usize, Entry)> {
        let counting = (0..self.0.len()).rev().zip(entries.iter().rev()).take_while(|(wanted, (at, _))| wanted == at);
        let first = entries.len() - counting.count();
        entries.split_off(first)
    }

    /// Reads the entries of all that count.
    pub(crate) fn entries(&self) -> Result<Entries, VssError> {
        let newest = self.0.len().saturating_sub(1);
        // Of whole trees nothing but whole files is held, each entry says by whom; parts lie over what was before.
        let is_of_trees = self.0.get(newest).is_some_and(|one| one.completion.beginning.request.components.is_empty());
        let first = if is_of_trees { newest } else { 0 };
        let mut readers = Vec::new();
        for (at, one) in self.0.iter().enumerate().skip(first) {
            let path = one.directory.manifest();
            let reader = Reader::open(&path).map_err(|error| reading(&path, &error))?;
            readers.push(Source { at, path, reader });
        }
        Ok(Entries(readers))
    }
}

impl Generation {
    fn base(&self) -> Option<Uuid> {
        self.completion.beginning.request.base.as_ref().map(|base| base.id)
    }
}

fn generation(path: &Path) -> Result<Generation, VssError> {
    let (directory, completion) = BackupDirectory::open(path)?;
    let manifest = directory.manifest();
    let digest = file_digest(&manifest).map_err(|error| reading(&manifest, &error))?;
    if digest != completion.manifest {
        let message = format!("{} is damaged: its checksum does not fit", manifest.display());
        return Err(VssError::new(VssCode::CorruptXmlDocument, message).with_hint(DAMAGED));
    }
    Ok(Generation { directory, completion })
}

fn endless() -> VssError {
    VssError::new(VssCode::InvalidArgument, format!("The chain of backups does not end, or has more than {LONGEST}"))
        .with_hint(DAMAGED)
}

fn look_for(id: Uuid, directory: &Path, later: Option<&Generation>) -> Result<Generation, VssError> {
    let beside = later.and_then(|later| Some(later.directory.path().parent()?.join(directory.file_name()?)));
    for path in [Some(directory.to_owned()), beside].into_iter().flatten().filter(|path| path.exists()) {
        let found = generation(&path)?;
        if found.completion.beginning.id == id {
            return Ok(found);
        }
    }
    let of = later.map(|later| later.directory.path().display().to_string()).unwrap_or_default();
    let message = format!("{of} builds on a backup that was in {} and is not there", directory.display());
    Err(VssError::new(VssCode::ObjectNotFound, message).with_hint("Name its directory too: --from OLDER --from NEWER"))
}

struct Source {
    at: usize,
    path: PathBuf,
    reader: Reader<BufReader<File>>,
}

/// The entries of several generations, by their paths.
pub(crate) struct Entries(Vec<Source>);

impl Entries {
    /// What there is of the next path, oldest first, with the generation of each; empty at the end.
    pub(crate) fn next(&mut self) -> Result<Vec<(usize, Entry)>, VssError> {
        let mut least: Option<PathBuf> = None;
        for source in &mut self.0 {
            let next = source.reader.peek().map_err(|error| reading(&source.path, &error))?;
            if let Some(next) = next
                && least.as_ref().is_none_or(|least| compare(&next.path, least) == Ordering::Less)
            {
                least = Some(next.path.clone());
            }
        }
        let Some(least) = least else { return Ok(Vec::new()) };
        let mut entries = Vec::new();
        for source in &mut self.0 {
            let entry = source.reader.at(&least).map_err(|error| reading(&source.path, &error))?;
            entries.extend(entry.map(|entry| (source.at, entry)));
        }
        Ok(entries)
    }
}
