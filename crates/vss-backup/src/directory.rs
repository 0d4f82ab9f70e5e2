//! The directory of one backup: what lies where in it, whether it is whole, and who works on it.
//!
//! ```text
//! DIR/unfinished       what is being backed up; there until the backup is whole
//! DIR/journal          the entries of this run, journal.old: those of the runs before
//! DIR/data/...         the files, at their original paths
//! DIR/documents/...    the Backup Components Document, a Writer Metadata Document for each writer
//! DIR/manifest         every entry: the journal of the last run
//! DIR/complete         written last, and the only sign of a whole backup
//! ```

use crate::data::{Copier, CopyError};
use crate::digest::{Digest, plain};
use crate::failure::{DAMAGED, reading, writing};
use crate::lock::lock;
use crate::manifest;
use crate::progress::Quiet;
use rustix::fs::{FlockOperation, Mode, OFlags, fsync, syncfs};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use uuid::Uuid;
use vss_model::{BackupType, ComponentName, Consistency, Instant, SetId, VssCode, VssError};

/// The version of the layout.
const FORMAT: u32 = 1;
/// A larger file is no record of ours.
const RECORD: u64 = 64 << 20;

const UNFINISHED: &str = "unfinished";
const COMPLETE: &str = "complete";
const JOURNAL: &str = "journal";
const OLD_JOURNAL: &str = "journal.old";
const JOINED_JOURNAL: &str = "journal.joined";
const MANIFEST: &str = "manifest";
/// What is of no use in a whole backup, and may be there when the last run was killed at its very end.
pub(crate) const LEFT: [&str; 4] = [UNFINISHED, OLD_JOURNAL, JOINED_JOURNAL, "unfinished.new"];
const DATA: &str = "data";
const DOCUMENTS: &str = "documents";

/// A component of a writer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentOf {
    /// The writer's name.
    pub writer: String,
    /// The component.
    #[serde(flatten)]
    pub name: ComponentName,
}

/// What is backed up. A half-made backup is gone on with only for the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What kind of backup it is.
    pub backup_type: BackupType,
    /// The whole trees.
    #[serde(with = "vss_model::path_text::list")]
    pub paths: Vec<PathBuf>,
    /// The components whose files are taken.
    pub components: Vec<ComponentOf>,
    /// The backup that this one builds on.
    pub base: Option<Base>,
}

/// An earlier backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Its id.
    pub id: Uuid,
    /// Where it was then.
    #[serde(with = "vss_model::path_text")]
    pub directory: PathBuf,
}

/// What is known from the beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    /// The version of the layout.
    format: u32,
    /// Tells this backup from all others.
    pub id: Uuid,
    /// When its first run began.
    pub began_at: Instant,
    /// What is backed up.
    pub request: Request,
}

/// Something that is missing in the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What could not be read.
    #[serde(with = "vss_model::path_text")]
    pub path: PathBuf,
    /// Why.
    pub message: String,
    /// The components that have failed by it, by their place in the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<u32>,
}

/// What was put into the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Everything but directories.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Bytes of the contents in this backup.
    pub bytes: u64,
    /// Files of which a run before had the right contents already.
    pub kept: u64,
    /// Files whose contents an earlier backup holds.
    pub unchanged: u64,
}

/// What is known of a whole backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    /// What it is.
    #[serde(flatten)]
    pub beginning: Beginning,
    /// When it was whole.
    pub finished_at: Instant,
    /// The shadow copy set that was read.
    pub set_id: Option<SetId>,
    /// How consistent that was.
    pub consistency: Option<Consistency>,
    /// What is in it.
    pub totals: Totals,
    /// The components that are not whole, by their place in the request.
    pub failed_components: Vec<u32>,
    /// What is missing, the first of it.
    pub failures: Vec<Failure>,
    /// How much more is missing.
    pub more_failures: u64,
    /// The checksum of the manifest.
    pub manifest: Digest,
    /// Those of the documents, by name.
    pub documents: BTreeMap<String, Digest>,
}

/// A directory of a backup, locked as long as this lives: against everybody while it is made, against makers while it is read.
#[derive(Debug)]
pub struct BackupDirectory {
    path: PathBuf,
    root: OwnedFd,
}

impl BackupDirectory {
    /// Begins a backup in a new or empty directory, or goes on with a half-made one of the same request. `began_at` is before
    /// the copies were made.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_ALREADY_EXISTS` for a whole backup, a half-made one of something else, and a directory with other
    /// things in it; `VSS_E_OBJECT_NOT_FOUND` when the directory above is not there; `VSS_E_BAD_STATE` when somebody works
    /// on it; what the system says.
    pub fn begin(path: &Path, request: Request, began_at: Instant) -> Result<(Self, Beginning), VssError> {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(writing(path, &error)),
            _ => {}
        }
        let this = Self::locked(path, FlockOperation::NonBlockingLockExclusive)?;
        let taken = |message: String, hint: &str| {
            Err(VssError::new(VssCode::ObjectAlreadyExists, format!("{}: {message}", path.display())).with_hint(hint))
        };
        if this.has(COMPLETE) {
            return taken("A whole backup is here".to_owned(), "Name another directory for the next one");
        }
        if this.has(UNFINISHED) {
            let beginning = this.beginning()?;
            if beginning.request != request {
                return taken(
                    format!("A half-made backup of something else is here: {}", words(&beginning.request)),
                    "Finish it with its own command, remove it, or name another directory",
                );
            }
            this.join_journals().map_err(|error| writing(&this.path, &error))?;
            return Ok((this, beginning));
        }
        let others = fs::read_dir(&this.path).map_err(|error| reading(path, &error))?;
        // The beginning of a run that was killed at once, and what mkfs makes.
        let begun = format!("{UNFINISHED}.new");
        let mut others =
            others.flatten().filter(|entry| entry.file_name() != "lost+found" && entry.file_name() != begun.as_str());
        if let Some(other) = others.next() {
            return taken(
                format!("It is no backup and not empty: {} is in it", other.file_name().display()),
                "Name a new or an empty directory",
            );
        }
        let beginning = Beginning { format: FORMAT, id: Uuid::new_v4(), began_at, request };
        this.write_record(UNFINISHED, &beginning)?;
        Ok((this, beginning))
    }

    /// What the half-made backup here began with.
    pub(crate) fn beginning(&self) -> Result<Beginning, VssError> {
        self.record(UNFINISHED)
    }

    /// Opens a whole backup.
    ///
    /// # Errors
    /// `VSS_E_BAD_STATE` for a half-made one and while somebody works on it; `VSS_E_OBJECT_NOT_FOUND` when there is none;
    /// `VSS_E_CORRUPT_XML_DOCUMENT` when its record is damaged.
    pub fn open(path: &Path) -> Result<(Self, Completion), VssError> {
        let this = Self::locked(path, FlockOperation::NonBlockingLockShared)?;
        if !this.has(COMPLETE) {
            return Err(if this.has(UNFINISHED) {
                VssError::new(VssCode::BadState, format!("{} is a half-made backup", path.display()))
                    .with_hint("Run the `vss backup` that began it again, which finishes it")
            } else {
                VssError::new(VssCode::ObjectNotFound, format!("{} is no backup", path.display()))
                    .with_hint("Name the directory that `vss backup --to` was given")
            });
        }
        let completion = this.record(COMPLETE)?;
        Ok((this, completion))
    }

    fn locked(path: &Path, how: FlockOperation) -> Result<Self, VssError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| reading(path, &error.into()))?;
        lock(&root, path, how)?;
        let path = path.canonicalize().map_err(|error| reading(path, &error))?;
        Ok(Self { path, root })
    }

    /// Where it is, absolute and without symbolic links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The manifest of a whole backup.
    #[must_use]
    pub fn manifest(&self) -> PathBuf {
        self.path.join(MANIFEST)
    }

    /// The documents.
    #[must_use]
    pub fn documents(&self) -> PathBuf {
        self.path.join(DOCUMENTS)
    }

    /// The root of the data tree.
    pub(crate) fn data(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.root, DATA, flags, Mode::empty())?)
    }

    /// The root of the data tree, which is made where it is missing.
    pub(crate) fn make_data(&self) -> io::Result<OwnedFd> {
        match rustix::fs::mkdirat(&self.root, DATA, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => self.data(),
            Err(error) => Err(error.into()),
        }
    }

    /// The journals of the runs before, joined; none in the first run.
    pub(crate) fn old_journal(&self) -> Option<PathBuf> {
        Some(self.path.join(OLD_JOURNAL)).filter(|path| path.exists())
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.path.join(JOURNAL)
    }

    /// Makes one old journal of what the runs before have left.
    fn join_journals(&self) -> io::Result<()> {
        let [journal, old, joined, manifest] =
            [JOURNAL, OLD_JOURNAL, JOINED_JOURNAL, MANIFEST].map(|name| self.path.join(name));
        // The last run was at its very end.
        if manifest.exists() {
            fs::rename(&manifest, &journal)?;
        }
        if !journal.exists() {
            return Ok(());
        }
        manifest::join(Some(old.as_path()).filter(|path| path.exists()), Some(&journal), &joined)?;
        fs::rename(&joined, &old)?;
        fs::remove_file(&journal)
    }

    /// Keeps a document.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_document(&self, name: &str, text: &[u8]) -> Result<(), VssError> {
        let directory = self.documents();
        let path = directory.join(name);
        fs::create_dir_all(&directory).and_then(|()| fs::write(&path, text)).map_err(|error| writing(&path, &error))
    }

    /// Brings everything to the disk and declares the backup whole.
    ///
    /// # Errors
    /// It cannot be written; the backup stays half-made.
    pub(crate) fn complete(
        &self,
        completion: impl FnOnce(Digest, BTreeMap<String, Digest>) -> Completion,
    ) -> Result<Completion, VssError> {
        let failed = |error: io::Error| writing(&self.path, &error);
        fs::rename(self.journal(), self.manifest()).map_err(failed)?;
        syncfs(&self.root).map_err(|error| failed(error.into()))?;
        let completion =
            completion(file_digest(&self.manifest()).map_err(failed)?, self.document_digests().map_err(failed)?);
        self.write_record(COMPLETE, &completion)?;
        // What is left of the making says nothing any more.
        for left in LEFT {
            let _ = fs::remove_file(self.path.join(left));
        }
        fsync(&self.root).map_err(|error| failed(error.into()))?;
        Ok(completion)
    }

    /// The checksums of the documents that are there.
    pub(crate) fn document_digests(&self) -> io::Result<BTreeMap<String, Digest>> {
        let mut digests = BTreeMap::new();
        let entries = match fs::read_dir(self.documents()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(digests),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            digests.insert(entry.file_name().to_string_lossy().into_owned(), file_digest(&entry.path())?);
        }
        Ok(digests)
    }

    fn has(&self, name: &str) -> bool {
        self.path.join(name).symlink_metadata().is_ok()
    }

    /// Writes a record and its checksum: whole or not at all.
    fn write_record(&self, name: &str, record: &impl Serialize) -> Result<(), VssError> {
        let path = self.path.join(name);
        let write = || -> io::Result<()> {
            let new = self.path.join(format!("{name}.new"));
            let mut text = serde_json::to_vec(record)?;
            text.push(b'\n');
            let digest = plain(&text);
            writeln!(text, "{digest}")?;
            let mut file = File::create(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            Ok(fsync(&self.root)?)
        };
        write().map_err(|error| writing(&path, &error))
    }

    fn record<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<T, VssError> {
        let path = self.path.join(name);
        let damaged = |what: &str| {
            VssError::new(VssCode::CorruptXmlDocument, format!("{} is damaged: {what}", path.display()))
                .with_hint(DAMAGED)
        };
        if path.metadata().map_err(|error| reading(&path, &error))?.len() > RECORD {
            return Err(damaged("it is too large"));
        }
        let text = fs::read(&path).map_err(|error| reading(&path, &error))?;
        let end = text.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let (record, digest) = text.split_at(end);
        if str::from_utf8(digest).ok().and_then(|digest| digest.trim_end().parse().ok()) != Some(plain(record)) {
            return Err(damaged("its checksum does not fit"));
        }
        serde_json::from_slice(record).map_err(|error| damaged(&error.to_string()))
    }
}

/// The checksum of a file of a backup's own.
pub(crate) fn file_digest(path: &Path) -> io::Result<Digest> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    Copier::default().digest(&file, size, &mut Quiet).map_err(|error| match error {
        CopyError::Source(error) | CopyError::Target(error) => error,
        CopyError::Stopped => io::ErrorKind::Interrupted.into(),
    })
}

fn words(request: &Request) -> String {
    let paths = request.paths.iter().map(|path| path.display().to_string());
    let components = request.components.iter().map(|one| format!("{}/{}", one.writer, one.name));
    let what: Vec<String> = paths.chain(components).take(5).collect();
    let kind = serde_json::to_string(&request.backup_type).unwrap_or_default();
    format!("{} of {}", kind.trim_matches('"'), what.join(", "))
}
