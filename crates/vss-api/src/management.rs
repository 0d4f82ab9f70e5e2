//! Messages of `org.linuxvss.Management`: what the service is doing, what it keeps, and its limits.

use crate::event::Event;
use crate::{blocks, documents};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use vss_model::{
    AppLevel, ComponentName, Consistency, Context, CopyForecast, CreationOptions, Instant, ProviderId, SessionId,
    SetId, ShadowCopy, ShadowCopySet, ShadowId, Storage, VolumeId, VssError, WriterClassId, WriterInstanceId,
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
    /// The documents that are kept with a set.
    #[serde(rename = "org.linuxvss.Management.ListDocuments")]
    ListDocuments(documents::ListDocuments),
    /// One of them.
    #[serde(rename = "org.linuxvss.Management.GetDocument")]
    GetDocument(documents::GetDocument),
    /// The registered writers.
    #[serde(rename = "org.linuxvss.Management.ListWriters")]
    ListWriters,
    /// The providers.
    #[serde(rename = "org.linuxvss.Management.ListProviders")]
    ListProviders,
    /// The volumes that could be members of a set.
    #[serde(rename = "org.linuxvss.Management.ListVolumes")]
    ListVolumes,
    /// What a set of these paths would be, if it were made now; changes nothing.
    #[serde(rename = "org.linuxvss.Management.Check")]
    Check(Check),
    /// What has happened since the start of the service. With `more`: follows, from now on or from `after` on.
    #[serde(rename = "org.linuxvss.Management.ListEvents")]
    ListEvents(ListEvents),
    /// What providers keep for copies to come.
    #[serde(rename = "org.linuxvss.Management.ListStorage")]
    ListStorage,
    /// Removes what is kept for a volume, or for all (root only).
    #[serde(rename = "org.linuxvss.Management.RemoveStorage")]
    RemoveStorage(RemoveStorage),
    /// Deletes shadow copies; stops at the first that cannot be deleted (spec P 10, row 17).
    #[serde(rename = "org.linuxvss.Management.DeleteShadows")]
    DeleteShadows(Selection),
    /// Which blocks changed from one copy to another, or are in use in one.
    #[serde(rename = "org.linuxvss.Management.ChangedBlocks")]
    ChangedBlocks(blocks::ChangedBlocks),
    /// The image of a copy, as a file descriptor (root only).
    #[serde(rename = "org.linuxvss.Management.OpenImage")]
    OpenImage(blocks::OpenImage),
    /// Puts a volume back to a copy (spec P 4.9).
    #[serde(rename = "org.linuxvss.Management.RevertToSnapshot")]
    RevertToSnapshot(blocks::RevertToSnapshot),
    /// Where the revert of a volume stands.
    #[serde(rename = "org.linuxvss.Management.QueryRevertStatus")]
    QueryRevertStatus(blocks::QueryRevertStatus),
    /// Gives up every set that is being made (root only).
    #[serde(rename = "org.linuxvss.Management.AbortAllSnapshotsInProgress")]
    AbortAllSnapshotsInProgress,
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

/// Reply to `AbortAllSnapshotsInProgress`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetsAborted {
    /// The sets that were given up; their undoing may go on for a moment.
    pub sets: Vec<SetId>,
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
    /// Restore sessions open at once; fixed.
    #[serde(default)]
    pub restore_sessions: u64,
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
    /// Writers can mend its copies in PostSnapshot; where not, they get no directory there.
    pub writable_phase: bool,
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

/// Parameters of `Check`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Paths on the volumes of the set, absolute; 1 to 256, each at most 4096 bytes.
    #[serde(with = "vss_model::path_text::list")]
    pub paths: Vec<PathBuf>,
    /// The provider of every volume, by name; none: the service chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// True: no writer would take part.
    #[serde(default)]
    pub no_writers: bool,
    /// Only these writers would take part, by name; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writers: Vec<String>,
    /// What the set would be for; of the contexts that differ in their writers alone either is the same here.
    #[serde(default)]
    pub context: Context,
    /// How it would be made.
    #[serde(default)]
    pub options: CreationOptions,
}

/// Reply to `Check`: the set that would be made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SetForecast {
    /// True when a set of all the paths could be made.
    pub possible: bool,
    /// How good a set of all volumes that can be copied would be if every writer succeeds; none when none can.
    pub consistency: Option<Consistency>,
    /// True when these volumes would be cut at one instant.
    pub atomic: bool,
    /// As they were asked.
    pub paths: Vec<CheckedPath>,
    /// The volumes of the paths, each once, in the order of their first path.
    pub volumes: Vec<CheckedVolume>,
    /// The writers that would be involved, and those that did not say what they own.
    pub writers: Vec<CheckedWriter>,
    /// What keeps a set from being made, besides what is said of paths and volumes.
    pub obstacles: Vec<VssError>,
    /// What does not keep a set from being made now, and should be known.
    pub warnings: Vec<VssError>,
}

/// One path of a `Check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedPath {
    /// The path as it was asked.
    #[serde(with = "vss_model::path_text")]
    pub path: PathBuf,
    /// The volume that holds it; none when it can be in no set.
    pub volume_id: Option<VolumeId>,
    /// Why it can be in no set.
    pub failure: Option<VssError>,
}

/// One volume of a `Check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedVolume {
    /// Where it is mounted.
    #[serde(with = "vss_model::path_text")]
    pub volume: PathBuf,
    /// Its lasting name.
    pub volume_id: VolumeId,
    /// The file system type.
    pub fs_type: String,
    /// The provider that would copy it.
    pub provider: String,
    /// How good its copy would be; none when there would be none.
    pub consistency: Option<Consistency>,
    /// How many nested subvolumes would be copied with it.
    pub nested_count: u64,
    /// The places of the first of them, relative to the root of the copy.
    #[serde(with = "vss_model::path_text::list")]
    pub nested: Vec<PathBuf>,
    /// Its shadow copies.
    pub shadows: u64,
    /// How long its provider's part of the hold takes, in milliseconds; 0 for one that needs no hold, none when it is not
    /// known.
    #[serde(default)]
    pub hold_ms: Option<u64>,
    /// The copying that it takes; none for a provider that copies nothing, and when it cannot be copied now for another
    /// reason than what is told here.
    #[serde(default)]
    pub copying: Option<CopyForecast>,
    /// Why it cannot be copied now.
    pub failure: Option<VssError>,
}

/// One writer of a `Check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedWriter {
    /// Its name.
    pub name: String,
    /// Its instance name; empty for a class with one instance.
    pub instance_name: String,
    /// Its kind.
    pub class_id: WriterClassId,
    /// This registration.
    pub instance_id: WriterInstanceId,
    /// Why it is not known what it owns: it would take no part.
    pub failure: Option<VssError>,
    /// How many of its components the set would concern.
    pub component_count: u64,
    /// The first of them.
    pub components: Vec<CheckedComponent>,
}

/// One component of a `Check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedComponent {
    /// Logical path and name.
    #[serde(flatten)]
    pub name: ComponentName,
    /// How good its data in the set would be.
    pub consistency: Consistency,
    /// Volumes that a part of it, or a component that comes with it, lies on and that are not in the set.
    pub missing: Vec<MissingVolume>,
}

/// A volume that a component needs and the set of a `Check` has not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingVolume {
    /// Where it is mounted.
    #[serde(with = "vss_model::path_text")]
    pub volume: PathBuf,
    /// Its lasting name.
    pub volume_id: VolumeId,
    /// The provider that would copy it; none when none can.
    pub provider: Option<String>,
    /// Why none can; empty when one can.
    pub reason: String,
}

/// Parameters of `ListEvents`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListEvents {
    /// Only events with a higher number. None: all that are remembered; with `more`, those from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}

/// Reply to `ListEvents`; with `more`, one of many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventList {
    /// In their order.
    pub events: Vec<Event>,
    /// How many events before these are forgotten, the caller's or not: the service remembers the newest only.
    pub lost: u64,
}

/// Reply to `ListStorage`, and to `RemoveStorage`: what is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageList {
    /// By provider.
    pub storage: Vec<StorageEntry>,
}

/// What one provider keeps for one volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageEntry {
    /// The provider, by name.
    pub provider: String,
    /// What it keeps.
    #[serde(flatten)]
    pub storage: Storage,
}

/// Parameters of `RemoveStorage`: exactly one field.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveStorage {
    /// Of the volume that holds this path, or that was mounted there when it was last copied.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "vss_model::path_text::optional")]
    pub volume: Option<PathBuf>,
    /// Of this volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_id: Option<VolumeId>,
    /// Of all volumes.
    #[serde(default)]
    pub all: bool,
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
