//! Parts of files: which ranges of a file an incremental backup takes (spec R 3.8, partial files and directed targets).

use crate::{VssCode, VssError, limits, path_text};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::path::{Path, PathBuf};

/// A piece of a file, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ByteRange {
    /// Where it begins.
    pub offset: u64,
    /// How long it is; offset and length together stay below 2^64.
    pub length: u64,
}

/// Which parts of a file. Serialised as the text that [`Ranges::parse`] reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ranges {
    /// These, at most [`limits::RANGES`].
    List(Vec<ByteRange>),
    /// Those in a ranges file, see [`ranges_in_file`].
    File(PathBuf),
}

impl Serialize for Ranges {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ranges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).map_err(|error| serde::de::Error::custom(error.message))
    }
}

impl Ranges {
    /// Reads `OFFSET:LENGTH, OFFSET:LENGTH...` (decimal, or hexadecimal after `0x`), `File=PATH`, or a bare full path.
    ///
    /// # Errors
    /// `E_INVALIDARG`, naming the first range that is none.
    pub fn parse(text: &str) -> Result<Self, VssError> {
        let text = text.trim();
        if let Some(path) = text.strip_prefix("File=") {
            return Ok(Self::File(PathBuf::from(path)));
        }
        let is_windows_path = || matches!(text.as_bytes(), [letter, b':', b'\\', ..] if letter.is_ascii_alphabetic());
        if text.starts_with(['/', '\\', '%']) || is_windows_path() {
            return Ok(Self::File(PathBuf::from(text)));
        }
        let mut ranges = Vec::new();
        for part in text.split(',') {
            let range = part.split_once(':').and_then(|(offset, length)| checked(number(offset)?, number(length)?));
            let Some(range) = range else {
                let part: String = part.chars().take(64).collect();
                let message = format!("\"{part}\" is no range");
                return Err(VssError::new(VssCode::InvalidArgument, message)
                    .with_hint("Write OFFSET:LENGTH, several with commas between them, or File=PATH"));
            };
            if ranges.len() == limits::RANGES {
                return Err(too_many());
            }
            ranges.push(range);
        }
        Ok(Self::List(ranges))
    }
}

impl fmt::Display for Ranges {
    /// As [`Ranges::parse`] reads it; of the two forms for a ranges file, `File=`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "File={}", path_text::to_text(path)),
            Self::List(ranges) => {
                for (number, ByteRange { offset, length }) in ranges.iter().enumerate() {
                    let comma = if number == 0 { "" } else { ", " };
                    write!(f, "{comma}{offset}:{length}")?;
                }
                Ok(())
            }
        }
    }
}

fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, radix) = hexadecimal.map_or((text, 10), |digits| (digits, 16));
    // from_str_radix takes a sign.
    if !digits.starts_with(|first: char| first.is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

fn checked(offset: u64, length: u64) -> Option<ByteRange> {
    offset.checked_add(length).map(|_| ByteRange { offset, length })
}

fn too_many() -> VssError {
    VssError::new(VssCode::InvalidArgument, format!("more than {} ranges of one file", limits::RANGES))
        .with_hint("Back the file up whole")
}

/// Reads a ranges file: the number of ranges, then offset and length of each, all of them 64 bits, least significant byte
/// first (spec R 3.8; the byte order is ours, since the contract names none).
///
/// # Errors
/// `E_INVALIDARG` for a file that is shorter or longer than its number says, or has more than [`limits::RANGES`].
pub fn ranges_in_file(bytes: &[u8]) -> Result<Vec<ByteRange>, VssError> {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
    let count = words.next().filter(|_| rest.is_empty());
    let Some(count) = count.and_then(|count| usize::try_from(count).ok()) else {
        let message = format!("a ranges file of {} bytes: the length is no multiple of 8, or 0", bytes.len());
        return Err(VssError::new(VssCode::InvalidArgument, message));
    };
    if count > limits::RANGES {
        return Err(too_many());
    }
    if words.len() != 2 * count {
        let message = format!("a ranges file of {count} ranges has {} bytes, not {}", bytes.len(), 8 + 16 * count);
        return Err(VssError::new(VssCode::InvalidArgument, message));
    }
    let mut ranges = Vec::with_capacity(count);
    while let (Some(offset), Some(length)) = (words.next(), words.next()) {
        let range = checked(offset, length).ok_or_else(|| {
            VssError::new(VssCode::InvalidArgument, format!("range {offset}:{length} ends beyond 2^64"))
        })?;
        ranges.push(range);
    }
    Ok(ranges)
}

/// A file of which only parts are in the backup, named by its writer in PrepareBackup or PostSnapshot (spec R 3.8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartialFile {
    /// The directory: that of a file set of the component, or below it.
    #[serde(with = "path_text")]
    pub path: PathBuf,
    /// The file's name, without wildcards.
    pub file_name: String,
    /// Its parts.
    pub ranges: Ranges,
    /// What the writer checks it by at restore; nobody else reads it.
    #[serde(default)]
    pub metadata: String,
}

/// Where parts of a backed-up file go, named by its writer in PreRestore (spec R 3.8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectedTarget {
    /// The directory of the file as it was backed up.
    #[serde(with = "path_text")]
    pub source_path: PathBuf,
    /// Its name.
    pub source_file_name: String,
    /// Its parts.
    pub source_ranges: Ranges,
    /// The directory of the file to write.
    #[serde(with = "path_text")]
    pub destination_path: PathBuf,
    /// Its name.
    pub destination_file_name: String,
    /// Where in it.
    pub destination_ranges: Ranges,
}

impl PartialFile {
    /// The whole path of the file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        Path::new(&self.path).join(&self.file_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(ranges: &[(u64, u64)]) -> Ranges {
        Ranges::List(ranges.iter().map(|&(offset, length)| ByteRange { offset, length }).collect())
    }

    #[test]
    fn spec_3_8_ranges_in_both_forms() {
        let table = [
            ("0:4096", list(&[(0, 4096)]), "0:4096"),
            (" 0x1000:0X20 , 8192:1", list(&[(4096, 32), (8192, 1)]), "4096:32, 8192:1"),
            ("18446744073709551614:1", list(&[(u64::MAX - 1, 1)]), "18446744073709551614:1"),
            ("File=/srv/r.bin", Ranges::File("/srv/r.bin".into()), "File=/srv/r.bin"),
            ("/srv/r.bin", Ranges::File("/srv/r.bin".into()), "File=/srv/r.bin"),
            ("C:\\r.bin", Ranges::File("C:\\r.bin".into()), "File=C:\\r.bin"),
        ];
        for (text, ranges, written) in table {
            let read = Ranges::parse(text).unwrap();
            assert_eq!(read, ranges, "{text}");
            assert_eq!(read.to_string(), written);
            assert_eq!(Ranges::parse(written).unwrap(), ranges);
        }
        for wrong in ["", "1", "1:", ":1", "-1:2", "+1:2", "1:2,", "0x:1", "1:2;3:4", "18446744073709551615:1"] {
            assert_eq!(Ranges::parse(wrong).unwrap_err().code, VssCode::InvalidArgument, "{wrong}");
        }
    }

    #[test]
    fn spec_3_8_a_ranges_file_is_a_count_and_pairs() {
        let file = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        assert_eq!(ranges_in_file(&file(&[0])).unwrap(), []);
        assert_eq!(list(&[(1, 2), (3, 4)]), Ranges::List(ranges_in_file(&file(&[2, 1, 2, 3, 4])).unwrap()));
        for wrong in [vec![], file(&[1, 1]), file(&[0, 1, 2]), file(&[1, u64::MAX, 1]), file(&[u64::MAX]), vec![0; 9]] {
            assert_eq!(ranges_in_file(&wrong).unwrap_err().code, VssCode::InvalidArgument, "{wrong:?}");
        }
    }
}
