//! Which call is allowed in which state, and what a refusal says (spec R 1.3, 1.4 and 1.8).

use crate::{Backup, Call, Draft, Event, Phase, State};
use std::fmt;
use vss_model::{VssCode, VssError};

/// Is this call allowed now, whatever its arguments are? To be asked before any work is done for it.
///
/// # Errors
/// `VSS_E_BAD_STATE`: the message says which call came when, the hint names what is missing.
pub fn permits(state: &State, call: Call) -> Result<(), VssError> {
    match state {
        State::Created if call == Call::InitializeForBackup => Ok(()),
        State::Created => refuse(call, "before InitializeForBackup", "Call InitializeForBackup first"),
        State::Released => refuse(call, "after the end of the session", NEW_SESSION),
        State::Backup(backup) => permits_in_backup(backup, call),
    }
}

/// Will [`step`](crate::step) accept this event? Looks at its arguments too.
///
/// # Errors
/// Those of `step`.
pub fn check(state: &State, event: &Event) -> Result<(), VssError> {
    if let Some(call) = event.call() {
        permits(state, call)?;
    }
    match (state, event) {
        (_, Event::OperationFinished(finished)) => {
            let operation = finished.operation();
            if state.running().is_some_and(|running| running.operation == operation) {
                return Ok(());
            }
            Err(VssError::new(
                VssCode::Unexpected,
                format!("The end of {operation} was reported, and it is not running"),
            ))
        }
        (State::Backup(backup), Event::EnableWriterClasses(classes) | Event::DisableWriterClasses(classes)) => {
            backup.draft().check_classes(classes)
        }
        (State::Backup(backup), Event::AddComponent(component)) => backup.draft().check_component(component),
        (State::Backup(backup), Event::AddToSnapshotSet(member)) => backup.draft().check_member(member),
        (State::Backup(backup), Event::SetBackupSucceeded { component, .. }) => backup.draft().check_chosen(component),
        _ => Ok(()),
    }
}

const NEW_SESSION: &str = "One session is one backup: open a new session";

fn refuse(call: Call, when: impl fmt::Display, hint: &str) -> Result<(), VssError> {
    Err(VssError::new(VssCode::BadState, format!("{call} was called {when}")).with_hint(hint))
}

fn permits_in_backup(backup: &Backup, call: Call) -> Result<(), VssError> {
    if let Some(running) = backup.running()
        && !call.is_query()
        && call != Call::AbortBackup
    {
        let when = format_args!("while {} is running", running.operation);
        return refuse(call, when, "Wait until it has finished, or cancel it");
    }
    let draft = backup.draft();
    match call {
        Call::AbortBackup | Call::IsVolumeSupported => Ok(()),
        Call::InitializeForBackup => refuse(call, "a second time", NEW_SESSION),
        Call::SetContext => drafting(backup, call).and_then(|()| context_is_open(draft)),
        Call::SetBackupState => drafting(backup, call),
        Call::EnableWriterClasses | Call::DisableWriterClasses if backup.is_over() => {
            refuse(call, backup.phase(), NEW_SESSION)
        }
        Call::EnableWriterClasses | Call::DisableWriterClasses => Ok(()),
        Call::GatherWriterMetadata => {
            drafting(backup, call)?;
            if draft.writers().is_some() { refuse(call, "a second time", NEW_SESSION) } else { Ok(()) }
        }
        Call::GetWriterMetadata => gathered(draft, call),
        Call::AddComponent => {
            has_writers(draft, call)?;
            drafting(backup, call)?;
            gathered(draft, call)
        }
        Call::StartSnapshotSet => {
            drafting(backup, call)?;
            if draft.set().is_some() {
                refuse(call, "a second time", "Add volumes to the set with AddToSnapshotSet")
            } else {
                Ok(())
            }
        }
        Call::AddToSnapshotSet => {
            drafting(backup, call)?;
            set_started(backup, call)
        }
        Call::PrepareForBackup => {
            has_writers(draft, call)?;
            drafting(backup, call)?;
            if draft.backup_state().is_none() {
                return refuse(call, "before SetBackupState", "Call SetBackupState first");
            }
            gathered(draft, call)
        }
        Call::DoSnapshotSet => can_do_snapshot_set(backup),
        Call::GatherWriterStatus if draft.writers_told() => Ok(()),
        Call::GatherWriterStatus => {
            refuse(call, "before PrepareForBackup", "Writers have a status only after PrepareForBackup")
        }
        Call::GetWriterStatus if draft.status_gathered => Ok(()),
        Call::GetWriterStatus => refuse(
            call,
            "before GatherWriterStatus had finished",
            "Call GatherWriterStatus and wait until it has finished",
        ),
        Call::GetSnapshotSet if draft.made_set().is_some() => Ok(()),
        Call::GetSnapshotSet => {
            refuse(call, "without a finished shadow copy set", "Call DoSnapshotSet and wait until it has succeeded")
        }
        Call::SetBackupSucceeded | Call::BackupComplete => can_complete(backup, call),
    }
}

fn drafting(backup: &Backup, call: Call) -> Result<(), VssError> {
    match backup.phase() {
        Phase::Drafting => Ok(()),
        Phase::SnapshotFailed => refuse(call, backup.phase(), "Call AbortBackup and open a new session"),
        phase => refuse(call, phase, NEW_SESSION),
    }
}

fn context_is_open(draft: &Draft) -> Result<(), VssError> {
    let call = Call::SetContext;
    let early = "Call it right after InitializeForBackup";
    if draft.context.is_some() {
        refuse(call, "a second time", NEW_SESSION)
    } else if draft.set().is_some() {
        refuse(call, "after StartSnapshotSet", early)
    } else if draft.writers_told() {
        refuse(call, "after PrepareForBackup", early)
    } else if draft.components().len() > 0 {
        refuse(call, "after AddComponent", early)
    } else {
        Ok(())
    }
}

fn has_writers(draft: &Draft, call: Call) -> Result<(), VssError> {
    if draft.context().has_writers() {
        return Ok(());
    }
    refuse(call, "in a context without writers", "Leave the call out, or set a context with writers")
}

fn gathered(draft: &Draft, call: Call) -> Result<(), VssError> {
    if draft.writers().is_some() {
        return Ok(());
    }
    refuse(call, "before GatherWriterMetadata had finished", "Call GatherWriterMetadata and wait until it has finished")
}

fn set_started(backup: &Backup, call: Call) -> Result<(), VssError> {
    match (backup.draft().set(), backup.phase()) {
        (Some(_), _) => Ok(()),
        (None, Phase::Drafting) => refuse(call, "before StartSnapshotSet", "Call StartSnapshotSet first"),
        (None, _) => refuse(
            call,
            "without StartSnapshotSet",
            "StartSnapshotSet belongs before PrepareForBackup: open a new session",
        ),
    }
}

fn can_do_snapshot_set(backup: &Backup) -> Result<(), VssError> {
    let call = Call::DoSnapshotSet;
    match backup.phase() {
        Phase::Prepared => set_started(backup, call),
        Phase::Drafting => {
            set_started(backup, call)?;
            if !backup.draft().context().has_writers() {
                return Ok(());
            }
            gathered(backup.draft(), call)?;
            refuse(call, "before PrepareForBackup had finished", "Call PrepareForBackup and wait until it has finished")
        }
        Phase::SnapshotFailed => refuse(call, backup.phase(), "Call AbortBackup and open a new session"),
        Phase::SnapshotDone | Phase::Completed | Phase::Aborted => refuse(call, backup.phase(), NEW_SESSION),
    }
}

/// SetBackupSucceeded and BackupComplete: after the set, or after PrepareForBackup when no set was begun.
fn can_complete(backup: &Backup, call: Call) -> Result<(), VssError> {
    has_writers(backup.draft(), call)?;
    match backup.phase() {
        Phase::SnapshotDone => Ok(()),
        Phase::Prepared if backup.draft().set().is_none() => Ok(()),
        Phase::Prepared => refuse(
            call,
            "before DoSnapshotSet had finished",
            "Call DoSnapshotSet and wait until it has finished, or AbortBackup",
        ),
        Phase::Drafting => {
            refuse(call, "before PrepareForBackup had finished", "Call PrepareForBackup and wait until it has finished")
        }
        Phase::SnapshotFailed => refuse(call, backup.phase(), "Call AbortBackup: the backup cannot complete"),
        Phase::Completed | Phase::Aborted => refuse(call, backup.phase(), NEW_SESSION),
    }
}

impl fmt::Display for Phase {
    /// When a call came: it ends the sentence `X was called ...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drafting => "before PrepareForBackup",
            Self::Prepared => "after PrepareForBackup",
            Self::SnapshotDone => "after DoSnapshotSet",
            Self::SnapshotFailed => "after DoSnapshotSet had failed",
            Self::Completed => "after BackupComplete",
            Self::Aborted => "after AbortBackup",
        })
    }
}
