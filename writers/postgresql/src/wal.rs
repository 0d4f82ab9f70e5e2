//! The write-ahead log: positions in it, and the names of its segments (PostgreSQL, `src/include/access/xlog_internal.h`).

use std::fmt;
use std::str::FromStr;

/// A position in the log, in bytes from its beginning; PostgreSQL's LSN, written `16/B374D848`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lsn(pub(crate) u64);

/// The text was no position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InvalidLsn;

impl FromStr for Lsn {
    type Err = InvalidLsn;

    fn from_str(text: &str) -> Result<Self, InvalidLsn> {
        let (high, low) = text.split_once('/').ok_or(InvalidLsn)?;
        let half = |text: &str| u32::from_str_radix(text, 16).map_err(|_| InvalidLsn);
        Ok(Self(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// A segment file of the log, by its name: 24 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Segment {
    /// The timeline.
    pub(crate) timeline: u32,
    /// Its high and its low number, as the name has them: what they count depends on the segments' size.
    high: u32,
    low: u32,
}

impl Segment {
    /// The segment with this file name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let digits = name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let part = |from: usize| u32::from_str_radix(name.get(from..from + 8)?, 16).ok();
        digits.then_some(())?;
        Some(Self { timeline: part(0)?, high: part(8)?, low: part(16)? })
    }

    /// Its number in the log, for segments of `size` bytes (a power of two, 1 MiB to 1 GiB).
    pub(crate) fn number(self, size: u64) -> u64 {
        u64::from(self.high) * ((1 << 32) / size) + u64::from(self.low)
    }
}

/// The number of the segment with the last byte before `end`.
pub(crate) fn last_segment(end: Lsn, size: u64) -> u64 {
    end.0.saturating_sub(1) / size
}

/// The segment at which a `backup_label` says that recovery begins: its line `START WAL LOCATION: LSN (file NAME)`.
pub(crate) fn start_of_label(label: &str) -> Option<Segment> {
    let line = label.lines().find_map(|line| line.strip_prefix("START WAL LOCATION: "))?;
    Segment::parse(line.split_once("(file ")?.1.strip_suffix(')')?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_and_written_as_postgresql_does() {
        let lsn: Lsn = "16/B374D848".parse().unwrap();
        assert_eq!(lsn, Lsn(0x16_B374_D848));
        assert_eq!(lsn.to_string(), "16/B374D848");
        assert!("16".parse::<Lsn>().is_err() && "x/1".parse::<Lsn>().is_err() && "1/123456789".parse::<Lsn>().is_err());
    }

    #[test]
    fn segments_are_numbered_by_their_size() {
        let segment = Segment::parse("000000030000000100000002").unwrap();
        assert_eq!((segment.timeline, segment.number(16 << 20), segment.number(1 << 30)), (3, 258, 6));
        assert!(Segment::parse("00000003.history").is_none() && Segment::parse("+00000030000000100000002").is_none());
    }

    #[test]
    fn the_last_byte_before_the_end_decides() {
        let size = 16 << 20;
        assert_eq!(last_segment(Lsn(2 * size), size), 1);
        assert_eq!(last_segment(Lsn(2 * size + 1), size), 2);
        assert_eq!(last_segment(Lsn(0), size), 0);
    }

    #[test]
    fn a_label_names_where_recovery_begins() {
        let label = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n";
        assert_eq!(start_of_label(label), Segment::parse("000000010000000000000002"));
        assert_eq!(start_of_label("CHECKPOINT LOCATION: 0/2000060\n"), None);
    }
}
