//! vssd's half of the guard: starts it, talks to it, and thaws in its place should it fail.
//!
//! ```text
//!                spawn        sync (any number)        hold                 release
//!   (nothing) ---------> Ready ------------------> Ready ---> Held -----------------> Spent
//!                          |                        |          |  deadline, death,
//!                          +---------- any error ---+----------+  a foreign thaw
//!                                         v
//!                                       Spent: nothing but `finish` is possible; what is frozen is being thawed
//! ```
//!
//! [`Guard::hold`] and [`Guard::release`] belong to the window thread: from the first FIFREEZE on nothing here allocates,
//! logs or opens. No system call on a member is made by these functions; the guard makes them, and, should it die or be
//! late, one backup thread per member made beforehand (`supervisor.rs`). What survives vssd too is
//! [`vss_linux::hold::sweep`]'s.
//!
//! Not here: which volumes are members, on which nesting level, and what is done in the hold.

mod error;
mod failure;
mod hold;
mod program;
mod scope;
mod supervisor;

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::fault;
use crate::hold_trace::{HeldTimes, HoldTrace, Times};
use rustix::io::Errno;
use vss_linux::clock;
use vss_linux::hold::channel::{self, Received};
use vss_linux::hold::ledger::Ledger;
use vss_linux::hold::protocol::{Answer, Call, Request};
use vss_linux::hold::{HOLD_LIMIT, LATE_AFTER, LEDGER_DIRECTORY};

pub use error::{GuardError, GuardErrorKind};
pub use hold::{Hold, Released};

use failure::{Failure, unexpected};
use program::start;
use supervisor::Supervisor;

/// A guard that is not ready after so long is given up; it usually needs 5 ms.
const READY_LIMIT: Duration = Duration::from_secs(10);

/// How often a wait for an answer looks whether the guard was killed. A killed process whose thread sits in the kernel
/// keeps its end of the channel open, so the channel alone does not tell.
const DEATH_CHECK: Duration = Duration::from_millis(50);

/// One volume of the set.
#[derive(Debug)]
pub struct GuardMember {
    /// Its name, for errors.
    pub volume: String,
    /// A directory on it, open for reading (not O_PATH).
    pub directory: OwnedFd,
    /// Nesting level from 0 (the innermost: nothing of the set lies on it) to 254, which is frozen later and thawed
    /// sooner. `None`: flushed with the others, never frozen.
    pub level: Option<u8>,
}

/// What can be set for a guard.
#[derive(Default)]
pub struct GuardOptions {
    /// A shorter limit than [`HOLD_LIMIT`] for the hold.
    pub limit: Option<Duration>,
    /// Told of every message, in the thread that sends or receives it.
    pub monitor: Option<Box<dyn Monitor>>,
}

/// Watches the protocol.
pub trait Monitor: Send {
    /// `request` has been sent.
    fn sent(&mut self, request: &Request);
    /// `answer` has come.
    fn received(&mut self, answer: &Answer);
}

/// The guard of one shadow copy set.
pub struct Guard {
    pid: u32,
    scope: Option<String>,
    memory_locked: bool,
    expedites: bool,
    limit: Duration,
    phase: Phase,
    members: Vec<Member>,
    /// The levels that are used, innermost first.
    levels: Vec<u8>,
    monitor: Option<Box<dyn Monitor>>,
    trace: HoldTrace,
    /// When the release was asked for.
    release_ns: Option<u64>,
    /// Declared before the supervisor: closing it is what tells the guard to end.
    channel: Option<OwnedFd>,
    supervisor: Supervisor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Ready,
    Held(Hold),
    Spent,
}

#[derive(Debug)]
struct Member {
    volume: Arc<str>,
    level: Option<u8>,
    /// What it was asked last has not been answered.
    awaited: bool,
    frozen: bool,
}

impl Guard {
    /// Starts the guard `program` with `members` and waits until it is ready: its threads made, its memory locked, its
    /// ledger `runtime_directory/holds/name` written, and, under systemd, a scope of its own around it. Nothing is flushed or
    /// frozen yet.
    ///
    /// `name` is the file name of the ledger, unique among the living guards: the id of the set.
    ///
    /// # Errors
    /// `CannotStart`, or `Refused` by the guard: a member that cannot be identified, a runtime directory that lies on
    /// a member that is to be frozen.
    pub fn spawn(
        program: &Path,
        runtime_directory: &Path,
        name: &str,
        members: Vec<GuardMember>,
        options: GuardOptions,
    ) -> Result<Self, GuardError> {
        let cannot =
            |errno: io::Error| GuardError::new(GuardErrorKind::CannotStart, None, Errno::from_io_error(&errno));
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_{}".contains(c);
        if name.is_empty() || name.len() > 100 || !name.chars().all(plain) {
            return Err(cannot(Errno::INVAL.into()));
        }
        let limit = options.limit.unwrap_or(HOLD_LIMIT).min(HOLD_LIMIT);
        let ledgers = runtime_directory.join(LEDGER_DIRECTORY);
        DirBuilder::new().recursive(true).mode(0o700).create(&ledgers).map_err(cannot)?;
        let ledger = ledgers.join(name);

        let (channel, theirs) = channel::pair().map_err(cannot)?;
        let mut starting = start(program, &ledger, limit, theirs).map_err(cannot)?;
        let descriptors: Vec<_> = members.iter().map(|member| (member.directory.as_fd(), member.level)).collect();
        channel::send_prepare(&channel, &descriptors).map_err(cannot)?;
        let ready_by = clock::boottime_ns() + nanoseconds(READY_LIMIT);
        let (memory_locked, expedites) = match channel::receive_answer(&channel, ready_by) {
            Ok(Received::Message(Answer::Ready { memory_locked, expedites })) => (memory_locked, expedites),
            Ok(Received::Message(Answer::Refused { refusal, member, errno })) => {
                let volume = member.and_then(|member| members.get(usize::from(member)));
                let volume = volume.map(|member| Arc::from(member.volume.as_str()));
                return Err(GuardError::new(GuardErrorKind::Refused(refusal), volume, errno));
            }
            Ok(Received::Nothing) => return Err(cannot(Errno::TIMEDOUT.into())),
            Ok(_) => return Err(cannot(Errno::PIPE.into())),
            Err(errno) => return Err(cannot(errno.into())),
        };

        let pid = starting.id();
        let scope = scope::enter(pid, name);
        let ledger = Ledger::open(&ledger).map_err(cannot)?;
        let (mut directories, mut ours) = (Vec::new(), Vec::new());
        for GuardMember { volume, directory, level } in members {
            directories.push(directory);
            ours.push(Member { volume: volume.into(), level, awaited: false, frozen: false });
        }
        let mut levels: Vec<u8> = ours.iter().filter_map(|member| member.level).collect();
        levels.sort_unstable();
        levels.dedup();
        let trace = HoldTrace::new(ours.iter().map(|member| member.level));
        let supervisor = Supervisor::start(&mut starting.0, ledger, directories).map_err(cannot)?;
        Ok(Self {
            pid,
            scope,
            memory_locked,
            expedites,
            limit,
            phase: Phase::Ready,
            members: ours,
            levels,
            monitor: options.monitor,
            trace,
            release_ns: None,
            channel: Some(channel),
            supervisor,
        })
    }

    /// Process id of the guard.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The systemd scope that the guard is in; none where systemd is not the manager, or where it refused.
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// True when the guard's memory is locked; without it a hold works, but may wait for a disk.
    pub fn memory_locked(&self) -> bool {
        self.memory_locked
    }

    /// True when the guard can make a freeze short with `/sys/kernel/rcu_expedited`.
    pub fn expedites(&self) -> bool {
        self.expedites
    }

    /// What has happened so far.
    pub fn trace(&self) -> &HoldTrace {
        &self.trace
    }

    /// Flushes every member at the same time and waits for all, at most `limit`.
    ///
    /// # Errors
    /// `SyncTimeout` names the first member that was not ready, `SyncFailed` the one whose flush failed. The guard is
    /// spent, and nothing was frozen.
    pub fn sync(&mut self, limit: Duration) -> Result<(), GuardError> {
        self.expect_ready()?;
        let began_ns = clock::boottime_ns();
        let until_ns = began_ns.saturating_add(nanoseconds(limit));
        self.members.iter_mut().for_each(|member| member.awaited = true);
        let synced = self.send(Request::Sync).and_then(|()| {
            self.collect(until_ns, GuardErrorKind::SyncTimeout, |_, answer| match answer {
                Answer::Synced(_) => Ok(()),
                other => Err(unexpected(other)),
            })
        });
        synced.map_err(|failure| self.spend(failure))?;
        self.trace.flushed(Times { began_ns, ended_ns: clock::boottime_ns() });
        Ok(())
    }

    /// Freezes every member that has a level, level after level, innermost first.
    ///
    /// # Errors
    /// The first member that could not be frozen. Then the others are released, and the call returns when they have
    /// been thawed or after a second, whichever is first.
    pub fn hold(&mut self) -> Result<Hold, GuardError> {
        self.expect_ready()?;
        let began_ns = clock::boottime_ns();
        let deadline_ns = began_ns + nanoseconds(self.limit);
        let mut hold = Hold { began_ns, frozen_ns: began_ns, deadline_ns };
        match self.freeze_levels(&mut hold) {
            Ok(()) => {
                self.phase = Phase::Held(hold);
                let Hold { began_ns, frozen_ns, .. } = hold;
                self.trace.held = Some(HeldTimes { began_ns, frozen_ns, release_ns: None, thawed_ns: None });
                Ok(hold)
            }
            Err(mut failure) => {
                let awaited = self.members.iter().position(|member| member.awaited);
                if failure.kind == GuardErrorKind::HoldExpired && awaited.is_some() {
                    // The others were thawed at the deadline because this one did not freeze.
                    failure = Failure { member: awaited, ..Failure::of(GuardErrorKind::FreezeTimeout) };
                }
                if failure.kind != GuardErrorKind::GuardDied && self.send(Request::Release).is_ok() {
                    let until_ns = clock::boottime_ns() + nanoseconds(LATE_AFTER);
                    self.members.iter_mut().for_each(|member| member.awaited |= member.frozen);
                    let until_thawed = |member: &mut Member, _| {
                        member.awaited = member.frozen;
                        Ok(())
                    };
                    // A failure of this is the supervisor's business; the caller is told the first one.
                    let _ = self.collect(until_ns, failure.kind, until_thawed);
                }
                Err(self.spend(failure))
            }
        }
    }

    fn freeze_levels(&mut self, hold: &mut Hold) -> Result<(), Failure> {
        let late_ns = hold.deadline_ns + nanoseconds(LATE_AFTER);
        if !self.levels.is_empty() {
            self.supervisor.late_at(late_ns);
        }
        let mut first_call_ns = u64::MAX;
        for index in 0..self.levels.len() {
            let level = self.levels[index];
            let of_level = |member: &&mut Member| member.level == Some(level);
            self.members.iter_mut().filter(of_level).for_each(|member| member.awaited = true);
            self.send(Request::Freeze { level })?;
            self.collect(late_ns, GuardErrorKind::FreezeTimeout, |_, answer| match answer {
                Answer::Frozen(call) => {
                    first_call_ns = first_call_ns.min(call.called_ns);
                    hold.frozen_ns = hold.frozen_ns.max(call.returned_ns);
                    Ok(())
                }
                other => Err(unexpected(other)),
            })?;
        }
        if first_call_ns != u64::MAX {
            hold.began_ns = first_call_ns;
        }
        Ok(())
    }

    /// Thaws every member, outermost level first, and says whether the hold was whole.
    ///
    /// # Errors
    /// `HoldExpired`, `Lost` or `GuardDied`: a member was thawed before this call, so the set is void. `ThawFailed`:
    /// the hold was whole but a member is not thawed yet; the guard and its backup go on trying.
    pub fn release(&mut self) -> Result<Released, GuardError> {
        let Phase::Held(hold) = self.phase else {
            return Err(GuardError::new(GuardErrorKind::Misused, None, None));
        };
        let release_ns = clock::boottime_ns();
        self.release_ns = Some(release_ns);
        let mut thawed_ns = release_ns;
        for member in &mut self.members {
            member.awaited = member.frozen;
        }
        let sent = self.send(Request::Release);
        // Of a guard that has ended, what it said before is read all the same: it tells who thawed.
        let late_ns = release_ns.max(hold.deadline_ns) + nanoseconds(LATE_AFTER);
        let until_ns = if sent.is_ok() { late_ns } else { release_ns };
        let answered = self.collect(until_ns, GuardErrorKind::ThawFailed, |_, answer| match answer {
            Answer::Thawed(Call { called_ns, returned_ns, .. }, _) if called_ns >= release_ns => {
                thawed_ns = thawed_ns.max(returned_ns);
                Ok(())
            }
            Answer::Lost(..) if fault::is_off("lost") => Ok(()),
            other => Err(unexpected(other)),
        });
        let released = match (sent, answered) {
            (Err(died), Err(said)) => Err(if said.kind == GuardErrorKind::ThawFailed { died } else { said }),
            (Err(failure), Ok(())) | (Ok(()), Err(failure)) => Err(failure),
            (Ok(()), Ok(())) => Ok(()),
        };
        match released {
            Ok(()) => {
                self.phase = Phase::Spent;
                self.supervisor.not_late();
                let Hold { began_ns, frozen_ns, .. } = hold;
                let (release, thawed) = (Some(release_ns), Some(thawed_ns));
                self.trace.held = Some(HeldTimes { began_ns, frozen_ns, release_ns: release, thawed_ns: thawed });
                Ok(Released { hold, release_ns, thawed_ns })
            }
            Err(failure) => Err(self.spend(failure)),
        }
    }

    /// Ends the guard and waits until it is gone, nothing of it is frozen and its ledger is removed, at most `limit`.
    /// False when that takes longer; it goes on in the background, as it does when the guard is just dropped.
    pub fn finish(mut self, limit: Duration) -> bool {
        self.channel = None;
        self.supervisor.hurry();
        self.supervisor.wait(limit)
    }

    fn expect_ready(&self) -> Result<(), GuardError> {
        match self.phase {
            Phase::Ready => Ok(()),
            Phase::Held(_) | Phase::Spent => Err(GuardError::new(GuardErrorKind::Misused, None, None)),
        }
    }

    fn spend(&mut self, failure: Failure) -> GuardError {
        self.phase = Phase::Spent;
        let volume = failure.member.and_then(|index| self.members.get(index)).map(|member| Arc::clone(&member.volume));
        GuardError::new(failure.kind, volume, failure.errno)
    }

    fn send(&mut self, request: Request) -> Result<(), Failure> {
        let channel = self.channel.as_ref().ok_or(Failure::of(GuardErrorKind::Misused))?;
        channel::send_request(channel, request).map_err(|errno| Failure::of(GuardErrorKind::GuardDied).errno(errno))?;
        if let Some(monitor) = &mut self.monitor {
            monitor.sent(&request);
        }
        Ok(())
    }

    /// Takes answers until every awaited member has been heard, giving each to `judge`, which turns an answer that must
    /// not come into a failure. Stops at the first failure.
    fn collect(
        &mut self,
        until_ns: u64,
        timeout: GuardErrorKind,
        mut judge: impl FnMut(&mut Member, Answer) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        while let Some(awaited) = self.members.iter().position(|member| member.awaited) {
            let channel = self.channel.as_ref().ok_or(Failure::of(GuardErrorKind::Misused))?;
            let now_ns = clock::boottime_ns();
            let check_ns = until_ns.min(now_ns + nanoseconds(DEATH_CHECK));
            let answer = match channel::receive_answer(channel, check_ns) {
                Ok(Received::Message(answer)) => answer,
                Ok(Received::Nothing) if self.supervisor.guard_is_dying() => {
                    return Err(Failure::of(GuardErrorKind::GuardDied));
                }
                Ok(Received::Nothing) if now_ns >= until_ns => {
                    return Err(Failure { member: Some(awaited), ..Failure::of(timeout) });
                }
                Ok(Received::Nothing) => continue,
                Ok(Received::Closed) => return Err(Failure::of(GuardErrorKind::GuardDied)),
                Err(errno) => return Err(Failure::of(GuardErrorKind::GuardDied).errno(errno)),
            };
            if let Some(monitor) = &mut self.monitor {
                monitor.received(&answer);
            }
            self.trace.note(&answer, self.release_ns);
            let index = match answer {
                Answer::Expedited { .. } => continue,
                Answer::Synced(call) | Answer::Frozen(call) | Answer::Thawed(call, _) | Answer::Lost(call, _) => {
                    call.member
                }
                Answer::Failed { member, .. } => member,
                Answer::Ready { .. } | Answer::Refused { .. } => return Err(unexpected(answer)),
            };
            let Some(member) = self.members.get_mut(usize::from(index)) else {
                return Err(unexpected(answer));
            };
            member.awaited = false;
            match answer {
                Answer::Frozen(_) => {
                    member.frozen = true;
                    self.supervisor.frozen(usize::from(index));
                }
                Answer::Thawed(..) | Answer::Lost(..) => member.frozen = false,
                _ => {}
            }
            judge(member, answer)?;
        }
        Ok(())
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
