//! What the conductor must do after a step. Data, not closures; carried out in the order of the list.

use crate::{Operation, WriterFilter};
use vss_model::SetId;

/// One thing to do. What it needs beyond its own fields stands in the session's [`Draft`](crate::Draft).
///
/// The effects that start an operation are answered by one
/// [`OperationFinished`](crate::Event::OperationFinished), in success and in failure. The others are answered by nothing:
/// they must be made to work, and each is idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Start GatherWriterMetadata: Identify to every writer that the filter lets through.
    IdentifyWriters(WriterFilter),
    /// Start PrepareForBackup: PrepareBackup to the involved writers.
    PrepareWriters,
    /// Start DoSnapshotSet: make the set. On failure the operation undoes its own steps, and sends the Aborts of spec R
    /// 2.5 (2) and (3) itself.
    CreateSet {
        /// The set.
        set_id: SetId,
        /// True: the failure of an involved writer fails the set.
        strict: bool,
    },
    /// Start GatherWriterStatus.
    GatherStatus,
    /// Start BackupComplete: BackupComplete to the involved writers.
    CompleteBackup,
    /// Ask the running operation to stop. It still reports its end.
    CancelOperation(Operation),
    /// Abort to every writer that was told PrepareBackup. Writers may get it more than once (spec R 1.6).
    AbortWriters,
    /// The set will not be made: its providers forget what AddToSnapshotSet gave them.
    ForgetSet(SetId),
    /// Give back the creation lock that the conductor took for StartSnapshotSet. Exactly once for each.
    ReleaseCreationLock,
    /// BackupShutdown to every writer that was told PrepareBackup. At most once a session.
    ShutdownWriters {
        /// The finished set; none when no set was made.
        set_id: Option<SetId>,
    },
    /// Delete the copies of the finished set: they live as long as the session (auto-release).
    DeleteAutoRelease(SetId),
}
