//! The handler behind the sockets: checks the peer's credentials and passes everything on to the coordinator.

use crate::coordinator::Action;
use crate::rules::Rules;
use tokio::sync::mpsc;
use vss_api::server::{Call, ConnectionId, Face, Handler, Peer, Replier, WriterReplier};
use vss_api::writer::Register;
use vss_model::VssError;

/// Passes calls on.
pub struct Door {
    /// Who may come in.
    pub rules: Rules,
    /// Where everything goes.
    pub actions: mpsc::UnboundedSender<Action>,
}

impl Door {
    fn pass(&self, action: Action) {
        // When the coordinator has ended the connections end next; repliers that are dropped say so.
        drop(self.actions.send(action));
    }
}

impl Handler for Door {
    fn connected(&self, connection: ConnectionId, face: Face, peer: Peer) -> Result<(), VssError> {
        match face {
            Face::Requester => self.rules.requester(&peer)?,
            Face::Writer => self.rules.writer(&peer)?,
        }
        self.pass(Action::Connected(connection, face, peer));
        Ok(())
    }

    fn call(&self, connection: ConnectionId, call: Call, replier: Replier) {
        self.pass(Action::Call(connection, call, replier));
    }

    fn register(&self, connection: ConnectionId, register: Register, replier: WriterReplier) {
        self.pass(Action::Register(connection, register, replier));
    }

    fn disconnected(&self, connection: ConnectionId) {
        self.pass(Action::Disconnected(connection));
    }
}
