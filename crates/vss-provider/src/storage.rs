//! Shadow storage: what a provider keeps for the copies of a volume to come, beyond the copies themselves.

use crate::Deletion;
pub use vss_model::Storage;
use vss_model::{VolumeId, VssError};

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
