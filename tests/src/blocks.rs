//! A volume whose copies are whole images that a test can look into, with the service that makes them.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::instance::{Instance, Outcome, wait_until};
use crate::loopfs::{Kind, LoopFs};
use crate::turn::creation_turn;

/// A service on demand ends when it is idle for a moment.
const SERVICE_LIMIT: Duration = Duration::from_secs(30);
/// Bytes of the files of [`Copied::fill`].
const FILE: usize = 1 << 20;

/// An ext4 volume of 48 MiB and an instance whose copier copies it byte by byte.
#[derive(Debug)]
pub struct Copied {
    /// The service.
    pub instance: Instance,
    /// The volume.
    pub volume: LoopFs,
}

impl Copied {
    /// A new one.
    ///
    /// # Errors
    /// See [`LoopFs::missing`].
    pub fn new() -> anyhow::Result<Self> {
        let volume = LoopFs::new(Kind::Ext4, 48)?;
        let mut instance = Instance::new()?;
        let store = instance.path().join("block-copies");
        fs::create_dir(&store)?;
        instance.set("VSS_BLOCK_COPY", store);
        Ok(Self { instance, volume })
    }

    /// Starts the service, once one on demand has ended.
    ///
    /// # Errors
    /// That one does not end, or see [`Instance::start`].
    pub fn start(&mut self) -> anyhow::Result<()> {
        let is_idle = || self.instance.processes().is_empty();
        ensure!(wait_until(SERVICE_LIMIT, is_idle), "still running: {:?}", self.instance.processes());
        self.instance.start()
    }

    /// Makes a persistent copy and gives its id.
    ///
    /// # Errors
    /// It is not made.
    pub fn copy(&self) -> anyhow::Result<String> {
        self.copy_with(&["--persistent"])
    }

    /// Makes a copy with these words for `vss create`.
    ///
    /// # Errors
    /// It is not made.
    pub fn copy_with(&self, words: &[&str]) -> anyhow::Result<String> {
        let _turn = creation_turn();
        let volume = name(self.volume.path())?;
        let made = self.instance.vss([&["create", volume, "--provider", "block-copy", "--json"], words].concat())?;
        Ok(made.json()?["shadows"][0]["id"].as_str().context("an id")?.to_owned())
    }

    /// Runs a subcommand.
    ///
    /// # Errors
    /// As [`Instance::vss`].
    pub fn vss(&self, words: &[&str]) -> anyhow::Result<Outcome> {
        self.instance.vss(words)
    }

    /// Runs a subcommand that has to succeed.
    ///
    /// # Errors
    /// It fails.
    pub fn done(&self, words: &[&str]) -> anyhow::Result<String> {
        let outcome = self.vss(words)?;
        ensure!(outcome.is_success(), "vss {words:?}: {outcome:?}");
        Ok(outcome.stdout)
    }

    /// Runs a subcommand that has to fail, saying all of this.
    ///
    /// # Errors
    /// It does not, or says something else.
    pub fn fails(&self, words: &[&str], says: &[&str]) -> anyhow::Result<()> {
        let outcome = self.vss(words)?;
        let said = says.iter().all(|word| outcome.stderr.contains(word));
        ensure!(outcome.code == Some(1) && said, "vss {words:?}: expected {says:?}, got {outcome:?}");
        Ok(())
    }

    /// Runs `vss import` with these words and gives it a stream through a pipe.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn import_from_pipe(&self, stream: &[u8], words: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
        let mut command = self.import_command(words);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut input = child.stdin.take().context("a pipe")?;
        // One that has refused reads no further.
        let _ = input.write_all(stream);
        drop(input);
        let output = child.wait_with_output()?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    /// `vss import` with these words, not started.
    #[must_use]
    pub fn import_command(&self, words: &[&str]) -> Command {
        let mut command = self.instance.command("vss");
        command.args(self.instance.arguments()).arg("import").args(words);
        command
    }

    /// The image of a copy.
    #[must_use]
    pub fn image(&self, id: &str) -> PathBuf {
        self.instance.path().join("block-copies").join(format!("{id}.image"))
    }

    /// A place beside the instance's own.
    #[must_use]
    pub fn place(&self, name: &str) -> PathBuf {
        self.instance.path().join(name)
    }

    /// Writes `count` files of 1 MiB that no other call writes, named `LABEL-N`.
    ///
    /// # Errors
    /// There is no room.
    pub fn fill(&self, label: &str, count: u32) -> anyhow::Result<()> {
        for number in 0..count {
            let mut state = label.bytes().fold(u64::from(number) + 1, |sum, byte| sum * 31 + u64::from(byte)) | 1;
            let next = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()
            };
            let text: Vec<u8> = std::iter::repeat_with(next).take(FILE / 8).flatten().collect();
            fs::write(self.volume.path().join(format!("{label}-{number}")), text)?;
        }
        rustix::fs::syncfs(File::open(self.volume.path())?)?;
        Ok(())
    }
}

/// A path for a command line.
///
/// # Errors
/// It is not UTF-8.
pub fn name(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path in UTF-8")
}

/// Checks that two files, or a file and a device, have the same bytes.
///
/// # Errors
/// They have not; the message names the first 4 KiB block that differs.
pub fn are_equal(one: &Path, other: &Path) -> anyhow::Result<()> {
    let (left, right) = (fs::read(one)?, fs::read(other)?);
    ensure!(left.len() == right.len(), "{} bytes and {}", left.len(), right.len());
    match left.chunks(4096).zip(right.chunks(4096)).position(|(left, right)| left != right) {
        None => Ok(()),
        Some(block) => bail!("{} and {} differ in block {block}", one.display(), other.display()),
    }
}
