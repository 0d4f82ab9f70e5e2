//! How the files of a cluster lie on the volumes of a set: all of them in it? All cut at one instant? Where in which copy?
//!
//! On btrfs each subvolume has a device number of its own (`st_dev`), and a copy is of one subvolume at one instant; so what
//! counts is the device number of every directory. A subvolume that is nested in a volume of the set is copied with it, at
//! another instant.

use crate::cluster::{Cluster, Place, Role};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use vss_api::writer::EventVolume;
use vss_linux::mountinfo::MountEntry;
use vss_model::{VssCode, VssError};

/// Most directories of one cluster that are looked at: one a database and a few dozen more.
const MOST_DIRECTORIES: usize = 1 << 20;

/// How a cluster lies on the volumes of a set that has all of its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    /// Its directories, in the order of [`Cluster::places`].
    pub(crate) parts: Vec<Part>,
    /// True when everything is planned to be cut at one instant.
    pub(crate) one_instant: bool,
}

/// One directory of a cluster in the copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// The directory.
    pub(crate) place: Place,
    /// Mount point of its volume, as the event names it.
    pub(crate) volume: PathBuf,
    /// Its path below that mount point: it may be seen here by another mount.
    pub(crate) path: PathBuf,
}

impl Span {
    /// Looks at every directory of the cluster. `mounts` is the mount table of this process.
    ///
    /// # Errors
    /// `VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT` naming the volumes that the set lacks; `VSS_E_WRITERERROR_RETRYABLE` when a
    /// directory cannot be read.
    pub(crate) fn of(cluster: &Cluster, volumes: &[EventVolume], mounts: &[MountEntry]) -> Result<Self, VssError> {
        let unreadable = |error: io::Error| {
            VssError::new(
                VssCode::WriterErrorRetryable,
                format!("Cannot read the directories of cluster {}: {error}", cluster.name),
            )
        };
        let volumes: Vec<Volume> = volumes.iter().filter_map(|volume| Volume::new(volume, mounts)).collect();
        let mut missing: BTreeMap<PathBuf, Place> = BTreeMap::new();
        let (mut parts, mut cuts) = (Vec::new(), Vec::new());
        for place in cluster.places().map_err(unreadable)? {
            for (device, directory) in devices_below(&place.path).map_err(unreadable)? {
                match find(device, &directory, &volumes, mounts) {
                    Ok((volume, cut, path)) => {
                        cuts.push(cut);
                        if directory == place.path {
                            parts.push(Part { place: place.clone(), volume: volume.mount_point.clone(), path });
                        }
                    }
                    Err(mount_point) => {
                        missing.entry(mount_point).or_insert_with(|| place.clone());
                    }
                }
            }
        }
        if !missing.is_empty() {
            return Err(incomplete(cluster, &missing));
        }
        Ok(Self { parts, one_instant: cuts.iter().all(|cut| *cut == cuts[0]) })
    }

    /// The part with the data directory.
    pub(crate) fn data(&self) -> &Part {
        &self.parts[0]
    }

    /// The directory of the write-ahead log.
    pub(crate) fn wal(&self) -> Part {
        let elsewhere = self.parts.iter().find(|part| part.place.role == Role::Wal);
        elsewhere.cloned().unwrap_or_else(|| {
            let data = self.data();
            let place = Place { role: Role::Wal, path: data.place.path.join("pg_wal") };
            Part { place, volume: data.volume.clone(), path: data.path.join("pg_wal") }
        })
    }
}

/// What is cut at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// The volumes of a cut group.
    Group(u32),
    /// A nested subvolume, by its device number.
    Nested(u64),
}

/// A volume of the set as this process sees it.
struct Volume {
    mount_point: PathBuf,
    cut_group: u32,
    /// `st_dev` of its root.
    device: u64,
    /// The superblock's device number.
    super_block: u64,
    /// The directory that the mount shows, counted from the root of the file system; the copy's directory stands for it.
    root: PathBuf,
}

impl Volume {
    /// None for a volume that this process does not see: then nothing of ours is on it either.
    fn new(volume: &EventVolume, mounts: &[MountEntry]) -> Option<Self> {
        let mount = mount_of(&volume.volume, mounts)?;
        Some(Self {
            mount_point: volume.volume.clone(),
            cut_group: volume.cut_group,
            device: fs::metadata(&volume.volume).ok()?.dev(),
            super_block: mount.device_number(),
            root: mount.root.clone(),
        })
    }
}

/// The volume that has `directory`, its cut, and the directory's path below the volume's mount point; or the mount point of
/// the volume that the set lacks.
fn find<'v>(
    device: u64,
    directory: &Path,
    volumes: &'v [Volume],
    mounts: &[MountEntry],
) -> Result<(&'v Volume, Cut, PathBuf), PathBuf> {
    let mount = mount_of(directory, mounts).ok_or("/")?;
    let below = directory.strip_prefix(&mount.mount_point).unwrap_or(directory);
    let in_file_system = mount.root.join(below);
    let path = |volume: &Volume| Some(volume.mount_point.join(in_file_system.strip_prefix(&volume.root).ok()?));
    if let Some((volume, path)) =
        volumes.iter().filter(|volume| volume.device == device).find_map(|volume| Some((volume, path(volume)?)))
    {
        return Ok((volume, Cut::Group(volume.cut_group), path));
    }
    // A nested subvolume belongs to the volume below whose root it lies, unless something else is mounted there.
    let shown = fs::metadata(&mount.mount_point).map(|metadata| metadata.dev()).ok();
    volumes
        .iter()
        .filter(|volume| mount.fs_type == "btrfs" && volume.super_block == mount.device_number())
        .filter(|volume| Some(volume.device) == shown)
        .find_map(|volume| Some((volume, Cut::Nested(device), path(volume)?)))
        .ok_or_else(|| mount.mount_point.clone())
}

/// The mount that shows `path`: the last one at the longest mount point.
fn mount_of<'m>(path: &Path, mounts: &'m [MountEntry]) -> Option<&'m MountEntry> {
    let around = mounts.iter().filter(|mount| path.starts_with(&mount.mount_point));
    around.max_by_key(|mount| mount.mount_point.components().count())
}

/// The device number of a directory, and each other one below it with the directory where it begins.
fn devices_below(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let device = fs::metadata(directory)?.dev();
    let mut devices = vec![(device, directory.to_path_buf())];
    let mut waiting = vec![(device, directory.to_path_buf())];
    let mut seen = 0;
    while let Some((outer, directory)) = waiting.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            // Dropped meanwhile; or not the server's own, as the lost+found of a file system.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                continue;
            }
            seen += 1;
            if seen > MOST_DIRECTORIES {
                return Err(io::Error::other(format!("there are more than {MOST_DIRECTORIES}")));
            }
            let path = entry.path();
            // Of what is mounted there, unlike the entry's own.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            if metadata.dev() != outer {
                devices.push((metadata.dev(), path.clone()));
            }
            waiting.push((metadata.dev(), path));
        }
    }
    Ok(devices)
}

fn incomplete(cluster: &Cluster, missing: &BTreeMap<PathBuf, Place>) -> VssError {
    let what: Vec<String> =
        missing.iter().map(|(mount_point, place)| format!("{} on {}", place.role, mount_point.display())).collect();
    let add: Vec<String> = missing.keys().map(|mount_point| mount_point.display().to_string()).collect();
    VssError::new(
        VssCode::WriterErrorInconsistentSnapshot,
        format!("PostgreSQL cluster {} has its {}, which is not in the set", cluster.name, what.join(", and its ")),
    )
    .with_hint(format!("Add the volume of {}", add.join(" and of ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vss_model::{ShadowId, VolumeId};

    /// Device numbers of the two file systems of these tests, as mountinfo has them.
    fn mounts(text: &str) -> Vec<MountEntry> {
        vss_linux::mountinfo::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_last_mount_at_the_longest_mount_point_shows_a_path() {
        let mounts = mounts(
            "1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / /srv rw - ext4 /dev/b rw\n3 2 0:3 / /srv rw - xfs /dev/c rw\n",
        );
        assert_eq!(mount_of(Path::new("/srv/pg"), &mounts).unwrap().mount_id, 3);
        assert_eq!(mount_of(Path::new("/srv2"), &mounts).unwrap().mount_id, 1);
    }

    #[test]
    fn a_path_is_found_in_the_copy_of_a_volume_that_is_mounted_somewhere_else() {
        // The data lies on /data, a bind mount of a directory of the subvolume that is mounted at /pool.
        let mounts = mounts(
            "1 0 0:40 /@srv /pool rw - btrfs /dev/b rw,subvolid=256,subvol=/@srv\n\
             2 0 0:40 /@srv/pg /data rw - btrfs /dev/b rw,subvolid=256,subvol=/@srv\n",
        );
        let volume = Volume {
            mount_point: "/pool".into(),
            cut_group: 3,
            device: 77,
            super_block: mounts[0].device_number(),
            root: "/@srv".into(),
        };
        let (_, cut, path) = find(77, Path::new("/data/15"), &[volume], &mounts).ok().unwrap();
        assert_eq!((cut, path.as_path()), (Cut::Group(3), Path::new("/pool/pg/15")));
    }

    #[test]
    fn what_is_on_no_volume_of_the_set_is_named_by_its_mount_point() {
        let mounts = mounts("1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /wal rw - ext4 /dev/b rw\n");
        let missing = find(99, Path::new("/wal/15"), &[], &mounts).err();
        assert_eq!(missing.as_deref(), Some(Path::new("/wal")));
    }

    #[test]
    fn a_volume_that_is_not_seen_here_is_none() {
        let volume = EventVolume {
            volume: "/nowhere/at/all".into(),
            volume_id: VolumeId::file_system("ext4", "a"),
            shadow_id: ShadowId::random(),
            provider: "x".into(),
            cut_group: 0,
            directory: None,
        };
        let mounts = mounts("1 0 8:1 / /elsewhere rw - ext4 /dev/a rw\n");
        assert!(Volume::new(&volume, &mounts).is_none());
    }
}
