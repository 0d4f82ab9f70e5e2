//! When to hold: the decision after each round, and where the rounds lead when nothing changes. Without any I/O.

use std::time::Duration;

/// As little as this left is held for, whatever was measured: a rule on whether it still shrinks would hold with much more.
pub(crate) const LITTLE: u64 = 4 << 20;

/// Rounds after which it is clear that it gets no less.
pub(crate) const MOST: u32 = 16;

/// Time from a round's end to what it left: the volume is flushed, and asked what is free.
const BETWEEN: Duration = Duration::from_millis(50);

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

/// What is known of a copy before it is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    /// Bytes that the first round reads.
    pub(crate) first: u64,
    /// Bytes in use: no later round reads more.
    pub(crate) used: u64,
    /// Bytes a second of the first round, as far as it is known.
    pub(crate) first_rate: Option<u64>,
    /// Bytes a second of single blocks.
    pub(crate) later_rate: Option<u64>,
    /// The most that may be read in a second before the hold.
    pub(crate) max_rate: Option<u64>,
    /// Bytes a second that become dirty; none when nothing is known of it.
    pub(crate) dirty_rate: Option<u64>,
    /// Nothing is traced: everything is compared in each round, and in the hold.
    pub(crate) is_untraced: bool,
}

/// What comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outlook {
    /// Where the last round leaves it; none when it is not known which is the last.
    pub(crate) end: Option<Standing>,
    /// True when it ends in a refusal.
    pub(crate) is_refused: bool,
    /// Bytes that are read before the hold, as far as it is known.
    pub(crate) bytes: u64,
    /// How long that takes.
    pub(crate) time: Option<Duration>,
    pub(crate) hold: Option<Duration>,
}

impl Start {
    /// Bytes a second that the first round reads.
    pub(crate) fn copy_rate(&self) -> Option<u64> {
        self.paced(self.first_rate)
    }

    fn paced(&self, rate: Option<u64>) -> Option<u64> {
        [rate, self.max_rate].into_iter().flatten().min()
    }

    /// The rounds as creation goes through them, by [`Standing::next`], when a hold may last so long.
    pub(crate) fn outlook(&self, longest: Duration) -> Outlook {
        let mut bytes = self.first;
        let mut time = duration(self.first, self.copy_rate());
        let hold = |dirty| duration(dirty, self.later_rate);
        // What is held for in any case, as long as nothing else is known.
        let unknown =
            |time| Outlook { end: None, is_refused: false, bytes: self.first, time, hold: hold(LITTLE.min(self.used)) };
        if self.is_untraced {
            let end = Standing { round: 2, dirty: self.used, before: Some(self.used), hold: hold(self.used) };
            let later = duration(self.used, self.paced(self.later_rate));
            return Outlook {
                is_refused: end.hold.is_some_and(|hold| hold > longest),
                end: Some(end),
                bytes: bytes + self.used,
                time: time.zip(later).map(|(first, second)| first + second),
                hold: end.hold,
            };
        }
        let (Some(dirty_rate), Some(mut of_round)) = (self.dirty_rate, time) else { return unknown(time) };
        let mut standing = Standing { round: 0, dirty: 0, before: None, hold: None };
        loop {
            let before = (standing.round > 0).then_some(standing.dirty);
            let dirty = written(dirty_rate, of_round + BETWEEN).min(self.used);
            standing = Standing { round: standing.round + 1, dirty, before, hold: hold(dirty) };
            let next = standing.next(longest);
            if next != Next::Round {
                let hold = hold(dirty.max(LITTLE.min(self.used)));
                return Outlook { end: Some(standing), is_refused: next == Next::Refuse, bytes, time, hold };
            }
            let Some(later) = duration(dirty, self.paced(self.later_rate)) else { return unknown(time) };
            of_round = later;
            bytes += dirty;
            time = time.map(|time| time + later);
        }
    }
}

/// Bytes that come at `rate` in so long.
fn written(rate: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(rate) * time.as_nanos() / 1_000_000_000).unwrap_or(u64::MAX)
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

    /// A first copy of 1 GiB at 100 MiB/s, single blocks at 50 MiB/s.
    const START: Start = Start {
        first: 1 << 30,
        used: 1 << 30,
        first_rate: Some(100 * MIB),
        later_rate: Some(50 * MIB),
        max_rate: None,
        dirty_rate: Some(0),
        is_untraced: false,
    };

    #[test]
    fn where_the_rounds_lead() {
        let longest = Duration::from_millis(500);
        let outlook = |start: Start| start.outlook(longest);
        let rounds = |outlook: &Outlook| outlook.end.map(|end| end.round);
        let quiet = outlook(START);
        assert_eq!((rounds(&quiet), quiet.bytes, quiet.is_refused), (Some(1), 1 << 30, false));
        assert_eq!((quiet.time, quiet.hold), (Some(Duration::from_millis(10_240)), Some(Duration::from_millis(80))));
        // 10 MiB/s: 102.9 MiB, 21.1 MiB, 4.7 MiB, and 1.4 MiB are left.
        let busy = outlook(Start { dirty_rate: Some(10 * MIB), ..START });
        assert_eq!((rounds(&busy), busy.is_refused), (Some(4), false), "{busy:?}");
        assert!(busy.bytes >> 20 == 1152 && busy.time.unwrap() > quiet.time.unwrap(), "{busy:?}");
        // As much as is read.
        let lost = outlook(Start { dirty_rate: Some(60 * MIB), ..START });
        assert!(lost.is_refused && rounds(&lost) == Some(MOST) && lost.hold.unwrap() > longest, "{lost:?}");
        let allowed = Start { dirty_rate: Some(60 * MIB), ..START }.outlook(Duration::from_secs(100));
        assert!(!allowed.is_refused, "{allowed:?}");
        // No faster than is wished for.
        let slow = outlook(Start { max_rate: Some(10 * MIB), ..START });
        assert_eq!(slow.time, Some(Duration::from_millis(102_400)));
        assert_eq!(slow.hold, quiet.hold);
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        let longest = Duration::from_millis(500);
        let first = Start { first_rate: None, later_rate: None, ..START }.outlook(longest);
        assert_eq!((first.end, first.time, first.hold, first.bytes), (None, None, None, 1 << 30));
        let wished = Start { first_rate: None, later_rate: None, max_rate: Some(MIB), ..START };
        assert_eq!((wished.copy_rate(), wished.outlook(longest).time), (Some(MIB), Some(Duration::from_secs(1024))));
        let untraceable = Start { dirty_rate: None, ..START }.outlook(longest);
        assert!(untraceable.end.is_none() && untraceable.time.is_some() && untraceable.hold.is_some());
    }

    #[test]
    fn without_tracing_all_is_compared_twice_and_in_the_hold() {
        let start = Start { is_untraced: true, ..START };
        let outlook = start.outlook(Duration::from_secs(8));
        assert!(outlook.is_refused && outlook.bytes == 2 << 30, "{outlook:?}");
        assert_eq!(outlook.hold, Some(Duration::from_millis(20_480)));
        assert!(!Start { used: 300 * MIB, ..start }.outlook(Duration::from_secs(8)).is_refused);
        assert_eq!(Start { later_rate: None, ..start }.outlook(Duration::from_secs(8)).hold, None);
    }
}
