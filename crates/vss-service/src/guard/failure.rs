//! What went wrong in a hold, before it is told.

use super::GuardErrorKind;
use rustix::io::Errno;
use vss_linux::hold::protocol::{Answer, Cause, Step};

/// The first thing that went wrong; an index instead of a name, because it is made in a hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failure {
    pub(super) kind: GuardErrorKind,
    pub(super) member: Option<usize>,
    pub(super) errno: Option<Errno>,
}

impl Failure {
    pub(super) fn of(kind: GuardErrorKind) -> Self {
        Self { kind, member: None, errno: None }
    }

    pub(super) fn member(self, member: u8) -> Self {
        Self { member: Some(member.into()), ..self }
    }

    pub(super) fn errno(self, errno: Errno) -> Self {
        Self { errno: Some(errno), ..self }
    }
}

/// What it means that this answer came where another was expected.
pub(super) fn unexpected(answer: Answer) -> Failure {
    match answer {
        Answer::Failed { member, step, errno } => {
            let kind = match (step, errno) {
                (Step::Sync, _) => GuardErrorKind::SyncFailed,
                (Step::Freeze, Errno::BUSY) => GuardErrorKind::FrozenByAnother,
                (Step::Freeze, Errno::CANCELED) => GuardErrorKind::HoldExpired,
                (Step::Freeze, _) => GuardErrorKind::FreezeFailed,
                (Step::Thaw, _) => GuardErrorKind::ThawFailed,
            };
            Failure::of(kind).member(member).errno(errno)
        }
        Answer::Thawed(call, Cause::Terminated) => Failure::of(GuardErrorKind::GuardEnded).member(call.member),
        Answer::Thawed(call, _) => Failure::of(GuardErrorKind::HoldExpired).member(call.member),
        Answer::Lost(call, _) => Failure::of(GuardErrorKind::Lost).member(call.member),
        Answer::Synced(_)
        | Answer::Frozen(_)
        | Answer::Expedited { .. }
        | Answer::Ready { .. }
        | Answer::Refused { .. } => Failure::of(GuardErrorKind::GuardDied).errno(Errno::PROTO),
    }
}
