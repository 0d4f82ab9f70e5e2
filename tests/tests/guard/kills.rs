//! The guard, vssd or both are killed or stopped.

use std::time::Instant;

use vss_linux::hold::sweep::{SWEEP_LIMIT, sweep};
use vss_linux::process::Signal;
use vss_tests::load::Load;
use vss_tests::loopfs::{Kind, LoopFs};

use super::{
    PROMPT, SECOND, SHARED, THAW_LIMIT, TestResult, Victim, ledger_path, skip, start, thawed_after, wait_until,
};

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
                assert!(wait_until(THAW_LIMIT, || driver.guard.is_gone()), "{what}");
                drop(driver);
                let was_frozen = frozen && (ext4.is_frozen() || xfs.is_frozen());
                let started = Instant::now();
                let swept = sweep(runtime.path(), SWEEP_LIMIT)?;
                let after = thawed_after(&what, &[&ext4, &xfs], PROMPT);
                println!(
                    "{what}: left frozen {was_frozen}, thawed {:?} after the start of the sweep",
                    started.elapsed()
                );
                assert!(started.elapsed() < PROMPT + after, "{what}");
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
                let removed = wait_until(THAW_LIMIT, || !ledger_path(runtime.path()).exists());
                assert!(removed, "{what}: the ledger stays");
            }
            // Not only thawed once: nothing freezes after everybody has gone.
            thawed_after(&what, &[&ext4, &xfs], THAW_LIMIT);
            // The switch may be another test's for a moment.
            assert!(wait_until(SHARED, || switch() == "0"), "{what}: rcu_expedited is left on");
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
        driver.stop_guard()?;
        thawed_after("guard stopped", &[&fs], THAW_LIMIT);
        println!("guard stopped, limit 1 s: thawed after {:?}", started.elapsed());
        let released = driver.ask("release")?;
        assert!(released.starts_with("error "), "{released}");
        assert_eq!(driver.ask("finish")?, "finished true");
    }
    // vssd dies while its guard is stopped: the kernel's SIGHUP and SIGCONT to the orphaned group wake it.
    let mut driver = start(runtime.path(), THAW_LIMIT, false, &[(&fs, 0)])?;
    assert!(driver.ask("hold")?.starts_with("held"));
    driver.stop_guard()?;
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
