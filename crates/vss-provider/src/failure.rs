//! The kernel's errors in the words of the provider contract (spec P 2.7).

use rustix::io::Errno;
use std::{fmt::Display, io};
use vss_model::{VssCode, VssError};

/// Says that `what` failed with `error`, under the code that fits, and what to do about it.
#[must_use]
pub fn failed(what: impl Display, error: &io::Error) -> VssError {
    let (code, hint) = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC | Errno::DQUOT) => {
            (VssCode::InsufficientStorage, "Free space on the volume, or delete old shadow copies")
        }
        Some(Errno::NOMEM) => (VssCode::OutOfMemory, "Free memory and try again"),
        Some(Errno::MFILE | Errno::NFILE) => {
            (VssCode::OutOfMemory, "Raise the limit of open files (LimitNOFILE=) of the service")
        }
        Some(Errno::PERM | Errno::ACCESS) => (VssCode::AccessDenied, "Making shadow copies needs root (CAP_SYS_ADMIN)"),
        Some(Errno::ROFS) => {
            (VssCode::ProviderVeto, "The file system is read-only: look for its errors in dmesg, or mount it writable")
        }
        _ => (VssCode::ProviderVeto, ""),
    };
    VssError::new(code, format!("{what}: {error}")).with_hint(hint)
}

/// True when `error` is this errno.
#[must_use]
pub fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}
