//! `org.linuxvss.Requester`: what each call does to its session. Peer credentials were checked at the door. What takes time is
//! in `operations.rs`, what concerns the set and its volumes in `sets.rs`, showing copies in `exposures.rs`.

use crate::coordinator::Coordinator;
use crate::fault;
use crate::sessions::Session;
use crate::writers::SessionWriters;
use std::collections::BTreeMap;
use std::sync::Arc;
use vss_api::event::{self, EventKind};
use vss_api::requester::{
    BackupComponent, Call, ComponentReference, InitializeForBackup, Metadata, SessionOpened, SetBackupOptions,
    SetPreviousBackupStamp, Statuses, WriterComponents,
};
use vss_api::server::{ConnectionId, Replier};
use vss_model::{ComponentName, VssCode, VssError, WriterInstanceId, limits};
use vss_session::{Call as Step, Event, Kind, State};

/// Longest name of a requester, in bytes.
const LONGEST_REQUESTER: usize = 256;
/// A user other than root may have one in so many of all sessions and checks, so that nobody can lock the others out.
pub(super) const SHARE_OF_UID: usize = 4;

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
}

fn reference(component: ComponentReference) -> vss_session::ComponentReference {
    vss_session::ComponentReference {
        instance_id: component.instance_id,
        class_id: component.class_id,
        kind: component.kind,
        name: ComponentName { logical_path: component.logical_path, name: component.name },
    }
}
