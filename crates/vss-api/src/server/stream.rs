//! Many answers to one call: what a caller gets that asked with `more`.
//!
//! One message is under way at a time, and the next is made only when the socket has taken it. So a peer that reads slowly
//! makes us hold one message, and who answers decides what to leave out meanwhile. It is not dropped for being slow, as one
//! that does not read its other replies is: nothing else on its connection waits for it.

use super::replier::reply_bytes;
use crate::frames::encode_error;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use vss_model::VssError;

/// The connection has ended: nobody reads further answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the caller is gone")]
pub struct CallerGone;

/// One message of a stream, and who waits until it is sent.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) bytes: Vec<u8>,
    pub(super) sent: oneshot::Sender<()>,
}

/// Answers one call again and again. Dropping it leaves the call without its last answer, and the connection with it.
#[derive(Debug)]
pub struct ReplyStream {
    interface: &'static str,
    message_bytes: usize,
    parts: mpsc::Sender<Part>,
}

impl ReplyStream {
    pub(super) fn new(interface: &'static str, message_bytes: usize) -> (Self, mpsc::Receiver<Part>) {
        let (parts, receiver) = mpsc::channel(1);
        (Self { interface, message_bytes, parts }, receiver)
    }

    /// Sends an answer that is not the last; returns when the socket has taken it, however long that is.
    ///
    /// # Errors
    /// [`CallerGone`].
    pub async fn send(&self, result: &impl Serialize) -> Result<(), CallerGone> {
        // An answer that cannot be sent becomes an error, and an error is always the last answer.
        match reply_bytes(self.interface, self.message_bytes, result, true) {
            Ok(bytes) => self.pass(bytes).await,
            Err(bytes) => self.pass(bytes).await.and(Err(CallerGone)),
        }
    }

    /// Sends the last answer.
    pub async fn last(self, result: &impl Serialize) {
        let (Ok(bytes) | Err(bytes)) = reply_bytes(self.interface, self.message_bytes, result, false);
        // Who is gone misses nothing.
        let _gone = self.pass(bytes).await;
    }

    /// Says that the call failed.
    pub async fn error(self, error: &VssError) {
        let _gone = self.pass(encode_error(self.interface, error)).await;
    }

    /// Returns when the connection has ended.
    pub async fn closed(&self) {
        self.parts.closed().await;
    }

    async fn pass(&self, bytes: Vec<u8>) -> Result<(), CallerGone> {
        let (sent, taken) = oneshot::channel();
        self.parts.send(Part { bytes, sent }).await.map_err(|_| CallerGone)?;
        taken.await.map_err(|_| CallerGone)
    }
}
