//! What the programs count, and what the counts say about whether the bits can be trusted.

use std::fmt;

/// Counts since a tracer was attached. They are never set to 0: differences count. In sectors (512 bytes) of the traced range
/// where it says so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sectors of writes, discards and the like that were handed to the device.
    pub queued: u64,
    /// Sectors that were given to the driver. More than queued when requests are given to it again, and 0 for devices without
    /// requests.
    pub issued: u64,
    /// Sectors that were completed.
    pub completed: u64,
    /// Completions of writes whose beginning was not seen, of a device without requests: only where they ended is known.
    pub unknown: u64,
    /// Writes that could not be remembered until their completion, of a device without requests.
    pub hash_full: u64,
    /// Commands of the driver's own that may have written anywhere (SG_IO, NVMe passthrough).
    pub passthrough: u64,
    /// Events at which a program was not run, because it was running on the same CPU; of all devices of the machine.
    pub misses: u64,
}

impl Counters {
    /// Sectors that were queued and not completed since `since`, a moment at which nothing was under way. 0 at every other
    /// such moment; while writes are under way it is at least their sectors. Below 0 if `since` was no such moment.
    #[must_use]
    pub fn balance(&self, since: &Self) -> i64 {
        let queued = self.queued.wrapping_sub(since.queued);
        queued.wrapping_sub(self.completed.wrapping_sub(since.completed)).cast_signed()
    }

    /// Why the bits that were set since `since` are not all that was written, if so. It says nothing about
    /// [`Counters::balance`], which means something only while nothing is under way.
    #[must_use]
    pub fn distrust(&self, since: &Self) -> Option<Distrust> {
        let grew = |count: fn(&Self) -> u64| count(self).wrapping_sub(count(since));
        let missed = grew(|counters| counters.misses);
        if missed > 0 {
            return Some(Distrust::Missed(missed));
        }
        let passthrough = grew(|counters| counters.passthrough);
        if passthrough > 0 {
            return Some(Distrust::Passthrough(passthrough));
        }
        let full = grew(|counters| counters.hash_full);
        if full > 0 {
            return Some(Distrust::NotRemembered(full));
        }
        let unknown = grew(|counters| counters.unknown);
        (unknown > 0).then_some(Distrust::Unknown(unknown))
    }

    /// As [`Counters::distrust`], at a moment at which nothing is under way, since an earlier such moment: the balance counts.
    #[must_use]
    pub fn distrust_at_rest(&self, since: &Self) -> Option<Distrust> {
        let balance = self.balance(since);
        self.distrust(since).or_else(|| (balance != 0).then_some(Distrust::Unbalanced(balance)))
    }
}

/// Why the bits may lack something. What to do: read again everything that may have been written
/// ([`Tracer::queued_since_balance`](crate::Tracer::queued_since_balance) for `Unbalanced`), or compare the whole volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distrust {
    /// So many events at which no program was run.
    Missed(u64),
    /// So many commands of the driver's own.
    Passthrough(u64),
    /// So many writes that could not be remembered.
    NotRemembered(u64),
    /// So many completions without a beginning.
    Unknown(u64),
    /// At rest, more sectors were queued than completed (or fewer, below 0).
    Unbalanced(i64),
}

impl fmt::Display for Distrust {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missed(count) => write!(to, "the tracer missed {count} events"),
            Self::Passthrough(count) => write!(to, "{count} passthrough commands may have written to the device"),
            Self::NotRemembered(count) => write!(to, "{count} writes were more than the tracer can follow at once"),
            Self::Unknown(count) => write!(to, "{count} writes ended whose beginning was not traced"),
            Self::Unbalanced(sectors) if *sectors > 0 => {
                write!(to, "the completion of {sectors} sectors was not traced")
            }
            Self::Unbalanced(sectors) => {
                write!(to, "{} sectors were completed that were not seen queued", sectors.unsigned_abs())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_differences_count() {
        let since = Counters { queued: 100, completed: 90, unknown: 3, misses: 1, ..Counters::default() };
        let later = Counters { queued: 150, completed: 140, ..since };
        assert_eq!(later.balance(&since), 0);
        assert_eq!(later.distrust_at_rest(&since), None);
        assert_eq!(later.balance(&Counters::default()), 10);
        let lost = Counters { completed: 132, ..later };
        assert_eq!(lost.distrust(&since), None);
        assert_eq!(lost.distrust_at_rest(&since), Some(Distrust::Unbalanced(8)));
        let more = Counters { completed: 148, ..later };
        assert_eq!(more.distrust_at_rest(&since), Some(Distrust::Unbalanced(-8)));
    }

    #[test]
    fn each_count_is_a_reason() {
        let zero = Counters::default();
        assert_eq!(Counters { misses: 2, ..zero }.distrust(&zero), Some(Distrust::Missed(2)));
        assert_eq!(Counters { passthrough: 3, ..zero }.distrust(&zero), Some(Distrust::Passthrough(3)));
        assert_eq!(Counters { hash_full: 4, ..zero }.distrust(&zero), Some(Distrust::NotRemembered(4)));
        assert_eq!(Counters { unknown: 5, ..zero }.distrust(&zero), Some(Distrust::Unknown(5)));
        assert_eq!(Counters { issued: 5, ..zero }.distrust_at_rest(&zero), None);
    }
}
