//! How far long work on bytes is, said on stderr: for a person at a terminal one line that is written over, for a log a line
//! now and then.

mod files;
mod pace;

pub(crate) use files::FileMeter;
pub(crate) use pace::Pace;

use crate::output::{end_live, printable, say, say_live};
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};
use vss_api::progress::Milliseconds;
use vss_model::Bytes;

/// Says how far it is.
#[derive(Debug)]
pub(crate) struct Meter {
    what: &'static str,
    total: Option<u64>,
    is_terminal: bool,
    started: Instant,
    pace: Pace,
}

impl Meter {
    /// Of `what` is being done (`reading`), of so many bytes if that is known.
    pub(crate) fn new(what: &'static str, total: Option<u64>) -> Self {
        let (is_terminal, started) = (io::stderr().is_terminal(), Instant::now());
        let pace = if is_terminal { Pace::of_a_terminal(started) } else { Pace::of_a_log(started) };
        Self { what, total, is_terminal, started, pace }
    }

    /// Now it is known how much it will be.
    pub(crate) fn set_total(&mut self, total: u64) {
        self.total = Some(total);
    }

    /// So many bytes are done.
    pub(crate) fn show(&mut self, done: u64) {
        self.show_with(done, String::new);
    }

    /// So many bytes are done; `more` is asked for the end of the line when one is due.
    fn show_with(&mut self, done: u64, more: impl FnOnce() -> String) {
        let now = Instant::now();
        if !self.pace.is_due(now) {
            return;
        }
        let line = format!("{}{}", line(self.what, done, self.total, now - self.started), printable(&more()));
        if self.is_terminal { say_live(&[line]) } else { say(&line) }
    }
}

impl Drop for Meter {
    /// What is said next has the line for itself.
    fn drop(&mut self) {
        end_live();
    }
}

fn line(what: &str, done: u64, total: Option<u64>, elapsed: Duration) -> String {
    let rate = u64::try_from(u128::from(done) * 1000 / elapsed.as_millis().max(1)).unwrap_or(u64::MAX);
    let of = total.map(|total| format!(" of {}", Bytes(total))).unwrap_or_default();
    let left = match total {
        // To the second: it is an estimate.
        Some(total) if rate > 0 && done < total => {
            format!(", {} left", Milliseconds((total - done).div_ceil(rate).saturating_mul(1000)))
        }
        _ => String::new(),
    };
    format!("vss: {what} {}{of}, {}/s{left}", Bytes(done), Bytes(rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_foretold_from_what_was() {
        let second = Duration::from_secs(1);
        assert_eq!(
            line("sending", 4 << 20, Some(12 << 20), second),
            "vss: sending 4.0 MiB of 12 MiB, 4.0 MiB/s, 2 s left"
        );
        assert_eq!(line("sending", 1, Some(7501), second), "vss: sending 1 B of 7.3 KiB, 1 B/s, 2 h 5 min left");
        assert_eq!(line("applying", 0, None, Duration::ZERO), "vss: applying 0 B, 0 B/s");
        assert_eq!(line("sending", 0, Some(5), second), "vss: sending 0 B of 5 B, 0 B/s");
        assert_eq!(line("sending", 6, Some(5), second), "vss: sending 6 B of 5 B, 6 B/s");
    }
}
