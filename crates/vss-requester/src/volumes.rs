//! Which mount and which volume hold a path, told from the mount table alone: no file system is touched, so a dead server
//! among the mounts delays nobody.
//!
//! A backup tool thinks in paths, a shadow copy set in volumes. [`select`] leads from the one to the other and [`one_each`]
//! names each volume once, as [`crate::BackupRequest`] wants them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use vss_linux::mountinfo::{self, MountEntry};
use vss_model::{VssCode, VssError};

/// A volume of this machine, as long as it is mounted: the superblock's device number and, on btrfs, the subvolume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct VolumeKey {
    /// The superblock's device number.
    pub device: u64,
    /// The subvolume's id; 0 where there are none.
    pub subvolume: u64,
}

/// One mount that can be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is.
    pub mount_point: PathBuf,
    /// What it shows.
    pub volume: VolumeKey,
    /// The directory of the volume that it shows as its root; empty for the volume's own root.
    pub root: PathBuf,
    /// True for an interface of the kernel, such as proc: nobody's files are in it.
    pub is_interface: bool,
}

/// File systems of the kernel that show its own state.
const INTERFACES: [&str; 20] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tracefs",
];

impl From<&MountEntry> for Mount {
    fn from(entry: &MountEntry) -> Self {
        // On btrfs mountinfo counts the root from subvolume 5 and names the subvolume among the options.
        let subvolume = entry.super_option("subvolid").and_then(|id| id.parse().ok()).unwrap_or(0);
        let top = Path::new(entry.super_option("subvol").unwrap_or("/"));
        let root = entry.root.strip_prefix(top).unwrap_or(&entry.root);
        Self {
            mount_point: entry.mount_point.clone(),
            volume: VolumeKey { device: entry.device_number(), subvolume },
            root: root.strip_prefix("/").unwrap_or(root).to_owned(),
            is_interface: INTERFACES.contains(&entry.fs_type.as_str()),
        }
    }
}

/// A path that the user chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// Absolute, without symbolic links.
    pub path: PathBuf,
    /// The volume that holds it.
    pub volume: VolumeKey,
    /// Its place in the volume; empty for the volume's root.
    pub inner: PathBuf,
}

/// The mounts that can be seen from here, in the order of their places.
///
/// # Errors
/// `VSS_E_UNEXPECTED` when they cannot be read.
pub fn mounts() -> Result<Vec<Mount>, VssError> {
    let entries = mountinfo::mounts().map_err(|error| {
        VssError::new(VssCode::Unexpected, format!("Cannot read the mounts: {error}")).with_hint("Is /proc mounted?")
    })?;
    Ok(visible(&entries).into_iter().map(Into::into).collect())
}

/// Leaves out what a later mount covers: a mount is seen when its parent is, nothing is mounted on its root, and no other
/// mount on its parent lies above it.
fn visible(entries: &[MountEntry]) -> Vec<&MountEntry> {
    let mut children: BTreeMap<u64, Vec<&MountEntry>> = BTreeMap::new();
    let ids: BTreeSet<u64> = entries.iter().map(|entry| entry.mount_id).collect();
    let mut stack = Vec::new();
    for entry in entries {
        if entry.parent_id == entry.mount_id || !ids.contains(&entry.parent_id) {
            stack.push(entry);
        } else {
            children.entry(entry.parent_id).or_default().push(entry);
        }
    }
    let mut seen = Vec::new();
    while let Some(entry) = stack.pop() {
        let below = children.remove(&entry.mount_id).unwrap_or_default();
        let covered = below.iter().any(|child| child.mount_point == entry.mount_point);
        if !covered {
            seen.push(entry);
        }
        for child in &below {
            let hidden = below.iter().any(|other| {
                other.mount_point != child.mount_point && child.mount_point.starts_with(&other.mount_point)
            });
            // The kernel marks the place of a mount whose directory was removed.
            let removed = child.mount_point.as_os_str().as_encoded_bytes().ends_with(b"//deleted");
            if !hidden && !removed && (!covered || child.mount_point == entry.mount_point) {
                stack.push(child);
            }
        }
    }
    seen.sort_by(|one, other| one.mount_point.cmp(&other.mount_point));
    seen
}

/// Finds each path and what holds it.
///
/// # Errors
/// `VSS_E_OBJECT_NOT_FOUND` for a path that does not exist.
pub fn select(paths: &[PathBuf], mounts: &[Mount]) -> Result<Vec<Selected>, VssError> {
    paths
        .iter()
        .map(|path| {
            let path = resolve(path)?;
            Selected::among(mounts, path.clone()).ok_or_else(|| {
                VssError::new(VssCode::ObjectNotFound, format!("No mount holds {}", path.display()))
                    .with_hint("Is it unmounted, or hidden from this program? `findmnt` shows what is mounted here")
            })
        })
        .collect()
}

/// The absolute path without symbolic links.
///
/// # Errors
/// `VSS_E_OBJECT_NOT_FOUND` when it does not exist.
pub fn resolve(path: &Path) -> Result<PathBuf, VssError> {
    path.canonicalize().map_err(|error| {
        let named = |code| VssError::new(code, format!("{}: {error}", path.display()));
        match error.kind() {
            io::ErrorKind::NotFound => named(VssCode::ObjectNotFound).with_hint("Check the path"),
            io::ErrorKind::PermissionDenied => named(VssCode::AccessDenied).with_hint("Use sudo"),
            _ => named(VssCode::Unexpected).with_hint("Look at this path, and into dmesg for errors of its disk"),
        }
    })
}

impl Selected {
    /// What holds `path`, which is absolute and without symbolic links and needs not exist any more; none when no mount does.
    #[must_use]
    pub fn among(mounts: &[Mount], path: PathBuf) -> Option<Self> {
        let holder = mounts.iter().filter(|mount| path.starts_with(&mount.mount_point));
        let mount = holder.max_by_key(|mount| mount.mount_point.components().count())?;
        // Joining with an empty path would leave a slash at the end.
        let inner = match path.strip_prefix(&mount.mount_point).ok()? {
            below if below.as_os_str().is_empty() => mount.root.clone(),
            below => mount.root.join(below),
        };
        Some(Self { volume: mount.volume, inner, path })
    }
}

/// One path of each volume, in the order in which the volumes were chosen.
#[must_use]
pub fn one_each(selected: &[Selected]) -> Vec<&Selected> {
    let mut seen = BTreeSet::new();
    selected.iter().filter(|selected| seen.insert(selected.volume)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Vec<Mount> {
        let entries = mountinfo::parse(text.as_bytes()).unwrap();
        visible(&entries).into_iter().map(Into::into).collect()
    }

    const TABLE: &str = "\
1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 0:30 /@home /home rw - btrfs /dev/sdb rw,subvolid=257,subvol=/@home
3 1 0:30 /@home/me/data /srv rw - btrfs /dev/sdb rw,subvolid=257,subvol=/@home
4 2 8:2 / /home/disk rw - ext4 /dev/sdc rw
";

    fn points(mounts: &[Mount]) -> Vec<&str> {
        mounts.iter().map(|mount| mount.mount_point.to_str().unwrap()).collect()
    }

    fn pick(path: &str, mounts: &[Mount]) -> Selected {
        Selected::among(mounts, path.into()).unwrap()
    }

    #[test]
    fn the_deepest_mount_holds_a_path() {
        let mounts = table(TABLE);
        assert_eq!(points(&mounts), ["/", "/home", "/home/disk", "/srv"]);
        assert_eq!(pick("/etc/fstab", &mounts).inner, Path::new("etc/fstab"));
        assert_eq!(pick("/home", &mounts).inner, Path::new(""));
        assert_eq!(pick("/homework", &mounts).inner, Path::new("homework"));
        assert_eq!(pick("/home/disk/x", &mounts).volume, mounts[2].volume);
    }

    #[test]
    fn a_directory_mounted_elsewhere_is_the_same_volume() {
        let mounts = table(TABLE);
        let (home, srv) = (pick("/home/me", &mounts), pick("/srv/file", &mounts));
        assert_eq!(home.volume, srv.volume);
        assert_eq!(srv.inner, Path::new("me/data/file"));
        assert_eq!(one_each(&[home.clone(), srv]), [&home]);
    }

    #[test]
    fn nobody_keeps_files_in_an_interface_of_the_kernel() {
        let mounts = table(
            "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:4 / /proc rw - proc proc rw\n3 1 0:30 / /run rw - tmpfs tmpfs rw\n",
        );
        assert_eq!(mounts.iter().map(|mount| mount.is_interface).collect::<Vec<_>>(), [false, true, false]);
    }

    #[test]
    fn what_a_later_mount_covers_is_not_seen() {
        let over_home = format!("{TABLE}5 2 8:3 / /home rw - ext4 /dev/sdd rw\n");
        let mounts = table(&over_home);
        assert_eq!(points(&mounts), ["/", "/home", "/srv"]);
        assert_eq!(pick("/home/x", &mounts).inner, Path::new("x"));
        let over_parent = format!(
            "{TABLE}5 1 8:3 / /sr rw - ext4 /dev/sdd rw\n6 1 8:4 / /h rw - ext4 /dev/sde rw\n7 1 8:5 / /h/a rw - ext4 /dev/sdf rw\n"
        );
        assert_eq!(points(&table(&over_parent)), ["/", "/h", "/home", "/home/disk", "/sr", "/srv"]);
        let removed = format!("{TABLE}5 1 8:3 / /gone//deleted rw - ext4 /dev/sdd rw\n");
        assert_eq!(points(&table(&removed)), ["/", "/home", "/home/disk", "/srv"]);
    }

    #[test]
    fn a_path_that_does_not_exist_is_named() {
        let error = resolve(Path::new("/no/such/path")).unwrap_err();
        assert_eq!(error.code, VssCode::ObjectNotFound);
        assert!(error.message.contains("/no/such/path"));
    }
}
