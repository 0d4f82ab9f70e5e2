//! Bytes and characters: UTF-8, and UTF-16 in both orders, each with or without its mark. Windows writes documents in UTF-8
//! and the manifest of a cabinet in UTF-16.

use crate::error::{DocumentError, Fault, Position};
use crate::limits;

/// How the characters of a document are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// UTF-8. The default.
    #[default]
    Utf8,
    /// UTF-16, least significant byte first.
    Utf16Le,
    /// UTF-16, most significant byte first.
    Utf16Be,
}

/// The mark that may stand before the text.
const MARK: char = '\u{feff}';

/// The characters of a document, how they were written, and whether a mark stood before them.
pub(crate) fn decode(bytes: &[u8]) -> Result<(String, Encoding, bool), DocumentError> {
    if bytes.len() > limits::DOCUMENT_BYTES {
        let message = format!("the document has more than {} bytes", limits::DOCUMENT_BYTES);
        return Err(DocumentError::new(Fault::Invalid, Position { line: 1, column: 1 }, message));
    }
    let encoding = match bytes {
        [0xFF, 0xFE, ..] | [b'<', 0, ..] => Encoding::Utf16Le,
        [0xFE, 0xFF, ..] | [0, b'<', ..] => Encoding::Utf16Be,
        _ => Encoding::Utf8,
    };
    let text = match encoding {
        Encoding::Utf8 => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(error) => {
                let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
                return Err(corrupt(&before, "a byte that belongs to no character of UTF-8"));
            }
        },
        Encoding::Utf16Le => decode_utf16(bytes, u16::from_le_bytes)?,
        Encoding::Utf16Be => decode_utf16(bytes, u16::from_be_bytes)?,
    };
    match text.strip_prefix(MARK) {
        Some(rest) if rest.starts_with(MARK) => Err(corrupt("", "two byte order marks")),
        Some(rest) => Ok((rest.to_owned(), encoding, true)),
        None => Ok((text, encoding, false)),
    }
}

fn decode_utf16(bytes: &[u8], read: fn([u8; 2]) -> u16) -> Result<String, DocumentError> {
    let (units, rest) = bytes.as_chunks::<2>();
    let mut text = String::with_capacity(units.len());
    for unit in char::decode_utf16(units.iter().map(|unit| read(*unit))) {
        match unit {
            Ok(character) => text.push(character),
            Err(_) => return Err(corrupt(&text, "half of a character of UTF-16")),
        }
    }
    if rest.is_empty() { Ok(text) } else { Err(corrupt(&text, "half of a character of UTF-16 at the end")) }
}

/// The error behind the text that was read.
fn corrupt(before: &str, what: &str) -> DocumentError {
    let before = before.strip_prefix(MARK).unwrap_or(before);
    DocumentError::new(Fault::Corrupt, Position::of(before, before.len()), what)
}

/// The bytes of the text.
pub(crate) fn encode(text: &str, encoding: Encoding, has_mark: bool) -> Vec<u8> {
    let mut mark = [0; 4];
    let mark = if has_mark { &*MARK.encode_utf8(&mut mark) } else { "" };
    let units = || mark.encode_utf16().chain(text.encode_utf16());
    match encoding {
        Encoding::Utf8 => [mark.as_bytes(), text.as_bytes()].concat(),
        Encoding::Utf16Le => units().flat_map(u16::to_le_bytes).collect(),
        Encoding::Utf16Be => units().flat_map(u16::to_be_bytes).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_encoding_reads_back_with_and_without_its_mark() {
        let text = "<a b=\"\u{fc}\u{1f600}\"/>";
        for encoding in [Encoding::Utf8, Encoding::Utf16Le, Encoding::Utf16Be] {
            for has_mark in [false, true] {
                let bytes = encode(text, encoding, has_mark);
                assert_eq!(decode(&bytes).unwrap(), (text.to_owned(), encoding, has_mark));
            }
        }
    }

    #[test]
    fn a_broken_character_is_told_with_its_place() {
        let place = |bytes: &[u8]| {
            let error = decode(bytes).unwrap_err();
            assert_eq!(error.fault, Fault::Corrupt);
            (error.position.line, error.position.column)
        };
        assert_eq!(place(b"<a>\n \xff</a>"), (2, 2));
        assert_eq!(place(b"\xff\xfe<\0a\0\0\xd8b\0"), (1, 3));
        assert_eq!(place(b"<\0a\0>"), (1, 3));
        assert_eq!(place("\u{feff}\u{feff}<a/>".as_bytes()), (1, 1));
        let long = vec![b' '; limits::DOCUMENT_BYTES + 1];
        assert_eq!(decode(&long).unwrap_err().fault, Fault::Invalid);
    }
}
