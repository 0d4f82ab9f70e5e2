//! A service of the benchmark's own, in the foreground as under systemd, with or without the in-box writers.

use crate::interrupt::{Interrupt, end};
use anyhow::{Result, bail, ensure};
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use vss_linux::process::PidFd;

/// How long the service and the writers may take to be ready.
const READY: Duration = Duration::from_secs(30);

/// A running service. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Service {
    programs: PathBuf,
    directory: PathBuf,
    /// The writers before vssd.
    processes: Vec<(Child, PidFd)>,
}

impl Service {
    /// Starts the programs in `programs` with their directories and logs in `directory`, and waits for vssd's sockets.
    pub(super) fn start(programs: &Path, directory: &Path, interrupt: &Interrupt) -> Result<Self> {
        let (programs, directory) = (programs.to_path_buf(), directory.to_path_buf());
        let mut service = Self { programs, directory, processes: Vec::new() };
        fs::create_dir(service.runtime_directory())?;
        fs::create_dir(service.state_directory())?;
        // Settings of its own: all defaults, whatever this machine's are.
        fs::write(service.state_directory().join("vss.toml"), "")?;
        let mut command = Command::new(service.programs.join("vssd"));
        command.arg("--runtime-dir").arg(service.runtime_directory());
        command.arg("--state-dir").arg(service.state_directory());
        service.spawn(command, "vssd.log", interrupt)?;
        let deadline = Instant::now() + READY;
        while !service.writer_socket().exists() {
            if service.processes[0].1.is_gone() || Instant::now() >= deadline {
                bail!("vssd did not start: {}", fs::read_to_string(service.directory.join("vssd.log"))?);
            }
            interrupt.sleep(Duration::from_millis(20))?;
        }
        Ok(service)
    }

    /// Starts the in-box writers, without this machine's scripts, and waits for the first.
    pub(super) fn start_writers(&mut self, interrupt: &Interrupt) -> Result<()> {
        let mut command = Command::new(self.programs.join("vss-writers"));
        command.arg("--socket").arg(self.writer_socket());
        for option in ["--directory", "--freeze-directory"] {
            command.arg(option).arg(self.directory.join("none"));
        }
        self.spawn(command, "vss-writers.log", interrupt)?;
        self.wait_for_writer("postgresql", interrupt)
    }

    fn spawn(&mut self, mut command: Command, log: &str, interrupt: &Interrupt) -> Result<()> {
        let log = File::create(self.directory.join(log))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = interrupt.spawn(&mut command)?;
        let pidfd = PidFd::open(child.id())?;
        self.processes.insert(0, (child, pidfd));
        Ok(())
    }

    fn runtime_directory(&self) -> PathBuf {
        self.directory.join("run")
    }

    fn state_directory(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// Where writers join.
    pub(super) fn writer_socket(&self) -> PathBuf {
        self.runtime_directory().join("writer")
    }

    /// For the requester's library.
    pub(super) fn instance(&self) -> vss_requester::Instance {
        vss_requester::Instance::new(self.runtime_directory(), self.state_directory())
    }

    /// A `vss` command on this service.
    pub(super) fn vss(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("vss"));
        command.args(arguments);
        command.arg("--runtime-dir").arg(self.runtime_directory());
        command.arg("--state-dir").arg(self.state_directory());
        command
    }

    /// The set that `vss create` makes of a volume.
    pub(super) fn create(&self, volume: &Path, interrupt: &Interrupt) -> Result<Value> {
        let volume = volume.to_string_lossy();
        Ok(serde_json::from_str(&interrupt.output(&mut self.vss(&["create", &volume, "--json"]))?)?)
    }

    /// Waits until a writer of this name is registered.
    pub(super) fn wait_for_writer(&self, name: &str, interrupt: &Interrupt) -> Result<()> {
        let deadline = Instant::now() + READY;
        loop {
            let list: Value = serde_json::from_str(&interrupt.output(&mut self.vss(&["list", "writers", "--json"]))?)?;
            let mut writers = list["writers"].as_array().into_iter().flatten();
            if writers.any(|writer| writer["name"] == name) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the writer {name} is not registered: {list}");
            interrupt.sleep(Duration::from_millis(50))?;
        }
    }

    /// Ends all of it.
    pub(super) fn end(&mut self) -> Result<()> {
        for (mut child, pidfd) in self.processes.drain(..) {
            end(&mut child, &pidfd)?;
        }
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It has ended already after `end`.
        let _ = self.end();
    }
}
