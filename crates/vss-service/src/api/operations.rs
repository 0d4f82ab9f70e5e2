//! Operations, which take time: begun, waited for, looked at, cancelled and ended.

use crate::coordinator::{Action, Coordinator};
use crate::fault;
use crate::jobs::{self, Involvement, OperationOutcome};
use crate::operation::Operation;
use crate::sagas::create_set::{Plan, Requester};
use crate::sessions::Session;
use crate::writers::SessionWriters;
use std::sync::Arc;
use std::time::Duration;
use vss_api::requester::{OperationCancelled, OperationReference, OperationStarted, OperationState, Wait};
use vss_api::server::{ConnectionId, Peer, Replier};
use vss_model::error::status;
use vss_model::{VssCode, VssError};
use vss_session::{Effect, Event, Finished};

/// Longest single Wait; a caller that wants more asks again.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

impl Coordinator {
    /// Steps into an operation.
    pub(super) fn begin(&mut self, id: ConnectionId, event: Event) -> Result<OperationStarted, VssError> {
        self.step(id, event)?;
        let operation = self.session(id)?.last_operation().map(|operation| operation.id);
        let operation_id =
            operation.ok_or_else(|| VssError::new(VssCode::Unexpected, "The operation did not start"))?;
        Ok(OperationStarted { operation_id })
    }

    /// Starts the job of an operation.
    pub(crate) fn start_operation(&mut self, id: ConnectionId, effect: Effect) {
        let environment = Arc::clone(&self.environment);
        let writers: Vec<_> = match &effect {
            Effect::IdentifyWriters(filter) => self
                .registry
                .writers()
                .iter()
                .filter(|writer| filter.allows(writer.register.class_id, writer.instance_id) || fault::is_off("filter"))
                .map(|writer| (Arc::clone(writer), self.registry.freeze_limit(&writer.register)))
                .collect(),
            _ => Vec::new(),
        };
        let prepare_limit = self.writer_prepare;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let peer = connection.peer.clone();
        let Some(session) = connection.session.as_mut() else { return };
        let operation = session.begin_operation();
        let facts = session.facts();
        let of_session = session.writers.take().unwrap_or_default();
        match effect {
            Effect::IdentifyWriters(_) => {
                let writers = environment.inbox_writers.check().map(|()| writers);
                let work = jobs::gather_metadata(operation, facts, writers, prepare_limit);
                self.run_operation(id, vss_session::Operation::GatherWriterMetadata, work);
            }
            Effect::PrepareWriters => {
                let involvement = involvement(session);
                let work = jobs::prepare_for_backup(operation, of_session, facts, involvement);
                self.run_operation(id, vss_session::Operation::PrepareForBackup, work);
            }
            Effect::CreateSet { set_id, strict } => {
                let requester = Requester { uid: peer.uid, pid: peer.pid, name: session.requester.clone() };
                let plan = Plan { set_id, members: session.members.clone(), facts, strict, requester };
                let work = jobs::create_set(environment, operation, plan, of_session);
                self.run_operation(id, vss_session::Operation::DoSnapshotSet, work);
            }
            Effect::CompleteBackup => {
                let work = jobs::complete_backup(environment, operation, of_session, facts);
                self.run_operation(id, vss_session::Operation::BackupComplete, work);
            }
            // Status is kept up to date with every event; there is nothing to gather.
            _ => {
                let work = std::future::ready(OperationOutcome::new(Finished::GatherWriterStatus(Ok(())), of_session));
                self.run_operation(id, vss_session::Operation::GatherWriterStatus, work);
            }
        }
    }

    fn run_operation(
        &mut self,
        id: ConnectionId,
        kind: vss_session::Operation,
        work: impl Future<Output = OperationOutcome> + Send + 'static,
    ) {
        let work = async move { Action::OperationEnded(id, Box::new(work.await)) };
        self.spawn(work, move || Action::OperationEnded(id, Box::new(broke_off(kind))));
    }

    pub(crate) fn operation_ended(&mut self, id: ConnectionId, outcome: OperationOutcome) {
        let Ok(session) = self.session(id) else { return };
        session.statuses = outcome.writers.statuses();
        session.writers = Some(outcome.writers);
        session.empty_set = outcome.empty_set.or(session.empty_set.take());
        let result = match outcome.finished.failure() {
            None => Ok(()),
            Some(vss_session::Failure::Cancelled) => Err(crate::operation::cancelled()),
            Some(vss_session::Failure::Error(error)) => Err(error.clone()),
        };
        let operation = session.last_operation().cloned();
        match session.state.apply(Event::OperationFinished(outcome.finished)) {
            Ok(effects) => self.carry_out(id, effects, None),
            Err(error) => tracing::error!(%error, "an operation ended that did not run"),
        }
        // Last, so that whoever waits for the end finds the lock given back.
        if let Some(operation) = operation {
            operation.finish(&result);
        }
    }

    /// The operation that a call names: of the caller's own sessions, or of any for root.
    pub(super) fn operation(&self, id: ConnectionId, reference: OperationReference) -> Result<Operation, VssError> {
        let unknown = || {
            VssError::new(VssCode::ObjectNotFound, format!("There is no operation {}", reference.operation_id))
                .with_hint("Ended operations are remembered as long as their session, the last 16 of them")
        };
        let caller: &Peer = &self.connections.get(&id).ok_or_else(unknown)?.peer;
        self.connections
            .values()
            .filter(|connection| caller.uid == 0 || caller.uid == connection.peer.uid)
            .filter_map(|connection| connection.session.as_ref())
            .find_map(|session| session.operation(reference.operation_id))
            .cloned()
            .ok_or_else(unknown)
    }

    pub(super) fn cancel(
        &mut self,
        id: ConnectionId,
        parameters: OperationReference,
    ) -> Result<OperationCancelled, VssError> {
        let operation = self.operation(id, parameters)?;
        let result = match operation.status().state {
            OperationState::Cancelled => status::VSS_S_ASYNC_CANCELLED,
            OperationState::Pending if operation.is_cancelled() => status::VSS_S_ASYNC_CANCELLED,
            OperationState::Pending => status::S_OK,
            OperationState::Finished | OperationState::Failed => status::VSS_S_ASYNC_FINISHED,
        };
        if result == status::S_OK && !fault::is_off("cancel") {
            let owner = self.connections.iter().find_map(|(owner, connection)| {
                let session = connection.session.as_ref()?;
                session.operation(operation.id).map(|_| *owner)
            });
            if let Some(owner) = owner {
                self.step(owner, Event::CancelRequested)?;
            }
        }
        Ok(OperationCancelled { result, status: operation.status() })
    }

    pub(super) fn wait(&mut self, id: ConnectionId, parameters: Wait, replier: Replier) {
        let operation = match self.operation(id, OperationReference { operation_id: parameters.operation_id }) {
            Ok(operation) => operation,
            Err(error) => return replier.error(&error),
        };
        let limit = Duration::from_millis(parameters.timeout_ms).min(LONGEST_WAIT);
        // Not counted as a job: it must not keep the service alive when its caller is gone.
        tokio::spawn(async move {
            let mut status = operation.watch();
            let moved = status.wait_for(|status| {
                status.state != OperationState::Pending || status.progress > parameters.seen_progress
            });
            // Either way the answer is where it stands now.
            drop(tokio::time::timeout(limit, moved).await);
            replier.ok(&operation.status());
        });
    }
}

fn involvement(session: &Session) -> Involvement {
    let draft = session.state.draft();
    let chooses = draft.and_then(vss_session::Draft::backup_state).is_some_and(|state| state.select_components);
    if chooses {
        let components = draft
            .map(|draft| draft.components().map(|(component, chosen)| (component.clone(), chosen.clone())).collect());
        Involvement::Chosen(components.unwrap_or_default())
    } else {
        Involvement::ByVolume(session.members.iter().map(|member| member.volume.id.clone()).collect())
    }
}

/// What an operation that broke off gives back: its writers are lost with it.
fn broke_off(operation: vss_session::Operation) -> OperationOutcome {
    use vss_session::{Failure, Operation as O};
    let failure = Failure::Error(
        VssError::new(VssCode::Unexpected, format!("{operation} broke off")).with_hint("The service's log says why"),
    );
    let finished = match operation {
        O::GatherWriterMetadata => Finished::GatherWriterMetadata(Err(failure)),
        O::PrepareForBackup => Finished::PrepareForBackup(Err(failure)),
        O::DoSnapshotSet => Finished::DoSnapshotSet(Err(failure)),
        O::GatherWriterStatus => Finished::GatherWriterStatus(Err(failure)),
        O::BackupComplete => Finished::BackupComplete(Err(failure)),
    };
    OperationOutcome::new(finished, SessionWriters::default())
}
