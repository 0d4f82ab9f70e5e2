//! How people copy a data directory while its server runs. Neither way is one instant; whether the copy is good is luck for the
//! quick one, and out of the question for one that takes longer than it is from checkpoint to checkpoint.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::postgresql::cluster::{Cluster, SUPERUSER};
use crate::process::wait_until;

/// A checkpoint comes within this time when there is load: the server's longest interval is set to less.
const CHECKPOINT: Duration = Duration::from_secs(90);
/// Tells recovery where to begin: copied last.
const CONTROL: &str = "global/pg_control";
/// The tables, unless they are in tablespaces.
const TABLES: &str = "base";

/// `cp -a` of the live data directory to `target`, which is made.
///
/// # Errors
/// cp cannot be run or fails; files that the server removes meanwhile are no failure.
pub fn plain(cluster: &Cluster, target: &Path) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let done = Command::new("cp").env("LC_ALL", "C").arg("-a").arg(cluster.data()).arg(target).output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    let is_good = said.lines().all(|line| line.ends_with("No such file or directory"));
    ensure!(done.status.success() || is_good, "cp ended with {}: {said}", done.status);
    Ok(began.elapsed())
}

/// A copy of the live data directory to `target`, which is made, file by file in the order of their names, at the pace of a
/// cluster so large that a checkpoint passes between the tables and the rest.
///
/// # Errors
/// What the file system says, except of files that the server removes meanwhile; no checkpoint in 90 s.
pub fn slowed(cluster: &Cluster, target: &Path) -> anyhow::Result<Duration> {
    let began = Instant::now();
    cluster.account().make_directory(target)?;
    let mut copy = Copy { cluster, target, wait: true };
    copy.directory(Path::new(""))?;
    copy.file(Path::new(CONTROL))?;
    Ok(began.elapsed())
}

/// Waits until the server would recover from a point after now.
fn wait_for_checkpoint(cluster: &Cluster) -> anyhow::Result<()> {
    let now = cluster.sql(SUPERUSER, "SELECT pg_current_wal_insert_lsn()")?;
    let asked = format!("SELECT redo_lsn > '{now}' FROM pg_control_checkpoint()");
    let passed = wait_until(CHECKPOINT, || {
        // Not at every look of the clock: each is a session of its own.
        std::thread::sleep(Duration::from_millis(200));
        cluster.pid().is_none() || cluster.sql(SUPERUSER, &asked).is_ok_and(|answer| answer == "t")
    });
    ensure!(cluster.pid().is_some(), "the server has ended");
    ensure!(passed, "no checkpoint in {CHECKPOINT:?}");
    Ok(())
}

/// A copy under way.
struct Copy<'a> {
    cluster: &'a Cluster,
    target: &'a Path,
    /// Not waited for a checkpoint yet.
    wait: bool,
}

impl Copy<'_> {
    /// What is in a directory of the cluster, as it is when the copy gets there.
    fn directory(&mut self, below: &Path) -> anyhow::Result<()> {
        let entries = match fs::read_dir(self.cluster.data().join(below)) {
            Ok(entries) => entries,
            Err(error) => return unless_gone(error),
        };
        let mut names = entries.map(|entry| Ok(below.join(entry?.file_name()))).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        for name in names.iter().filter(|name| !name.ends_with(CONTROL)) {
            self.file(name).with_context(|| format!("copying {}", name.display()))?;
            if self.wait && name == Path::new(TABLES) {
                self.wait = false;
                wait_for_checkpoint(self.cluster)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, name: &Path) -> anyhow::Result<()> {
        let (from, to) = (self.cluster.data().join(name), self.target.join(name));
        let account = self.cluster.account();
        let kind = match fs::symlink_metadata(&from) {
            Ok(metadata) => metadata.file_type(),
            Err(error) => return unless_gone(error),
        };
        if kind.is_symlink() {
            return Ok(std::os::unix::fs::symlink(fs::read_link(from)?, to)?);
        }
        if kind.is_dir() {
            fs::create_dir(&to)?;
            account.own(&to, 0o700)?;
            return self.directory(name);
        }
        match fs::copy(&from, &to) {
            Ok(_) => account.own(&to, 0o600),
            Err(error) => unless_gone(error),
        }
    }
}

fn unless_gone(error: io::Error) -> anyhow::Result<()> {
    if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error.into()) }
}
