//! Which mount shows a path: the kernel's own walk, done by words on the mount table, so that nothing is opened.
//!
//! Symbolic links are not followed, because that would mean looking: give it paths that have none. A path that another mount
//! namespace wrote down (the image of a container's loop device) is taken as one of ours; the words are all that the kernel
//! tells of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use vss_linux::mountinfo::MountEntry;

/// The mount table of this process, with an index by which a path is walked in as many steps as it has components.
#[derive(Debug, Clone, Default)]
pub struct Mounts {
    entries: Vec<MountEntry>,
    /// What is mounted on a mount at a place; a mount whose parent is not in the table (the root) has no parent here.
    upon: BTreeMap<(Option<u64>, PathBuf), usize>,
    by_id: BTreeMap<u64, usize>,
}

impl Mounts {
    /// These mounts, in the order of the kernel's table.
    #[must_use]
    pub fn new(entries: Vec<MountEntry>) -> Self {
        let by_id: BTreeMap<u64, usize> =
            entries.iter().enumerate().map(|(index, entry)| (entry.mount_id, index)).collect();
        let parent = |entry: &MountEntry| {
            Some(entry.parent_id).filter(|parent| *parent != entry.mount_id && by_id.contains_key(parent))
        };
        let upon = entries
            .iter()
            .enumerate()
            .map(|(index, entry)| ((parent(entry), entry.mount_point.clone()), index))
            .collect();
        Self { entries, upon, by_id }
    }

    /// All of them.
    #[must_use]
    pub fn entries(&self) -> &[MountEntry] {
        &self.entries
    }

    /// The mount with this id.
    #[must_use]
    pub fn by_id(&self, mount_id: u64) -> Option<&MountEntry> {
        self.by_id.get(&mount_id).and_then(|index| self.entries.get(*index))
    }

    /// Every mount that a walk to `path` enters, the one that shows it last. Empty for a path that is not absolute, and
    /// where the table has no root (a chroot into a plain directory) as long as no mount is met.
    #[must_use]
    pub fn walk(&self, path: &Path) -> Vec<&MountEntry> {
        let mut entered: Vec<&MountEntry> = Vec::new();
        let mut place = PathBuf::new();
        for component in path.components() {
            place.push(component);
            // Several may lie on one another at one place. None is its own child, but a table read while it changes may
            // say anything: never more steps than there are mounts.
            while let Some(next) = self.upon.get(&(entered.last().map(|entry| entry.mount_id), place.clone()))
                && entered.len() <= self.entries.len()
            {
                entered.extend(self.entries.get(*next));
            }
        }
        entered
    }

    /// The mount that shows `path`.
    #[must_use]
    pub fn holder(&self, path: &Path) -> Option<&MountEntry> {
        self.walk(path).pop()
    }

    /// True when a walk to the mount point of `entry` ends at it, and asks no server and no program on the way.
    #[must_use]
    pub fn is_reachable(&self, entry: &MountEntry) -> bool {
        let walk = self.walk(&entry.mount_point);
        // Only a mount in which a name has to be looked up is asked: not one that is covered at its own mount point.
        let asks = |pair: &[&MountEntry]| pair[0].mount_point != pair[1].mount_point && may_wait(&pair[0].fs_type);
        walk.last().is_some_and(|last| last.mount_id == entry.mount_id) && !walk.windows(2).any(asks)
    }
}

/// Types of file systems whose data are on another machine. `9p` and `virtiofs` are those of a virtual machine's host.
pub const REMOTE_TYPES: [&str; 12] =
    ["9p", "afs", "ceph", "cifs", "coda", "gfs2", "lustre", "nfs", "nfs4", "ocfs2", "smb3", "virtiofs"];

/// True for a file system that answers only when a server or a program does.
#[must_use]
pub(super) fn may_wait(fs_type: &str) -> bool {
    fs_type.starts_with("fuse") || REMOTE_TYPES.contains(&fs_type)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vss_linux::mountinfo;

    fn mounts(text: &str) -> Mounts {
        Mounts::new(mountinfo::parse(text.as_bytes()).unwrap())
    }

    fn walked(mounts: &Mounts, path: &str) -> Vec<u64> {
        mounts.walk(Path::new(path)).iter().map(|entry| entry.mount_id).collect()
    }

    #[test]
    fn a_path_is_shown_by_the_deepest_mount_and_the_last_of_several_at_one_place() {
        let mounts = mounts(
            "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
             2 1 8:2 / /srv rw - ext4 /dev/sda2 rw\n\
             3 2 8:3 / /srv rw - xfs /dev/sda3 rw\n\
             4 3 8:4 / /srv/a/b rw - ext4 /dev/sda4 rw\n",
        );
        assert_eq!(walked(&mounts, "/srv2/x"), [1]);
        assert_eq!(walked(&mounts, "/srv/x"), [1, 2, 3]);
        assert_eq!(walked(&mounts, "/srv/a/b/c"), [1, 2, 3, 4]);
        assert_eq!(walked(&mounts, "/srv/a/bc"), [1, 2, 3]);
        assert_eq!(walked(&mounts, "relative"), [0; 0]);
    }

    /// Longest prefix would say 2: the mount that is hidden.
    #[test]
    fn what_was_mounted_below_a_directory_that_is_covered_now_is_not_seen() {
        let mounts = mounts(
            "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
             2 1 8:2 / /srv/data rw - ext4 /dev/sda2 rw\n\
             3 1 8:3 / /srv rw - xfs /dev/sda3 rw\n",
        );
        assert_eq!(walked(&mounts, "/srv/data/x"), [1, 3]);
        let hidden = mounts.by_id(2).unwrap();
        assert!(!mounts.is_reachable(hidden) && mounts.is_reachable(mounts.by_id(3).unwrap()));
    }

    #[test]
    fn a_table_without_a_root_begins_at_its_first_mount() {
        let mounts = mounts("7 3 8:2 / /srv rw - ext4 /dev/sda2 rw\n");
        assert_eq!(walked(&mounts, "/srv/x"), [7]);
        assert_eq!(walked(&mounts, "/etc"), [0; 0]);
    }

    #[test]
    fn a_root_that_is_its_own_parent_and_a_ring_end() {
        let own = mounts("1 1 0:1 / / rw - rootfs rootfs rw\n2 1 8:1 / / rw - ext4 /dev/sda1 rw\n");
        assert_eq!(walked(&own, "/x"), [1, 2]);
        let ring = mounts("1 2 8:1 / /a rw - ext4 /dev/sda1 rw\n2 1 8:2 / /a rw - ext4 /dev/sda2 rw\n");
        assert!(walked(&ring, "/a/b").len() <= 3);
    }

    #[test]
    fn a_disk_below_a_server_is_not_reachable_and_one_over_an_automount_point_is() {
        let mounts = mounts(
            "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
             2 1 0:40 / /mnt/nfs rw - nfs4 server:/export rw\n\
             3 2 8:2 / /mnt/nfs/disk rw - ext4 /dev/sdb rw\n\
             4 3 8:3 / /mnt/nfs/disk/more rw - ext4 /dev/sdc rw\n\
             5 1 0:41 / /data rw - autofs systemd-1 rw,direct\n\
             6 5 8:4 / /data rw - ext4 /dev/sdd rw\n\
             7 1 0:42 / /covered rw - fuse.stuck stuck rw\n\
             8 7 8:5 / /covered rw - ext4 /dev/sde rw\n\
             9 1 8:6 / /net/disk rw - ext4 /dev/sdf rw\n\
             10 1 0:43 / /net rw - nfs server:/all rw\n",
        );
        let reachable: Vec<u64> =
            mounts.entries().iter().filter(|entry| mounts.is_reachable(entry)).map(|entry| entry.mount_id).collect();
        // 9 would be looked for in 10, which covers it.
        assert_eq!(reachable, [1, 2, 6, 8, 10]);
    }

    #[test]
    fn this_machine_is_walked_as_the_kernel_walks_it() {
        let mounts = Mounts::new(mountinfo::mounts().unwrap());
        assert_eq!(mounts.holder(Path::new("/proc/self/status")).map(|entry| entry.fs_type.as_str()), Some("proc"));
    }
}
