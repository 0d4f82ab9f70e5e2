//! A blocking client, without a runtime: for the command line, for writers, and for tests.
//!
//! [`Client`] calls; after [`Client::register`] the line is turned round and [`WriterEvents`] answers. What a call means is
//! in [`crate::requester`], [`crate::management`] and [`crate::writer`].

mod follower;
mod line;
mod writer_events;

pub use follower::Follower;
pub use writer_events::{IncomingEvent, Received, WriterEvents};

use crate::{ErrorParameters, frames::IncomingReply, management, requester, writer};
use line::Line;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};
use vss_model::VssError;

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The service refused, or failed.
    #[error("{0}")]
    Vss(VssError),
    /// The service did not understand the call: an error of `org.varlink.service`, or one that this release does not know.
    #[error("the service answered {name} {parameters}")]
    Varlink {
        /// The error's full name.
        name: String,
        /// Its parameters.
        parameters: Value,
    },
    /// The connection failed. `UnexpectedEof` when the service closed it, `TimedOut` when the answer did not come in time.
    #[error("the connection to the service failed: {0}")]
    Io(#[from] io::Error),
    /// The service sent what the interface does not allow, or the call cannot be sent.
    #[error("{0}")]
    Protocol(String),
}

impl ClientError {
    /// What the service said, when it said something of its own.
    #[must_use]
    pub fn vss(&self) -> Option<&VssError> {
        match self {
            Self::Vss(error) => Some(error),
            _ => None,
        }
    }
}

/// A connection to the service.
#[derive(Debug)]
pub struct Client {
    line: Line,
}

/// A call that is named apart from its parameters.
#[derive(Serialize)]
struct NamedCall<'a, T> {
    method: &'a str,
    parameters: &'a T,
}

#[derive(Serialize)]
struct Upgrade<'a> {
    #[serde(flatten)]
    call: &'a writer::Call,
    upgrade: bool,
}

impl Client {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// Those of connect(2): `NotFound` and `ConnectionRefused` when no service listens.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        Ok(Self::from_stream(UnixStream::connect(path)?))
    }

    /// Speaks over a connected socket.
    #[must_use]
    pub fn from_stream(stream: UnixStream) -> Self {
        Self { line: Line::new(stream) }
    }

    /// Longest time that one call waits for its answer; none, as at the beginning: for ever. A call that waited in vain leaves
    /// the connection unusable.
    ///
    /// # Errors
    /// Zero is refused.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> Result<(), ClientError> {
        Ok(self.line.set_timeout(timeout)?)
    }

    /// Calls a method by its full name.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn call<R: DeserializeOwned>(&mut self, method: &str, parameters: &impl Serialize) -> Result<R, ClientError> {
        self.exchange(&NamedCall { method, parameters })
    }

    /// Calls `org.linuxvss.Requester`; `R` is the reply that the call's documentation names, [`crate::Empty`] where it names
    /// none.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn call_requester<R: DeserializeOwned>(&mut self, call: &requester::Call) -> Result<R, ClientError> {
        self.exchange(call)
    }

    /// Calls `org.linuxvss.Management`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn call_management<R: DeserializeOwned>(&mut self, call: &management::Call) -> Result<R, ClientError> {
        self.exchange(call)
    }

    /// Calls `org.linuxvss.Management`; also gives the file descriptors that came with the answer.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn call_management_with_fds<R: DeserializeOwned>(
        &mut self,
        call: &management::Call,
    ) -> Result<(R, Vec<OwnedFd>), ClientError> {
        self.line.send(call)?;
        receive_with_fds(&mut self.line).map(|(reply, _, fds)| (reply, fds))
    }

    /// Calls `org.linuxvss.Management` with `more`: answers come until the service ends them. The connection is the
    /// follower's from here on.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn follow<R: DeserializeOwned>(mut self, call: &management::Call) -> Result<Follower<R>, ClientError> {
        self.line.send(&follower::More { call, more: true })?;
        Ok(Follower::new(self.line))
    }

    /// Registers a writer. From here on the service calls, and the result answers.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn register(mut self, register: writer::Register) -> Result<(writer::Registered, WriterEvents), ClientError> {
        let registered = self.exchange(&Upgrade { call: &writer::Call::Register(register), upgrade: true })?;
        self.line.set_timeout(None)?;
        Ok((registered, WriterEvents::new(self.line)))
    }

    fn exchange<R: DeserializeOwned>(&mut self, call: &impl Serialize) -> Result<R, ClientError> {
        self.line.send(call)?;
        receive(&mut self.line).map(|(reply, _)| reply)
    }
}

/// The next reply, and whether others to the same call follow.
fn receive<R: DeserializeOwned>(line: &mut Line) -> Result<(R, bool), ClientError> {
    receive_with_fds(line).map(|(reply, continues, _)| (reply, continues))
}

/// As [`receive`], with the file descriptors that came with it.
fn receive_with_fds<R: DeserializeOwned>(line: &mut Line) -> Result<(R, bool, Vec<OwnedFd>), ClientError> {
    let Some(message) = line.receive()? else {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    };
    let unreadable =
        |error: serde_json::Error| ClientError::Protocol(format!("The service's answer cannot be read: {error}"));
    let reply = IncomingReply::read(&message.bytes).map_err(unreadable)?;
    let parameters = reply.parameters.as_deref().map_or("{}", serde_json::value::RawValue::get);
    match reply.error {
        None => Ok((serde_json::from_str(parameters).map_err(unreadable)?, reply.continues, message.fds)),
        Some(name) => Err(error_of(name, parameters)),
    }
}

impl AsFd for Client {
    /// Readable when the service closed the connection: nothing else comes unasked.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }
}

fn error_of(name: String, parameters: &str) -> ClientError {
    match serde_json::from_str::<ErrorParameters>(parameters) {
        Ok(error) if name.starts_with("org.linuxvss.") && name.ends_with(".VssError") => ClientError::Vss(error.into()),
        _ => ClientError::Varlink { name, parameters: serde_json::from_str(parameters).unwrap_or_default() },
    }
}
