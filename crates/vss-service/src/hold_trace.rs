//! What happened in a hold, noted while it lasts: fixed places in memory, no allocation. The proof that is kept with the
//! set is made of it afterwards ([`crate::sagas`]).

use vss_linux::hold::protocol::{Answer, Call, Cause};
use vss_model::GuardAnswer;

/// Beginning and end of something, CLOCK_BOOTTIME in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Just before it.
    pub began_ns: u64,
    /// Just after it.
    pub ended_ns: u64,
}

impl From<Call> for Times {
    fn from(call: Call) -> Self {
        Self { began_ns: call.called_ns, ended_ns: call.returned_ns }
    }
}

/// The hold as a whole, CLOCK_BOOTTIME in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldTimes {
    /// Before the first FIFREEZE.
    pub began_ns: u64,
    /// After the last FIFREEZE had returned.
    pub frozen_ns: u64,
    /// When the release was asked for; none when it never was, or when the hold was not whole.
    pub release_ns: Option<u64>,
    /// After the last FITHAW had returned; none as above.
    pub thawed_ns: Option<u64>,
}

/// What was done to one member.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberTrace {
    /// Nesting level, 0 = innermost; none for a member that is never frozen.
    pub level: Option<u8>,
    /// How often it was flushed.
    pub flushes: u8,
    /// Its FIFREEZE.
    pub freeze: Option<Times>,
    /// Its FITHAW.
    pub thaw: Option<Times>,
    /// What that found.
    pub end: Option<GuardAnswer>,
}

/// What happened in one hold, as far as it came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HoldTrace {
    /// The flush of all members outside the window.
    pub flush: Option<Times>,
    /// The last flush inside the window.
    pub flush_in_window: Option<Times>,
    /// The hold; none before every member was frozen.
    pub held: Option<HeldTimes>,
    /// `rcu_expedited` was set.
    pub expedited: bool,
    /// It could not be put back.
    pub expedited_left: bool,
    /// For how long it was set, in nanoseconds.
    pub expedited_ns: u64,
    /// The members in the order of the guard: first those that are held.
    pub members: Vec<MemberTrace>,
}

impl HoldTrace {
    /// A trace in which nothing has happened yet to members of these levels.
    #[must_use]
    pub fn new(levels: impl Iterator<Item = Option<u8>>) -> Self {
        let members = levels.map(|level| MemberTrace { level, ..MemberTrace::default() }).collect();
        Self { members, ..Self::default() }
    }

    /// All members were flushed.
    pub fn flushed(&mut self, times: Times) {
        if self.flush.is_none() {
            self.flush = Some(times);
        } else {
            self.flush_in_window = Some(times);
        }
    }

    /// The guard said something. A thaw counts as early unless the release was asked for at `release_ns`.
    pub fn note(&mut self, answer: &Answer, release_ns: Option<u64>) {
        match *answer {
            Answer::Synced(call) => {
                if let Some(member) = self.member(call) {
                    member.flushes = member.flushes.saturating_add(1);
                }
            }
            Answer::Frozen(call) => {
                if let Some(member) = self.member(call) {
                    member.freeze = Some(call.into());
                }
            }
            Answer::Thawed(call, cause) => {
                let asked =
                    cause == Cause::Release && release_ns.is_some_and(|release_ns| call.called_ns >= release_ns);
                let end = if asked { GuardAnswer::Thawed } else { GuardAnswer::ThawedEarly };
                self.ended(call, end);
            }
            Answer::Lost(call, _) => self.ended(call, GuardAnswer::Lost),
            Answer::Expedited { set_ns, restored_ns, restored } => {
                self.expedited = true;
                self.expedited_left = !restored;
                self.expedited_ns += restored_ns.saturating_sub(set_ns);
            }
            Answer::Ready { .. } | Answer::Refused { .. } | Answer::Failed { .. } => {}
        }
    }

    fn ended(&mut self, call: Call, end: GuardAnswer) {
        if let Some(member) = self.member(call) {
            member.thaw = Some(call.into());
            member.end = Some(end);
        }
    }

    fn member(&mut self, call: Call) -> Option<&mut MemberTrace> {
        self.members.get_mut(usize::from(call.member))
    }
}

impl MemberTrace {
    /// What the guard said of the member, in order.
    #[must_use]
    pub fn answers(&self) -> Vec<GuardAnswer> {
        let synced = std::iter::repeat_n(GuardAnswer::Synced, self.flushes.into());
        let frozen = self.freeze.map(|_| GuardAnswer::Frozen);
        synced.chain(frozen).chain(self.end).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(member: u8, called_ns: u64) -> Call {
        Call { member, called_ns, returned_ns: called_ns + 1 }
    }

    #[test]
    fn each_member_keeps_what_the_guard_said_of_it() {
        let mut trace = HoldTrace::new([Some(0), Some(1), None].into_iter());
        for answer in [
            Answer::Synced(call(0, 1)),
            Answer::Synced(call(2, 1)),
            Answer::Synced(call(2, 2)),
            Answer::Frozen(call(0, 3)),
            Answer::Frozen(call(1, 4)),
            Answer::Expedited { set_ns: 2, restored_ns: 6, restored: true },
            Answer::Thawed(call(1, 10), Cause::Release),
            Answer::Lost(call(0, 11), Cause::Release),
            Answer::Thawed(call(9, 12), Cause::Release),
        ] {
            trace.note(&answer, Some(10));
        }
        let answers: Vec<_> = trace.members.iter().map(MemberTrace::answers).collect();
        use GuardAnswer::{Frozen, Lost, Synced, Thawed};
        assert_eq!(answers, [vec![Synced, Frozen, Lost], vec![Frozen, Thawed], vec![Synced, Synced]]);
        assert_eq!((trace.expedited, trace.expedited_left, trace.expedited_ns), (true, false, 4));
        assert_eq!(trace.members[1].thaw, Some(Times { began_ns: 10, ended_ns: 11 }));
    }

    #[test]
    fn a_thaw_that_nobody_asked_for_is_early() {
        for (answer, release_ns) in [
            (Answer::Thawed(call(0, 9), Cause::Deadline), None),
            (Answer::Thawed(call(0, 9), Cause::Terminated), Some(8)),
            (Answer::Thawed(call(0, 9), Cause::Release), Some(10)),
        ] {
            let mut trace = HoldTrace::new([Some(0)].into_iter());
            trace.note(&answer, release_ns);
            assert_eq!(trace.members[0].end, Some(GuardAnswer::ThawedEarly), "{answer:?}");
        }
    }
}
