//! What a caller hears while files are copied, checked or put back, and how it asks to stop.

use crate::directory::Totals;
use std::path::Path;

/// Told about every file; every method may do nothing.
pub trait Progress {
    /// Work at `path` begins; `done` is what is done so far.
    fn at(&mut self, path: &Path, done: &Totals) {
        let _ = (path, done);
    }

    /// So many more bytes of contents were dealt with.
    fn bytes(&mut self, count: u64) {
        let _ = count;
    }

    /// True when the user wished to stop.
    fn stop(&mut self) -> bool {
        false
    }
}

/// Hears nothing and never stops.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Progress for Quiet {}
