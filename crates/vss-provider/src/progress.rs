//! How far slow work on a volume is: what a provider tells while it copies, compares or writes back.

pub use vss_model::{Progress, Work};

/// Who is told how far slow work is. Called from the provider's own thread, several times a second at most; does not block.
pub trait Watcher: Send + Sync {
    /// This is how far it is.
    fn progress(&self, progress: Progress);
}

/// Nobody is told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Watcher for Unwatched {
    fn progress(&self, _progress: Progress) {}
}
