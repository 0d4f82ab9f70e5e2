//! `org.linuxvss.Requester`: what each call does to its session. Peer credentials were checked at the door.

use crate::catalogue::SetEntry;
use crate::coordinator::{Action, Coordinator, broke_off};
use crate::creation_lock::CreationLock;
use crate::jobs::{self, Candidate, Involvement, OperationOutcome};
use crate::operation::Operation;
use crate::providers::by_contract;
use crate::sagas::create_set::{Plan, Requester};
use crate::sessions::Session;
use crate::writers::SessionWriters;
use crate::{blocking, fault, removal, rules, volumes};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use vss_api::event::{self, EventKind};
use vss_api::requester::{
    BackupComponent, Call, ComponentReference, ExposeSnapshot, Exposed, FinishedSet, InitializeForBackup, Metadata,
    OperationCancelled, OperationReference, OperationStarted, OperationState, SessionOpened, SetBackupOptions,
    SetPreviousBackupStamp, SetStarted, Statuses, UnexposeSnapshot, VolumeQuestion, Wait, WriterComponents,
};
use vss_api::server::{ConnectionId, Peer, Replier};
use vss_model::error::status;
use vss_model::{ComponentName, CreationOptions, ShadowId, VssCode, VssError, WriterInstanceId, limits};
use vss_session::{Call as Step, Effect, Event, Finished, Kind, State};

/// Longest name of a requester, in bytes.
const LONGEST_REQUESTER: usize = 256;
/// A user other than root may have one in so many of all sessions and checks, so that nobody can lock the others out.
pub(super) const SHARE_OF_UID: usize = 4;
/// Longest single Wait; a caller that wants more asks again.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

impl Coordinator {
    /// Performs one call; the calls of a session come one after another.
    pub(crate) fn perform(&mut self, id: ConnectionId, call: Call, replier: Replier) {
        match call {
            Call::InitializeForBackup(parameters) => {
                replier.result(self.open_session(id, parameters, Event::InitializeForBackup));
            }
            Call::InitializeForRestore(parameters) => {
                replier.result(self.open_session(id, parameters, Event::InitializeForRestore));
            }
            Call::SetContext(parameters) => {
                replier.result(self.step(id, Event::SetContext(parameters.context, parameters.attributes)));
            }
            Call::SetBackupState(parameters) => replier.result(self.step(id, Event::SetBackupState(parameters.state))),
            Call::EnableWriterClasses(classes) => {
                replier.result(self.step(id, Event::EnableWriterClasses(classes.class_ids)));
            }
            Call::DisableWriterClasses(classes) => {
                replier.result(self.step(id, Event::DisableWriterClasses(classes.class_ids)));
            }
            Call::DisableWriterInstances(instances) => {
                replier.result(self.step(id, Event::DisableWriterInstances(instances.instance_ids)));
            }
            Call::GatherWriterMetadata => replier.result(self.begin(id, Event::GatherWriterMetadata)),
            Call::GetWriterMetadata => replier.result(self.metadata(id)),
            Call::AddComponent(component) => replier.result(self.step(id, Event::AddComponent(reference(component)))),
            Call::SetBackupOptions(SetBackupOptions { component, options }) => {
                let component = reference(component);
                replier.result(self.step(id, Event::SetBackupOptions { component, options }));
            }
            Call::SetPreviousBackupStamp(SetPreviousBackupStamp { component, stamp }) => {
                let component = reference(component);
                replier.result(self.step(id, Event::SetPreviousBackupStamp { component, stamp }));
            }
            Call::GetWriterComponents(of) => replier.result(self.writer_components(id, of.instance_id)),
            Call::IsVolumeSupported(question) => self.is_volume_supported(id, question, replier),
            Call::StartSnapshotSet(options) => self.start_set(id, options, replier),
            Call::AddToSnapshotSet(question) => self.take_volume(id, question, replier),
            Call::PrepareForBackup => replier.result(self.begin(id, Event::PrepareForBackup)),
            Call::DoSnapshotSet(parameters) => {
                replier.result(self.begin(id, Event::DoSnapshotSet { strict: parameters.strict }));
            }
            Call::GatherWriterStatus => replier.result(self.begin(id, Event::GatherWriterStatus)),
            Call::GetWriterStatus => replier.result(self.statuses(id)),
            Call::GetSnapshotSet => self.finished_set(id, replier),
            Call::ExposeSnapshot(parameters) => self.expose(id, parameters, replier),
            Call::UnexposeSnapshot(parameters) => self.unexpose(id, parameters, replier),
            Call::SetBackupSucceeded(parameters) => {
                let component = reference(parameters.component);
                replier.result(self.set_backup_succeeded(id, component, parameters.succeeded));
            }
            Call::BackupComplete => replier.result(self.begin(id, Event::BackupComplete)),
            Call::AbortBackup => match self.session(id).and_then(|session| session.state.apply(Event::AbortBackup)) {
                Ok(effects) => self.carry_out(id, effects, Some(replier)),
                Err(error) => replier.error(&error),
            },
            Call::Query(parameters) => self.query(id, parameters, replier),
            Call::GetSnapshotProperties(parameters) => self.snapshot_properties(id, parameters, replier),
            Call::SetSnapshotProperty(parameters) => self.set_snapshot_property(id, parameters, replier),
            Call::DeleteSnapshots(parameters) => self.delete_snapshots(id, parameters, replier),
            Call::BreakSnapshotSet(parameters) => self.break_snapshot_set(id, parameters, replier),
            Call::ImportSnapshots => replier.result(self.refused(id, Step::ImportSnapshots)),
            Call::SetRestoreState(_) => replier.result(self.refused(id, Step::SetRestoreState)),
            Call::SetSelectedForRestore(_) => replier.result(self.refused(id, Step::SetSelectedForRestore)),
            Call::PreRestore => replier.result(self.refused(id, Step::PreRestore)),
            Call::PostRestore => replier.result(self.refused(id, Step::PostRestore)),
            Call::Wait(parameters) => self.wait(id, parameters, replier),
            Call::QueryStatus(parameters) => {
                replier.result(self.operation(id, parameters).map(|operation| operation.status()));
            }
            Call::Cancel(parameters) => replier.result(self.cancel(id, parameters)),
        }
    }

    /// A call that no session of this release permits.
    fn refused(&mut self, id: ConnectionId, call: Step) -> Result<vss_api::Empty, VssError> {
        vss_session::permits(&self.session(id)?.state, call)?;
        Err(VssError::new(VssCode::NotImplemented, format!("{call} is not there yet")))
    }

    fn open_session(
        &mut self,
        id: ConnectionId,
        parameters: InitializeForBackup,
        begin: Event,
    ) -> Result<SessionOpened, VssError> {
        if parameters.requester.len() > LONGEST_REQUESTER || parameters.requester.chars().any(char::is_control) {
            return Err(VssError::new(
                VssCode::InvalidArgument,
                format!("The requester's name has more than {LONGEST_REQUESTER} bytes, or a control character"),
            ));
        }
        let Some(connection) = self.connections.get_mut(&id) else {
            return Err(VssError::new(VssCode::Unexpected, "The connection is gone"));
        };
        if let Some(session) = connection.session.as_mut() {
            // A second InitializeForBackup is the machine's to refuse.
            session.state.apply(begin.clone())?;
        }
        let uid = connection.peer.uid;
        let kind = if begin == Event::InitializeForRestore { Kind::Restore } else { Kind::Backup };
        self.has_room_for_session(uid, kind)?;
        let mut state = State::default();
        state.apply(begin)?;
        let session = Session::new(parameters.requester, state, Arc::clone(&self.environment.events), uid);
        let session_id = session.id;
        session.teller.tell(event::Event {
            requester: Some(session.requester.clone()),
            ..event::Event::of(EventKind::SessionOpened)
        });
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.session = Some(session);
        }
        Ok(SessionOpened { session_id })
    }

    /// May this user open one more session of this kind?
    ///
    /// # Errors
    /// `E_OUTOFMEMORY`.
    pub(crate) fn has_room_for_session(&self, uid: u32, kind: Kind) -> Result<(), VssError> {
        let with_session = self.connections.values().filter(|connection| {
            connection
                .session
                .as_ref()
                .is_some_and(|session| session.state.session().is_none_or(|session| session.kind() == kind))
        });
        let open: Vec<u32> = with_session.map(|connection| connection.peer.uid).collect();
        let of_uid = open.iter().filter(|other| **other == uid).count();
        let most = if kind == Kind::Restore { limits::RESTORE_SESSIONS } else { self.backup_sessions };
        let most_of_uid = if uid == 0 { most } else { most.div_ceil(SHARE_OF_UID) };
        if (open.len() < most && of_uid < most_of_uid) || fault::is_off("limits") {
            return Ok(());
        }
        Err(VssError::new(
            VssCode::OutOfMemory,
            format!(
                "{} {kind} sessions are open, {of_uid} of them by uid {uid}; there can be {most}, {most_of_uid} of one user",
                open.len()
            ),
        )
        .with_hint("Wait until another one has ended; `vss list` commands need no session"))
    }

    /// Steps into an operation.
    fn begin(&mut self, id: ConnectionId, event: Event) -> Result<OperationStarted, VssError> {
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

    fn metadata(&mut self, id: ConnectionId) -> Result<Metadata, VssError> {
        let session = self.session(id)?;
        vss_session::permits(&session.state, Step::GetWriterMetadata)?;
        let writers = session.state.draft().and_then(vss_session::Draft::writers).unwrap_or_default();
        Ok(Metadata { writers: writers.to_vec() })
    }

    /// What the backup knows of one writer's components: those that were added, or that lie on the set's volumes.
    fn writer_components(
        &mut self,
        id: ConnectionId,
        instance_id: WriterInstanceId,
    ) -> Result<WriterComponents, VssError> {
        let session = self.session(id)?;
        vss_session::permits(&session.state, Step::GetWriterComponents)?;
        let found = session.writers.iter().flat_map(SessionWriters::iter);
        let writer = found.into_iter().find(|writer| writer.metadata.instance_id == instance_id).ok_or_else(|| {
            VssError::new(
                VssCode::ObjectNotFound,
                format!("No writer with instance id {instance_id} is in this session"),
            )
            .with_hint("Name a writer that GetWriterMetadata lists")
        })?;
        let added = session.state.draft().into_iter().flat_map(vss_session::Draft::components);
        let added: BTreeMap<_, _> = added
            .filter(|(component, _)| component.instance_id == instance_id)
            .map(|(component, chosen)| (&component.name, chosen))
            .collect();
        let described = writer.metadata.components.iter();
        let concerned = described
            .filter(|component| added.contains_key(&component.name) || writer.components.contains(&component.name));
        let said = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let components = concerned.map(|component| {
            let chosen = added.get(&component.name);
            BackupComponent {
                kind: component.kind,
                name: component.name.clone(),
                backup_options: chosen.and_then(|chosen| said(&chosen.backup_options)),
                previous_backup_stamp: chosen.and_then(|chosen| said(&chosen.previous_backup_stamp)),
                data: writer.data.get(&component.name).cloned().unwrap_or_default(),
                failure: writer.component_failures.get(&component.name).cloned(),
                backup_succeeded: chosen.and_then(|chosen| chosen.succeeded),
            }
        });
        Ok(WriterComponents { components: components.collect() })
    }

    /// The machine judges it; the writer and the document that is kept hear it with the end of the backup.
    fn set_backup_succeeded(
        &mut self,
        id: ConnectionId,
        component: vss_session::ComponentReference,
        succeeded: bool,
    ) -> Result<vss_api::Empty, VssError> {
        self.step(id, Event::SetBackupSucceeded { component: component.clone(), succeeded })?;
        let writers = self.session(id)?.writers.iter_mut().flat_map(SessionWriters::iter_mut);
        for writer in writers.filter(|writer| writer.metadata.instance_id == component.instance_id) {
            writer.backed_up.insert(component.name.clone(), succeeded);
        }
        Ok(vss_api::Empty {})
    }

    fn statuses(&mut self, id: ConnectionId) -> Result<Statuses, VssError> {
        let session = self.session(id)?;
        vss_session::permits(&session.state, Step::GetWriterStatus)?;
        Ok(Statuses { writers: session.statuses.clone() })
    }

    fn finished_set(&mut self, id: ConnectionId, replier: Replier) {
        let environment = Arc::clone(&self.environment);
        let permitted = self.session(id).and_then(|session| {
            vss_session::permits(&session.state, Step::GetSnapshotSet)?;
            Ok((session.state.draft().and_then(vss_session::Draft::made_set), session.empty_set.clone()))
        });
        let (made, empty) = match permitted {
            Ok(permitted) => permitted,
            Err(error) => return replier.error(&error),
        };
        self.answer(async move {
            let set = blocking::run("Reading the mount table", limits::PROVIDER_IN_WINDOW, move || {
                let kept = made.and_then(|set_id| environment.catalogue.set(set_id)).map(|entry| entry.set);
                let mut set = kept.or(empty).ok_or_else(|| {
                    VssError::new(VssCode::ObjectNotFound, "The copies of the session's set are deleted")
                })?;
                environment.show_places(&mut set.shadows);
                Ok(FinishedSet { set })
            });
            replier.result(set.await);
        });
    }

    /// Taking the lock writes a file, which may lie on a volume that another instance holds: a job.
    fn start_set(&mut self, id: ConnectionId, options: CreationOptions, replier: Replier) {
        let path = self.creation_lock.clone();
        let permitted = self.session(id).and_then(|session| {
            vss_session::permits(&session.state, Step::StartSnapshotSet)?;
            options.check()?;
            Ok(session.requester.clone())
        });
        let requester = match permitted {
            Ok(requester) => requester,
            Err(error) => return replier.error(&error),
        };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if options.storage.is_some()
            && let Err(error) = rules::choose_storage(&connection.peer)
        {
            return replier.error(&error);
        }
        let holder = format!("{requester} (process {})", connection.peer.pid);
        connection.queue.begin();
        let work = async move {
            let take = move || {
                options.storage.as_deref().map_or(Ok(()), volumes::check_storage)?;
                fault::check_turn()?;
                Ok((CreationLock::try_take(&path, &holder)?, options))
            };
            let lock = blocking::run("Taking the creation lock", limits::PROVIDER_IN_WINDOW, take).await;
            Action::LockTaken(id, lock, replier)
        };
        self.spawn(work, move || Action::Resumed(id));
    }

    /// StartSnapshotSet goes on.
    pub(crate) fn lock_taken(
        &mut self,
        id: ConnectionId,
        taken: Result<(CreationLock, CreationOptions), VssError>,
        replier: Replier,
    ) {
        let started = taken.and_then(|(lock, options)| {
            let session = self.session(id)?;
            let set_id = vss_model::SetId::random();
            session.state.apply(Event::StartSnapshotSet(set_id))?;
            session.lock = Some(lock);
            session.options = options;
            Ok(SetStarted { set_id })
        });
        replier.result(started);
        self.resume(id);
    }

    fn take_volume(&mut self, id: ConnectionId, question: VolumeQuestion, replier: Replier) {
        let permitted =
            self.session(id).and_then(|session| vss_session::permits(&session.state, Step::AddToSnapshotSet));
        if let Err(error) = permitted {
            return replier.error(&error);
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.queue.begin();
        }
        let draft = self.session(id).ok().and_then(|session| session.state.draft());
        let (context, attributes) = draft.map(|draft| (draft.context(), draft.attributes())).unwrap_or_default();
        let work = jobs::find_volume(Arc::clone(&self.environment), question, context, attributes);
        let work = async move { Action::VolumeFound(id, work.await.map(Box::new), replier) };
        self.spawn(work, move || Action::Resumed(id));
    }

    /// AddToSnapshotSet goes on: the session's machine decides before the provider is told.
    pub(crate) fn volume_found(&mut self, id: ConnectionId, found: Result<Box<Candidate>, VssError>, replier: Replier) {
        let accepted = found.and_then(|candidate| {
            let session = self.session(id)?;
            let event = Event::AddToSnapshotSet(vss_session::Member {
                shadow_id: candidate.shadow_id,
                volume: candidate.volume.id.clone(),
                provider: candidate.provider.properties().id,
            });
            vss_session::check(&session.state, &event)?;
            let facts = session.facts();
            Ok((*candidate, facts.set_id.ok_or_else(no_set)?, facts.context, session.options.clone()))
        });
        let (candidate, set_id, context, options) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                replier.error(&error);
                return self.resume(id);
            }
        };
        let work = jobs::begin_prepare(set_id, context, options, candidate);
        let work = async move { Action::VolumeTaken(id, work.await.map(Box::new), replier) };
        self.spawn(work, move || Action::Resumed(id));
    }

    fn is_volume_supported(&mut self, id: ConnectionId, question: VolumeQuestion, replier: Replier) {
        if let Err(error) =
            self.session(id).and_then(|session| vss_session::permits(&session.state, Step::IsVolumeSupported))
        {
            return replier.error(&error);
        }
        let work = jobs::is_volume_supported(Arc::clone(&self.environment), question);
        self.answer(async move { replier.result(work.await) });
    }

    fn expose(&mut self, id: ConnectionId, parameters: ExposeSnapshot, replier: Replier) {
        let Some(peer) = self.connections.get(&id).map(|connection| connection.peer.clone()) else { return };
        let environment = Arc::clone(&self.environment);
        self.answer(async move {
            let all = Arc::clone(&environment);
            let _one = all.changes.lock().await;
            let exposed = blocking::run("Exposing a shadow copy", limits::PROVIDER_OUTSIDE, move || {
                rules::root(&peer, "expose shadow copies")?;
                let (entry, copy) = removal::find(&environment, parameters.shadow_id)?;
                if parameters.path.is_some() {
                    check_exposable_at(&entry, parameters.shadow_id)?;
                }
                if let Some(place) = environment.place(parameters.shadow_id)? {
                    if parameters.path.as_ref().is_none_or(|path| *path == place) {
                        return Ok(Exposed { path: place });
                    }
                    return Err(VssError::new(
                        VssCode::ObjectAlreadyExists,
                        format!("Shadow copy {} is exposed at {} already", parameters.shadow_id, place.display()),
                    )
                    .with_hint("Use it there, or `vss unexpose` it first"));
                }
                let provider = environment.providers.named(&copy.provider)?;
                let trees = provider.mount(&copy.stored, false).map_err(|error| by_contract(&copy.provider, error))?;
                let path = match &parameters.path {
                    Some(path) => environment.expose_at(parameters.shadow_id, trees, path)?.place,
                    None => environment.exposures.expose(parameters.shadow_id, trees)?,
                };
                let event = event::Event { path: Some(path.clone()), ..event::Event::of(EventKind::CopyExposed) };
                removal::tell(&environment, &entry, &copy, event);
                Ok(Exposed { path })
            });
            replier.result(exposed.await);
        });
    }

    fn unexpose(&mut self, id: ConnectionId, parameters: UnexposeSnapshot, replier: Replier) {
        let Some(peer) = self.connections.get(&id).map(|connection| connection.peer.clone()) else { return };
        let environment = Arc::clone(&self.environment);
        self.answer(async move {
            let all = Arc::clone(&environment);
            let _one = all.changes.lock().await;
            let done = blocking::run("Unexposing a shadow copy", limits::PROVIDER_OUTSIDE, move || {
                let (entry, copy) = removal::find(&environment, parameters.shadow_id)?;
                rules::owner(&peer, entry.set.owner, "unexpose this shadow copy")?;
                if !environment.unexpose(parameters.shadow_id)? {
                    return Err(VssError::new(
                        VssCode::ObjectNotFound,
                        format!("Shadow copy {} is not exposed", parameters.shadow_id),
                    ));
                }
                removal::tell(&environment, &entry, &copy, event::Event::of(EventKind::CopyUnexposed));
                Ok(vss_api::Empty {})
            });
            replier.result(done.await);
        });
    }

    /// The operation that a call names: of the caller's own sessions, or of any for root.
    fn operation(&self, id: ConnectionId, reference: OperationReference) -> Result<Operation, VssError> {
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

    fn cancel(&mut self, id: ConnectionId, parameters: OperationReference) -> Result<OperationCancelled, VssError> {
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

    fn wait(&mut self, id: ConnectionId, parameters: Wait, replier: Replier) {
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

/// May this copy be shown at a directory of the caller's? One that goes with its session would be taken away there under
/// whoever uses it; at the service's own place its requester reads it. One for previous versions on shares is shown by the
/// shares (spec P 4.6; one that lives until reboot is ours, P 11).
///
/// # Errors
/// `VSS_E_UNSUPPORTED_CONTEXT`.
fn check_exposable_at(entry: &SetEntry, shadow_id: ShadowId) -> Result<(), VssError> {
    let context = entry.set.context;
    if !(context.is_auto_release() || context.is_client_accessible()) || fault::is_off("exposable") {
        return Ok(());
    }
    let why = if context.is_auto_release() { "goes with its session" } else { "is for previous versions on shares" };
    let message = format!("Shadow copy {shadow_id} {why}, and cannot be exposed at a directory");
    Err(VssError::new(VssCode::UnsupportedContext, message)
        .with_hint("Leave the directory out, or make a copy that stays with `vss create --persistent`"))
}

fn no_set() -> VssError {
    VssError::new(VssCode::BadState, "There is no set").with_hint("Call StartSnapshotSet first")
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

fn reference(component: ComponentReference) -> vss_session::ComponentReference {
    vss_session::ComponentReference {
        instance_id: component.instance_id,
        class_id: component.class_id,
        kind: component.kind,
        name: ComponentName { logical_path: component.logical_path, name: component.name },
    }
}
