//! Calls that are cut short: their time is up, or the service is gone. What such a call answers is the writer's own affair;
//! it answers soon, Abort and BackupShutdown end it, and the next backup knows nothing of it.

use super::{
    Abort, BackupComplete, BackupShutdown, Freeze, PostSnapshot, PrepareBackup, PrepareSnapshot, WHOLE, answers, event,
    sequence,
};
use crate::{AnyWriter, Call};
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use vss_api::writer::{Event, EventKind};

/// So long may a handler go on when there is no point in it any more.
const SOON: Duration = Duration::from_secs(2);
/// What is left of the time of a call whose service is gone: longer than [`SOON`].
const LEFT: Duration = Duration::from_secs(5);

/// Why a call is cut short.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cut {
    /// Its deadline has come.
    Deadline,
    /// The other end of the connection is closed.
    Connection,
}

/// Both, so that a suite can try each.
pub(super) const CUTS: [Cut; 2] = [Cut::Deadline, Cut::Connection];

pub(super) fn check(writer: &mut dyn AnyWriter) {
    for cut in CUTS {
        for kind in [PrepareBackup, PrepareSnapshot, Freeze, PostSnapshot, BackupComplete] {
            let event = event(writer);
            let before = WHOLE.iter().position(|other| *other == kind).unwrap_or_default();
            sequence(writer, &event, &WHOLE[..before]);
            cut_short(writer, &event, kind, cut);
            // After the copy there is nothing to abort.
            let end: &[EventKind] = if matches!(kind, PostSnapshot | BackupComplete) {
                &[BackupShutdown]
            } else {
                &[Abort, BackupShutdown]
            };
            sequence(writer, &event, end);
            let next = super::event(writer);
            sequence(writer, &next, &WHOLE);
        }
    }
}

/// Calls an event that has no time left.
pub(super) fn cut_short(writer: &mut dyn AnyWriter, event: &Event, kind: EventKind, cut: Cut) {
    let (reader, other_end) = io::pipe().expect("a pipe");
    let began = Instant::now();
    let call = Call::new(kind, event).interrupted_by(reader.as_fd());
    let call = match cut {
        Cut::Deadline => call.until(began),
        Cut::Connection => {
            drop(other_end);
            call.until(began + LEFT)
        }
    };
    // A failure is as good as a success here; what it says must be understood all the same.
    let _ = answers::checked(event, kind, writer.event(&call));
    let took = began.elapsed();
    assert!(took <= SOON, "{} went on for {took:?} after its end had come ({cut:?})", kind.name());
}
