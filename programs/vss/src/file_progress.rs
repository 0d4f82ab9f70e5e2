//! What is said on stderr while files are copied, checked or put back: a bar for a person at a terminal, now and then a line
//! for a log.

use crate::output::{printable, say};
use crate::signals::Signals;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};
use vss_backup::directory::Totals;
use vss_backup::progress::Progress;

/// Time between two looks of a bar, and between two lines of a log.
const BAR: Duration = Duration::from_millis(200);
const LINE: Duration = Duration::from_secs(30);
/// How many signs the bar has.
const WIDTH: usize = 24;

/// Tells how far it is.
#[derive(Debug)]
pub(crate) struct FileProgress {
    what: &'static str,
    signals: Signals,
    terminal: bool,
    started: Instant,
    shown: Instant,
    bytes: u64,
    /// How many there will be, where that is known.
    expected: Option<u64>,
    drawn: bool,
    told_to_stop: bool,
}

impl FileProgress {
    /// `what` is done: `copied`.
    pub(crate) fn new(what: &'static str, signals: Signals, expected: Option<u64>) -> Self {
        let now = Instant::now();
        let terminal = io::stderr().is_terminal();
        Self {
            what,
            signals,
            terminal,
            started: now,
            shown: now,
            bytes: 0,
            expected: expected.filter(|bytes| *bytes > 0),
            drawn: false,
            told_to_stop: false,
        }
    }

    fn show(&mut self, path: &Path, done: &Totals) {
        let pause = if self.terminal { BAR } else { LINE };
        if self.shown.elapsed() < pause {
            return;
        }
        self.shown = Instant::now();
        let text = line(self.what, self.bytes, self.expected, done, self.started.elapsed());
        if self.terminal {
            let columns = rustix::termios::tcgetwinsize(io::stderr()).map_or(80, |size| usize::from(size.ws_col));
            let text: String = format!("{text}  {}", printable(&path.display().to_string()))
                .chars()
                .take(columns.max(20) - 1)
                .collect();
            // Where even that fails there is nobody to tell.
            let _ = write!(io::stderr().lock(), "\r\x1b[K{text}");
            self.drawn = true;
        } else {
            say(&format!("vss: {text}"));
        }
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

/// The line that the result is said on begins at the left.
impl Drop for FileProgress {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Progress for FileProgress {
    fn at(&mut self, path: &Path, done: &Totals) {
        self.show(path, done);
    }

    fn bytes(&mut self, count: u64) {
        self.bytes = self.bytes.saturating_add(count);
    }

    fn stop(&mut self) -> bool {
        let stop = self.signals.wishes() > 0;
        if stop && !self.told_to_stop {
            self.told_to_stop = true;
            self.clear();
            say("vss: stopping; what is done is kept");
        }
        stop
    }
}

fn line(what: &str, bytes: u64, expected: Option<u64>, done: &Totals, took: Duration) -> String {
    let rate = size((bytes as f64 / took.as_secs_f64().max(0.001)) as u64);
    let so_far = format!("{} files, {} {what}, {rate}/s", done.files, size(bytes));
    match expected {
        None => so_far,
        Some(expected) => {
            let share = (bytes as f64 / expected as f64).min(1.0);
            let full = (share * WIDTH as f64) as usize;
            format!("[{}{}] {:3.0}%  {so_far}", "#".repeat(full), ".".repeat(WIDTH - full), share * 100.0)
        }
    }
}

/// Bytes for a person.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut name = "bytes";
    for unit in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        name = unit;
    }
    if name == "bytes" { format!("{bytes} bytes") } else { format!("{value:.1} {name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        let sizes = [0, 1023, 1024, 1 << 20, 3 << 29, u64::MAX].map(size);
        assert_eq!(sizes, ["0 bytes", "1023 bytes", "1.0 KiB", "1.0 MiB", "1.5 GiB", "16.0 EiB"]);
    }

    #[test]
    fn the_bar_is_full_at_the_end_and_not_there_without_an_end() {
        let done = Totals { files: 7, ..Totals::default() };
        let second = Duration::from_secs(1);
        assert_eq!(line("copied", 1024, None, &done, second), "7 files, 1.0 KiB copied, 1.0 KiB/s");
        assert!(line("copied", 512, Some(1024), &done, second).starts_with("[############............]  50%"));
        assert!(line("copied", 4096, Some(1024), &done, second).starts_with("[########################] 100%"));
    }
}
