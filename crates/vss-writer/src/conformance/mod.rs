//! The suite that every writer runs: what spec R 2.2 to 2.10 lets a service send, in one process, without a socket.
//!
//! Each function panics with a sentence when the writer breaks the contract, so that it is called from a `#[test]`. [`check`]
//! asks what can be asked of every writer. [`check_hold`] asks whether the application is really still, and needs to be
//! told how to see that. What the loop promises in the writer's stead is tested in this crate.

mod answers;
mod hold;
mod identity;
mod interruptions;
mod sequences;

pub use hold::check_hold;

use crate::{Answer, AnyWriter, Call, fake_service};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use vss_api::writer::{Event, EventComponent, EventKind, Identify, Identity};
use vss_linux::mountinfo;
use vss_model::{SessionId, limits};

use EventKind::{Abort, BackupComplete, BackupShutdown, Freeze, PostSnapshot, PrepareBackup, PrepareSnapshot, Thaw};

/// The events of a backup that succeeds.
pub const WHOLE: [EventKind; 7] =
    [PrepareBackup, PrepareSnapshot, Freeze, Thaw, PostSnapshot, BackupComplete, BackupShutdown];

/// Runs the whole suite on one writer, so that every part also proves that the one before left nothing behind.
///
/// # Panics
/// The writer breaks the contract.
pub fn check(writer: &mut dyn AnyWriter) {
    identity::check(writer);
    sequences::check(writer);
    interruptions::check(writer);
    let last = event(writer);
    sequence(writer, &last, &WHOLE);
}

/// A session of a full backup of the writer's own components and of the volumes that their directories lie on, one at
/// least. No copy is made: in PostSnapshot there is none that could be written to.
#[must_use]
pub fn event(writer: &mut dyn AnyWriter) -> Event {
    let components = identity(writer).components;
    let mut places: BTreeSet<PathBuf> =
        components.iter().flat_map(vss_model::Component::all_files).map(|file| mount_point_of(&file.path)).collect();
    if places.is_empty() {
        places.insert("/".into());
    }
    let components = components.into_iter().map(|c| EventComponent::of(c.name)).collect();
    let volume = |place: PathBuf| fake_service::event(&place, Duration::ZERO).volumes;
    let volumes = places.into_iter().flat_map(volume).collect();
    Event { components, volumes, ..fake_service::event(Path::new("/"), Duration::from_secs(30)) }
}

/// The longest mount point that is a prefix of the path.
fn mount_point_of(path: &Path) -> PathBuf {
    let mounts = mountinfo::mounts().unwrap_or_default().into_iter().map(|mount| mount.mount_point);
    let longest = mounts.filter(|place| path.starts_with(place)).max_by_key(|place| place.components().count());
    longest.unwrap_or_else(|| "/".into())
}

/// Calls the events in turn. In BackupComplete the components whose success is not told have succeeded.
///
/// # Panics
/// One of them fails, comes too late, or answers what no service understands.
pub fn sequence(writer: &mut dyn AnyWriter, event: &Event, kinds: &[EventKind]) {
    for kind in kinds {
        let mut event = event.clone();
        if *kind == BackupComplete {
            event.components.iter_mut().for_each(|component| {
                component.backup_succeeded.get_or_insert(true);
            });
        }
        if let Err(error) = send(writer, &event, *kind) {
            panic!("{} after {kinds:?} failed: {error}", kind.name());
        }
    }
}

/// Calls one event and checks everything of the answer but whether it is a failure.
fn send(writer: &mut dyn AnyWriter, event: &Event, kind: EventKind) -> Answer {
    let limit = match kind {
        Freeze => freeze_limit(writer),
        _ => Duration::from_millis(event.time_left_ms),
    };
    let began = Instant::now();
    let answer = writer.event(&Call::new(kind, event).until(began + limit));
    let took = began.elapsed();
    assert!(took <= limit, "{} took {took:?}; the answer comes too late after {limit:?}", kind.name());
    answers::checked(event, kind, answer)
}

fn freeze_limit(writer: &dyn AnyWriter) -> Duration {
    writer.registration().freeze_timeout_ms.map_or(limits::WRITER_FREEZE, Duration::from_millis)
}

fn identity(writer: &mut dyn AnyWriter) -> Identity {
    let identify = Identify { session_id: SessionId::random(), time_left_ms: 30_000 };
    let began = Instant::now();
    let answer = writer.identify(&identify);
    assert!(began.elapsed() <= limits::WRITER_IDENTIFY, "Identify took {:?}", began.elapsed());
    answer.unwrap_or_else(|error| panic!("Identify failed: {error}"))
}
