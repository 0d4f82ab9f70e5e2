//! Records of finished work: shadow copies and sets, as the catalogue keeps them and as JSON shows them (design 8).

use crate::{
    Attributes, BackupState, ComponentName, Consistency, Context, HoldProof, Instant, ProviderId, SetId, ShadowId,
    VolumeId, VssError, WriterClassId, WriterInstanceId, WriterState,
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A nested btrfs subvolume that was copied with its parent (design 5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NestedCopy {
    /// Its place, relative to the root of the copy.
    #[serde(with = "crate::path_text")]
    pub path: PathBuf,
    /// When it was cut.
    pub cut_at: Instant,
}

/// One shadow copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowCopy {
    /// Its id.
    pub id: ShadowId,
    /// The set that it belongs to.
    pub set_id: SetId,
    /// Mount point of the volume when the copy was made.
    #[serde(with = "crate::path_text")]
    pub volume: PathBuf,
    /// The lasting name of the volume.
    pub volume_id: VolumeId,
    /// The provider that made it, by name.
    pub provider: String,
    /// The provider that made it, by id.
    pub provider_id: ProviderId,
    /// Its block device; none where there is none.
    pub device: Option<String>,
    /// Where it is exposed; none while it is not.
    #[serde(default, with = "crate::path_text::optional")]
    pub path: Option<PathBuf>,
    /// How good it is.
    pub consistency: Consistency,
    /// When it was cut.
    pub cut_at: Instant,
    /// The nested subvolumes copied with it.
    #[serde(default)]
    pub nested: Vec<NestedCopy>,
    /// When its set was finished.
    pub created_at: Instant,
    /// `VSS_VOLSNAP_ATTR_*` bits.
    pub attributes: Attributes,
    /// The uid that owns it.
    pub owner: u32,
    /// The machine of the original volume; empty for a copy of an earlier release.
    #[serde(default)]
    pub originating_machine: String,
    /// The machine whose service made it, or what SetSnapshotProperty said; empty for a copy of an earlier release.
    #[serde(default)]
    pub service_machine: String,
}

/// What became of one component of an involved writer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentRecord {
    /// Logical path and name.
    #[serde(flatten)]
    pub name: ComponentName,
    /// How good its data in the set is.
    pub consistency: Consistency,
    /// Why its writer gave it up; none while it did not.
    pub failure: Option<VssError>,
}

/// What became of one involved writer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterRecord {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub class_id: WriterClassId,
    /// The running writer.
    pub instance_id: WriterInstanceId,
    /// Its state when the set was finished.
    pub state: WriterState,
    /// Why it failed; none while it has not.
    pub failure: Option<VssError>,
    /// Milliseconds from its Freeze to its Thaw; 0 when it was not frozen.
    pub frozen_ms: u64,
    /// Its components in the set.
    pub components: Vec<ComponentRecord>,
}

/// One finished shadow copy set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowCopySet {
    /// Its id.
    pub set_id: SetId,
    /// How good the worst part of it is.
    pub consistency: Consistency,
    /// True when all members were cut inside one whole hold, or the set is one btrfs subvolume.
    pub atomic: bool,
    /// Milliseconds from the first FIFREEZE to the release; 0 without a hold.
    pub hold_ms: u64,
    /// Milliseconds from the first writer's Freeze to the last one's Thaw.
    pub freeze_ms: u64,
    /// Its shadow copies that are left, in the order in which the volumes were added.
    pub shadows: Vec<ShadowCopy>,
    /// Shadow copies that it had when it was made (spec P 4.2); 0 for a set of an earlier release.
    #[serde(default)]
    pub snapshots_count: u32,
    /// The involved writers.
    pub writers: Vec<WriterRecord>,
    /// What it was made for.
    pub context: Context,
    /// What the requester said of its backup.
    pub backup_state: BackupState,
    /// The uid that owns it.
    pub owner: u32,
    /// Who asked for it, for example `vss run: restic`.
    pub requester: String,
    /// When it was finished.
    pub created_at: Instant,
    /// What was done to its members in the freeze window; none for a set of an earlier release, and for one without volumes.
    #[serde(default)]
    pub proof: Option<HoldProof>,
}
