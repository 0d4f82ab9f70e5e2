//! The line to one writer, as the conductor sees it: a call that is answered, refused, or never answered.
//!
//! Transport is not known here except in the one `impl` for [`WriterLine`]; tests have ports without sockets.

use crate::fault;
use std::{future::Future, os::fd::OwnedFd, pin::Pin};
use vss_api::server::{LineError, WriterLine};
use vss_api::writer::{Event, EventCall, EventKind, EventReply, Identify, Identity};
use vss_model::{VssCode, VssError};

/// What is kept of a writer's words in an error, in characters.
const LONGEST_WORDS: usize = 4096;

/// Why a call brought no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortError {
    /// The writer said no.
    Refused(VssError),
    /// What the writer said is no answer, and why.
    Garbled(String),
    /// The connection is gone: the writer died or left.
    Gone,
    /// Too many calls wait for an answer already.
    Busy,
}

impl PortError {
    /// The failure for the writer's status; of its own words at most 4096 characters each are kept.
    #[must_use]
    pub fn into_failure(self) -> VssError {
        let cut = |text: &str| text.chars().take(LONGEST_WORDS).collect::<String>();
        match self {
            Self::Refused(error) => {
                let (code, message) = match error.code {
                    code if code.allowed_from_writer() => (code, cut(&error.message)),
                    code => (VssCode::WriterErrorNonRetryable, format!("{} ({code})", cut(&error.message))),
                };
                VssError::new(code, message).with_hint(cut(&error.hint))
            }
            Self::Gone => VssError::new(VssCode::WriterErrorRetryable, "its process ended or closed its connection"),
            Self::Garbled(why) => {
                let code = VssCode::UnexpectedWriterError;
                let code = if fault::is_off("garbled") { VssCode::WriterErrorNonRetryable } else { code };
                VssError::new(code, format!("its answer cannot be read: {}", cut(&why)))
                    .with_hint("Mend the writer: it does not keep to org.linuxvss.Writer")
            }
            Self::Busy => {
                let code = VssCode::WriterStatusNotAvailable;
                let code = if fault::is_off("busy") { VssCode::WriterNotResponding } else { code };
                VssError::new(code, "it has left too many earlier calls unanswered")
                    .with_hint("Run fewer backups at once, and try again when they are over")
            }
        }
    }
}

/// The future of one call.
pub type PortFuture<T> = Pin<Box<dyn Future<Output = Result<T, PortError>> + Send>>;

/// One writer that can be called. Calls are answered in the order in which they were made; a future that is dropped
/// leaves its call in the line.
pub trait WriterPort: Send + Sync {
    /// Asks what the writer owns.
    fn identify(&self, question: Identify) -> PortFuture<Identity>;

    /// Tells the writer an event; `directories` travel with PostSnapshot.
    fn event(&self, kind: EventKind, event: Event, directories: Vec<OwnedFd>) -> PortFuture<EventReply>;

    /// Ends the registration.
    fn close(&self);
}

impl From<LineError> for PortError {
    fn from(error: LineError) -> Self {
        match error {
            LineError::Refused(error) => Self::Refused(error),
            LineError::Closed => Self::Gone,
            LineError::Busy => Self::Busy,
            LineError::TooLong => {
                Self::Refused(VssError::new(VssCode::WriterErrorNonRetryable, "an event is too long for it"))
            }
            LineError::Unreadable(why) => Self::Garbled(why),
        }
    }
}

impl WriterPort for WriterLine {
    fn identify(&self, question: Identify) -> PortFuture<Identity> {
        let line = self.clone();
        Box::pin(async move { Ok(line.identify(question).await?) })
    }

    fn event(&self, kind: EventKind, event: Event, directories: Vec<OwnedFd>) -> PortFuture<EventReply> {
        let line = self.clone();
        Box::pin(async move {
            let call = match kind {
                EventKind::PrepareBackup => EventCall::PrepareBackup(event),
                EventKind::PrepareSnapshot => EventCall::PrepareSnapshot(event),
                EventKind::Freeze => EventCall::Freeze(event),
                EventKind::Thaw => EventCall::Thaw(event),
                EventKind::PostSnapshot => EventCall::PostSnapshot(event),
                EventKind::BackupComplete => EventCall::BackupComplete(event),
                EventKind::BackupShutdown => EventCall::BackupShutdown(event),
                EventKind::Abort | EventKind::Identify => EventCall::Abort(event),
            };
            Ok(line.event(&call, directories).await?)
        })
    }

    fn close(&self) {
        WriterLine::close(self);
    }
}
