//! The log: lines go to a ring in memory, and one thread writes them to stderr, or sends them to journald (`journal.rs`).
//!
//! stderr may be journald, and journald stops taking lines as soon as the file system of its files is frozen (experiment
//! "journald on a frozen fs": after 69 lines). So nobody but that one thread ever waits for stderr. A full ring drops the
//! oldest line and says how many were dropped.

use crate::journal::{self, Entry};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Lines kept while stderr does not take them.
const MOST_LINES: usize = 4096;

/// What the ring keeps.
#[derive(Debug)]
pub(crate) enum Line {
    /// For stderr, with its end.
    Text(Vec<u8>),
    /// For journald.
    Entry(Entry),
}

#[derive(Default)]
struct Ring {
    lines: VecDeque<Line>,
    dropped: u64,
    writing: bool,
}

/// The ring; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<(Mutex<Ring>, Condvar)>);

impl Log {
    /// A ring, and the thread that empties it.
    ///
    /// # Errors
    /// No thread can be made.
    pub(crate) fn start() -> io::Result<Self> {
        let log = Self::default();
        let ours = log.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || ours.empty())?;
        Ok(log)
    }

    /// Waits until everything is written, at most `limit`.
    pub(crate) fn flush(&self, limit: Duration) {
        let (_, written) = &*self.0;
        let unwritten = |ring: &mut Ring| ring.writing || !ring.lines.is_empty();
        // A log that cannot be written in time is given up.
        drop(written.wait_timeout_while(self.ring(), limit, unwritten));
    }

    /// Appends a line; never waits for who reads it.
    pub(crate) fn push(&self, line: Line) {
        let mut ring = self.ring();
        if ring.lines.len() == MOST_LINES {
            ring.lines.pop_front();
            ring.dropped += 1;
        }
        ring.lines.push_back(line);
        drop(ring);
        self.0.1.notify_all();
    }

    /// The oldest line.
    #[cfg(test)]
    pub(crate) fn take(&self) -> Option<Line> {
        self.ring().lines.pop_front()
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn empty(&self) {
        loop {
            let (lines, dropped) = {
                let mut ring = self.ring();
                ring.writing = false;
                self.0.1.notify_all();
                while ring.lines.is_empty() {
                    ring = self.0.1.wait(ring).unwrap_or_else(PoisonError::into_inner);
                }
                ring.writing = true;
                (std::mem::take(&mut ring.lines), std::mem::take(&mut ring.dropped))
            };
            let mut stderr = io::stderr().lock();
            // A closed stderr is nothing that the log could report.
            if dropped > 0 {
                drop(journal::warn(&mut stderr, &format!("{dropped} lines of the log were dropped")));
            }
            for line in lines {
                match line {
                    Line::Text(text) => drop(stderr.write_all(&text)),
                    Line::Entry(entry) => entry.send(&mut stderr),
                }
            }
        }
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(Line::Text(line.to_vec()));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
