//! How far a transfer is: one line on a terminal that is written over, several times a second.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};
use vss_model::bytes::Bytes;

/// Time between two lines.
const PAUSE: Duration = Duration::from_millis(250);

/// Shows how far it is, to a person alone.
#[derive(Debug)]
pub(crate) struct Meter {
    what: &'static str,
    total: Option<u64>,
    is_terminal: bool,
    started: Instant,
    shown: Option<Instant>,
}

impl Meter {
    /// Of `what` is being done (`reading`), of so many bytes if that is known.
    pub(crate) fn new(what: &'static str, total: Option<u64>) -> Self {
        Self { what, total, is_terminal: io::stderr().is_terminal(), started: Instant::now(), shown: None }
    }

    /// Now it is known how much it will be.
    pub(crate) fn set_total(&mut self, total: u64) {
        self.total = Some(total);
    }

    /// So much is done.
    pub(crate) fn show(&mut self, done: u64) {
        if !self.is_terminal || self.shown.unwrap_or(self.started).elapsed() < PAUSE {
            return;
        }
        self.shown = Some(Instant::now());
        let line = line(self.what, done, self.total, self.started.elapsed());
        // Back to the beginning of the line, and what is left of the last one away.
        let _ = write!(io::stderr().lock(), "\r{line}\x1b[K");
    }
}

impl Drop for Meter {
    /// What is said next has the line for itself.
    fn drop(&mut self) {
        if self.shown.is_some() {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

fn line(what: &str, done: u64, total: Option<u64>, elapsed: Duration) -> String {
    let rate = u64::try_from(u128::from(done) * 1000 / elapsed.as_millis().max(1)).unwrap_or(u64::MAX);
    let of = total.map(|total| format!(" of {}", Bytes(total))).unwrap_or_default();
    let left = match total {
        Some(total) if rate > 0 => format!(", {} s left", total.saturating_sub(done) / rate),
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
        assert_eq!(line("applying", 0, None, Duration::ZERO), "vss: applying 0 B, 0 B/s");
        assert_eq!(line("sending", 0, Some(5), second), "vss: sending 0 B of 5 B, 0 B/s");
    }
}
