//! Stops a command that `vss run` has started until the test lets it go on, by two files that lie on no volume of the test.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{bail, ensure};
use tempfile::TempDir;

use crate::instance::{Running, is_alive, wait_until};

/// A command begins within this time; another test's set may be in its way.
const LIMIT: Duration = Duration::from_secs(60);

/// A place at which one command stops.
#[derive(Debug)]
pub struct Gate {
    directory: TempDir,
}

impl Gate {
    /// A closed gate.
    ///
    /// # Errors
    /// No directory can be made.
    pub fn new() -> anyhow::Result<Self> {
        let directory = TempDir::with_prefix("vss-gate-")?;
        // The command may run as anybody.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777))?;
        Ok(Self { directory })
    }

    /// A directory on no volume of the test, gone with the gate.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The command that waits at the gate, for sh(1).
    #[must_use]
    pub fn shell(&self) -> String {
        let place = self.path().display();
        format!("touch {place}/here; while [ ! -e {place}/go ]; do sleep 0.02; done")
    }

    /// Waits until the command of this `vss run` stands at the gate: the copies are made and shown.
    ///
    /// # Errors
    /// `vss run` ends before; the message has what it said.
    pub fn reached_by(&self, run: &Running) -> anyhow::Result<()> {
        let here = self.path().join("here");
        let is_over = wait_until(LIMIT, || here.exists() || !is_alive(run.pid()));
        ensure!(is_over, "the command is not started: {}", run.stderr()?);
        if here.exists() { Ok(()) } else { bail!("the command was not started: {}", run.stderr()?) }
    }

    /// Lets the command go on.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn open(&self) -> anyhow::Result<()> {
        File::create(self.path().join("go"))?;
        Ok(())
    }
}
