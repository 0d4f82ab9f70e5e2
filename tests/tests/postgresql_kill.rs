//! Kills the server, the writer and the service at every event of a set that is made of a PostgreSQL cluster under load, and
//! looks at what is left: no session of the writer, and with it no backup mode; no slot; no copy. And what is told of the set
//! is true: one that is called application-consistent is judged by a second server, and has everything that was acknowledged.

use std::fs;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;
use vss_lab::postgresql::load::{self, Load};
use vss_lab::postgresql::verify::{Restored, judge};
use vss_lab::postgresql::{Cluster, Stop};
use vss_service::sagas::create_set::TABLE;
use vss_tests::instance::{Instance, wait_until};
use vss_tests::postgresql::{copy_tree, directory_for_copies, skips};
use vss_tests::scale::rounds;
use vss_tests::traces::{self, LIMIT};
use vss_tests::turn::creation_turn;
use vss_tests::volume::Volume;

/// Rows of the saga table around the events of a writer; a soak goes through all rows.
const AROUND_EVENTS: [&str; 9] =
    ["prepare_snapshot", "flush", "freeze", "pre_commit", "commit", "thaw", "pre_final", "post_snapshot", "post_final"];
/// pgbench's scale.
const SCALE: u32 = 1;

/// Whom a case kills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Server,
    Writer,
    Service,
}

/// What the requester makes of a failed writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tolerance {
    /// As by default: no set.
    Strict,
    /// `--allow-degraded`: a set of a lower level.
    Degraded,
}

/// Where the cluster's files are, and so how it is made ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// In one subvolume: a checkpoint, nothing is held.
    OneInstant,
    /// The log is in another subvolume: backup mode.
    SeveralInstants,
}

impl Layout {
    /// The level of a copy that the writer has not made ready, or not to the end.
    fn without_writer(self) -> &'static str {
        match self {
            Self::OneInstant => "file-system",
            Self::SeveralInstants => "crash",
        }
    }

    /// The level that has to be told when `victim` dies right before `row` and failed writers are tolerated; none when no set
    /// can be made.
    fn level(self, row: &str, victim: Victim) -> Option<&'static str> {
        let place = |wanted: &str| TABLE.iter().position(|row| row.name == wanted);
        let is_after = |other: &str| place(row) > place(other);
        let is_ready = match (victim, self) {
            (Victim::Service, _) => return None,
            // What was cut at one instant after the checkpoint needs no server any more.
            (Victim::Server, Self::OneInstant) => is_after("prepare_snapshot"),
            // It has to end backup mode, and the writer has to mend the copy.
            (Victim::Server, Self::SeveralInstants) | (Victim::Writer, _) => is_after("post_snapshot"),
        };
        Some(if is_ready { "application" } else { self.without_writer() })
    }
}

/// A cluster on a volume, and an instance that is started for each case.
struct Scene {
    layout: Layout,
    instance: Instance,
    cluster: Cluster,
    copies: TempDir,
    wal: Option<PathBuf>,
    volume: Volume,
}

impl Scene {
    fn new(layout: Layout) -> anyhow::Result<Self> {
        let volume = Volume::of_size(1024)?;
        let data = volume.path().join("data");
        let (wal, mut cluster) = match layout {
            Layout::OneInstant => (None, Cluster::create(&data, &load::SETTINGS)?),
            Layout::SeveralInstants => {
                volume.make_subvolume("log")?;
                let wal = volume.path().join("log/wal");
                (Some(wal.clone()), Cluster::create_with_wal(&data, &wal, &load::SETTINGS)?)
            }
        };
        cluster.start()?;
        load::prepare(&cluster, SCALE, None)?;
        let instance = Instance::with_postgresql()?;
        Ok(Self { layout, instance, cluster, copies: directory_for_copies()?, wal, volume })
    }

    /// One case, from a running server and an instance that does not run to the same.
    fn case(&mut self, row: &str, victim: Victim, tolerance: Tolerance) -> anyhow::Result<String> {
        let server = self.cluster.pid().context("the server runs")?;
        let deed = match victim {
            Victim::Server => format!("kill-{server}"),
            Victim::Writer => "kill-writer".to_owned(),
            Victim::Service => "kill-service".to_owned(),
        };
        self.instance.set("VSS_FAULT", format!("{row}:{deed}"));
        self.instance.start()?;
        self.instance.start_writers()?;
        let load = Load::start(&self.cluster, 2)?;
        let asked = SystemTime::now();
        let outcome = {
            let _turn = creation_turn();
            let options = if tolerance == Tolerance::Degraded { &["--allow-degraded"][..] } else { &[] };
            self.instance.vss([&["create", "--json", self.volume.name()], options].concat())?
        };
        let level = self.layout.level(row, victim);
        let expected = level.filter(|level| tolerance == Tolerance::Degraded || *level == "application");
        let told = if outcome.is_success() { outcome.json()? } else { Value::Null };
        let told_level = told["consistency"].as_str();
        // A session outlives its postmaster by moments, in which it may still end backup mode: then the copy is good.
        let is_late = victim == Victim::Server && told_level == Some("application");
        ensure!(told_level == expected || is_late, "{expected:?} was expected: {outcome:?}");
        if told_level != Some("application") {
            let who = if victim == Victim::Service { "service" } else { "postgresql" };
            let is_told = outcome.stderr.contains(who) && outcome.stderr.contains("VSS_E_");
            ensure!(is_told && outcome.code == Some(told_level.map_or(1, |_| 0)), "who has failed? {outcome:?}");
        }
        let log = if victim == Victim::Server {
            let is_killed = wait_until(LIMIT, || self.cluster.pid().is_none());
            ensure!(is_killed, "the server lives: the fault did not happen");
            load.outlived()?
        } else {
            load.finish()?
        };
        let seen = match told_level {
            None => "no set".to_owned(),
            Some("application") => self.judge(&told, log.acknowledged_before(asked))?,
            Some(level) => format!("told to be {level}"),
        };
        if told_level.is_some() {
            let deleted = self.instance.vss(["delete", "--all"])?;
            ensure!(deleted.is_success(), "{deleted:?}");
        }
        self.is_over(victim)?;
        Ok(seen)
    }

    /// A second server on a copy of the copy.
    fn judge(&self, set: &Value, acknowledged: usize) -> anyhow::Result<String> {
        let shadow = set["shadows"][0]["id"].as_str().context("an id")?;
        let shown = self.instance.path().join("shown");
        fs::create_dir_all(&shown)?;
        let exposed = self.instance.vss(["expose", shadow, &shown.to_string_lossy()])?;
        ensure!(exposed.is_success(), "{exposed:?}");
        let (data, wal) = (self.copies.path().join("data"), self.copies.path().join("wal"));
        copy_tree(&shown.join("data"), &data)?;
        let mut moved = Vec::new();
        if let Some(original) = &self.wal {
            copy_tree(&shown.join("log/wal"), &wal)?;
            moved.push((original.clone(), wal));
        }
        let unexposed = self.instance.vss(["unexpose", shadow])?;
        ensure!(unexposed.is_success(), "{unexposed:?}");
        let verdict = judge(&Restored { data: &data, moved: &moved, remove_lock: false }, SCALE)?;
        ensure!(verdict.holds() && verdict.has_all(acknowledged), "{acknowledged} acknowledged, but {verdict}");
        for place in std::iter::once(&data).chain(moved.iter().map(|(_, now)| now)) {
            fs::remove_dir_all(place)?;
        }
        Ok(format!("application, {verdict}"))
    }

    /// Nothing is held in the server, at once, and nothing is left by the instance.
    fn is_over(&mut self, victim: Victim) -> anyhow::Result<()> {
        if victim == Victim::Server {
            self.cluster.kill()?;
            self.cluster.start()?;
        }
        let mut held = String::new();
        let asked = "SELECT (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'vss'), \
            (SELECT count(*) FROM pg_replication_slots)";
        let is_free = wait_until(LIMIT, || {
            held = self.cluster.sql("postgres", asked).unwrap_or_else(|error| format!("{error:#}"));
            held == "0|0"
        });
        ensure!(is_free, "sessions and slots are left: {held}");
        self.instance.unset("VSS_FAULT");
        if victim == Victim::Service {
            let is_gone = wait_until(LIMIT, || self.instance.service_pid().is_none());
            ensure!(is_gone, "vssd lives: the fault did not happen");
            self.instance.kill()?;
            // The next start, on demand.
            traces::has_no_shadows(&self.instance)?;
        } else {
            self.instance.stop()?;
        }
        self.instance.end_writers()?;
        traces::has_no_processes(&self.instance)?;
        let copies = self.volume.copies()?;
        ensure!(copies.is_empty(), "copies are left: {copies:?}");
        let mounts = self.instance.mounts();
        ensure!(mounts.is_empty(), "mounts are left: {mounts:?}");
        Ok(())
    }
}

/// Runs the rows with every victim; prints a line a case. With `VSS_CASE` in the environment only the cases whose line has
/// that text.
fn matrix(name: &str, layout: Layout) -> anyhow::Result<()> {
    if skips(name) {
        return Ok(());
    }
    let only = std::env::var("VSS_CASE").ok();
    let is_soak = rounds(0, 1) == 1;
    let mut scene = Scene::new(layout)?;
    let mut failures = Vec::new();
    for row in TABLE.iter().map(|row| row.name).filter(|row| is_soak || AROUND_EVENTS.contains(row)) {
        for victim in [Victim::Server, Victim::Writer, Victim::Service] {
            for tolerance in [Tolerance::Strict, Tolerance::Degraded] {
                let case = format!("{layout:?} {row} {victim:?} {tolerance:?}");
                // Where no writer fails, nothing is to be tolerated.
                let is_same = victim == Victim::Service || layout.level(row, victim) == Some("application");
                if is_same && tolerance == Tolerance::Strict {
                    continue;
                }
                if only.as_ref().is_some_and(|only| !case.contains(only.as_str())) {
                    continue;
                }
                let started = Instant::now();
                let result = scene.case(row, victim, tolerance);
                let took = started.elapsed().as_millis();
                match result {
                    Ok(seen) => println!("{case}: {took} ms, {seen}"),
                    Err(error) => {
                        println!("{case}: FAILED after {took} ms: {error:#}\n{}", scene.instance.log());
                        failures.push(case);
                        // What the case left must not fail the next one.
                        scene = Scene::new(layout)?;
                    }
                }
            }
        }
    }
    scene.cluster.stop(Stop::Fast)?;
    if failures.is_empty() { Ok(()) } else { bail!("{} cases failed: {failures:?}", failures.len()) }
}

#[test]
fn of_one_instant() -> anyhow::Result<()> {
    matrix("of_one_instant", Layout::OneInstant)
}

#[test]
fn in_backup_mode() -> anyhow::Result<()> {
    matrix("in_backup_mode", Layout::SeveralInstants)
}
