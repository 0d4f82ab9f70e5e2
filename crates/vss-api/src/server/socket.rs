//! A connected unix socket on tokio: reads, writes with file descriptors, and the peer's end, all at the same time.
//!
//! The kernel tells of readiness by edges. A read is tried before it waits, so the watcher of the end may take the news of
//! unread data without harm; and the end is seen also while nobody reads.

use rustix::{
    io::Errno,
    net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags},
};
use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};
use tokio::{io::Interest, net::UnixStream, time::timeout};

use crate::frames::{Frames, MESSAGE_FDS, READ_BYTES};

/// A peer that takes no byte for so long is dropped (design 2.4).
pub(super) const STALL: Duration = Duration::from_secs(5);

/// Most bytes in one write, so that a peer that reads slowly shows progress.
const WRITE_BYTES: usize = 64 << 10;

/// The socket.
#[derive(Debug)]
pub(super) struct Socket(UnixStream);

impl Socket {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self(stream)
    }

    /// Adds what comes next to `frames`; 0 bytes are the peer's end. Cancel safe.
    ///
    /// File descriptors that come along are closed by the kernel: no peer of ours has any to send, and recv(2) has no
    /// control buffer for them.
    pub(super) async fn receive(&self, frames: &mut Frames) -> io::Result<usize> {
        // A peer that sends without a pause must not keep the thread from others.
        tokio::task::coop::consume_budget().await;
        loop {
            match receive_some(&self.0, frames) {
                Ok(received) => return Ok(received),
                Err(Errno::AGAIN) => {
                    self.0.readable().await?;
                    self.forget_news(Interest::READABLE);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends all of `bytes`, the file descriptors with the first one.
    ///
    /// # Errors
    /// `TimedOut` when the peer takes no byte for 5 s; what sendmsg(2) says. Then a part may have been sent.
    pub(super) async fn send(&self, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
        self.send_within(Some(STALL), bytes, fds).await
    }

    /// Sends all of `bytes` to a peer that may take them as slowly as it likes.
    ///
    /// # Errors
    /// What sendmsg(2) says. Then a part may have been sent.
    pub(super) async fn send_patiently(&self, bytes: &[u8]) -> io::Result<()> {
        self.send_within(None, bytes, &[]).await
    }

    async fn send_within(&self, stall: Option<Duration>, mut bytes: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
        let mut fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        while !bytes.is_empty() {
            match send_some(&self.0, bytes, &fds) {
                Ok(sent) => {
                    bytes = &bytes[sent..];
                    fds.clear();
                }
                Err(Errno::AGAIN) => {
                    match stall {
                        Some(stall) => timeout(stall, self.0.writable()).await??,
                        None => self.0.writable().await?,
                    }
                    self.forget_news(Interest::WRITABLE);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Sends one line to a peer whose connection is about to be closed, if it fits; waits for nothing.
    pub(super) fn say_last(&self, line: &[u8]) {
        if let Err(error) = send_some(&self.0, line, &[]) {
            tracing::debug!(%error, "the last line could not be sent");
        }
    }

    /// Returns when the peer closed its end or shut down its writing half, also with unread data before it.
    pub(super) async fn ended(&self) {
        loop {
            match self.0.ready(Interest::READABLE).await {
                Ok(ready) if !ready.is_read_closed() => self.forget_news(Interest::READABLE),
                _ => return,
            }
        }
    }

    /// The next wait waits for something new. What came since the last wait began is not forgotten.
    fn forget_news(&self, interest: Interest) {
        let nothing = self.0.try_io(interest, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        debug_assert!(nothing.is_err());
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn receive_some(socket: &UnixStream, frames: &mut Frames) -> Result<usize, Errno> {
    let mut bytes = [0; READ_BYTES];
    let (received, _) = rustix::net::recv(socket, &mut bytes, RecvFlags::DONTWAIT)?;
    frames.push(&bytes[..received]);
    Ok(received)
}

fn send_some(socket: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
    let bytes = &bytes[..bytes.len().min(WRITE_BYTES)];
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    if fds.is_empty() {
        return rustix::net::send(socket, bytes, flags);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL);
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)
}
