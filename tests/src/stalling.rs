//! The test's side of `stalling_disk`: a disk that stops answering, or writes slowly, when a test says so. A loop device on its file is that disk;
//! the FUSE file system itself is the hung mount that nobody may touch.
//!
//! It always answers again: when the [`Stall`] is dropped, also by a panic; when this process ends; and by its own limit.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use tempfile::TempDir;

use crate::programs::program;

/// A running disk. Dropping it unmounts it as soon as nobody uses it.
#[derive(Debug)]
pub struct StallingDisk {
    process: Child,
    line: Mutex<Option<Line>>,
    directory: TempDir,
}

#[derive(Debug)]
struct Line {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Line {
    fn tell(&mut self, command: &str) -> std::io::Result<()> {
        writeln!(self.input, "{command}")?;
        self.hears(command)
    }

    /// Waits until it says that.
    fn hears(&mut self, word: &str) -> std::io::Result<()> {
        let mut said = String::new();
        self.output.read_line(&mut said)?;
        if said.trim_end() == word { Ok(()) } else { Err(std::io::Error::other(format!("it says {said:?}"))) }
    }
}

/// While it lives, nothing that is asked is answered; at most 45 s.
#[derive(Debug)]
pub struct Stall<'a>(&'a StallingDisk);

impl StallingDisk {
    /// Why there can be none here, if so.
    #[must_use]
    pub fn missing() -> Option<String> {
        let opened = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        opened.err().map(|error| format!("needs FUSE (/dev/fuse: {error})"))
    }

    /// A disk of this size, which answers.
    ///
    /// # Errors
    /// See [`StallingDisk::missing`]; no room.
    pub fn new(size_mib: u64) -> anyhow::Result<Self> {
        let directory = TempDir::with_prefix("vss-stalling-")?;
        let point = directory.path().join("fuse");
        fs::create_dir(&point)?;
        let mut command = Command::new(program("stalling_disk"));
        command.arg(&point).arg(size_mib.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().context("starting stalling_disk")?;
        let input = process.stdin.take().context("stdin was asked for")?;
        let output = BufReader::new(process.stdout.take().context("stdout was asked for")?);
        let mut line = Line { input, output };
        let is_ready = line.hears("ready");
        let disk = Self { process, line: Mutex::new(Some(line)), directory };
        is_ready.context("stalling_disk did not start")?;
        Ok(disk)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn mount_point(&self) -> PathBuf {
        self.directory.path().join("fuse")
    }

    /// The file that is the disk.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.mount_point().join("image")
    }

    /// A directory beside the mount, on an ordinary file system, gone with the disk.
    #[must_use]
    pub fn beside(&self) -> &Path {
        self.directory.path()
    }

    /// Stops answering, until what is returned is dropped.
    ///
    /// # Errors
    /// It is gone.
    pub fn stall(&self) -> anyhow::Result<Stall<'_>> {
        self.tell("stall").context("the stalling disk is gone")?;
        Ok(Stall(self))
    }

    /// From now on each write takes 2 to 30 ms and is half done in the middle of that, or (false) no longer than it has to.
    /// Reads are answered at once.
    ///
    /// # Errors
    /// It is gone.
    pub fn set_slow(&self, is_slow: bool) -> anyhow::Result<()> {
        self.tell(if is_slow { "slow" } else { "fast" }).context("the stalling disk is gone")
    }

    fn tell(&self, command: &str) -> std::io::Result<()> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.as_mut().map_or(Ok(()), |line| line.tell(command))
    }
}

impl Drop for Stall<'_> {
    fn drop(&mut self) {
        // Fails when it is gone, and then the kernel has broken the connection off.
        let _ = self.0.tell("go");
    }
}

impl Drop for StallingDisk {
    fn drop(&mut self) {
        // The end of its input.
        self.line.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = self.process.wait();
    }
}
