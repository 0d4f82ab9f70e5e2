//! pgbench: its tables, and its load with a log of every transaction that was acknowledged.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;
use vss_linux::child::bind_to_parent;
use vss_linux::process::{PidFd, Signal};

use crate::postgresql::cluster::{Cluster, SUPERUSER};
use crate::process::{is_alive, output, wait_until};

/// The database of pgbench's tables.
pub const DATABASE: &str = "bench";
/// Accounts for each unit of scale (pgbench(1)).
pub const ACCOUNTS: u64 = 100_000;
/// For a cluster under load: checkpoints follow each other so fast that no copy of minutes is needed to meet one.
pub const SETTINGS: [(&str, &str); 4] =
    [("max_wal_size", "64MB"), ("min_wal_size", "32MB"), ("checkpoint_timeout", "30s"), ("shared_buffers", "64MB")];

/// What pgbench says goes to this file beside its logs.
const WORDS: &str = "words";
/// Longest load, in seconds: one that is forgotten ends.
const LONGEST: &str = "3600";
/// So long may pgbench take for the transactions that it has begun.
const LIMIT: Duration = Duration::from_secs(60);

/// Makes the database and pgbench's tables with `scale` times 100,000 accounts, in this tablespace if one is named.
///
/// # Errors
/// The cluster does not run, or has the database already.
pub fn prepare(cluster: &Cluster, scale: u32, tablespace: Option<&str>) -> anyhow::Result<()> {
    cluster.sql(SUPERUSER, &format!("CREATE DATABASE {DATABASE}"))?;
    let mut command = cluster.client("pgbench");
    command.args(["--initialize", "--quiet", "--scale", &scale.to_string()]);
    if let Some(tablespace) = tablespace {
        command.args(["--tablespace", tablespace]);
    }
    output(command.arg(DATABASE))?;
    // As in a database that has been there for a while: what is new since the last checkpoint is only what the load writes.
    cluster.sql(SUPERUSER, "CHECKPOINT")?;
    Ok(())
}

/// A running pgbench: TPC-B by so many clients. Dropping it ends it.
#[derive(Debug)]
pub struct Load {
    process: Child,
    handle: PidFd,
    logs: TempDir,
    is_paused: bool,
}

impl Load {
    /// Starts it, and waits until the first transaction has been acknowledged.
    ///
    /// # Errors
    /// The cluster does not run, or [`prepare`] was not called.
    pub fn start(cluster: &Cluster, clients: u32) -> anyhow::Result<Self> {
        let logs = TempDir::with_prefix_in("vss-pgbench-", "/tmp")?;
        cluster.account().own(logs.path(), 0o755)?;
        let said = File::create(logs.path().join(WORDS))?;
        let before = history(cluster)?;
        let mut command = cluster.client("pgbench");
        command.args(["--client", &clients.to_string(), "--jobs", "2", "--no-vacuum", "--log", "--time", LONGEST]);
        command.arg("--log-prefix").arg(logs.path().join("log")).arg(DATABASE);
        bind_to_parent(&mut command, Signal::TERM);
        let process = command.stdout(Stdio::null()).stderr(said).spawn().context("cannot run pgbench")?;
        let load = Self { handle: PidFd::open(process.id())?, process, logs, is_paused: false };
        let mut is_under_way = false;
        wait_until(LIMIT, || {
            is_under_way = history(cluster).is_ok_and(|rows| rows > before);
            is_under_way || !load.is_running()
        });
        ensure!(is_under_way, "pgbench does nothing: {}", load.words());
        Ok(load)
    }

    /// True while it runs: it ends by itself when the server does.
    #[must_use]
    pub fn is_running(&self) -> bool {
        is_alive(self.process.id())
    }

    /// Stops it where it stands, with its sessions open: for the time in which a copy is judged, which takes the processors.
    ///
    /// # Errors
    /// It has ended.
    pub fn pause(&mut self) -> anyhow::Result<()> {
        self.is_paused = true;
        Ok(self.handle.signal(Signal::STOP)?)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It has ended.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.is_paused = false;
        Ok(self.handle.signal(Signal::CONT)?)
    }

    /// Ends it after the transactions that it has begun.
    ///
    /// # Errors
    /// It has ended already, or a transaction has failed; what it said.
    pub fn finish(mut self) -> anyhow::Result<Log> {
        if self.is_paused {
            self.resume()?;
        }
        ensure!(self.is_running(), "pgbench has ended: {}", self.words());
        // As its own alarm at the end of `--time`.
        self.handle.signal(Signal::ALARM)?;
        if !wait_until(LIMIT, || !self.is_running()) {
            bail!("pgbench does not end: {}", self.words());
        }
        let status = self.process.wait()?;
        ensure!(status.success(), "pgbench ended with {status}: {}", self.words());
        Log::read(&self.logs)
    }

    /// Waits until it has ended because its server did, and returns what had been acknowledged until then.
    ///
    /// # Errors
    /// It goes on.
    pub fn outlived(mut self) -> anyhow::Result<Log> {
        if !wait_until(LIMIT, || !self.is_running()) {
            bail!("pgbench goes on without its server: {}", self.words());
        }
        self.process.wait()?;
        Log::read(&self.logs)
    }

    fn words(&self) -> String {
        fs::read_to_string(self.logs.path().join(WORDS)).unwrap_or_default()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It has ended already after `finish`.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Rows of pgbench_history: transactions whose effect is seen.
fn history(cluster: &Cluster) -> anyhow::Result<u64> {
    Ok(cluster.sql(DATABASE, "SELECT count(*) FROM pgbench_history")?.parse()?)
}

/// Every transaction that pgbench was told to be committed, in the order of their ends.
#[derive(Debug)]
pub struct Log {
    transactions: Vec<Transaction>,
}

/// One transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Transaction {
    /// When pgbench was told that it is committed.
    pub ended: SystemTime,
    /// From its begin to that.
    pub took: Duration,
}

impl Log {
    fn read(directory: &TempDir) -> anyhow::Result<Self> {
        let mut transactions = Vec::new();
        for entry in fs::read_dir(directory.path())? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with("log.") {
                continue;
            }
            for line in BufReader::new(File::open(entry.path())?).lines() {
                let line = line?;
                transactions.push(parse(&line).with_context(|| format!("pgbench logs {line:?}"))?);
            }
        }
        transactions.sort_unstable();
        Ok(Self { transactions })
    }

    /// How many were acknowledged before this time.
    #[must_use]
    pub fn acknowledged_before(&self, time: SystemTime) -> usize {
        self.transactions.partition_point(|transaction| transaction.ended < time)
    }

    /// Those that were acknowledged in this time.
    #[must_use]
    pub fn between(&self, from: SystemTime, to: SystemTime) -> &[Transaction] {
        let (from, to) = (self.acknowledged_before(from), self.acknowledged_before(to));
        self.transactions.get(from..to).unwrap_or_default()
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Transaction] {
        &self.transactions
    }
}

/// `CLIENT NUMBER MICROSECONDS SCRIPT SECOND MICROSECOND`: the third is how long it took, the last two are when it ended.
fn parse(line: &str) -> Option<Transaction> {
    let mut numbers = line.split(' ').map(|word| word.parse::<u64>().ok());
    let took = Duration::from_micros(numbers.nth(2)??);
    let ended = Duration::from_secs(numbers.nth(1)??) + Duration::from_micros(numbers.next()??);
    Some(Transaction { ended: SystemTime::UNIX_EPOCH + ended, took })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_counts_by_time() {
        let at = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        let line = parse("0 199 2241 0 1175850568 995598").unwrap();
        assert_eq!(line.took, Duration::from_micros(2241));
        assert_eq!(line.ended, SystemTime::UNIX_EPOCH + Duration::from_micros(1_175_850_568_995_598));
        assert!(parse("0 199 failed 0 1175850568 995598").is_none() && parse("").is_none());

        let transactions =
            [1, 5, 5, 9].map(|ms| Transaction { ended: at(ms), took: Duration::from_millis(1) }).to_vec();
        let log = Log { transactions };
        assert_eq!([0, 5, 6, 10].map(|ms| log.acknowledged_before(at(ms))), [0, 1, 3, 4]);
        assert_eq!(log.between(at(2), at(9)).len(), 2);
        assert!(log.between(at(9), at(2)).is_empty());
    }
}
