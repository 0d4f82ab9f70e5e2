//! A mount table for tests of what is told from one.

use std::path::PathBuf;
use vss_requester::volumes::{Mount, Selected, VolumeKey};

/// A mount table of whole volumes: mount point and device number.
pub(crate) fn mounts(table: &[(&str, u64)]) -> Vec<Mount> {
    let mount = |&(mount_point, device): &(&str, u64)| Mount {
        mount_point: mount_point.into(),
        volume: VolumeKey { device, subvolume: 0 },
        root: PathBuf::new(),
        is_interface: false,
    };
    table.iter().map(mount).collect()
}

/// The paths as if the user had chosen them; they need not exist.
pub(crate) fn selected(paths: &[&str], mounts: &[Mount]) -> Vec<Selected> {
    paths.iter().map(|path| Selected::among(mounts, path.into()).unwrap()).collect()
}
