//! What providers refuse alike, and the kernel's errors, in the words of the contract (spec P 2.7).

use rustix::io::Errno;
use std::{fmt::Display, io};
use vss_model::{ShadowId, Volume, VssCode, VssError};

/// The refusal of a volume that cannot be copied, with the reason as half a sentence.
#[must_use]
pub fn not_supported(volume: &Volume, reason: &str) -> VssError {
    VssError::new(VssCode::VolumeNotSupported, format!("{} cannot be copied: {reason}", volume.mount_point.display()))
}

/// The refusal of a writable mount of a copy that is finished.
#[must_use]
pub fn not_writable(shadow_id: ShadowId) -> VssError {
    VssError::new(
        VssCode::ProviderVeto,
        format!("Shadow copy {shadow_id} is writable only while its set is being finished"),
    )
}

/// The error for a copy whose record is there, but not the thing that it is, such as its file.
#[must_use]
pub fn gone(shadow_id: ShadowId, thing: &str) -> VssError {
    VssError::new(VssCode::ObjectNotFound, format!("Shadow copy {shadow_id} is gone"))
        .with_hint(format!("Somebody deleted its {thing}; delete its record too"))
}

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
