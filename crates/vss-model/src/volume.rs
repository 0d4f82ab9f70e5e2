//! Volumes: what can be a member of a set (design 5).

use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf};

/// The lasting name of a volume: file system type, file system uuid and, for btrfs, the subvolume id.
///
/// Text form `TYPE:UUID` or `btrfs:UUID:SUBVOLID`. Stays the same over reboots and at every mount point.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VolumeId(String);

impl VolumeId {
    /// The id of a file system that is one volume.
    #[must_use]
    pub fn file_system(kind: &str, uuid: &str) -> Self {
        Self(format!("{kind}:{uuid}"))
    }

    /// The id of one btrfs subvolume.
    #[must_use]
    pub fn subvolume(uuid: &str, subvolume: u64) -> Self {
        Self(format!("btrfs:{uuid}:{subvolume}"))
    }

    /// The text form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One volume as it is mounted now: what one mount shows (a superblock, or one btrfs subvolume).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The lasting name.
    pub id: VolumeId,
    /// Where it is mounted.
    #[serde(with = "crate::path_text")]
    pub mount_point: PathBuf,
    /// The file system type as the kernel names it in mountinfo: `btrfs`, `ext4`, `xfs`, `tmpfs`...
    pub fs_type: String,
    /// The block device, as mountinfo names it; empty where there is none.
    pub source: String,
    /// The file system's uuid in text form; empty where it has none.
    pub uuid: String,
    /// The subvolume id on btrfs, else none.
    pub subvolume: Option<u64>,
    /// Path of the mount's root inside the volume: `/` unless a directory was bind-mounted.
    #[serde(with = "crate::path_text")]
    pub root: PathBuf,
    /// The device number of the mount (`st_dev`), as the kernel encodes it in 64 bits.
    pub device_number: u64,
    /// The mount id of mountinfo.
    pub mount_id: u64,
}

/// What a provider needs of the file system when it commits (design 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FreezePolicy {
    /// Writes must be held (FIFREEZE) while the copy is cut: block-level engines, LVM, device-mapper.
    NeedsHold,
    /// The file system must not be frozen: its own snapshot would block for ever (btrfs).
    MustNotHold,
}
