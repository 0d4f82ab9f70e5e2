//! The Debian packages that a task needs: found by their programs, installed when we are root on Debian, else named.

use crate::interrupt::Interrupt;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A Debian package and the file by which it is known to be there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: &'static str,
    /// A program of it, to be found in the usual places, or the whole path of any file.
    pub(crate) program: &'static str,
}

/// For volumes in a file.
pub(crate) const BTRFS: Package = Package { name: "btrfs-progs", program: "mkfs.btrfs" };
/// For tests that hold XFS.
pub(crate) const XFS: Package = Package { name: "xfsprogs", program: "mkfs.xfs" };
/// For tests that hold ext4.
pub(crate) const EXT4: Package = Package { name: "e2fsprogs", program: "mkfs.ext4" };
/// The backup program of the demo and of the tests.
pub(crate) const RESTIC: Package = Package { name: "restic", program: "restic" };
/// The loads of tests and benches of the mirror.
pub(crate) const FIO: Package = Package { name: "fio", program: "fio" };
/// The same.
pub(crate) const STRESS: Package = Package { name: "stress-ng", program: "stress-ng" };
/// What judges whether a restored tree is equal to the one that was backed up.
pub(crate) const RSYNC: Package = Package { name: "rsync", program: "rsync" };
/// For tests that kill a program at a call of its own.
pub(crate) const STRACE: Package = Package { name: "strace", program: "strace" };
/// For the writer in Python.
pub(crate) const PYTHON: Package = Package { name: "python3", program: "python3" };
/// For `fsfreeze`.
pub(crate) const UTIL_LINUX: Package = Package { name: "util-linux", program: "fsfreeze" };
/// For `systemd-analyze verify`.
pub(crate) const SYSTEMD: Package = Package { name: "systemd", program: "systemd-analyze" };

/// The server whose clusters the tests make; it brings its client programs, pgbench and amcheck. What it calls its own cluster
/// is left alone.
pub(crate) const POSTGRESQL: Package = Package { name: "postgresql", program: "initdb" };

/// Where programs of the system are, whatever PATH says: an ordinary user's PATH has no sbin.
const PLACES: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// True when the program is there.
pub(crate) fn is_there(program: &str) -> bool {
    find(program).is_some()
}

/// Where the program is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(PLACES.iter().map(Into::into)).chain(versions());
    places.map(|place| place.join(program)).find(|path| path.is_file())
}

/// Debian puts the programs of PostgreSQL's server where PATH does not lead, by version.
fn versions() -> impl Iterator<Item = PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions.map(|version| version.path().join("bin"))
}

/// Makes sure that the packages are there.
///
/// # Errors
/// Some are missing and cannot be installed, with their names.
pub(crate) fn need(packages: &[Package], interrupt: &Interrupt) -> Result<()> {
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if !rustix::process::geteuid().is_root() {
        bail!(
            "these Debian packages are missing: {names}\nInstall them (sudo apt-get install {names}), or run this as root"
        );
    }
    if !Path::new("/etc/debian_version").exists() || !is_there("apt-get") {
        bail!("this is not Debian; install what Debian calls: {names}");
    }
    println!("Installing the Debian packages {names}");
    if !install(&missing, interrupt)? {
        // The lists may be old, or absent as in a fresh container.
        interrupt.check(Command::new("apt-get").args(["-qq", "update"]))?;
        if !install(&missing, interrupt)? {
            bail!("apt-get cannot install {names}");
        }
    }
    let missing = self::missing(packages);
    if !missing.is_empty() {
        bail!("apt-get was content, but the programs of {} are not there", missing.join(" "));
    }
    Ok(())
}

fn missing(packages: &[Package]) -> Vec<&'static str> {
    packages.iter().filter(|package| !is_there(package.program)).map(|package| package.name).collect()
}

fn install(names: &[&str], interrupt: &Interrupt) -> Result<bool> {
    let mut command = Command::new("apt-get");
    command.args(["-qq", "-y", "--no-install-recommends", "install"]).args(names);
    Ok(interrupt.run(command.env("DEBIAN_FRONTEND", "noninteractive"))?.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_there_is_missing() {
        let shell = Package { name: "dash", program: "sh" };
        let other = Package { name: "other", program: "no-such-program-of-ours" };
        assert_eq!(missing(&[shell, other]), ["other"]);
    }
}
