//! What a copy of a cluster under pgbench's load is worth: a second server is started on it and judged by the sums.
//!
//! A broken copy starts without an error, and amcheck finds nothing. So the rule of TPC-B is what counts: every transaction
//! adds one number to an account, a teller and a branch and writes it into the history, hence at every instant their sums are
//! equal.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::postgresql::cluster::{Cluster, Stop};
use crate::postgresql::load::{ACCOUNTS, DATABASE};
use crate::process::output;

/// For a server that is only to be judged and thrown away: nothing of it has to survive, and it must not reach the original's
/// archive or primary.
const SETTINGS: [(&str, &str); 6] = [
    ("fsync", "off"),
    ("archive_mode", "off"),
    ("primary_conninfo", ""),
    ("restore_command", ""),
    ("autovacuum", "off"),
    ("max_parallel_workers_per_gather", "0"),
];

/// The sums of one instant, as in one query.
const SUMS: &str = "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
    (SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history),
    (SELECT count(*) FROM pgbench_history)";
const BY_HEAP: &str = "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off;
    SELECT count(abalance) FROM pgbench_accounts";
const BY_INDEX: &str = "SET enable_seqscan = off; SET enable_bitmapscan = off;
    SELECT count(abalance) FROM pgbench_accounts WHERE aid >= 0";

/// Files that were copied or restored. The server changes them.
#[derive(Debug)]
pub struct Restored<'a> {
    /// The data directory.
    pub data: &'a Path,
    /// Directories outside of it: where the original has them, and where they were restored.
    pub moved: &'a [(PathBuf, PathBuf)],
    /// Remove the original's `postmaster.pid`, which a copy of live files has, as an administrator would.
    pub remove_lock: bool,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Everything that is wrong; nothing for a good copy.
    pub faults: Vec<String>,
    /// Sums over accounts, tellers, branches and history.
    pub sums: Option<[i64; 4]>,
    /// Transactions in it.
    pub history: u64,
    /// From the start of the second server to its first session, recovery included.
    pub recovery: Duration,
}

impl Verdict {
    /// True for a good copy.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.faults.is_empty()
    }

    /// True when every one of `acknowledged` transactions can be in it.
    #[must_use]
    pub fn has_all(&self, acknowledged: usize) -> bool {
        usize::try_from(self.history).is_ok_and(|history| history >= acknowledged)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.holds() {
            return write!(f, "BROKEN: {}", self.faults.join("; "));
        }
        let [sum, ..] = self.sums.unwrap_or_default();
        write!(f, "held: four sums of {sum}, {} transactions", self.history)
    }
}

/// Starts a second server on the files, judges them, and stops it. The tables are those of [`crate::postgresql::load::prepare`]
/// with this scale.
///
/// # Errors
/// The files point to places that `moved` does not tell, or a program of PostgreSQL is missing; a copy that does not start is a
/// verdict.
pub fn judge(restored: &Restored<'_>, scale: u32) -> anyhow::Result<Verdict> {
    restored.settle()?;
    let mut verdict = Verdict { faults: Vec::new(), sums: None, history: 0, recovery: Duration::ZERO };
    let mut server = Cluster::adopt(restored.data)?;
    let began = Instant::now();
    if let Err(error) = server.start_with(&SETTINGS) {
        verdict.faults.push(format!("it does not start: {error:#}"));
        return Ok(verdict);
    }
    if restored.data.join("standby.signal").exists() {
        server.promote()?;
    }
    verdict.recovery = began.elapsed();
    verdict.look(&server, scale);
    server.stop(Stop::Immediate)?;
    Ok(verdict)
}

impl Verdict {
    fn look(&mut self, server: &Cluster, scale: u32) {
        match sums(server) {
            Ok((sums, history)) => {
                if sums.iter().any(|sum| *sum != sums[0]) {
                    let [accounts, tellers, branches, deltas] = sums;
                    self.faults
                        .push(format!("accounts {accounts}, tellers {tellers}, branches {branches}, history {deltas}"));
                }
                (self.sums, self.history) = (Some(sums), history);
            }
            Err(error) => self.faults.push(format!("no sums: {error:#}")),
        }
        let wanted = u64::from(scale) * ACCOUNTS;
        for (how, query) in [("heap", BY_HEAP), ("index", BY_INDEX)] {
            match server.sql(DATABASE, query) {
                Ok(count) if count == wanted.to_string() => {}
                Ok(count) => self.faults.push(format!("{count} accounts by {how} instead of {wanted}")),
                Err(error) => self.faults.push(format!("no accounts by {how}: {error:#}")),
            }
        }
        let mut amcheck = server.client("pg_amcheck");
        amcheck.args(["--heapallindexed", "--install-missing", "--no-dependent-toast", "--jobs", "2", DATABASE]);
        if let Err(error) = output(&mut amcheck) {
            self.faults.push(in_one_line(&format!("{error:#}")));
        }
    }
}

/// pg_amcheck heads what it has found with the name of the table or index.
fn in_one_line(said: &str) -> String {
    let headings = ["heap table ", "btree index "];
    let damaged = said.lines().filter(|line| headings.iter().any(|heading| line.contains(heading))).count();
    if damaged == 0 {
        said.replace('\n', " ")
    } else {
        format!("pg_amcheck finds {damaged} damaged tables and indexes")
    }
}

fn sums(server: &Cluster) -> anyhow::Result<([i64; 4], u64)> {
    let row = server.sql(DATABASE, SUMS)?;
    let numbers = row.split('|').map(|number| Ok(number.parse::<i64>()?)).collect::<anyhow::Result<Vec<_>>>();
    let numbers = numbers.with_context(|| format!("the sums are {row:?}"))?;
    let [accounts, tellers, branches, deltas, history] = numbers[..] else { bail!("the sums are {row:?}") };
    Ok(([accounts, tellers, branches, deltas], u64::try_from(history)?))
}

impl Restored<'_> {
    /// Makes the files independent of the original: no link into it stays.
    fn settle(&self) -> anyhow::Result<()> {
        ensure!(self.data.join("PG_VERSION").is_file(), "{} is no data directory", self.data.display());
        if self.remove_lock {
            absent(fs::remove_file(self.data.join("postmaster.pid")))?;
        }
        let mut links = vec![self.data.join("pg_wal")];
        for entry in fs::read_dir(self.data.join("pg_tblspc"))? {
            links.push(entry?.path());
        }
        for link in links.iter().filter(|link| link.is_symlink()) {
            let now = self.place_of(&fs::read_link(link)?)?;
            fs::remove_file(link)?;
            std::os::unix::fs::symlink(now, link)?;
        }
        // The server makes its links to tablespaces anew from this, when it is there.
        let map = self.data.join("tablespace_map");
        if map.exists() {
            let text = fs::read_to_string(&map)?;
            let lines = text.lines().map(|line| {
                let (oid, place) = line.split_once(' ').with_context(|| format!("tablespace_map says {line:?}"))?;
                Ok(format!("{oid} {}\n", self.place_of(Path::new(place))?.display()))
            });
            fs::write(&map, lines.collect::<anyhow::Result<String>>()?)?;
        }
        Ok(())
    }

    fn place_of(&self, original: &Path) -> anyhow::Result<&Path> {
        // The second, when it has been judged before.
        let found = self.moved.iter().find(|(from, to)| from == original || to == original);
        let (_, to) = found.with_context(|| format!("{} points to {}", self.data.display(), original.display()))?;
        Ok(to)
    }
}

fn absent(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
