//! What every part of the conductor shares: the catalogue, the providers, the exposures and the way to hold writes.

use crate::{
    catalogue::Catalogue,
    events::Events,
    exposure::{Exposure, Exposures},
    freeze_window::Hold,
    inbox_writers::InboxWriters,
    providers::{Providers, Target},
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vss_linux::mountinfo::MountEntry;
use vss_model::{Attributes, SetId, ShadowCopy, ShadowId, Volume, VssError};

/// Makes the hold of one set; the guard in the service, a fake in tests.
pub trait HoldMaker: Send + Sync {
    /// May the volumes `held` be held together, with `others` copied meanwhile and `targets` written to? Changes nothing, and
    /// asks no file system.
    ///
    /// # Errors
    /// What [`HoldMaker::prepare`] would refuse of them: `VSS_E_NESTED_VOLUME_LIMIT`.
    fn judge(&self, held: &[Volume], others: &[Volume], targets: &[Target]) -> Result<(), VssError>;

    /// Gets ready to hold the volumes `held`; holds nothing yet. May block. `others` are the members of the set that must
    /// not be held; neither they nor what the cuts write to (`targets`) may lie on one that is.
    ///
    /// # Errors
    /// `VSS_E_NESTED_VOLUME_LIMIT`, `VSS_E_OBJECT_NOT_FOUND`, `VSS_E_UNEXPECTED`.
    fn prepare(
        &self,
        set_id: SetId,
        held: &[Volume],
        others: &[Volume],
        targets: &[Target],
    ) -> Result<Box<dyn Hold>, VssError>;
}

/// Mounts copies; the kernel in the service, a fake in tests.
pub trait Staging: Send + Sync {
    /// Mounts these trees, as writable as they are, seen by nobody else, and opens their root. May block.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when the kernel refuses.
    fn stage(
        &self,
        shadow_id: ShadowId,
        trees: Vec<vss_provider::MountedTree>,
    ) -> Result<std::os::fd::OwnedFd, VssError>;

    /// Takes the mounts away again; no harm when there are none. May block.
    ///
    /// # Errors
    /// `VSS_E_VOLUME_IN_USE`.
    fn unstage(&self, shadow_id: ShadowId) -> Result<(), VssError>;
}

/// What every part of the conductor shares.
pub struct Environment {
    /// What outlives the service.
    pub catalogue: Catalogue,
    /// The mechanisms that make copies.
    pub providers: Providers,
    /// The mounts of finished copies.
    pub exposures: Arc<Exposures>,
    /// How writes are held.
    pub holds: Arc<dyn HoldMaker>,
    /// How copies are shown to writers.
    pub staging: Arc<dyn Staging>,
    /// One change of finished copies at a time: a removal, or a look whether one is exposed with what follows from it.
    pub changes: tokio::sync::Mutex<()>,
    /// Room for forecasts.
    pub forecasts: tokio::sync::Semaphore,
    /// What is told to those who follow the service.
    pub events: Arc<Events>,
    /// The in-box writers that the service starts itself.
    pub inbox_writers: InboxWriters,
    /// The boot that we run in.
    pub boot_id: String,
}

impl Environment {
    /// Where a copy is exposed now; none where it is not.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when the mount table or the catalogue cannot be read.
    pub fn place(&self, shadow_id: ShadowId) -> Result<Option<PathBuf>, VssError> {
        self.place_among(&self.exposures.mounts()?, shadow_id)
    }

    fn place_among(&self, mounts: &[MountEntry], shadow_id: ShadowId) -> Result<Option<PathBuf>, VssError> {
        if let Some(exposure) = self.catalogue.exposure(shadow_id)?.filter(|exposure| exposure.is_seen(mounts)) {
            return Ok(Some(exposure.place));
        }
        let own = self.exposures.own_place(shadow_id);
        Ok(mounts.iter().any(|entry| entry.mount_point == own).then_some(own))
    }

    /// Shows a copy read-only at a directory that a caller named, and remembers it. May block.
    ///
    /// # Errors
    /// Those of [`Exposures::expose_at`]; `VSS_E_UNEXPECTED` when it cannot be remembered, and then it is not shown.
    pub fn expose_at(
        &self,
        shadow_id: ShadowId,
        trees: Vec<vss_provider::MountedTree>,
        at: &Path,
    ) -> Result<Exposure, VssError> {
        let exposure = self.exposures.expose_at(trees, at, &self.boot_id)?;
        if let Err(error) = self.catalogue.set_exposure(shadow_id, Some(&exposure)) {
            let _left = self.exposures.unexpose_at(&exposure);
            return Err(error);
        }
        Ok(exposure)
    }

    /// Takes a copy away from wherever it is exposed; false when it is exposed nowhere. May block.
    ///
    /// # Errors
    /// `VSS_E_VOLUME_IN_USE` when something else is mounted over it, `VSS_E_UNEXPECTED`.
    pub fn unexpose(&self, shadow_id: ShadowId) -> Result<bool, VssError> {
        let mut was_exposed = false;
        if let Some(exposure) = self.catalogue.exposure(shadow_id)? {
            was_exposed = self.exposures.unexpose_at(&exposure)?;
            self.catalogue.set_exposure(shadow_id, None)?;
        }
        Ok(self.exposures.unexpose(shadow_id)? || was_exposed)
    }

    /// Writes into records where their copies are exposed now, and the attribute bits that follow from it.
    pub fn show_places(&self, shadows: &mut [ShadowCopy]) {
        // A record without its place is better than no record.
        let mounts = self.exposures.mounts().unwrap_or_default();
        for shadow in shadows {
            shadow.path = self.place_among(&mounts, shadow.id).unwrap_or_default();
            shadow.attributes = if shadow.path.is_some() {
                shadow.attributes.without(Attributes::NOT_SURFACED).with(Attributes::EXPOSED_LOCALLY)
            } else {
                shadow.attributes.without(Attributes::EXPOSED_LOCALLY).with(Attributes::NOT_SURFACED)
            };
        }
    }
}
