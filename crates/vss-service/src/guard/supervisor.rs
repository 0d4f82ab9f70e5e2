//! The backup of the guard: when it dies or is late, its members are thawed here.
//!
//! One supervising thread watches the guard's process and a timer; one backup thread per member that is to be frozen
//! sleeps until it is needed, because a FITHAW may wait for a slow disk and must not delay the next one. All are made, and
//! their stacks faulted in, before anything is frozen; none of them makes a system call on a member while the guard
//! works.
//!
//! | what happens | what is done |
//! |---|---|
//! | the guard's process is gone | thaw at once, then clean up |
//! | it was killed, but a thread of it sits in the kernel | thaw the other members within 100 ms |
//! | 1 s after the deadline it still lives | thaw at once what it holds and does nothing about; SIGCONT, SIGTERM |
//! | 2 s after the deadline | SIGKILL |
//!
//! A member on which a call of the guard may be running is left to that call until it has ended: FITHAW would wait behind it,
//! and vssd with it, even if it were killed ([`vss_linux::hold::threads`]).

use std::io;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};
use vss_linux::clock;
use vss_linux::hold::ledger::Ledger;
use vss_linux::hold::thaw::rescue;
use vss_linux::hold::threads::GuardThreads;
use vss_linux::hold::{LATE_AFTER, THAW_PAUSE, expedite};
use vss_linux::process::{self, PidFd, ProcessStat, Signal};

use super::nanoseconds;

/// From SIGCONT and SIGTERM to SIGKILL.
const KILL_AFTER: Duration = Duration::from_secs(1);

/// The stack of a backup thread; its calls are a few frames deep.
const STACK: usize = 64 * 1024;

/// The handle that the guard's owner keeps. Dropping it leaves the threads to finish their work.
pub(super) struct Supervisor(Arc<Shared>);

struct Shared {
    ledger: Ledger,
    directories: Vec<OwnedFd>,
    /// Readable when no thread of the guard is left.
    process: PidFd,
    /// Tells when the guard has been killed but is not gone.
    stat: ProcessStat,
    /// Tells on which members a call of the guard may be running.
    threads: GuardThreads,
    /// The guard has said that the member is frozen: its FIFREEZE has returned.
    frozen: Vec<AtomicBool>,
    /// Readable when the guard is late.
    late: OwnedFd,
    /// The timer is set: a hold is on, or the end is near.
    armed: AtomicBool,
    /// Readable when `armed` has changed.
    wake: OwnedFd,
    work: Mutex<Work>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    /// The guard works.
    Watch,
    /// The backup threads thaw; the guard may still be in the kernel.
    Thaw,
    /// The guard is gone; the backup threads thaw what is left, and end.
    Finish,
    /// Everything is thawed and cleaned up.
    Done,
}

impl Supervisor {
    /// Takes `guard` over, when everything could be made.
    pub(super) fn start(guard: &mut Option<Child>, ledger: Ledger, directories: Vec<OwnedFd>) -> io::Result<Self> {
        let Some(pid) = guard.as_ref().map(Child::id) else { return Err(Errno::INVAL.into()) };
        let shared = Arc::new(Shared {
            process: PidFd::open(pid)?,
            stat: ProcessStat::open(pid)?,
            threads: GuardThreads::open(pid)?,
            frozen: directories.iter().map(|_| AtomicBool::new(false)).collect(),
            late: timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?,
            armed: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            ledger,
            directories,
            work: Mutex::new(Work::Watch),
            changed: Condvar::new(),
        });
        let made = shared.make_threads(guard);
        if made.is_err() {
            // The backup threads that exist find the guard gone, killed by the caller, and nothing frozen.
            shared.set(Work::Finish);
        }
        made.map(|()| Self(shared))
    }

    /// The guard is late at `at_ns` of CLOCK_BOOTTIME.
    pub(super) fn late_at(&self, at_ns: u64) {
        self.0.set_timer(at_ns);
    }

    /// The guard has said that FIFREEZE of this member has returned.
    pub(super) fn frozen(&self, member: usize) {
        if let Some(frozen) = self.0.frozen.get(member) {
            frozen.store(true, Ordering::Release);
        }
    }

    /// The hold is over.
    pub(super) fn not_late(&self) {
        self.0.set_timer(0);
    }

    /// The guard has been told to end: it is late in a second.
    pub(super) fn hurry(&self) {
        self.0.set_timer(clock::boottime_ns() + nanoseconds(LATE_AFTER));
    }

    /// True when the guard has been killed or has ended, although threads of it may still be in the kernel.
    pub(super) fn guard_is_dying(&self) -> bool {
        self.0.process.is_gone() || self.0.stat.is_dying()
    }

    /// Waits until all is done, at most `limit`.
    pub(super) fn wait(&self, limit: Duration) -> bool {
        let started = Instant::now();
        let mut work = self.0.work();
        while *work != Work::Done {
            let left = limit.saturating_sub(started.elapsed());
            if left.is_zero() {
                return false;
            }
            work = self.0.changed.wait_timeout(work, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Drop for Supervisor {
    /// The guard ends because its channel is closed with this handle; should it hang, it is late in a second.
    fn drop(&mut self) {
        self.hurry();
    }
}

impl Shared {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, next: Work) {
        let mut work = self.work();
        *work = next.max(*work);
        self.changed.notify_all();
    }

    /// 0 = never.
    fn set_timer(&self, at_ns: u64) {
        let once = Itimerspec { it_interval: clock::timespec(0), it_value: clock::timespec(at_ns) };
        // Fails only for a bad descriptor or a bad time, and neither is given.
        let _ = timerfd_settime(&self.late, TimerfdTimerFlags::ABSTIME, &once);
        self.armed.store(at_ns != 0, Ordering::Release);
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn make_threads(self: &Arc<Self>, guard: &mut Option<Child>) -> io::Result<()> {
        let mut backups = Vec::new();
        let members = self.ledger.members.iter().enumerate();
        for (index, _) in members.filter(|(_, member)| member.level.is_some()) {
            let shared = Arc::clone(self);
            let thread = thread::Builder::new().name("vss-backup-thaw".to_owned()).stack_size(STACK);
            backups.push(thread.spawn(move || shared.back_up(index))?);
        }
        // The child goes over only with a thread that exists: a slot that is emptied by it.
        let (give, take) = std::sync::mpsc::sync_channel(1);
        let shared = Arc::clone(self);
        let thread = thread::Builder::new().name("vss-supervisor".to_owned()).stack_size(STACK);
        thread.spawn(move || {
            process::fault_in_stack();
            if let Ok(guard) = take.recv() {
                shared.supervise(guard, backups);
            }
        })?;
        if let Some(child) = guard.take() {
            // The thread receives before it does anything else.
            let _ = give.send(child);
        }
        Ok(())
    }

    fn supervise(&self, mut guard: Child, backups: Vec<JoinHandle<()>>) {
        self.watch();
        // Nobody else reaps it; if somebody did, it is gone all the same.
        let _ = guard.wait();
        self.set(Work::Finish);
        for backup in backups {
            // A backup thread does not panic; if it did, the sweep finds the ledger.
            let _ = backup.join();
        }
        while !expedite::restore_after(&self.ledger) {
            thread::sleep(THAW_PAUSE);
        }
        // Should it stay, the sweep of the next start removes it.
        let _ = self.ledger.remove();
        self.set(Work::Done);
    }

    /// Returns when the guard is gone.
    fn watch(&self) {
        let mut told = false;
        loop {
            // In a hold only: nothing wakes a sleeper when a process is killed whose thread stays in the kernel.
            let tick = self.armed.load(Ordering::Acquire).then(|| clock::timespec(nanoseconds(THAW_PAUSE)));
            let mut watched = [
                PollFd::new(&self.process, PollFlags::IN),
                PollFd::new(&self.late, PollFlags::IN),
                PollFd::new(&self.wake, PollFlags::IN),
            ];
            if poll(&mut watched, tick.as_ref()).is_err() {
                continue;
            }
            let [gone, late, woken] = watched.map(|fd| !fd.revents().is_empty());
            if gone {
                return;
            }
            if woken {
                // Only the wake-up counts.
                let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
            }
            if tick.is_some() && self.stat.is_dying() {
                self.set(Work::Thaw);
            }
            // The owner may have moved the timer since poll; read says whether it has really expired.
            if !late || rustix::io::read(&self.late, &mut [0u8; 8]).is_err() {
                continue;
            }
            self.set(Work::Thaw);
            if told {
                // Fails when it is gone, which the next poll says.
                let _ = self.process.signal(Signal::KILL);
            } else {
                let _ = self.process.signal(Signal::CONT);
                let _ = self.process.signal(Signal::TERM);
                self.set_timer(clock::boottime_ns() + nanoseconds(KILL_AFTER));
            }
            told = true;
        }
    }

    /// True when FITHAW of this member waits behind no call of the guard. A thread that does not sit in the kernel although
    /// its FIFREEZE has returned is stopped, or hangs otherwise.
    fn may_thaw(&self, index: usize) -> bool {
        let is_frozen = self.frozen.get(index).is_some_and(|frozen| frozen.load(Ordering::Acquire));
        self.threads.is_gone(index) || (is_frozen && !self.threads.is_in_kernel(index))
    }

    /// The backup thread of one member.
    fn back_up(&self, index: usize) {
        process::fault_in_stack();
        let mut work = self.work();
        while *work == Work::Watch {
            work = self.changed.wait(work).unwrap_or_else(PoisonError::into_inner);
        }
        drop(work);
        let pause = || {
            let work = self.work();
            if *work == Work::Thaw {
                // Woken early when the guard is gone.
                drop(self.changed.wait_timeout(work, THAW_PAUSE));
            } else {
                drop(work);
                thread::sleep(THAW_PAUSE);
            }
            true
        };
        let Some(directory) = self.directories.get(index) else { return };
        rescue(&self.ledger, index, directory, || self.process.is_gone(), || self.may_thaw(index), pause);
    }
}
