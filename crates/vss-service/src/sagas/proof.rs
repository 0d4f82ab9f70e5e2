//! The proof of a set's freeze window, made of what was noted in it: one clock for all, set against the wall once.

use super::create_set::{CreateSet, Member};
use crate::hold_trace::{HoldTrace, MemberTrace, Times};
use std::time::Duration;
use vss_api::event::{Event, EventKind, MemberTimes};
use vss_linux::clock;
use vss_model::{FreezePolicy, HoldProof, HoldSpan, Instant, MemberProof, Span, VssError};

impl CreateSet {
    /// The proof of this set's window; none before every member was cut, and for a set without members.
    pub(super) fn proof(&self) -> Option<HoldProof> {
        let window = self.window.as_ref()?;
        let trace = window.hold.as_ref().map(|hold| hold.trace()).unwrap_or_default();
        let commit = |member: &Member| window.commit_of(&member.provider.properties().name);
        let commits: Option<Vec<Times>> = self.plan.members.iter().map(commit).collect();
        let commits = commits?;
        let first_commit = commits.iter().map(|times| times.began_ns).min()?;
        let scale = Scale::new(trace.held.map_or(first_commit, |held| held.began_ns), self.clocks?);
        let members = self.plan.members.iter().zip(&commits).zip(traces(&self.plan.members, &trace));
        let members = members.map(|((member, commit), traced)| {
            let traced = traced.unwrap_or(&NOTHING);
            MemberProof {
                shadow_id: member.shadow_id,
                volume: member.volume.mount_point.clone(),
                held: traced.freeze.is_some(),
                level: traced.level,
                freeze: traced.freeze.map(|times| scale.span(times)),
                commit: scale.span(*commit),
                cut_at: self.committed[&member.shadow_id].cut_at,
                thaw: traced.thaw.map(|times| scale.span(times)),
                answers: traced.answers(),
            }
        });
        Some(HoldProof {
            began_at: scale.began_at,
            began_boottime_us: scale.zero_ns / 1000,
            flush: trace.flush.or(self.flush).map(|times| scale.span(times)),
            flush_in_window: trace.flush_in_window.map(|times| scale.span(times)),
            hold: trace.held.and_then(|held| {
                let (release_ns, thawed_ns) = (held.release_ns?, held.thawed_ns?);
                Some(HoldSpan {
                    frozen_at: scale.at(held.frozen_ns),
                    frozen_us: scale.since(held.frozen_ns),
                    release_at: scale.at(release_ns),
                    release_us: scale.since(release_ns),
                    thawed_at: scale.at(thawed_ns),
                    thawed_us: scale.since(thawed_ns),
                    expedited: trace.expedited,
                    expedited_restored: !trace.expedited_left,
                    expedited_us: trace.expedited_ns / 1000,
                })
            }),
            members: members.collect(),
        })
    }
}

impl CreateSet {
    /// Tells what happened in the window: its rows, the provider that failed, and what was done to each member.
    pub(super) fn tell_window(&self, (_, ended_ns): Clocks, failure: Option<&VssError>) {
        let Some(window) = self.window.as_ref() else { return };
        let (teller, set_id) = (&self.plan.facts.teller, self.plan.set_id);
        let rows: Vec<_> = window.rows(ended_ns).collect();
        for (index, (row, times)) in rows.iter().enumerate() {
            let took = Duration::from_nanos(times.ended_ns.saturating_sub(times.began_ns));
            // A failure ends the window: it is the last row's.
            teller.step(set_id, row, took, failure.filter(|_| index + 1 == rows.len()));
        }
        if let (Some(failure), Some(provider)) = (failure, window.failed_provider()) {
            teller.provider_trouble(set_id, provider, "commit", failure);
        }
        let trace = window.hold.as_ref().map(|hold| hold.trace()).unwrap_or_default();
        let traces = traces(&self.plan.members, &trace);
        let commit = |member: &Member| window.commit_of(&member.provider.properties().name);
        let first_freeze = traces.iter().flatten().filter_map(|traced| traced.freeze).map(|times| times.began_ns).min();
        let first_commit = self.plan.members.iter().filter_map(commit).map(|times| times.began_ns).min();
        let Some(zero_ns) = trace.held.map(|held| held.began_ns).or(first_freeze).or(first_commit) else { return };
        let scale = Scale { zero_ns, began_at: Instant::now() };
        for (member, traced) in self.plan.members.iter().zip(traces) {
            let traced = traced.unwrap_or(&NOTHING);
            let times = MemberTimes {
                level: traced.level,
                freeze: traced.freeze.map(|times| scale.span(times)),
                commit: commit(member).map(|times| scale.span(times)),
                thaw: traced.thaw.map(|times| scale.span(times)),
                answers: traced.answers(),
            };
            teller.tell(Event {
                set_id: Some(set_id),
                shadow_id: Some(member.shadow_id),
                provider: Some(member.provider.properties().name),
                volume: Some(member.volume.mount_point.clone()),
                member: Some(times),
                ..Event::of(EventKind::Member)
            });
        }
    }
}

/// A member that no guard knew.
static NOTHING: MemberTrace = MemberTrace { level: None, flushes: 0, freeze: None, thaw: None, end: None };

/// The trace of each member: the guard has those that are held first, each kind in the order of the set.
fn traces<'a>(members: &[Member], trace: &'a HoldTrace) -> Vec<Option<&'a MemberTrace>> {
    let is_held = |member: &Member| member.provider.properties().freeze_policy == FreezePolicy::NeedsHold;
    let (mut held, mut others) = (0, members.iter().filter(|member| is_held(member)).count());
    let place = |member: &Member| {
        let next = if is_held(member) { &mut held } else { &mut others };
        let index = *next;
        *next += 1;
        trace.members.get(index)
    };
    members.iter().map(place).collect()
}

/// One moment by both clocks: the wall's, and CLOCK_BOOTTIME in nanoseconds.
pub(super) type Clocks = (Instant, u64);

/// Reads both clocks: just after the release, so that the wall's steps and corrections show neither in the hold nor later.
pub(super) fn read_clocks() -> Clocks {
    (Instant::now(), clock::boottime_ns())
}

/// CLOCK_BOOTTIME counted from one instant, and that instant on the wall.
struct Scale {
    zero_ns: u64,
    began_at: Instant,
}

impl Scale {
    fn new(zero_ns: u64, (wall, boottime_ns): Clocks) -> Self {
        let ago_us = i64::try_from(boottime_ns.saturating_sub(zero_ns) / 1000).unwrap_or(0);
        Self { zero_ns, began_at: wall.after_us(-ago_us) }
    }

    /// Whole microseconds; rounded down, as all are, so that their order stays.
    fn offset(&self, ns: u64) -> i64 {
        let (zero_us, us) = (self.zero_ns / 1000, ns / 1000);
        i64::try_from(us).unwrap_or(i64::MAX).saturating_sub_unsigned(zero_us)
    }

    fn since(&self, ns: u64) -> u64 {
        u64::try_from(self.offset(ns)).unwrap_or(0)
    }

    fn at(&self, ns: u64) -> Instant {
        self.began_at.after_us(self.offset(ns))
    }

    fn span(&self, times: Times) -> Span {
        let from_us = self.offset(times.began_ns);
        let took_us = u64::try_from(self.offset(times.ended_ns).saturating_sub(from_us)).unwrap_or(0);
        Span { from_us, took_us }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_before_is_negative_and_the_order_of_instants_stays() {
        let scale = Scale::new(5_000_999, (Instant::now(), 9_000_999));
        assert_eq!((scale.offset(5_000_999), scale.offset(4_999_999), scale.since(5_001_000)), (0, -1, 1));
        let flush = scale.span(Times { began_ns: 1_000_999, ended_ns: 5_001_000 });
        assert_eq!((flush, flush.until_us()), (Span { from_us: -4000, took_us: 4001 }, 1));
        assert_eq!(Scale::new(9_000_999, (scale.began_at, 9_000_999)).at(7_000_000), scale.began_at.after_us(-2000));
        assert_eq!(scale.at(7_000_000), scale.began_at.after_us(2000));
    }
}
