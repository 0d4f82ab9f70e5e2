//! The two facts about time that survive a process: CLOCK_BOOTTIME, which goes on while the machine is suspended, and
//! the id of this boot, which tells whether a written-down CLOCK_BOOTTIME still means anything.

use std::{fs, io};

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds in one second.
pub const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// CLOCK_BOOTTIME now, in nanoseconds since boot (584 years fit).
pub fn boottime_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * NANOS_PER_SECOND + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// CLOCK_BOOTTIME now, in milliseconds since boot.
pub fn boottime_ms() -> u64 {
    boottime_ns() / 1_000_000
}

/// A span or an instant in nanoseconds as the kernel takes it.
pub fn timespec(nanoseconds: u64) -> Timespec {
    // Both fit: the seconds of a u64 of nanoseconds are below 2^35, the remainder below 10^9.
    Timespec {
        tv_sec: i64::try_from(nanoseconds / NANOS_PER_SECOND).unwrap_or(i64::MAX),
        tv_nsec: (nanoseconds % NANOS_PER_SECOND) as _,
    }
}

/// The id of this boot: 36 characters, a UUID in text (random(4)).
///
/// # Errors
/// `/proc` is not mounted.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned())
}
