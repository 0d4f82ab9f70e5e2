//! Which writers a set concerns: those with a component on one of its volumes (design 3).

use crate::{Component, VolumeId};
use std::path::Path;

/// A mount point and the volume that it shows; the longest one that is a prefix of a path holds the path.
pub type MountTable<'a> = &'a [(&'a Path, &'a VolumeId)];

/// The volume that holds `path`, by the longest mount point that is a prefix of it.
#[must_use]
pub fn volume_of<'a>(path: &Path, mounts: MountTable<'a>) -> Option<&'a VolumeId> {
    mounts
        .iter()
        .filter(|(mount_point, _)| path.starts_with(mount_point))
        .max_by_key(|(mount_point, _)| mount_point.components().count())
        .map(|(_, volume)| *volume)
}

/// The volumes that the files of a component lie on: their directories, and for recursive file sets also what is
/// mounted below (spec R 1.3, row 13). Each volume once, in order.
#[must_use]
pub fn volumes_of<'a>(component: &Component, mounts: MountTable<'a>) -> Vec<&'a VolumeId> {
    let mut volumes = Vec::new();
    for file in component.all_files() {
        let path = file.source();
        volumes.extend(volume_of(path, mounts));
        if file.recursive {
            volumes.extend(
                mounts.iter().filter(|(mount_point, _)| mount_point.starts_with(path)).map(|(_, volume)| *volume),
            );
        }
    }
    volumes.sort();
    volumes.dedup();
    volumes
}

/// True when a component on these volumes concerns a set of those.
#[must_use]
pub fn concerns(of_component: &[&VolumeId], of_set: &[VolumeId]) -> bool {
    of_component.iter().any(|volume| of_set.contains(volume))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FileSpec;

    fn component(path: &str, recursive: bool) -> Component {
        let files = FileSpec { recursive, ..FileSpec::below(path) };
        Component::file_group("data").files(files).build().unwrap()
    }

    #[test]
    fn longest_mount_point_wins_by_whole_names() {
        let (root, srv) = (VolumeId::file_system("ext4", "a"), VolumeId::file_system("ext4", "b"));
        let mounts = [(Path::new("/"), &root), (Path::new("/srv"), &srv)];
        assert_eq!(volume_of(Path::new("/srv/x"), &mounts), Some(&srv));
        assert_eq!(volume_of(Path::new("/srv2"), &mounts), Some(&root));
    }

    #[test]
    fn recursive_file_sets_reach_what_is_mounted_below() {
        let (root, srv) = (VolumeId::file_system("ext4", "a"), VolumeId::file_system("ext4", "b"));
        let mounts = [(Path::new("/"), &root), (Path::new("/data/wal"), &srv)];
        assert_eq!(volumes_of(&component("/data", true), &mounts), [&root, &srv]);
        assert_eq!(volumes_of(&component("/data", false), &mounts), [&root]);
    }
}
