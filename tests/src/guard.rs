//! The test's side of `guard_driver`: a vssd in miniature with its guard, to talk to, to stop and to kill.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use vss_linux::process::{PidFd, Signal};

use crate::instance::{tie, wait_until};
use crate::programs::program;

/// No answer of the driver takes longer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// A running driver and its guard. Dropping it kills the driver; the guard ends by itself then.
#[derive(Debug)]
pub struct Driver {
    process: Child,
    input: ChildStdin,
    lines: mpsc::Receiver<String>,
    /// The guard's process.
    pub guard: PidFd,
    /// Process id of the guard.
    pub guard_pid: u32,
    /// What the driver said when its guard was ready.
    pub greeting: String,
}

/// How a [`Driver`] is started.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// `vss_service::guard`'s runtime directory.
    pub runtime: &'a Path,
    /// The limit of the hold.
    pub limit: Duration,
    /// Stop at every message: see [`Driver::go_to`].
    pub steps: bool,
}

impl Driver {
    /// Starts a driver (a program of this crate at `driver`) whose guard has these members, each with its level.
    ///
    /// # Errors
    /// The driver's own words when the guard was refused.
    pub fn start(driver: &Path, setup: Setup<'_>, members: &[(&Path, Option<u8>)]) -> anyhow::Result<Self> {
        let arguments = members.iter().map(|(path, level)| {
            let mut argument = OsString::from(path);
            if let Some(level) = level {
                argument.push(format!(":{level}"));
            }
            argument
        });
        let mut command = Command::new(driver);
        tie(&mut command);
        let mut process = command
            .arg(program("vss-guard"))
            .arg(setup.runtime)
            .args(["test", &setup.limit.as_millis().to_string(), if setup.steps { "step" } else { "run" }])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = process.stdin.take().context("stdin was asked for")?;
        let output = BufReader::new(process.stdout.take().context("stdout was asked for")?);
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        let greeting = lines.recv_timeout(ANSWER_LIMIT).context("the driver said nothing")?;
        let Some(guard_pid) = greeting.strip_prefix("ready ").and_then(|rest| rest.split(' ').next()?.parse().ok())
        else {
            let _ = process.wait();
            bail!("{greeting}");
        };
        Ok(Self { process, input, lines, guard: PidFd::open(guard_pid)?, guard_pid, greeting })
    }

    /// Process id of the driver.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Gives a command without waiting for the answer.
    ///
    /// # Errors
    /// The driver is gone.
    pub fn tell(&mut self, command: &str) -> anyhow::Result<()> {
        writeln!(self.input, "{command}").context("the driver is gone")
    }

    /// The next line that the driver says.
    ///
    /// # Errors
    /// It says nothing for 20 s, or is gone.
    pub fn hear(&self) -> anyhow::Result<String> {
        self.lines.recv_timeout(ANSWER_LIMIT).context("the driver says nothing")
    }

    /// Gives a command and returns the answer.
    ///
    /// # Errors
    /// The driver is gone or says nothing.
    pub fn ask(&mut self, command: &str) -> anyhow::Result<String> {
        self.tell(command)?;
        self.hear()
    }

    /// With `steps`: lets the driver go from message to message until it says something that begins with `point`; with an
    /// empty `point`, until it has answered its command.
    ///
    /// # Errors
    /// An error of the guard is said first, or nothing.
    pub fn go_to(&mut self, point: &str) -> anyhow::Result<String> {
        loop {
            let line = self.hear()?;
            let stands = line.starts_with("sent") || line.starts_with("received");
            if line.starts_with("error") {
                bail!("{line} (on the way to {point})");
            } else if point.is_empty() && !stands || !point.is_empty() && line.starts_with(point) {
                return Ok(line);
            } else if stands {
                self.tell("go")?;
            }
        }
    }

    /// Sends a signal to the driver.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(PidFd::open(self.process.id())?.signal(signal)?)
    }

    /// Stops the guard, and returns when none of its threads runs any more.
    ///
    /// # Errors
    /// It is gone, or does not stop.
    pub fn stop_guard(&self) -> anyhow::Result<()> {
        stop(&self.guard, self.guard_pid)
    }

    /// Kills the guard and the driver, stopped before, so that neither acts on the other's end.
    ///
    /// # Errors
    /// One is gone, or does not stop.
    pub fn kill_both(&self) -> anyhow::Result<()> {
        let driver = PidFd::open(self.process.id())?;
        self.stop_guard()?;
        stop(&driver, self.process.id())?;
        self.guard.signal(Signal::KILL)?;
        Ok(driver.signal(Signal::KILL)?)
    }
}

fn stop(process: &PidFd, pid: u32) -> anyhow::Result<()> {
    process.signal(Signal::STOP)?;
    if !wait_until(ANSWER_LIMIT, || has_stopped(pid)) {
        bail!("process {pid} does not stop");
    }
    Ok(())
}

/// True when no thread of a process runs any more: one after another takes the signal. A thread in the kernel stops as it comes
/// out.
fn has_stopped(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let is_still = |stat: &str| stat.contains(") T ") || stat.contains(") D ");
    threads.map(|thread| fs::read_to_string(thread.path().join("stat")).unwrap_or_default()).all(|stat| is_still(&stat))
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Fails when it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
