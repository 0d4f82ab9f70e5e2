//! Messages of `org.linuxvss.Requester`: what a backup tool asks (spec R 1).
//!
//! One connection carries one session, and the connection is its lease: its end ends the session (design 2.2). Calls whose
//! reply is [`OperationStarted`] go on after the reply; `Wait`, `QueryStatus` and `Cancel` follow them.

use crate::objects::{BreakSnapshotSet, DeleteSnapshots, Query, SetSnapshotProperty, Snapshot};
use crate::progress::CopyProgress;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use vss_model::error::status;
use vss_model::{
    Attributes, BackupState, ComponentData, ComponentKind, ComponentName, Context, CreationOptions, OperationId,
    RestoreType, SessionId, SetId, ShadowCopySet, ShadowId, VssCode, VssError, WriterClassId, WriterInstanceId,
    WriterMetadata, WriterStatus,
};

/// The name of the interface.
pub const INTERFACE: &str = "org.linuxvss.Requester";

/// One call of the interface, as it stands on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", content = "parameters")]
pub enum Call {
    /// Begins a backup session on this connection.
    #[serde(rename = "org.linuxvss.Requester.InitializeForBackup")]
    InitializeForBackup(InitializeForBackup),
    /// Begins a restore session on this connection.
    #[serde(rename = "org.linuxvss.Requester.InitializeForRestore")]
    InitializeForRestore(InitializeForBackup),
    /// Chooses what the set is for.
    #[serde(rename = "org.linuxvss.Requester.SetContext")]
    SetContext(SetContext),
    /// Says what kind of backup it is.
    #[serde(rename = "org.linuxvss.Requester.SetBackupState")]
    SetBackupState(SetBackupState),
    /// Lets only these writers take part.
    #[serde(rename = "org.linuxvss.Requester.EnableWriterClasses")]
    EnableWriterClasses(WriterClasses),
    /// Keeps these writers out.
    #[serde(rename = "org.linuxvss.Requester.DisableWriterClasses")]
    DisableWriterClasses(WriterClasses),
    /// Keeps these running writers out.
    #[serde(rename = "org.linuxvss.Requester.DisableWriterInstances")]
    DisableWriterInstances(WriterInstances),
    /// Asks every writer what it owns (asynchronous).
    #[serde(rename = "org.linuxvss.Requester.GatherWriterMetadata")]
    GatherWriterMetadata,
    /// What the writers answered.
    #[serde(rename = "org.linuxvss.Requester.GetWriterMetadata")]
    GetWriterMetadata,
    /// Chooses a component.
    #[serde(rename = "org.linuxvss.Requester.AddComponent")]
    AddComponent(ComponentReference),
    /// Words to the writer of a component.
    #[serde(rename = "org.linuxvss.Requester.SetBackupOptions")]
    SetBackupOptions(SetBackupOptions),
    /// The stamp of the backup that this one builds on.
    #[serde(rename = "org.linuxvss.Requester.SetPreviousBackupStamp")]
    SetPreviousBackupStamp(SetPreviousBackupStamp),
    /// What the backup knows of one writer's components.
    #[serde(rename = "org.linuxvss.Requester.GetWriterComponents")]
    GetWriterComponents(WriterInstance),
    /// Can this volume be copied, and by whom?
    #[serde(rename = "org.linuxvss.Requester.IsVolumeSupported")]
    IsVolumeSupported(VolumeQuestion),
    /// Begins a set, with wishes of how its copies are made, and takes the machine-wide creation lock.
    #[serde(rename = "org.linuxvss.Requester.StartSnapshotSet")]
    StartSnapshotSet(CreationOptions),
    /// Adds a volume to the set.
    #[serde(rename = "org.linuxvss.Requester.AddToSnapshotSet")]
    AddToSnapshotSet(VolumeQuestion),
    /// Tells the writers to get ready (asynchronous).
    #[serde(rename = "org.linuxvss.Requester.PrepareForBackup")]
    PrepareForBackup,
    /// Makes the set (asynchronous).
    #[serde(rename = "org.linuxvss.Requester.DoSnapshotSet")]
    DoSnapshotSet(DoSnapshotSet),
    /// Brings the writers' status up to date (asynchronous).
    #[serde(rename = "org.linuxvss.Requester.GatherWriterStatus")]
    GatherWriterStatus,
    /// The status of every writer in this session.
    #[serde(rename = "org.linuxvss.Requester.GetWriterStatus")]
    GetWriterStatus,
    /// The finished set of this session.
    #[serde(rename = "org.linuxvss.Requester.GetSnapshotSet")]
    GetSnapshotSet,
    /// Shows a shadow copy at a directory.
    #[serde(rename = "org.linuxvss.Requester.ExposeSnapshot")]
    ExposeSnapshot(ExposeSnapshot),
    /// Takes it away from there.
    #[serde(rename = "org.linuxvss.Requester.UnexposeSnapshot")]
    UnexposeSnapshot(UnexposeSnapshot),
    /// Says whether a component was backed up.
    #[serde(rename = "org.linuxvss.Requester.SetBackupSucceeded")]
    SetBackupSucceeded(SetBackupSucceeded),
    /// Tells the writers that the backup is done (asynchronous).
    #[serde(rename = "org.linuxvss.Requester.BackupComplete")]
    BackupComplete,
    /// Tells the writers that the backup will not complete.
    #[serde(rename = "org.linuxvss.Requester.AbortBackup")]
    AbortBackup,
    /// Finished shadow copies, or providers.
    #[serde(rename = "org.linuxvss.Requester.Query")]
    Query(Query),
    /// Everything about one shadow copy.
    #[serde(rename = "org.linuxvss.Requester.GetSnapshotProperties")]
    GetSnapshotProperties(Snapshot),
    /// Changes a property of a shadow copy.
    #[serde(rename = "org.linuxvss.Requester.SetSnapshotProperty")]
    SetSnapshotProperty(SetSnapshotProperty),
    /// Deletes a shadow copy, or all of a set.
    #[serde(rename = "org.linuxvss.Requester.DeleteSnapshots")]
    DeleteSnapshots(DeleteSnapshots),
    /// Makes the copies of a set volumes of their own.
    #[serde(rename = "org.linuxvss.Requester.BreakSnapshotSet")]
    BreakSnapshotSet(BreakSnapshotSet),
    /// Brings in the copies that the session's document describes.
    #[serde(rename = "org.linuxvss.Requester.ImportSnapshots")]
    ImportSnapshots,
    /// Says how the data comes back.
    #[serde(rename = "org.linuxvss.Requester.SetRestoreState")]
    SetRestoreState(SetRestoreState),
    /// Chooses a component for restore.
    #[serde(rename = "org.linuxvss.Requester.SetSelectedForRestore")]
    SetSelectedForRestore(SetSelectedForRestore),
    /// Tells the writers that a restore begins (asynchronous).
    #[serde(rename = "org.linuxvss.Requester.PreRestore")]
    PreRestore,
    /// Tells the writers that a restore is done (asynchronous).
    #[serde(rename = "org.linuxvss.Requester.PostRestore")]
    PostRestore,
    /// Waits for an operation.
    #[serde(rename = "org.linuxvss.Requester.Wait")]
    Wait(Wait),
    /// Looks at an operation.
    #[serde(rename = "org.linuxvss.Requester.QueryStatus")]
    QueryStatus(OperationReference),
    /// Asks an operation to stop.
    #[serde(rename = "org.linuxvss.Requester.Cancel")]
    Cancel(OperationReference),
}

/// Parameters of `InitializeForBackup` and `InitializeForRestore`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitializeForBackup {
    /// Who asks, for lists and records: at most 256 bytes, for example `vss run: restic backup /srv`.
    pub requester: String,
}

/// Reply to `InitializeForBackup` and `InitializeForRestore`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOpened {
    /// The session's id, for logs.
    pub session_id: SessionId,
}

/// Parameters of `SetContext`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetContext {
    /// What the set is for.
    pub context: Context,
    /// `VSS_VOLSNAP_ATTR_*` bits that the requester adds to it (spec P 3.1).
    #[serde(default)]
    pub attributes: Attributes,
}

/// Parameters of `SetBackupState`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetBackupState {
    /// What kind of backup it is.
    pub state: BackupState,
}

/// Parameters of `EnableWriterClasses` and `DisableWriterClasses`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriterClasses {
    /// The kinds of writers.
    pub class_ids: Vec<WriterClassId>,
}

/// Parameters of `DisableWriterInstances`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriterInstances {
    /// The running writers.
    pub instance_ids: Vec<WriterInstanceId>,
}

/// Reply of the asynchronous calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationStarted {
    /// What `Wait`, `QueryStatus` and `Cancel` name.
    pub operation_id: OperationId,
}

/// Reply to `GetWriterMetadata`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Every writer that answered to Identify.
    pub writers: Vec<WriterMetadata>,
}

/// Parameters of `AddComponent`: names one component.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComponentReference {
    /// The running writer.
    pub instance_id: WriterInstanceId,
    /// Its kind.
    pub class_id: WriterClassId,
    /// Database or file group.
    #[serde(rename = "type")]
    pub kind: ComponentKind,
    /// Elements separated by `\`; empty at the root.
    #[serde(default)]
    pub logical_path: String,
    /// The component's name.
    pub name: String,
}

/// Parameters of `SetBackupOptions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetBackupOptions {
    /// A component that was added.
    pub component: ComponentReference,
    /// Words that only its writer understands, at most 64 KiB.
    pub options: String,
}

/// Parameters of `SetPreviousBackupStamp`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetPreviousBackupStamp {
    /// A component that was added.
    pub component: ComponentReference,
    /// What its writer said in the backup that this one builds on, at most 64 KiB.
    pub stamp: String,
}

/// Parameters of `GetWriterComponents`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriterInstance {
    /// The running writer.
    pub instance_id: WriterInstanceId,
}

/// Reply to `GetWriterComponents`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterComponents {
    /// Its components that were added; in a backup without components, those on the volumes of the set.
    pub components: Vec<BackupComponent>,
}

/// What a backup knows of one component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupComponent {
    /// Database or file group.
    #[serde(rename = "type")]
    pub kind: ComponentKind,
    /// Logical path and name.
    #[serde(flatten)]
    pub name: ComponentName,
    /// The requester's words to its writer; none when there are none.
    pub backup_options: Option<String>,
    /// The stamp of the backup that this one builds on; none when there is none.
    pub previous_backup_stamp: Option<String>,
    /// What its writer said of it.
    #[serde(flatten)]
    pub data: ComponentData,
    /// Why its writer gave it up; none while it did not.
    pub failure: Option<VssError>,
    /// What SetBackupSucceeded said; none until then.
    pub backup_succeeded: Option<bool>,
}

/// Parameters of `IsVolumeSupported` and `AddToSnapshotSet`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeQuestion {
    /// Any path on the volume.
    #[serde(with = "vss_model::path_text")]
    pub volume: PathBuf,
    /// The provider to use, by name; none: the service chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
}

/// Reply to `IsVolumeSupported`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSupport {
    /// True when a provider can copy it.
    pub supported: bool,
    /// The provider that would; none when none can.
    pub provider: Option<String>,
    /// Why not; empty when it can.
    pub reason: String,
}

/// Reply to `StartSnapshotSet`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetStarted {
    /// The set's id.
    pub set_id: SetId,
}

/// Reply to `AddToSnapshotSet`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeAdded {
    /// The id of the shadow copy to be.
    pub shadow_id: ShadowId,
    /// Mount point of the volume that holds the path.
    #[serde(with = "vss_model::path_text")]
    pub volume: PathBuf,
    /// The path inside the volume, relative to its root; empty for the root.
    #[serde(with = "vss_model::path_text")]
    pub inner: PathBuf,
    /// The provider that will make it.
    pub provider: String,
}

/// Parameters of `DoSnapshotSet`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoSnapshotSet {
    /// True: the failure of an involved writer fails the set. False: the requester reads the writers' status and decides
    /// (spec R 11.1).
    #[serde(default)]
    pub strict: bool,
}

/// Reply to `GetWriterStatus`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statuses {
    /// Every writer that was identified in this session.
    pub writers: Vec<WriterStatus>,
}

/// Reply to `GetSnapshotSet`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishedSet {
    /// The record of the set.
    pub set: ShadowCopySet,
}

/// Parameters of `ExposeSnapshot`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExposeSnapshot {
    /// The shadow copy.
    pub shadow_id: ShadowId,
    /// An existing empty directory; none: a directory of the service's own.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "vss_model::path_text::optional")]
    pub path: Option<PathBuf>,
}

/// Reply to `ExposeSnapshot`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposed {
    /// Where it is mounted now.
    #[serde(with = "vss_model::path_text")]
    pub path: PathBuf,
}

/// Parameters of `UnexposeSnapshot`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnexposeSnapshot {
    /// The shadow copy.
    pub shadow_id: ShadowId,
}

/// Parameters of `SetBackupSucceeded`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetBackupSucceeded {
    /// A component that was added.
    pub component: ComponentReference,
    /// True when all its files are in the backup.
    pub succeeded: bool,
}

/// Parameters of `QueryStatus` and `Cancel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationReference {
    /// The operation.
    pub operation_id: OperationId,
}

/// Parameters of `Wait`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// The operation.
    pub operation_id: OperationId,
    /// Milliseconds to wait at most; the reply comes earlier when the operation ends or its progress changes from
    /// `seen_progress`.
    pub timeout_ms: u64,
    /// The last progress number that the caller saw; 0 at first.
    #[serde(default)]
    pub seen_progress: u64,
}

/// Where an operation stands (spec R 1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// `VSS_S_ASYNC_PENDING`.
    Pending,
    /// `VSS_S_ASYNC_FINISHED`.
    Finished,
    /// `VSS_S_ASYNC_CANCELLED`.
    Cancelled,
    /// Ended with `error`.
    Failed,
}

impl OperationState {
    /// The number that `QueryStatus` gives; the failure's own for a failed operation, which needs `error`.
    #[must_use]
    pub fn number(self, error: Option<&VssError>) -> u32 {
        match self {
            Self::Pending => status::VSS_S_ASYNC_PENDING,
            Self::Finished => status::VSS_S_ASYNC_FINISHED,
            Self::Cancelled => status::VSS_S_ASYNC_CANCELLED,
            Self::Failed => error.map_or(VssCode::Unexpected, |error| error.code).hresult(),
        }
    }
}

/// Reply to `Wait` and `QueryStatus`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationStatus {
    /// Where it stands.
    pub state: OperationState,
    /// The same as a number: `VSS_S_ASYNC_*`, or the HRESULT of the failure.
    #[serde(default)]
    pub number: u32,
    /// Why it failed; none unless `state` is `failed`.
    pub error: Option<VssError>,
    /// Grows with each step that the operation begins, and as copying goes on.
    pub progress: u64,
    /// What it is doing, for a person, for example `freezing: postgresql`; empty before the first step.
    pub step: String,
    /// How far the volume is that is being copied now.
    #[serde(default)]
    pub copying: Option<CopyProgress>,
}

/// Reply to `Cancel`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationCancelled {
    /// What the call did: `S_OK`, `VSS_S_ASYNC_CANCELLED` when it had been cancelled before, `VSS_S_ASYNC_FINISHED` when it
    /// had ended before (spec R 1.2).
    pub result: u32,
    /// Where the operation stands.
    #[serde(flatten)]
    pub status: OperationStatus,
}

/// Parameters of `SetRestoreState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetRestoreState {
    /// How the data comes back.
    pub restore_type: RestoreType,
}

/// Parameters of `SetSelectedForRestore`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetSelectedForRestore {
    /// The component.
    pub component: ComponentReference,
    /// True: it is restored.
    pub selected: bool,
}
