//! The guard against real file systems, real kills and real strangers.
//!
//! Every test has file systems of its own on loop devices. Times of the kernel under load are printed, and asserted only
//! with a wide margin.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use vss_linux::clock;
use vss_linux::freeze::{self, FreezeError, Thaw};
use vss_linux::hold::LEDGER_DIRECTORY;
use vss_linux::hold::ledger::{Ledger, State};
use vss_linux::hold::sweep::{Fate, Outcome, SWEEP_LIMIT, sweep};
use vss_linux::hold::thaw::Rescue;
use vss_linux::process::Signal;
use vss_tests::guard::{Driver, Setup};
use vss_tests::load::Load;
use vss_tests::loopfs::{Kind, LoopFs, thaw_timer};

type TestResult = anyhow::Result<()>;

const SECOND: Duration = Duration::from_secs(1);

/// After this nothing of ours may be frozen, whatever happened.
const THAW_LIMIT: Duration = Duration::from_secs(10);

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
    thawed_after("release", &[&ext4, &xfs], SECOND);
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
        assert!(holds[2] < 2 * SECOND);
    }
    Ok(())
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Guard,
    Vssd,
    Both,
}

/// A point of the protocol, the commands that lead to it, and whether something is frozen when both are killed there.
struct Point {
    commands: &'static [&'static str],
    at: &'static str,
    frozen: bool,
}

const POINTS: [Point; 8] = [
    Point { commands: &[], at: "", frozen: false },
    Point { commands: &["sync"], at: "sent Sync", frozen: false },
    Point { commands: &["sync"], at: "received Synced", frozen: false },
    Point { commands: &["sync", "hold"], at: "sent Freeze", frozen: true },
    Point { commands: &["sync", "hold"], at: "received Frozen", frozen: true },
    Point { commands: &["sync", "hold"], at: "held", frozen: true },
    Point { commands: &["sync", "hold", "release"], at: "sent Release", frozen: false },
    Point { commands: &["sync", "hold", "release"], at: "received Thawed", frozen: false },
];

#[test]
fn a_kill_at_any_message_leaves_nothing_frozen() -> TestResult {
    if skip("a_kill_at_any_message_leaves_nothing_frozen", &[Kind::Ext4, Kind::Xfs]) {
        return Ok(());
    }
    let (ext4, xfs) = (LoopFs::new(Kind::Ext4, 64)?, LoopFs::new(Kind::Xfs, 320)?);
    let _loads = [Load::start(ext4.path())?, Load::start(xfs.path())?];
    for Point { commands, at, frozen } in POINTS {
        for victim in [Victim::Guard, Victim::Vssd, Victim::Both] {
            let what = format!("{victim:?} killed at {at:?}");
            let runtime = tempfile::tempdir()?;
            let mut driver = start(runtime.path(), THAW_LIMIT, true, &[(&ext4, 0), (&xfs, 0)])?;
            if let Some((last, before)) = commands.split_last() {
                for command in before {
                    driver.tell(command)?;
                    driver.go_to("")?;
                }
                driver.tell(last)?;
                driver.go_to(at)?;
            }
            let killed = Instant::now();
            match victim {
                Victim::Guard => driver.guard.signal(Signal::KILL)?,
                Victim::Vssd => driver.signal(Signal::KILL)?,
                Victim::Both => driver.kill_both()?,
            }
            if victim == Victim::Both {
                assert!(wait_until(SECOND, || driver.guard.is_gone()), "{what}");
                drop(driver);
                let was_frozen = frozen && (ext4.is_frozen() || xfs.is_frozen());
                let started = Instant::now();
                let swept = sweep(runtime.path(), SWEEP_LIMIT)?;
                let after = thawed_after(&what, &[&ext4, &xfs], SECOND);
                println!(
                    "{what}: left frozen {was_frozen}, thawed {:?} after the start of the sweep",
                    started.elapsed()
                );
                assert!(started.elapsed() < SECOND + after, "{what}");
                for swept in &swept {
                    println!("  {swept}");
                }
                assert!(sweep(runtime.path(), SWEEP_LIMIT)?.is_empty(), "{what}: the ledger is swept once");
                assert!(!was_frozen || !swept.is_empty(), "{what}: thawed, but by whom?");
            } else {
                thawed_after(&what, &[&ext4, &xfs], THAW_LIMIT);
                println!("{what}: thawed after {:?}", killed.elapsed());
                assert!(wait_until(THAW_LIMIT, || driver.guard.is_gone()), "{what}");
                // Guard or backup cleans up, whichever is left.
                let removed = wait_until(2 * SECOND, || !ledger_path(runtime.path()).exists());
                assert!(removed, "{what}: the ledger stays");
            }
            // Not only thawed once: nothing freezes after everybody has gone.
            thawed_after(&what, &[&ext4, &xfs], THAW_LIMIT);
            // The switch may be another test's for a moment.
            assert!(wait_until(2 * SECOND, || switch() == "0"), "{what}: rcu_expedited is left on");
        }
    }
    Ok(())
}

/// The value of rcu_expedited; `0` on a machine that has none.
fn switch() -> String {
    std::fs::read_to_string("/sys/kernel/rcu_expedited")
        .map_or_else(|_| "0".to_owned(), |value| value.trim().to_owned())
}

#[test]
fn a_stopped_vssd_is_not_waited_for() -> TestResult {
    if skip("a_stopped_vssd_is_not_waited_for", &[Kind::Ext4]) {
        return Ok(());
    }
    let fs = LoopFs::new(Kind::Ext4, 64)?;
    let runtime = tempfile::tempdir()?;
    let mut driver = start(runtime.path(), SECOND, false, &[(&fs, 0)])?;
    let started = Instant::now();
    assert!(driver.ask("hold")?.starts_with("held"));
    driver.signal(Signal::STOP)?;
    thawed_after("vssd stopped", &[&fs], THAW_LIMIT);
    println!("vssd stopped, limit 1 s: thawed after {:?}", started.elapsed());
    assert!(started.elapsed() > SECOND / 2);
    driver.signal(Signal::CONT)?;
    let released = driver.ask("release")?;
    assert!(released.starts_with("error HoldExpired"), "{released}");
    assert_eq!(driver.ask("finish")?, "finished true");
    Ok(())
}

#[test]
fn a_stopped_guard_is_not_waited_for() -> TestResult {
    if skip("a_stopped_guard_is_not_waited_for", &[Kind::Ext4]) {
        return Ok(());
    }
    let fs = LoopFs::new(Kind::Ext4, 64)?;
    let runtime = tempfile::tempdir()?;
    {
        let mut driver = start(runtime.path(), SECOND, false, &[(&fs, 0)])?;
        let started = Instant::now();
        assert!(driver.ask("hold")?.starts_with("held"));
        driver.guard.signal(Signal::STOP)?;
        thawed_after("guard stopped", &[&fs], THAW_LIMIT);
        println!("guard stopped, limit 1 s: thawed after {:?}", started.elapsed());
        let released = driver.ask("release")?;
        assert!(released.starts_with("error "), "{released}");
        assert_eq!(driver.ask("finish")?, "finished true");
    }
    // vssd dies while its guard is stopped: the kernel's SIGHUP and SIGCONT to the orphaned group wake it.
    let mut driver = start(runtime.path(), THAW_LIMIT, false, &[(&fs, 0)])?;
    assert!(driver.ask("hold")?.starts_with("held"));
    driver.guard.signal(Signal::STOP)?;
    thread::sleep(Duration::from_millis(50));
    let killed = Instant::now();
    driver.signal(Signal::KILL)?;
    thawed_after("guard stopped, vssd killed", &[&fs], THAW_LIMIT);
    println!("guard stopped, vssd killed: thawed after {:?}", killed.elapsed());
    Ok(())
}

#[test]
fn sigterm_ends_a_hold_and_other_signals_do_not() -> TestResult {
    if skip("sigterm_ends_a_hold_and_other_signals_do_not", &[Kind::Ext4]) {
        return Ok(());
    }
    let fs = LoopFs::new(Kind::Ext4, 64)?;
    let runtime = tempfile::tempdir()?;
    let mut driver = start(runtime.path(), THAW_LIMIT, false, &[(&fs, 0)])?;
    assert!(driver.ask("hold")?.starts_with("held"));
    for signal in [Signal::HUP, Signal::INT, Signal::QUIT, Signal::PIPE, Signal::TSTP, Signal::TTIN, Signal::TTOU] {
        driver.guard.signal(signal)?;
    }
    assert!(fs.is_frozen());
    driver.guard.signal(Signal::TERM)?;
    println!("SIGTERM: thawed after {:?}", thawed_after("SIGTERM", &[&fs], THAW_LIMIT));
    let released = driver.ask("release")?;
    assert!(released.starts_with("error GuardEnded"), "{released}");
    Ok(())
}

#[test]
fn a_strangers_thaw_makes_the_set_void() -> TestResult {
    if skip("a_strangers_thaw_makes_the_set_void", &[Kind::Ext4, Kind::Xfs]) {
        return Ok(());
    }
    let (ext4, xfs) = (LoopFs::new(Kind::Ext4, 64)?, LoopFs::new(Kind::Xfs, 320)?);
    let runtime = tempfile::tempdir()?;
    let mut driver = start(runtime.path(), THAW_LIMIT, false, &[(&ext4, 0), (&xfs, 0)])?;
    assert!(driver.ask("hold")?.starts_with("held"));
    assert_eq!(freeze::thaw(xfs.open()?)?, Thaw::Thawed);
    let released = driver.ask("release")?;
    assert!(released.starts_with(&format!("error Lost {}", xfs.path().display())), "{released}");
    thawed_after("a stranger's thaw", &[&ext4, &xfs], 2 * SECOND);
    Ok(())
}

#[test]
fn a_strangers_freeze_is_refused_and_never_thawed() -> TestResult {
    if skip("a_strangers_freeze_is_refused_and_never_thawed", &[Kind::Ext4]) {
        return Ok(());
    }
    let (ours, theirs) = (LoopFs::new(Kind::Ext4, 64)?, LoopFs::new(Kind::Ext4, 64)?);
    let runtime = tempfile::tempdir()?;
    let stranger = theirs.open()?;
    let _timer = thaw_timer(theirs.open()?, Duration::from_secs(30));
    freeze::freeze(&stranger)?;

    let mut driver = start(runtime.path(), THAW_LIMIT, false, &[(&ours, 0), (&theirs, 0)])?;
    let ledger = Ledger::open(&ledger_path(runtime.path()))?;
    let started = Instant::now();
    let held = driver.ask("hold")?;
    println!("refused after {:?}: {held}", started.elapsed());
    assert!(held.starts_with(&format!("error FrozenByAnother {}", theirs.path().display())), "{held}");
    assert!(started.elapsed() > Duration::from_millis(1900));
    assert_eq!((ledger.state(0), ledger.state(1)), (State::Thawed, State::Struck));
    thawed_after("refused", &[&ours], SECOND);
    assert_eq!(driver.ask("finish")?, "finished true");

    // Everybody dies during the tries: neither backup nor sweep may thaw what the stranger froze.
    for victim in [Victim::Guard, Victim::Vssd, Victim::Both] {
        let mut driver = start(runtime.path(), THAW_LIMIT, false, &[(&ours, 0), (&theirs, 0)])?;
        driver.tell("hold")?;
        thread::sleep(Duration::from_millis(300));
        match victim {
            Victim::Guard => driver.guard.signal(Signal::KILL)?,
            Victim::Vssd => driver.signal(Signal::KILL)?,
            Victim::Both => driver.kill_both()?,
        }
        assert!(wait_until(2 * SECOND, || driver.guard.is_gone()));
        if victim == Victim::Both {
            for swept in sweep(runtime.path(), SWEEP_LIMIT)? {
                println!("{swept}");
                assert_eq!(swept.members[1].1, Fate::Rescued(Rescue::NotOurs));
            }
        }
        thawed_after("killed while waiting for a stranger", &[&ours], 2 * SECOND);
        assert!(wait_until(2 * SECOND, || !ledger_path(runtime.path()).exists()));
        assert_eq!(
            freeze::freeze(&stranger),
            Err(FreezeError::AlreadyFrozen),
            "{victim:?}: a stranger's freeze was thawed"
        );
    }
    assert_eq!(freeze::thaw(&stranger)?, Thaw::Thawed);

    // A freeze that passes by within two seconds is waited for.
    let mut driver = start(runtime.path(), THAW_LIMIT, false, &[(&ours, 0), (&theirs, 0)])?;
    freeze::freeze(&stranger)?;
    driver.tell("hold")?;
    thread::sleep(Duration::from_millis(500));
    freeze::thaw(&stranger)?;
    let held = driver.hear()?;
    assert!(held.starts_with("held"), "{held}");
    assert!(driver.ask("release")?.starts_with("released"));
    Ok(())
}

/// An inner file system on the image of an outer one. While the outer one is frozen by the test, writes of the inner one
/// to its device wait, and so does what waits for them.
struct Nested {
    // Dropped in this order: inner first.
    inner: LoopFs,
    outer: LoopFs,
}

impl Nested {
    fn new() -> anyhow::Result<Self> {
        let outer = LoopFs::new(Kind::Ext4, 200)?;
        let inner = LoopFs::new_in(outer.path(), Kind::Ext4, 64)?;
        Ok(Self { inner, outer })
    }

    /// Freezes the outer one and thaws it by itself after `time`, while a thread sits inside write() on the inner one
    /// (`writing`), or dirty data waits to be flushed.
    fn block_inner(&self, writing: bool, time: Duration) -> anyhow::Result<()> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let flags = if writing { rustix::fs::OFlags::SYNC.bits() } else { 0 };
        let mut file = std::fs::File::options()
            .create(true)
            .write(true)
            .truncate(true)
            .custom_flags(flags.cast_signed())
            .open(self.inner.path().join("blocked"))?;
        // What creating the file has made dirty is gone, so that a write is the only thing to wait for.
        freeze::sync(&file)?;
        freeze::sync(self.outer.open()?)?;
        freeze::freeze(self.outer.open()?)?;
        let outer = self.outer.open()?;
        thread::spawn(move || {
            thread::sleep(time);
            let _ = freeze::thaw(outer);
        });
        let data = vec![7u8; 1 << 20];
        if writing {
            thread::spawn(move || file.write_all(&data));
            thread::sleep(Duration::from_millis(100));
        } else {
            file.write_all(&data)?;
        }
        Ok(())
    }
}

#[test]
fn nested_loop_devices_are_held_from_the_inside_out() -> TestResult {
    if skip("nested_loop_devices_are_held_from_the_inside_out", &[Kind::Ext4]) {
        return Ok(());
    }
    let nested = Nested::new()?;
    let runtime = tempfile::tempdir()?;
    let load = Load::start(nested.inner.path())?;
    for _ in 0..5 {
        let mut driver = start(runtime.path(), THAW_LIMIT, false, &[(&nested.outer, 1), (&nested.inner, 0)])?;
        assert_eq!(driver.ask("sync")?, "synced");
        driver.tell("hold\nrelease")?;
        let held = driver.hear()?;
        assert!(held.starts_with("held"), "{held}");
        let released = driver.hear()?;
        assert!(released.starts_with("released"), "{released}");
        println!("nested: {released}");
        assert_eq!(driver.ask("finish")?, "finished true");
    }
    // Every other way to end a hold has no order of levels; it must come to an end all the same.
    for victim in [Victim::Guard, Victim::Vssd] {
        let mut driver = start(runtime.path(), THAW_LIMIT, false, &[(&nested.outer, 1), (&nested.inner, 0)])?;
        assert!(driver.ask("hold")?.starts_with("held"));
        let killed = Instant::now();
        match victim {
            Victim::Guard => driver.guard.signal(Signal::KILL)?,
            _ => driver.signal(Signal::KILL)?,
        }
        thawed_after("nested", &[&nested.outer, &nested.inner], THAW_LIMIT);
        println!("nested, {victim:?} killed: thawed after {:?}", killed.elapsed());
        assert!(wait_until(2 * SECOND, || !ledger_path(runtime.path()).exists()));
    }
    load.stop()?;
    Ok(())
}

/// The two races: FIFREEZE cannot get through on one member, because a write() is running (`writing`: FITHAW would say
/// EINVAL and the freeze complete later), or because it flushes (FITHAW would wait behind it). The other member must be
/// thawed in time, and in the end nothing may be frozen.
fn race(writing: bool, blocked: Duration, victim: Option<Victim>) -> TestResult {
    let what = format!("race, writing {writing}, blocked for {blocked:?}, killed {victim:?}");
    let (nested, fast) = (Nested::new()?, LoopFs::new(Kind::Ext4, 64)?);
    let runtime = tempfile::tempdir()?;
    let mut driver = start(runtime.path(), SECOND, false, &[(&nested.inner, 0), (&fast, 0)])?;
    nested.block_inner(writing, blocked)?;
    let started = Instant::now();
    driver.tell("hold")?;
    let ledger = Ledger::open(&ledger_path(runtime.path()))?;
    assert!(wait_until(SECOND, || ledger.state(0) == State::Ours && ledger.state(1) == State::Ours), "{what}");
    thread::sleep(Duration::from_millis(200));
    match victim {
        Some(Victim::Guard) => driver.guard.signal(Signal::KILL)?,
        Some(Victim::Vssd) => driver.signal(Signal::KILL)?,
        Some(Victim::Both) => driver.kill_both()?,
        None => {}
    }
    let mut sweeping = None;
    if victim == Some(Victim::Both) {
        // The killed guard sits in FIFREEZE and keeps its lock: the sweep waits for its deadline, then thaws again and
        // again until the lock is free.
        let runtime = runtime.path().to_owned();
        sweeping = Some(thread::spawn(move || sweep(&runtime, SWEEP_LIMIT)));
    }
    thawed_after(&format!("{what}: the fast member"), &[&fast], THAW_LIMIT);
    println!("{what}: fast member thawed after {:?}", started.elapsed());
    // A write on the inner one gets through when the outer one is thawed, and then stays possible.
    thawed_after(&format!("{what}: the blocked member"), &[&nested.inner], THAW_LIMIT);
    println!("{what}: blocked member thawed after {:?}", started.elapsed());
    assert!(wait_until(THAW_LIMIT, || driver.guard.is_gone() || victim.is_none()), "{what}");
    if let Some(sweeping) = sweeping {
        for swept in sweeping.join().expect("the sweep does not panic")? {
            println!("{what}: {swept}");
            assert!(matches!(swept.outcome, Outcome::GuardEnded | Outcome::GuardStopped | Outcome::GuardWasDead));
        }
    }
    match victim {
        None | Some(Victim::Guard) => {
            let said = driver.hear()?;
            println!("{what}: {said}");
            assert!(said.starts_with("error "), "{what}: {said}");
            assert_eq!(driver.ask("finish")?, "finished true", "{what}");
        }
        Some(Victim::Vssd | Victim::Both) => {}
    }
    assert!(wait_until(3 * SECOND, || !ledger_path(runtime.path()).exists()), "{what}: the ledger stays");
    // The race's trap: the freeze completes after everybody has gone.
    thread::sleep(Duration::from_millis(200));
    thawed_after(&what, &[&nested.inner, &fast], 2 * SECOND);
    Ok(())
}

#[test]
fn a_freeze_that_waits_for_a_writer_is_thawed_by_its_own_thread() -> TestResult {
    if skip("a_freeze_that_waits_for_a_writer_is_thawed_by_its_own_thread", &[Kind::Ext4]) {
        return Ok(());
    }
    race(true, SECOND * 3 / 2, None)
}

#[test]
fn a_freeze_that_flushes_is_thawed_by_its_own_thread() -> TestResult {
    if skip("a_freeze_that_flushes_is_thawed_by_its_own_thread", &[Kind::Ext4]) {
        return Ok(());
    }
    race(false, SECOND * 3 / 2, None)
}

#[test]
fn a_freeze_that_outlives_its_guard_is_thawed_by_vssd() -> TestResult {
    if skip("a_freeze_that_outlives_its_guard_is_thawed_by_vssd", &[Kind::Ext4]) {
        return Ok(());
    }
    // Longer than deadline, lateness and SIGKILL take.
    race(true, SECOND * 5, None)?;
    race(false, SECOND * 5, None)
}

#[test]
fn a_kill_during_a_blocked_freeze_leaves_nothing_frozen() -> TestResult {
    if skip("a_kill_during_a_blocked_freeze_leaves_nothing_frozen", &[Kind::Ext4]) {
        return Ok(());
    }
    for victim in [Victim::Guard, Victim::Vssd, Victim::Both] {
        for writing in [true, false] {
            race(writing, SECOND * 2, Some(victim))?;
        }
    }
    Ok(())
}

#[test]
fn a_slow_flush_is_named_and_nothing_is_frozen() -> TestResult {
    if skip("a_slow_flush_is_named_and_nothing_is_frozen", &[Kind::Ext4]) {
        return Ok(());
    }
    let (nested, fast) = (Nested::new()?, LoopFs::new(Kind::Ext4, 64)?);
    let runtime = tempfile::tempdir()?;
    let mut driver = start(runtime.path(), THAW_LIMIT, false, &[(&fast, 0), (&nested.inner, 0)])?;
    // The driver waits 5 s for a sync.
    nested.block_inner(false, SECOND * 6)?;
    let said = driver.ask("sync")?;
    assert!(said.starts_with(&format!("error SyncTimeout {}", nested.inner.path().display())), "{said}");
    thawed_after("only flushed", &[&fast], 2 * SECOND);
    assert!(driver.ask("hold")?.starts_with("error Misused"), "a guard is spent after a failure");
    assert_eq!(driver.ask("finish")?, "finished true");
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
    thread::sleep(SECOND * 9);
    assert!(fs.is_frozen());
    thawed_after("deadline", &[&fs], 2 * SECOND);
    println!("no release: thawed after {:?}", started.elapsed());
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
    thawed_after("refused", &[&fs], 2 * SECOND);

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
    thawed_after("the other member cannot be frozen", &[&fs], 2 * SECOND);
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
    thawed_after("without a level", &[&cut], 2 * SECOND);
    assert!(driver.ask("release")?.starts_with("released"));
    assert_eq!(driver.ask("finish")?, "finished true");
    Ok(())
}
