//! What is said on stderr while a set is made: every step for a person at a terminal, warnings for everybody.

use crate::output::{printable, say, warn};
use crate::signals::Signals;
use std::io::{self, IsTerminal};
use std::time::Instant;
use vss_model::{Consistency, ShadowCopySet, WriterStatus};
use vss_requester::Monitor;

/// Hears of the set being made.
#[derive(Debug)]
pub(crate) struct Progress {
    signals: Signals,
    terminal: bool,
    started: Instant,
    told_to_stop: bool,
}

impl Progress {
    pub(crate) fn new(signals: Signals) -> Self {
        Self { signals, terminal: io::stderr().is_terminal(), started: Instant::now(), told_to_stop: false }
    }

    /// One line about what is going on, for a person at a terminal only.
    pub(crate) fn note(&self, what: &str) {
        if self.terminal {
            say(&format!("vss: {:7.3} s  {}", self.started.elapsed().as_secs_f64(), printable(what)));
        }
    }

    /// Says how the writers of a finished set did.
    pub(crate) fn finished(&self, set: &ShadowCopySet, statuses: &[WriterStatus]) {
        for writer in &set.writers {
            self.note(&format!("{}: frozen {} ms, {}", writer.name, writer.frozen_ms, writer.state));
        }
        for warning in degraded(set, statuses) {
            warn(&warning);
        }
    }
}

impl Monitor for Progress {
    fn step(&mut self, step: &str) {
        self.note(step);
    }

    fn waiting(&mut self, why: &str) {
        say(&format!("vss: waiting: {}", printable(why)));
    }

    fn interruptions(&mut self) -> u32 {
        let wishes = self.signals.wishes();
        if wishes > 0 && !self.told_to_stop {
            self.told_to_stop = true;
            say("vss: stopping; nothing will be kept");
        }
        wishes
    }
}

/// One line about a finished set.
pub(crate) fn summary(set: &ShadowCopySet) -> String {
    let (copies, plural) = (set.shadows.len(), if set.shadows.len() == 1 { "copy" } else { "copies" });
    let instant = if set.atomic { "one instant" } else { "several instants" };
    format!(
        "Shadow copy set {}: {copies} shadow {plural}, {} ({instant}), frozen {} ms, held {} ms",
        set.set_id, set.consistency, set.freeze_ms, set.hold_ms
    )
}

/// What is less than it could be because a writer failed; the requester let it pass (`--allow-degraded`).
fn degraded(set: &ShadowCopySet, statuses: &[WriterStatus]) -> Vec<String> {
    let failed = statuses.iter().filter(|writer| writer.involved).filter_map(|writer| {
        let failure = writer.failure.as_ref()?;
        Some(format!("Writer {} failed: {failure}", writer.name))
    });
    let worse = set.writers.iter().flat_map(|writer| {
        let components = writer.components.iter().filter(|one| one.consistency < Consistency::Application);
        components
            .map(move |one| format!("{} of writer {} is only {}-consistent", one.name, writer.name, one.consistency))
    });
    failed.chain(worse).collect()
}
