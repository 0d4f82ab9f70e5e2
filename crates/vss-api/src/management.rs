//! Messages of `org.linuxvss.Management`: what the service is doing, what it keeps, and its limits.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use vss_model::{
    AppLevel, Instant, ProviderId, SessionId, SetId, ShadowCopy, ShadowCopySet, ShadowId, VolumeId, WriterClassId,
    WriterInstanceId,
};

/// The name of the interface.
pub const INTERFACE: &str = "org.linuxvss.Management";

/// One call of the interface, as it stands on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", content = "parameters")]
pub enum Call {
    /// What the service is doing now; answered also while a volume is held.
    #[serde(rename = "org.linuxvss.Management.GetStatus")]
    GetStatus,
    /// The limits in force.
    #[serde(rename = "org.linuxvss.Management.GetLimits")]
    GetLimits,
    /// Changes limits until the service ends (root only).
    #[serde(rename = "org.linuxvss.Management.SetLimits")]
    SetLimits(SetLimits),
    /// The finished shadow copies.
    #[serde(rename = "org.linuxvss.Management.ListShadows")]
    ListShadows,
    /// The record of one set.
    #[serde(rename = "org.linuxvss.Management.GetSet")]
    GetSet(GetSet),
    /// The registered writers.
    #[serde(rename = "org.linuxvss.Management.ListWriters")]
    ListWriters,
    /// The providers.
    #[serde(rename = "org.linuxvss.Management.ListProviders")]
    ListProviders,
    /// The volumes that could be members of a set.
    #[serde(rename = "org.linuxvss.Management.ListVolumes")]
    ListVolumes,
    /// Deletes shadow copies; stops at the first that cannot be deleted (spec P 10, row 17).
    #[serde(rename = "org.linuxvss.Management.DeleteShadows")]
    DeleteShadows(Selection),
}

/// Reply to `GetStatus`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The service's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// When it started.
    pub started_at: Instant,
    /// What it did at its start: swept holds, undone creations, deleted orphans, forgotten copies. One line each.
    pub recovery: Vec<String>,
    /// Open sessions: all for root, the caller's own for others.
    pub sessions: Vec<SessionStatus>,
    /// Registered writers.
    pub writers: u64,
    /// Finished shadow copies.
    pub shadows: u64,
    /// The set that is being created; none while there is none.
    pub creating: Option<SetId>,
    /// True while writes are held.
    pub holding: bool,
}

/// One open session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Its id.
    pub session_id: SessionId,
    /// Who asks.
    pub requester: String,
    /// The uid of the requester.
    pub uid: u32,
    /// The process id of the requester.
    pub pid: u32,
    /// Where the session stands, for a person.
    pub state: String,
    /// What its running operation is doing; empty while none runs.
    pub step: String,
}

/// The limits: reply to `GetLimits`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Volumes in one set; fixed.
    pub volumes_per_set: u64,
    /// Shadow copies of one volume; fixed.
    pub shadow_copies_per_volume: u64,
    /// Backup sessions open at once.
    pub backup_sessions: u64,
    /// Milliseconds from a writer's Freeze to its Thaw, for writers that name no shorter time.
    pub writer_freeze_ms: u64,
    /// Milliseconds that a writer may take to get ready.
    pub writer_prepare_ms: u64,
    /// Milliseconds of hold; fixed.
    pub hold_ms: u64,
    /// Milliseconds from Freeze to Thaw for single writers, by name.
    pub writers: Vec<WriterLimit>,
}

/// The limit of one writer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterLimit {
    /// The writer's name.
    pub name: String,
    /// Milliseconds from its Freeze to its Thaw.
    pub freeze_ms: u64,
}

/// Parameters of `SetLimits`: what is left out stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetLimits {
    /// 1 to 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_sessions: Option<u64>,
    /// 1 to 60000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer_freeze_ms: Option<u64>,
    /// 1 to 3600000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer_prepare_ms: Option<u64>,
    /// One writer's own limit, 1 to 60000 ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer: Option<WriterLimit>,
}

/// Reply to `ListShadows`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shadows {
    /// Newest first.
    pub shadows: Vec<ShadowCopy>,
}

/// Parameters of `GetSet`: a set, or the set of a shadow copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetSet {
    /// The set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_id: Option<SetId>,
    /// A shadow copy of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow_id: Option<ShadowId>,
}

/// Reply to `GetSet`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetRecord {
    /// The record.
    pub set: ShadowCopySet,
}

/// Reply to `ListWriters`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writers {
    /// In the order of registration.
    pub writers: Vec<RegisteredWriter>,
}

/// One registered writer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredWriter {
    /// Its name.
    pub name: String,
    /// Its instance name; empty for a class with one instance.
    pub instance_name: String,
    /// Its kind.
    pub class_id: WriterClassId,
    /// This registration.
    pub instance_id: WriterInstanceId,
    /// When it is frozen.
    pub level: AppLevel,
    /// Milliseconds from its Freeze to its Thaw.
    pub freeze_ms: u64,
    /// The uid of its process.
    pub uid: u32,
    /// Its process id.
    pub pid: u32,
}

/// Reply to `ListProviders`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Providers {
    /// In the order of choice.
    pub providers: Vec<ProviderEntry>,
}

/// One provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderEntry {
    /// Its id.
    pub id: ProviderId,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `system`, `software`, `hardware` or `file_share`.
    #[serde(rename = "type")]
    pub provider_type: String,
    /// `needs_hold` or `must_not_hold`.
    pub freeze_policy: String,
    /// `copy_on_write`, `redirect_on_write` or `plex`.
    pub kind: String,
}

/// Reply to `ListVolumes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volumes {
    /// By mount point.
    pub volumes: Vec<VolumeEntry>,
}

/// One volume that could be a member of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeEntry {
    /// Where it is mounted.
    #[serde(with = "vss_model::path_text")]
    pub volume: PathBuf,
    /// Its lasting name.
    pub volume_id: VolumeId,
    /// The file system type.
    pub fs_type: String,
    /// The device.
    pub source: String,
    /// The provider that would copy it; none when none can.
    pub provider: Option<String>,
    /// Why none can; empty when one can.
    pub reason: String,
    /// Its shadow copies.
    pub shadows: u64,
}

/// Parameters of `DeleteShadows`: exactly one field.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// These shadow copies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadow_ids: Vec<ShadowId>,
    /// All of this set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_id: Option<SetId>,
    /// The oldest of the volume that holds this path.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "vss_model::path_text::optional")]
    pub oldest_of: Option<PathBuf>,
    /// All that the caller may delete.
    #[serde(default)]
    pub all: bool,
}

/// Reply to `DeleteShadows`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// What is gone.
    pub shadow_ids: Vec<ShadowId>,
}
