//! The trait [`Writer`]: who calls what, when, and what a failure means (spec R 2.2).
//!
//! ```text
//!  identify (any time, any requester)
//!  prepare_backup -> prepare_snapshot -> freeze -> thaw -> post_snapshot -> backup_complete -> backup_shutdown
//!  PrepareForBackup  \_______________ DoSnapshotSet ________________/       BackupComplete     end of the session
//!  abort: at any point from prepare_backup to post_snapshot, also twice; backup_shutdown still follows
//! ```

use crate::Call;
use vss_api::writer::{EventKind, EventReply, Identify, Identity, Register};
use vss_model::VssError;

/// What a writer says to an event: done (perhaps with components that failed alone), or failed as a whole with one of
/// the `VSS_E_WRITERERROR_*` codes (spec R 2.9).
pub type Answer = Result<EventReply, VssError>;

/// The answer "done".
///
/// # Errors
/// Never.
pub fn done() -> Answer {
    Ok(EventReply::default())
}

/// An application that owns data and can hold it still for the moment in which a shadow copy is cut.
///
/// One thread calls it, one event after another; several sessions may be open at once, told apart by
/// `call.event().session_id`. Every event carries a deadline: an answer after it counts as
/// `VSS_E_WRITERERROR_TIMEOUT`. No handler may panic.
///
/// The loop that calls it ([`crate::run`]) keeps two promises, whatever happens to the service: what was frozen is thawed or
/// aborted, and a session that began with PrepareBackup ends with BackupShutdown.
pub trait Writer {
    /// Who the writer is. Called before each registration; the same each time.
    fn registration(&self) -> Register;

    /// What the writer owns, at least one component.
    ///
    /// *Called* for any requester at any time, also in the middle of a backup by another. *May* read its configuration.
    /// *Must not* keep state, nor touch that of a session; the same algorithm answers each time.
    ///
    /// # Errors
    /// The writer is absent from the metadata of that session and takes no part in it.
    fn identify(&mut self, identify: &Identify) -> Result<Identity, VssError>;

    /// A backup begins.
    ///
    /// *Called* by PrepareForBackup. *May* read what kind of backup it is and start slow work, which must be done before
    /// `prepare_snapshot` returns.
    ///
    /// # Errors
    /// FAILED_AT_PREPARE_BACKUP; the session goes on unless its requester ends it.
    fn prepare_backup(&mut self, _call: &Call<'_>) -> Answer {
        done()
    }

    /// The copy is near: the place for heavy work.
    ///
    /// *Called* by DoSnapshotSet, up to 10 minutes before Freeze. *May* write a checkpoint, drain queues, dump; *should*
    /// refuse with INCONSISTENTSNAPSHOT when the volumes of the set do not hold all of a component's files.
    ///
    /// # Errors
    /// FAILED_AT_PREPARE_SNAPSHOT; by itself no reason for Abort.
    fn prepare_snapshot(&mut self, call: &Call<'_>) -> Answer;

    /// Hold still. The last chance to refuse.
    ///
    /// *Called* level by level: FRONT_END, BACK_END, SYSTEM. *Must* be short, and after it nothing of the writer's data
    /// changes until Thaw or Abort. *Must not* write to the volumes of the set, nor log: the volumes and the journal may
    /// be frozen before it has returned to its caller. The deadline is that of Thaw, not of this call.
    ///
    /// # Errors
    /// FAILED_AT_FREEZE; Abort follows. What the handler held already, it lets go before it returns the error, or at the
    /// latest in `abort`.
    fn freeze(&mut self, call: &Call<'_>) -> Answer;

    /// The copy is cut: go on.
    ///
    /// *Called* in the reverse order of Freeze. *Must not* delete temporary files that belong in the copy: that waits for
    /// `post_snapshot`.
    ///
    /// # Errors
    /// FAILED_AT_THAW; Abort follows.
    fn thaw(&mut self, call: &Call<'_>) -> Answer;

    /// The copy exists and is writable for a moment.
    ///
    /// *Called* within DoSnapshotSet. *May* mend its files in the copy ([`Call::in_copy`]: roll back transactions, delete
    /// what does not belong there) and clean up after itself. *Must* name files in the copy relative to its directory
    /// ([`Call::directory`]) and never follow links out of it, as [`crate::CopyPath`] does.
    ///
    /// # Errors
    /// FAILED_AT_POST_SNAPSHOT; no Abort.
    fn post_snapshot(&mut self, _call: &Call<'_>) -> Answer {
        done()
    }

    /// The copy will not come to be: go back to normal.
    ///
    /// *Called* when a writer's Freeze or Thaw failed, when something failed after PrepareSnapshot, when the requester gives
    /// up, and by [`crate::run`] itself: when Thaw does not come in time and when the connection is lost. *May* come twice, and
    /// without any Freeze before. Must end every hold, whatever else fails.
    ///
    /// # Errors
    /// Told in the writer's status; nothing else can be done.
    fn abort(&mut self, call: &Call<'_>) -> Answer;

    /// The files are in the backup.
    ///
    /// *Called* by BackupComplete, perhaps days later. *May* truncate logs, but only for the backup types that allow it,
    /// and of components whose `backup_succeeded` is true (spec R 2.10).
    ///
    /// # Errors
    /// FAILED_AT_BACKUP_COMPLETE; the copy stays.
    fn backup_complete(&mut self, _call: &Call<'_>) -> Answer {
        done()
    }

    /// The session is over.
    ///
    /// *Called* once a session, at its end or the requester's, also when BackupComplete never came. *Must* free what the
    /// session took. *Must not* truncate logs.
    ///
    /// # Errors
    /// FAILED_AT_BACKUPSHUTDOWN; nobody is left to read it.
    fn backup_shutdown(&mut self, _call: &Call<'_>) -> Answer {
        done()
    }
}

/// What the loop serves: every [`Writer`], and whatever takes all events in one place, such as what passes them on. The
/// contract is that of [`Writer`].
pub trait AnyWriter {
    /// See [`Writer::registration`].
    fn registration(&self) -> Register;

    /// See [`Writer::identify`].
    ///
    /// # Errors
    /// See there.
    fn identify(&mut self, identify: &Identify) -> Result<Identity, VssError>;

    /// Any event but Identify, which has parameters of its own and does nothing here: the handler of its name.
    ///
    /// # Errors
    /// Those of the handler.
    fn event(&mut self, call: &Call<'_>) -> Answer;
}

impl<W: Writer> AnyWriter for W {
    fn registration(&self) -> Register {
        Writer::registration(self)
    }

    fn identify(&mut self, identify: &Identify) -> Result<Identity, VssError> {
        Writer::identify(self, identify)
    }

    fn event(&mut self, call: &Call<'_>) -> Answer {
        match call.kind() {
            EventKind::Identify => done(),
            EventKind::PrepareBackup => self.prepare_backup(call),
            EventKind::PrepareSnapshot => self.prepare_snapshot(call),
            EventKind::Freeze => self.freeze(call),
            EventKind::Thaw => self.thaw(call),
            EventKind::PostSnapshot => self.post_snapshot(call),
            EventKind::Abort => self.abort(call),
            EventKind::BackupComplete => self.backup_complete(call),
            EventKind::BackupShutdown => self.backup_shutdown(call),
        }
    }
}
