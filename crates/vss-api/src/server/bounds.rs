//! How many may come in, and how much one user may make us hold.

use crate::frames::MESSAGE_BYTES;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Semaphore;
use vss_model::{VssCode, VssError};

/// Long messages of one uid that may be under way at once: 16 of 4 MiB are 64 MiB.
const LONG_MESSAGES_PER_UID: usize = 16;

/// Part of all connections that only root may use, so that nobody can lock the administrator out: one in 8.
const KEPT_FOR_ROOT: usize = 8;

/// The bounds of one socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Open connections in all; one in 8 is kept for root.
    pub connections: usize,
    /// Open connections of one uid other than root.
    pub connections_per_uid: usize,
    /// Bytes of one message, in both directions.
    pub message_bytes: usize,
    /// Longest time from the first to the last byte of a message. While more than half of the connections are in use, also
    /// from the beginning of a connection to the end of its first message.
    pub message_time: Duration,
}

impl Default for Bounds {
    /// 1024 connections, 128 for each uid, messages of 4 MiB in 30 s.
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_uid: 128,
            message_bytes: MESSAGE_BYTES,
            message_time: Duration::from_secs(30),
        }
    }
}

/// Counts who is inside.
#[derive(Debug)]
pub(super) struct Doorkeeper {
    bounds: Bounds,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    connections: usize,
    uids: HashMap<u32, Visitor>,
}

#[derive(Debug)]
struct Visitor {
    connections: usize,
    long_messages: Arc<Semaphore>,
}

impl Doorkeeper {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, inside: Mutex::default() }
    }

    /// Counts one more connection of `uid`.
    ///
    /// # Errors
    /// `E_OUTOFMEMORY`: the uid, or all together, have as many as they may.
    pub(super) fn admit(self: &Arc<Self>, uid: u32) -> Result<Admission, VssError> {
        let bounds = self.bounds;
        let mut inside = self.inside();
        let of_all =
            if uid == 0 { bounds.connections } else { bounds.connections - bounds.connections / KEPT_FOR_ROOT };
        if inside.connections >= of_all {
            return Err(full(format!("The service has {} open connections, all that it may have", inside.connections)));
        }
        // A refused uid has an entry already: its other connections.
        let visitor = inside.uids.entry(uid).or_insert_with(|| Visitor {
            connections: 0,
            long_messages: Arc::new(Semaphore::new(LONG_MESSAGES_PER_UID)),
        });
        if uid != 0 && visitor.connections >= bounds.connections_per_uid {
            return Err(full(format!(
                "User {uid} has {} open connections, all that one user may have",
                visitor.connections
            )));
        }
        visitor.connections += 1;
        let long_messages = visitor.long_messages.clone();
        inside.connections += 1;
        Ok(Admission { doorkeeper: self.clone(), uid, long_messages })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn full(message: String) -> VssError {
    VssError::new(VssCode::OutOfMemory, message).with_hint("End a program that keeps connections open, then try again")
}

/// One connection that was let in; its drop lets it out.
#[derive(Debug)]
pub(super) struct Admission {
    doorkeeper: Arc<Doorkeeper>,
    uid: u32,
    /// A permit of it is held while a long message arrives.
    pub(super) long_messages: Arc<Semaphore>,
}

impl Admission {
    pub(super) fn bounds(&self) -> Bounds {
        self.doorkeeper.bounds
    }

    /// True while more than half of the connections are in use: then one that says nothing has to go.
    pub(super) fn crowded(&self) -> bool {
        self.doorkeeper.inside().connections > self.doorkeeper.bounds.connections / 2
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut inside = self.doorkeeper.inside();
        inside.connections = inside.connections.saturating_sub(1);
        if let Some(visitor) = inside.uids.get_mut(&self.uid) {
            visitor.connections = visitor.connections.saturating_sub(1);
            if visitor.connections == 0 {
                inside.uids.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doorkeeper(connections: usize, connections_per_uid: usize) -> Arc<Doorkeeper> {
        Arc::new(Doorkeeper::new(Bounds { connections, connections_per_uid, ..Bounds::default() }))
    }

    #[test]
    fn one_user_cannot_use_up_what_others_need_and_nobody_what_root_needs() {
        let doorkeeper = doorkeeper(16, 8);
        let mut held: Vec<Admission> = (0..8).map(|_| doorkeeper.admit(1000).unwrap()).collect();
        assert_eq!(doorkeeper.admit(1000).unwrap_err().code, VssCode::OutOfMemory);
        held.extend((0..6).map(|_| doorkeeper.admit(1001).unwrap()));
        assert!(doorkeeper.admit(1001).is_err() && doorkeeper.admit(1002).is_err());
        held.extend((0..2).map(|_| doorkeeper.admit(0).unwrap()));
        assert!(doorkeeper.admit(0).is_err());
        held.clear();
        assert!(doorkeeper.inside().uids.is_empty() && doorkeeper.inside().connections == 0);
    }

    #[test]
    fn more_than_half_is_crowded() {
        let doorkeeper = doorkeeper(4, 4);
        let mut held: Vec<Admission> = (0..3).map(|_| doorkeeper.admit(0).unwrap()).collect();
        assert!(held[0].crowded());
        held.pop();
        assert!(!held[0].crowded());
    }
}
