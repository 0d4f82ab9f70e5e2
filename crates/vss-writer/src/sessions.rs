//! What one writer owes to the sessions that it takes part in: who is frozen until when, who must still be ended.
//!
//! Pure bookkeeping; [`crate::run`] asks it after each event.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use vss_api::writer::{Event, EventKind, EventReply};
use vss_model::{SessionId, VssCode, VssError, limits};

/// One session, from its first event to BackupShutdown.
#[derive(Debug)]
struct Session {
    /// Its last event: what Abort and BackupShutdown of our own are made from.
    event: Event,
    /// Frozen, and until when at the longest.
    frozen_until: Option<Instant>,
    /// PostSnapshot was handled: Abort comes no more (spec R 2.2).
    copied: bool,
    /// The freeze timer ran out: every later answer but those to Abort and BackupShutdown says so.
    timed_out: bool,
}

/// All sessions of one writer, at most [`limits::BACKUP_SESSIONS`].
#[derive(Debug, Default)]
pub(crate) struct Sessions(BTreeMap<SessionId, Session>);

impl Sessions {
    /// Notes an event before its handler runs; `Err` is the answer to give without running it.
    pub(crate) fn begin(&mut self, kind: EventKind, event: &Event, limit: Duration) -> Result<(), VssError> {
        if kind == EventKind::PrepareBackup {
            self.0.remove(&event.session_id);
        }
        if !self.0.contains_key(&event.session_id) && self.0.len() >= limits::BACKUP_SESSIONS {
            let message = format!("The writer takes part in {} sessions already", self.0.len());
            return Err(VssError::new(VssCode::WriterErrorOutOfResources, message).with_hint("End one of the backups"));
        }
        let session = self.0.entry(event.session_id).or_insert_with(|| Session {
            event: event.clone(),
            frozen_until: None,
            copied: false,
            timed_out: false,
        });
        session.event = event.clone();
        match kind {
            EventKind::Abort | EventKind::BackupShutdown => return Ok(()),
            _ if session.timed_out => return Err(timed_out(limit)),
            EventKind::Freeze => {
                let limit = limit.min(Duration::from_millis(event.time_left_ms));
                session.frozen_until = Some(Instant::now() + limit);
            }
            EventKind::PrepareSnapshot => session.copied = false,
            _ => {}
        }
        Ok(())
    }

    /// Notes that a handler is done. True: the freeze lasted too long, and the handler's answer no longer counts.
    pub(crate) fn end(&mut self, kind: EventKind, id: SessionId, succeeded: bool) -> bool {
        let Some(session) = self.0.get_mut(&id) else { return false };
        let late = session.frozen_until.is_some_and(|until| until <= Instant::now());
        match kind {
            EventKind::Freeze | EventKind::Thaw if late => return true,
            EventKind::Thaw if succeeded => session.frozen_until = None,
            EventKind::PostSnapshot if succeeded => session.copied = true,
            EventKind::Abort => session.frozen_until = None,
            EventKind::BackupShutdown => {
                self.0.remove(&id);
            }
            _ => {}
        }
        false
    }

    /// When the first freeze timer runs out.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.0.values().filter_map(|session| session.frozen_until).min()
    }

    /// The sessions whose freeze timer has run out, as the events to abort them with; they are thawed from now on.
    pub(crate) fn take_timed_out(&mut self) -> Vec<Event> {
        let now = Instant::now();
        let late = self.0.values_mut().filter(|session| session.frozen_until.is_some_and(|until| until <= now));
        late.map(|session| {
            session.frozen_until = None;
            session.timed_out = true;
            session.event.clone()
        })
        .collect()
    }

    /// All sessions, each with "it must be aborted first"; none is left.
    pub(crate) fn take_all(&mut self) -> Vec<(Event, bool)> {
        std::mem::take(&mut self.0).into_values().map(|session| (session.event, !session.copied)).collect()
    }
}

/// The error of a writer that was frozen for too long.
pub(crate) fn timed_out(limit: Duration) -> VssError {
    VssError::new(
        VssCode::WriterErrorTimeout,
        format!("Thaw did not come within {} ms of Freeze; the writer went on by itself", limit.as_millis()),
    )
    .with_hint("Try again when the machine is less busy")
}

/// The answer on the wire: a failure carries the state that the event leads to.
pub(crate) fn reply(kind: EventKind, answer: Result<EventReply, VssError>) -> EventReply {
    answer.unwrap_or_else(|error| {
        let hint = if error.hint.is_empty() { String::new() } else { format!(". {}", error.hint) };
        EventReply::failed(kind, VssError::new(error.code, format!("{}{hint}", error.message)))
    })
}
