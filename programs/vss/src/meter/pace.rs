//! When lines about one long piece of work are due.

use std::time::{Duration, Instant};

/// Time between two looks of a line on a terminal.
const LOOK: Duration = Duration::from_millis(200);
/// Without a terminal, the first line about work that takes long comes after this time.
const FIRST_LINE: Duration = Duration::from_secs(10);
/// The time between two lines doubles up to this: a night's copy must not fill a log or a mail.
const LONGEST_PAUSE: Duration = Duration::from_secs(160);

/// When the next line is due.
#[derive(Debug)]
pub(crate) struct Pace {
    due: Instant,
    pause: Duration,
    longest: Duration,
}

impl Pace {
    /// Of a line that is written over, of work that begins now.
    pub(crate) fn of_a_terminal(now: Instant) -> Self {
        Self { due: now + LOOK, pause: LOOK, longest: LOOK }
    }

    /// Of lines that stay, of work that begins now.
    pub(crate) fn of_a_log(now: Instant) -> Self {
        Self { due: now + FIRST_LINE, pause: FIRST_LINE, longest: LONGEST_PAUSE }
    }

    /// True when a line is due, which is said then.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        if now < self.due {
            return false;
        }
        self.pause = (self.pause * 2).min(self.longest);
        self.due = now + self.pause;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_log_come_at_most_every_10_s_and_become_rare() {
        let begin = Instant::now();
        let mut pace = Pace::of_a_log(begin);
        let due: Vec<u64> = (0..3600).filter(|second| pace.is_due(begin + Duration::from_secs(*second))).collect();
        assert_eq!(due[..6], [10, 30, 70, 150, 310, 470]);
        assert_eq!(due.len(), 25, "in an hour");
    }

    #[test]
    fn a_terminal_is_looked_at_all_the_time() {
        let begin = Instant::now();
        let mut pace = Pace::of_a_terminal(begin);
        let due = (0..1000).filter(|at| pace.is_due(begin + Duration::from_millis(*at)));
        assert_eq!(due.collect::<Vec<u64>>(), [200, 400, 600, 800]);
    }
}
