//! The door: listens on a unix socket, reads calls, hands them to a [`Handler`], and sends its answers back in order.
//!
//! ```text
//!  serve            accepts; Doorkeeper admits or refuses         one task a listener
//!   └ connection    reader   message -> Request -> Handler::call  one task a connection, two parts side by side
//!                   writer   replies in the order of the calls
//!      └ line       after Register: the service calls, the writer answers
//! ```
//!
//! The peer's end is seen at once at any moment: by the reader behind the last call that was sent, and by a watcher while the
//! reader rests. A peer that shuts down only its writing half has ended too: a connection is a lease (design 2.2).
//!
//! Every part is bounded (numbers in [`Bounds`] and here): a message 4 MiB, 32 unanswered calls a connection, 1 MiB of unsent
//! replies before reading rests, 16 long messages under way for one uid, 5 s without progress of a peer that does not read,
//! 30 s from the first to the last byte of a message. A call with `more` may be answered by a stream, of which one message is
//! under way at a time. What a call means is not here.
//!
//! Messages are cut and written here and not by zlink's `Connection`: its read buffer never shrinks (100 MiB a connection),
//! its serializer begins anew for every 256 bytes (a reply of 1 MiB takes 1 s), it tells not which field is wrong, and its
//! reading of credentials loops for ever for a peer in 150 groups.
//!
//! ```no_run
//! use std::sync::Arc;
//! use tokio_util::sync::CancellationToken;
//! use vss_api::{management, server::*, writer};
//! use vss_model::{VssCode, VssError};
//!
//! struct Conductor;
//!
//! impl Handler for Conductor {
//!     fn connected(&self, _: ConnectionId, _: Face, peer: Peer) -> Result<(), VssError> {
//!         if peer.uid == 0 { Ok(()) } else { Err(VssError::new(VssCode::AccessDenied, "Only root may connect")) }
//!     }
//!
//!     fn call(&self, _: ConnectionId, call: Call, replier: Replier) {
//!         match call {
//!             Call::Management(management::Call::ListShadows) => replier.ok(&management::Shadows { shadows: vec![] }),
//!             _ => replier.error(&VssError::new(VssCode::NotImplemented, "Not yet")),
//!         }
//!     }
//!
//!     fn register(&self, _: ConnectionId, _: writer::Register, replier: WriterReplier) {
//!         replier.refuse(VssError::new(VssCode::AccessDenied, "No writers"));
//!     }
//!
//!     fn disconnected(&self, _: ConnectionId) {}
//! }
//!
//! # async fn run() -> std::io::Result<()> {
//! let listener = tokio::net::UnixListener::bind("/run/vss/requester")?;
//! serve(listener, Face::Requester, Arc::new(Conductor), Bounds::default(), CancellationToken::new()).await;
//! # Ok(())
//! # }
//! ```

mod bounds;
mod connection;
mod handler;
mod line;
mod replier;
mod request;
mod socket;
mod stream;

#[cfg(feature = "fuzzing")]
pub(crate) use request::{What, read};

pub use bounds::Bounds;
pub use handler::{Call, ConnectionId, Face, Handler, Peer};
pub use line::{LineError, WriterLine};
pub use replier::{PendingReply, Replier, WriterReplier};
pub use stream::{CallerGone, ReplyStream};

use crate::frames::encode_error;
use bounds::Doorkeeper;
use connection::Connection;
use socket::Socket;
use std::{os::fd::AsFd, sync::Arc, time::Duration};
use tokio::{net::UnixListener, net::UnixStream, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// How long accepting rests after an error such as EMFILE: connections may end meanwhile.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Serves one socket until `shutdown`, then ends every connection and returns.
///
/// Each connection that is let in is announced by [`Handler::connected`] and its end by [`Handler::disconnected`], exactly
/// once. Errors of accept(2) are logged and waited out: they never end the service.
pub async fn serve(
    listener: UnixListener,
    face: Face,
    handler: Arc<dyn Handler>,
    bounds: Bounds,
    shutdown: CancellationToken,
) {
    let doorkeeper = Arc::new(Doorkeeper::new(bounds));
    let mut connections = JoinSet::new();
    let mut failing = false;
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection's task failed");
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    failing = false;
                    if let Some(connection) = admit(stream, face, &handler, &doorkeeper) {
                        connections.spawn(connection.run(shutdown.clone()));
                    }
                }
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, ?face, "cannot accept a connection; trying again");
                    }
                    failing = true;
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Lets a new connection in, or tells it in one line why not and closes it.
fn admit(
    stream: UnixStream,
    face: Face,
    handler: &Arc<dyn Handler>,
    doorkeeper: &Arc<Doorkeeper>,
) -> Option<Connection> {
    let socket = Socket::new(stream);
    let peer = match Peer::of(socket.as_fd()) {
        Ok(peer) => peer,
        Err(error) => {
            tracing::debug!(%error, "a connection ended before it began");
            return None;
        }
    };
    let id = ConnectionId::next();
    let uid = peer.uid;
    let admitted = doorkeeper.admit(uid).and_then(|admission| {
        handler.connected(id, face, peer)?;
        Ok(admission)
    });
    match admitted {
        Ok(admission) => Some(Connection::new(id, socket, face, handler.clone(), admission)),
        Err(refusal) => {
            tracing::debug!(%refusal, uid, "connection refused");
            socket.say_last(&encode_error(face.interface(), &refusal));
            None
        }
    }
}
