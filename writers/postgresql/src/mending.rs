//! PostSnapshot: what is written into the copy so that a server starts on it.
//!
//! Every name is looked up below the directory that the service handed over, and no link is followed. The label comes last:
//! without it a copy from backup mode would recover from the wrong place and look healthy.

use crate::backup_mode::Stopped;
use crate::control_file::{self, ControlFile};
use crate::span::{Part, Span};
use crate::wal::{Segment, last_segment, start_of_label};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use vss_linux::mount::open_beneath;
use vss_model::{VssCode, VssError};
use vss_writer::Call;

/// Mode of PostgreSQL's own files.
const MODE: Mode = Mode::from_raw_mode(0o600);
/// Longest name in `pg_wal`.
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

/// The copy of one cluster, while it can be written to.
pub(crate) struct Mending<'a> {
    cluster: &'a str,
    span: &'a Span,
    call: &'a Call<'a>,
    /// The data directory in the copy.
    data: OwnedFd,
    /// The live one.
    live: OwnedFd,
}

impl<'a> Mending<'a> {
    /// Opens the copy; none when its volume came without a directory that can be written to.
    ///
    /// # Errors
    /// `VSS_E_WRITERERROR_RECOVERY_FAILED` when the copy does not have the cluster where it should be.
    pub(crate) fn open(cluster: &'a str, span: &'a Span, call: &'a Call<'a>) -> Result<Option<Self>, VssError> {
        let Some(data) = part_of(span.data(), cluster, call)? else { return Ok(None) };
        let failed = |error: Errno| recovery_failed(cluster, "compare it with the cluster", error.into());
        let live =
            File::open(&span.data().place.path).map_err(|error| recovery_failed(cluster, "open the cluster", error))?;
        let (copied, lives) =
            (ControlFile::read(data.as_fd()).map_err(failed)?, ControlFile::read(live.as_fd()).map_err(failed)?);
        if copied.system_identifier() != lives.system_identifier() {
            let message = format!("The copy has another cluster in the place of PostgreSQL cluster {cluster}");
            return Err(VssError::new(VssCode::WriterErrorRecoveryFailed, message));
        }
        Ok(Some(Self { cluster, span, call, data, live: live.into() }))
    }

    /// Takes away the lock of the server that was running: a server on the copy would take the live one for a rival.
    ///
    /// # Errors
    /// `VSS_E_WRITERERROR_RECOVERY_FAILED`.
    pub(crate) fn remove_lock(&self) -> Result<(), VssError> {
        match rustix::fs::unlinkat(&self.data, "postmaster.pid", AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            // A provider that cannot make its copies writable: PostgreSQL asks then, and says what to do.
            Err(Errno::ROFS) => Ok(()),
            Err(error) => Err(self.failed("remove postmaster.pid", error.into())),
        }
    }

    /// The live control file, whole; for a standby, before backup mode ends.
    ///
    /// # Errors
    /// `VSS_E_WRITERERROR_RECOVERY_FAILED`.
    pub(crate) fn live_control_file(&self) -> Result<ControlFile, VssError> {
        ControlFile::read(self.live.as_fd()).map_err(|error| self.failed("read the control file", error.into()))
    }

    /// Writes the control file of a standby. It says how far the log has to be read until the pages fit together, so it must
    /// be newer than every page; the copy's own is as old as its cut.
    ///
    /// # Errors
    /// `VSS_E_WRITERERROR_RECOVERY_FAILED`.
    pub(crate) fn write_control_file(&self, control: &ControlFile) -> Result<(), VssError> {
        let write = || {
            let directory = open_beneath(&self.data, Path::new("global"), DIRECTORY)?;
            write_file(&directory, "pg_control", control.bytes())
        };
        write().map_err(|error| self.failed(&format!("write {}", control_file::PATH), error))
    }

    /// Writes everything that recovery from backup mode needs.
    ///
    /// # Errors
    /// `VSS_E_WRITERERROR_RECOVERY_FAILED`; `VSS_E_WRITERERROR_RETRYABLE` when the server has recycled some of its log.
    pub(crate) fn write_backup(&self, stopped: &Stopped) -> Result<(), VssError> {
        self.copy_wal(stopped)?;
        let write = || -> io::Result<()> {
            if let Some(map) = &stopped.tablespace_map {
                write_file(&self.data, "tablespace_map", map.as_bytes())?;
            }
            write_file(&self.data, "backup_label", stopped.label.as_bytes())?;
            Ok(rustix::fs::fsync(&self.data)?)
        };
        write().map_err(|error| self.failed("write backup_label", error))
    }

    /// Copies the log from the start to the end of backup mode, of every timeline, over what the copy has of it.
    fn copy_wal(&self, stopped: &Stopped) -> Result<(), VssError> {
        let unknown = || io::Error::other("its label names no place in the log");
        let first = start_of_label(&stopped.label).ok_or_else(|| self.failed("read its label", unknown()))?;
        let wal = self.span.wal();
        let failed = |error| self.failed("copy its log", error);
        let live = File::open(&wal.place.path).map_err(failed)?;
        let Some(copy) = part_of(&wal, self.cluster, self.call)? else {
            return Err(self.failed("copy its log", Errno::ROFS.into()));
        };
        let mut names = Vec::new();
        for entry in fs::read_dir(&wal.place.path).map_err(failed)? {
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
            let is_history = name.ends_with(".history");
            if !is_history && !number.is_some_and(|number| wanted.contains(&number)) {
                continue;
            }
            if self.call.time_left().is_zero() {
                return Err(failed(io::ErrorKind::TimedOut.into()));
            }
            match copy_file(&live, &copy, name) {
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
        rustix::fs::fsync(&copy).map_err(|error| failed(error.into()))
    }

    fn failed(&self, what: &str, error: io::Error) -> VssError {
        recovery_failed(self.cluster, what, error)
    }
}

/// The directory of a part in its copy; none when the copy came without one.
fn part_of(part: &Part, cluster: &str, call: &Call<'_>) -> Result<Option<OwnedFd>, VssError> {
    let Some(root) = call.directory(&part.volume) else { return Ok(None) };
    let opened = open_beneath(root, &part.in_copy, DIRECTORY);
    let what = format!("find its {} ({})", part.place.role, part.in_copy.display());
    opened.map(Some).map_err(|error| recovery_failed(cluster, &what, error))
}

fn recovery_failed(cluster: &str, what: &str, error: io::Error) -> VssError {
    let message = format!("The copy of PostgreSQL cluster {cluster} cannot be mended: cannot {what}: {error}");
    VssError::new(VssCode::WriterErrorRecoveryFailed, message)
}

fn size_of(directory: &File, name: &str) -> Option<u64> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    u64::try_from(stat.st_size).ok()
}

/// A file to be written from its beginning, whatever the copy had in its place.
fn create(directory: &OwnedFd, name: &str) -> io::Result<File> {
    // Not over an old one: that may be a link, or share its blocks with nobody knows whom.
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(directory, name, flags, MODE)?))
}

fn write_file(directory: &OwnedFd, name: &str, contents: &[u8]) -> io::Result<()> {
    let mut file = create(directory, name)?;
    file.write_all(contents)?;
    file.sync_all()
}

/// Copies a segment. The server may still write behind what we need; that is no part of the backup.
fn copy_file(from: &File, to: &OwnedFd, name: &str) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let source = File::from(rustix::fs::openat(from, name, flags, Mode::empty())?);
    let length = source.metadata()?.len();
    let mut target = create(to, name)?;
    io::copy(&mut source.take(length), &mut target)?;
    target.sync_all()
}
