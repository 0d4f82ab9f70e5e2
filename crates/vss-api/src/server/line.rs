//! The line to a registered writer: the service calls, the writer answers, in order.

use super::socket::Socket;
use crate::{
    ErrorParameters,
    frames::{Frames, IncomingReply, MESSAGE_BYTES, MESSAGE_FDS, Outgoing, encode},
    parameters::without_nulls,
    writer::{EventCall, EventReply, Identity},
};
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};
use std::{
    collections::VecDeque,
    future::Future,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use vss_model::{VssCode, VssError};

/// Most calls of one line without an answer, those that nobody waits for any more among them.
const UNANSWERED: usize = 64;

/// Why a call on a writer has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// The writer answered with an error. One that is not `VssError` reads as `VSS_E_WRITERERROR_NONRETRYABLE` with its name.
    #[error("the writer refused: {0}")]
    Refused(VssError),
    /// The writer's connection ended, before the call or before its answer.
    #[error("the writer's connection ended")]
    Closed,
    /// 64 calls are unanswered.
    #[error("the writer has {UNANSWERED} calls that it has not answered")]
    Busy,
    /// The call is longer than a message may be, or carries more than 253 file descriptors.
    #[error("the call is too long for a message")]
    TooLong,
    /// The answer is not what the contract says. The connection is closed unless the answer was a message at least.
    #[error("the writer's answer cannot be read: {0}")]
    Unreadable(String),
}

/// Calls one registered writer. Clones share the line; the connection ends when the last one is dropped.
#[derive(Debug, Clone)]
pub struct WriterLine {
    calls: mpsc::UnboundedSender<LineCall>,
    places: Arc<Semaphore>,
    closed: CancellationToken,
    hang_up: CancellationToken,
}

/// The connection's end of a line.
#[derive(Debug)]
pub(super) struct LineEnd {
    calls: mpsc::UnboundedReceiver<LineCall>,
    /// Tells the line that the connection ended.
    _closed: DropGuard,
    hang_up: CancellationToken,
}

#[derive(Debug)]
struct LineCall {
    message: Outgoing,
    waiting: Waiting,
}

/// Who waits for an answer: the answers come in the order of the calls, also when nobody waits any more.
#[derive(Debug)]
struct Waiting {
    answer: oneshot::Sender<Result<Box<RawValue>, LineError>>,
    _place: OwnedSemaphorePermit,
}

impl WriterLine {
    pub(super) fn new() -> (Self, LineEnd) {
        let (calls, receiver) = mpsc::unbounded_channel();
        let closed = CancellationToken::new();
        let hang_up = CancellationToken::new();
        let end = LineEnd { calls: receiver, _closed: closed.clone().drop_guard(), hang_up: hang_up.clone() };
        (Self { calls, places: Arc::new(Semaphore::new(UNANSWERED)), closed, hang_up }, end)
    }

    /// A line over a connected socket whose other end answers events already: for tests of a handler. Needs a tokio runtime.
    ///
    /// # Errors
    /// The socket cannot be watched.
    pub fn over(stream: UnixStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        let socket = Socket::new(tokio::net::UnixStream::from_std(stream)?);
        let (line, end) = Self::new();
        tokio::spawn(async move { end.run(&socket, Frames::new(MESSAGE_BYTES)).await });
        Ok(line)
    }

    /// Calls an event. The call is on its way when this returns; the future waits for the answer only, may be dropped (the
    /// answer is then thrown away when it comes), and has no limit of time of its own.
    ///
    /// # Errors
    /// See [`LineError`].
    pub fn call(
        &self,
        call: &EventCall,
        fds: Vec<OwnedFd>,
    ) -> impl Future<Output = Result<Box<RawValue>, LineError>> + Send + use<> {
        let answer = self.begin(call, fds);
        async move { answer?.await.unwrap_or(Err(LineError::Closed)) }
    }

    /// Calls Identify.
    ///
    /// # Errors
    /// See [`LineError`].
    pub fn identify(
        &self,
        parameters: crate::writer::Identify,
    ) -> impl Future<Output = Result<Identity, LineError>> + Send + use<> {
        let answer = self.call(&EventCall::Identify(parameters), Vec::new());
        async move { read(&answer.await?) }
    }

    /// Calls any other event.
    ///
    /// # Errors
    /// See [`LineError`].
    pub fn event(
        &self,
        call: &EventCall,
        fds: Vec<OwnedFd>,
    ) -> impl Future<Output = Result<EventReply, LineError>> + Send + use<> {
        let answer = self.call(call, fds);
        async move { read(&answer.await?) }
    }

    /// Returns when the connection has ended.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// True when the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Ends the connection; unanswered calls get [`LineError::Closed`].
    pub fn close(&self) {
        self.hang_up.cancel();
    }

    fn begin(
        &self,
        call: &EventCall,
        fds: Vec<OwnedFd>,
    ) -> Result<oneshot::Receiver<Result<Box<RawValue>, LineError>>, LineError> {
        let bytes = encode(call).map_err(|error| LineError::Unreadable(error.to_string()))?;
        if bytes.len() > MESSAGE_BYTES || fds.len() > MESSAGE_FDS {
            return Err(LineError::TooLong);
        }
        if self.is_closed() {
            return Err(LineError::Closed);
        }
        let place = self.places.clone().try_acquire_owned().map_err(|_| LineError::Busy)?;
        let (answer, receiver) = oneshot::channel();
        let waiting = Waiting { answer, _place: place };
        let call = LineCall { message: Outgoing { bytes, fds }, waiting };
        self.calls.send(call).map_err(|_| LineError::Closed)?;
        Ok(receiver)
    }
}

fn read<T: DeserializeOwned>(answer: &RawValue) -> Result<T, LineError> {
    // A writer in another language sends the optional fields that it has no value for as null.
    let read = serde_json::from_str(answer.get()).map(without_nulls).and_then(serde_json::from_value);
    read.map_err(|error| LineError::Unreadable(error.to_string()))
}

impl LineEnd {
    /// Carries calls and answers until either side ends the line; the answers that came before the end still count.
    /// `frames` may hold what came behind the last message.
    pub(super) async fn run(mut self, socket: &Socket, frames: Frames) {
        let unanswered = Mutex::new(VecDeque::new());
        tokio::select! {
            biased;
            () = self.hang_up.cancelled() => {}
            () = send_calls(&mut self.calls, socket, &unanswered) => {}
            () = receive_answers(socket, frames, &unanswered) => {}
        }
    }
}

type Unanswered = Mutex<VecDeque<Waiting>>;

async fn send_calls(calls: &mut mpsc::UnboundedReceiver<LineCall>, socket: &Socket, unanswered: &Unanswered) {
    while let Some(LineCall { message, waiting }) = calls.recv().await {
        unanswered.lock().unwrap_or_else(PoisonError::into_inner).push_back(waiting);
        if let Err(error) = socket.send(&message.bytes, &message.fds).await {
            tracing::debug!(%error, "a writer's connection is given up: it takes no call");
            return;
        }
    }
}

async fn receive_answers(socket: &Socket, mut frames: Frames, unanswered: &Unanswered) {
    loop {
        let answer = match frames.next() {
            Ok(Some(message)) => read_answer(&message),
            Ok(None) => match socket.receive(&mut frames).await {
                Ok(received) if received > 0 => continue,
                _ => return,
            },
            Err(too_long) => Err(too_long.to_string()),
        };
        let Some(waiting) = unanswered.lock().unwrap_or_else(PoisonError::into_inner).pop_front() else {
            tracing::debug!("a writer's connection is given up: it answered what nobody asked");
            return;
        };
        match answer {
            Ok(answer) => drop(waiting.answer.send(answer)),
            Err(why) => {
                tracing::debug!(why, "a writer's connection is given up: its answer cannot be read");
                drop(waiting.answer.send(Err(LineError::Unreadable(why))));
                return;
            }
        }
    }
}

/// What a message of the writer answers; why it is no answer.
fn read_answer(message: &[u8]) -> Result<Result<Box<RawValue>, LineError>, String> {
    let reply = IncomingReply::read(message).map_err(|error| error.to_string())?;
    if reply.method.is_some() || reply.continues {
        return Err("one reply to one call was expected".to_owned());
    }
    let nothing = || to_raw_value(&crate::Empty {}).map_err(|error| error.to_string());
    let parameters = reply.parameters.map_or_else(nothing, Ok)?;
    Ok(match reply.error {
        None => Ok(parameters),
        Some(name) => Err(LineError::Refused(refusal(&name, &parameters))),
    })
}

fn refusal(name: &str, parameters: &RawValue) -> VssError {
    let name: String = name.chars().take(256).collect();
    match serde_json::from_str::<ErrorParameters>(parameters.get()) {
        Ok(error) if name == format!("{}.VssError", crate::writer::INTERFACE) => error.into(),
        _ => VssError::new(VssCode::WriterErrorNonRetryable, format!("The writer answered with {name}")),
    }
}
