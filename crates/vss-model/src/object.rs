//! Finished shadow copies as objects: their types, properties and states (spec P 4.1 to 4.4).

use crate::{Attributes, Instant, ProviderId, SetId, ShadowCopy, ShadowCopySet, ShadowId};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What an object is, `VSS_OBJECT_TYPE` (spec P 4.1). Serialised by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectType {
    /// Not known.
    Unknown = 0,
    /// No object: a query without a filter.
    #[default]
    None = 1,
    /// A shadow copy set.
    SnapshotSet = 2,
    /// A shadow copy.
    Snapshot = 3,
    /// A provider.
    Provider = 4,
}

/// A property of a shadow copy, `VSS_SNAPSHOT_PROPERTY_ID` (spec P 4.3). Serialised by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotProperty {
    /// 1.
    SnapshotId = 1,
    /// 2.
    SnapshotSetId = 2,
    /// 3.
    SnapshotsCount = 3,
    /// 4.
    SnapshotDevice = 4,
    /// 5.
    OriginalVolume = 5,
    /// 6.
    OriginatingMachine = 6,
    /// 7: the only one that a requester sets.
    ServiceMachine = 7,
    /// 8: set by ExposeSnapshot.
    ExposedName = 8,
    /// 9: set by ExposeSnapshot.
    ExposedPath = 9,
    /// 10.
    ProviderId = 10,
    /// 11: set by ExposeSnapshot.
    SnapshotAttributes = 11,
    /// 12.
    CreationTimestamp = 12,
    /// 13.
    Status = 13,
}

/// The state of a shadow copy, `VSS_SNAPSHOT_STATE` (spec P 4.4). A requester only ever sees CREATED. Serialised by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SnapshotState {
    /// Finished.
    Created = 12,
}

/// Everything that `GetSnapshotProperties` says of one shadow copy (spec P 4.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotProperties {
    /// Its id.
    pub snapshot_id: ShadowId,
    /// The set that it belongs to.
    pub snapshot_set_id: SetId,
    /// Copies in the set when it was made; later deletions do not change it.
    pub snapshots_count: u32,
    /// Its block device; none where there is none.
    pub snapshot_device_object: Option<String>,
    /// The lasting name of the original volume.
    pub original_volume_name: String,
    /// The machine of the original volume.
    pub originating_machine: String,
    /// The machine whose service made it.
    pub service_machine: String,
    /// The directory where it is exposed; none while it is not.
    #[serde(with = "crate::path_text::optional")]
    pub exposed_name: Option<PathBuf>,
    /// The part of a share that is exposed; none for a directory.
    #[serde(with = "crate::path_text::optional")]
    pub exposed_path: Option<PathBuf>,
    /// The provider that made it.
    pub provider_id: ProviderId,
    /// `VSS_VOLSNAP_ATTR_*` bits.
    pub snapshot_attributes: Attributes,
    /// When it was cut.
    pub creation_timestamp: Instant,
    /// Its state.
    pub status: SnapshotState,
    /// The state's number.
    pub status_number: u8,
}

impl SnapshotProperties {
    /// Those of a copy of this set.
    #[must_use]
    pub fn of(set: &ShadowCopySet, shadow: &ShadowCopy) -> Self {
        let left = u32::try_from(set.shadows.len()).unwrap_or(u32::MAX);
        Self {
            snapshot_id: shadow.id,
            snapshot_set_id: set.set_id,
            // A set of an earlier release did not keep the number.
            snapshots_count: set.snapshots_count.max(left),
            snapshot_device_object: shadow.device.clone(),
            original_volume_name: shadow.volume_id.to_string(),
            originating_machine: shadow.originating_machine.clone(),
            service_machine: shadow.service_machine.clone(),
            exposed_name: shadow.path.clone(),
            exposed_path: None,
            provider_id: shadow.provider_id,
            snapshot_attributes: shadow.attributes,
            creation_timestamp: shadow.cut_at,
            status: SnapshotState::Created,
            status_number: SnapshotState::Created as u8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_specification() {
        assert_eq!((ObjectType::SnapshotSet as u8, ObjectType::Provider as u8), (2, 4));
        assert_eq!((SnapshotProperty::ServiceMachine as u8, SnapshotProperty::Status as u8), (7, 13));
        assert_eq!(SnapshotState::Created as u8, 12);
    }
}
