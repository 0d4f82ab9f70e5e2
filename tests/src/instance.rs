//! An instance of the service for one test: directories of its own, vssd in the foreground or on demand, commands run against
//! it. Whatever it started is ended and unmounted when it is dropped, by process id.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;
use vss_linux::child::{bind_to_parent, restore_signals};
use vss_linux::flock;
use vss_linux::hold::sweep;
use vss_linux::peer::peer_credentials;
use vss_linux::process::{PidFd, Signal};
use vss_requester::Management;

use crate::programs::program;
use crate::turn;

/// Every process of an instance carries its directory in this variable; it is how they are found again.
const MARK: &str = "VSS_TEST_INSTANCE";
/// A command that takes longer is killed, and the test fails.
const COMMAND_LIMIT: Duration = Duration::from_secs(90);
/// So long may vssd take to begin and to end.
const SERVICE_LIMIT: Duration = Duration::from_secs(30);
/// Time between two looks at something that has to change.
const PAUSE: Duration = Duration::from_millis(10);

/// One instance: nothing runs before [`Instance::start`] or the first [`Instance::vss`], which starts vssd on demand.
#[derive(Debug)]
pub struct Instance {
    directory: TempDir,
    environment: Vec<(OsString, OsString)>,
    service: Option<Child>,
    writers: Option<Child>,
    postgresql: bool,
}

impl Instance {
    /// An instance with empty directories. Its settings read script writers from [`Instance::script_directory`] and hooks
    /// from [`Instance::freeze_directory`].
    ///
    /// # Errors
    /// The directories cannot be made.
    pub fn new() -> anyhow::Result<Self> {
        let instance = Self {
            directory: TempDir::with_prefix("vss-instance-")?,
            environment: Vec::new(),
            service: None,
            writers: None,
            postgresql: false,
        };
        // Other users have to reach the sockets.
        fs::set_permissions(instance.path(), fs::Permissions::from_mode(0o755))?;
        for directory in [instance.script_directory(), instance.freeze_directory(), instance.state_dir()] {
            fs::create_dir(directory)?;
        }
        instance.settings("")?;
        Ok(instance)
    }

    /// An instance that serves the PostgreSQL clusters of this machine; others leave them alone.
    ///
    /// # Errors
    /// As [`Instance::new`].
    pub fn with_postgresql() -> anyhow::Result<Self> {
        let mut instance = Self::new()?;
        instance.postgresql = true;
        instance.settings("")?;
        Ok(instance)
    }

    /// A directory that is gone with the instance.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Sockets, ledgers, mounts.
    #[must_use]
    pub fn runtime_dir(&self) -> PathBuf {
        self.path().join("run")
    }

    /// The catalogue and `vss.toml`.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.path().join("state")
    }

    /// The socket of requesters and of management.
    #[must_use]
    pub fn requester_socket(&self) -> PathBuf {
        self.runtime_dir().join("requester")
    }

    /// The socket of writers.
    #[must_use]
    pub fn writer_socket(&self) -> PathBuf {
        self.runtime_dir().join("writer")
    }

    /// Where the *.toml of script writers belong.
    #[must_use]
    pub fn script_directory(&self) -> PathBuf {
        self.path().join("writers.d")
    }

    /// Where programs with `freeze` and `thaw` belong.
    #[must_use]
    pub fn freeze_directory(&self) -> PathBuf {
        self.path().join("freeze.d")
    }

    /// The two directories as the requester's library wants them.
    #[must_use]
    pub fn directories(&self) -> vss_requester::Instance {
        vss_requester::Instance::new(self.runtime_dir(), self.state_dir())
    }

    /// Writes `vss.toml`: the two directories and then these lines of the section `[writers]` and of further sections. Read
    /// by the next start.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn settings(&self, lines: &str) -> anyhow::Result<()> {
        let text = format!(
            "[writers]\nscript_directory = {:?}\nfreeze_directory = {:?}\npostgresql = {}\n{lines}\n",
            self.script_directory(),
            self.freeze_directory(),
            self.postgresql
        );
        Ok(fs::write(self.state_dir().join("vss.toml"), text)?)
    }

    /// Sets a variable for every program that is started from now on: `VSS_FAULT`, `VSS_FAKE`...
    pub fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.unset(name);
        self.environment.push((name.into(), value.into()));
    }

    /// Programs that are started from now on do not see this variable.
    pub fn unset(&mut self, name: &str) {
        self.environment.retain(|(set, _)| set != name);
    }

    /// A program of the house that belongs to this instance; it is told the environment, not the directories. It ends with
    /// the thread that starts it at the latest, also when the test is killed.
    #[must_use]
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(program(name));
        command.env(MARK, self.path()).env("VSS_TURN", turn::expected());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        tie(&mut command);
        command
    }

    /// Starts vssd in the foreground, without in-box writers, and waits until it serves.
    ///
    /// # Errors
    /// It does not come up; the message ends with its log.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let command = self.command("vssd");
        self.start_as(command)
    }

    /// As [`Instance::start`], with vssd run by another program, which finds vssd's path and arguments behind these words and
    /// becomes it.
    ///
    /// # Errors
    /// As [`Instance::start`].
    pub fn start_by(&mut self, words: &[&str]) -> anyhow::Result<()> {
        let vssd = self.command("vssd");
        let mut command = Command::new(words.first().context("no program")?);
        tie(&mut command);
        command.args(&words[1..]).arg(vssd.get_program());
        command.envs(vssd.get_envs().filter_map(|(name, value)| Some((name, value?))));
        self.start_as(command)
    }

    fn start_as(&mut self, mut command: Command) -> anyhow::Result<()> {
        fs::create_dir_all(self.runtime_dir())?;
        // One on demand may be on its way out.
        wait_until(SERVICE_LIMIT, || !self.is_running());
        let log = OpenOptions::new().append(true).create(true).open(self.log_file())?;
        command.args(self.arguments()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.service = Some(command.spawn()?);
        let serves = || self.service_pid().is_some_and(|pid| self.listener() == Some(pid));
        wait_until(SERVICE_LIMIT, || serves() || self.service_pid().is_none());
        if !serves() {
            bail!("vssd does not come up:\n{}", self.log());
        }
        Ok(())
    }

    /// True while a vssd has this instance's lock.
    fn is_running(&self) -> bool {
        File::open(self.runtime_dir().join("instance.lock")).is_ok_and(|lock| flock::is_locked(&lock).unwrap_or(false))
    }

    /// The process that listens on the socket of writers, the last that a service opens.
    fn listener(&self) -> Option<u32> {
        let connected = UnixStream::connect(self.writer_socket()).ok()?;
        peer_credentials(connected.as_fd()).ok().map(|listener| listener.pid)
    }

    /// Starts `vss-writers` with the two directories and waits until its writers have joined. An instance on demand does
    /// that itself.
    ///
    /// # Errors
    /// It ends, or is not ready in time.
    pub fn start_writers(&mut self) -> anyhow::Result<()> {
        let said = File::create(self.path().join("vss-writers.out"))?;
        let log = OpenOptions::new().append(true).create(true).open(self.log_file())?;
        let mut command = self.command("vss-writers");
        command
            .arg("--socket")
            .arg(self.writer_socket())
            .arg("--directory")
            .arg(self.script_directory())
            .arg("--freeze-directory")
            .arg(self.freeze_directory())
            .arg("--notify-ready")
            .args((!self.postgresql).then_some("--no-postgresql"))
            .stdin(Stdio::null())
            .stdout(said)
            .stderr(log);
        self.writers = Some(command.spawn()?);
        let said = self.path().join("vss-writers.out");
        if !wait_until(SERVICE_LIMIT, || fs::read_to_string(&said).is_ok_and(|said| said.contains("READY=1"))) {
            bail!("vss-writers is not ready:\n{}", self.log());
        }
        Ok(())
    }

    /// The process id of the vssd that [`Instance::start`] started, while it lives.
    #[must_use]
    pub fn service_pid(&self) -> Option<u32> {
        self.service.as_ref().map(Child::id).filter(|pid| is_alive(*pid))
    }

    /// The process id of the `vss-writers` that [`Instance::start_writers`] started, while it lives.
    #[must_use]
    pub fn writers_pid(&self) -> Option<u32> {
        self.writers.as_ref().map(Child::id).filter(|pid| is_alive(*pid))
    }

    /// Ends the `vss-writers` of [`Instance::start_writers`] with SIGTERM, if it lives, and waits for it.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn end_writers(&mut self) -> anyhow::Result<()> {
        let Some(mut writers) = self.writers.take() else { return Ok(()) };
        // Fails when it is gone already.
        let _ = PidFd::open(writers.id()).and_then(|process| process.signal(Signal::TERM));
        if wait_for(&mut writers, SERVICE_LIMIT)?.is_none() {
            writers.kill()?;
            writers.wait()?;
            bail!("vss-writers does not end:\n{}", self.log());
        }
        Ok(())
    }

    /// Ends the vssd of [`Instance::start`] with SIGTERM and waits for it.
    ///
    /// # Errors
    /// It does not end in time, or ends with an error.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut service) = self.service.take() else { return Ok(()) };
        // Fails when it is gone already.
        let _ = PidFd::open(service.id()).and_then(|process| process.signal(Signal::TERM));
        match wait_for(&mut service, SERVICE_LIMIT)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("vssd ended with {status}:\n{}", self.log()),
            None => {
                service.kill()?;
                service.wait()?;
                bail!("vssd does not end:\n{}", self.log())
            }
        }
    }

    /// Ends the vssd of [`Instance::start`] with SIGKILL and waits for it.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut service) = self.service.take() {
            service.kill()?;
            service.wait()?;
        }
        Ok(())
    }

    /// `--runtime-dir` and `--state-dir`, for vssd and for every subcommand of vss.
    #[must_use]
    pub fn arguments(&self) -> [OsString; 4] {
        ["--runtime-dir".into(), self.runtime_dir().into(), "--state-dir".into(), self.state_dir().into()]
    }

    /// Runs `vss SUBCOMMAND... ` against this instance to its end, which may start vssd on demand.
    ///
    /// # Errors
    /// It cannot be started or takes longer than 90 s.
    pub fn vss<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> anyhow::Result<Outcome> {
        self.start_vss(arguments)?.finish()
    }

    /// Starts `vss SUBCOMMAND...` against this instance.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_vss<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> anyhow::Result<Running> {
        let mut command = self.command("vss");
        // Before the subcommand: what follows `--` is not ours.
        command.args(self.arguments()).args(arguments).stdin(Stdio::null());
        Running::start(command)
    }

    /// A connection for questions, which starts nothing: the service has to run.
    ///
    /// # Errors
    /// It does not run.
    pub fn management(&self) -> anyhow::Result<Management> {
        UnixStream::connect(self.requester_socket()).context("vssd does not run")?;
        Ok(Management::connect(&self.directories())?)
    }

    /// Where vssd logs, in the foreground and on demand.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.directories().log_file()
    }

    /// What vssd has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }
    /// Kills every process of this instance and waits until they are gone.
    pub fn kill_all(&mut self) {
        let is_over = wait_until(SERVICE_LIMIT, || {
            let processes = self.processes();
            for process in &processes {
                // One that is gone is what is wanted.
                let _ = PidFd::open(process.pid).and_then(|process| process.signal(Signal::KILL));
            }
            processes.is_empty()
        });
        for mut child in [self.service.take(), self.writers.take()].into_iter().flatten() {
            // Gone already, unless it hangs in the kernel: then waiting would hang too.
            let _ = if is_over { child.wait().map(Some) } else { child.try_wait() };
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.kill_all();
        self.remove_tracers();
        // What a killed guard left frozen; nothing else is touched.
        let _ = sweep::sweep(&self.runtime_dir(), sweep::SWEEP_LIMIT);
        for place in self.mounts().into_iter().rev() {
            let _ = unmount(&place, UnmountFlags::DETACH);
        }
    }
}

/// A command that runs, its output going to files. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: File,
    stderr: File,
    started: Instant,
}

/// What a command came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Exit status; none when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// From its start to its end.
    pub took: Duration,
}

impl Running {
    /// Starts any command.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(mut command: Command) -> anyhow::Result<Self> {
        let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("starting {}", command.get_program().display()))?;
        Ok(Self { child, stdout, stderr, started })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(PidFd::open(self.child.id())?.signal(signal)?)
    }

    /// True when it has ended.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// What it has said so far on its standard output.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn stdout(&self) -> anyhow::Result<String> {
        read_all(&self.stdout)
    }

    /// What it has said so far on its standard error.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn stderr(&self) -> anyhow::Result<String> {
        read_all(&self.stderr)
    }

    /// Waits for its end, at most 90 s.
    ///
    /// # Errors
    /// It does not end: it is killed, and the message has what it said.
    pub fn finish(mut self) -> anyhow::Result<Outcome> {
        use std::os::unix::process::ExitStatusExt;
        let status = wait_for(&mut self.child, COMMAND_LIMIT)?;
        let took = self.started.elapsed();
        let (stdout, stderr) = (read_all(&self.stdout)?, read_all(&self.stderr)?);
        match status {
            Some(status) => Ok(Outcome { code: status.code(), signal: status.signal(), stdout, stderr, took }),
            None => bail!("still running after {took:?}\nstdout: {stdout}\nstderr: {stderr}"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Fails only when it has just ended.
            let _ = self.child.kill();
            let _ = wait_for(&mut self.child, Duration::from_secs(5));
        }
    }
}

impl Outcome {
    /// True for exit status 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }

    /// The one JSON document that it printed.
    ///
    /// # Errors
    /// It failed, or printed something else; the message has what it said.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        if !self.is_success() {
            bail!("exit status {:?}: {}", self.code, self.stderr);
        }
        serde_json::from_str(&self.stdout).with_context(|| format!("not one JSON document: {}", self.stdout))
    }
}

/// Lets a command's process be killed with the thread that starts it, and meet signals as it would without the test: nothing
/// that a killed test has stopped or holds up stays, and no test depends on how it was started.
pub(crate) fn tie(command: &mut Command) {
    restore_signals(command);
    bind_to_parent(command, Signal::KILL);
}

/// Looks every 10 ms until `condition` holds; false when it does not within `limit`.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(PAUSE);
    }
}

/// True unless the process is gone. One that has ended and that nobody waits for counts as gone: not every machine's first
/// process reaps. One whose first thread alone has ended lives, and has its files open.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // "PID (NAME) STATE ...", where NAME may hold anything.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    let threads = || fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    !matches!(state, None | Some('X')) && (state != Some('Z') || threads() > 1)
}

fn wait_for(child: &mut Child, limit: Duration) -> anyhow::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Reads from the beginning without moving the position, which the program that writes shares with us.
fn read_all(file: &File) -> anyhow::Result<String> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len())?];
    let length = file.read_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}
