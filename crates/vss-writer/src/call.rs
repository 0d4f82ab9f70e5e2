//! One call of an event: its parameters, its file descriptors, its deadline, and what may end it early.

use crate::affected::is_affected;
use crate::copy::{CopyPath, locate};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};
use vss_api::writer::{Event, EventKind, EventVolume};
use vss_model::{VssCode, VssError};

/// The longest time that a handler is given, whatever the service says: one day.
pub(crate) const LONGEST: u64 = 86_400_000;

/// An event on its way to a [`crate::Writer`].
#[derive(Debug, Clone)]
pub struct Call<'a> {
    kind: EventKind,
    event: &'a Event,
    directories: &'a [OwnedFd],
    deadline: Instant,
    interrupts: Vec<BorrowedFd<'a>>,
}

/// The wait was cut short: the service is gone, or this process shall end. Give up quickly; Abort follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the service is gone, or the writer shall end")]
pub struct Interrupted;

impl<'a> Call<'a> {
    /// A call that arrived now, without file descriptors, that nothing can interrupt.
    #[must_use]
    pub fn new(kind: EventKind, event: &'a Event) -> Self {
        let deadline = Instant::now() + Duration::from_millis(event.time_left_ms.min(LONGEST));
        Self { kind, event, directories: &[], deadline, interrupts: Vec::new() }
    }

    /// The same call with the descriptors that came with it.
    #[must_use]
    pub fn with_directories(mut self, directories: &'a [OwnedFd]) -> Self {
        self.directories = directories;
        self
    }

    /// The same call, cut short as soon as the other side of `fd` (a socket or a pipe) is closed.
    #[must_use]
    pub fn interrupted_by(mut self, fd: BorrowedFd<'a>) -> Self {
        self.interrupts.push(fd);
        self
    }

    /// The same call with another deadline.
    #[must_use]
    pub fn until(mut self, deadline: Instant) -> Self {
        self.deadline = deadline;
        self
    }

    /// Which event it is.
    #[must_use]
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// Its parameters.
    #[must_use]
    pub fn event(&self) -> &'a Event {
        self.event
    }

    /// The descriptors that came with it.
    #[cfg(feature = "tokio")]
    pub(crate) fn directories(&self) -> &'a [OwnedFd] {
        self.directories
    }

    /// When an answer comes too late. In Freeze: when the writer's own limit from Freeze to Thaw ends.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Time left until the deadline; zero after it.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// From PrepareSnapshot on: does `path` lie on a volume of the set? Unlike the beginnings of paths this sees what is
    /// mounted on a volume and belongs to none of the set; it looks at `path` itself and not at what lies below it.
    ///
    /// # Errors
    /// `VSS_E_WRITERERROR_RETRYABLE` when the path cannot be looked at.
    pub fn is_path_affected(&self, path: &Path) -> Result<bool, VssError> {
        is_affected(&self.event.volumes, path).map_err(|error| {
            VssError::new(VssCode::WriterErrorRetryable, format!("Cannot look at {}: {error}", path.display()))
        })
    }

    /// In PrepareSnapshot: refuses a set that lacks the volume of `path`.
    ///
    /// # Errors
    /// `VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT` when it does; as [`Self::is_path_affected`].
    pub fn must_have(&self, path: &Path) -> Result<(), VssError> {
        if self.is_path_affected(path)? {
            return Ok(());
        }
        let message = format!("{} lies on a volume that is not in the shadow copy set", path.display());
        Err(VssError::new(VssCode::WriterErrorInconsistentSnapshot, message).with_hint("Add it to the backup"))
    }

    /// In PostSnapshot: the directory that stands in the copy for the mount point `volume`; none when the set has no
    /// volume that is mounted there, or its copy cannot be written to.
    #[must_use]
    pub fn directory(&self, volume: &Path) -> Option<BorrowedFd<'a>> {
        self.directory_of(self.event.volumes.iter().find(|candidate| candidate.volume == volume)?)
    }

    /// In PostSnapshot: where `path`, a path of the live volume, is in the copy. The volume is the one of the set with the
    /// longest mount point that is a prefix of it.
    ///
    /// What is mounted on the volume and is no member of the set is not in the copy, and this cannot see it any more:
    /// [`Self::must_have`] does, in PrepareSnapshot.
    ///
    /// # Errors
    /// `E_INVALIDARG` for a path that is not absolute or has `..`; `VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT` when no volume
    /// of the set holds it; `VSS_E_WRITERERROR_RECOVERY_FAILED` when the copy cannot be written to.
    pub fn in_copy(&self, path: &Path) -> Result<CopyPath<'a>, VssError> {
        let (volume, relative) = locate(&self.event.volumes, path)?;
        let root = self.directory_of(volume).ok_or_else(|| {
            let message =
                format!("The copy of {} cannot be written to in {}", volume.volume.display(), self.kind.name());
            VssError::new(VssCode::WriterErrorRecoveryFailed, message)
        })?;
        Ok(CopyPath::new(root, relative))
    }

    fn directory_of(&self, volume: &EventVolume) -> Option<BorrowedFd<'a>> {
        let index = usize::try_from(volume.directory?).ok()?;
        self.directories.get(index).map(AsFd::as_fd)
    }

    /// Waits until `fd` is readable or closed, `until` has come (true: readable; false: time is up), or the call is
    /// interrupted. Without an `fd` it only waits.
    ///
    /// # Errors
    /// The service is gone, or the writer shall end.
    pub fn wait_for(&self, fd: Option<BorrowedFd<'_>>, until: Instant) -> Result<bool, Interrupted> {
        wait(fd, &self.interrupts, until)
    }

    /// Waits for `duration`, at most until the deadline.
    ///
    /// # Errors
    /// The service is gone, or the writer shall end.
    pub fn sleep(&self, duration: Duration) -> Result<(), Interrupted> {
        self.wait_for(None, self.deadline.min(Instant::now() + duration)).map(|_| ())
    }
}

/// As [`Call::wait_for`], with the interrupting descriptors given. What is readable comes before an interrupt.
pub(crate) fn wait(
    fd: Option<BorrowedFd<'_>>,
    interrupts: &[BorrowedFd<'_>],
    until: Instant,
) -> Result<bool, Interrupted> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout =
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        let mut polled: Vec<PollFd<'_>> =
            interrupts.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::RDHUP)).collect();
        polled.extend(fd.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        match poll(&mut polled, Some(&timeout)) {
            Ok(0) => return Ok(false),
            // EINTR: somebody else's signal; EAGAIN and ENOMEM: a passing shortage in the kernel.
            Err(_) => {
                if left.is_zero() {
                    return Ok(false);
                }
            }
            Ok(_) => {
                let readable = fd.is_some() && polled.last().is_some_and(|entry| !entry.revents().is_empty());
                return if readable { Ok(true) } else { Err(Interrupted) };
            }
        }
    }
}
