//! Checking a whole backup: everything is read again, and what is damaged, missing or too much is named.

use crate::data::{Copier, CopyError};
use crate::digest::Digest;
use crate::directory::{BackupDirectory, Completion, LEFT, Totals, file_digest};
use crate::entry::{Entry, Kind, Parts};
use crate::failure::{reading, stopped};
use crate::manifest::Reader;
use crate::order::compare;
use crate::pattern::Pattern;
use crate::progress::Progress;
use crate::selection::{FileSet, Place, Selection, Take};
use crate::target::allow_open_files;
use crate::tree::Tree;
use crate::walk::{Found, Left, Visitor, Walk};
use serde::Serialize;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering as Memory};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use vss_model::VssError;

/// Most threads that read files.
const THREADS: usize = 8;
/// So many files wait for them, open, at most.
const WAITING: usize = 64;
/// So many problems are told one by one.
const PROBLEMS: usize = 10_000;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wrong {
    /// It is there and not what it was.
    Damaged,
    /// It is gone.
    Missing,
    /// It does not belong to the backup.
    Extra,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where: the original path of a file, or the name of a file of the backup's own.
    #[serde(with = "vss_model::path_text")]
    pub path: PathBuf,
    /// What.
    pub wrong: Wrong,
    /// In words.
    pub message: String,
}

/// What checking came to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Report {
    /// What was found as it should be: everything but directories, and the bytes of it.
    pub files: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Files whose contents an earlier backup holds, and which were not looked at.
    pub elsewhere: u64,
    /// What is wrong, the first of it.
    pub problems: Vec<Problem>,
    /// How much more is wrong.
    pub more_problems: u64,
}

impl Report {
    fn add(&mut self, path: &Path, wrong: Wrong, message: impl Into<String>) {
        if self.problems.len() < PROBLEMS {
            self.problems.push(Problem { path: path.to_owned(), wrong, message: message.into() });
        } else {
            self.more_problems += 1;
        }
    }
}

/// Reads everything again.
///
/// # Errors
/// `E_ABORT` when `progress` wished to stop; the data tree cannot be opened. What is wrong is in the report.
pub fn verify(
    directory: &BackupDirectory,
    completion: &Completion,
    progress: &mut dyn Progress,
) -> Result<Report, VssError> {
    allow_open_files();
    let mut report = Report::default();
    own_files(directory, completion, &mut report)?;
    let manifest = match Reader::open(&directory.manifest()) {
        Ok(manifest) => manifest,
        // Told already.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(report),
        Err(error) => return Err(reading(&directory.manifest(), &error)),
    };
    let data = directory.path().join("data");
    let trees = match Tree::open(&data) {
        Ok(tree) => [tree],
        Err(error) => {
            report.add(Path::new("data"), Wrong::Missing, error.to_string());
            return Ok(report);
        }
    };
    let everything = FileSet {
        path: "/".into(),
        pattern: Pattern::new("*"),
        recursive: true,
        alternate: None,
        take: Take::Whole,
        component: None,
    };
    let selection = Selection {
        sets: vec![everything],
        places: vec![Place { at: "/".into(), tree: 0, inner: PathBuf::new() }],
        ..Selection::default()
    };
    let readers = Readers::start();
    let mut checking =
        Checking { manifest, report, readers, linked: HashMap::new(), told: 0, manifest_ended: false, progress };
    Walk::new(&selection, &trees).run(&mut checking)?;
    checking.finish()
}

/// The manifest, the documents, and names that do not belong beside them.
fn own_files(directory: &BackupDirectory, completion: &Completion, report: &mut Report) -> Result<(), VssError> {
    let mut check = |name: String, path: PathBuf, wanted: Digest| match file_digest(&path) {
        Ok(found) if found == wanted => {}
        Ok(_) => report.add(Path::new(&name), Wrong::Damaged, "its checksum does not fit"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            report.add(Path::new(&name), Wrong::Missing, "it is not there");
        }
        Err(error) => report.add(Path::new(&name), Wrong::Damaged, error.to_string()),
    };
    check("manifest".to_owned(), directory.manifest(), completion.manifest);
    for (name, digest) in &completion.documents {
        check(format!("documents/{name}"), directory.documents().join(name), *digest);
    }
    let there = directory.document_digests().map_err(|error| reading(&directory.documents(), &error))?;
    for name in there.keys().filter(|name| !completion.documents.contains_key(*name)) {
        report.add(&Path::new("documents").join(name), Wrong::Extra, "it is no document of this backup");
    }
    let known = ["complete", "manifest", "data", "documents", "lost+found"];
    let entries = std::fs::read_dir(directory.path()).map_err(|error| reading(directory.path(), &error))?;
    for entry in entries.flatten() {
        if !known.iter().chain(&LEFT).any(|known| entry.file_name() == *known) {
            report.add(Path::new(&entry.file_name()), Wrong::Extra, "it is no file of a backup");
        }
    }
    Ok(())
}

struct Checking<'a> {
    manifest: Reader<BufReader<File>>,
    report: Report,
    readers: Readers,
    /// Which inode the first of several names has.
    linked: HashMap<PathBuf, (u32, u32, u64)>,
    /// Of the bytes that were read, those that `progress` knows of.
    told: u64,
    /// The rest of the manifest cannot be read.
    manifest_ended: bool,
    progress: &'a mut dyn Progress,
}

impl Checking<'_> {
    /// The entry of what was found; what should have come before it is missing.
    fn entry(&mut self, path: &Path) -> Option<Entry> {
        while let Some(order) = self.order(path) {
            if order == Ordering::Greater {
                break;
            }
            let entry = self.manifest.next().ok().flatten()?;
            if order == Ordering::Equal {
                return Some(entry);
            }
            self.missing(&entry);
        }
        None
    }

    /// How the next entry stands to `path`.
    fn order(&mut self, path: &Path) -> Option<Ordering> {
        if self.manifest_ended {
            return None;
        }
        match self.manifest.peek() {
            Ok(next) => next.map(|next| compare(&next.path, path)),
            Err(error) => {
                self.manifest_ended = true;
                self.report.add(Path::new("manifest"), Wrong::Damaged, error.to_string());
                None
            }
        }
    }

    fn missing(&mut self, entry: &Entry) {
        if entry.is_here() {
            self.report.add(&entry.path, Wrong::Missing, "it is not there");
        } else {
            self.report.elsewhere += 1;
        }
    }

    fn check(&mut self, found: &Found<'_>, entry: Entry) {
        let path = found.path;
        if !entry.is_here() {
            self.report.elsewhere += 1;
            return self.report.add(path, Wrong::Extra, "an earlier backup holds it");
        }
        if entry.kind != found.stat.kind {
            let message = format!("it is a {:?} and was a {:?}", found.stat.kind, entry.kind);
            return self.report.add(path, Wrong::Damaged, message);
        }
        if found.stat.links > 1 && entry.link.is_none() {
            self.linked.insert(path.to_owned(), found.stat.identity());
        }
        if let Some(first) = &entry.link {
            if self.linked.get(first) == Some(&found.stat.identity()) {
                self.report.files += 1;
            } else {
                self.report.add(path, Wrong::Damaged, format!("it is no hard link to {}", first.display()));
            }
            return;
        }
        match entry.kind {
            Kind::File => self.read(found, &entry),
            Kind::Symlink => {
                let target = rustix::fs::readlinkat(found.directory, found.name, Vec::new());
                let is_same = target.is_ok_and(|target| {
                    entry
                        .target
                        .as_ref()
                        .is_some_and(|wanted| wanted.as_os_str().as_encoded_bytes() == target.to_bytes())
                });
                self.small(path, is_same, "it leads elsewhere");
            }
            Kind::CharacterDevice | Kind::BlockDevice => {
                self.small(path, entry.device == Some(found.stat.special), "it is another device");
            }
            Kind::Fifo | Kind::Socket | Kind::Directory => self.small(path, true, ""),
        }
    }

    fn small(&mut self, path: &Path, is_same: bool, message: &str) {
        if is_same { self.report.files += 1 } else { self.report.add(path, Wrong::Damaged, message) }
    }

    /// Has the contents of a file read.
    fn read(&mut self, found: &Found<'_>, entry: &Entry) {
        let size = entry.parts.as_ref().map_or(entry.size, Parts::bytes);
        let (Some(size), Some(digest)) = (size, entry.digest) else {
            return self.report.add(found.path, Wrong::Damaged, "its entry has no checksum");
        };
        if found.stat.size != size {
            let message = format!("it has {} bytes and had {size}", found.stat.size);
            return self.report.add(found.path, Wrong::Damaged, message);
        }
        match found.tree.file(found.directory, found.name) {
            Ok(file) => {
                let job = Job { path: found.path.to_owned(), file: file.into(), size, digest };
                self.readers.hand_over(job);
            }
            Err(error) => self.report.add(found.path, Wrong::Damaged, error.to_string()),
        }
        self.collect();
    }

    /// Takes what the readers have found so far.
    fn collect(&mut self) {
        while let Ok(read) = self.readers.results.try_recv() {
            self.take(read);
        }
        let bytes = self.readers.shared.bytes.load(Memory::Relaxed);
        self.progress.bytes(bytes - self.told);
        self.told = bytes;
    }

    fn take(&mut self, read: Read) {
        match read.result {
            Ok(true) => self.report.files += 1,
            Ok(false) => self.report.add(&read.path, Wrong::Damaged, "its checksum does not fit"),
            Err(error) => self.report.add(&read.path, Wrong::Damaged, error.to_string()),
        }
    }

    fn finish(mut self) -> Result<Report, VssError> {
        // All that comes now is not in the tree.
        while let Some(_order) = self.order(Path::new("/")) {
            let Ok(Some(entry)) = self.manifest.next() else { break };
            self.missing(&entry);
        }
        self.readers.end();
        loop {
            match self.readers.results.recv_timeout(std::time::Duration::from_millis(100)) {
                Ok(read) => self.take(read),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
            }
            self.collect();
            if self.progress.stop() {
                return Err(stopped());
            }
        }
        self.collect();
        self.report.bytes = self.told;
        self.report.problems.sort_by(|one, other| compare(&one.path, &other.path));
        Ok(self.report)
    }
}

impl Visitor for Checking<'_> {
    fn file(&mut self, found: &Found<'_>) -> Result<(), VssError> {
        let done = Totals { files: self.report.files, bytes: self.told, ..Totals::default() };
        self.progress.at(found.path, &done);
        if self.progress.stop() {
            return Err(stopped());
        }
        match self.entry(found.path) {
            Some(entry) => self.check(found, entry),
            None if self.manifest_ended => {}
            None => self.report.add(found.path, Wrong::Extra, "it is not in the manifest"),
        }
        Ok(())
    }

    fn enter(&mut self, _path: &Path) -> Result<(), VssError> {
        Ok(())
    }

    fn leave(&mut self, left: &Left<'_>) -> Result<(), VssError> {
        match self.entry(left.path) {
            Some(entry) if entry.kind == Kind::Directory => {}
            Some(entry) => {
                let message = format!("it is a directory and was a {:?}", entry.kind);
                self.report.add(left.path, Wrong::Damaged, message);
            }
            None if self.manifest_ended => {}
            None => self.report.add(left.path, Wrong::Extra, "it is not in the manifest"),
        }
        Ok(())
    }

    fn trouble(&mut self, path: &Path, _sets: &[usize], _partial: &[usize], error: io::Error) -> Result<(), VssError> {
        self.report.add(path, Wrong::Damaged, error.to_string());
        Ok(())
    }
}

/// A file to be read.
struct Job {
    path: PathBuf,
    file: File,
    size: u64,
    digest: Digest,
}

/// A file that was read: does its checksum fit?
struct Read {
    path: PathBuf,
    result: io::Result<bool>,
}

#[derive(Default)]
struct Shared {
    bytes: AtomicU64,
    stop: AtomicBool,
}

/// The threads that read files.
struct Readers {
    jobs: Option<SyncSender<Job>>,
    results: Receiver<Read>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    fn start() -> Self {
        let count = thread::available_parallelism().map_or(1, |count| count.get().min(THREADS));
        let (to_readers, jobs) = sync_channel(WAITING);
        let (to_us, results) = channel();
        let jobs = Arc::new(Mutex::new(jobs));
        let shared = Arc::new(Shared::default());
        let threads = (0..count).map(|_| {
            let (jobs, results, shared) = (Arc::clone(&jobs), to_us.clone(), Arc::clone(&shared));
            thread::spawn(move || read_all(&jobs, &results, &shared))
        });
        Self { jobs: Some(to_readers), results, threads: threads.collect(), shared }
    }

    /// Waits while too many files are waiting.
    fn hand_over(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // The threads live as long as this does.
            let _ = jobs.send(job);
        }
    }

    /// No more files come.
    fn end(&mut self) {
        self.jobs = None;
    }
}

/// Nobody waits for the results of a check that was stopped.
impl Drop for Readers {
    fn drop(&mut self) {
        self.shared.stop.store(true, Memory::Relaxed);
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn read_all(jobs: &Mutex<Receiver<Job>>, results: &Sender<Read>, shared: &Shared) {
    let mut copier = Copier::default();
    let mut progress = Counting(shared);
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        let result = match copier.digest(&job.file, job.size, &mut progress) {
            Ok(digest) => Ok(digest == job.digest),
            Err(CopyError::Source(error) | CopyError::Target(error)) => Err(error),
            Err(CopyError::Stopped) => return,
        };
        if results.send(Read { path: job.path, result }).is_err() {
            return;
        }
    }
}

struct Counting<'a>(&'a Shared);

impl Progress for Counting<'_> {
    fn bytes(&mut self, count: u64) {
        self.0.bytes.fetch_add(count, Memory::Relaxed);
    }

    fn stop(&mut self) -> bool {
        self.0.stop.load(Memory::Relaxed)
    }
}
