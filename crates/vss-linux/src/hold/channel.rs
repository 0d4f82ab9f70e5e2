//! The socket between vssd and its guard: whole packets, no allocation after `Prepare`, never a wait on the sending side.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};

use super::MAX_MEMBERS;
use super::protocol::{Answer, NONE, PACKET, PREPARE, Request};
use crate::clock;

/// What `Prepare` brings for one member.
#[derive(Debug)]
pub struct Prepared {
    /// A directory of the member's file system, open for reading.
    pub directory: OwnedFd,
    /// Its nesting level, 0 = innermost; `None`: synced with the others, never frozen.
    pub level: Option<u8>,
}

/// What a receiving end found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received<T> {
    /// A message.
    Message(T),
    /// The other end is closed; nothing will come any more.
    Closed,
    /// Nothing came in time.
    Nothing,
}

/// A connected pair of sockets, both CLOEXEC: one end for vssd, one to become the guard's standard input.
///
/// # Errors
/// No descriptor left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends the first message with the members' descriptors.
///
/// # Errors
/// More than [`MAX_MEMBERS`] members, a level of 255, or the guard has died.
pub fn send_prepare(channel: impl AsFd, members: &[(BorrowedFd<'_>, Option<u8>)]) -> io::Result<()> {
    if members.is_empty() || members.len() > MAX_MEMBERS || members.iter().any(|(_, level)| *level == Some(NONE)) {
        return Err(Errno::INVAL.into());
    }
    let mut packet = [0u8; 2 + MAX_MEMBERS];
    packet[0] = PREPARE;
    packet[1] = u8::try_from(members.len()).map_err(io::Error::other)?;
    for (byte, (_, level)) in packet[2..].iter_mut().zip(members) {
        *byte = level.unwrap_or(NONE);
    }
    let descriptors: Vec<BorrowedFd<'_>> = members.iter().map(|(fd, _)| *fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_MEMBERS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(Errno::NOBUFS.into());
    }
    let data = [IoSlice::new(&packet[..2 + members.len()])];
    rustix::net::sendmsg(channel, &data, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Waits for the first message. The descriptors are CLOEXEC.
///
/// # Errors
/// The first packet is something else (EPROTO), or vssd is gone (EPIPE).
pub fn receive_prepare(channel: impl AsFd) -> io::Result<Vec<Prepared>> {
    let mut packet = [0u8; 2 + MAX_MEMBERS];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_MEMBERS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = retry(|| {
        rustix::net::recvmsg(&channel, &mut [IoSliceMut::new(&mut packet)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    let count = match packet[..received.bytes] {
        [] => return Err(Errno::PIPE.into()),
        [PREPARE, count, ref levels @ ..] if levels.len() == usize::from(count) => usize::from(count),
        _ => return Err(Errno::PROTO.into()),
    };
    if count == 0 || descriptors.len() != count {
        return Err(Errno::PROTO.into());
    }
    let level = |byte: u8| (byte != NONE).then_some(byte);
    Ok(descriptors
        .into_iter()
        .zip(&packet[2..])
        .map(|(directory, byte)| Prepared { directory, level: level(*byte) })
        .collect())
}

/// Sends a request; never waits.
///
/// # Errors
/// EPIPE when the guard is gone; EAGAIN when it has stopped reading.
pub fn send_request(channel: impl AsFd, request: Request) -> Result<(), Errno> {
    send(channel, &request.encode())
}

/// Sends an answer; never waits.
///
/// # Errors
/// EPIPE when vssd is gone; EAGAIN when it has stopped reading.
pub fn send_answer(channel: impl AsFd, answer: Answer) -> Result<(), Errno> {
    send(channel, &answer.encode())
}

/// Takes one request that has come already.
///
/// # Errors
/// EPROTO for a packet that is no request.
pub fn receive_request(channel: impl AsFd) -> Result<Received<Request>, Errno> {
    receive(channel.as_fd(), 0, Request::decode)
}

/// Waits for one answer until CLOCK_BOOTTIME reaches `until_ns`.
///
/// # Errors
/// EPROTO for a packet that is no answer.
pub fn receive_answer(channel: impl AsFd, until_ns: u64) -> Result<Received<Answer>, Errno> {
    receive(channel.as_fd(), until_ns, Answer::decode)
}

fn send(channel: impl AsFd, packet: &[u8]) -> Result<(), Errno> {
    retry(|| rustix::net::send(&channel, packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)).map(|_| ())
}

fn receive<T>(
    channel: BorrowedFd<'_>,
    until_ns: u64,
    decode: impl Fn(&[u8]) -> Option<T>,
) -> Result<Received<T>, Errno> {
    loop {
        let left = clock::timespec(until_ns.saturating_sub(clock::boottime_ns()));
        let ready = match poll(&mut [PollFd::new(&channel, PollFlags::IN)], Some(&left)) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        if ready == 0 {
            return Ok(Received::Nothing);
        }
        // One byte more than a packet has, so that a longer one is noticed.
        let mut packet = [0u8; PACKET + 1];
        match rustix::net::recv(channel, &mut packet, RecvFlags::DONTWAIT) {
            Ok((0, _)) | Err(Errno::CONNRESET) => return Ok(Received::Closed),
            Ok((length, _)) => return decode(&packet[..length]).map(Received::Message).ok_or(Errno::PROTO),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
