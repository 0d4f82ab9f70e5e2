//! Answers to calls. Each replier answers one call, once or, if the caller wants that, as a stream; one that is dropped answers
//! `VSS_E_UNEXPECTED`.

use super::line::{LineEnd, WriterLine};
use super::stream::{Part, ReplyStream};
use crate::{
    frames::{IncomingReply, MESSAGE_BYTES, Outgoing, encode_error, encode_reply, encode_reply_that_continues},
    writer,
};
use serde::Serialize;
use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use vss_model::{VssCode, VssError};

/// Answers one call.
#[derive(Debug)]
#[must_use = "a replier that is dropped answers VSS_E_UNEXPECTED"]
pub struct Replier {
    interface: &'static str,
    message_bytes: usize,
    /// The caller takes more than one answer.
    more: bool,
    to: To,
}

/// Where the answer goes.
#[derive(Debug)]
enum To {
    /// Into the order of the connection's replies.
    Connection(Answer),
    /// Nowhere: the call was `oneway`. Its place among the unanswered calls is free again when this is dropped.
    Nobody { _place: OwnedSemaphorePermit },
    /// It is answered.
    Done,
}

/// What takes the place of a call in the order of replies.
#[derive(Debug)]
pub(super) enum Given {
    /// The one answer.
    One(Outgoing),
    /// Answers as they come, the last one among them.
    Many(mpsc::Receiver<Part>),
}

/// Takes one answer to its place in the order of replies.
#[derive(Debug)]
pub(super) struct Answer {
    sender: oneshot::Sender<Given>,
    unsent: Arc<AtomicUsize>,
}

impl Answer {
    /// The answer's bytes count in `unsent` until the connection has sent them.
    pub(super) fn new(unsent: Arc<AtomicUsize>) -> (Self, oneshot::Receiver<Given>) {
        let (sender, receiver) = oneshot::channel();
        (Self { sender, unsent }, receiver)
    }

    /// A connection that ended meanwhile wants no answer any more.
    pub(super) fn send(self, outgoing: Outgoing) {
        self.unsent.fetch_add(outgoing.bytes.len(), Ordering::Relaxed);
        drop(self.sender.send(Given::One(outgoing)));
    }
}

impl Replier {
    /// For a call that wants its answer.
    pub(super) fn new(interface: &'static str, message_bytes: usize, more: bool, answer: Answer) -> Self {
        Self { interface, message_bytes, more, to: To::Connection(answer) }
    }

    /// For a call that wants no answer.
    pub(super) fn oneway(interface: &'static str, place: OwnedSemaphorePermit) -> Self {
        Self { interface, message_bytes: 0, more: false, to: To::Nobody { _place: place } }
    }

    /// A replier without a connection, and what it will answer: for calls that a service makes for a session, and for tests.
    pub fn detached(interface: &'static str) -> (Self, PendingReply) {
        let (answer, receiver) = Answer::new(Arc::default());
        (Self::new(interface, MESSAGE_BYTES, false, answer), PendingReply(receiver))
    }

    /// Answers with the call's result.
    pub fn ok(self, result: &impl Serialize) {
        self.ok_with_fds(result, Vec::new());
    }

    /// Answers with the call's result and file descriptors, at most 253.
    pub fn ok_with_fds(mut self, result: &impl Serialize, fds: Vec<OwnedFd>) {
        let To::Connection(answer) = std::mem::replace(&mut self.to, To::Done) else { return };
        answer.send(match reply_bytes(self.interface, self.message_bytes, result, false) {
            Ok(bytes) => Outgoing { bytes, fds },
            Err(bytes) => Outgoing { bytes, fds: Vec::new() },
        });
    }

    /// True when the caller takes more than one answer.
    #[must_use]
    pub fn wants_more(&self) -> bool {
        self.more
    }

    /// Answers with as many results as will come; later calls of the connection wait until the last of them. None for a
    /// caller that takes one answer only: it gets `VSS_E_UNEXPECTED`.
    #[must_use]
    pub fn stream(mut self) -> Option<ReplyStream> {
        if !self.more {
            return None;
        }
        let To::Connection(answer) = std::mem::replace(&mut self.to, To::Done) else { return None };
        let (stream, parts) = ReplyStream::new(self.interface, self.message_bytes);
        drop(answer.sender.send(Given::Many(parts)));
        Some(stream)
    }

    /// Answers that the call failed.
    pub fn error(mut self, error: &VssError) {
        self.fail(error);
    }

    /// Answers with either.
    pub fn result<T: Serialize>(self, result: Result<T, VssError>) {
        match result {
            Ok(result) => self.ok(&result),
            Err(error) => self.error(&error),
        }
    }

    fn fail(&mut self, error: &VssError) {
        if let To::Connection(answer) = std::mem::replace(&mut self.to, To::Done) {
            answer.send(Outgoing { bytes: encode_error(self.interface, error), fds: Vec::new() });
        }
    }
}

impl Drop for Replier {
    fn drop(&mut self) {
        if let To::Connection(_) = self.to {
            self.fail(&unanswered());
        }
    }
}

/// The bytes of a reply, or of the error that says why there is none.
pub(super) fn reply_bytes(
    interface: &str,
    message_bytes: usize,
    result: &impl Serialize,
    continues: bool,
) -> Result<Vec<u8>, Vec<u8>> {
    let encoded = if continues { encode_reply_that_continues(result) } else { encode_reply(result) };
    let why = match encoded {
        Ok(bytes) if bytes.len() <= message_bytes => return Ok(bytes),
        Ok(bytes) => format!("The answer has {} bytes; a message has at most {message_bytes}", bytes.len()),
        Err(error) => format!("The answer cannot be written as JSON: {error}"),
    };
    tracing::error!(why, "a call's answer was not sent");
    Err(encode_error(interface, &VssError::new(VssCode::Unexpected, why).with_hint("Ask for less at once")))
}

pub(super) fn unanswered() -> VssError {
    VssError::new(VssCode::Unexpected, "The service gave up the call without an answer")
        .with_hint("The service's log says why")
}

/// The answer to come of a [`Replier::detached`].
#[derive(Debug)]
pub struct PendingReply(oneshot::Receiver<Given>);

impl PendingReply {
    /// Waits for the answer.
    ///
    /// # Errors
    /// The error that the call was answered with.
    pub async fn wait(self) -> Result<serde_json::Value, VssError> {
        let Ok(Given::One(outgoing)) = self.0.await else { return Err(unanswered()) };
        parse(&outgoing.bytes[..outgoing.bytes.len().saturating_sub(1)])
    }
}

fn parse(message: &[u8]) -> Result<serde_json::Value, VssError> {
    let unreadable = |error: serde_json::Error| VssError::new(VssCode::Unexpected, error.to_string());
    let reply = IncomingReply::read(message).map_err(unreadable)?;
    let parameters = reply.parameters.as_deref().map_or("{}", serde_json::value::RawValue::get);
    match reply.error {
        None => serde_json::from_str(parameters).map_err(unreadable),
        Some(_) => {
            Err(serde_json::from_str::<crate::ErrorParameters>(parameters).map_or_else(unreadable, VssError::from))
        }
    }
}

/// Answers `Register`.
#[derive(Debug)]
#[must_use = "a replier that is dropped answers VSS_E_UNEXPECTED"]
pub struct WriterReplier {
    decision: Option<oneshot::Sender<Decision>>,
}

/// What became of a `Register`.
#[derive(Debug)]
pub(super) enum Decision {
    /// The reply, and our end of the line that the connection becomes.
    Accepted(Vec<u8>, LineEnd),
    /// The error.
    Refused(VssError),
}

impl WriterReplier {
    pub(super) fn new() -> (Self, oneshot::Receiver<Decision>) {
        let (decision, receiver) = oneshot::channel();
        (Self { decision: Some(decision) }, receiver)
    }

    /// Registers the writer: after this reply the service calls and the writer answers.
    #[must_use = "the connection ends when its last line is dropped"]
    pub fn accept(mut self, registered: &writer::Registered) -> WriterLine {
        let (line, end) = WriterLine::new();
        if let Some(decision) = self.decision.take() {
            let decided = match reply_bytes(writer::INTERFACE, MESSAGE_BYTES, registered, false) {
                Ok(bytes) => Decision::Accepted(bytes, end),
                Err(_) => Decision::Refused(unanswered()),
            };
            drop(decision.send(decided));
        }
        line
    }

    /// Refuses; the writer may try again on the same connection.
    pub fn refuse(mut self, error: VssError) {
        if let Some(decision) = self.decision.take() {
            drop(decision.send(Decision::Refused(error)));
        }
    }
}

impl Drop for WriterReplier {
    fn drop(&mut self) {
        if let Some(decision) = self.decision.take() {
            drop(decision.send(Decision::Refused(unanswered())));
        }
    }
}
