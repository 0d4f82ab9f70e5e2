//! The calls of one session that wait for an earlier one: what to accept now, what later, what never. No synchronisation of
//! its own; the coordinator owns it.
//!
//! A call that needs work outside (taking a volume, telling writers Abort) keeps the session busy until the work has come
//! back; calls that arrive meanwhile wait here in their order. How many may wait is bounded by the connection loop (32
//! unanswered calls).

use std::collections::VecDeque;

/// The queue of one session.
#[derive(Debug)]
pub struct RequestQueue<T> {
    busy: bool,
    waiting: VecDeque<T>,
}

impl<T> Default for RequestQueue<T> {
    fn default() -> Self {
        Self { busy: false, waiting: VecDeque::new() }
    }
}

impl<T> RequestQueue<T> {
    /// The call if it may begin now; none when it waits.
    pub fn admit(&mut self, call: T) -> Option<T> {
        if self.busy || !self.waiting.is_empty() {
            self.waiting.push_back(call);
            None
        } else {
            Some(call)
        }
    }

    /// Work outside has begun.
    pub fn begin(&mut self) {
        self.busy = true;
    }

    /// Work outside has come back.
    pub fn end(&mut self) {
        self.busy = false;
    }

    /// True while work outside is going on.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// The next waiting call that may begin.
    pub fn take(&mut self) -> Option<T> {
        if self.busy { None } else { self.waiting.pop_front() }
    }

    /// Drops what waits: the requester is gone.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_keep_their_order_while_work_is_outside() {
        let mut queue = RequestQueue::default();
        assert_eq!(queue.admit(1), Some(1));
        queue.begin();
        assert_eq!(queue.admit(2), None);
        assert_eq!(queue.admit(3), None);
        assert_eq!(queue.take(), None);
        queue.end();
        assert_eq!(queue.admit(4), None, "must not overtake those that wait");
        assert_eq!([queue.take(), queue.take(), queue.take(), queue.take()], [Some(2), Some(3), Some(4), None]);
    }

    #[test]
    fn a_requester_that_is_gone_leaves_nothing() {
        let mut queue = RequestQueue::default();
        queue.begin();
        queue.admit(1);
        queue.clear();
        queue.end();
        assert_eq!(queue.take(), None);
    }
}
