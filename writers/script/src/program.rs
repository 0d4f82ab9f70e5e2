//! One running program: its own process group, its output drained, its end awaited with a deadline.

use crate::tail::Tail;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use vss_model::{VssCode, VssError};
use vss_writer::{Call, Interrupted};

/// The exit code that says "try again later" (sysexits.h, EX_TEMPFAIL).
const TRY_AGAIN: i32 = 75;
/// How long a killed program may take to be gone before it is left to itself: one with a thread in an uninterruptible
/// wait stays until the volume is thawed (experiments/freezing.md 10).
const DEATH: Duration = Duration::from_millis(500);
/// How long the last words of a program that has ended are waited for, on both outputs together: they are there at once, unless
/// the machine is busy, or somebody else has the output still. With [`DEATH`] it is less than the time that is left when a late
/// program is killed.
const LAST_WORDS: Duration = Duration::from_millis(400);

/// How a program ended, or did not.
#[derive(Debug)]
pub(crate) enum Ended {
    /// By itself, or by somebody's signal.
    Exit(ExitStatus),
    /// Not in time: it was killed.
    Late,
    /// The wait was interrupted: it was killed.
    Interrupted,
}

/// A program and everything that it started and that stayed in its process group.
#[derive(Debug)]
pub(crate) struct Program {
    child: Option<Child>,
    group: Pid,
    pidfd: OwnedFd,
    stderr: Tail,
    stdout: Option<Tail>,
}

impl Program {
    /// Starts it in `/`, with both outputs in pipes: the error output is drained, the standard output too if
    /// `drain_stdout`; else the caller takes it from [`Program::child`].
    pub(crate) fn start(command: &mut Command, drain_stdout: bool) -> io::Result<Self> {
        command.current_dir("/").stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        vss_linux::child::let_go(command);
        let mut child = command.spawn()?;
        let group = Pid::from_child(&child);
        let started = (|| {
            let pidfd = pidfd_open(group, PidfdFlags::empty())?;
            let stderr = Tail::start(child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?)?;
            let stdout = if drain_stdout { child.stdout.take().map(Tail::start).transpose()? } else { None };
            Ok((pidfd, stderr, stdout))
        })();
        match started {
            Ok((pidfd, stderr, stdout)) => Ok(Self { child: Some(child), group, pidfd, stderr, stdout }),
            Err(error) => {
                // No descriptor or thread left. Nothing of it stays.
                let _ = kill_process_group(group, Signal::KILL);
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// The process, for its streams.
    pub(crate) fn child(&mut self) -> Option<&mut Child> {
        self.child.as_mut()
    }

    /// Waits for its end until `until`, or until the call is interrupted; then kills it.
    pub(crate) fn wait(&mut self, call: &Call<'_>, until: Instant) -> Ended {
        let outcome = call.wait_for(Some(self.pidfd.as_fd()), until);
        match (outcome, self.child.as_mut()) {
            (Ok(true), Some(child)) => match child.wait() {
                Ok(status) => {
                    self.child = None;
                    Ended::Exit(status)
                }
                Err(_) => self.kill(Ended::Late),
            },
            (Ok(_), _) => self.kill(Ended::Late),
            (Err(Interrupted), _) => self.kill(Ended::Interrupted),
        }
    }

    /// True when it ends within `patience`.
    pub(crate) fn ended(&self, patience: Duration, call: &Call<'_>) -> bool {
        call.wait_for(Some(self.pidfd.as_fd()), Instant::now() + patience).unwrap_or(false)
    }

    /// Kills the whole group and forgets it.
    pub(crate) fn kill(&mut self, ended: Ended) -> Ended {
        let Some(mut child) = self.child.take() else { return ended };
        // ESRCH: the group is empty already.
        let _ = kill_process_group(self.group, Signal::KILL);
        let until = Instant::now() + DEATH;
        while Instant::now() < until {
            match child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(2)),
                Ok(Some(_)) | Err(_) => return ended,
            }
        }
        // Reaped whenever the kernel lets go of it; without a thread it stays a zombie until this process ends.
        let _ = std::thread::Builder::new().name("reaper".into()).spawn(move || child.wait());
        ended
    }

    /// What it said last: on its error output, else on its standard output.
    pub(crate) fn last_line(&self) -> Option<String> {
        let until = Instant::now() + LAST_WORDS;
        let left = || until.saturating_duration_since(Instant::now());
        let stdout = || self.stdout.as_ref().and_then(|stdout| stdout.last_line(left()));
        self.stderr.last_line(left()).or_else(stdout)
    }

    /// The error of a program that ended like this; none for exit code 0. `what` begins the sentence: `Hook 10-mysql`.
    pub(crate) fn verdict(&self, ended: &Ended, what: &str, phase: &str) -> Option<VssError> {
        let (code, how) = match ended {
            Ended::Exit(status) if status.success() => return None,
            Ended::Exit(status) => describe(*status),
            Ended::Late => (VssCode::WriterErrorTimeout, "was killed because it did not end in time".to_owned()),
            Ended::Interrupted => (VssCode::WriterErrorRetryable, "was killed because the service is gone".to_owned()),
        };
        let words = self.last_line().map_or_else(String::new, |line| format!(": {line}"));
        Some(VssError::new(code, format!("{what} {how} in {phase}{words}")))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill(Ended::Late);
    }
}

/// How a process ended, as the middle of a sentence, and the code that it stands for.
fn describe(status: ExitStatus) -> (VssCode, String) {
    match (status.code(), status.signal()) {
        (Some(TRY_AGAIN), _) => {
            (VssCode::WriterErrorRetryable, format!("ended with exit code {TRY_AGAIN} (try again)"))
        }
        (Some(code), _) => (VssCode::WriterErrorNonRetryable, format!("ended with exit code {code}")),
        (None, Some(signal)) => (VssCode::WriterErrorNonRetryable, format!("was killed by signal {signal}")),
        (None, None) => (VssCode::WriterErrorNonRetryable, format!("ended with {status}")),
    }
}
