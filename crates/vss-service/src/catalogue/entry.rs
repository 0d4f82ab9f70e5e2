//! What the catalogue keeps of sets: those that are finished, and those that are being made.

use crate::documents::KeptDocument;
use serde::{Deserialize, Serialize};
use vss_model::{Instant, SetId, ShadowCopySet, ShadowId};
use vss_provider::StoredCopy;

/// One copy as the catalogue keeps it: which provider finds it, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptCopy {
    /// The provider, by name.
    pub provider: String,
    /// The provider's own words.
    pub stored: StoredCopy,
}

/// A finished set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetEntry {
    /// The record that people and programs see.
    pub set: ShadowCopySet,
    /// What the providers need to find the copies, one for each shadow copy that is left.
    pub copies: Vec<KeptCopy>,
    /// The boot that it was made in (`/proc/sys/kernel/random/boot_id`); copies "until reboot" end with it.
    pub boot_id: String,
    /// Its documents; none of a set of a release that kept none.
    #[serde(default)]
    pub documents: Vec<KeptDocument>,
}

impl SetEntry {
    /// The entry without one of its copies; none when it was the last.
    #[must_use]
    pub(super) fn without(mut self, shadow_id: ShadowId) -> Option<Self> {
        self.copies.retain(|copy| copy.stored.shadow_id != shadow_id);
        self.set.shadows.retain(|shadow| shadow.id != shadow_id);
        (!self.copies.is_empty()).then_some(self)
    }
}

/// A creation that is under way, or whose undo is not finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingSet {
    /// The set.
    pub set_id: SetId,
    /// What its providers may have made.
    pub copies: Vec<KeptCopy>,
    /// The uid that asked.
    pub owner: u32,
    /// Who asked.
    pub requester: String,
    /// When it began.
    pub started_at: Instant,
}
