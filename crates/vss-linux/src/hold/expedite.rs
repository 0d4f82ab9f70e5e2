//! `/sys/kernel/rcu_expedited`: a FIFREEZE is almost nothing but waiting for RCU grace periods, 22 ms of them; with this
//! switch on it takes half a millisecond.
//!
//! The switch belongs to the whole machine, so it is on only while a FIFREEZE runs, and its old value is in the ledger.
//! Whoever touches it holds an flock(2) on it: two guards never mistake each other's value for the administrator's.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use rustix::fs::{FlockOperation, flock};

const SWITCH: &str = "/sys/kernel/rcu_expedited";

/// The switch, open and locked by us, with the value that it had.
#[derive(Debug)]
pub struct Expedite {
    switch: File,
    old: u8,
}

impl Expedite {
    /// Opens and locks the switch. `None`: there is none, it may not be written, another guard has it, or grace periods
    /// are expedited already. All of that only makes a freeze slower or needs nothing from us.
    pub fn open() -> Option<Self> {
        let switch = lock()?;
        let old = read(&switch)?;
        (old == b'0').then_some(Self { switch, old })
    }

    /// The value before ours, as the character in the file.
    pub fn old(&self) -> u8 {
        self.old
    }

    /// Turns it on.
    pub fn set(&self) {
        // A failure only means a slower freeze.
        let _ = self.switch.write_at(b"1", 0);
    }

    /// Back to the old value.
    pub fn restore(&self) {
        let _ = self.switch.write_at(&[self.old], 0);
    }
}

/// Puts back the value `old` that a dead guard left behind. False when a living guard has the switch: try again later.
pub fn restore_after(old: u8) -> bool {
    match OpenOptions::new().read(true).write(true).open(SWITCH) {
        Err(_) => true,
        Ok(switch) if flock(&switch, FlockOperation::NonBlockingLockExclusive).is_ok() => {
            let _ = switch.write_at(&[old], 0);
            true
        }
        Ok(_) => false,
    }
}

fn lock() -> Option<File> {
    let switch = OpenOptions::new().read(true).write(true).open(SWITCH).ok()?;
    flock(&switch, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(switch)
}

fn read(switch: &File) -> Option<u8> {
    let mut value = [0u8; 1];
    (switch.read_at(&mut value, 0).ok()? == 1).then_some(value[0])
}
