//! Messages on the wire: JSON objects, each ended by a NUL byte. Cutting them out of a stream, and writing them.
//!
//! No socket is touched here. The bound of one message is 4 MiB in both directions (design 2.4).

use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};
use std::os::fd::OwnedFd;
use vss_model::VssError;

use crate::ErrorParameters;

/// Most bytes in one message, without its NUL: 4 MiB (design 2.4).
pub const MESSAGE_BYTES: usize = 4 << 20;

/// Most file descriptors that Linux passes with one message: `SCM_MAX_FD`, include/net/scm.h.
pub const MESSAGE_FDS: usize = 253;

/// Most bytes in one read.
pub(crate) const READ_BYTES: usize = 16 << 10;

/// The peer sent a message that is longer than the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message is longer than {0} bytes")]
pub(crate) struct TooLong(pub(crate) usize);

/// Cuts a stream of bytes into messages. Holds at most one message of the bound and one read.
#[derive(Debug)]
pub(crate) struct Frames {
    buffer: Vec<u8>,
    /// How much of the buffer is known to hold no NUL.
    scanned: usize,
    bound: usize,
}

impl Frames {
    pub(crate) fn new(bound: usize) -> Self {
        Self { buffer: Vec::new(), scanned: 0, bound }
    }

    /// Adds what was read.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that came and belong to no message that was taken.
    pub(crate) fn held(&self) -> usize {
        self.buffer.len()
    }

    /// The next whole message without its NUL; none while it is not whole.
    ///
    /// The memory goes away with the message: a connection keeps nothing of a long one.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        let Some(end) = self.buffer[self.scanned..].iter().position(|byte| *byte == 0) else {
            self.scanned = self.buffer.len();
            return if self.buffer.len() > self.bound { Err(TooLong(self.bound)) } else { Ok(None) };
        };
        let end = self.scanned + end;
        if end > self.bound {
            return Err(TooLong(self.bound));
        }
        let rest = self.buffer.split_off(end + 1);
        let mut message = std::mem::replace(&mut self.buffer, rest);
        message.truncate(end);
        self.scanned = 0;
        Ok(Some(message))
    }
}

/// A message to send, and the file descriptors that go with its first byte.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    pub(crate) bytes: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

/// A reply or an error, as it comes from the peer.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct IncomingReply {
    #[serde(default)]
    pub(crate) parameters: Option<Box<RawValue>>,
    #[serde(default)]
    pub(crate) error: Option<String>,
    #[serde(default)]
    pub(crate) continues: bool,
    /// Only calls have it: the peer speaks out of turn.
    #[serde(default)]
    pub(crate) method: Option<String>,
}

impl IncomingReply {
    /// Reads a message.
    ///
    /// # Errors
    /// Why it is no reply. serde would read a JSON array as the fields in their order: only an object is a message.
    pub(crate) fn read(message: &[u8]) -> Result<Self, serde_json::Error> {
        if message.trim_ascii_start().first() != Some(&b'{') {
            return Err(serde::de::Error::custom("a message is a JSON object"));
        }
        serde_json::from_slice(message)
    }
}

/// The bytes of `message` and its NUL.
///
/// # Errors
/// Those of the value's `Serialize`: a map whose keys are no strings, a path that is not UTF-8.
pub(crate) fn encode(message: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec(message)?;
    bytes.push(0);
    Ok(bytes)
}

#[derive(Serialize)]
struct Reply<'a, T> {
    parameters: &'a T,
    /// More replies to the same call follow.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    continues: bool,
}

#[derive(Serialize)]
struct ErrorReply<'a, T> {
    error: &'a str,
    parameters: &'a T,
}

/// The bytes of a successful reply, the last one to its call.
pub(crate) fn encode_reply(parameters: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    encode(&Reply { parameters, continues: false })
}

/// The bytes of a successful reply after which others to the same call follow.
pub(crate) fn encode_reply_that_continues(parameters: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    encode(&Reply { parameters, continues: true })
}

/// The bytes of `<interface>.VssError`.
pub(crate) fn encode_error(interface: &str, error: &VssError) -> Vec<u8> {
    encode_any_error(&format!("{interface}.VssError"), &ErrorParameters::from(error))
}

/// The bytes of an error with these parameters; without them if they cannot be written.
pub(crate) fn encode_any_error(name: &str, parameters: &impl Serialize) -> Vec<u8> {
    encode(&ErrorReply { error: name, parameters }).unwrap_or_else(|_| {
        let mut bytes = Value::Object(Map::from_iter([("error".to_owned(), name.into())])).to_string().into_bytes();
        bytes.push(0);
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_whole_in_order_however_they_arrived() {
        let mut frames = Frames::new(16);
        frames.push(b"one\0tw");
        assert_eq!(frames.next(), Ok(Some(b"one".to_vec())));
        assert_eq!(frames.next(), Ok(None));
        frames.push(b"o\0\0");
        assert_eq!(frames.next(), Ok(Some(b"two".to_vec())));
        assert_eq!(frames.next(), Ok(Some(Vec::new())));
        assert_eq!((frames.next(), frames.held()), (Ok(None), 0));
    }

    #[test]
    fn the_bound_is_the_longest_message() {
        let mut frames = Frames::new(4);
        frames.push(b"four\0");
        assert_eq!(frames.next(), Ok(Some(b"four".to_vec())));
        frames.push(b"five5\0");
        assert_eq!(frames.next(), Err(TooLong(4)));
        let mut frames = Frames::new(4);
        frames.push(b"five5");
        assert_eq!(frames.next(), Err(TooLong(4)));
    }
}
