//! Where PostgreSQL's programs are.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;

use crate::account::Account;

/// Where Debian puts the programs of each major version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// The account of the system under which servers run: they refuse root.
const ACCOUNT: &str = "postgres";

/// The programs of the newest installed version.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    directory: PathBuf,
    /// Under which they run.
    pub(crate) account: Account,
}

impl Programs {
    /// Finds them.
    ///
    /// # Errors
    /// PostgreSQL's server is not installed.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let versions = fs::read_dir(VERSIONS).into_iter().flatten().flatten();
        let numbers = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let directory = |number: u32| PathBuf::from(format!("{VERSIONS}/{number}/bin"));
        let newest = numbers.filter(|number| directory(*number).join("postgres").is_file()).max();
        let newest = newest.with_context(|| format!("no PostgreSQL server in {VERSIONS}"))?;
        Ok(Self { directory: directory(newest), account: Account::named(ACCOUNT)? })
    }

    /// A program that will run under the server's account.
    pub(crate) fn command(&self, name: &str) -> std::process::Command {
        self.account.command(&self.directory.join(name))
    }
}

/// Why clusters cannot be made here, if so.
#[must_use]
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    Programs::find().err().map(|error| format!("needs PostgreSQL: {error:#}"))
}
