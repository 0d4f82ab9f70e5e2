//! The space guard: a copy that shares blocks with its volume and fills their file system would hurt the volume, so it is
//! refused before.

use std::{io, os::fd::AsFd, path::Path};
use vss_linux::statfs::{self, Space};
use vss_model::{VssCode, VssError};

const MIB: u64 = 1 << 20;

/// The least that is asked for by default: room for the trees that a copy makes the file system write anew. The smallest
/// file system that mkfs.btrfs makes (110 MiB) has 29 MiB available when it is empty.
const LEAST: u64 = 16 * MIB;
/// The most that is asked for by default.
const MOST: u64 = 1 << 30;

/// What must be available by default on a file system of `total` bytes: 1 %, at least 16 MiB, at most 1 GiB.
#[must_use]
pub fn least_free(total: u64) -> u64 {
    (total / 100).clamp(LEAST, MOST)
}

/// Refuses when the file system of `mount_point` has less than `wanted` bytes available; none: the default.
///
/// # Errors
/// `VSS_E_INSUFFICIENT_STORAGE`; `VSS_E_PROVIDER_VETO` when the space cannot be read.
pub fn check_path(mount_point: &Path, wanted: Option<u64>) -> Result<(), VssError> {
    judge(statfs::of_path(mount_point), mount_point, wanted)
}

/// As [`check_path`], by a descriptor.
///
/// # Errors
/// As [`check_path`].
pub fn check_fd(file: impl AsFd, mount_point: &Path, wanted: Option<u64>) -> Result<(), VssError> {
    judge(statfs::of_fd(file), mount_point, wanted)
}

fn judge(space: io::Result<Space>, mount_point: &Path, wanted: Option<u64>) -> Result<(), VssError> {
    let space = space.map_err(|error| {
        crate::failure::failed(format!("The free space of {} cannot be read", mount_point.display()), &error)
    })?;
    let wanted = wanted.unwrap_or_else(|| least_free(space.total));
    if space.available >= wanted {
        return Ok(());
    }
    Err(VssError::new(
        VssCode::InsufficientStorage,
        format!(
            "{} has {} MiB available; a shadow copy is made only with {} MiB or more",
            mount_point.display(),
            space.available / MIB,
            wanted.div_ceil(MIB)
        ),
    )
    .with_hint("Free space on it, or delete old shadow copies"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_huge_file_systems_are_bounded() {
        assert_eq!(least_free(128 * MIB), 16 * MIB);
        assert_eq!(least_free(10 << 30), 102 * MIB + (10 << 30) / 100 % MIB);
        assert_eq!(least_free(1 << 50), 1 << 30);
    }

    #[test]
    fn the_refusal_names_what_is_there_and_what_is_wanted() {
        let space = Space { total: 128 * MIB, free: 20 * MIB, available: 10 * MIB };
        let error = judge(Ok(space), Path::new("/srv"), None).unwrap_err();
        assert_eq!(error.code, VssCode::InsufficientStorage);
        assert!(error.message.contains("10 MiB") && error.message.contains("16 MiB") && error.message.contains("/srv"));
        assert!(judge(Ok(space), Path::new("/srv"), Some(10 * MIB)).is_ok());
    }
}
