//! The sequences of events that a service may send when nothing takes too long (spec R 2.2, 2.5 and 2.10).

use super::{
    Abort, BackupComplete, BackupShutdown, Freeze, PostSnapshot, PrepareBackup, PrepareSnapshot, Thaw, WHOLE, event,
    sequence,
};
use crate::AnyWriter;
use vss_api::writer::Event;
use vss_model::{BackupState, BackupType};

/// Sessions that are open at once here: more than any two.
const SESSIONS: usize = 6;

pub(super) fn check(writer: &mut dyn AnyWriter) {
    whole_backup_of_every_type(writer);
    backup_without_snapshot(writer);
    components_that_were_not_chosen_or_not_backed_up(writer);
    abort_at_every_point_also_twice(writer);
    abort_without_anything_before(writer);
    prepared_again_after_abort(writer);
    completed_twice(writer);
    shutdown_without_complete(writer);
    shutdown_without_anything_before(writer);
    two_sessions_in_turn(writer);
    many_sessions_at_once(writer);
}

fn whole_backup_of_every_type(writer: &mut dyn AnyWriter) {
    use BackupType::{Copy, Differential, Full, Incremental, Log, Other};
    for backup_type in [Full, Copy, Incremental, Differential, Log, Other] {
        let backup_state = BackupState { backup_type, ..BackupState::default() };
        let event = Event { backup_state, ..event(writer) };
        sequence(writer, &event, &WHOLE);
    }
}

fn backup_without_snapshot(writer: &mut dyn AnyWriter) {
    let event = Event { set_id: None, volumes: Vec::new(), ..event(writer) };
    sequence(writer, &event, &[PrepareBackup, BackupComplete, BackupShutdown]);
}

fn components_that_were_not_chosen_or_not_backed_up(writer: &mut dyn AnyWriter) {
    let backup_state = BackupState { select_components: true, ..BackupState::default() };
    let mut event = Event { backup_state, ..event(writer) };
    event.components.iter_mut().for_each(|component| component.backup_succeeded = Some(false));
    sequence(writer, &event, &WHOLE);
    event.components.clear();
    sequence(writer, &Event { session_id: vss_model::SessionId::random(), ..event }, &WHOLE);
}

fn abort_at_every_point_also_twice(writer: &mut dyn AnyWriter) {
    for length in 1..=4 {
        let event = event(writer);
        sequence(writer, &event, &WHOLE[..length]);
        sequence(writer, &event, &[Abort, Abort, BackupShutdown]);
    }
}

fn abort_without_anything_before(writer: &mut dyn AnyWriter) {
    let event = event(writer);
    sequence(writer, &event, &[Abort, BackupShutdown]);
}

/// Another writer failed in PrepareBackup, and the requester tries again in the same session.
fn prepared_again_after_abort(writer: &mut dyn AnyWriter) {
    let event = event(writer);
    sequence(writer, &event, &[PrepareBackup, Abort]);
    sequence(writer, &event, &WHOLE);
}

/// Another writer failed in BackupComplete, and the requester tries again.
fn completed_twice(writer: &mut dyn AnyWriter) {
    let event = event(writer);
    sequence(writer, &event, &WHOLE[..6]);
    sequence(writer, &event, &[BackupComplete, BackupShutdown]);
}

fn shutdown_without_complete(writer: &mut dyn AnyWriter) {
    for length in [1, 5] {
        let event = event(writer);
        sequence(writer, &event, &WHOLE[..length]);
        sequence(writer, &event, &[BackupShutdown]);
    }
}

/// Its PrepareBackup was given up before it reached the writer.
fn shutdown_without_anything_before(writer: &mut dyn AnyWriter) {
    let event = event(writer);
    sequence(writer, &event, &[BackupShutdown]);
}

fn two_sessions_in_turn(writer: &mut dyn AnyWriter) {
    let (first, second) = (event(writer), event(writer));
    sequence(writer, &first, &[PrepareBackup]);
    sequence(writer, &second, &[PrepareBackup]);
    sequence(writer, &first, &[PrepareSnapshot, Freeze, Thaw, PostSnapshot]);
    sequence(writer, &second, &[PrepareSnapshot, Freeze, Thaw, PostSnapshot]);
    sequence(writer, &first, &[BackupComplete, BackupShutdown]);
    sequence(writer, &second, &[BackupComplete, BackupShutdown]);
}

fn many_sessions_at_once(writer: &mut dyn AnyWriter) {
    let sessions: Vec<Event> = (0..SESSIONS).map(|_| event(writer)).collect();
    for session in &sessions {
        sequence(writer, session, &[PrepareBackup]);
    }
    // The last one goes on to its copy, the others give up around it.
    for (index, session) in sessions.iter().enumerate().rev() {
        let last = index == SESSIONS - 1;
        sequence(writer, session, if last { &WHOLE[1..] } else { &[Abort, BackupShutdown] });
    }
}
