//! One connected socket, blocking: messages out, messages and file descriptors in.

use super::ClientError;
use crate::frames::{Frames, MESSAGE_BYTES, MESSAGE_FDS, READ_BYTES, encode};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags};
use serde::Serialize;
use std::{
    collections::VecDeque,
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

/// One message without its NUL, and the file descriptors that came with it.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) bytes: Vec<u8>,
    pub(super) fds: Vec<OwnedFd>,
}

#[derive(Debug)]
pub(super) struct Line {
    stream: UnixStream,
    frames: Frames,
    /// Bytes of the messages that were taken, their NULs included.
    taken: usize,
    /// File descriptors whose message was not taken yet, each with the place in the stream of a byte of its message.
    fds: VecDeque<(usize, OwnedFd)>,
    /// Something failed half-way: question and answer do not match any more.
    broken: bool,
}

impl Line {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, frames: Frames::new(MESSAGE_BYTES), taken: 0, fds: VecDeque::new(), broken: false }
    }

    pub(super) fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(timeout)?;
        self.stream.set_write_timeout(timeout)
    }

    /// Sends one message.
    ///
    /// A peer that has closed may have said why before: so a closed connection is told by [`Line::receive`] only.
    pub(super) fn send(&mut self, message: &impl Serialize) -> Result<(), ClientError> {
        if self.broken {
            return Err(ClientError::Protocol("An earlier call on this connection failed: connect again".to_owned()));
        }
        let bytes =
            encode(message).map_err(|error| ClientError::Protocol(format!("The call cannot be sent: {error}")))?;
        if bytes.len() > MESSAGE_BYTES {
            let length = bytes.len();
            return Err(ClientError::Protocol(format!(
                "The call has {length} bytes; a message has at most {MESSAGE_BYTES}"
            )));
        }
        match self.write(&bytes) {
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(()),
            Err(error) => {
                self.broken = true;
                Err(timed_out(error).into())
            }
            Ok(()) => Ok(()),
        }
    }

    fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::net::send(&self.stream, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// True when bytes were read that no message was made of yet: poll(2) does not tell of them.
    pub(super) fn has_read_ahead(&self) -> bool {
        self.frames.held() > 0
    }

    /// The next message and the file descriptors that came with it; none when the peer closed between messages.
    pub(super) fn receive(&mut self) -> Result<Option<Incoming>, ClientError> {
        let received = self.receive_message();
        self.broken |= !matches!(received, Ok(Some(_)));
        received
    }

    fn receive_message(&mut self) -> Result<Option<Incoming>, ClientError> {
        let deadline = self.stream.read_timeout()?.map(|timeout| Instant::now() + timeout);
        loop {
            match self.frames.next() {
                Ok(Some(bytes)) => return Ok(Some(self.with_its_fds(bytes))),
                Ok(None) => {}
                Err(error) => return Err(ClientError::Protocol(format!("The peer broke the rules: {error}"))),
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
            match self.read() {
                Ok(0) if self.frames.held() == 0 => return Ok(None),
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(timed_out(error).into()),
            }
        }
    }

    fn with_its_fds(&mut self, bytes: Vec<u8>) -> Incoming {
        self.taken += bytes.len() + 1;
        let of_it = self.fds.partition_point(|(place, _)| *place < self.taken);
        let fds = self.fds.drain(..of_it).map(|(_, fd)| fd).collect();
        Incoming { bytes, fds }
    }

    /// One read. It may join bytes that were sent before file descriptors to the ones sent with them, but ends there: so the
    /// last byte is of their message (unix_stream_read_generic, net/unix/af_unix.c).
    fn read(&mut self) -> io::Result<usize> {
        let mut bytes = [0; READ_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::net::recvmsg(
            &self.stream,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        self.frames.push(&bytes[..received.bytes]);
        let last = (self.taken + self.frames.held()).saturating_sub(1);
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds.map(|fd| (last, fd)));
            }
        }
        if self.fds.len() > MESSAGE_FDS * 2 {
            return Err(io::Error::other("more file descriptors than two messages may have"));
        }
        Ok(received.bytes)
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// A timeout of a blocking socket reads as EAGAIN (socket(7), SO_RCVTIMEO).
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}
