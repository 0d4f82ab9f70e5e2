//! The writer's side of its line: events come in, answers go out.

use super::{ClientError, line::Line};
use crate::{
    ErrorParameters,
    parameters::{Fault, read_call, read_fields},
    writer::{self, EventCall},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::os::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    unix::net::UnixStream,
};
use std::time::Duration;
use vss_model::VssError;

/// One event that the service called; answered with [`WriterEvents::reply`] or [`WriterEvents::refuse`] before the next.
#[derive(Debug)]
pub struct IncomingEvent {
    /// Which, and of what backup.
    pub call: EventCall,
    /// The directories of the volumes in PostSnapshot; `directory` of a volume counts in it.
    pub fds: Vec<OwnedFd>,
}

/// What came over a writer's line.
#[derive(Debug)]
pub enum Received {
    /// An event, to be answered.
    Event(Box<IncomingEvent>),
    /// An event that this release does not know or cannot read; it is answered already.
    PassedOver,
    /// The service closed the connection.
    Closed,
}

/// A registered writer's line. Its drop ends the registration.
#[derive(Debug)]
pub struct WriterEvents {
    line: Line,
}

#[derive(Serialize)]
struct Reply<'a, T> {
    parameters: &'a T,
}

#[derive(Deserialize)]
struct Envelope {
    method: String,
    #[serde(default)]
    parameters: Option<Map<String, Value>>,
}

impl WriterEvents {
    pub(super) fn new(line: Line) -> Self {
        Self { line }
    }

    /// Answers events over a connected socket that needs no registration: for tests.
    #[must_use]
    pub fn from_stream(stream: UnixStream) -> Self {
        Self::new(Line::new(stream))
    }

    /// Waits for the next event; none when the service closed the connection.
    ///
    /// An event that this release does not know is answered `MethodNotFound`, and one that cannot be read
    /// `InvalidParameter`; both are passed over.
    ///
    /// # Errors
    /// The connection failed.
    pub fn next_event(&mut self) -> Result<Option<IncomingEvent>, ClientError> {
        loop {
            match self.receive()? {
                Received::Event(event) => return Ok(Some(*event)),
                Received::PassedOver => {}
                Received::Closed => return Ok(None),
            }
        }
    }

    /// As [`WriterEvents::next_event`], and returns also when an event was passed over: for those who wait for other things
    /// too and call it only when the line is readable.
    ///
    /// # Errors
    /// The connection failed; `TimedOut` when a message was not whole in the time of [`WriterEvents::set_timeout`].
    pub fn receive(&mut self) -> Result<Received, ClientError> {
        let Some(message) = self.line.receive()? else { return Ok(Received::Closed) };
        let object = serde_json::from_slice(&message.bytes)
            .map_err(|error| ClientError::Protocol(format!("The service's call cannot be read: {error}")))?;
        let Envelope { method, parameters } = read_fields(object)
            .map_err(|fault| ClientError::Protocol(format!("The service's call cannot be read: {fault}")))?;
        let (error, parameters) = match read_call(&method, parameters.unwrap_or_default()) {
            Ok(call) => return Ok(Received::Event(Box::new(IncomingEvent { call, fds: message.fds }))),
            Err(Fault::UnknownMethod) => ("org.varlink.service.MethodNotFound", json!({ "method": method })),
            Err(Fault::Field { name, .. }) => ("org.varlink.service.InvalidParameter", json!({ "parameter": name })),
        };
        self.line.send(&json!({ "error": error, "parameters": parameters }))?;
        Ok(Received::PassedOver)
    }

    /// True when an event, or a part of one, was read already, for example together with the answer to `Register`: call
    /// [`WriterEvents::receive`] without polling.
    #[must_use]
    pub fn has_read_ahead(&self) -> bool {
        self.line.has_read_ahead()
    }

    /// Longest time for one message to come whole, and for an answer of ours to be taken; none, as at the beginning: for ever.
    ///
    /// # Errors
    /// Zero is refused.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> Result<(), ClientError> {
        Ok(self.line.set_timeout(timeout)?)
    }

    /// Answers the last event: [`writer::Identity`] to Identify, [`writer::EventReply`] to the others.
    ///
    /// # Errors
    /// The connection failed.
    pub fn reply(&mut self, reply: &impl Serialize) -> Result<(), ClientError> {
        self.line.send(&Reply { parameters: reply })
    }

    /// Answers the last event with an error.
    ///
    /// # Errors
    /// The connection failed.
    pub fn refuse(&mut self, error: &VssError) -> Result<(), ClientError> {
        let name = format!("{}.VssError", writer::INTERFACE);
        self.line.send(&json!({ "error": name, "parameters": ErrorParameters::from(error) }))
    }
}

impl AsFd for WriterEvents {
    /// Readable when an event came or the service closed the connection. Poll it only while
    /// [`WriterEvents::has_read_ahead`] is false.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }
}
