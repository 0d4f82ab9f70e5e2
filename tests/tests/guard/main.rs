//! The guard against real file systems; in the modules, against real kills, real strangers and freezes that cannot get through.
//!
//! Every test has file systems of its own on loop devices. Times of the kernel under load are printed, and asserted only
//! with a wide margin.

mod kills;
mod races;
mod strangers;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use vss_linux::clock;
use vss_linux::hold::LEDGER_DIRECTORY;
use vss_linux::hold::ledger::{Ledger, State};
use vss_tests::guard::{Driver, Setup};
use vss_tests::load::Load;
use vss_tests::loopfs::{Kind, LoopFs};

type TestResult = anyhow::Result<()>;

const SECOND: Duration = Duration::from_secs(1);

/// After this nothing of ours may be frozen, whatever happened.
const THAW_LIMIT: Duration = Duration::from_secs(10);

/// A write that meets no freeze, and what waits for nothing but a processor, is through after this; a hold that nobody ends
/// lasts longer.
const PROMPT: Duration = Duration::from_secs(5);

/// So long may another test's guard have a switch that belongs to the whole machine.
const SHARED: Duration = Duration::from_secs(30);

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Guard,
    Vssd,
    Both,
}

/// True (and says so) when a test cannot run here.
fn skip(test: &str, kinds: &[Kind]) -> bool {
    let missing = LoopFs::missing(kinds);
    if let Some(missing) = &missing {
        println!("SKIPPED: {test}: {missing}");
    }
    missing.is_some()
}

/// Tests that measure take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn driver() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_guard_driver"))
}

fn start(runtime: &Path, limit: Duration, steps: bool, members: &[(&LoopFs, u8)]) -> anyhow::Result<Driver> {
    let members: Vec<_> = members.iter().map(|(fs, level)| (fs.path(), Some(*level))).collect();
    Driver::start(driver(), Setup { runtime, limit, steps }, &members)
}

fn ledger_path(runtime: &Path) -> PathBuf {
    runtime.join(LEDGER_DIRECTORY).join("test")
}

fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    while !condition() {
        if started.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}

/// How long until writes get through on all of them; panics after the limit.
fn thawed_after(what: &str, systems: &[&LoopFs], limit: Duration) -> Duration {
    let writes: Vec<_> = systems.iter().map(|fs| fs.start_write()).collect();
    let waited = writes.iter().map(|write| write.finish(limit));
    waited
        .map(|waited| waited.unwrap_or_else(|| panic!("{what}: still frozen after {limit:?}")))
        .max()
        .unwrap_or_default()
}

#[test]
fn a_hold_is_whole_and_short_under_load() -> TestResult {
    if skip("a_hold_is_whole_and_short_under_load", &[Kind::Ext4, Kind::Xfs]) {
        return Ok(());
    }
    let _turn = turn();
    let (ext4, xfs) = (LoopFs::new(Kind::Ext4, 64)?, LoopFs::new(Kind::Xfs, 320)?);
    let runtime = tempfile::tempdir()?;
    let loads = [Load::start(ext4.path())?, Load::start(xfs.path())?];
    let mut driver = start(runtime.path(), THAW_LIMIT, false, &[(&ext4, 0), (&xfs, 0)])?;
    println!("{}", driver.greeting);
    // `PID (vss-guard) STATE ...`: the nice value is the 19th field (proc_pid_stat(5)).
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", driver.guard_pid))?;
    assert_eq!(stat.split(' ').nth(18), Some("-20"), "{stat}");
    assert_eq!(driver.ask("sync")?, "synced");
    for load in &loads {
        load.take();
    }
    let held = driver.ask("hold")?;
    assert!(held.starts_with("held "), "{held}");
    assert!(ext4.is_frozen() && xfs.is_frozen());
    let ledger = Ledger::open(&ledger_path(runtime.path()))?;
    assert_eq!((ledger.state(0), ledger.state(1)), (State::Ours, State::Ours));
    assert_eq!(ledger.expedited(), None, "restored as soon as the last FIFREEZE has returned");
    assert!(ledger.deadline_ns() > clock::boottime_ns());
    let released = driver.ask("release")?;
    assert!(released.starts_with("released "), "{released}");
    thawed_after("release", &[&ext4, &xfs], PROMPT);
    let stalls = loads.map(Load::stop);
    for stall in stalls {
        println!("load: {:?}", stall?);
    }
    assert_eq!(driver.ask("finish")?, "finished true");
    assert!(!ledger.path().exists());
    Ok(())
}

#[test]
fn hold_times_of_1_8_and_64_members() -> TestResult {
    if skip("hold_times_of_1_8_and_64_members", &[Kind::Ext4]) {
        return Ok(());
    }
    let _turn = turn();
    let systems = (0..64).map(|_| LoopFs::new(Kind::Ext4, 16)).collect::<Result<Vec<_>, _>>()?;
    let runtime = tempfile::tempdir()?;
    for count in [1, 8, 64] {
        let mut holds = Vec::new();
        let mut starts = Vec::new();
        for _ in 0..5 {
            let members: Vec<_> = systems[..count].iter().map(|fs| (fs, 0)).collect();
            let started = Instant::now();
            let mut driver = start(runtime.path(), THAW_LIMIT, false, &members)?;
            starts.push(started.elapsed());
            assert_eq!(driver.ask("sync")?, "synced");
            // The driver's two lines through a pipe are part of the hold.
            driver.tell("hold\nrelease")?;
            let held = driver.hear()?;
            assert!(held.starts_with("held "), "{held}");
            let released = driver.hear()?;
            let took = released.strip_prefix("released ").and_then(|rest| rest.split(' ').next()?.parse().ok());
            holds.push(Duration::from_nanos(took.ok_or_else(|| anyhow::anyhow!("{released}"))?));
            assert_eq!(driver.ask("finish")?, "finished true");
        }
        holds.sort_unstable();
        starts.sort_unstable();
        println!(
            "{count} members: hold median {:?} (min {:?}, max {:?}); driver and guard ready in {:?}",
            holds[2], holds[0], holds[4], starts[2]
        );
        assert!(holds[2] < PROMPT);
    }
    Ok(())
}

#[test]
fn a_hold_ends_after_ten_seconds_by_itself() -> TestResult {
    if skip("a_hold_ends_after_ten_seconds_by_itself", &[Kind::Ext4]) {
        return Ok(());
    }
    let fs = LoopFs::new(Kind::Ext4, 64)?;
    let runtime = tempfile::tempdir()?;
    let mut driver = start(runtime.path(), THAW_LIMIT, false, &[(&fs, 0)])?;
    let started = Instant::now();
    assert!(driver.ask("hold")?.starts_with("held"));
    thread::sleep(SECOND * 8);
    assert!(fs.is_frozen());
    thawed_after("deadline", &[&fs], PROMPT);
    let thawed = started.elapsed();
    println!("no release: thawed after {thawed:?}");
    assert!(thawed > SECOND * 19 / 2, "thawed after {thawed:?} already");
    let released = driver.ask("release")?;
    assert!(released.starts_with("error HoldExpired"), "{released}");
    Ok(())
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_frozen() -> TestResult {
    if skip("what_cannot_work_is_refused_before_anything_is_frozen", &[Kind::Ext4]) {
        return Ok(());
    }
    let fs = LoopFs::new(Kind::Ext4, 64)?;
    let on_member =
        start(&fs.path().join("run"), SECOND, false, &[(&fs, 0)]).expect_err("its ledger could not be marked");
    assert!(on_member.to_string().starts_with("error Refused(LedgerOnMember)"), "{on_member}");
    thawed_after("refused", &[&fs], PROMPT);

    let runtime = tempfile::tempdir()?;
    let _first = start(runtime.path(), SECOND, false, &[(&fs, 0)])?;
    let second = start(runtime.path(), SECOND, false, &[(&fs, 0)]).expect_err("the ledger is another guard's");
    assert!(second.to_string().starts_with("error Refused(Ledger)"), "{second}");

    // A file system without a freeze: procfs.
    let members = [(fs.path(), Some(0)), (Path::new("/proc"), Some(0))];
    let other = tempfile::tempdir()?;
    let setup = Setup { runtime: other.path(), limit: SECOND, steps: false };
    let mut driver = Driver::start(driver(), setup, &members)?;
    let held = driver.ask("hold")?;
    assert!(held.starts_with("error FreezeFailed /proc"), "{held}");
    thawed_after("the other member cannot be frozen", &[&fs], PROMPT);
    Ok(())
}

#[test]
fn a_member_without_a_level_is_flushed_and_never_frozen() -> TestResult {
    if skip("a_member_without_a_level_is_flushed_and_never_frozen", &[Kind::Ext4, Kind::Btrfs]) {
        return Ok(());
    }
    let (held, cut) = (LoopFs::new(Kind::Ext4, 64)?, LoopFs::new(Kind::Btrfs, 128)?);
    let runtime = tempfile::tempdir()?;
    let members = [(held.path(), Some(0)), (cut.path(), None)];
    let setup = Setup { runtime: runtime.path(), limit: THAW_LIMIT, steps: false };
    let mut driver = Driver::start(driver(), setup, &members)?;
    assert_eq!(driver.ask("sync")?, "synced");
    assert!(driver.ask("hold")?.starts_with("held"));
    assert!(held.is_frozen());
    thawed_after("without a level", &[&cut], PROMPT);
    assert!(driver.ask("release")?.starts_with("released"));
    assert_eq!(driver.ask("finish")?, "finished true");
    Ok(())
}
