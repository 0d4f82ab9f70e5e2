//! Messages of `org.linuxvss.Requester` about finished shadow copies (spec P 4.1 to 4.8).

use crate::management::ProviderEntry;
use serde::{Deserialize, Serialize};
use vss_model::{ObjectType, SetId, ShadowId, SnapshotProperties, SnapshotProperty, VssError};

/// Parameters of `Query`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// The object that is the filter: none, and nothing else.
    #[serde(default)]
    pub queried_type: ObjectType,
    /// What is wanted: shadow copies or providers.
    pub returned_type: ObjectType,
}

/// Reply to `Query`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queried {
    /// `S_OK`, or `S_FALSE` when there is none.
    pub result: u32,
    /// The shadow copies of the session's context, newest set first.
    pub snapshots: Vec<SnapshotProperties>,
    /// The providers.
    pub providers: Vec<ProviderEntry>,
}

/// Parameters of `GetSnapshotProperties`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// The shadow copy.
    pub snapshot_id: ShadowId,
}

/// Reply to `GetSnapshotProperties`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Properties {
    /// What there is to be said of it.
    pub properties: SnapshotProperties,
}

/// Parameters of `SetSnapshotProperty`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetSnapshotProperty {
    /// The shadow copy.
    pub snapshot_id: ShadowId,
    /// The property.
    pub property: SnapshotProperty,
    /// Its new value.
    pub value: String,
}

/// Parameters of `DeleteSnapshots`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteSnapshots {
    /// The id of the shadow copy, or of the set.
    pub object_id: String,
    /// Which of the two it is.
    pub object_type: ObjectType,
    /// True: the provider tries everything it can. Providers always do.
    #[serde(default)]
    pub force: bool,
}

/// Reply to `DeleteSnapshots`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotsDeleted {
    /// How many were deleted.
    pub deleted: u32,
    /// The first that could not be; none when all were.
    pub first_not_deleted: Option<ShadowId>,
    /// Why not; none when all were.
    pub failure: Option<VssError>,
}

/// Parameters of `BreakSnapshotSet`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakSnapshotSet {
    /// The set.
    pub set_id: SetId,
    /// `VSS_BREAKEX_FLAG_*` bits.
    #[serde(default)]
    pub flags: u32,
}
