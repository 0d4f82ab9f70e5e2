//! The directory that is restored to: locked, marked as long as it is not whole, and written so that a file has its name
//! only when it is there.

use super::Failed;
use super::file_systems::FileSystems;
use crate::attributes::{Inode, Stat};
use crate::data::CopyError;
use crate::dir_chain::DirChain;
use crate::entry::{Entry, Kind};
use crate::failure::{is_of_all, reading, stopped, writing};
use crate::lock::lock;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags, fsync, renameat_with};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use uuid::Uuid;
use vss_model::VssError;

/// What is not at its place yet is called so, and a number.
pub(super) const TEMPORARY: &str = ".vss-restore-";
/// What is there until everything is restored is called so, and the id of the backup.
const MARK: &str = ".vss-unfinished-";

/// A directory that is restored to.
pub(super) struct Place {
    path: PathBuf,
    root: OwnedFd,
    chain: DirChain,
    written: FileSystems,
    overwrite: bool,
    mark: OsString,
    /// An earlier run of the same did not come to its end.
    resumed: bool,
}

impl Place {
    /// Makes the directory where it is missing, locks it, and marks it: the restoration of this backup is not over.
    pub(super) fn begin(path: &Path, id: Uuid, overwrite: bool) -> Result<Self, VssError> {
        std::fs::create_dir_all(path).map_err(|error| writing(path, &error))?;
        let path = path.canonicalize().map_err(|error| reading(path, &error))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = || rustix::fs::open(&path, flags, Mode::empty()).map_err(|error| reading(&path, &error.into()));
        let (root, first) = (open()?, open()?);
        lock(&root, &path, FlockOperation::NonBlockingLockExclusive)?;
        let mark = OsString::from(format!("{MARK}{id}"));
        let (chain, written) = (DirChain::new(first, true), FileSystems::default());
        let mut this = Self { path, root, chain, written, overwrite, mark, resumed: false };
        this.written.meet(this.root.as_fd()).map_err(|error| reading(&this.path, &error))?;
        this.resumed = this.set_mark().map_err(|error| writing(&this.mark(), &error))?;
        Ok(this)
    }

    /// True when it was there: what it says is on the disk before anything that it is about.
    fn set_mark(&self) -> io::Result<bool> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = match rustix::fs::openat(&self.root, &self.mark, flags, Mode::RUSR | Mode::WUSR) {
            Err(Errno::EXIST) => return Ok(true),
            opened => File::from(opened?),
        };
        file.write_all(
            b"Not everything is restored here. The same `vss restore` goes on, and takes this file away.\n",
        )?;
        file.sync_all()?;
        fsync(&self.root)?;
        Ok(false)
    }

    /// Where the mark is.
    pub(super) fn mark(&self) -> PathBuf {
        self.path.join(&self.mark)
    }

    /// Brings everything to the disk; the mark goes when it `is_whole`.
    pub(super) fn end(self, is_whole: bool) -> Result<(), VssError> {
        let ended = self.written.sync().and_then(|()| {
            if is_whole {
                rustix::fs::unlinkat(&self.root, &self.mark, AtFlags::empty())?;
            }
            Ok(fsync(&self.root)?)
        });
        ended.map_err(|error| writing(&self.path, &error))
    }

    /// The directory at `path`, which is made where it is missing.
    pub(super) fn directory(&mut self, path: &Path) -> io::Result<BorrowedFd<'_>> {
        let directory = self.chain.directory(path)?;
        self.written.meet(directory)?;
        Ok(directory)
    }

    /// The directory that `path` is in.
    pub(super) fn parent(&mut self, path: &Path) -> io::Result<BorrowedFd<'_>> {
        self.directory(path.parent().unwrap_or(path))
    }

    /// An error at `path`: of it alone, or of all.
    pub(super) fn failed(&self, path: &Path, error: impl Into<io::Error>) -> Failed {
        let error = error.into();
        if is_of_all(&error) {
            return Failed::All(writing(&self.path.join(path.strip_prefix("/").unwrap_or(path)), &error));
        }
        Failed::One(match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOTDIR | Errno::LOOP) => {
                "what is there where a directory belongs is none; move it away".to_owned()
            }
            _ => error.to_string(),
        })
    }

    /// An error of copying to `path`.
    pub(super) fn copy_failed(&self, path: &Path, error: CopyError) -> Failed {
        match error {
            CopyError::Source(error) => Failed::unreadable(&error),
            CopyError::Target(error) => self.failed(path, error),
            CopyError::Stopped => Failed::All(stopped()),
        }
    }

    /// What is at `path`.
    pub(super) fn there(&mut self, path: &Path) -> Result<Option<Stat>, Failed> {
        let name = path.file_name().unwrap_or_default();
        let found = self.parent(path).and_then(|directory| match Stat::of(Inode::Named(directory, name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found.map(Some),
        });
        found.map_err(|error| self.failed(path, error))
    }

    /// The file at `path`, to be read; none when it cannot be.
    pub(super) fn open(&mut self, path: &Path) -> Option<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(self.parent(path).ok()?, path.file_name()?, flags, Mode::empty()).ok().map(File::from)
    }

    /// True for a file that a power cut has left of an earlier run: it had its name and its time already, but its contents
    /// were not on the disk. No program writes to a file and keeps its time to the nanosecond.
    pub(super) fn is_left(&self, there: &Stat, entry: &Entry) -> bool {
        self.resumed
            && there.kind == Kind::File
            && there.kind == entry.kind
            && there.modified == entry.attributes.modified
    }

    /// A new file beside the place of `path`.
    pub(super) fn temporary(&mut self, path: &Path) -> Result<(OsString, File), Failed> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut made = None;
        self.with_free_name(path, |directory, name| {
            made = Some(File::from(rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?));
            Ok(())
        })
        .and_then(|name| made.map(|file| (name, file)).ok_or_else(|| Failed::One("no name is free".to_owned())))
    }

    /// Calls `make` with names of ours until one is free.
    pub(super) fn with_free_name(
        &mut self,
        path: &Path,
        mut make: impl FnMut(BorrowedFd<'_>, &OsStr) -> io::Result<()>,
    ) -> Result<OsString, Failed> {
        let made = self.parent(path).and_then(|directory| {
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
        made.map_err(|error| self.failed(path, error))
    }

    pub(super) fn discard(&mut self, path: &Path, temporary: &OsStr) {
        if let Ok(directory) = self.parent(path) {
            // Where it stays, the end of the directory takes it away.
            let _ = rustix::fs::unlinkat(directory, temporary, AtFlags::empty());
        }
    }

    /// Gives what has a name of ours that of `entry`, over what is there when that is wished, or when it is `ours` to replace.
    pub(super) fn put(
        &mut self,
        entry: &Entry,
        temporary: &OsStr,
        there: Option<&Stat>,
        ours: bool,
    ) -> Result<(), Failed> {
        let (path, name) = (entry.path.as_path(), entry.path.file_name().unwrap_or_default());
        let replace = there.is_some_and(|there| self.overwrite || ours || self.is_left(there, entry));
        if there.is_some_and(|there| there.kind == Kind::Directory) {
            return Err(Failed::One("a directory is there, which nothing replaces; move it away".to_owned()));
        }
        let flags = if replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        let placed = self.parent(path).and_then(|directory| {
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
                self.failed(path, error)
            }
        })
    }
}
