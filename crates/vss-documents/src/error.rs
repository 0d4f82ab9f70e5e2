//! What is wrong with a document, and where.

use std::fmt;
use vss_model::{VssCode, VssError};

/// A place in a document, both counted from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The character in it.
    pub column: u32,
}

impl Position {
    /// Of a byte of the text.
    pub(crate) fn of(source: &str, offset: usize) -> Self {
        let before = &source.as_bytes()[..offset.min(source.len())];
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let lines = before[..line_start].iter().filter(|byte| **byte == b'\n').count();
        // Bytes that go on with a character do not begin one.
        let characters = before[line_start..].iter().filter(|byte| **byte & 0xC0 != 0x80).count();
        let count = |number: usize| u32::try_from(number + 1).unwrap_or(u32::MAX);
        Self { line: count(lines), column: count(characters) }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Which of the two codes a document gets (spec R 10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is no XML, or damaged: `VSS_E_CORRUPT_XML_DOCUMENT`.
    Corrupt,
    /// It is XML and does not follow the schema, or is beyond a limit: `VSS_E_INVALID_XML_DOCUMENT`.
    Invalid,
}

/// Why a document is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{position}: {message}")]
pub struct DocumentError {
    /// What kind of fault it is.
    pub fault: Fault,
    /// Where; the end of the document when something is missing there.
    pub position: Position,
    /// What is wrong, in words.
    pub message: String,
}

impl DocumentError {
    pub(crate) fn new(fault: Fault, position: Position, message: impl Into<String>) -> Self {
        Self { fault, position, message: message.into() }
    }

    /// The code that a requester gets.
    #[must_use]
    pub const fn code(&self) -> VssCode {
        match self.fault {
            Fault::Corrupt => VssCode::CorruptXmlDocument,
            Fault::Invalid => VssCode::InvalidXmlDocument,
        }
    }
}

impl From<DocumentError> for VssError {
    fn from(error: DocumentError) -> Self {
        let hint = match error.fault {
            Fault::Corrupt => "The document is damaged: take another copy of it",
            Fault::Invalid => "",
        };
        Self::new(error.code(), error.to_string()).with_hint(hint)
    }
}

/// Something that is no error, and that somebody who looks at the document should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// Where.
    pub position: Position,
    /// What.
    pub message: String,
}

/// A part of a document's text for a message: one line, at most 64 characters.
pub(crate) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(64).map(|one| if one.is_control() { '\u{fffd}' } else { one }).collect();
    if text.chars().nth(64).is_some() {
        shown.push('\u{2026}');
    }
    shown
}
