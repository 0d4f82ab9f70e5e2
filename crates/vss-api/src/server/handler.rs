//! What answers: the [`Handler`] that the conductor implements, and what it is told of a peer. No transport shows here.

use super::{Replier, WriterReplier};
use crate::{management, requester, writer};
use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use vss_model::VssError;

/// One connection, as long as the process lives; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// A new one. The loop makes one for each connection; tests make their own.
    #[must_use]
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl std::fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "connection {}", self.0)
    }
}

/// Which interfaces a socket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Face {
    /// `org.linuxvss.Requester` and `org.linuxvss.Management`.
    Requester,
    /// `org.linuxvss.Writer`.
    Writer,
}

impl Face {
    /// The interface that speaks before a call has named one.
    #[must_use]
    pub const fn interface(self) -> &'static str {
        match self {
            Self::Requester => requester::INTERFACE,
            Self::Writer => writer::INTERFACE,
        }
    }
}

/// Who connected: its credentials at connect(2).
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its effective uid.
    pub uid: u32,
    /// Its effective gid.
    pub gid: u32,
    /// Its supplementary groups, `gid` not always among them.
    pub groups: Vec<u32>,
    /// Its process id; may have been given to another process since, `pidfd` not.
    pub pid: u32,
    /// Its process; none before Linux 6.5, and when the process is gone.
    pub pidfd: Option<Arc<OwnedFd>>,
}

impl Peer {
    pub(super) fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let peer = vss_linux::peer::peer_credentials(socket)?;
        Ok(Self { uid: peer.uid, gid: peer.gid, groups: peer.groups, pid: peer.pid, pidfd: peer.pidfd.map(Arc::new) })
    }

    /// True when the peer runs in the group, as its own or as a supplementary one.
    #[must_use]
    pub fn is_member_of(&self, group: u32) -> bool {
        self.gid == group || self.groups.contains(&group)
    }
}

/// One call from the socket of requesters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Of `org.linuxvss.Requester`.
    Requester(requester::Call),
    /// Of `org.linuxvss.Management`.
    Management(management::Call),
}

/// Answers calls. Its methods run on the connection's task: they pass the work on and never block.
pub trait Handler: Send + Sync + 'static {
    /// A peer connected.
    ///
    /// # Errors
    /// The error is sent as one line and the connection closed; [`Handler::disconnected`] is not called for it.
    fn connected(&self, connection: ConnectionId, face: Face, peer: Peer) -> Result<(), VssError>;

    /// A call arrived. Calls of one connection come in the order in which they were sent, also before the earlier ones are
    /// answered; the replies leave in that order too.
    fn call(&self, connection: ConnectionId, call: Call, replier: Replier);

    /// A writer wants to register. Until the answer nothing more is read from its connection; after
    /// [`WriterReplier::accept`] the line is turned round.
    fn register(&self, connection: ConnectionId, register: writer::Register, replier: WriterReplier);

    /// The connection ended, for whatever reason: exactly once for each one that [`Handler::connected`] let in. Repliers of
    /// it that still exist lead nowhere.
    fn disconnected(&self, connection: ConnectionId);
}
