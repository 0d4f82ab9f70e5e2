//! Why nothing can be traced.

use std::io;
use std::path::PathBuf;

/// Why a tracer cannot be made, opened or removed. The floors above give it a VSS_E_* code; the text names what is missing.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// This kernel or this process cannot trace; the text says what is missing.
    #[error("{0}")]
    Unavailable(String),
    /// The device is of a kind whose writes cannot all be seen.
    #[error("writes to {device} cannot be traced: {reason}")]
    Device {
        /// As the kernel calls it, or its numbers.
        device: String,
        /// What about it.
        reason: String,
    },
    /// A tracer is attached there already, or what is left of one.
    #[error("there is a tracer at {0} already")]
    Exists(PathBuf),
    /// What is there is half made, of another version, or not attached any more: remove it and begin again.
    #[error("the tracer at {place} cannot be used: {reason}")]
    Unusable {
        /// Its pins.
        place: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The kernel refused the programs.
    #[error("the kernel refused the tracer's programs: {0}")]
    Refused(String),
    /// A file or a system call.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What came back.
        source: io::Error,
    },
}

impl TraceError {
    /// For `map_err`: what was tried when the error came.
    pub(crate) fn io<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source: source.into() }
    }
}
