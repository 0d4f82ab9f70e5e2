//! The suite that every writer runs: the sequences of spec R 2.2 that a service may send, in one process, without a socket.
//!
//! Each function panics with a sentence when the writer breaks the contract, so that it is called from a `#[test]`. The
//! checks that only a writer's own data can tell (is it really still between Freeze and Thaw?) belong to its own tests.

use crate::{Answer, Call, Writer, deliver, fake_service};
use std::path::Path;
use std::time::Duration;
use vss_api::writer::{Event, EventComponent, EventKind, Identify, Identity};
use vss_model::{SessionId, WriterInstanceId};

/// Runs the whole suite on one writer, so that every sequence also proves that the one before left nothing behind.
///
/// # Panics
/// The writer breaks the contract.
pub fn check(writer: &mut dyn Writer) {
    registration_is_stable_and_bounded(writer);
    identity_is_sound_and_repeats(writer);
    whole_backup(writer);
    backup_without_snapshot(writer);
    identify_in_the_middle_changes_nothing(writer);
    abort_at_every_point_also_twice(writer);
    abort_without_anything_before(writer);
    shutdown_without_complete(writer);
    two_sessions_one_after_another_prepared(writer);
    whole_backup(writer);
}

/// A session of a full backup of one made-up volume, with the writer's own components.
#[must_use]
pub fn event(writer: &mut dyn Writer) -> Event {
    let components = identity(writer).components;
    let components = components.into_iter().map(|c| EventComponent { name: c.name, backup_succeeded: None }).collect();
    Event { components, ..fake_service::event(Path::new("/"), Duration::from_secs(30)) }
}

/// Calls the events in turn.
///
/// # Panics
/// One of them fails.
pub fn sequence(writer: &mut dyn Writer, event: &Event, kinds: &[EventKind]) {
    for kind in kinds {
        if let Err(error) = send(writer, event, *kind) {
            panic!("{} after {kinds:?} failed: {error}", kind.name());
        }
    }
}

fn send(writer: &mut dyn Writer, event: &Event, kind: EventKind) -> Answer {
    deliver(writer, &Call::new(kind, event))
}

fn identity(writer: &mut dyn Writer) -> Identity {
    let identify = Identify { session_id: SessionId::random(), time_left_ms: 30_000 };
    writer.identify(&identify).unwrap_or_else(|error| panic!("Identify failed: {error}"))
}

use EventKind::{Abort, BackupComplete, BackupShutdown, Freeze, PostSnapshot, PrepareBackup, PrepareSnapshot, Thaw};

/// The events of a backup that succeeds.
pub const WHOLE: [EventKind; 7] =
    [PrepareBackup, PrepareSnapshot, Freeze, Thaw, PostSnapshot, BackupComplete, BackupShutdown];

fn registration_is_stable_and_bounded(writer: &mut dyn Writer) {
    let register = writer.registration();
    assert_eq!(register, writer.registration(), "the registration changes");
    assert!(
        (1..=128).contains(&register.name.len()),
        "the name has {} bytes, 1 to 128 are allowed",
        register.name.len()
    );
    let limit = register.freeze_timeout_ms.unwrap_or(60_000);
    assert!((1..=60_000).contains(&limit), "the freeze limit is {limit} ms, 1 to 60000 are allowed");
}

fn identity_is_sound_and_repeats(writer: &mut dyn Writer) {
    let first = identity(writer);
    assert!(!first.components.is_empty(), "Identify names no component");
    assert_eq!(first, identity(writer), "Identify answers something else the second time");
    let metadata = writer.registration().metadata(WriterInstanceId::random(), first);
    metadata.check().unwrap_or_else(|error| panic!("the metadata are not sound: {error}"));
}

fn whole_backup(writer: &mut dyn Writer) {
    let event = event(writer);
    sequence(writer, &event, &WHOLE);
}

fn backup_without_snapshot(writer: &mut dyn Writer) {
    let event = Event { set_id: None, volumes: Vec::new(), ..event(writer) };
    sequence(writer, &event, &[PrepareBackup, BackupComplete, BackupShutdown]);
}

fn identify_in_the_middle_changes_nothing(writer: &mut dyn Writer) {
    let before = identity(writer);
    let event = event(writer);
    for kind in WHOLE {
        sequence(writer, &event, &[kind]);
        assert_eq!(before, identity(writer), "Identify answers something else after {}", kind.name());
    }
}

fn abort_at_every_point_also_twice(writer: &mut dyn Writer) {
    for length in 1..=4 {
        let event = event(writer);
        sequence(writer, &event, &WHOLE[..length]);
        sequence(writer, &event, &[Abort, Abort, BackupShutdown]);
    }
}

fn abort_without_anything_before(writer: &mut dyn Writer) {
    let event = event(writer);
    sequence(writer, &event, &[Abort, BackupShutdown]);
}

fn shutdown_without_complete(writer: &mut dyn Writer) {
    for length in [1, 5] {
        let event = event(writer);
        sequence(writer, &event, &WHOLE[..length]);
        sequence(writer, &event, &[BackupShutdown]);
    }
}

fn two_sessions_one_after_another_prepared(writer: &mut dyn Writer) {
    let (first, second) = (event(writer), event(writer));
    sequence(writer, &first, &[PrepareBackup]);
    sequence(writer, &second, &[PrepareBackup]);
    sequence(writer, &first, &[PrepareSnapshot, Freeze, Thaw, PostSnapshot]);
    sequence(writer, &second, &[PrepareSnapshot, Freeze, Thaw, PostSnapshot]);
    sequence(writer, &first, &[BackupComplete, BackupShutdown]);
    sequence(writer, &second, &[BackupComplete, BackupShutdown]);
}
