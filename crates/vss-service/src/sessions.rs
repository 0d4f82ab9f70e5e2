//! One session as the coordinator keeps it: its state machine, and what the machine does not hold.

use crate::creation_lock::CreationLock;
use crate::events::{Events, Teller};
use crate::operation::Operation;
use crate::sagas::create_set::Member;
use crate::writers::{EventFacts, SessionWriters};
use std::collections::VecDeque;
use std::sync::Arc;
use vss_api::management::SessionStatus;
use vss_api::requester::OperationState;
use vss_api::server::Peer;
use vss_api::writer::EventVolume;
use vss_model::{CreationOptions, OperationId, SessionId, ShadowCopySet, WriterStatus, level};
use vss_session::{Kind, State};

/// Ended operations that `QueryStatus` still answers for.
const REMEMBERED: usize = 16;

/// One session.
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Who asks, in its own words.
    pub requester: String,
    /// Where it stands.
    pub state: State,
    /// Its writers; none while a job has them.
    pub writers: Option<SessionWriters>,
    /// Their status as of the last job.
    pub statuses: Vec<WriterStatus>,
    /// How the copies of its set are to be made.
    pub options: CreationOptions,
    /// The volumes of its set.
    pub members: Vec<Member>,
    /// Its finished set if that has no volume; a set with copies is the catalogue's.
    pub empty_set: Option<ShadowCopySet>,
    /// The creation lock, from StartSnapshotSet to the end of DoSnapshotSet.
    pub lock: Option<CreationLock>,
    /// Who tells its events.
    pub teller: Teller,
    operations: VecDeque<Operation>,
}

impl Session {
    /// A new session.
    #[must_use]
    pub fn new(requester: String, state: State, events: Arc<Events>, uid: u32) -> Self {
        let id = SessionId::random();
        Self {
            id,
            teller: Teller::new(events, id, uid),
            requester,
            state,
            writers: Some(SessionWriters::default()),
            statuses: Vec::new(),
            options: CreationOptions::default(),
            members: Vec::new(),
            empty_set: None,
            lock: None,
            operations: VecDeque::new(),
        }
    }

    /// Begins an operation.
    pub fn begin_operation(&mut self) -> Operation {
        let operation = Operation::new();
        if self.operations.len() == REMEMBERED {
            self.operations.pop_front();
        }
        self.operations.push_back(operation.clone());
        operation
    }

    /// The operation that runs or ended last.
    #[must_use]
    pub fn last_operation(&self) -> Option<&Operation> {
        self.operations.back()
    }

    /// An operation by its id.
    #[must_use]
    pub fn operation(&self, id: OperationId) -> Option<&Operation> {
        self.operations.iter().find(|operation| operation.id == id)
    }

    /// What its events have in common.
    #[must_use]
    pub fn facts(&self) -> EventFacts {
        let draft = self.state.draft();
        EventFacts {
            session_id: self.id,
            set_id: draft.and_then(|draft| draft.set()).map(vss_session::SnapshotSet::id),
            context: draft.map(vss_session::Draft::context).unwrap_or_default(),
            attributes: draft.map(vss_session::Draft::attributes).unwrap_or_default(),
            backup_state: draft.and_then(vss_session::Draft::backup_state).unwrap_or_default(),
            volumes: volumes(&self.members),
            teller: self.teller.clone(),
        }
    }

    /// Its status for `GetStatus`.
    #[must_use]
    pub fn status(&self, peer: &Peer) -> SessionStatus {
        let step = self.last_operation().map(Operation::status);
        let step = step.filter(|status| status.state == OperationState::Pending).map(|status| status.step);
        SessionStatus {
            session_id: self.id,
            requester: self.requester.clone(),
            uid: peer.uid,
            pid: peer.pid,
            state: match self.state.session() {
                Some(session) if session.kind() == Kind::Restore => "Restore".to_owned(),
                Some(session) => format!("{:?}", session.phase()),
                None => "Created".to_owned(),
            },
            step: step.unwrap_or_default(),
        }
    }
}

/// The volumes as writers see them.
fn volumes(members: &[Member]) -> Vec<EventVolume> {
    let properties: Vec<_> = members.iter().map(|member| member.provider.properties()).collect();
    let policies: Vec<_> = properties.iter().map(|properties| properties.freeze_policy).collect();
    members
        .iter()
        .zip(properties)
        .zip(level::cut_groups(&policies))
        .map(|((member, properties), cut_group)| EventVolume {
            volume: member.volume.mount_point.clone(),
            volume_id: member.volume.id.clone(),
            shadow_id: member.shadow_id,
            provider: properties.name,
            cut_group,
            directory: None,
        })
        .collect()
}
