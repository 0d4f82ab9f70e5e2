//! From errors of the system to those that people read, and what failed of single files.

use crate::directory::Failure;
use rustix::io::Errno;
use std::io;
use std::path::Path;
use vss_model::{VssCode, VssError};

/// The way out where the user may not.
const ROOT: &str = "Use sudo";
/// The way out where something else is in the place of a directory.
const DIRECTORY: &str = "Name a directory";
/// The way out where something of a backup's own is damaged.
pub(crate) const DAMAGED: &str = "Nothing is restored from it; the files below `data` can be copied by hand";
/// The way out where the system says what people seldom meet.
const SYSTEM: &str = "Look at this path, and into dmesg for errors of its disk";

/// What failed of single files, while the rest went on.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    /// The first of it.
    pub(crate) first: Vec<Failure>,
    /// How much more.
    pub(crate) more: u64,
}

impl Failures {
    /// So much is told one by one.
    const MOST: usize = 1000;

    pub(crate) fn add(&mut self, failure: Failure) {
        if self.first.len() < Self::MOST { self.first.push(failure) } else { self.more += 1 }
    }
}

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
        Some(Errno::ROFS) => VssError::new(VssCode::AccessDenied, message)
            .with_hint("The file system is read-only: look for its errors in dmesg, or mount it writable"),
        Some(Errno::ACCESS | Errno::PERM) => VssError::new(VssCode::AccessDenied, message).with_hint(ROOT),
        Some(Errno::EXIST | Errno::NOTDIR) => VssError::new(VssCode::InvalidArgument, message).with_hint(DIRECTORY),
        Some(Errno::NOENT) => {
            VssError::new(VssCode::ObjectNotFound, message).with_hint("Make the directory above it first")
        }
        _ => VssError::new(VssCode::Unexpected, message).with_hint(SYSTEM),
    }
}

/// The error of reading at `path`.
pub(crate) fn reading(path: &Path, error: &io::Error) -> VssError {
    let message = format!("Cannot read {}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::NotFound => VssError::new(VssCode::ObjectNotFound, message)
            .with_hint("Look whether the name is right and its file system is mounted"),
        io::ErrorKind::PermissionDenied => VssError::new(VssCode::AccessDenied, message).with_hint(ROOT),
        io::ErrorKind::NotADirectory => VssError::new(VssCode::InvalidArgument, message).with_hint(DIRECTORY),
        io::ErrorKind::InvalidData => VssError::new(VssCode::CorruptXmlDocument, message).with_hint(DAMAGED),
        _ => VssError::new(VssCode::Unexpected, message).with_hint(SYSTEM),
    }
}

/// The user wished to stop.
pub(crate) fn stopped() -> VssError {
    VssError::new(VssCode::Aborted, "Interrupted")
        .with_hint("Run the same command again: what is there already is kept")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_of_the_system_has_a_way_out() {
        let path = Path::new("/backups/today");
        let errors = [Errno::NOENT, Errno::ACCESS, Errno::NOTDIR, Errno::ROFS, Errno::NOSPC, Errno::EXIST, Errno::IO];
        for errno in errors {
            for error in [reading(path, &errno.into()), writing(path, &errno.into())] {
                assert!(!error.hint.is_empty(), "{error}");
                assert!(error.to_string().contains("/backups/today"), "{error}");
            }
        }
        assert_eq!(reading(path, &io::ErrorKind::InvalidData.into()).hint, DAMAGED);
        let missing = [reading(path, &Errno::NOENT.into()), writing(path, &Errno::NOENT.into())];
        assert!(missing.iter().all(|error| error.code == VssCode::ObjectNotFound), "{missing:?}");
    }
}
