//! One creation at a time, machine-wide: flock(2) on one file for all instances, from StartSnapshotSet to the end of
//! DoSnapshotSet (spec P 1.2, design 2.3).

use rustix::fs::{FlockOperation, Mode, OFlags};
use std::{
    io::{Read, Seek, Write},
    path::Path,
};
use vss_linux::flock;
use vss_model::{VssCode, VssError};

/// The lock file; the same for every instance, whatever its runtime directory is.
pub const FILE: &str = "/run/vss/creation.lock";

/// The lock, held until it is dropped; the kernel drops it with the process.
#[derive(Debug)]
pub struct CreationLock {
    file: std::fs::File,
}

impl Drop for CreationLock {
    /// Unlocks in so many words: a child of ours between fork and exec still has the file open, and closing ours alone would
    /// leave the lock with it for that moment.
    fn drop(&mut self) {
        let _unlocked = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

impl CreationLock {
    /// Takes the lock at once or not at all; `holder` is written into the file for those who find it taken.
    ///
    /// # Errors
    /// `VSS_E_SNAPSHOT_SET_IN_PROGRESS` naming who holds it; `VSS_E_UNEXPECTED` when the file cannot be used.
    pub fn try_take(path: &Path, holder: &str) -> Result<Self, VssError> {
        let unusable = |error: std::io::Error| {
            VssError::new(VssCode::Unexpected, format!("Cannot use the lock file {}: {error}", path.display()))
        };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(unusable)?;
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut file: std::fs::File =
            rustix::fs::open(path, flags, Mode::from_raw_mode(0o600)).map_err(|error| unusable(error.into()))?.into();
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(in_progress(&file)),
            Err(error) => return Err(unusable(error.into())),
        }
        let mut write = || -> std::io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(holder.as_bytes())
        };
        write().map_err(unusable)?;
        Ok(Self { file })
    }
}

/// What [`CreationLock::try_take`] would say now; none when the lock is free, or nobody can tell. Takes nothing, also not for
/// a moment, in which another would find it taken. May block.
#[must_use]
pub fn held(path: &Path) -> Option<VssError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file: std::fs::File = rustix::fs::open(path, flags, Mode::empty()).ok()?.into();
    flock::is_locked(&file).is_ok_and(|locked| locked).then(|| in_progress(&file))
}

fn in_progress(file: &std::fs::File) -> VssError {
    let mut other = String::new();
    // Who it is helps the user; not knowing it is no reason for another error.
    let _read = file.take(512).read_to_string(&mut other);
    let other = if other.trim().is_empty() { "another requester" } else { other.trim() };
    VssError::new(VssCode::SnapshotSetInProgress, format!("Another shadow copy set is being created by {other}"))
        .with_hint("Wait and try again; `vss run` and `vss create` do so with --wait SECONDS")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_holds_it() {
        let directory = std::env::temp_dir().join(format!("vss-creation-lock-{}", std::process::id()));
        let path = directory.join("creation.lock");
        assert_eq!(super::held(&path), None, "there is no file, and none is made");
        assert!(!path.exists());
        let held = CreationLock::try_take(&path, "vss run: restic (process 7)").unwrap();
        let error = CreationLock::try_take(&path, "b").unwrap_err();
        assert_eq!(error.code, VssCode::SnapshotSetInProgress);
        assert!(error.message.contains("restic (process 7)"), "{error}");
        assert_eq!(super::held(&path), Some(error), "whoever only looks is told the same");
        drop(held);
        assert_eq!(super::held(&path), None);
        CreationLock::try_take(&path, "b").unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
