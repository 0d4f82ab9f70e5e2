//! How a requester wants the copies of a set to be made: wishes that only some providers can heed.

use crate::{VssCode, VssError, Work};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Least rate that can be wished for, in bytes a second: with less, a copy of anything would not end, and who wrote `50` meant
/// `50M`.
pub const LEAST_RATE: u64 = 64 << 10;

/// Longest hold that can be wished for, in milliseconds: 2 s less than the guard allows ([`crate::limits::HOLD`]).
pub const LONGEST_HOLD_MS: u64 = 8000;

/// The wishes of one set. A provider that copies nothing heeds none of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CreationOptions {
    /// The most that is read from a volume before the hold, in bytes a second; none: as fast as applications leave room for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rate: Option<u64>,
    /// The longest hold that is begun, in milliseconds, 1 to 8000; none: [`crate::limits::MIRROR_HOLD`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_hold_ms: Option<u64>,
    /// The directory for images; none: the settings, then the service's own choice.
    #[serde(skip_serializing_if = "Option::is_none", with = "crate::path_text::optional")]
    pub storage: Option<PathBuf>,
    /// True: the whole volume is read and compared inside the hold, and nothing is traced.
    pub full_compare: bool,
}

impl CreationOptions {
    /// Are these wishes that somebody could heed? Looks at the numbers and at the words of the path, not at the disk.
    ///
    /// # Errors
    /// `E_INVALIDARG` that names the wish and its range.
    pub fn check(&self) -> Result<(), VssError> {
        let wrong = |message: String| Err(VssError::new(VssCode::InvalidArgument, message));
        if let Some(rate) = self.max_rate.filter(|rate| *rate < LEAST_RATE) {
            return wrong(format!("max_rate is {LEAST_RATE} bytes a second (64K) or more, not {rate}"));
        }
        if let Some(hold) = self.max_hold_ms.filter(|hold| !(1..=LONGEST_HOLD_MS).contains(hold)) {
            return wrong(format!("max_hold_ms is 1 to {LONGEST_HOLD_MS}, not {hold}"));
        }
        match &self.storage {
            Some(storage) if !storage.is_absolute() => {
                wrong(format!("The storage {} is not an absolute path", storage.display()))
            }
            _ => Ok(()),
        }
    }
}

/// What it takes to make a copy whose blocks are read and stored elsewhere: an estimate by the rates of now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyForecast {
    /// What the first round does: it copies everything in use for the first time, compares everything, or catches up with what
    /// was written since the copy before.
    pub work: Work,
    /// Why everything is read, to compare it or to copy it once more, instead of what was written since the last copy; none
    /// when it is not, and for a first copy.
    pub full_compare: Option<String>,
    /// The directory that the image would lie in; none when no place has room.
    #[serde(with = "crate::path_text::optional")]
    pub storage: Option<PathBuf>,
    /// The room at each place that may be chosen, in the order of choice.
    pub places: Vec<PlaceForecast>,
    /// Rounds of reading before the hold; none when a rate is not known.
    pub rounds: Option<u32>,
    /// Bytes that are read in these rounds; in the first alone when a rate is not known.
    pub bytes_to_read: u64,
    /// Bytes a second that are read in the first round: those of the last copy, at most those that are wished for; none before
    /// a first copy without a wish.
    pub copy_rate: Option<u64>,
    /// Bytes a second that applications write to blocks that they had not written to before, measured for a moment; none when
    /// that cannot be traced.
    pub dirty_rate: Option<u64>,
    /// How long the reading before the hold takes, in milliseconds; of the first round alone when the dirty rate is not known;
    /// none when the copy rate is not known.
    pub read_ms: Option<u64>,
}

/// The room at one place for images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceForecast {
    /// The directory.
    #[serde(with = "crate::path_text")]
    pub storage: PathBuf,
    /// Bytes that the image needs beyond what it has there.
    pub bytes_needed: u64,
    /// Bytes available there above the floor.
    pub bytes_available: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_out_of_range_are_refused_with_their_range() {
        let asked = |options: CreationOptions| options.check().map_err(|error| error.message);
        let usual = CreationOptions::default;
        assert_eq!(asked(usual()), Ok(()));
        let wishes = CreationOptions {
            max_rate: Some(LEAST_RATE),
            max_hold_ms: Some(LONGEST_HOLD_MS),
            storage: Some("/srv".into()),
            full_compare: true,
        };
        assert_eq!(asked(wishes), Ok(()));
        for (wrong, words) in [
            (CreationOptions { max_rate: Some(50), ..usual() }, "64K"),
            (CreationOptions { max_hold_ms: Some(0), ..usual() }, "1 to 8000, not 0"),
            (CreationOptions { max_hold_ms: Some(8001), ..usual() }, "not 8001"),
            (CreationOptions { storage: Some("images".into()), ..usual() }, "images is not an absolute path"),
        ] {
            assert!(asked(wrong).unwrap_err().contains(words), "{words}");
        }
    }
}
