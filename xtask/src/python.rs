//! The Python package `varlink`, a client that is none of ours, in a virtual environment of its own below `target`.

use crate::interrupt::Interrupt;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package. Its interface has been the same since 30.
const PACKAGE: &str = "varlink>=31,<32";

/// Where it is kept below `target`.
const PLACE: &str = "varlink-client";

/// The virtual environment.
#[derive(Debug)]
pub(crate) struct VarlinkClient {
    directory: PathBuf,
}

impl VarlinkClient {
    /// The environment below `target`, made when there is none.
    ///
    /// # Errors
    /// It cannot be made: no python3 with `venv`, or the package cannot be fetched.
    pub(crate) fn ensure(target: &Path, interrupt: &Interrupt) -> Result<Self> {
        let client = Self { directory: target.join(PLACE) };
        if client.library().is_ok() {
            return Ok(client);
        }
        println!("Fetching the Python package varlink");
        // What an interrupted run has left.
        if client.directory.exists() {
            fs::remove_dir_all(&client.directory)?;
        }
        interrupt.check(Command::new("python3").args(["-m", "venv"]).arg(&client.directory))?;
        let mut install = Command::new(client.interpreter());
        interrupt.check(install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE]))?;
        client.library()?;
        Ok(client)
    }

    /// The interpreter that has it.
    pub(crate) fn interpreter(&self) -> PathBuf {
        self.directory.join("bin/python")
    }

    /// The directory of its modules, for PYTHONPATH: they are in Python alone, for every version of it.
    pub(crate) fn library(&self) -> Result<PathBuf> {
        let mut places = fs::read_dir(self.directory.join("lib"))?.map(|entry| Ok(entry?.path().join("site-packages")));
        places
            .find_map(|place: Result<PathBuf>| place.ok().filter(|place| place.join("varlink/client.py").is_file()))
            .context("the package is not installed")
    }
}
