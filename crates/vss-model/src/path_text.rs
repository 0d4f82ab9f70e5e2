//! Paths as text, for records and messages: JSON knows characters only, and a name on disk is any bytes but NUL and `/`.
//!
//! A path that is UTF-8 is written as it is. Elsewhere each byte that belongs to no character becomes U+0000 and two
//! hexadecimal digits, small letters: no path holds a NUL, so nothing is written in two ways and every path is read back as
//! it was. For `#[serde(with = "vss_model::path_text")]`, `path_text::optional` for a path that may be missing, and
//! `path_text::list` for several.

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::Serializer;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Begins a byte that belongs to no character.
const MARK: char = '\0';

/// The path as text.
#[must_use]
pub fn to_text(path: &Path) -> String {
    let mut text = String::with_capacity(path.as_os_str().len());
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push(MARK);
            text.push_str(&format!("{byte:02x}"));
        }
    }
    text
}

/// The path that the text stands for; none when a U+0000 is not followed by a byte in two hexadecimal digits.
#[must_use]
pub fn from_text(text: &str) -> Option<PathBuf> {
    let mut parts = text.split(MARK);
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        // An escaped NUL, slash or letter would be a second way to write a path, or no path.
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|byte| *byte >= 0x80)?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    Some(PathBuf::from(OsString::from_vec(bytes)))
}

/// Writes a path.
///
/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(path: impl AsRef<Path>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&to_text(path.as_ref()))
}

/// Reads a path.
///
/// # Errors
/// The deserializer's; a text that stands for no path.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let text = String::deserialize(deserializer)?;
    from_text(&text).ok_or_else(|| D::Error::custom("U+0000 in a path without the two digits of a byte after it"))
}

/// For a path that may be missing.
pub mod optional {
    use super::{Deserialize, Deserializer, Error, Path, PathBuf, Serializer, from_text, to_text};

    /// Writes a path, or null.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<P: AsRef<Path>, S: Serializer>(path: &Option<P>, serializer: S) -> Result<S::Ok, S::Error> {
        match path {
            Some(path) => serializer.serialize_some(&to_text(path.as_ref())),
            None => serializer.serialize_none(),
        }
    }

    /// Reads a path, or null.
    ///
    /// # Errors
    /// As [`super::deserialize`].
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let path = |text: String| from_text(&text).ok_or_else(|| D::Error::custom("U+0000 in a path without its byte"));
        text.map(path).transpose()
    }
}

/// For several paths.
pub mod list {
    use super::{Deserialize, Deserializer, Error, PathBuf, Serializer, from_text, to_text};

    /// Writes the paths.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(paths.iter().map(|path| to_text(path)))
    }

    /// Reads the paths.
    ///
    /// # Errors
    /// As [`super::deserialize`].
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let path = |text: String| from_text(&text).ok_or_else(|| D::Error::custom("U+0000 in a path without its byte"));
        texts.into_iter().map(path).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(bytes: &[u8]) -> PathBuf {
        PathBuf::from(OsString::from_vec(bytes.to_vec()))
    }

    #[test]
    fn every_path_comes_back_and_utf8_stays_as_it_is() {
        assert_eq!(to_text(Path::new("/srv/B\u{fc}cher \\xff")), "/srv/B\u{fc}cher \\xff");
        assert_eq!(to_text(&path(b"/srv/B\xfccher")), "/srv/B\u{0}fccher");
        for bytes in [&b""[..], b"/", b"/a\xff\xfe/\xc3", b"\xed\xa0\x80", "/\u{10ffff}".as_bytes()] {
            assert_eq!(from_text(&to_text(&path(bytes))), Some(path(bytes)), "{bytes:?}");
        }
    }

    #[test]
    fn a_nul_without_its_byte_is_no_path() {
        for text in
            ["\u{0}", "/a\u{0}", "/a\u{0}f", "/a\u{0}+f", "/a\u{0}zz", "/a\u{0}00b", "/a\u{0}2f", "/a\u{0}f\u{fc}"]
        {
            assert_eq!(from_text(text), None, "{text:?}");
        }
    }
}
