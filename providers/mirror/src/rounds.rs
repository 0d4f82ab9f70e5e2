//! When to hold: the decision after each round, without any I/O.

use std::time::Duration;

/// As little as this left is held for, whatever was measured: a rule on whether it still shrinks would hold with much more.
pub(crate) const LITTLE: u64 = 4 << 20;

/// Rounds after which it is clear that it gets no less.
pub(crate) const MOST: u32 = 16;

/// What a round left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Which round it was, from 1.
    pub(crate) round: u32,
    /// Bytes that were written meanwhile and are to be read again.
    pub(crate) dirty: u64,
    /// The same a round earlier; none after the first.
    pub(crate) before: Option<u64>,
    /// How long reading it would hold writes; none when that was not measured.
    pub(crate) hold: Option<Duration>,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Read again what was written meanwhile.
    Round,
    /// Little enough is left.
    Hold,
    /// It does not become little enough.
    Refuse,
}

impl Standing {
    /// What to do, when a hold may last so long.
    pub(crate) fn next(&self, longest: Duration) -> Next {
        let fits = self.hold.is_none_or(|hold| hold <= longest);
        let is_little = self.dirty <= LITTLE;
        // No round makes it less any more, but what is left may be held for.
        let is_level = self.round >= 4 && self.before.is_some_and(|before| self.dirty >= before - before / 10);
        match () {
            () if fits && (is_little || is_level || self.round >= MOST) => Next::Hold,
            () if self.round >= MOST => Next::Refuse,
            () => Next::Round,
        }
    }
}

/// How long it takes to read `bytes` at `rate` bytes a second; none when there is no rate.
pub(crate) fn duration(bytes: u64, rate: Option<u64>) -> Option<Duration> {
    let rate = rate.filter(|rate| *rate > 0)?;
    Some(Duration::from_nanos(u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(rate)).unwrap_or(u64::MAX)))
}

/// Bytes a second; none when the time is too short to tell.
pub(crate) fn rate(bytes: u64, time: Duration) -> Option<u64> {
    let nanos = time.as_nanos();
    (bytes > 0 && nanos > 0).then(|| u64::try_from(u128::from(bytes) * 1_000_000_000 / nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_comes_after_which_standing() {
        use Next::{Hold, Refuse, Round};
        // round, dirty, before, rate, longest ms
        let table = [
            (1, 0, None, None, 500, Hold),
            (1, 4 * MIB, None, Some(100 * MIB), 500, Hold),
            // As little as this, but the disk is too slow for it.
            (1, 4 * MIB, None, Some(MIB), 500, Round),
            (MOST, 4 * MIB, Some(4 * MIB), Some(MIB), 500, Refuse),
            (MOST, 4 * MIB, Some(4 * MIB), Some(MIB), 8000, Hold),
            // It would fit, and another round makes it less.
            (1, 45 * MIB, None, Some(100 * MIB), 500, Round),
            (2, 30 * MIB, Some(45 * MIB), Some(100 * MIB), 500, Round),
            // It gets no less and fits.
            (4, 30 * MIB, Some(30 * MIB), Some(100 * MIB), 500, Hold),
            (3, 30 * MIB, Some(30 * MIB), Some(100 * MIB), 500, Round),
            // It gets no less and does not fit: a few rounds more, then no.
            (4, 100 * MIB, Some(100 * MIB), Some(100 * MIB), 500, Round),
            (MOST - 1, 100 * MIB, Some(100 * MIB), Some(100 * MIB), 500, Round),
            (MOST, 100 * MIB, Some(100 * MIB), Some(100 * MIB), 500, Refuse),
            (MOST, 100 * MIB, Some(200 * MIB), Some(100 * MIB), 1000, Hold),
        ];
        for (round, dirty, before, rate, longest, wanted) in table {
            let standing = Standing { round, dirty, before, hold: duration(dirty, rate) };
            assert_eq!(standing.next(Duration::from_millis(longest)), wanted, "{standing:?} {longest}");
        }
    }

    #[test]
    fn times_and_rates_do_not_overflow() {
        assert_eq!(duration(u64::MAX, Some(1)), Some(Duration::from_nanos(u64::MAX)));
        assert_eq!((duration(1, None), duration(1, Some(0))), (None, None));
        assert_eq!(duration(50 * MIB, Some(100 * MIB)), Some(Duration::from_millis(500)));
        assert_eq!(rate(u64::MAX, Duration::from_nanos(1)), Some(u64::MAX));
        assert_eq!((rate(0, Duration::from_secs(1)), rate(1, Duration::ZERO)), (None, None));
    }
}
