//! What ends a hold. Every member's thread watches for it itself, so that it needs no other thread to thaw.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};
use vss_linux::clock;
use vss_linux::hold::protocol::Cause;

/// The three ends that all members share; the fourth, release, is each member's own.
///
/// None of the descriptors is ever read while a thread waits, so what is ready stays ready, for every thread.
pub(crate) struct Stop {
    /// Readable once the deadline has passed: a timer on CLOCK_BOOTTIME, which goes on while the machine is suspended.
    pub(crate) deadline: OwnedFd,
    /// Readable once SIGTERM has come.
    pub(crate) terminated: OwnedFd,
}

impl Stop {
    pub(crate) fn new(terminated: OwnedFd) -> Result<Self, Errno> {
        let deadline = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(Self { deadline, terminated })
    }

    /// Sets the deadline, in nanoseconds of CLOCK_BOOTTIME.
    pub(crate) fn arm(&self, deadline_ns: u64) -> Result<(), Errno> {
        let once = Itimerspec { it_interval: clock::timespec(0), it_value: clock::timespec(deadline_ns) };
        timerfd_settime(&self.deadline, TimerfdTimerFlags::ABSTIME, &once).map(|_| ())
    }

    /// Waits until the hold is to end, for at most `limit`; `None` when the limit has passed.
    pub(crate) fn wait(&self, release: &OwnedFd, limit: Option<Duration>) -> Option<Cause> {
        let limit = limit.map(|limit| clock::timespec(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX)));
        let channel = rustix::stdio::stdin();
        loop {
            let mut watched = [
                PollFd::new(release, PollFlags::IN),
                PollFd::new(&self.deadline, PollFlags::IN),
                PollFd::new(&self.terminated, PollFlags::IN),
                // Nothing asked for: only POLLHUP, the death of vssd, is reported.
                PollFd::from_borrowed_fd(channel.as_fd(), PollFlags::empty()),
            ];
            match poll(&mut watched, limit.as_ref()) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                // poll fails only for lack of kernel memory: better no hold than one that does not end.
                Err(_) => return Some(Cause::Terminated),
            }
            let causes = [Cause::Release, Cause::Deadline, Cause::Terminated, Cause::Abandoned];
            let ready = watched.iter().position(|fd| !fd.revents().is_empty())?;
            return Some(causes[ready]);
        }
    }
}
