//! Instants in the records: wall-clock time for people and documents; and durations as messages have them. Limits are
//! measured elsewhere, in CLOCK_BOOTTIME.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};

/// A wall-clock instant, serialised as RFC 3339 in UTC, for example `2026-11-24T09:30:00.123456Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Instant(jiff::Timestamp);

impl Instant {
    /// Now, by the system's clock.
    #[must_use]
    pub fn now() -> Self {
        Self(jiff::Timestamp::now())
    }

    /// Whole seconds since 1970.
    #[must_use]
    pub fn unix_seconds(self) -> i64 {
        self.0.as_second()
    }

    /// The instant so many microseconds later, or earlier for a negative number; this one where that is out of range
    /// (years -9999 to 9999).
    #[must_use]
    pub fn after_us(self, microseconds: i64) -> Self {
        self.0.checked_add(jiff::SignedDuration::from_micros(microseconds)).map_or(self, Self)
    }

    /// The instant in the machine's time zone, to the second, for a person.
    #[must_use]
    pub fn local(self) -> String {
        self.0.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// As [`Self::local`], to the millisecond.
    #[must_use]
    pub fn local_ms(self) -> String {
        self.0.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string()
    }
}

/// The text is no instant in RFC 3339. Carries the text, cut to 64 characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an instant (wanted: RFC 3339, as 2026-11-24T09:30:00Z)")]
pub struct InvalidInstant(String);

impl FromStr for Instant {
    type Err = InvalidInstant;

    fn from_str(text: &str) -> Result<Self, InvalidInstant> {
        text.parse().map(Self).map_err(|_| InvalidInstant(text.chars().take(64).collect()))
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Whole milliseconds, the largest number for what does not fit.
#[must_use]
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_are_added_and_taken_away() {
        let at = Instant("2026-11-24T09:30:00.000010Z".parse().unwrap());
        assert_eq!(at.after_us(5).to_string(), "2026-11-24T09:30:00.000015Z");
        assert_eq!(at.after_us(-10).to_string(), "2026-11-24T09:30:00Z");
        assert_eq!(at.after_us(i64::MAX), at);
    }
}
