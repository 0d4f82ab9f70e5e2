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
    /// Beginnings and ends of commands of the driver's own that may write anywhere (SG_IO, NVMe passthrough).
    pub passthrough: u64,
    /// Beginnings of writes at which a program was not run, because it was running on the same CPU; of all devices of the
    /// machine.
    pub missed_starts: u64,
    /// The same of ends: of a loop device, which a thread completes, when a disk's interrupt comes in between.
    pub missed_ends: u64,
}

impl Counters {
    /// Sectors that were queued and not completed since `since`, a moment at which nothing was under way. 0 at every other
    /// such moment; while writes are under way it is at least their sectors. Below 0 if `since` was no such moment.
    #[must_use]
    pub fn balance(&self, since: &Self) -> i64 {
        let queued = self.queued.wrapping_sub(since.queued);
        queued.wrapping_sub(self.completed.wrapping_sub(since.completed)).cast_signed()
    }

    /// Why nobody knows what was written since `since`, if so. It says nothing about ends that were not seen
    /// ([`Counters::distrust_at_rest`]): which writes were begun is known all the same.
    #[must_use]
    pub fn distrust(&self, since: &Self) -> Option<Distrust> {
        let grew = |count: fn(&Self) -> u64| count(self).wrapping_sub(count(since));
        let missed = grew(|counters| counters.missed_starts);
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

    /// As [`Counters::distrust`], at a moment at which nothing is under way, since an earlier such moment: the ends count,
    /// and the balance.
    #[must_use]
    pub fn distrust_at_rest(&self, since: &Self) -> Option<Distrust> {
        let (missed, balance) = (self.missed_ends.wrapping_sub(since.missed_ends), self.balance(since));
        self.distrust(since)
            .or_else(|| (missed > 0).then_some(Distrust::MissedEnds(missed)))
            .or_else(|| (balance != 0).then_some(Distrust::Unbalanced(balance)))
    }
}

/// Why the bits may lack something. What to do: read again everything that may have been written
/// ([`Distrust::is_of_ends`]), or compare the whole volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distrust {
    /// So many events at which no program was run, of writes that nobody knows.
    Missed(u64),
    /// So many ends at which no program was run, of writes that were seen queued.
    MissedEnds(u64),
    /// So many beginnings and ends of commands of the driver's own.
    Passthrough(u64),
    /// So many writes that could not be remembered.
    NotRemembered(u64),
    /// So many completions without a beginning.
    Unknown(u64),
    /// At rest, more sectors were queued than completed (or fewer, below 0).
    Unbalanced(i64),
}

impl Distrust {
    /// True when every write that was begun is known, and no more is in doubt than which of them had ended when their blocks
    /// were read: at rest [`Tracer::queued_since_balance`](crate::Tracer::queued_since_balance) has all that may be missing.
    #[must_use]
    pub fn is_of_ends(&self) -> bool {
        matches!(self, Self::MissedEnds(_) | Self::Unbalanced(_))
    }
}

impl fmt::Display for Distrust {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missed(count) => write!(to, "the tracer missed {count} events"),
            Self::MissedEnds(count) => write!(to, "the tracer missed the end of {count} writes"),
            Self::Passthrough(_) => {
                write!(
                    to,
                    "commands that pass the kernel's block layer by (SG_IO, NVMe passthrough) may have written to the device"
                )
            }
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
        let since = Counters {
            queued: 100,
            completed: 90,
            unknown: 3,
            missed_starts: 1,
            missed_ends: 2,
            ..Counters::default()
        };
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
        assert_eq!(Counters { missed_starts: 2, ..zero }.distrust(&zero), Some(Distrust::Missed(2)));
        assert_eq!(Counters { passthrough: 3, ..zero }.distrust(&zero), Some(Distrust::Passthrough(3)));
        assert_eq!(Counters { hash_full: 4, ..zero }.distrust(&zero), Some(Distrust::NotRemembered(4)));
        assert_eq!(Counters { unknown: 5, ..zero }.distrust(&zero), Some(Distrust::Unknown(5)));
        assert_eq!(Counters { issued: 5, ..zero }.distrust_at_rest(&zero), None);
    }

    #[test]
    fn of_missed_ends_it_is_known_which_writes_they_are_of() {
        let zero = Counters::default();
        let ends = Counters { missed_ends: 2, ..zero };
        assert_eq!((ends.distrust(&zero), ends.distrust_at_rest(&zero)), (None, Some(Distrust::MissedEnds(2))));
        assert!(Distrust::MissedEnds(2).is_of_ends() && Distrust::Unbalanced(-8).is_of_ends());
        // Not when the beginning of one of them may have been missed as well.
        let both = Counters { missed_starts: 1, ..ends };
        assert_eq!(both.distrust_at_rest(&zero), Some(Distrust::Missed(1)));
        assert!(!Distrust::Missed(1).is_of_ends() && !Distrust::Passthrough(1).is_of_ends());
    }
}
