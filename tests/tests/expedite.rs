//! `rcu_expedited`, the machine-wide switch that makes a freeze short: it is put back whoever dies. That it is on while a
//! FIFREEZE runs, and off before the first FITHAW, stands in each set's proof (`proof.rs`); that kills of living guards leave
//! it off, in `guard.rs`.

use std::time::Duration;

use vss_linux::hold::LEDGER_DIRECTORY;
use vss_linux::hold::expedite::{Expedite, restore_after};
use vss_linux::hold::identity::Identity;
use vss_linux::hold::ledger::{Entry, Ledger};
use vss_linux::hold::sweep::{SWEEP_LIMIT, sweep};
use vss_tests::instance::wait_until;
use vss_tests::loopfs::LoopFs;

/// So long may another test's guard have the switch.
const LIMIT: Duration = Duration::from_secs(30);

/// The value of rcu_expedited; `0` on a machine that has none.
fn switch() -> String {
    std::fs::read_to_string("/sys/kernel/rcu_expedited")
        .map_or_else(|_| "0".to_owned(), |value| value.trim().to_owned())
}

/// Just what a guard leaves behind that is killed between turning the switch on and back: the switch on, its old value in
/// the ledger, the locks free.
#[test]
fn the_switch_of_a_killed_guard_is_put_back() -> anyhow::Result<()> {
    let test = "the_switch_of_a_killed_guard_is_put_back";
    if LoopFs::skips(test, &[]) {
        return Ok(());
    }
    for by_sweep in [false, true] {
        let runtime = tempfile::tempdir()?;
        let path = runtime.path().join(LEDGER_DIRECTORY).join("test");
        std::fs::create_dir_all(path.parent().expect("a directory above"))?;
        let identity = Identity::of(std::fs::File::open("/")?)?;
        let ledger = Ledger::create(&path, vec![Entry { identity, level: None, path: "/".to_owned() }])?;
        let Some(mut guards) = Expedite::open().filter(|_| wait_until(LIMIT, || switch() == "0")) else {
            println!("SKIPPED: {test}: rcu_expedited cannot be written, or is on already");
            return Ok(());
        };
        // Another test's guard may have it just now.
        assert!(wait_until(LIMIT, || {
            guards.set(&ledger);
            ledger.expedited().is_some()
        }));
        assert_eq!((switch().as_str(), ledger.expedited()), ("1", Some(b'0')));
        assert!(!restore_after(&ledger), "a living guard keeps it");
        drop(guards);
        if by_sweep {
            drop(ledger);
            let swept = sweep(runtime.path(), SWEEP_LIMIT)?;
            assert_eq!(swept.len(), 1, "{swept:?}");
            assert!(!path.exists());
        } else {
            assert!(restore_after(&ledger));
            assert_eq!(ledger.expedited(), None);
        }
        assert!(wait_until(LIMIT, || switch() == "0"), "left on (by the sweep: {by_sweep})");
    }
    Ok(())
}
