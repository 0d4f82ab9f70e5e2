//! What can happen to a session: calls of the requester, and what the conductor reports.

use crate::{ComponentReference, Member};
use std::fmt;
use vss_model::{Attributes, BackupState, Context, SetId, VssError, WriterClassId, WriterInstanceId, WriterMetadata};

/// A call of the requester, by name alone. What [`permits`](crate::permits) decides on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// Begins a session for a backup, for queries, or for both.
    InitializeForBackup,
    /// Begins a session for a restore.
    InitializeForRestore,
    /// Chooses what the set is for.
    SetContext,
    /// Says what kind of backup it is.
    SetBackupState,
    /// Lets only these classes of writers take part.
    EnableWriterClasses,
    /// Keeps these classes out.
    DisableWriterClasses,
    /// Keeps these running writers out.
    DisableWriterInstances,
    /// Asks the writers what they own (asynchronous).
    GatherWriterMetadata,
    /// What the writers answered (a query).
    GetWriterMetadata,
    /// Chooses a component.
    AddComponent,
    /// Words of the requester to the writer of a component.
    SetBackupOptions,
    /// The stamp that a component's writer gave to the backup that this one builds on.
    SetPreviousBackupStamp,
    /// What the backup knows of one writer's components.
    GetWriterComponents,
    /// Can this volume be copied (a query).
    IsVolumeSupported,
    /// Begins the set.
    StartSnapshotSet,
    /// Adds a volume to the set.
    AddToSnapshotSet,
    /// Tells the writers to get ready (asynchronous).
    PrepareForBackup,
    /// Makes the set (asynchronous).
    DoSnapshotSet,
    /// Brings the writers' status up to date (asynchronous).
    GatherWriterStatus,
    /// The status of every writer (a query).
    GetWriterStatus,
    /// The finished set (a query).
    GetSnapshotSet,
    /// Says whether a component was backed up.
    SetBackupSucceeded,
    /// Tells the writers that the backup is done (asynchronous).
    BackupComplete,
    /// Tells the writers that the backup will not complete.
    AbortBackup,
    /// Finished copies, or providers (a query).
    Query,
    /// One finished copy (a query).
    GetSnapshotProperties,
    /// Changes a property of a finished copy.
    SetSnapshotProperty,
    /// Deletes finished copies.
    DeleteSnapshots,
    /// Makes finished copies volumes of their own.
    BreakSnapshotSet,
    /// Brings copies in from another machine.
    ImportSnapshots,
    /// Says how the data comes back.
    SetRestoreState,
    /// Chooses a component for restore.
    SetSelectedForRestore,
    /// Tells the writers that a restore begins.
    PreRestore,
    /// Tells the writers that a restore is done.
    PostRestore,
}

/// What a session is for: it is one of them, and stays it (spec R 1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Kind {
    /// A backup, or queries alone.
    #[default]
    Backup,
    /// A restore.
    Restore,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backup => "backup",
            Self::Restore => "restore",
        })
    }
}

impl Call {
    /// Every call, in the order of a backup; then those of objects and of a restore.
    pub const ALL: [Self; 34] = [
        Self::InitializeForBackup,
        Self::InitializeForRestore,
        Self::SetContext,
        Self::SetBackupState,
        Self::EnableWriterClasses,
        Self::DisableWriterClasses,
        Self::DisableWriterInstances,
        Self::GatherWriterMetadata,
        Self::GetWriterMetadata,
        Self::AddComponent,
        Self::SetBackupOptions,
        Self::SetPreviousBackupStamp,
        Self::GetWriterComponents,
        Self::IsVolumeSupported,
        Self::StartSnapshotSet,
        Self::AddToSnapshotSet,
        Self::PrepareForBackup,
        Self::DoSnapshotSet,
        Self::GatherWriterStatus,
        Self::GetWriterStatus,
        Self::GetSnapshotSet,
        Self::SetBackupSucceeded,
        Self::BackupComplete,
        Self::AbortBackup,
        Self::Query,
        Self::GetSnapshotProperties,
        Self::SetSnapshotProperty,
        Self::DeleteSnapshots,
        Self::BreakSnapshotSet,
        Self::ImportSnapshots,
        Self::SetRestoreState,
        Self::SetSelectedForRestore,
        Self::PreRestore,
        Self::PostRestore,
    ];

    /// True for a call that only reads: it is answered also while an operation runs and after the backup's end.
    #[must_use]
    pub const fn is_query(self) -> bool {
        matches!(
            self,
            Self::GetWriterMetadata
                | Self::IsVolumeSupported
                | Self::GetWriterStatus
                | Self::GetSnapshotSet
                | Self::Query
                | Self::GetSnapshotProperties
        )
    }

    /// True for the calls about finished copies, whoever made them: any session may make them, at any time.
    #[must_use]
    pub const fn is_of_objects(self) -> bool {
        matches!(
            self,
            Self::Query
                | Self::GetSnapshotProperties
                | Self::SetSnapshotProperty
                | Self::DeleteSnapshots
                | Self::BreakSnapshotSet
        )
    }

    /// The only kind of session that has this call; none when both have it.
    #[must_use]
    pub const fn only_in(self) -> Option<Kind> {
        match self {
            Self::SetRestoreState | Self::SetSelectedForRestore | Self::PreRestore | Self::PostRestore => {
                Some(Kind::Restore)
            }
            Self::InitializeForBackup
            | Self::InitializeForRestore
            | Self::EnableWriterClasses
            | Self::DisableWriterClasses
            | Self::DisableWriterInstances
            | Self::GatherWriterMetadata
            | Self::GetWriterMetadata
            | Self::GatherWriterStatus
            | Self::GetWriterStatus => None,
            _ if self.is_of_objects() => None,
            _ => Some(Kind::Backup),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The variants are named as the calls are.
        fmt::Debug::fmt(self, f)
    }
}

/// An asynchronous operation; a session runs one at a time (spec R 1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Identify goes to the writers.
    GatherWriterMetadata,
    /// PrepareBackup goes to the writers.
    PrepareForBackup,
    /// The set is made.
    DoSnapshotSet,
    /// The writers' status is gathered.
    GatherWriterStatus,
    /// BackupComplete goes to the writers.
    BackupComplete,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The variants are named as the calls are.
        fmt::Debug::fmt(self, f)
    }
}

/// Why an operation did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It was cancelled (`VSS_S_ASYNC_CANCELLED`).
    Cancelled,
    /// It failed with this error.
    Error(VssError),
}

impl From<VssError> for Failure {
    fn from(error: VssError) -> Self {
        Self::Error(error)
    }
}

/// How an operation ended. A writer's failure is no failure of the operation; it stands in the writer's status, unless the
/// requester asked for a strict set (spec R 1.2 and 11.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finished {
    /// The metadata of every writer that answered; the others are not listed.
    GatherWriterMetadata(Result<Vec<WriterMetadata>, Failure>),
    /// The writers were told.
    PrepareForBackup(Result<(), Failure>),
    /// The set was made, or the operation has undone all that it did.
    DoSnapshotSet(Result<(), Failure>),
    /// The status is there to be read.
    GatherWriterStatus(Result<(), Failure>),
    /// The writers were told.
    BackupComplete(Result<(), Failure>),
}

impl Finished {
    /// The operation that ended.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        match self {
            Self::GatherWriterMetadata(_) => Operation::GatherWriterMetadata,
            Self::PrepareForBackup(_) => Operation::PrepareForBackup,
            Self::DoSnapshotSet(_) => Operation::DoSnapshotSet,
            Self::GatherWriterStatus(_) => Operation::GatherWriterStatus,
            Self::BackupComplete(_) => Operation::BackupComplete,
        }
    }

    /// Why it did not succeed; none when it did.
    #[must_use]
    pub const fn failure(&self) -> Option<&Failure> {
        match self {
            Self::GatherWriterMetadata(Err(failure))
            | Self::PrepareForBackup(Err(failure))
            | Self::DoSnapshotSet(Err(failure))
            | Self::GatherWriterStatus(Err(failure))
            | Self::BackupComplete(Err(failure)) => Some(failure),
            _ => None,
        }
    }
}

/// What changes a session.
///
/// Work outside the session that may fail comes **before** the event: the conductor asks [`permits`](crate::permits), then
/// takes the creation lock (`StartSnapshotSet`) or has the provider take the volume (`AddToSnapshotSet`), then steps. A
/// failure outside therefore leaves the session as it was. When the step refuses after all, the conductor gives back what
/// it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The session begins.
    InitializeForBackup,
    /// A session for a restore begins.
    InitializeForRestore,
    /// What the set is for, and the attribute bits that the requester adds; once a session.
    SetContext(Context, Attributes),
    /// What kind of backup it is; the last one before PrepareForBackup counts.
    SetBackupState(BackupState),
    /// Only these classes; a later call adds more.
    EnableWriterClasses(Vec<WriterClassId>),
    /// Not these classes.
    DisableWriterClasses(Vec<WriterClassId>),
    /// Not these running writers.
    DisableWriterInstances(Vec<WriterInstanceId>),
    /// Starts the operation.
    GatherWriterMetadata,
    /// A component of a writer that answered.
    AddComponent(ComponentReference),
    /// Words to the writer of a component that was added; the last ones count.
    SetBackupOptions {
        /// A component that was added.
        component: ComponentReference,
        /// The words, which only the writer understands.
        options: String,
    },
    /// The stamp of the backup that this one builds on; the last one counts.
    SetPreviousBackupStamp {
        /// A component that was added.
        component: ComponentReference,
        /// What the component's writer said then.
        stamp: String,
    },
    /// The set with this new id; the conductor **holds the creation lock** already.
    StartSnapshotSet(SetId),
    /// A volume that its provider **has taken** already (BeginPrepare).
    AddToSnapshotSet(Member),
    /// Starts the operation.
    PrepareForBackup,
    /// Starts the operation.
    DoSnapshotSet {
        /// True: the failure of an involved writer fails the set (spec R 11.1).
        strict: bool,
    },
    /// Starts the operation.
    GatherWriterStatus,
    /// Whether all files of a chosen component are in the backup.
    SetBackupSucceeded {
        /// A component that was added.
        component: ComponentReference,
        /// True when they are.
        succeeded: bool,
    },
    /// Starts the operation.
    BackupComplete,
    /// The backup will not complete. While an operation runs, it is cancelled first and the abort follows its end.
    AbortBackup,
    /// The requester asks the running operation to stop; of no effect when none runs.
    CancelRequested,
    /// The running operation ended.
    OperationFinished(Finished),
    /// The requester closed its connection, or died: the session ends. While an operation runs, it is cancelled first and
    /// the farewell follows its end.
    RequesterGone,
}

impl Event {
    /// The call that it is; none for what the conductor reports.
    #[must_use]
    pub const fn call(&self) -> Option<Call> {
        Some(match self {
            Self::InitializeForBackup => Call::InitializeForBackup,
            Self::InitializeForRestore => Call::InitializeForRestore,
            Self::SetContext(..) => Call::SetContext,
            Self::DisableWriterInstances(_) => Call::DisableWriterInstances,
            Self::SetBackupOptions { .. } => Call::SetBackupOptions,
            Self::SetPreviousBackupStamp { .. } => Call::SetPreviousBackupStamp,
            Self::SetBackupState(_) => Call::SetBackupState,
            Self::EnableWriterClasses(_) => Call::EnableWriterClasses,
            Self::DisableWriterClasses(_) => Call::DisableWriterClasses,
            Self::GatherWriterMetadata => Call::GatherWriterMetadata,
            Self::AddComponent(_) => Call::AddComponent,
            Self::StartSnapshotSet(_) => Call::StartSnapshotSet,
            Self::AddToSnapshotSet(_) => Call::AddToSnapshotSet,
            Self::PrepareForBackup => Call::PrepareForBackup,
            Self::DoSnapshotSet { .. } => Call::DoSnapshotSet,
            Self::GatherWriterStatus => Call::GatherWriterStatus,
            Self::SetBackupSucceeded { .. } => Call::SetBackupSucceeded,
            Self::BackupComplete => Call::BackupComplete,
            Self::AbortBackup => Call::AbortBackup,
            Self::CancelRequested | Self::OperationFinished(_) | Self::RequesterGone => return None,
        })
    }
}
