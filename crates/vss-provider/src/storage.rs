//! Shadow storage: what a provider keeps for the copies of a volume to come, beyond the copies themselves.

use crate::Deletion;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use vss_model::{Instant, VolumeId, VssError};

/// What is kept for one volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storage {
    /// The volume.
    pub volume_id: VolumeId,
    /// Where the volume was mounted when it was last copied.
    #[serde(with = "vss_model::path_text")]
    pub volume: PathBuf,
    /// The directory that it lies in.
    #[serde(with = "vss_model::path_text")]
    pub place: PathBuf,
    /// Bytes that it takes there, without the copies' own.
    pub used_bytes: u64,
    /// Bytes of the volume.
    pub volume_bytes: u64,
    /// Shadow copies that lie there.
    pub shadows: u64,
    /// When it was last used.
    pub last_used: Instant,
    /// Why the next copy will compare everything instead of reading what was written since; none when it will not.
    pub full_compare: Option<String>,
}

/// A provider that keeps something for later copies.
pub trait ShadowStorage: Send + Sync {
    /// Everything that it keeps. Changes nothing.
    ///
    /// # Errors
    /// `VSS_E_PROVIDER_VETO` when it cannot be examined.
    fn list(&self) -> Result<Vec<Storage>, VssError>;

    /// Removes what is kept for this volume; copies that stand by themselves stay. Idempotent.
    ///
    /// # Errors
    /// `VSS_E_PROVIDER_VETO` when a copy needs it, or a set is being made with it.
    fn remove(&self, volume_id: &VolumeId) -> Result<Deletion, VssError>;

    /// Removes what nobody has used for long, what crowds its file system, and what a crash left behind. Called at the
    /// service's start and every hour. Returns what it removed.
    ///
    /// # Errors
    /// The first that could not be removed; it goes on with the others.
    fn tend(&self) -> Result<Vec<Storage>, VssError>;
}
