//! The sweep at the start of vssd: whatever a dead guard of a dead vssd left frozen is thawed, and nothing else.
//!
//! For each ledger, in a thread of its own:
//!
//! - *Written in another boot, or cut short*: nothing can be frozen by it. Removed.
//! - *Not locked*: its guard is gone. What is marked as ours is thawed at once.
//! - *Locked, but its guard was killed*: a thread of it sits in the kernel. What is marked as ours is thawed as soon as the
//!   guard's thread of that member is gone: at once, except where the kernel still works on it.
//! - *Locked*: a guard without a vssd lives; it is about to thaw by itself. Only when it has not ended 1 s after its
//!   deadline it gets SIGCONT and SIGTERM, 1 s later SIGKILL, and then as above.
//!
//! The lock is free when no thread of the guard is in the kernel any more: only then FITHAW's EINVAL is believed. A disk that
//! does not answer keeps it taken, so whoever sweeps must be able to go on meanwhile.

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::ledger::{Ledger, State};
use super::thaw::{Rescue, rescue};
use super::threads::GuardThreads;
use super::{HOLD_LIMIT, LATE_AFTER, LEDGER_DIRECTORY, THAW_PAUSE, expedite, find};
use crate::clock;
use crate::process::{PidFd, ProcessStat, Signal};

/// Long enough for the slowest regular way: a guard that was stopped when its hold began, is not woken by SIGCONT and
/// SIGTERM, and is killed. For who has nothing else to do; [`START_LIMIT`] for a service that others wait for.
pub const SWEEP_LIMIT: Duration = Duration::from_secs(15);

/// A service waits so long for the sweep before it serves. Whatever can be thawed at once is thawed by then, and a guard
/// without a vssd has ended; only a disk that does not answer takes longer, and that must not keep the other volumes waiting.
pub const START_LIMIT: Duration = Duration::from_secs(2);

/// How often a lock is tried while its guard is given time.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// From SIGCONT and SIGTERM to SIGKILL.
const KILL_AFTER: Duration = Duration::from_secs(1);

/// What was done about one ledger.
#[derive(Debug)]
pub struct Swept {
    /// Its file name: the name of the hold.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What became of each member, by the path that it was mounted on.
    pub members: Vec<(String, Fate)>,
}

/// How the sweep of one ledger ended.
#[derive(Debug)]
pub enum Outcome {
    /// Of another boot, or never finished: removed.
    Obsolete,
    /// Its guard was dead.
    GuardWasDead,
    /// Its guard ended by itself while we waited.
    GuardEnded,
    /// Its guard had to be told or killed.
    GuardStopped,
    /// The time given to [`sweep`] is over. A thread goes on with it as long as this process lives.
    Unfinished,
    /// The ledger could not be read or removed.
    Failed(io::Error),
}

/// What became of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// See [`Rescue`].
    Rescued(Rescue),
    /// It may be frozen by us, but it is mounted nowhere any more.
    NotFound,
}

/// Sweeps all ledgers below `runtime_directory`, for at most `limit` (usually [`SWEEP_LIMIT`]).
///
/// Only for a process that knows that no other vssd works on this directory.
///
/// # Errors
/// The directory of the ledgers cannot be read. It is no error when there is none.
pub fn sweep(runtime_directory: &Path, limit: Duration) -> io::Result<Vec<Swept>> {
    let directory = match std::fs::read_dir(runtime_directory.join(LEDGER_DIRECTORY)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        directory => directory?,
    };
    let started = Instant::now();
    let mut waiting = Vec::new();
    for entry in directory {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (tell, told) = mpsc::channel();
        let report_name = name.clone();
        thread::Builder::new().name("vss-sweep".to_owned()).spawn(move || {
            // Nobody listens any more when the limit has passed.
            let _ = tell.send(sweep_one(&path, report_name));
        })?;
        waiting.push((name, told));
    }
    let finish = |(name, told): (String, mpsc::Receiver<Swept>)| {
        let left = limit.saturating_sub(started.elapsed());
        told.recv_timeout(left).unwrap_or(Swept { name, outcome: Outcome::Unfinished, members: Vec::new() })
    };
    Ok(waiting.into_iter().map(finish).collect())
}

fn sweep_one(path: &Path, name: String) -> Swept {
    let failed = |name, error| Swept { name, outcome: Outcome::Failed(error), members: Vec::new() };
    let ledger = match Ledger::open(path) {
        Ok(ledger) => ledger,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return match remove_unlocked(path) {
                Ok(()) => Swept { name, outcome: Outcome::Obsolete, members: Vec::new() },
                Err(error) => failed(name, error),
            };
        }
        Err(error) => return failed(name, error),
    };
    if clock::boot_id().is_ok_and(|boot| boot != ledger.boot) {
        return match ledger.remove() {
            Ok(()) => Swept { name, outcome: Outcome::Obsolete, members: Vec::new() },
            Err(error) => failed(name, error),
        };
    }

    let ledger = Arc::new(ledger);
    let mut outcome = if ledger.try_lock() {
        Outcome::GuardWasDead
    } else if wait_for_lock(&ledger, patience(&ledger)) {
        Outcome::GuardEnded
    } else {
        stop_guard(&ledger);
        Outcome::GuardStopped
    };
    let members = thaw_all(&ledger);
    while !expedite::restore_after(&ledger) {
        thread::sleep(THAW_PAUSE);
    }
    // A member that is mounted nowhere stays named, so that the next start looks for it again.
    let all_found = members.iter().all(|(_, fate)| *fate != Fate::NotFound);
    if all_found && let Err(error) = ledger.remove() {
        outcome = Outcome::Failed(error);
    }
    Swept { name, outcome, members }
}

/// How long a living guard is left alone: until it is late. Without a deadline it has not frozen anything and has no
/// reason to live on.
fn patience(ledger: &Ledger) -> Duration {
    let left = Duration::from_nanos(ledger.deadline_ns().saturating_sub(clock::boottime_ns()));
    left.min(HOLD_LIMIT) + LATE_AFTER
}

/// False when the guard has not ended within `limit`, or never will by itself because it was killed.
fn wait_for_lock(ledger: &Ledger, limit: Duration) -> bool {
    let started = Instant::now();
    let guard = ProcessStat::open(ledger.guard);
    while !ledger.try_lock() {
        // A number that means somebody else by now has let the lock go: seen in the next round.
        let dying = guard.as_ref().is_ok_and(ProcessStat::is_dying);
        if dying || started.elapsed() >= limit {
            return false;
        }
        thread::sleep(LOCK_PAUSE);
    }
    true
}

/// Tells the living guard to end, then kills it; it may still be in the kernel afterwards.
fn stop_guard(ledger: &Ledger) {
    // The lock is tried once more after the pidfd was opened: still taken, so the guard lived all the time and the
    // number still means it.
    let Ok(guard) = PidFd::open(ledger.guard) else { return };
    if ledger.try_lock() {
        return;
    }
    let _ = guard.signal(Signal::CONT);
    let _ = guard.signal(Signal::TERM);
    if !wait_for_lock(ledger, KILL_AFTER) {
        let _ = guard.signal(Signal::KILL);
    }
}

/// Thaws what is ours, each member in its own thread: one whose FITHAW waits delays no other.
fn thaw_all(ledger: &Arc<Ledger>) -> Vec<(String, Fate)> {
    // Opened before the lock is tried: still taken, so the number means the guard.
    let of_guard = Arc::new(GuardThreads::open(ledger.guard).ok());
    let gone = Arc::new(AtomicBool::new(ledger.try_lock()));
    let mut threads = Vec::new();
    for (index, entry) in ledger.members.iter().enumerate() {
        let (ledger, gone, identity) = (Arc::clone(ledger), Arc::clone(&gone), entry.identity);
        let of_guard = Arc::clone(&of_guard);
        threads.push(thread::spawn(move || {
            if gone.load(Ordering::Acquire) && ledger.state(index) != State::Ours {
                return Fate::Rescued(Rescue::NotOurs);
            }
            let Some(directory) = find::open(&identity) else { return Fate::NotFound };
            let pause = || {
                thread::sleep(THAW_PAUSE);
                true
            };
            let may_call = || of_guard.as_ref().as_ref().is_some_and(|threads| threads.is_gone(index));
            Fate::Rescued(rescue(&ledger, index, directory, || gone.load(Ordering::Acquire), may_call, pause))
        }));
    }
    while !ledger.try_lock() {
        thread::sleep(LOCK_PAUSE);
    }
    gone.store(true, Ordering::Release);
    let fates = threads.into_iter().map(|thread| thread.join().unwrap_or(Fate::Rescued(Rescue::Unfinished)));
    ledger.members.iter().map(|entry| entry.path.clone()).zip(fates).collect()
}

/// Removes a file that is no whole ledger, unless its guard is just writing it.
fn remove_unlocked(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).open(path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    std::fs::remove_file(PathBuf::from(path))
}

impl fmt::Display for Swept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hold {}: ", self.name)?;
        match &self.outcome {
            Outcome::Obsolete => write!(f, "its ledger was out of date and is removed")?,
            Outcome::GuardWasDead => write!(f, "its guard was dead")?,
            Outcome::GuardEnded => write!(f, "its guard ended by itself")?,
            Outcome::GuardStopped => write!(f, "its guard hung and was ended")?,
            Outcome::Unfinished => write!(f, "not finished yet, going on")?,
            Outcome::Failed(error) => write!(f, "its ledger could not be swept: {error}")?,
        }
        for (path, fate) in &self.members {
            let said = match fate {
                Fate::Rescued(Rescue::NotOurs) => continue,
                Fate::Rescued(Rescue::Thawed) => "was frozen, is thawed",
                Fate::Rescued(Rescue::NotFrozen) => "was not frozen any more",
                Fate::Rescued(Rescue::Unfinished) => "may still be frozen",
                Fate::NotFound => "may still be frozen, but is mounted nowhere",
            };
            write!(f, "; {path} {said}")?;
        }
        Ok(())
    }
}
