//! The reverts that have begun to write and are not ended.

use super::Catalogue;
use super::tables::REVERTS;
use serde::{Deserialize, Serialize};
use vss_model::{Instant, ShadowId, VolumeId, VssError};

/// A revert that was begun and is not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingRevert {
    /// The volume.
    pub volume_id: VolumeId,
    /// The copy that it is put back to.
    pub shadow_id: ShadowId,
    /// When it began.
    pub began_at: Instant,
}

impl Catalogue {
    /// Remembers that the volume is being put back to this copy, before anything is written.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when it cannot be written.
    pub fn begin_revert(&self, revert: &PendingRevert) -> Result<(), VssError> {
        self.tables.put(REVERTS, revert.volume_id.as_str().as_bytes(), revert)
    }

    /// Forgets the revert of the volume: it is ended, or has changed nothing. Forgetting it twice is no error.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when it cannot be written.
    pub fn end_revert(&self, volume_id: &VolumeId) -> Result<(), VssError> {
        self.tables.remove(REVERTS, volume_id.as_str().as_bytes())
    }

    /// Every revert that is not ended.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when it cannot be read.
    pub fn reverts(&self) -> Result<Vec<PendingRevert>, VssError> {
        self.tables.all(REVERTS)
    }
}
