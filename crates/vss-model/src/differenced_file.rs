//! Differenced files: whole files that an incremental backup takes only when they have changed (spec R 3.8).

use crate::FileSet;
use serde::{Deserialize, Serialize};

/// An instant as Windows counts files' times: units of 100 ns since 1601-01-01 UTC. 0: the requester's own records decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FileTime(pub u64);

/// Units of 100 ns between 1601 and 1970.
const TO_UNIX: i128 = 116_444_736_000_000_000;

impl FileTime {
    /// From nanoseconds since 1970-01-01 UTC, as the kernel counts; what it cannot hold becomes the nearest that it can.
    #[must_use]
    pub fn from_unix_nanoseconds(nanoseconds: i128) -> Self {
        let units = nanoseconds.div_euclid(100).saturating_add(TO_UNIX);
        Self(u64::try_from(units.max(0)).unwrap_or(u64::MAX))
    }

    /// Nanoseconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn unix_nanoseconds(self) -> i128 {
        (self.0 as i128 - TO_UNIX) * 100
    }
}

/// Files of which a backup takes those that changed (spec R 3.8). Its file set is one of the component's, or has nothing in
/// common with any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferencedFiles {
    /// Which files.
    #[serde(flatten)]
    pub files: FileSet,
    /// Those modified after this instant are taken.
    #[serde(default)]
    pub last_modified: FileTime,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_both_systems_are_the_same_instants() {
        let second = 1_000_000_000_i128;
        let table =
            [(0, 116_444_736_000_000_000), (1_700_000_000 * second, 133_444_736_000_000_000), (199, TO_UNIX + 1)];
        for (unix, windows) in table {
            assert_eq!(i128::from(FileTime::from_unix_nanoseconds(unix).0), windows);
        }
        assert_eq!(FileTime(133_444_736_000_000_000).unix_nanoseconds(), 1_700_000_000 * second);
        assert_eq!(FileTime::from_unix_nanoseconds(-second * 60_000_000_000), FileTime(0));
        assert_eq!(FileTime::from_unix_nanoseconds(i128::MAX), FileTime(u64::MAX));
    }
}
