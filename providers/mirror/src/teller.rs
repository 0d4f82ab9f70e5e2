//! Telling how far the copying is, four times a second at most.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use vss_model::ShadowId;
use vss_model::time::milliseconds;
use vss_provider::progress::{Progress, Watcher, Work};

/// The least time between two messages.
const PAUSE: Duration = Duration::from_millis(250);

/// What is known beyond the round that runs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Known {
    /// Bytes a second that applications write to.
    pub(crate) dirty_rate: Option<u64>,
    /// How long the hold would be.
    pub(crate) hold: Option<Duration>,
}

/// Passes on what a round says, not too often.
pub(crate) struct Teller<'a> {
    watcher: &'a dyn Watcher,
    state: Mutex<(Option<Instant>, Known)>,
}

impl<'a> Teller<'a> {
    pub(crate) fn new(watcher: &'a dyn Watcher) -> Self {
        Self { watcher, state: Mutex::default() }
    }

    /// From now on this is known.
    pub(crate) fn know(&self, known: Known) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = known;
    }

    /// So many of `total` bytes of a round are done after `time`.
    pub(crate) fn tell(&self, shadow_id: ShadowId, work: Work, round: u32, done: u64, total: u64, time: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_last = done >= total;
        if !is_last && state.0.is_some_and(|last| now - last < PAUSE) {
            return;
        }
        if is_last && state.0.is_some_and(|last| now - last < PAUSE) && round > 1 {
            return;
        }
        state.0 = Some(now);
        let known = state.1;
        drop(state);
        let rate = crate::rounds::rate(done, time);
        self.watcher.progress(Progress {
            shadow_id,
            work,
            round,
            bytes_done: done.min(total),
            bytes_total: total,
            copy_rate: rate,
            dirty_rate: known.dirty_rate,
            hold_ms: known.hold.map(milliseconds),
            left_ms: crate::rounds::duration(total.saturating_sub(done), rate).map(milliseconds),
        });
    }
}
