//! From errors of the system to those that people read.

use rustix::io::Errno;
use std::io;
use std::path::Path;
use vss_model::{VssCode, VssError};

/// True for an error by which the whole target is out of order; another one belongs to a single file.
pub(crate) fn is_of_all(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        errno,
        Some(Errno::NOSPC | Errno::DQUOT | Errno::IO | Errno::ROFS | Errno::NODEV | Errno::NXIO | Errno::STALE)
    )
}

/// The error of writing at `path`.
pub(crate) fn writing(path: &Path, error: &io::Error) -> VssError {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    let message = format!("Cannot write {}: {error}", path.display());
    match errno {
        Some(Errno::NOSPC | Errno::DQUOT) => VssError::new(VssCode::InsufficientStorage, message)
            .with_hint("Make room and run the same command again: what is there already is kept"),
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => VssError::new(VssCode::AccessDenied, message),
        _ => VssError::new(VssCode::Unexpected, message),
    }
}

/// The error of reading at `path`.
pub(crate) fn reading(path: &Path, error: &io::Error) -> VssError {
    let code = match error.kind() {
        io::ErrorKind::NotFound => VssCode::ObjectNotFound,
        io::ErrorKind::PermissionDenied => VssCode::AccessDenied,
        io::ErrorKind::InvalidData => VssCode::CorruptXmlDocument,
        _ => VssCode::Unexpected,
    };
    VssError::new(code, format!("Cannot read {}: {error}", path.display()))
}

/// The user wished to stop.
pub(crate) fn stopped() -> VssError {
    VssError::new(VssCode::Aborted, "Interrupted")
        .with_hint("Run the same command again: what is there already is kept")
}
