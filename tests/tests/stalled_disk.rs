//! A disk that stops answering, below a member of a set: it takes nobody with it.
//!
//! The service stops itself at a row of the saga table (a fault of the tests); then the disk stops answering, something is
//! written that has to be flushed to it, and the service goes on.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;
use vss_linux::process::{PidFd, Signal};
use vss_tests::instance::{Instance, Running, wait_until};
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::stalling::{Stall, StallingDisk};
use vss_tests::traces::{self, BusyVolume};
use vss_tests::turn::creation_turn;

/// What has to happen happens within this time.
const LIMIT: Duration = Duration::from_secs(30);
/// What waits for no disk is done within this time.
const SHORT: Duration = Duration::from_secs(15);
/// Issue: so long after the death of vssd another one serves the volumes that answer.
const RESTART: Duration = Duration::from_secs(5);

/// True (and says so) when a test cannot run here.
fn skips(test: &str) -> bool {
    if LoopFs::skips(test, &[Kind::Ext4, Kind::Xfs]) {
        return true;
    }
    let missing = StallingDisk::missing();
    if let Some(why) = &missing {
        println!("SKIPPED: {test}: {why}");
    }
    missing.is_some()
}

/// Two members on disks that answer, one on a disk that can stop, and a volume that is no member.
struct Scene<'a> {
    instance: Instance,
    good: [BusyVolume; 2],
    stuck: LoopFs,
    other: LoopFs,
    disk: &'a StallingDisk,
    /// How long a vssd takes to serve on this machine, where nobody died and no disk stalls.
    usual: Duration,
}

impl<'a> Scene<'a> {
    fn new(disk: &'a StallingDisk) -> anyhow::Result<Self> {
        let stuck = LoopFs::new_on(&disk.image(), Kind::Ext4)?;
        let mut instance = Instance::new()?;
        let fake = json!({"store": traces::fake_store(&instance), "policy": "needs_hold"});
        instance.set("VSS_FAKE", fake.to_string());
        let good = [BusyVolume::new(Kind::Ext4, 64)?, BusyVolume::new(Kind::Xfs, 320)?];
        let other = LoopFs::new(Kind::Ext4, 32)?;
        let mut scene = Self { instance, good, stuck, other, disk, usual: Duration::ZERO };
        scene.usual = scene.serves()?;
        ensure!(scene.instance.vss(["delete", "--all"])?.is_success());
        scene.instance.stop()?;
        Ok(scene)
    }

    /// Begins a set of the three members, and lets the disk stop when the service stands before `row`.
    fn stall_at(&mut self, row: &str) -> anyhow::Result<(Running, Stall<'a>)> {
        // Its blocks and all that leads to them are in memory: overwriting it asks the disk nothing.
        let data = vec![7; 1 << 20];
        let dirty = File::create_new(self.stuck.path().join("dirty"))?;
        dirty.write_all_at(&data, 0)?;
        dirty.sync_all()?;
        self.instance.set("VSS_FAULT", format!("{row}:stop-service"));
        self.instance.start()?;
        let members = [self.good[0].path(), self.good[1].path(), self.stuck.path()];
        let words = std::iter::once("create".as_ref()).chain(members.map(Path::as_os_str));
        let creation = self.instance.start_vss(words)?;
        let pid = self.instance.service_pid().context("vssd lives")?;
        ensure!(wait_until(LIMIT, || is_stopped(pid)), "not stopped: {}", creation.stderr()?);
        let stall = self.disk.stall()?;
        // In the page cache: FIFREEZE and syncfs have to flush it, and wait for the disk.
        let (tell, told) = mpsc::channel();
        thread::spawn(move || tell.send(dirty.write_all_at(&data, 0)));
        told.recv_timeout(SHORT).context("a write to the page cache waits")??;
        PidFd::open(pid)?.signal(Signal::CONT)?;
        Ok((creation, stall))
    }

    /// Waits for a write on each good member; the longest that one took since the last look.
    fn good_flow(&self) -> anyhow::Result<Duration> {
        self.good.iter().try_fold(Duration::ZERO, |longest, volume| Ok(longest.max(volume.writes_flow()?)))
    }

    /// A new vssd serves the volume that answers, as soon as it has to.
    fn serves_again(&mut self) -> anyhow::Result<()> {
        self.instance.kill()?;
        self.instance.unset("VSS_FAULT");
        let took = self.serves()?;
        println!("another vssd served after {took:?}, usual are {:?}", self.usual);
        ensure!(took < RESTART + 2 * self.usual, "it took {took:?}\n{}", self.instance.log());
        Ok(())
    }

    /// Starts a vssd that serves the volume that always answers; how long that took.
    fn serves(&mut self) -> anyhow::Result<Duration> {
        let started = Instant::now();
        self.instance.start()?;
        let listed = self.instance.vss(["list", "volumes"])?;
        ensure!(listed.is_success(), "{listed:?}");
        let made =
            self.instance.vss(["create".as_ref(), "--wait".as_ref(), "0".as_ref(), self.other.path().as_os_str()])?;
        ensure!(made.is_success(), "{made:?}\n{}", self.instance.log());
        Ok(started.elapsed())
    }

    /// The disk answers again: its volume can be written to, and nothing is left.
    fn recovers(mut self, stall: Stall<'a>) -> anyhow::Result<()> {
        let answers = Instant::now();
        drop(stall);
        let written = self.stuck.start_write().finish(LIMIT);
        ensure!(written.is_some(), "{} stays frozen\n{}", self.stuck.path().display(), self.instance.log());
        println!("the disk answers: thawed after {:?}", answers.elapsed());
        let holds = self.instance.runtime_dir().join(vss_linux::hold::LEDGER_DIRECTORY);
        let is_empty = || fs::read_dir(&holds).is_ok_and(|mut ledgers| ledgers.next().is_none());
        ensure!(wait_until(LIMIT, is_empty), "a ledger is left");
        let no_guard = || self.instance.processes().iter().all(|process| process.name != "vss-guard");
        ensure!(wait_until(LIMIT, no_guard), "{:?}", self.instance.processes());
        self.good_flow()?;
        // Not thawed once only: the freeze that was under way is over for good.
        ensure!(self.stuck.start_write().finish(LIMIT).is_some(), "frozen again");
        if self.instance.service_pid().is_some() {
            ensure!(self.instance.vss(["delete", "--all"])?.is_success());
            self.instance.stop()?;
        }
        traces::has_no_markers(&self.instance)
    }
}

fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

#[test]
fn a_disk_that_stops_in_the_flush_fails_the_set_with_nothing_frozen() -> anyhow::Result<()> {
    if skips("a_disk_that_stops_in_the_flush_fails_the_set_with_nothing_frozen") {
        return Ok(());
    }
    let disk = StallingDisk::new(64)?;
    let _turn = creation_turn();
    let mut scene = Scene::new(&disk)?;
    let (creation, stall) = scene.stall_at("flush_in_window")?;
    let outcome = creation.finish()?;
    let name = scene.stuck.path().display().to_string();
    ensure!(outcome.code == Some(1), "{outcome:?}");
    ensure!(outcome.stderr.contains("VSS_E_FLUSH_WRITES_TIMEOUT") && outcome.stderr.contains(&name), "{outcome:?}");
    ensure!(outcome.stderr.contains("flushing"), "{outcome:?}");
    let stall_of_others = scene.good_flow()?;
    println!("the others waited at most {stall_of_others:?}; {}", outcome.stderr.trim_end());
    ensure!(stall_of_others < Duration::from_secs(4), "something was frozen for {stall_of_others:?}");
    scene.serves_again()?;
    scene.recovers(stall)
}

#[test]
fn a_disk_that_stops_in_the_freeze_delays_no_other_member() -> anyhow::Result<()> {
    if skips("a_disk_that_stops_in_the_freeze_delays_no_other_member") {
        return Ok(());
    }
    let disk = StallingDisk::new(64)?;
    let _turn = creation_turn();
    let mut scene = Scene::new(&disk)?;
    scene.good_flow()?;
    let (creation, stall) = scene.stall_at("hold")?;
    let began = Instant::now();
    let outcome = creation.finish()?;
    let took = began.elapsed();
    let name = scene.stuck.path().display().to_string();
    ensure!(outcome.code == Some(1), "{outcome:?}");
    ensure!(outcome.stderr.contains("VSS_E_FLUSH_WRITES_TIMEOUT") && outcome.stderr.contains(&name), "{outcome:?}");
    let held = scene.good_flow()?;
    println!("failed after {took:?}, the others were held for {held:?}; {}", outcome.stderr.trim_end());
    ensure!(held > Duration::from_secs(8), "the others were not held: the disk did not stop in the freeze");
    ensure!(held < Duration::from_secs(14), "the others were held for {held:?}");
    // Its guard is killed by now and still in the kernel; vssd serves others, and is not stuck itself.
    let made = scene.instance.vss(["list", "volumes", "--json"])?;
    ensure!(made.is_success(), "{made:?}");
    scene.serves_again()?;
    scene.recovers(stall)
}

#[test]
fn a_vssd_that_is_killed_beside_a_stuck_freeze_is_replaced_at_once() -> anyhow::Result<()> {
    if skips("a_vssd_that_is_killed_beside_a_stuck_freeze_is_replaced_at_once") {
        return Ok(());
    }
    let disk = StallingDisk::new(64)?;
    let _turn = creation_turn();
    let mut scene = Scene::new(&disk)?;
    scene.good_flow()?;
    let (creation, stall) = scene.stall_at("hold")?;
    let is_frozen = || scene.good.iter().all(|volume| volume.volume().is_frozen());
    ensure!(wait_until(LIMIT, is_frozen), "nothing was frozen: {}", creation.stderr()?);
    scene.serves_again()?;
    // The guard has seen vssd die, and did not wait for its limit of 10 s.
    let held = scene.good_flow()?;
    println!("the others were held for {held:?}");
    ensure!(held < Duration::from_secs(8), "they were held for {held:?}\n{}", scene.instance.log());
    creation.finish()?;
    scene.recovers(stall)
}
