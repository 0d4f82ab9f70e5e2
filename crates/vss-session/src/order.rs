//! Which call is allowed in which state, and what a refusal says (spec R 1.3, 1.4 and 1.8).

use crate::{Call, Draft, Event, Kind, Phase, Session, State};
use std::fmt;
use vss_model::{Context, VssCode, VssError};

/// Is this call allowed now, whatever its arguments are? To be asked before any work is done for it.
///
/// # Errors
/// `VSS_E_BAD_STATE`: the message says which call came when, the hint names what is missing.
pub fn permits(state: &State, call: Call) -> Result<(), VssError> {
    match state {
        State::Created if matches!(call, Call::InitializeForBackup | Call::InitializeForRestore) => Ok(()),
        State::Created => {
            refuse(call, "before InitializeForBackup", "Call InitializeForBackup (or InitializeForRestore) first")
        }
        State::Released => refuse(call, "after the end of the session", NEW_SESSION),
        State::Open(session) => permits_in_session(session, call),
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
        (State::Open(_), Event::SetContext(context, attributes)) => context.check_attributes(*attributes),
        (State::Open(session), Event::EnableWriterClasses(classes) | Event::DisableWriterClasses(classes)) => {
            session.draft().check_filter(classes.len())
        }
        (State::Open(session), Event::DisableWriterInstances(instances)) => {
            session.draft().check_filter(instances.len())
        }
        (State::Open(session), Event::SetBackupOptions { component, options }) => {
            session.draft().check_words(component, options, |chosen| &chosen.backup_options)
        }
        (State::Open(session), Event::SetPreviousBackupStamp { component, stamp }) => {
            session.draft().check_words(component, stamp, |chosen| &chosen.previous_backup_stamp)
        }
        (State::Open(session), Event::AddComponent(component)) => session.draft().check_component(component),
        (State::Open(session), Event::AddToSnapshotSet(member)) => session.draft().check_member(member),
        (State::Open(session), Event::SetBackupSucceeded { component, .. }) => session.draft().check_chosen(component),
        _ => Ok(()),
    }
}

const NEW_SESSION: &str = "One session is one session: open a new session";

fn refuse(call: Call, when: impl fmt::Display, hint: &str) -> Result<(), VssError> {
    Err(VssError::new(VssCode::BadState, format!("{call} was called {when}")).with_hint(hint))
}

fn permits_in_session(session: &Session, call: Call) -> Result<(), VssError> {
    if let Some(kind) = call.only_in()
        && kind != session.kind()
    {
        return refuse(call, format_args!("in a {} session", session.kind()), &format!("Open a {kind} session for it"));
    }
    if let Some(running) = session.running()
        && !call.is_query()
        && call != Call::AbortBackup
    {
        let when = format_args!("while {} is running", running.operation);
        return refuse(call, when, "Wait until it has finished, or cancel it");
    }
    let draft = session.draft();
    match call {
        Call::AbortBackup | Call::IsVolumeSupported => Ok(()),
        Call::InitializeForBackup | Call::InitializeForRestore => refuse(call, "a second time", NEW_SESSION),
        Call::Query
        | Call::GetSnapshotProperties
        | Call::SetSnapshotProperty
        | Call::DeleteSnapshots
        | Call::BreakSnapshotSet => Ok(()),
        // A document brings the description of what is to be imported.
        Call::ImportSnapshots => refuse(
            call,
            "in a session that was begun without a document",
            "Begin it with the Backup Components Document of the set",
        ),
        Call::SetRestoreState | Call::SetSelectedForRestore | Call::PreRestore | Call::PostRestore => {
            Err(VssError::new(VssCode::NotImplemented, format!("{call} is not there yet"))
                .with_hint("Copy the files back with `vss restore --files-only`"))
        }
        Call::SetContext => drafting(session, call).and_then(|()| context_is_open(draft)),
        Call::SetBackupState => drafting(session, call),
        Call::EnableWriterClasses | Call::DisableWriterClasses | Call::DisableWriterInstances => {
            if session.is_over() {
                refuse(call, session.phase(), NEW_SESSION)
            } else {
                Ok(())
            }
        }
        Call::GatherWriterMetadata => {
            drafting(session, call)?;
            if draft.writers().is_some() { refuse(call, "a second time", NEW_SESSION) } else { Ok(()) }
        }
        Call::GetWriterMetadata => gathered(draft, call),
        Call::AddComponent | Call::SetBackupOptions | Call::SetPreviousBackupStamp => {
            has_writers(draft, call)?;
            drafting(session, call)?;
            gathered(draft, call)
        }
        Call::GetWriterComponents => {
            has_writers(draft, call)?;
            gathered(draft, call)
        }
        Call::StartSnapshotSet => {
            drafting(session, call)?;
            if draft.context() == Context::All {
                return Err(VssError::new(VssCode::UnsupportedContext, "VSS_CTX_ALL makes no shadow copy set")
                    .with_hint("Open a session with the context of the copies to be"));
            }
            if draft.set().is_some() {
                refuse(call, "a second time", "Add volumes to the set with AddToSnapshotSet")
            } else {
                Ok(())
            }
        }
        Call::AddToSnapshotSet => {
            drafting(session, call)?;
            set_started(session, call)
        }
        Call::PrepareForBackup => {
            has_writers(draft, call)?;
            drafting(session, call)?;
            if draft.backup_state().is_none() {
                return refuse(call, "before SetBackupState", "Call SetBackupState first");
            }
            gathered(draft, call)
        }
        Call::DoSnapshotSet => can_do_snapshot_set(session),
        Call::GatherWriterStatus if draft.writers_told() => Ok(()),
        Call::GatherWriterStatus if session.kind() == Kind::Restore => gathered(draft, call),
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
        Call::SetBackupSucceeded | Call::BackupComplete => can_complete(session, call),
    }
}

fn drafting(session: &Session, call: Call) -> Result<(), VssError> {
    match session.phase() {
        Phase::Drafting => Ok(()),
        Phase::SnapshotFailed => refuse(call, session.phase(), "Call AbortBackup and open a new session"),
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

fn set_started(session: &Session, call: Call) -> Result<(), VssError> {
    match (session.draft().set(), session.phase()) {
        (Some(_), _) => Ok(()),
        (None, Phase::Drafting) => refuse(call, "before StartSnapshotSet", "Call StartSnapshotSet first"),
        (None, _) => refuse(
            call,
            "without StartSnapshotSet",
            "StartSnapshotSet belongs before PrepareForBackup: open a new session",
        ),
    }
}

fn can_do_snapshot_set(session: &Session) -> Result<(), VssError> {
    let call = Call::DoSnapshotSet;
    match session.phase() {
        Phase::Prepared => set_started(session, call),
        Phase::Drafting => {
            set_started(session, call)?;
            if !session.draft().context().has_writers() {
                return Ok(());
            }
            gathered(session.draft(), call)?;
            refuse(call, "before PrepareForBackup had finished", "Call PrepareForBackup and wait until it has finished")
        }
        Phase::SnapshotFailed => refuse(call, session.phase(), "Call AbortBackup and open a new session"),
        Phase::SnapshotDone | Phase::Completed | Phase::Aborted => refuse(call, session.phase(), NEW_SESSION),
    }
}

/// SetBackupSucceeded and BackupComplete: after the set, or after PrepareForBackup when no set was begun.
fn can_complete(session: &Session, call: Call) -> Result<(), VssError> {
    has_writers(session.draft(), call)?;
    match session.phase() {
        Phase::SnapshotDone => Ok(()),
        Phase::Prepared if session.draft().set().is_none() => Ok(()),
        Phase::Prepared => refuse(
            call,
            "before DoSnapshotSet had finished",
            "Call DoSnapshotSet and wait until it has finished, or AbortBackup",
        ),
        Phase::Drafting => {
            refuse(call, "before PrepareForBackup had finished", "Call PrepareForBackup and wait until it has finished")
        }
        Phase::SnapshotFailed => refuse(call, session.phase(), "Call AbortBackup: the backup cannot complete"),
        Phase::Completed | Phase::Aborted => refuse(call, session.phase(), NEW_SESSION),
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
