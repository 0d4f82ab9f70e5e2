//! Kills each of the five processes that make a set, at every row of the saga table, while programs write to its volumes, and
//! looks at what is left: nothing frozen within 10 s, every surviving writer told, nothing left behind, the error saying who
//! and why. The rows come from the table itself.
//!
//! Three sets: ext4 and XFS held by the guard (the fake provider makes the copies), the same in images whose blocks are shared
//! (the reflink provider makes them), and btrfs with a nested subvolume.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use vss_api::writer::EventKind;
use vss_linux::process::{PidFd, Signal};
use vss_service::sagas::create_set::TABLE;
use vss_tests::instance::{Instance, Outcome, wait_until};
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::traces::{self, BusyVolume, LIMIT};
use vss_tests::turn::creation_turn;
use vss_tests::writers::{ScriptWriter, SocketWriter, check_events};
use vss_writer::fake::FakeWriter;

/// Whom a case kills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Service,
    Guard,
    Both,
    Requester,
    Writer,
}

impl Victim {
    /// As `VSS_FAULT` calls the deed.
    fn deed(self) -> &'static str {
        match self {
            Self::Service => "kill-service",
            Self::Guard => "kill-guard",
            Self::Both => "kill-both",
            Self::Requester => "kill-requester",
            Self::Writer => "kill-writer",
        }
    }

    fn ends_service(self) -> bool {
        matches!(self, Self::Service | Self::Both)
    }
}

/// How `vss run` has to end.
#[derive(Debug)]
enum End {
    /// Exit status 125; the message has these words.
    Refused(&'static [&'static str]),
    /// The set is made and the command runs; the warning, if any, has these words.
    Made(&'static [&'static str]),
    /// SIGKILL.
    Killed,
}

/// What the rules of the house say about a victim that dies right before `row`.
fn expected(row: &str, victim: Victim) -> End {
    let place = |wanted: &str| TABLE.iter().position(|row| row.name == wanted);
    let is_after = |other: &str| place(row) > place(other);
    match victim {
        Victim::Service | Victim::Both => End::Refused(&["service", "VSS_E_UNEXPECTED"]),
        Victim::Requester => End::Killed,
        // There is none yet, or none is needed any more.
        Victim::Guard if row == "prepare_hold" || is_after("release") => End::Made(&[]),
        Victim::Guard => End::Refused(&["guard", "VSS_E_"]),
        // It has done all for the set; that the backup is over does not reach it.
        Victim::Writer if is_after("post_snapshot") => End::Made(&["script", "VSS_E_"]),
        Victim::Writer => End::Refused(&["script", "VSS_E_"]),
    }
}

/// An instance with its volumes, used for one case after another.
struct Scene {
    instance: Instance,
    volumes: Vec<BusyVolume>,
    script: ScriptWriter,
    /// What the volumes lie in, and their copies; ends after them.
    outer: Option<LoopFs>,
}

impl Scene {
    fn held() -> anyhow::Result<Self> {
        let volumes = vec![BusyVolume::new(Kind::Ext4, 32)?, BusyVolume::new(Kind::Xfs, 300)?];
        let mut scene = Self::of(volumes)?;
        let fake = serde_json::json!({"store": traces::fake_store(&scene.instance), "policy": "needs_hold"});
        scene.instance.set("VSS_FAKE", fake.to_string());
        Ok(scene)
    }

    fn shared() -> anyhow::Result<Self> {
        let outer = LoopFs::new(Kind::Xfs, 900)?;
        let inner = |kind, size| BusyVolume::of(LoopFs::new_in(outer.path(), kind, size)?);
        let volumes = vec![inner(Kind::Ext4, 32)?, inner(Kind::Xfs, 300)?];
        Ok(Self { outer: Some(outer), ..Self::of(volumes)? })
    }

    fn btrfs() -> anyhow::Result<Self> {
        Self::of(vec![BusyVolume::new(Kind::Btrfs, 512)?.with_nested()?])
    }

    fn of(volumes: Vec<BusyVolume>) -> anyhow::Result<Self> {
        let instance = Instance::new()?;
        let script = ScriptWriter::install(&instance, "script", volumes[0].path(), None)?;
        Ok(Self { instance, volumes, script, outer: None })
    }

    /// Service, script writer and a second writer; the script writer is the first, whom a fault kills.
    fn start(&mut self) -> anyhow::Result<SocketWriter> {
        self.instance.start()?;
        let recovery = self.instance.management()?.status()?.recovery;
        ensure!(recovery.is_empty(), "something was left for this start: {recovery:?}");
        self.instance.start_writers()?;
        let owned = self.volumes.last().context("a scene has volumes")?.path();
        let survivor =
            SocketWriter::join(&self.instance, FakeWriter::new("survivor", owned).with_freeze_timeout(FREEZE))?;
        let first = self.instance.management()?.writers()?.first().map(|writer| writer.pid);
        ensure!(first == self.instance.writers_pid(), "the script writer is not the first");
        Ok(survivor)
    }

    fn run(&self) -> anyhow::Result<Outcome> {
        let volumes = self.volumes.iter().flat_map(|volume| ["--volume".into(), volume.path().as_os_str().to_owned()]);
        let words = std::iter::once("run".into()).chain(volumes).chain(["--", "true"].map(Into::into));
        self.instance.vss(words)
    }

    /// One case, from an instance that does not run to one that does not run.
    fn case(&mut self, row: &str, victim: Victim) -> anyhow::Result<String> {
        self.instance.set("VSS_FAULT", format!("{row}:{}", victim.deed()));
        let survivor = self.start()?;
        let logged = self.instance.log().len();
        self.writes_flow()?;
        // Until the service has undone the set of a requester that is gone.
        let turn = creation_turn();
        let outcome = self.run()?;
        let ended = Instant::now();
        check_end(&outcome, &expected(row, victim))?;

        if victim.ends_service() {
            let is_gone = wait_until(LIMIT, || self.instance.service_pid().is_none());
            ensure!(is_gone, "vssd lives: the fault did not happen");
            self.instance.kill()?;
            if victim == Victim::Service {
                // The guard and the writers see to that by themselves.
                self.writes_flow()?;
            }
            self.instance.unset("VSS_FAULT");
            self.next_start()?;
            let log = self.instance.log();
            // Nobody is left who could have thawed: it was this start.
            let is_in_hold = victim == Victim::Both && ["commit", "release"].contains(&row);
            let said = log.get(logged..).unwrap_or_default();
            ensure!(!is_in_hold || said.contains("was frozen, is thawed"), "nothing was frozen: {said}");
        }
        let stall = self.writes_flow()?;
        self.writers_are_told(&survivor, victim)?;
        if !victim.ends_service() {
            self.service_is_idle()?;
            self.instance.stop()?;
        }
        drop(turn);
        ensure!(ended.elapsed() < 3 * LIMIT, "it took {:?} until all was well", ended.elapsed());
        drop(survivor);
        self.instance.end_writers()?;
        traces::has_no_processes(&self.instance)?;
        self.nothing_is_left()?;
        Ok(format!("longest stall {} ms", stall.as_millis()))
    }

    fn writes_flow(&self) -> anyhow::Result<Duration> {
        self.volumes.iter().try_fold(Duration::ZERO, |longest, volume| Ok(longest.max(volume.writes_flow()?)))
    }

    /// The next `vss`, which starts vssd on demand.
    fn next_start(&self) -> anyhow::Result<()> {
        traces::has_no_shadows(&self.instance)?;
        self.nothing_is_left()
    }

    fn writers_are_told(&self, survivor: &SocketWriter, victim: Victim) -> anyhow::Result<()> {
        let events = || survivor.handle().events();
        if !wait_until(LIMIT, || check_events(&events()).is_ok()) {
            check_events(&events()).context("the surviving writer")?;
        }
        ensure!(!survivor.handle().is_frozen(), "the surviving writer is frozen: {:?}", events());
        if victim != Victim::Writer {
            let told = || {
                let phases = self.script.phases();
                let place = |phase: &str| phases.iter().rposition(|told| told == phase);
                place("freeze") <= place("thaw").max(place("abort"))
            };
            ensure!(wait_until(LIMIT, told), "the script was not thawed: {:?}", self.script.phases());
        }
        Ok(())
    }

    /// The living service has nothing under way and keeps nothing.
    fn service_is_idle(&self) -> anyhow::Result<()> {
        let mut management = self.instance.management()?;
        let mut status = management.status()?;
        let is_idle = wait_until(LIMIT, || {
            let Ok(now) = management.status() else { return false };
            status = now;
            status.sessions.is_empty() && status.creating.is_none() && !status.holding && status.shadows == 0
        });
        ensure!(is_idle, "the service is not idle: {status:?}");
        self.nothing_is_left()
    }

    fn nothing_is_left(&self) -> anyhow::Result<()> {
        traces::has_no_markers(&self.instance)?;
        for volume in self.volumes.iter().filter(|volume| volume.subvolumes().is_ok()) {
            volume.has_no_copies()?;
        }
        if let Some(outer) = &self.outer {
            let left = fs::read_dir(outer.path().join(".vss")).map(|entries| entries.flatten().collect::<Vec<_>>());
            ensure!(left.is_err(), "copies are left: {left:?}");
        }
        let mounts = self.instance.mounts();
        ensure!(mounts.is_empty(), "mounts are left: {mounts:?}");
        Ok(())
    }
}

/// The limit of each writer from Freeze to Thaw.
const FREEZE: Duration = Duration::from_secs(3);

fn check_end(outcome: &Outcome, expected: &End) -> anyhow::Result<()> {
    let (is_right, words) = match expected {
        End::Refused(words) => (outcome.code == Some(125), *words),
        End::Made(words) => (outcome.code == Some(0), *words),
        End::Killed => (outcome.signal == Some(9), &[][..]),
    };
    let has_words = words.iter().all(|word| outcome.stderr.contains(word));
    ensure!(is_right && has_words, "expected {expected:?}, got {outcome:?}");
    Ok(())
}

/// Runs every row with these victims; prints a line a case. With `VSS_CASE` in the environment only the cases whose line has
/// that text.
fn matrix(name: &str, kinds: &[Kind], make: fn() -> anyhow::Result<Scene>, victims: &[Victim]) -> anyhow::Result<()> {
    if let Some(why) = LoopFs::missing(kinds) {
        println!("SKIPPED: {name}: {why}");
        return Ok(());
    }
    let only = std::env::var("VSS_CASE").ok();
    let mut scene = make()?;
    let mut failures = Vec::new();
    let all = Instant::now();
    for row in TABLE {
        for victim in victims {
            let case = format!("{name} {} {}", row.name, victim.deed());
            if only.as_ref().is_some_and(|only| !case.contains(only.as_str())) {
                continue;
            }
            let started = Instant::now();
            let result = scene.case(row.name, *victim);
            let took = started.elapsed().as_millis();
            match result {
                Ok(seen) => println!("{case}: {took} ms, {seen}"),
                Err(error) => {
                    let failure = format!("{case} after {took} ms: {error:#}");
                    println!("{}\nFAILED: {failure}", scene.instance.log());
                    failures.push(failure);
                    // What the case left must not fail the next one.
                    scene = make()?;
                }
            }
        }
    }
    // A start finds nothing of the case before it; this one nothing of the last.
    scene.instance.unset("VSS_FAULT");
    drop(scene.start()?);
    println!("{name}: all in {:.1} s", all.elapsed().as_secs_f64());
    if failures.is_empty() { Ok(()) } else { bail!("{} cases failed:\n{}", failures.len(), failures.join("\n")) }
}

#[test]
fn a_held_set() -> anyhow::Result<()> {
    let victims = [Victim::Service, Victim::Guard, Victim::Both, Victim::Requester, Victim::Writer];
    matrix("held", &[Kind::Ext4, Kind::Xfs], Scene::held, &victims)
}

#[test]
fn a_set_in_images() -> anyhow::Result<()> {
    let victims = [Victim::Service, Victim::Both, Victim::Requester];
    matrix("shared", &[Kind::Ext4, Kind::Xfs], Scene::shared, &victims)
}

#[test]
fn a_btrfs_set() -> anyhow::Result<()> {
    // Without a member that is held there is no guard.
    matrix("btrfs", &[Kind::Btrfs], Scene::btrfs, &[Victim::Service, Victim::Requester, Victim::Writer])
}

#[test]
fn a_requester_that_is_gone_is_noticed_at_once() -> anyhow::Result<()> {
    if let Some(why) = LoopFs::missing(&[Kind::Btrfs]) {
        println!("SKIPPED: a_requester_that_is_gone_is_noticed_at_once: {why}");
        return Ok(());
    }
    let volume = BusyVolume::new(Kind::Btrfs, 512)?;
    let mut instance = Instance::new()?;
    ScriptWriter::install(&instance, "slow", volume.path(), Some(("prepare-snapshot", "sleep 1; echo ok")))?;
    instance.start()?;
    instance.start_writers()?;
    let prompt = SocketWriter::join(&instance, FakeWriter::new("prompt", volume.path()))?;
    let mut noticed = Vec::new();
    for _ in 0..5 {
        prompt.handle().forget();
        let _turn = creation_turn();
        let run = instance.start_vss(["run", "--volume", &volume.path().to_string_lossy(), "--", "true"])?;
        let is_told = || prompt.handle().events().contains(&EventKind::PrepareSnapshot);
        ensure!(wait_until(LIMIT, is_told), "no PrepareSnapshot: {}", run.stderr()?);
        let killed = Instant::now();
        PidFd::open(run.pid())?.signal(Signal::KILL)?;
        let aborted = || prompt.handle().records().into_iter().find(|record| record.kind == EventKind::Abort);
        ensure!(wait_until(LIMIT, || aborted().is_some()), "no Abort: {:?}", prompt.handle().events());
        noticed.push(aborted().context("it was there")?.at.duration_since(killed));
        run.finish()?;
        let ended = || prompt.handle().events().contains(&EventKind::BackupShutdown);
        ensure!(wait_until(LIMIT, ended), "no BackupShutdown: {:?}", prompt.handle().events());
    }
    // Some may have to wait for a processor.
    noticed.sort();
    println!("from SIGKILL of the requester to Abort: {noticed:.1?}");
    ensure!(
        noticed[2] < Duration::from_millis(500) && noticed[4] < Duration::from_secs(2),
        "noticed only after {noticed:?}"
    );
    volume.has_no_copies()?;
    Ok(())
}
