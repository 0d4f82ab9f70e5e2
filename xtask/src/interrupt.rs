//! Ctrl-C and SIGTERM as something to wait for, beside a child process or a time: so that every task ends by its usual way
//! out, which takes away what it made.

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, kill_process_group};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};
use vss_linux::child::bind_to_parent;
use vss_linux::process::{PidFd, Signal, signal_descriptor};

/// How long a process that was asked to end may take before it is killed.
const FAREWELL: Duration = Duration::from_secs(15);

/// SIGINT, SIGTERM and SIGHUP of this process, blocked and readable.
#[derive(Debug)]
pub(crate) struct Interrupt(OwnedFd);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself.
    With(ExitStatus),
    /// It was still running at its limit and was killed.
    TimedOut,
}

impl Interrupt {
    /// Takes the signals over. To be called before any other thread exists.
    pub(crate) fn catch() -> Result<Self> {
        let signals = [Signal::INT, Signal::TERM, Signal::HUP];
        Ok(Self(signal_descriptor(&signals).context("cannot receive signals")?))
    }

    /// Waits for `duration`.
    ///
    /// # Errors
    /// A signal came.
    pub(crate) fn sleep(&self, duration: Duration) -> Result<()> {
        let deadline = Instant::now() + duration;
        while !self.wait_for(None, Some(deadline))? {}
        Ok(())
    }

    /// Starts `command` so that it ends with this process.
    pub(crate) fn spawn(&self, command: &mut Command) -> Result<Child> {
        bind_to_parent(command, Signal::TERM);
        command.spawn().with_context(|| format!("cannot run {}", command.get_program().display()))
    }

    /// Runs `command` to its end.
    ///
    /// # Errors
    /// It cannot be started; a signal came, in which case it was ended.
    pub(crate) fn run(&self, command: &mut Command) -> Result<ExitStatus> {
        let mut child = self.spawn(command)?;
        match self.finish(&mut child, None)? {
            Ended::With(status) => Ok(status),
            Ended::TimedOut => bail!("a process without a limit ran out of time"),
        }
    }

    /// Runs `command` to its end; anything but success is an error.
    pub(crate) fn check(&self, command: &mut Command) -> Result<()> {
        let status = self.run(command)?;
        if !status.success() {
            bail!("{} ended with {status}", command.get_program().display());
        }
        Ok(())
    }

    /// Runs `command` to its end and returns what it wrote on standard output; anything but success is an error.
    pub(crate) fn output(&self, command: &mut Command) -> Result<String> {
        // A file, not a pipe: a grandchild that keeps a pipe open would keep us waiting.
        let mut written = tempfile::tempfile()?;
        self.check(command.stdout(written.try_clone()?))?;
        let mut text = String::new();
        written.rewind()?;
        written.read_to_string(&mut text).context("its output is not UTF-8")?;
        Ok(text)
    }

    /// Runs `command` in a process group of its own, everything that it writes going to `log`; the group is killed when it
    /// runs longer than `limit`.
    pub(crate) fn run_within(&self, command: &mut Command, log: &File, limit: Duration) -> Result<Ended> {
        command.process_group(0).stdout(log.try_clone()?).stderr(log.try_clone()?);
        let mut child = self.spawn(command)?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let ended = self.finish(&mut child, Some(limit));
        if let (Some(group), Ok(Ended::TimedOut) | Err(_)) = (group, &ended) {
            // What is left of the group, if anything is.
            let _ = kill_process_group(group, Signal::KILL);
        }
        ended
    }

    /// Waits for `child`, at most for `limit`.
    ///
    /// # Errors
    /// A signal came, in which case the child was ended.
    pub(crate) fn finish(&self, child: &mut Child, limit: Option<Duration>) -> Result<Ended> {
        let pidfd = PidFd::open(child.id())?;
        let deadline = limit.map(|limit| Instant::now() + limit);
        loop {
            match self.wait_for(Some(&pidfd), deadline) {
                Ok(_) if pidfd.is_gone() => return Ok(Ended::With(child.wait()?)),
                Ok(true) => {
                    end(child, &pidfd)?;
                    return Ok(Ended::TimedOut);
                }
                Ok(false) => {}
                Err(error) => {
                    end(child, &pidfd)?;
                    return Err(error);
                }
            }
        }
    }

    /// Waits for the end of a process or for a time; true when the time has come.
    fn wait_for(&self, process: Option<&PidFd>, deadline: Option<Instant>) -> Result<bool> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.map(Timespec::try_from).transpose()?;
        let mut fds = vec![PollFd::new(&self.0, PollFlags::IN)];
        fds.extend(process.map(|process| PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) => Ok(true),
            Ok(_) if !fds[0].revents().is_empty() => bail!("interrupted"),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Asks a child to end, then makes it.
pub(crate) fn end(child: &mut Child, pidfd: &PidFd) -> Result<ExitStatus> {
    // Fails when it is gone already, which is what is wanted.
    let _ = pidfd.signal(Signal::TERM);
    let deadline = Instant::now() + FAREWELL;
    while !pidfd.is_gone() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = pidfd.signal(Signal::KILL);
    Ok(child.wait()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_ends_by_itself_or_at_its_limit_with_its_children() {
        let interrupt = Interrupt(signal_descriptor(&[Signal::USR2]).unwrap());
        let log = tempfile::tempfile().unwrap();
        let run = |script: &str, limit| {
            let mut command = Command::new("/bin/sh");
            interrupt.run_within(command.args(["-c", script]), &log, limit).unwrap()
        };
        let Ended::With(status) = run("exit 3", Duration::from_secs(60)) else { panic!("timed out") };
        assert_eq!(status.code(), Some(3));
        let started = Instant::now();
        assert_eq!(run("sleep 60 & wait", Duration::from_millis(200)), Ended::TimedOut);
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn output_is_read_whole() {
        let interrupt = Interrupt(signal_descriptor(&[Signal::USR2]).unwrap());
        assert_eq!(interrupt.output(Command::new("/bin/echo").arg("said")).unwrap(), "said\n");
        assert!(interrupt.output(&mut Command::new("/bin/false")).is_err());
    }
}
