//! `/sys/kernel/rcu_expedited`: a FIFREEZE is almost nothing but waiting for RCU grace periods, 22 ms of them; with this
//! switch on it takes half a millisecond.
//!
//! The switch belongs to the whole machine, so it is on only while a FIFREEZE runs, and its old value is in the ledger.
//! Whoever turns it holds an flock(2) on it: two guards never mistake each other's value for the administrator's.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{FlockOperation, flock};

use super::ledger::Ledger;
use super::protocol::Answer;
use crate::clock;

const SWITCH: &str = "/sys/kernel/rcu_expedited";

/// The switch, opened before the hold. Not being able to set it only makes a freeze slower, so that is no failure.
#[derive(Debug)]
pub struct Expedite {
    switch: File,
    /// The value before ours and when ours was set (CLOCK_BOOTTIME, ns), while ours is set.
    old: Option<(u8, u64)>,
}

impl Expedite {
    /// Opens the switch; `None` where there is none or it may not be written (a container).
    pub fn open() -> Option<Self> {
        Some(Self { switch: open().ok()?, old: None })
    }

    /// Turns it on and writes the old value into `ledger` first. Does nothing when it is on already or another guard
    /// has it.
    pub fn set(&mut self, ledger: &Ledger) {
        if self.old.is_some() || !lock(&self.switch) {
            return;
        }
        let mut value = [0u8; 1];
        let off = self.switch.read_exact_at(&mut value, 0).is_ok() && value == *b"0";
        if off && ledger.set_expedited(Some(value[0])).is_ok() {
            self.old = Some((value[0], clock::boottime_ns()));
            let _ = self.switch.write_all_at(b"1", 0);
        } else {
            unlock(&self.switch);
        }
    }

    /// Puts the old value back, if [`Expedite::set`] changed it; then there is something to tell. What cannot be put back
    /// stays in the ledger: who cleans up after the guard tries again.
    pub fn restore(&mut self, ledger: &Ledger) -> Option<Answer> {
        let (old, set_ns) = self.old.take()?;
        let restored = self.switch.write_all_at(&[old], 0).is_ok();
        if restored {
            let _ = ledger.set_expedited(None);
        }
        unlock(&self.switch);
        Some(Answer::Expedited { set_ns, restored_ns: clock::boottime_ns(), restored })
    }
}

/// Puts back the value that the dead guard of `ledger` left behind. False when another guard has the switch just now:
/// try again.
pub fn restore_after(ledger: &Ledger) -> bool {
    let (Some(old), Ok(switch)) = (ledger.expedited(), open()) else { return true };
    if !lock(&switch) {
        return false;
    }
    let _ = switch.write_all_at(&[old], 0);
    let _ = ledger.set_expedited(None);
    true
}

fn open() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(SWITCH)
}

fn lock(switch: &File) -> bool {
    flock(switch, FlockOperation::NonBlockingLockExclusive).is_ok()
}

fn unlock(switch: &File) {
    // Cannot fail on an open file, and closing it unlocks too.
    let _ = flock(switch, FlockOperation::Unlock);
}
