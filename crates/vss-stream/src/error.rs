//! What can be wrong with a stream, and where.

use std::io;

/// What is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It cannot be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It ends before its end: a transfer was cut off.
    #[error("it ends here, in the middle: it was cut off")]
    Torn,
    /// It does not begin as a stream does.
    #[error("it is no stream of a shadow copy")]
    NoStream,
    /// It is of a later release.
    #[error("it has format {0}, and this release reads {version}", version = crate::VERSION)]
    Version(u16),
    /// Bytes are not those that were written.
    #[error("it is damaged: the checksum is {found:08x} and not {wanted:08x}")]
    Checksum {
        /// What the stream says.
        wanted: u32,
        /// What its bytes come to.
        found: u32,
    },
    /// All in all it is not what was written, though every part of it is whole.
    #[error("it is damaged or put together from several: the digest of the whole is another one")]
    Digest,
    /// It says what no writer writes.
    #[error("it says what cannot be: {0}")]
    Nonsense(String),
    /// Something follows its end.
    #[error("something follows its end")]
    Trailing,
}

/// What is wrong with a stream, and where.
#[derive(Debug, thiserror::Error)]
#[error("the stream cannot be used: at byte {at}, {fault}")]
pub struct StreamError {
    /// Bytes from the beginning of the stream.
    pub at: u64,
    /// What is wrong there.
    pub fault: Fault,
}

impl StreamError {
    pub(crate) fn at(at: u64, fault: impl Into<Fault>) -> Self {
        Self { at, fault: fault.into() }
    }

    pub(crate) fn nonsense(at: u64, what: impl Into<String>) -> Self {
        Self { at, fault: Fault::Nonsense(what.into()) }
    }
}
