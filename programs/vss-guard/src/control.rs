//! The control thread: takes vssd's requests, gives the members their orders, and keeps the order of the levels.
//!
//! It makes no system call on a member. Should it be delayed, a hold still ends in time: the members watch the deadline,
//! SIGTERM and the end of vssd themselves.

use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use vss_linux::clock;
use vss_linux::hold::channel::{self, Received};
use vss_linux::hold::expedite::Expedite;
use vss_linux::hold::protocol::{Answer, Refusal, Request, Step};
use vss_linux::hold::threads;

use crate::Refused;
use crate::hold::Hold;
use crate::member::{Member, Phase};

/// The stack of a member's thread. Locked in memory, 64 times; its calls are a few frames deep.
const STACK: usize = 64 * 1024;

/// So long the release of a level waits for the one above it. Thawing in order spares an inner FITHAW that writes to its
/// outer file system a short wait; it is not needed for safety, so a stuck member must not delay the rest.
const LEVEL_PATIENCE: Duration = Duration::from_millis(100);

/// Runs the guard from `Ready` to its end.
pub(crate) fn run(hold: &Hold, memory_locked: bool) -> Result<(), Refused> {
    let done = thread::scope(|scope| {
        for (index, member) in hold.members.iter().enumerate() {
            let builder = thread::Builder::new().name(threads::name(index)).stack_size(STACK);
            if let Err(error) = builder.spawn_scoped(scope, || member.run(hold)) {
                hold.members.iter().for_each(Member::end);
                return Err(Refused::new(Refusal::Thread, error));
            }
        }
        let expedite = Expedite::open();
        while hold.members.iter().any(|member| member.is(Phase::Starting)) {
            wait_for_progress(hold, None);
        }
        // The first reading looks for the vDSO, and may open a file for it.
        clock::boottime_ns();
        hold.answer(Answer::Ready { memory_locked, expedites: expedite.is_some() });
        Control { hold, expedite, deadline: Deadline::Unset, listening: true, ending: false }.serve();
        Ok(())
    });
    // No thread is left, so nothing is frozen. Should the file stay, the next sweep takes it away.
    let _ = hold.ledger.remove();
    done
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Deadline {
    Unset,
    Armed,
    Passed,
}

struct Control<'a> {
    hold: &'a Hold,
    expedite: Option<Expedite>,
    deadline: Deadline,
    /// vssd may still send something.
    listening: bool,
    /// The members' threads have been told to end.
    ending: bool,
}

impl Control<'_> {
    fn serve(mut self) {
        while !self.hold.members.iter().all(|member| member.is(Phase::Ended)) {
            let (request, terminated) = self.wait();
            if self.expedite.is_some() && !self.is_freezing() {
                self.restore();
            }
            if terminated {
                self.end();
            }
            if request {
                match channel::receive_request(rustix::stdio::stdin()) {
                    Ok(Received::Message(request)) if !self.ending => self.obey(request),
                    Ok(Received::Message(_) | Received::Nothing) => {}
                    Ok(Received::Closed) | Err(_) => {
                        self.listening = false;
                        self.end();
                    }
                }
            }
        }
        self.restore();
    }

    /// Waits for anything to do; true, true = a request has come, SIGTERM has come.
    fn wait(&mut self) -> (bool, bool) {
        let stdin = rustix::stdio::stdin();
        let when = |wanted: bool| if wanted { PollFlags::IN } else { PollFlags::empty() };
        // poll(2) reports POLLHUP unasked, for ever: the channel is left out once it is closed.
        let channel = if self.listening { stdin } else { self.hold.progress.as_fd() };
        let mut watched = [
            PollFd::new(&self.hold.progress, PollFlags::IN),
            PollFd::from_borrowed_fd(channel, when(self.listening)),
            PollFd::new(&self.hold.stop.terminated, when(!self.ending)),
            PollFd::new(&self.hold.stop.deadline, when(self.deadline == Deadline::Armed)),
        ];
        if poll(&mut watched, None).is_err() {
            return (false, false);
        }
        let [progress, channel, terminated, deadline] = watched.map(|fd| !fd.revents().is_empty());
        if progress {
            drain(self.hold);
        }
        if deadline {
            self.deadline = Deadline::Passed;
            self.restore();
        }
        (channel && self.listening, terminated)
    }

    fn obey(&mut self, request: Request) {
        match request {
            Request::Sync => self.hold.members.iter().for_each(Member::sync),
            Request::Freeze { level } => self.freeze(level),
            Request::Release => self.release(),
        }
    }

    fn freeze(&mut self, level: u8) {
        let members = self.hold.members.iter().zip(0u8..).filter(|(member, _)| member.level == Some(level));
        if let Err(errno) = self.arm() {
            for (_, member) in members {
                self.hold.answer(Answer::Failed { member, step: Step::Freeze, errno });
            }
            return;
        }
        if let Some(expedite) = &mut self.expedite {
            expedite.set(&self.hold.ledger);
        }
        members.for_each(|(member, _)| member.freeze());
    }

    /// With the first freeze the deadline begins to run.
    fn arm(&mut self) -> Result<(), Errno> {
        if self.deadline != Deadline::Unset {
            return Ok(());
        }
        let limit_ns = u64::try_from(self.hold.limit.as_nanos()).unwrap_or(u64::MAX);
        let deadline_ns = clock::boottime_ns().saturating_add(limit_ns);
        self.hold.ledger.set_deadline_ns(deadline_ns).map_err(|_| Errno::IO)?;
        self.hold.stop.arm(deadline_ns)?;
        self.deadline = Deadline::Armed;
        Ok(())
    }

    /// Outermost level first.
    fn release(&mut self) {
        self.restore();
        let next_below = |limit: u8| {
            let levels = self.hold.members.iter().filter_map(|member| member.level);
            levels.filter(|level| *level < limit).max()
        };
        let mut released = u8::MAX;
        while let Some(level) = next_below(released) {
            released = level;
            let members = || self.hold.members.iter().filter(move |member| member.level == Some(level));
            members().for_each(Member::release);
            let until_ns = clock::boottime_ns() + LEVEL_PATIENCE.as_nanos() as u64;
            while members().any(|member| member.is(Phase::Freezing) || member.is(Phase::Held)) {
                let left_ns = until_ns.saturating_sub(clock::boottime_ns());
                if left_ns == 0 {
                    break;
                }
                wait_for_progress(self.hold, Some(left_ns));
            }
        }
    }

    fn end(&mut self) {
        self.ending = true;
        self.restore();
        self.hold.members.iter().for_each(Member::end);
    }

    fn is_freezing(&self) -> bool {
        self.hold.members.iter().any(|member| member.is(Phase::Freezing))
    }

    fn restore(&mut self) {
        if let Some(told) = self.expedite.as_mut().and_then(|expedite| expedite.restore(&self.hold.ledger)) {
            self.hold.answer(told);
        }
    }
}

fn wait_for_progress(hold: &Hold, limit_ns: Option<u64>) {
    let limit = limit_ns.map(clock::timespec);
    // An error or a signal is an early return; the caller looks again.
    let _ = poll(&mut [PollFd::new(&hold.progress, PollFlags::IN)], limit.as_ref());
    drain(hold);
}

fn drain(hold: &Hold) {
    let mut count = [0u8; 8];
    let _ = rustix::io::read(&hold.progress, &mut count);
}
