//! What the service tells those who follow it ([`crate::management::Call::ListEvents`]).

use crate::progress::CopyProgress;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use vss_model::{Consistency, GuardAnswer, Instant, SessionId, SetId, ShadowId, Span, VssError};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The service began to serve; `recovery` is what it did at its start.
    #[default]
    ServiceStarted,
    /// The service ends: the last event.
    ServiceStopped,
    /// A requester opened a session.
    SessionOpened,
    /// A session ended.
    SessionClosed,
    /// A set is being made.
    SetBegun,
    /// A step of making a set has ended; those of the freeze window are told after the release.
    Step,
    /// A writer answered an event, or did not.
    WriterEvent,
    /// What was done to a member in the freeze window; told after the release.
    Member,
    /// A set is made.
    SetFinished,
    /// A set could not be made, and is undone.
    SetFailed,
    /// A shadow copy is deleted.
    CopyDeleted,
    /// A shadow copy is mounted at `path`.
    CopyExposed,
    /// A shadow copy is not mounted any more.
    CopyUnexposed,
    /// A writer registered.
    WriterRegistered,
    /// A writer left, or its process ended.
    WriterGone,
    /// A provider failed in `step`.
    ProviderTrouble,
    /// How far the copying of a volume is; of a session only the newest is remembered.
    Progress,
}

impl EventKind {
    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ServiceStarted => "service_started",
            Self::ServiceStopped => "service_stopped",
            Self::SessionOpened => "session_opened",
            Self::SessionClosed => "session_closed",
            Self::SetBegun => "set_begun",
            Self::Step => "step",
            Self::WriterEvent => "writer_event",
            Self::Member => "member",
            Self::SetFinished => "set_finished",
            Self::SetFailed => "set_failed",
            Self::CopyDeleted => "copy_deleted",
            Self::CopyExposed => "copy_exposed",
            Self::CopyUnexposed => "copy_unexposed",
            Self::WriterRegistered => "writer_registered",
            Self::WriterGone => "writer_gone",
            Self::ProviderTrouble => "provider_trouble",
            Self::Progress => "progress",
        }
    }
}

/// What was done to one member in the freeze window. Microseconds count from the first FIFREEZE, or from the first cut
/// where nothing was held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberTimes {
    /// Its nesting level; none when it is never held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<u8>,
    /// Its FIFREEZE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freeze: Option<Span>,
    /// The call of its provider in which it was cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<Span>,
    /// Its FITHAW.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thaw: Option<Span>,
    /// What the guard said of it, in order.
    pub answers: Vec<GuardAnswer>,
}

/// One event. Only what belongs to its kind is there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Event {
    /// Its number, counted from 1 at the start of the service.
    pub seq: u64,
    /// When it was told; none only before that.
    pub at: Option<Instant>,
    /// What happened.
    pub kind: EventKind,
    /// The session that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// The set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_id: Option<SetId>,
    /// The shadow copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow_id: Option<ShadowId>,
    /// The uid that it belongs to: the requester's, the copy's owner, the writer's process; none: everybody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Who asks, in its own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requester: Option<String>,
    /// The writer, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer: Option<String>,
    /// The provider, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The mount point of the volume.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "vss_model::path_text::optional")]
    pub volume: Option<PathBuf>,
    /// Where a copy is mounted.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "vss_model::path_text::optional")]
    pub path: Option<PathBuf>,
    /// The step of the set, the writer's event, or the provider's phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// How long it took, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_us: Option<u64>,
    /// What was done to the member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<MemberTimes>,
    /// How good the set is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<Consistency>,
    /// How long writes were held, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_us: Option<u64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<VssError>,
    /// How far the copying of a volume is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Box<CopyProgress>>,
    /// What the service did at its start, one line each, at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recovery: Vec<String>,
}

impl Event {
    /// An event of this kind of which nothing else is known yet.
    #[must_use]
    pub fn of(kind: EventKind) -> Self {
        Self { kind, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_only_what_belongs_to_it_and_reads_back() {
        let event = Event { seq: 7, at: Some(Instant::now()), took_us: Some(5), ..Event::of(EventKind::Step) };
        let value = serde_json::to_value(&event).unwrap();
        let keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["at", "kind", "seq", "took_us"]);
        assert_eq!(value["kind"], event.kind.name());
        assert_eq!(serde_json::from_value::<Event>(value).unwrap(), event);
    }
}
