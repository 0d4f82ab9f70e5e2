//! Debian's suite that the guests are made of, from the mirror that this machine itself is set up to use.

use crate::interrupt::Interrupt;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The suite: its kernel has device-mapper, ublk and NBD, and its systemd has `varlinkctl`.
pub(crate) const SUITE: &str = "trixie";

/// Debian's own keys.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The suite's lists of packages, fetched into a directory that is gone with this: the machine's own are not touched.
pub(crate) struct Suite {
    directory: TempDir,
    source: String,
}

impl Suite {
    /// Fetches the lists.
    pub(crate) fn fetch(interrupt: &Interrupt) -> Result<Self> {
        let source = source(interrupt)?;
        let suite = Self { directory: TempDir::with_prefix("vss-apt-")?, source };
        for place in ["state/lists/partial", "cache/archives/partial", "sources.d"] {
            fs::create_dir_all(suite.directory.path().join(place))?;
        }
        fs::write(suite.directory.path().join("sources.list"), format!("{}\n", suite.source))?;
        interrupt.check(suite.apt("apt-get").args(["-qq", "update"])).with_context(|| format!("{SUITE}'s lists"))?;
        Ok(suite)
    }

    /// The only package that `package` depends on by a name that begins with `prefix`.
    pub(crate) fn dependency(&self, package: &str, prefix: &str, interrupt: &Interrupt) -> Result<String> {
        let said = interrupt.output(self.apt("apt-cache").args(["depends", package]))?;
        let mut names = said.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        let found = names.find(|name| name.starts_with(prefix));
        Ok(found.with_context(|| format!("{package} depends on no {prefix}*: {said}"))?.to_owned())
    }

    /// Downloads a package and unpacks it into `directory`, without installing anything.
    pub(crate) fn unpack(&self, package: &str, directory: &Path, interrupt: &Interrupt) -> Result<()> {
        let download = TempDir::new_in(self.directory.path())?;
        interrupt.check(self.apt("apt-get").args(["-qq", "download", package]).current_dir(download.path()))?;
        let file = fs::read_dir(download.path())?.next().context("apt-get downloaded nothing")??.path();
        interrupt.check(Command::new("dpkg-deb").arg("-x").arg(file).arg(directory))
    }

    fn apt(&self, program: &str) -> Command {
        let place = |name: &str| -> PathBuf { self.directory.path().join(name) };
        let mut command = Command::new(program);
        for (key, value) in [
            ("Dir::State", place("state")),
            ("Dir::Cache", place("cache")),
            ("Dir::Etc::sourcelist", place("sources.list")),
            ("Dir::Etc::sourceparts", place("sources.d")),
            ("Dir::State::status", "/dev/null".into()),
            ("APT::Sandbox::User", "root".into()),
        ] {
            command.arg("-o").arg(format!("{key}={}", value.display()));
        }
        command
    }
}

/// A line for sources.list(5).
///
/// # Errors
/// This machine is set up to use no mirror of Debian.
pub(crate) fn source(interrupt: &Interrupt) -> Result<String> {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"]);
    let mirror = mirror(&interrupt.output(&mut command)?).map(str::to_owned);
    let mirror = match mirror {
        Some(mirror) => mirror,
        None => {
            // What a mirror is called is known only once its lists are there.
            interrupt.check(Command::new("apt-get").args(["-qq", "update"]))?;
            let said = interrupt.output(&mut command)?;
            self::mirror(&said).context("apt is set up to use no mirror of Debian")?.to_owned()
        }
    };
    Ok(format!("deb [signed-by={KEYRING}] {mirror} {SUITE} main"))
}

fn mirror(targets: &str) -> Option<&str> {
    targets.lines().find_map(|line| line.strip_prefix("Debian "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_debians_own() {
        let targets = "Other file:/a/\n$(LABEL) file:/b/\nDebian-Security file:/c/\nDebian file:/d/\n";
        assert_eq!(mirror(targets), Some("file:/d/"));
        assert_eq!(mirror("Debian-Security file:/c/\n"), None);
    }
}
