//! What is said on stderr while a set is made: every step for a person at a terminal, warnings for everybody.

use crate::live::Live;
use crate::meter::Pace;
use crate::output::{end_live, printable, say, say_live, warn};
use crate::signals::Signals;
use crate::window;
use std::io::{self, IsTerminal};
use std::time::Instant;
use vss_model::{SessionId, ShadowCopySet};
use vss_requester::{Backup, CopyProgress, Instance, Monitor};

/// Hears of the set being made.
#[derive(Debug)]
pub(crate) struct Progress {
    signals: Signals,
    terminal: bool,
    started: Instant,
    instance: Instance,
    /// The lines of the set while it is made, on a terminal.
    live: Option<Live>,
    /// Of the copying that goes on, without a terminal.
    pace: Option<Pace>,
    told_to_stop: bool,
}

impl Progress {
    pub(crate) fn new(signals: Signals, instance: &Instance) -> Self {
        Self {
            signals,
            terminal: io::stderr().is_terminal(),
            started: Instant::now(),
            instance: instance.clone(),
            live: None,
            pace: None,
            told_to_stop: false,
        }
    }

    /// One line about what is going on, for a person at a terminal only.
    pub(crate) fn note(&self, what: &str) {
        if self.terminal {
            say(&format!("vss: {:7.3} s  {}", self.started.elapsed().as_secs_f64(), printable(what)));
        }
    }

    /// Says how the volumes and the writers of a finished set did.
    pub(crate) fn finished(&mut self, backup: &Backup) {
        end_live();
        match self.live.take() {
            Some(live) => live.finish(true),
            None => {
                for member in backup.set().proof.iter().flat_map(|proof| &proof.members) {
                    self.note(&format!("{}: {}", member.volume.display(), window::words(member)));
                }
            }
        }
        for writer in &backup.set().writers {
            self.note(&format!("{}: frozen {} ms, {}", writer.name, writer.frozen_ms, writer.state));
        }
        for warning in backup.warnings() {
            warn(&warning);
        }
    }
}

/// The error that follows is the last that is said.
impl Drop for Progress {
    fn drop(&mut self) {
        end_live();
        if let Some(live) = self.live.take() {
            live.finish(false);
        }
    }
}

impl Monitor for Progress {
    fn opened(&mut self, session_id: SessionId) {
        if self.terminal {
            self.live = Live::follow(&self.instance, session_id, self.started);
        }
    }

    fn step(&mut self, step: &str) {
        end_live();
        self.pace = None;
        match &self.live {
            Some(live) => live.begins(step),
            None => self.note(step),
        }
    }

    fn copying(&mut self, copying: &CopyProgress) {
        let words = printable(&copying.to_string());
        let now = Instant::now();
        if self.terminal {
            // After a wish to stop its own line is the last.
            if !self.told_to_stop {
                let short = printable(&copying.short().to_string());
                let whole = format!("vss: {:7.3} s  {words}", self.started.elapsed().as_secs_f64());
                say_live(&[whole, format!("vss: {words}"), format!("vss: {short}")]);
            }
        } else if self.pace.get_or_insert_with(|| Pace::of_a_log(now)).is_due(now) {
            say(&format!("vss: {words}"));
        }
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
