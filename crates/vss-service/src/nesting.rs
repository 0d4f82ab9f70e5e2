//! What lies on what: nesting levels of the members that are held, from the mount table and sysfs alone (design 3).
//!
//! A member on a loop device whose backing file lies on another member is nested in it: it is frozen first and thawed last.
//! Partitions and mapped devices are followed down to the loop devices below them. Nothing here opens or examines a file
//! system; a dead server elsewhere delays nobody.

use crate::volumes;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use vss_model::involvement::{MountTable, volume_of};
use vss_model::{Volume, VolumeId, VssCode, VssError};

/// Where sysfs names every block device, partitions too.
const BLOCK_DEVICES: &str = "/sys/class/block";
/// Where sysfs names the devices of each btrfs.
const BTRFS: &str = "/sys/fs/btrfs";
/// Deepest nesting that is followed; the kernel allows fewer stacked loop devices than this.
const DEEPEST: usize = 64;

/// The files that a volume's devices lie in, as sysfs names them; none for a volume on disks.
#[must_use]
pub fn backing_files(volume: &Volume) -> Vec<PathBuf> {
    let mut devices: Vec<String> = fs::read_dir(Path::new(BTRFS).join(&volume.uuid).join("devices"))
        .ok()
        .filter(|_| volume.fs_type == "btrfs")
        .map(names)
        .unwrap_or_default();
    // /dev/mapper/NAME is a link to the device. Only devtmpfs is asked: nothing in it waits.
    if volume.source.starts_with("/dev/")
        && let Ok(source) = fs::canonicalize(&volume.source)
        && let Some(name) = source.strip_prefix("/dev").ok().and_then(Path::to_str)
    {
        // sysfs writes the slash of a name like cciss/c0d0 so.
        devices.push(name.replace('/', "!"));
    }
    let mut files = Vec::new();
    let mut seen = BTreeSet::new();
    while let Some(device) = devices.pop() {
        if !seen.insert(device.clone()) {
            continue;
        }
        let Ok(directory) = fs::canonicalize(Path::new(BLOCK_DEVICES).join(&device)) else { continue };
        if let Ok(text) = fs::read_to_string(directory.join("loop/backing_file")) {
            files.push(PathBuf::from(text.trim_end_matches('\n')));
        }
        if let Ok(below) = fs::read_dir(directory.join("slaves")) {
            devices.extend(names(below));
        }
        if directory.join("partition").exists()
            && let Some(disk) = directory.parent().and_then(Path::file_name).and_then(|name| name.to_str())
        {
            devices.push(disk.to_owned());
        }
    }
    files
}

fn names(entries: fs::ReadDir) -> Vec<String> {
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The nesting level of each held member on this machine, now; see [`Stack::levels`].
///
/// # Errors
/// Those of [`Stack::levels`]; `VSS_E_UNEXPECTED` when the mount table cannot be read.
pub fn levels(held: &[Volume], others: &[Volume]) -> Result<Vec<u8>, VssError> {
    let table = volumes::mount_table()?;
    let mounts: Vec<_> = table.iter().map(|(path, volume)| (path.as_path(), volume)).collect();
    Stack { mounts: &mounts, volumes: &volumes::list()?, backing_files: &backing_files }.levels(held, others)
}

/// The volumes of this machine and what each lies in.
pub struct Stack<'a> {
    /// Mount points and the volumes that they show.
    pub mounts: MountTable<'a>,
    /// Every volume that can have a device.
    pub volumes: &'a [Volume],
    /// [`backing_files`], or what a test says.
    pub backing_files: &'a dyn Fn(&Volume) -> Vec<PathBuf>,
}

impl Stack<'_> {
    /// The volumes that `volume` lies on, by their names, down to the disks.
    fn below(&self, volume: &Volume) -> BTreeSet<VolumeId> {
        let mut below = BTreeSet::new();
        let mut above = vec![volume];
        while let Some(volume) = above.pop() {
            for file in (self.backing_files)(volume) {
                let Some(host) = volume_of(&file, self.mounts) else { continue };
                if below.insert(host.clone()) {
                    above.extend(self.volumes.iter().find(|volume| volume.id == *host));
                }
            }
        }
        below
    }

    /// The nesting level of each held member: 0 for the innermost, more for what others lie on.
    ///
    /// # Errors
    /// `VSS_E_NESTED_VOLUME_LIMIT` when a member that must not be held lies on one that is: its cut would write to a frozen
    /// file system and wait for ever.
    pub fn levels(&self, held: &[Volume], others: &[Volume]) -> Result<Vec<u8>, VssError> {
        for other in others {
            let below = self.below(other);
            if let Some(host) = held.iter().find(|member| below.contains(&member.id)) {
                return Err(VssError::new(
                    VssCode::NestedVolumeLimit,
                    format!(
                        "{} ({}) lies in a file on {}, which must be held while it is copied",
                        other.mount_point.display(),
                        other.fs_type,
                        host.mount_point.display()
                    ),
                )
                .with_hint("Make two sets, one for each of the two volumes"));
            }
        }
        let below: Vec<BTreeSet<VolumeId>> = held.iter().map(|member| self.below(member)).collect();
        let mut levels = vec![0u8; held.len()];
        // Each pass lifts a host above what lies on it; nesting is finite, so it settles.
        for _ in 0..DEEPEST {
            let mut changed = false;
            for (inner, below) in below.iter().enumerate() {
                for (host, member) in held.iter().enumerate() {
                    if host != inner && below.contains(&member.id) && levels[host] <= levels[inner] {
                        levels[host] = levels[inner].saturating_add(1);
                        changed = true;
                    }
                }
            }
            if !changed {
                break;
            }
        }
        Ok(levels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(name: &str, fs_type: &str) -> Volume {
        Volume {
            id: VolumeId::file_system(fs_type, name),
            mount_point: Path::new("/").join(name),
            fs_type: fs_type.to_owned(),
            source: String::new(),
            uuid: name.to_owned(),
            subvolume: None,
            root: "/".into(),
            device_number: 0,
            mount_id: 0,
        }
    }

    /// The levels on a machine where these volumes, mounted at their names, lie in these files.
    fn levels(files: &[(&str, &str)], held: &[Volume], others: &[Volume]) -> Result<Vec<u8>, VssError> {
        let volumes: Vec<Volume> =
            held.iter().chain(others).cloned().chain([volume("unlisted", "ext4"), volume("", "ext4")]).collect();
        let mounts: Vec<_> = volumes.iter().map(|volume| (volume.mount_point.as_path(), &volume.id)).collect();
        let files = |volume: &Volume| {
            let of_it = files.iter().filter(|(name, _)| volume.mount_point == Path::new("/").join(name));
            of_it.map(|(_, file)| PathBuf::from(file)).collect()
        };
        Stack { mounts: &mounts, volumes: &volumes, backing_files: &files }.levels(held, others)
    }

    #[test]
    fn volumes_on_disks_are_all_innermost() {
        assert_eq!(levels(&[], &[volume("a", "ext4"), volume("b", "xfs")], &[]).unwrap(), [0, 0]);
    }

    #[test]
    fn a_host_is_above_all_that_lies_on_it_whatever_their_order() {
        let files = [("inner", "/middle/image"), ("middle", "/outer/dir/image"), ("aside", "/outer/other")];
        let [inner, middle, outer, aside] = ["inner", "middle", "outer", "aside"].map(|name| volume(name, "ext4"));
        let held = [outer.clone(), aside.clone(), inner.clone(), middle.clone()];
        assert_eq!(levels(&files, &held, &[]).unwrap(), [2, 0, 0, 1]);
        assert_eq!(levels(&files, &[inner, middle, outer, aside], &[]).unwrap(), [0, 1, 2, 0]);
    }

    #[test]
    fn a_volume_between_two_members_counts_though_it_is_none() {
        let files = [("inner", "/unlisted/image"), ("unlisted", "/outer/image")];
        assert_eq!(levels(&files, &[volume("inner", "ext4"), volume("outer", "ext4")], &[]).unwrap(), [0, 1]);
    }

    #[test]
    fn a_volume_of_several_devices_lies_on_all_of_them() {
        let files = [("inner", "/image"), ("inner", "/outer/image")];
        assert_eq!(levels(&files, &[volume("outer", "ext4"), volume("inner", "ext4")], &[]).unwrap(), [1, 0]);
    }

    #[test]
    fn what_must_not_be_held_may_not_lie_on_what_is() {
        let files = [("inner", "/unlisted/image"), ("unlisted", "/outer/image")];
        let error = levels(&files, &[volume("outer", "ext4")], &[volume("inner", "btrfs")]).unwrap_err();
        assert_eq!(error.code, VssCode::NestedVolumeLimit);
        assert!(error.message.contains("/inner (btrfs)") && error.message.contains("/outer"), "{error}");
        // The other way round nothing waits: the held one is the inner one.
        assert_eq!(levels(&files, &[volume("inner", "ext4")], &[volume("outer", "btrfs")]).unwrap(), [0]);
    }

    #[test]
    fn a_ring_ends() {
        let files = [("a", "/b/image"), ("b", "/a/image")];
        assert_eq!(levels(&files, &[volume("a", "ext4"), volume("b", "ext4")], &[]).unwrap().len(), 2);
    }

    #[test]
    fn a_volume_without_a_device_lies_in_no_file() {
        assert!(backing_files(&volume("a", "ext4")).is_empty());
        assert!(backing_files(&Volume { source: "/dev/null".to_owned(), ..volume("a", "btrfs") }).is_empty());
    }
}
