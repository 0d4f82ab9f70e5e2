//! The proof of a freeze window: what was done to each member of a set, when, and what the guard answered. Kept with the
//! set, so that nobody has to believe that its volumes were cut at one instant.
//!
//! Every time in a proof was read from one clock that never jumps (CLOCK_BOOTTIME) and counts from the beginning of the
//! hold; wall-clock instants are that clock set against the wall once, after the release. Only `cut_at` is the provider's
//! own word.

use crate::{Instant, ShadowId};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A piece of work in a freeze window, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Span {
    /// Its beginning, counted from the beginning of the proof; negative for what was done before.
    pub from_us: i64,
    /// How long it took.
    pub took_us: u64,
}

impl Span {
    /// Its end, counted as its beginning is.
    #[must_use]
    pub fn until_us(&self) -> i64 {
        self.from_us.saturating_add_unsigned(self.took_us)
    }
}

/// What the guard said of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuardAnswer {
    /// It was flushed.
    Synced,
    /// FIFREEZE succeeded.
    Frozen,
    /// FITHAW succeeded, after the release was asked for.
    Thawed,
    /// FITHAW succeeded before the release was asked for: at the guard's deadline, or when the guard was ended.
    ThawedEarly,
    /// FITHAW found it thawed: somebody else had done that.
    Lost,
}

/// The guard's whole hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldSpan {
    /// When every member that is held was frozen: from here on none of them was written to.
    pub frozen_at: Instant,
    /// The same, in microseconds from the beginning.
    pub frozen_us: u64,
    /// When the release was asked for: up to here none of them was written to.
    pub release_at: Instant,
    /// The same, in microseconds from the beginning.
    pub release_us: u64,
    /// When the last FITHAW had returned.
    pub thawed_at: Instant,
    /// The same, in microseconds from the beginning: how long writes may have waited.
    pub thawed_us: u64,
    /// True when `/sys/kernel/rcu_expedited` was set for the freeze, which makes it short.
    pub expedited: bool,
    /// True when it had its old value again before the first FITHAW; also when it was never set.
    pub expedited_restored: bool,
    /// For how long it was set, in microseconds.
    pub expedited_us: u64,
}

/// What was done to one member of the set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberProof {
    /// Its shadow copy.
    pub shadow_id: ShadowId,
    /// Where the volume was mounted.
    #[serde(with = "crate::path_text")]
    pub volume: PathBuf,
    /// True when its writes were held; false when it was cut without a hold of its own, as btrfs must be.
    pub held: bool,
    /// Its nesting level, 0 = innermost, frozen first; none without a hold.
    pub level: Option<u8>,
    /// Its FIFREEZE; none without a hold.
    pub freeze: Option<Span>,
    /// The call of its provider in which it was cut.
    pub commit: Span,
    /// When it was cut, in the provider's own words.
    pub cut_at: Instant,
    /// Its FITHAW; none without a hold.
    pub thaw: Option<Span>,
    /// What the guard said of it, in order; empty for a set without a guard.
    pub answers: Vec<GuardAnswer>,
}

/// The proof of one freeze window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldProof {
    /// The instant from which all microseconds count: before the first FIFREEZE; without a hold, before the first cut.
    pub began_at: Instant,
    /// The same in microseconds since boot (CLOCK_BOOTTIME), to be set against the kernel's log.
    pub began_boottime_us: u64,
    /// The flush of every member before the writers were frozen.
    pub flush: Option<Span>,
    /// The second flush, just before the hold; none without a hold.
    pub flush_in_window: Option<Span>,
    /// The hold; none for a set that needed none.
    pub hold: Option<HoldSpan>,
    /// The members, in the order of the set. Those whose copy was deleted since are still here.
    pub members: Vec<MemberProof>,
}

impl HoldProof {
    /// Microseconds from the first FIFREEZE to the last FITHAW; 0 without a hold.
    #[must_use]
    pub fn hold_us(&self) -> u64 {
        self.hold.as_ref().map_or(0, |hold| hold.thawed_us)
    }

    /// True when every member was cut while all that are held were frozen: what the proof says of the set as a whole.
    #[must_use]
    pub fn all_cut_in_one_hold(&self) -> bool {
        let Some(hold) = &self.hold else { return false };
        let signed = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
        let (frozen, release) = (signed(hold.frozen_us), signed(hold.release_us));
        self.members.iter().all(|member| {
            let whole = !member.held || member.answers.ends_with(&[GuardAnswer::Frozen, GuardAnswer::Thawed]);
            whole && frozen <= member.commit.from_us && member.commit.until_us() <= release
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(held: bool, commit: Span, last: GuardAnswer) -> MemberProof {
        let answers =
            if held { vec![GuardAnswer::Synced, GuardAnswer::Frozen, last] } else { vec![GuardAnswer::Synced] };
        let cut_at = Instant::now();
        let shadow_id = ShadowId::random();
        MemberProof {
            shadow_id,
            volume: "/a".into(),
            held,
            level: None,
            freeze: None,
            commit,
            cut_at,
            thaw: None,
            answers,
        }
    }

    fn proof(members: Vec<MemberProof>) -> HoldProof {
        let at = Instant::now();
        HoldProof {
            began_at: at,
            began_boottime_us: 1,
            flush: None,
            flush_in_window: None,
            hold: Some(HoldSpan {
                frozen_at: at,
                frozen_us: 10,
                release_at: at,
                release_us: 20,
                thawed_at: at,
                thawed_us: 30,
                expedited: true,
                expedited_restored: true,
                expedited_us: 9,
            }),
            members,
        }
    }

    #[test]
    fn a_cut_outside_the_hold_or_a_member_that_was_lost_is_no_one_instant() {
        let inside = Span { from_us: 10, took_us: 10 };
        let good = || member(true, inside, GuardAnswer::Thawed);
        assert!(proof(vec![good(), member(false, inside, GuardAnswer::Synced)]).all_cut_in_one_hold());
        for bad in [
            member(true, Span { from_us: 9, took_us: 1 }, GuardAnswer::Thawed),
            member(true, Span { from_us: 10, took_us: 11 }, GuardAnswer::Thawed),
            member(false, Span { from_us: 21, took_us: 1 }, GuardAnswer::Synced),
            member(true, inside, GuardAnswer::Lost),
            member(true, inside, GuardAnswer::ThawedEarly),
        ] {
            assert!(!proof(vec![good(), bad.clone()]).all_cut_in_one_hold(), "{bad:?}");
        }
        assert!(!HoldProof { hold: None, ..proof(vec![good()]) }.all_cut_in_one_hold());
        assert_eq!(proof(Vec::new()).hold_us(), 30);
    }
}
