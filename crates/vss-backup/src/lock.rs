//! A directory that one process works on at a time.

use crate::failure::reading;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};
use vss_model::{VssCode, VssError};

/// A process that was killed gives its lock back a moment later.
const GRACE: Duration = Duration::from_millis(400);

/// Locks the open directory at `path` until it is closed.
///
/// # Errors
/// `VSS_E_BAD_STATE` when somebody else works on it; what the system says.
pub(crate) fn lock(directory: impl AsFd, path: &Path, how: FlockOperation) -> Result<(), VssError> {
    let deadline = Instant::now() + GRACE;
    loop {
        match flock(&directory, how) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(GRACE / 20),
            Err(Errno::WOULDBLOCK) => {
                let message = format!("Another process works on {}", path.display());
                return Err(VssError::new(VssCode::BadState, message).with_hint("Wait until it has ended"));
            }
            Err(error) => return Err(reading(path, &error.into())),
        }
    }
}
