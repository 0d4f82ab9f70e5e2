//! The flag that ends [`crate::run`]: a pipe, so that every wait can watch it.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// Ends everything that watches the [`Stop`] made with it, when it is dropped.
#[derive(Debug)]
pub struct Stopper(#[expect(dead_code, reason = "what counts is when it is closed")] PipeWriter);

/// Watches a [`Stopper`]. Copies watch the same one.
#[derive(Debug, Clone)]
pub struct Stop(Arc<PipeReader>);

impl Stop {
    /// A flag and its watcher.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new() -> io::Result<(Stopper, Self)> {
        let (reader, writer) = io::pipe()?;
        Ok((Stopper(writer), Self(Arc::new(reader))))
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
