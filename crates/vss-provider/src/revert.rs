//! Putting a volume back to one of its copies (spec P 4, RevertToSnapshot).

use crate::{StoredCopy, progress::Watcher};
use serde::{Deserialize, Serialize};
use vss_model::VssError;

/// What a revert did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reverted {
    /// Bytes that were compared.
    pub compared_bytes: u64,
    /// Bytes that differed and were written back.
    pub written_bytes: u64,
}

/// What is left to be done of a revert that was broken off, or may have been.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Left {
    /// Nothing: it had not begun to write, or had ended.
    Nothing,
    /// It has to be ended, and nobody has written to the volume since.
    Untouched,
    /// It has to be ended, and somebody has written to the volume since, or that cannot be told (half a sentence).
    Touched(String),
}

/// A provider that can put a volume back.
pub trait Revert: Send + Sync {
    /// Makes the volume equal to the copy. The volume must not be mounted. When it was broken off, the same call again ends
    /// it; until then the volume is neither the one nor the other, and says so to whoever asks this provider.
    ///
    /// `watcher` hears of it before the first block is written: an error that comes before has changed nothing, and the
    /// service forgets the revert.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND` when the copy or the volume's device is gone; `VSS_E_PROVIDER_VETO` when the volume is mounted
    /// or in use, or has another size than the copy; `VSS_E_REVERT_IN_PROGRESS` when one is running.
    fn revert(&self, copy: &StoredCopy, watcher: &dyn Watcher) -> Result<Reverted, VssError>;

    /// What is left of a revert to this copy, asked when the service starts: it goes on by itself only with a volume that is
    /// untouched. Changes nothing.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND` when the copy or the volume's device is gone; `VSS_E_PROVIDER_VETO` when that cannot be found out.
    fn left(&self, copy: &StoredCopy) -> Result<Left, VssError>;

    /// Forgets a revert to this copy that was broken off, if there is one: the volume stays as it is, and this provider refuses it
    /// no longer.
    ///
    /// # Errors
    /// `VSS_E_REVERT_IN_PROGRESS` while it is running; `VSS_E_PROVIDER_VETO` when what is remembered of it cannot be removed.
    fn give_up(&self, copy: &StoredCopy) -> Result<(), VssError>;
}
