//! One set in creation: rounds over all its volumes until little is left, the hold, and what comes after.

use crate::{
    member::{House, Making, Member},
    refusal::Rates,
    rounds::{self, Next, Standing},
    teller::{Known, Teller},
};
use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};
use vss_model::{ShadowId, VssError};
use vss_provider::{CommittedCopy, current, stage::Stage};

/// How long PreCommit may go on reading: writers are frozen.
const CATCH_UP: Duration = Duration::from_secs(2);

/// A set that is not finished.
#[derive(Debug)]
pub(crate) struct Creation {
    stage: Stage,
    pub(crate) members: Vec<Member>,
    making: Vec<Making>,
    /// The longest hold that is begun.
    longest: Duration,
    round: u32,
    before: Option<u64>,
}

impl current::Creation for Creation {
    fn new() -> Self {
        Self {
            stage: Stage::Preparing,
            members: Vec::new(),
            making: Vec::new(),
            longest: Duration::ZERO,
            round: 0,
            before: None,
        }
    }

    fn stage(&self) -> Stage {
        self.stage
    }

    fn undo(self) -> Result<(), VssError> {
        self.making.into_iter().map(Making::undo).fold(Ok(()), Result::and)
    }
}

/// Asked between pieces whether to go on.
type Stop<'a> = &'a (dyn Fn() -> Result<(), VssError> + Sync);

impl Creation {
    /// Copies everything, and again what was written meanwhile, until what is left can be read in a hold.
    pub(crate) fn end_prepare(
        &mut self,
        house: &House,
        longest: Duration,
        teller: &Teller<'_>,
        stop: Stop<'_>,
    ) -> Result<(), VssError> {
        // One hold for all: the shortest wish counts.
        let wishes = self.members.iter().filter_map(|member| member.options.max_hold_ms).map(Duration::from_millis);
        self.longest = wishes.min().unwrap_or(longest);
        for member in &self.members {
            stop()?;
            // Known to the undoing as soon as it is there.
            self.making.push(Making::open(member, house)?);
            if let Some(making) = self.making.last_mut() {
                making.make_target()?;
            }
        }
        for making in &mut self.making {
            if making.is_short() {
                // While it copies: afterwards little is left.
                making.make_ready(self.longest)?;
            }
            making.first_round(teller, stop)?;
        }
        self.round = 1;
        self.catch_up(None, teller, stop)?;
        self.make_ready()?;
        self.stage = Stage::Prepared;
        Ok(())
    }

    /// Once more, for what was written since, and makes what the hold needs.
    pub(crate) fn pre_commit(&mut self, teller: &Teller<'_>, stop: Stop<'_>) -> Result<(), VssError> {
        self.round = 1;
        self.before = None;
        self.catch_up(Some(Instant::now() + CATCH_UP), teller, stop)?;
        self.make_ready()?;
        self.stage = Stage::PreCommitted;
        Ok(())
    }

    fn make_ready(&mut self) -> Result<(), VssError> {
        self.making.iter_mut().try_for_each(|making| making.make_ready(self.longest))?;
        self.making.iter_mut().try_for_each(Making::wait_until_ready)
    }

    /// Rounds until a hold may begin. With a deadline, what is left then decides.
    fn catch_up(&mut self, deadline: Option<Instant>, teller: &Teller<'_>, stop: Stop<'_>) -> Result<(), VssError> {
        let mut last = Instant::now();
        loop {
            stop()?;
            for making in &mut self.making {
                making.gather()?;
            }
            let standing = self.standing();
            let dirty_rate = rounds::rate(self.making.iter().map(Making::dirty).sum(), last.elapsed());
            last = Instant::now();
            teller.know(Known { dirty_rate, hold: standing.hold });
            let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            let next = if self.making.iter().any(Making::is_untraced) && self.round < 2 && deadline.is_none() {
                // Only a comparison says how long one takes.
                Next::Round
            } else if self.making.iter().all(Making::is_untraced) || is_over {
                if standing.hold.is_none_or(|hold| hold <= self.longest) { Next::Hold } else { Next::Refuse }
            } else {
                standing.next(self.longest)
            };
            match next {
                Next::Hold => return Ok(()),
                Next::Refuse => return Err(self.refusal(&standing, dirty_rate)),
                Next::Round => {}
            }
            self.round += 1;
            self.before = Some(standing.dirty);
            for making in &mut self.making {
                making.round(self.round, teller, stop)?;
            }
        }
    }

    fn standing(&self) -> Standing {
        let hold = self.making.iter().map(Making::hold_time).try_fold(Duration::ZERO, |sum, hold| Some(sum + hold?));
        Standing { round: self.round, dirty: self.making.iter().map(Making::left).sum(), before: self.before, hold }
    }

    fn refusal(&self, standing: &Standing, dirty_rate: Option<u64>) -> VssError {
        let read_rate = self.making.iter().filter_map(|making| making.rate).min();
        let is_untraced = self.making.iter().all(Making::is_untraced);
        let refusal = standing.refusal(Rates { read: read_rate, dirty: dirty_rate }, self.longest, is_untraced);
        match self.making.iter().find_map(Making::restless_hint) {
            Some(hint) => refusal.with_hint(hint),
            None => refusal,
        }
    }

    /// The point in time. In the hold: allocates nothing unless it fails.
    pub(crate) fn commit(&mut self) -> Result<(), VssError> {
        self.making.iter_mut().try_for_each(Making::begin_cut)?;
        self.making.iter_mut().try_for_each(Making::end_cut)?;
        self.stage = Stage::Committed;
        Ok(())
    }

    /// Writes out what was read in the hold, and makes the copies.
    pub(crate) fn post_commit(&mut self) -> Result<Vec<CommittedCopy>, VssError> {
        let committed = self.making.iter_mut().map(Making::finish_cut).collect::<Result<_, _>>()?;
        self.stage = Stage::Created;
        Ok(committed)
    }

    /// Lets writers mend the copies.
    pub(crate) fn pre_final_commit(&mut self) -> Result<(), VssError> {
        self.making.iter_mut().try_for_each(Making::begin_mending)?;
        self.stage = Stage::Writable;
        Ok(())
    }

    /// Makes the copies read-only for good.
    pub(crate) fn post_final_commit(&mut self) -> Result<(), VssError> {
        self.making.iter_mut().try_for_each(Making::end_mending)
    }

    /// A mount of a copy that writers may mend now; none when there is no such copy, or not now.
    pub(crate) fn mount(&mut self, shadow_id: ShadowId, writable: bool) -> Option<Result<OwnedFd, VssError>> {
        let is_now = self.stage == Stage::Writable;
        let making = self.making.iter_mut().find(|making| making.member.shadow_id == shadow_id).filter(|_| is_now)?;
        Some(making.mount(writable))
    }
}
