//! How much room a file system has (statfs(2)).

use std::{io, os::fd::AsFd, path::Path};

/// Bytes of one file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total: u64,
    /// What is not used, with what is reserved for root.
    pub free: u64,
    /// What anybody may still write. On btrfs an estimate, 0 when no metadata can be allocated any more.
    pub available: u64,
}

/// The room of the file system that `file` lies on.
///
/// # Errors
/// As fstatfs(2).
pub fn of_fd(file: impl AsFd) -> io::Result<Space> {
    Ok(space(&rustix::fs::fstatvfs(file)?))
}

/// The room of the file system that holds `path`.
///
/// # Errors
/// As statfs(2).
pub fn of_path(path: &Path) -> io::Result<Space> {
    Ok(space(&rustix::fs::statvfs(path)?))
}

fn space(found: &rustix::fs::StatVfs) -> Space {
    Space {
        total: found.f_blocks.saturating_mul(found.f_frsize),
        free: found.f_bfree.saturating_mul(found.f_frsize),
        available: found.f_bavail.saturating_mul(found.f_frsize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_room_by_path_and_by_descriptor() {
        let by_path = of_path(Path::new("/tmp")).unwrap();
        let by_fd = of_fd(std::fs::File::open("/tmp").unwrap()).unwrap();
        assert_eq!(by_path.total, by_fd.total);
        assert!(by_path.free <= by_path.total && by_path.available <= by_path.free);
    }
}
