//! Typed calls of `org.linuxvss.Requester` on one connection: one session, one backup (spec R 1.1).

use crate::{Instance, Monitor, failure, launch};
use serde::de::DeserializeOwned;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use vss_api::Empty;
use vss_api::client::Client;
use vss_api::requester::{
    Call, ComponentReference, DoSnapshotSet, ExposeSnapshot, Exposed, FinishedSet, InitializeForBackup, Metadata,
    OperationCancelled, OperationReference, OperationStarted, OperationState, OperationStatus, SessionOpened,
    SetBackupState, SetBackupSucceeded, SetContext, SetStarted, Statuses, UnexposeSnapshot, VolumeAdded,
    VolumeQuestion, VolumeSupport, Wait, WriterClasses, WriterInstances,
};
use vss_model::{
    Attributes, BackupState, Context, CreationOptions, OperationId, SessionId, SetId, ShadowCopySet, ShadowId, VssCode,
    VssError, WriterClassId, WriterInstanceId, WriterMetadata, WriterStatus,
};

/// Longest time that one `Wait` is left unanswered, so that a wish to stop is seen soon.
const WAIT_MS: u64 = 200;
/// Bytes of the requester's name that the interface takes.
const NAME_LIMIT: usize = 256;

/// One session with the service. The connection is its lease: dropping it ends the session, undoes a set that is being
/// made and deletes auto-release shadow copies (design 2.2).
///
/// Every call may fail with what the service answers, out of sequence with `VSS_E_BAD_STATE`, and with
/// `VSS_E_UNEXPECTED` when the connection is lost. Calls that take a [`Monitor`] are asynchronous in the interface; here
/// they return when the operation has ended.
#[derive(Debug)]
pub struct Requester {
    client: Client,
    instance: Instance,
}

impl Requester {
    /// Connects, starting the service when needed and allowed.
    ///
    /// # Errors
    /// Those of [`launch::connect`].
    pub fn connect(instance: &Instance) -> Result<Self, VssError> {
        Ok(Self { client: launch::connect(instance)?, instance: instance.clone() })
    }

    /// The instance that it is connected to.
    #[must_use]
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Begins a backup session. `requester` is for lists and records; control characters become spaces, and what is beyond
    /// 256 bytes is cut.
    ///
    /// # Errors
    /// See the type; `VSS_E_BAD_STATE` for the second one on a connection.
    pub fn initialize_for_backup(&mut self, requester: &str) -> Result<SessionId, VssError> {
        let requester = cut(requester).replace(char::is_control, " ");
        let reply: SessionOpened = self.call(&Call::InitializeForBackup(InitializeForBackup { requester }))?;
        Ok(reply.session_id)
    }

    /// Chooses what the set is for.
    ///
    /// # Errors
    /// See the type.
    pub fn set_context(&mut self, context: Context) -> Result<(), VssError> {
        self.set_context_and_attributes(context, Attributes::empty())
    }

    /// Chooses what the set is for, with `VSS_VOLSNAP_ATTR_*` bits added to it.
    ///
    /// # Errors
    /// `E_INVALIDARG` and `VSS_E_UNSUPPORTED_CONTEXT` for bits that do not go with it (spec P 3.1).
    pub fn set_context_and_attributes(&mut self, context: Context, attributes: Attributes) -> Result<(), VssError> {
        self.order(&Call::SetContext(SetContext { context, attributes }))
    }

    /// Says what kind of backup it is.
    ///
    /// # Errors
    /// See the type.
    pub fn set_backup_state(&mut self, state: BackupState) -> Result<(), VssError> {
        self.order(&Call::SetBackupState(SetBackupState { state }))
    }

    /// Lets only these writers take part; before [`Self::gather_writer_metadata`].
    ///
    /// # Errors
    /// See the type.
    pub fn enable_writer_classes(&mut self, class_ids: Vec<WriterClassId>) -> Result<(), VssError> {
        self.order(&Call::EnableWriterClasses(WriterClasses { class_ids }))
    }

    /// Keeps these writers out; before [`Self::gather_writer_metadata`].
    ///
    /// # Errors
    /// See the type.
    pub fn disable_writer_classes(&mut self, class_ids: Vec<WriterClassId>) -> Result<(), VssError> {
        self.order(&Call::DisableWriterClasses(WriterClasses { class_ids }))
    }

    /// Keeps these running writers out; before [`Self::gather_writer_metadata`].
    ///
    /// # Errors
    /// See the type.
    pub fn disable_writer_instances(&mut self, instance_ids: Vec<WriterInstanceId>) -> Result<(), VssError> {
        self.order(&Call::DisableWriterInstances(WriterInstances { instance_ids }))
    }

    /// Asks every writer what it owns.
    ///
    /// # Errors
    /// See the type.
    pub fn gather_writer_metadata(&mut self, monitor: &mut dyn Monitor) -> Result<(), VssError> {
        self.operate(&Call::GatherWriterMetadata, monitor)
    }

    /// What the writers answered.
    ///
    /// # Errors
    /// See the type.
    pub fn writer_metadata(&mut self) -> Result<Vec<WriterMetadata>, VssError> {
        let reply: Metadata = self.call(&Call::GetWriterMetadata)?;
        Ok(reply.writers)
    }

    /// Chooses a component.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_ALREADY_EXISTS`, `VSS_E_OBJECT_NOT_FOUND`, `E_INVALIDARG` (spec R 1.8).
    pub fn add_component(&mut self, component: ComponentReference) -> Result<(), VssError> {
        self.order(&Call::AddComponent(component))
    }

    /// Can this volume be copied, and by whom?
    ///
    /// # Errors
    /// `VSS_E_PROVIDER_NOT_REGISTERED`, `VSS_E_OBJECT_NOT_FOUND`.
    pub fn is_volume_supported(&mut self, volume: VolumeQuestion) -> Result<VolumeSupport, VssError> {
        self.call(&Call::IsVolumeSupported(volume))
    }

    /// Begins a set whose copies are made with these wishes, and takes the machine-wide creation lock.
    ///
    /// # Errors
    /// `VSS_E_SNAPSHOT_SET_IN_PROGRESS`, at once, while another set is being created; `E_INVALIDARG` for a wish out of its
    /// range; `VSS_E_OBJECT_NOT_FOUND` for a storage that does not exist; `E_ACCESSDENIED` for one that root has not named.
    pub fn start_snapshot_set(&mut self, options: &CreationOptions) -> Result<SetId, VssError> {
        let reply: SetStarted = self.call(&Call::StartSnapshotSet(options.clone()))?;
        Ok(reply.set_id)
    }

    /// Adds a volume to the set.
    ///
    /// # Errors
    /// `VSS_E_VOLUME_NOT_SUPPORTED`, `VSS_E_MAXIMUM_NUMBER_OF_VOLUMES_REACHED`, `VSS_E_NESTED_VOLUME_LIMIT`...
    pub fn add_to_snapshot_set(&mut self, volume: VolumeQuestion) -> Result<VolumeAdded, VssError> {
        self.call(&Call::AddToSnapshotSet(volume))
    }

    /// Tells the writers to get ready.
    ///
    /// # Errors
    /// See the type.
    pub fn prepare_for_backup(&mut self, monitor: &mut dyn Monitor) -> Result<(), VssError> {
        self.operate(&Call::PrepareForBackup, monitor)
    }

    /// Makes the set. `strict`: the failure of an involved writer fails the set.
    ///
    /// # Errors
    /// Those of spec R 10 for DoSnapshotSet.
    pub fn do_snapshot_set(&mut self, strict: bool, monitor: &mut dyn Monitor) -> Result<(), VssError> {
        self.operate(&Call::DoSnapshotSet(DoSnapshotSet { strict }), monitor)
    }

    /// Brings the writers' status up to date.
    ///
    /// # Errors
    /// See the type.
    pub fn gather_writer_status(&mut self, monitor: &mut dyn Monitor) -> Result<(), VssError> {
        self.operate(&Call::GatherWriterStatus, monitor)
    }

    /// The status of every writer in this session.
    ///
    /// # Errors
    /// See the type.
    pub fn writer_status(&mut self) -> Result<Vec<WriterStatus>, VssError> {
        let reply: Statuses = self.call(&Call::GetWriterStatus)?;
        Ok(reply.writers)
    }

    /// The finished set of this session.
    ///
    /// # Errors
    /// See the type.
    pub fn snapshot_set(&mut self) -> Result<ShadowCopySet, VssError> {
        let reply: FinishedSet = self.call(&Call::GetSnapshotSet)?;
        Ok(reply.set)
    }

    /// Shows a shadow copy at `path`, an existing empty directory, or at a directory of the service's own; returns where.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND`, `E_INVALIDARG`, `E_ACCESSDENIED`.
    pub fn expose_snapshot(&mut self, shadow_id: ShadowId, path: Option<PathBuf>) -> Result<PathBuf, VssError> {
        let reply: Exposed = self.call(&Call::ExposeSnapshot(ExposeSnapshot { shadow_id, path }))?;
        Ok(reply.path)
    }

    /// Takes a shadow copy away from where it is shown.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND`; `VSS_E_VOLUME_IN_USE` while somebody uses it.
    pub fn unexpose_snapshot(&mut self, shadow_id: ShadowId) -> Result<(), VssError> {
        self.order(&Call::UnexposeSnapshot(UnexposeSnapshot { shadow_id }))
    }

    /// Says whether a component was backed up.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND`.
    pub fn set_backup_succeeded(&mut self, component: ComponentReference, succeeded: bool) -> Result<(), VssError> {
        self.order(&Call::SetBackupSucceeded(SetBackupSucceeded { component, succeeded }))
    }

    /// Tells the writers that the backup is done.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED_WRITER_ERROR`.
    pub fn backup_complete(&mut self, monitor: &mut dyn Monitor) -> Result<(), VssError> {
        self.operate(&Call::BackupComplete, monitor)
    }

    /// Tells the writers that the backup will not complete; does nothing when nothing is in progress (spec R 1.6).
    ///
    /// # Errors
    /// See the type.
    pub fn abort_backup(&mut self) -> Result<(), VssError> {
        self.order(&Call::AbortBackup)
    }

    pub(crate) fn call<Reply: DeserializeOwned>(&mut self, call: &Call) -> Result<Reply, VssError> {
        self.client.call_requester(call).map_err(failure::of_call)
    }

    pub(crate) fn order(&mut self, call: &Call) -> Result<(), VssError> {
        self.call::<Empty>(call).map(drop)
    }

    /// Starts an operation and follows it to its end.
    pub(crate) fn operate(&mut self, call: &Call, monitor: &mut dyn Monitor) -> Result<(), VssError> {
        let started: OperationStarted = self.call(call)?;
        let operation_id = started.operation_id;
        let mut seen_progress = 0;
        let mut last_step = String::new();
        let mut cancelled = false;
        loop {
            let wait = Wait { operation_id, timeout_ms: WAIT_MS, seen_progress };
            let status: OperationStatus = self.call(&Call::Wait(wait))?;
            let is_news = status.progress != seen_progress;
            seen_progress = status.progress;
            match &status.copying {
                Some(copying) if is_news => monitor.copying(copying),
                None if status.step != last_step => {
                    monitor.step(&status.step);
                    last_step.clone_from(&status.step);
                }
                _ => {}
            }
            if let Some(end) = end_of(&status) {
                return end;
            }
            match monitor.interruptions() {
                0 => {}
                1 if cancelled => {}
                1 => {
                    cancelled = true;
                    self.cancel(operation_id)?;
                }
                _ => return Err(interrupted()),
            }
        }
    }

    fn cancel(&mut self, operation_id: OperationId) -> Result<(), VssError> {
        // Its end is read by the next Wait: cancelled, or finished when the wish came too late.
        self.call::<OperationCancelled>(&Call::Cancel(OperationReference { operation_id })).map(drop)
    }
}

/// The longest beginning of `name` that the interface takes.
fn cut(name: &str) -> &str {
    let end = (0..=NAME_LIMIT.min(name.len())).rev().find(|&end| name.is_char_boundary(end));
    &name[..end.unwrap_or(0)]
}

/// How the operation ended; none while it runs.
fn end_of(status: &OperationStatus) -> Option<Result<(), VssError>> {
    match status.state {
        OperationState::Pending => None,
        OperationState::Finished => Some(Ok(())),
        OperationState::Cancelled => Some(Err(status.error.clone().unwrap_or_else(interrupted))),
        OperationState::Failed => Some(Err(status.error.clone().unwrap_or_else(|| {
            failure::unexpected_answer(format!("The operation failed in step \"{}\" without a reason", status.step))
        }))),
    }
}

/// The error of work that was stopped because the caller's monitor wished so.
#[must_use]
pub fn interrupted() -> VssError {
    VssError::new(VssCode::Aborted, "Interrupted")
}

impl AsFd for Requester {
    /// Readable only when the service has ended the connection, while no call is under way.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.client.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_between_characters() {
        assert_eq!(cut("vss run"), "vss run");
        let long = format!("{}\u{e4}\u{e4}", "x".repeat(NAME_LIMIT - 1));
        assert_eq!(cut(&long).len(), NAME_LIMIT - 1);
        assert_eq!(cut(&"x".repeat(1000)).len(), NAME_LIMIT);
    }

    #[test]
    fn an_operation_without_a_reason_still_says_where_it_ended() {
        let status = |state| OperationStatus {
            state,
            number: 0,
            error: None,
            progress: 3,
            step: "Freeze: redis".to_owned(),
            copying: None,
        };
        assert_eq!(end_of(&status(OperationState::Pending)), None);
        assert_eq!(end_of(&status(OperationState::Finished)), Some(Ok(())));
        assert_eq!(end_of(&status(OperationState::Cancelled)), Some(Err(interrupted())));
        let failed = end_of(&status(OperationState::Failed)).unwrap().unwrap_err();
        assert!(failed.code == VssCode::Unexpected && failed.message.contains("Freeze: redis"));
    }
}
