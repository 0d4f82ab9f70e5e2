//! Somebody else freezes or thaws a member.

use std::thread;
use std::time::{Duration, Instant};

use vss_linux::freeze::{self, FreezeError, Thaw};
use vss_linux::hold::ledger::{Ledger, State};
use vss_linux::hold::sweep::{Fate, SWEEP_LIMIT, sweep};
use vss_linux::hold::thaw::Rescue;
use vss_linux::process::Signal;
use vss_tests::loopfs::{Kind, LoopFs, thaw_timer};

use super::{PROMPT, THAW_LIMIT, TestResult, Victim, ledger_path, skip, start, thawed_after, wait_until};

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
    thawed_after("a stranger's thaw", &[&ext4, &xfs], PROMPT);
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
    let _timer = thaw_timer(theirs.open()?, Duration::from_secs(120));
    freeze::freeze(&stranger)?;

    let mut driver = start(runtime.path(), THAW_LIMIT, false, &[(&ours, 0), (&theirs, 0)])?;
    let ledger = Ledger::open(&ledger_path(runtime.path()))?;
    let started = Instant::now();
    let held = driver.ask("hold")?;
    println!("refused after {:?}: {held}", started.elapsed());
    assert!(held.starts_with(&format!("error FrozenByAnother {}", theirs.path().display())), "{held}");
    assert!(started.elapsed() > Duration::from_millis(1900));
    assert_eq!((ledger.state(0), ledger.state(1)), (State::Thawed, State::Struck));
    thawed_after("refused", &[&ours], PROMPT);
    assert_eq!(driver.ask("finish")?, "finished true");

    // Everybody dies during the tries: neither backup nor sweep may thaw what the stranger froze.
    for victim in [Victim::Guard, Victim::Vssd, Victim::Both] {
        let mut driver = start(runtime.path(), THAW_LIMIT, false, &[(&ours, 0), (&theirs, 0)])?;
        let ledger = Ledger::open(&ledger_path(runtime.path()))?;
        driver.tell("hold")?;
        assert!(wait_until(PROMPT, || ledger.state(1) != State::Untouched), "{victim:?}: it does not try");
        drop(ledger);
        match victim {
            Victim::Guard => driver.guard.signal(Signal::KILL)?,
            Victim::Vssd => driver.signal(Signal::KILL)?,
            Victim::Both => driver.kill_both()?,
        }
        assert!(wait_until(THAW_LIMIT, || driver.guard.is_gone()));
        if victim == Victim::Both {
            for swept in sweep(runtime.path(), SWEEP_LIMIT)? {
                println!("{swept}");
                assert_eq!(swept.members[1].1, Fate::Rescued(Rescue::NotOurs));
            }
        }
        thawed_after("killed while waiting for a stranger", &[&ours], PROMPT);
        assert!(wait_until(THAW_LIMIT, || !ledger_path(runtime.path()).exists()));
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
