//! A cluster of PostgreSQL under load, the copies of it that a test has made, and the judgement of them.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use tempfile::TempDir;
use vss_lab::postgresql::load::{self, Load};
use vss_lab::postgresql::verify::{Restored, Verdict, judge};
use vss_lab::postgresql::{Cluster, missing};

use crate::loopfs::{Kind, LoopFs};

/// Clients of pgbench.
pub const CLIENTS: u32 = 8;
/// pgbench's scale: 500,000 accounts, 75 MB.
pub const SCALE: u32 = 5;
/// The load is let run so long before each copy.
const BEFORE: Duration = Duration::from_millis(1500);

/// True when a test with clusters on btrfs has to be left out here; says so in one line.
#[must_use]
pub fn skips(test: &str) -> bool {
    let why = LoopFs::missing(&[Kind::Btrfs]).or_else(missing);
    if let Some(why) = &why {
        println!("SKIPPED: {test}: {why}");
    }
    why.is_some()
}

/// The turn to put load on this machine: two loads at once would starve each other, and the tests take longer than one after
/// the other.
pub fn load_turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // Another test's failure is none of ours.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A directory for copies, outside of every volume, that servers can reach.
///
/// # Errors
/// It cannot be made.
pub fn directory_for_copies() -> anyhow::Result<TempDir> {
    let directory = TempDir::with_prefix_in("vss-copies-", "/var/tmp")?;
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
    Ok(directory)
}

/// Copies a tree as it is, as a restore does.
///
/// # Errors
/// What cp says.
pub fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<()> {
    let done = Command::new("cp").arg("-a").args([from, to]).output()?;
    ensure!(done.status.success(), "cp {}: {}", from.display(), String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// Load on a primary, and what is known of the copies that were made under it.
#[derive(Debug)]
pub struct Trial {
    load: Load,
    judged: Vec<Judged>,
}

#[derive(Debug)]
struct Judged {
    way: &'static str,
    /// Everything acknowledged before this has to be in the copy.
    asked: SystemTime,
    verdict: Verdict,
}

/// What one way of copying comes to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Copies made.
    pub made: u32,
    /// Copies in which the sums differ, accounts are missing, or that do not start.
    pub broken: u32,
    /// Good copies that lack a transaction which was acknowledged before they were asked for.
    pub lossy: u32,
}

impl Count {
    /// True when some were made, and all of them are good and whole.
    #[must_use]
    pub fn is_flawless(&self) -> bool {
        self.made > 0 && self.broken == 0 && self.lossy == 0
    }
}

/// By the way in which the copies were made.
pub type Counts = BTreeMap<&'static str, Count>;

impl Trial {
    /// Makes pgbench's tables, in the tablespace if one is named, and starts the load.
    ///
    /// # Errors
    /// The cluster does not run.
    pub fn start(primary: &Cluster, tablespace: Option<&str>) -> anyhow::Result<Self> {
        load::prepare(primary, SCALE, tablespace)?;
        Ok(Self { load: Load::start(primary, CLIENTS)?, judged: Vec::new() })
    }

    /// Lets the load run for a while, makes a copy under it by `copy`, and judges the copy while the load is stopped where it
    /// stands. `way` is what to call this way of copying.
    ///
    /// # Errors
    /// Those of `copy`; a copy that is broken is a verdict.
    pub fn round(&mut self, way: &'static str, copy: impl FnOnce() -> anyhow::Result<Copy>) -> anyhow::Result<()> {
        let round = self.judged.iter().filter(|judged| judged.way == way).count() + 1;
        thread::sleep(BEFORE);
        ensure!(self.load.is_running(), "the load has ended");
        let asked = SystemTime::now();
        let copy = copy().with_context(|| format!("{way} {round}"))?;
        self.load.pause()?;
        let Copy { data, moved, has_lock } = &copy;
        let verdict = judge(&Restored { data, moved, remove_lock: *has_lock }, SCALE)?;
        println!("{way} {round}: {verdict}");
        for place in std::iter::once(data).chain(moved.iter().map(|(_, now)| now)) {
            fs::remove_dir_all(place)?;
        }
        self.load.resume()?;
        self.judged.push(Judged { way, asked, verdict });
        Ok(())
    }

    /// Ends the load and counts.
    ///
    /// # Errors
    /// A transaction of the load has failed.
    pub fn finish(self) -> anyhow::Result<Counts> {
        let log = self.load.finish()?;
        let mut counts = BTreeMap::<_, Count>::new();
        for Judged { way, asked, verdict } in self.judged {
            let count = counts.entry(way).or_default();
            count.made += 1;
            count.broken += u32::from(!verdict.holds());
            count.lossy += u32::from(verdict.holds() && !verdict.has_all(log.acknowledged_before(asked)));
        }
        println!("{} transactions were acknowledged", log.all().len());
        for (way, Count { made, broken, lossy }) in &counts {
            println!("{way}: {made} made, {broken} broken, {lossy} good ones without an acknowledged transaction");
        }
        Ok(counts)
    }
}

/// A copy to be judged, which is removed after that.
#[derive(Debug)]
pub struct Copy {
    /// Its data directory.
    pub data: PathBuf,
    /// Directories outside of it: where the original has them, and where they were copied to.
    pub moved: Vec<(PathBuf, PathBuf)>,
    /// The server's lock file is in it, as in every plain copy of live files, and has to be removed.
    pub has_lock: bool,
}
