//! A freeze that cannot get through, and file systems that lie on one another.

use std::fs::File;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use vss_linux::freeze::{self, Thaw};
use vss_linux::hold::ledger::{Ledger, State};
use vss_linux::hold::sweep::{Outcome, SWEEP_LIMIT, sweep};
use vss_linux::process::Signal;
use vss_tests::load::Load;
use vss_tests::loopfs::{Kind, LoopFs, ThawTimer, thaw_timer};

use super::{PROMPT, SECOND, THAW_LIMIT, TestResult, Victim, ledger_path, skip, start, thawed_after, wait_until};

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

    /// Freezes the outer one until what is returned thaws it, while a thread sits inside write() on the inner one (`writing`),
    /// or dirty data waits to be flushed.
    fn block_inner(&self, writing: bool) -> anyhow::Result<Blocked> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let flags = if writing { rustix::fs::OFlags::SYNC.bits() } else { 0 };
        let mut file = File::options()
            .create(true)
            .write(true)
            .truncate(true)
            .custom_flags(flags.cast_signed())
            .open(self.inner.path().join("blocked"))?;
        // What creating the file has made dirty is gone, so that a write is the only thing to wait for.
        freeze::sync(&file)?;
        freeze::sync(self.outer.open()?)?;
        let outer = self.outer.open()?;
        freeze::freeze(&outer)?;
        let blocked = Blocked { _timer: thaw_timer(self.outer.open()?, Duration::from_secs(60)), outer };
        let data = vec![7u8; 1 << 20];
        if writing {
            let (tell, told) = mpsc::channel();
            thread::spawn(move || {
                // Nobody listens when the test has failed.
                let _ = tell.send(rustix::thread::gettid().as_raw_nonzero());
                file.write_all(&data)
            });
            let thread = told.recv()?;
            assert!(wait_until(PROMPT, || waits_for_disk(thread.get())), "the write got through");
        } else {
            file.write_all(&data)?;
        }
        Ok(blocked)
    }
}

/// True when a thread of this process has waited for a disk for 100 ms.
fn waits_for_disk(thread: i32) -> bool {
    let waits = || {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('D'))
    };
    (0..20).all(|_| {
        thread::sleep(Duration::from_millis(5));
        waits()
    })
}

/// An outer file system that the test has frozen.
struct Blocked {
    outer: File,
    /// Also when the test fails before it thaws.
    _timer: ThawTimer,
}

impl Blocked {
    /// Thaws it after this time from now on.
    fn thaw_after(self, time: Duration) {
        thread::spawn(move || {
            thread::sleep(time);
            self.thaw()
        });
    }

    fn thaw(self) -> Result<Thaw, std::io::Error> {
        Ok(freeze::thaw(&self.outer)?)
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
        assert!(wait_until(THAW_LIMIT, || !ledger_path(runtime.path()).exists()));
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
    let ledger = Ledger::open(&ledger_path(runtime.path()))?;
    let outer = nested.block_inner(writing)?;
    let started = Instant::now();
    driver.tell("hold")?;
    let is_tried = || [0, 1].iter().all(|member| ledger.state(*member) != State::Untouched);
    assert!(wait_until(PROMPT, is_tried), "{what}");
    outer.thaw_after(blocked);
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
    assert!(wait_until(THAW_LIMIT, || !ledger_path(runtime.path()).exists()), "{what}: the ledger stays");
    // The race's trap: the freeze completes after everybody has gone.
    thread::sleep(Duration::from_millis(200));
    thawed_after(&what, &[&nested.inner, &fast], PROMPT);
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
    let outer = nested.block_inner(false)?;
    let said = driver.ask("sync")?;
    outer.thaw()?;
    assert!(said.starts_with(&format!("error SyncTimeout {}", nested.inner.path().display())), "{said}");
    thawed_after("only flushed", &[&fast], PROMPT);
    assert!(driver.ask("hold")?.starts_with("error Misused"), "a guard is spent after a failure");
    assert_eq!(driver.ask("finish")?, "finished true");
    Ok(())
}
