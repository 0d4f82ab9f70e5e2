//! The guard's threads seen from outside: whether a system call of the guard on a member can be running.
//!
//! FITHAW beside a FIFREEZE that flushes, or beside another FITHAW, waits behind it, uninterruptibly: as long as the disk
//! takes. Whoever thaws in the guard's place asks here first, so that a disk that has stopped answering takes the guard's
//! thread and nobody else's.

use std::io;

use super::MAX_MEMBERS;
use crate::process::ProcessStat;

/// The beginning of the names of the guard's threads that work on a member; its index follows. At most 15 bytes together.
const PREFIX: &str = "vss-member-";

/// The name of the guard's thread for this member.
#[must_use]
pub fn name(member: usize) -> String {
    format!("{PREFIX}{member}")
}

/// The threads of one guard, by member.
#[derive(Debug)]
pub struct GuardThreads(Vec<Option<ProcessStat>>);

impl GuardThreads {
    /// Finds those that live now; a thread that is not found counts as gone. See [`crate::process::PidFd::open`] about the
    /// number.
    ///
    /// # Errors
    /// There is no such process, or no `/proc`.
    pub fn open(guard: u32) -> io::Result<Self> {
        let mut threads: Vec<Option<ProcessStat>> = (0..MAX_MEMBERS).map(|_| None).collect();
        for (name, stat) in ProcessStat::open_threads(guard)? {
            let member = name.strip_prefix(PREFIX).and_then(|number| number.parse::<usize>().ok());
            if let Some(place) = member.and_then(|member| threads.get_mut(member)) {
                *place = Some(stat);
            }
        }
        Ok(Self(threads))
    }

    /// True when the guard has no thread for this member any more: no call of it can be running.
    #[must_use]
    pub fn is_gone(&self, member: usize) -> bool {
        self.0.get(member).is_none_or(|thread| thread.as_ref().is_none_or(ProcessStat::is_dying))
    }

    /// True while the thread is in a call that no signal ends.
    #[must_use]
    pub fn is_in_kernel(&self, member: usize) -> bool {
        self.0.get(member).and_then(Option::as_ref).is_some_and(ProcessStat::is_uninterruptible)
    }
}
