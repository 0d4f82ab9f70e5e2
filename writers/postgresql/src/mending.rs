//! PostSnapshot: what is written into the copy so that a server starts on it.
//!
//! The label comes last: without it a copy from backup mode would recover from the wrong place and look healthy.

use crate::backup_mode::Stopped;
use crate::control_file::{self, ControlFile};
use crate::span::{Part, Span};
use crate::wal::{Segment, last_segment, start_of_label};
use rustix::fs::{AtFlags, Mode, OFlags};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use vss_model::{VssCode, VssError};
use vss_writer::{Call, CopyPath};

/// Mode of PostgreSQL's own files.
const MODE: Mode = Mode::from_raw_mode(0o600);
/// How a directory is opened.
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

/// The copy of one cluster, while it can be written to.
pub(crate) struct Mending<'a> {
    cluster: &'a str,
    span: &'a Span,
    call: &'a Call<'a>,
    /// The data directory in the copy.
    data: CopyPath<'a>,
    /// The live one.
    live: File,
}

impl<'a> Mending<'a> {
    /// Finds the cluster in the copy.
    ///
    /// # Errors
    /// `VSS_E_WRITERERROR_RECOVERY_FAILED` when it is not where it should be, or the copy cannot be written to.
    pub(crate) fn open(cluster: &'a str, span: &'a Span, call: &'a Call<'a>) -> Result<Self, VssError> {
        let failed = |error| recovery_failed(cluster, "compare it with the cluster", error);
        let data = call.in_copy(&span.data().path)?;
        let live = File::open(&span.data().place.path).map_err(failed)?;
        let copied = ControlFile::read(data.open(DIRECTORY).map_err(failed)?.as_fd()).map_err(failed)?;
        let lives = ControlFile::read(live.as_fd()).map_err(failed)?;
        if copied.system_identifier() != lives.system_identifier() {
            let message = format!("The copy has another cluster in the place of PostgreSQL cluster {cluster}");
            return Err(VssError::new(VssCode::WriterErrorRecoveryFailed, message));
        }
        Ok(Self { cluster, span, call, data, live })
    }

    /// Takes away the lock of the server that was running: a server on the copy would take the live one for a rival.
    ///
    /// # Errors
    /// `VSS_E_WRITERERROR_RECOVERY_FAILED`.
    pub(crate) fn remove_lock(&self) -> Result<(), VssError> {
        match self.data.join("postmaster.pid")?.remove_file() {
            Ok(_) => Ok(()),
            // The provider cannot make its copies writable. PostgreSQL says then what to do.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(()),
            Err(error) => Err(self.failed("remove postmaster.pid", error)),
        }
    }

    /// The live control file, whole; for a standby, before backup mode ends.
    ///
    /// # Errors
    /// `VSS_E_WRITERERROR_RECOVERY_FAILED`.
    pub(crate) fn live_control_file(&self) -> Result<ControlFile, VssError> {
        ControlFile::read(self.live.as_fd()).map_err(|error| self.failed("read the control file", error))
    }

    /// Writes the control file of a standby. It says how far the log has to be read until the pages fit together, so it must
    /// be newer than every page; the copy's own is as old as its cut.
    ///
    /// # Errors
    /// `VSS_E_WRITERERROR_RECOVERY_FAILED`.
    pub(crate) fn write_control_file(&self, control: &ControlFile) -> Result<(), VssError> {
        let path = self.data.join(control_file::PATH)?;
        write_file(&path, control.bytes()).map_err(|error| self.failed("write its control file", error))
    }

    /// Writes everything that recovery from backup mode needs.
    ///
    /// # Errors
    /// `VSS_E_WRITERERROR_RECOVERY_FAILED`; `VSS_E_WRITERERROR_RETRYABLE` when the server has recycled some of its log.
    pub(crate) fn write_backup(&self, stopped: &Stopped) -> Result<(), VssError> {
        self.copy_wal(stopped)?;
        let (map, label) = (self.data.join("tablespace_map")?, self.data.join("backup_label")?);
        let write = || -> io::Result<()> {
            if let Some(text) = &stopped.tablespace_map {
                write_file(&map, text.as_bytes())?;
            }
            write_file(&label, stopped.label.as_bytes())?;
            self.data.open(DIRECTORY)?.sync_all()
        };
        write().map_err(|error| self.failed("write backup_label", error))
    }

    /// Copies the log from the start to the end of backup mode, of every timeline, over what the copy has of it.
    fn copy_wal(&self, stopped: &Stopped) -> Result<(), VssError> {
        let failed = |error| self.failed("copy its log", error);
        let first = start_of_label(&stopped.label)
            .ok_or_else(|| self.failed("read its label", io::Error::other("it names no place in the log")))?;
        let Part { place, path, .. } = self.span.wal();
        let copy = self.call.in_copy(&path)?;
        let live = File::open(&place.path).map_err(failed)?;
        let mut names = Vec::new();
        for entry in fs::read_dir(&place.path).map_err(failed)? {
            names.extend(entry.map_err(failed)?.file_name().into_string().ok());
        }
        // All segments of a cluster have one size.
        let size = names.iter().filter(|name| Segment::parse(name).is_some()).find_map(|name| size_of(&live, name));
        let size = size.filter(|size| size.is_power_of_two() && *size < 1 << 32);
        let size = size.ok_or_else(|| failed(io::Error::other("there is none")))?;
        let wanted = first.number(size)..=last_segment(stopped.end, size);
        let mut copied = BTreeSet::new();
        for name in &names {
            let segment = Segment::parse(name).filter(|segment| segment.timeline >= first.timeline);
            let number = segment.map(|segment| segment.number(size));
            if !name.ends_with(".history") && !number.is_some_and(|number| wanted.contains(&number)) {
                continue;
            }
            if self.call.time_left().is_zero() {
                return Err(failed(io::ErrorKind::TimedOut.into()));
            }
            match copy_file(&live, name, &copy.join(name)?) {
                Ok(()) => copied.extend(number),
                // Recycled since we looked: told below.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        if let Some(lost) = wanted.into_iter().find(|number| !copied.contains(number)) {
            let message = format!(
                "PostgreSQL cluster {} has recycled segment {lost} of its log, which the copy needs",
                self.cluster
            );
            let hint = "Raise wal_keep_size, or max_replication_slots so that the log can be reserved";
            return Err(VssError::new(VssCode::WriterErrorRetryable, message).with_hint(hint));
        }
        copy.open(DIRECTORY).and_then(|directory| directory.sync_all()).map_err(failed)
    }

    fn failed(&self, what: &str, error: io::Error) -> VssError {
        recovery_failed(self.cluster, what, error)
    }
}

fn recovery_failed(cluster: &str, what: &str, error: io::Error) -> VssError {
    let message = format!("The copy of PostgreSQL cluster {cluster} cannot be mended: cannot {what}: {error}");
    VssError::new(VssCode::WriterErrorRecoveryFailed, message)
}

fn size_of(directory: &File, name: &str) -> Option<u64> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    u64::try_from(stat.st_size).ok()
}

/// A new file in place of what the copy had there, which may be a link.
fn create(path: &CopyPath<'_>) -> io::Result<File> {
    path.remove_file()?;
    path.create(MODE)
}

fn write_file(path: &CopyPath<'_>, contents: &[u8]) -> io::Result<()> {
    let mut file = create(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

/// Copies a segment. The server may still write behind what we need; that is no part of the backup.
fn copy_file(from: &File, name: &str, to: &CopyPath<'_>) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let source = File::from(rustix::fs::openat(from, name, flags, Mode::empty())?);
    let length = source.metadata()?.len();
    let mut target = create(to)?;
    io::copy(&mut source.take(length), &mut target)?;
    target.sync_all()
}
