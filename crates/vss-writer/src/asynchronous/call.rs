//! One call of an event that may cross threads and outlive its handler.

use crate::CopyPath;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vss_api::writer::{Event, EventKind};
use vss_model::VssError;

/// An event on its way to an asynchronous [`super::Writer`]; clones share it. As [`crate::Call`], but what ends it early is
/// that its handler is dropped.
#[derive(Debug, Clone)]
pub struct Call(Arc<Owned>);

#[derive(Debug)]
struct Owned {
    kind: EventKind,
    event: Event,
    directories: Vec<OwnedFd>,
    deadline: Instant,
}

impl Call {
    /// The same call, with descriptors of its own.
    pub(super) fn of(call: &crate::Call<'_>) -> io::Result<Self> {
        let directories = call.directories().iter().map(OwnedFd::try_clone).collect::<io::Result<_>>()?;
        Ok(Self(Arc::new(Owned {
            kind: call.kind(),
            event: call.event().clone(),
            directories,
            deadline: call.deadline(),
        })))
    }

    /// Which event it is.
    #[must_use]
    pub fn kind(&self) -> EventKind {
        self.0.kind
    }

    /// Its parameters.
    #[must_use]
    pub fn event(&self) -> &Event {
        &self.0.event
    }

    /// When the handler is dropped; Abort and BackupShutdown are not. In Freeze: when the writer's own limit from Freeze to
    /// Thaw ends.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.0.deadline
    }

    /// Time left until the deadline; zero after it.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.borrowed().time_left()
    }

    /// As [`crate::Call::is_path_affected`].
    ///
    /// # Errors
    /// See there.
    pub fn is_path_affected(&self, path: &Path) -> Result<bool, VssError> {
        self.borrowed().is_path_affected(path)
    }

    /// As [`crate::Call::must_have`].
    ///
    /// # Errors
    /// See there.
    pub fn must_have(&self, path: &Path) -> Result<(), VssError> {
        self.borrowed().must_have(path)
    }

    /// As [`crate::Call::directory`].
    #[must_use]
    pub fn directory(&self, volume: &Path) -> Option<BorrowedFd<'_>> {
        self.borrowed().directory(volume)
    }

    /// As [`crate::Call::in_copy`]. What the path does blocks.
    ///
    /// # Errors
    /// As [`crate::Call::in_copy`].
    pub fn in_copy(&self, path: &Path) -> Result<CopyPath<'_>, VssError> {
        self.borrowed().in_copy(path)
    }

    fn borrowed(&self) -> crate::Call<'_> {
        crate::Call::new(self.0.kind, &self.0.event).with_directories(&self.0.directories).until(self.0.deadline)
    }
}
