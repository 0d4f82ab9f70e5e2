//! Telling what happens in one session: its id and its owner's uid stand in every event.

use super::Events;
use std::sync::Arc;
use std::time::Duration;
use vss_api::event::{Event, EventKind};
use vss_model::{SessionId, SetId, VssError};

/// Tells the events of one session; by default nobody hears it.
#[derive(Debug, Clone, Default)]
pub struct Teller {
    events: Option<Arc<Events>>,
    session_id: Option<SessionId>,
    uid: Option<u32>,
}

impl Teller {
    /// For a session of the peer with this uid.
    #[must_use]
    pub fn new(events: Arc<Events>, session_id: SessionId, uid: u32) -> Self {
        Self { events: Some(events), session_id: Some(session_id), uid: Some(uid) }
    }

    /// Tells an event of the session.
    pub fn tell(&self, event: Event) {
        if let Some(events) = &self.events {
            events.tell(Event { session_id: self.session_id, uid: self.uid, ..event });
        }
    }

    /// A step of making a set has ended.
    pub fn step(&self, set_id: SetId, step: &str, took: Duration, failure: Option<&VssError>) {
        self.tell(Event {
            set_id: Some(set_id),
            step: Some(step.to_owned()),
            took_us: Some(microseconds(took)),
            failure: failure.cloned(),
            ..Event::of(EventKind::Step)
        });
    }

    /// A writer has answered an event, or has not.
    pub fn writer(&self, set_id: Option<SetId>, writer: &str, event: &str, took: Duration, failure: Option<&VssError>) {
        self.tell(Event {
            set_id,
            writer: Some(writer.to_owned()),
            step: Some(event.to_owned()),
            took_us: Some(microseconds(took)),
            failure: failure.cloned(),
            ..Event::of(EventKind::WriterEvent)
        });
    }

    /// A provider failed in a phase.
    pub fn provider_trouble(&self, set_id: SetId, provider: &str, phase: &str, failure: &VssError) {
        self.tell(Event {
            set_id: Some(set_id),
            provider: Some(provider.to_owned()),
            step: Some(phase.to_owned()),
            failure: Some(failure.clone()),
            ..Event::of(EventKind::ProviderTrouble)
        });
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
