//! The trait [`Provider`] and the data that crosses it.
//!
//! ```text
//!  begin_prepare (once a volume) -> end_prepare -> pre_commit -> commit -> post_commit -> pre_final -> post_final
//!  AddToSnapshotSet                 \_______________________ DoSnapshotSet __________________________________/
//!                                    abort: at any point after begin_prepare, also twice, also for an unknown set
//! ```
//!
//! The states are those of spec P 2.6. A provider is called for one set at a time in creation; `forecast`, `mount`, `delete`
//! and `presence` may come at any time, from other threads.

use crate::{blocks::ChangedBlocks, failure::not_supported, progress::Watcher, revert::Revert, storage::ShadowStorage};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{os::fd::OwnedFd, path::PathBuf};
use vss_model::{
    Attributes, Context, CopyForecast, CreationOptions, FreezePolicy, Instant, NestedCopy, ProviderId, SetId, ShadowId,
    Volume, VssCode, VssError,
};

/// What kind of provider it is, `VSS_PROV_*` (spec P 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderType {
    /// Our own copy-on-write engine.
    System,
    /// Software outside the kernel's storage stack, or a file system's own snapshots.
    Software,
    /// The array or cluster makes the copy.
    Hardware,
    /// A remote share.
    FileShare,
}

/// How the copy is made (spec P 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyKind {
    /// Old blocks are copied away before they are overwritten.
    CopyOnWrite,
    /// New data go elsewhere; the copy keeps the old blocks.
    RedirectOnWrite,
    /// A whole image of its own.
    Plex,
}

impl CopyKind {
    /// The attribute bit of copies of this kind.
    #[must_use]
    pub const fn attribute(self) -> Attributes {
        match self {
            Self::CopyOnWrite | Self::RedirectOnWrite => Attributes::DIFFERENTIAL,
            Self::Plex => Attributes::PLEX,
        }
    }
}

/// What a provider can do beyond the bare copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// How it makes copies.
    pub kind: CopyKind,
    /// Its copies can survive a reboot.
    pub persistent: bool,
    /// Its copies are writable between pre_final and post_final, so that writers can mend them (auto-recovery).
    pub writable_phase: bool,
}

/// Who a provider is and how it wants to be called. Never changes while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderProperties {
    /// Its id, the same for ever.
    pub id: ProviderId,
    /// Its name for people and for `--provider`: lower case, no spaces.
    pub name: String,
    /// Its version, for people.
    pub version: String,
    /// Its type.
    pub provider_type: ProviderType,
    /// What the file system must be while it commits.
    pub freeze_policy: FreezePolicy,
    /// What it can do.
    pub capabilities: Capabilities,
}

/// The answer to "can you copy this volume, in principle?" (spec P 2.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "supported", content = "reason")]
pub enum Support {
    /// Yes.
    Yes,
    /// No, with the reason as half a sentence: `it is tmpfs, which btrfs snapshots cannot copy`.
    No(String),
}

impl Support {
    /// Refuses the volume unless it is supported.
    ///
    /// # Errors
    /// `VSS_E_VOLUME_NOT_SUPPORTED`, with the reason.
    pub fn check(self, volume: &Volume) -> Result<(), VssError> {
        match self {
            Self::Yes => Ok(()),
            Self::No(reason) => Err(not_supported(volume, &reason)),
        }
    }
}

/// What a copy of a volume would be, made now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Forecast {
    /// The places of the nested subvolumes that would be copied with it, relative to the root of the copy; with one or more
    /// the copy is of several instants.
    pub nested: Vec<PathBuf>,
    /// How long the provider's part of the hold takes, in milliseconds; 0 for one that needs no hold, none when it is not
    /// known. Freezing and thawing come on top.
    pub hold_ms: Option<u64>,
    /// The copying that it takes; none for a provider that copies nothing.
    pub copying: Option<CopyForecast>,
    /// Why it would be refused; none when it would not be.
    pub refusal: Option<VssError>,
    /// Why it would be refused if what applications do went on as it was measured for a moment; none when it would not be.
    pub doubt: Option<VssError>,
}

/// One volume to be copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareRequest {
    /// The set.
    pub set_id: SetId,
    /// The copy; chosen by the service, not by the provider.
    pub shadow_id: ShadowId,
    /// The volume.
    pub volume: Volume,
    /// What the set is for.
    pub context: Context,
    /// How it is to be made, as far as the provider can heed it.
    pub options: CreationOptions,
}

impl PrepareRequest {
    /// What the catalogue is to keep of the copy: of the provider's own, this.
    #[must_use]
    pub fn stored(&self, data: String) -> StoredCopy {
        StoredCopy { set_id: self.set_id, shadow_id: self.shadow_id, volume: self.volume.clone(), data }
    }
}

/// What the catalogue keeps of a copy so that its provider finds it again, also after a crash in its making.
///
/// It is written to disk after `begin_prepare` and before anything is created; so `delete` must find every leftover from
/// it alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredCopy {
    /// The set.
    pub set_id: SetId,
    /// The copy.
    pub shadow_id: ShadowId,
    /// The volume as it was mounted when the copy was made.
    pub volume: Volume,
    /// The provider's own words, JSON; at most 64 KiB; read by nobody else.
    pub data: String,
}

impl StoredCopy {
    /// Writes the provider's own words.
    ///
    /// # Errors
    /// `VSS_E_PROVIDER_VETO` for a path in them that is not UTF-8.
    pub fn write_data(data: &impl Serialize) -> Result<String, VssError> {
        serde_json::to_string(data).map_err(|error| {
            VssError::new(VssCode::ProviderVeto, format!("The place of a copy cannot be written down: {error}"))
        })
    }

    /// Reads them.
    ///
    /// # Errors
    /// `VSS_E_PROVIDER_VETO` when they are damaged.
    pub fn read_data<T: DeserializeOwned>(&self) -> Result<T, VssError> {
        serde_json::from_str(&self.data).map_err(|error| {
            VssError::new(
                VssCode::ProviderVeto,
                format!("The record of shadow copy {} is damaged: {error}", self.shadow_id),
            )
        })
    }
}

/// What became of one volume of a committed set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedCopy {
    /// The copy.
    pub shadow_id: ShadowId,
    /// When it was cut: after this instant no write is in the copy.
    pub cut_at: Instant,
    /// The nested subvolumes copied with it; with one or more the copy is of several instants.
    pub nested: Vec<NestedCopy>,
    /// Its block device, where there is one.
    pub device: Option<String>,
    /// What the catalogue keeps from now on, in place of what `begin_prepare` gave.
    pub data: String,
}

/// One mount of a copy, not attached anywhere yet (open_tree(2), fsmount(2)).
#[derive(Debug)]
pub struct MountedTree {
    /// Where it belongs, relative to the root of the copy; empty for the root itself.
    pub path: PathBuf,
    /// The detached mount.
    pub mount: OwnedFd,
}

/// What `delete` found (an idempotent call says what it changed).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deletion {
    /// The copy was there and is gone.
    Deleted,
    /// There was nothing to delete.
    WasGone,
}

/// Whether a copy of the catalogue still exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// It is there, whole.
    Present,
    /// Its volume is there and the copy is not.
    Gone,
    /// Its volume cannot be reached now (a disk that is not attached); nothing can be said.
    Unreachable,
}

/// The mechanism that makes copies.
///
/// The codes that a method may return are those of spec P 2.7 ([`vss_model::VssCode::allowed_from_provider`]); the service
/// turns any other into `VSS_E_UNEXPECTED_PROVIDER_ERROR`. Every method may block, except `commit`; the service calls each
/// from a thread of its own and gives up on it at its limit ([`vss_model::limits`]).
pub trait Provider: Send + Sync {
    /// Who it is. Called often; answers from memory.
    fn properties(&self) -> ProviderProperties;

    /// Can it copy this volume in principle, even if a limit or lack of space would refuse it right now?
    ///
    /// Called in AddToSnapshotSet and by queries; changes nothing, also on disk.
    ///
    /// # Errors
    /// `VSS_E_PROVIDER_VETO` when the volume cannot be examined.
    fn is_volume_supported(&self, volume: &Volume) -> Result<Support, VssError>;

    /// Where `commit` of this volume writes, by paths of the live machine: files or directories. Neither the file systems that
    /// they lie on nor those below may be held in the same set; a frozen one would let the cut wait for ever. Asked before
    /// anything is frozen; empty when it writes to no mounted file system.
    ///
    /// # Errors
    /// `VSS_E_PROVIDER_VETO` when the volume cannot be examined.
    fn writes_to(&self, volume: &Volume) -> Result<Vec<PathBuf>, VssError>;

    /// What would a copy of this volume be if it were made now with these wishes, with the limits and the space of now?
    /// Changes nothing, also on disk, and knows nothing of a set in creation. May take a few seconds, to measure.
    ///
    /// # Errors
    /// What `begin_prepare` or `end_prepare` would refuse, as far as it can be known beforehand. What is refused by an
    /// estimate is told in the forecast.
    fn forecast(&self, volume: &Volume, options: &CreationOptions) -> Result<Forecast, VssError>;

    /// Takes one volume into the set; called in AddToSnapshotSet, once a volume. Returns fast and creates nothing on disk.
    ///
    /// Returns what the catalogue must know to find and delete whatever later phases create. A call with another set id
    /// means that the unfinished set is to be forgotten (spec P 2.6).
    ///
    /// # Errors
    /// `VSS_E_VOLUME_NOT_SUPPORTED`, `VSS_E_UNSUPPORTED_CONTEXT`, `VSS_E_INSUFFICIENT_STORAGE`, `VSS_E_PROVIDER_VETO`.
    fn begin_prepare(&self, request: &PrepareRequest) -> Result<StoredCopy, VssError>;

    /// All slow work that must end before the freeze window: space, directories, open descriptors, lists. May block for
    /// minutes, and longer as long as `watcher` hears of progress; must react to `abort` from another thread.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND` for an unknown set, `VSS_E_INSUFFICIENT_STORAGE`, `VSS_E_PROVIDER_VETO`.
    fn end_prepare(&self, set_id: SetId, watcher: &dyn Watcher) -> Result<(), VssError>;

    /// Writers are frozen, I/O still runs: be ready to commit in an instant.
    ///
    /// # Errors
    /// `VSS_E_BAD_STATE` before `end_prepare`, `VSS_E_PROVIDER_VETO`.
    fn pre_commit(&self, set_id: SetId) -> Result<(), VssError>;

    /// The point in time. Synchronous: when it returns, every volume of the set is cut.
    ///
    /// A `NeedsHold` provider is called while its volumes are frozen: it must not allocate, log, open, or write to a held
    /// file system.
    ///
    /// # Errors
    /// `VSS_E_BAD_STATE` before `pre_commit`, `VSS_E_PROVIDER_VETO`, `VSS_E_INSUFFICIENT_STORAGE`.
    fn commit(&self, set_id: SetId) -> Result<(), VssError>;

    /// Writes flow again, writers are still frozen; called only if every provider of the set committed.
    ///
    /// # Errors
    /// `VSS_E_BAD_STATE` before `commit`.
    fn post_commit(&self, set_id: SetId) -> Result<Vec<CommittedCopy>, VssError>;

    /// The copies become writable, before the writers' PostSnapshot.
    ///
    /// # Errors
    /// `VSS_E_BAD_STATE` before `post_commit`.
    fn pre_final_commit(&self, set_id: SetId) -> Result<(), VssError>;

    /// The copies become read-only for good, after the writers' PostSnapshot. The provider forgets the set.
    ///
    /// # Errors
    /// `VSS_E_BAD_STATE` before `pre_final_commit`.
    fn post_final_commit(&self, set_id: SetId) -> Result<(), VssError>;

    /// Undo everything of a set that is not finished: deletes what was made. Idempotent, also for an unknown set.
    ///
    /// # Errors
    /// Any allowed code; the copies are then deleted later through [`Provider::delete`].
    fn abort(&self, set_id: SetId) -> Result<(), VssError>;

    /// Detached mounts of a copy: the root first, then what belongs below it, outer before inner.
    ///
    /// `writable` only between `pre_final_commit` and `post_final_commit`.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND` when the copy is gone, `VSS_E_PROVIDER_VETO`.
    fn mount(&self, copy: &StoredCopy, writable: bool) -> Result<Vec<MountedTree>, VssError>;

    /// Deletes a copy, finished or half-made; returns when it can no longer be listed. Idempotent.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND` when its volume cannot be reached now, `VSS_E_PROVIDER_VETO` when it is in use.
    fn delete(&self, copy: &StoredCopy) -> Result<Deletion, VssError>;

    /// Is the copy still there? Changes nothing.
    ///
    /// # Errors
    /// `VSS_E_PROVIDER_VETO` when its volume is there and cannot be examined.
    fn presence(&self, copy: &StoredCopy) -> Result<Presence, VssError>;

    /// What it keeps for copies to come, when it keeps anything.
    fn storage(&self) -> Option<&dyn ShadowStorage> {
        None
    }

    /// Its copies as blocks, when it knows which of them changed.
    fn blocks(&self) -> Option<&dyn ChangedBlocks> {
        None
    }

    /// Its way to put a volume back to a copy, when it has one.
    fn revert(&self) -> Option<&dyn Revert> {
        None
    }
}
