//! The answers to a call that was made with `more`.

use super::line::Line;
use super::{ClientError, receive};
use crate::management;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    marker::PhantomData,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

/// A call with `more`.
#[derive(Serialize)]
pub(super) struct More<'a> {
    #[serde(flatten)]
    pub(super) call: &'a management::Call,
    pub(super) more: bool,
}

/// Gives one answer after another, as they come; none after the service has sent the last, or after an error. Dropping it
/// ends the connection.
#[derive(Debug)]
pub struct Follower<R> {
    line: Line,
    over: bool,
    reply: PhantomData<fn() -> R>,
}

impl<R> Follower<R> {
    pub(super) fn new(line: Line) -> Self {
        Self { line, over: false, reply: PhantomData }
    }

    /// Longest wait for one answer; none, as at the beginning: for ever. One that was waited for in vain is the last.
    ///
    /// # Errors
    /// Zero is refused.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> Result<(), ClientError> {
        Ok(self.line.set_timeout(timeout)?)
    }
}

impl<R: DeserializeOwned> Iterator for Follower<R> {
    type Item = Result<R, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let received = receive(&mut self.line);
        self.over = !matches!(received, Ok((_, true)));
        Some(received.map(|(reply, _)| reply))
    }
}

impl<R> AsFd for Follower<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }
}
