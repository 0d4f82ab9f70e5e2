//! When a hold began and ended.

use std::time::Duration;

/// A hold that is on: every member is frozen. Instants are CLOCK_BOOTTIME in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// Before the first FIFREEZE was called.
    pub began_ns: u64,
    /// After the last FIFREEZE had returned: from here on no member is written to.
    pub frozen_ns: u64,
    /// The guard ends the hold then by itself.
    pub deadline_ns: u64,
}

/// A hold that was whole: no member was written to between `hold.frozen_ns` and `release_ns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Released {
    /// The hold.
    pub hold: Hold,
    /// When release was asked for; no FITHAW was called before.
    pub release_ns: u64,
    /// After the last FITHAW had returned.
    pub thawed_ns: u64,
}

impl Released {
    /// From the first FIFREEZE to the last FITHAW: how long writes may have waited.
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.thawed_ns.saturating_sub(self.hold.began_ns))
    }
}
