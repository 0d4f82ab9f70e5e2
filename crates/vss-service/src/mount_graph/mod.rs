//! What lies on what: mounts, superblocks, block devices, the files behind loop devices, swap space, and our own places
//! (design 3). From it follow the nesting levels of a hold, and what must not be held at all.
//!
//! ```text
//!  path --(walk.rs)--> mount -> superblock -> its devices -> slaves, disk of a partition -> loop device
//!                        ^                                                                      |
//!                        +------------------- the path of its backing file ---------------------+
//! ```
//!
//! A superblock is one thing whatever shows it: several mounts of it, bind mounts of its directories, subvolumes. An overlay
//! lies on its upper layer, since that is what a write to it writes to; its lower layers are only read, which no hold stops.
//!
//! - `facts.rs` reads what the kernel says, once.
//! - `walk.rs` finds the mount that shows a path.
//! - `judgement.rs` says what may be held, and in which order. Pure, like all of this module but `Facts::read`.
//!
//! Not to be seen from here: what a program stands for (FUSE, nbd, ublk, an iSCSI target of this machine). A hold that such a
//! program cannot do without ends by its limit.

mod facts;
mod judgement;
mod walk;

#[cfg(test)]
mod tests;

pub use facts::{Device, DeviceNumber, Facts, Swap};
pub use judgement::Place;
pub use walk::{Mounts, REMOTE_TYPES};

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use vss_linux::mountinfo::MountEntry;
use vss_model::{Volume, VssError};

/// What lies on what on this machine, at one moment.
#[derive(Debug, Clone, Default)]
pub struct MountGraph(Facts);

/// The superblocks that something lies on, down to the disks, each with the file by which it does; of its own it has none.
type Below = BTreeMap<DeviceNumber, Option<PathBuf>>;

impl MountGraph {
    /// The graph of these facts.
    #[must_use]
    pub fn of(facts: Facts) -> Self {
        Self(facts)
    }

    /// The graph of this machine now.
    ///
    /// # Errors
    /// Those of [`Facts::read`].
    pub fn read() -> Result<Self, VssError> {
        Facts::read().map(Self)
    }

    /// The superblock of a volume.
    fn superblock(&self, volume: &Volume) -> DeviceNumber {
        let own = (rustix::fs::major(volume.device_number), rustix::fs::minor(volume.device_number));
        // st_dev of a btrfs subvolume is none of the mount table's numbers.
        self.0.mounts.by_id(volume.mount_id).map_or(own, superblock_of)
    }

    /// What a file or directory lies on, its own superblock too.
    fn below_path(&self, path: &Path) -> Below {
        let Some(entry) = self.0.mounts.holder(path) else { return Below::new() };
        let superblock = superblock_of(entry);
        let mut below = self.below(superblock);
        below.insert(superblock, None);
        below
    }

    /// What a superblock lies on, itself not counted, unless there is a ring.
    fn below(&self, superblock: DeviceNumber) -> Below {
        let mut below = Below::new();
        let mut to_look_at = vec![superblock];
        let mut seen = BTreeSet::new();
        while let Some(superblock) = to_look_at.pop() {
            if !seen.insert(superblock) {
                continue;
            }
            let mut devices: Vec<DeviceNumber> = vec![superblock];
            devices.extend(self.0.devices_of.get(&superblock).into_iter().flatten());
            let files = self.backing_files(devices).into_iter().chain(self.written_directories(superblock));
            for file in files {
                let Some(host) = self.0.mounts.holder(&file).map(superblock_of) else { continue };
                below.entry(host).or_insert(Some(file));
                to_look_at.push(host);
            }
        }
        below
    }

    /// The files that these devices lie in.
    fn backing_files(&self, mut devices: Vec<DeviceNumber>) -> Vec<PathBuf> {
        let (mut files, mut seen) = (Vec::new(), BTreeSet::new());
        while let Some(number) = devices.pop() {
            if seen.insert(number)
                && let Some(device) = self.0.devices.get(&number)
            {
                files.extend(device.backing_file.clone());
                devices.extend(&device.below);
            }
        }
        files
    }

    /// The directories that a file system without a device of its own writes to.
    fn written_directories(&self, superblock: DeviceNumber) -> Vec<PathBuf> {
        let of_it = self.0.mounts.entries().iter().find(|entry| superblock_of(entry) == superblock);
        let directory = of_it.and_then(|entry| match entry.fs_type.as_str() {
            "overlay" => entry.super_option("upperdir"),
            "ecryptfs" => Some(entry.source.as_str()),
            _ => None,
        });
        directory.map(PathBuf::from).into_iter().collect()
    }
}

fn superblock_of(entry: &MountEntry) -> DeviceNumber {
    (entry.major, entry.minor)
}
