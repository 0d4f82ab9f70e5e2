//! The volumes of a set by whether they must be held, and what the maker of holds says of them.

use super::create_set::Member;
use crate::environment::HoldMaker;
use crate::{blocking, providers};
use std::sync::Arc;
use vss_model::{FreezePolicy, Volume, VssError, limits};
use vss_provider::Provider;

/// The volumes of a set.
pub(super) struct HeldVolumes {
    /// Those that must be held.
    pub(super) held: Vec<Volume>,
    /// Those that must not.
    pub(super) others: Vec<Volume>,
    members: Vec<(Arc<dyn Provider>, Volume)>,
}

impl HeldVolumes {
    pub(super) fn of(members: &[Member]) -> Self {
        let is_held = |member: &&Member| member.provider.properties().freeze_policy == FreezePolicy::NeedsHold;
        let (held, others): (Vec<&Member>, Vec<&Member>) = members.iter().partition(is_held);
        let volumes = |members: Vec<&Member>| members.into_iter().map(|member| member.volume.clone()).collect();
        let members = members.iter().map(|member| (Arc::clone(&member.provider), member.volume.clone())).collect();
        Self { held: volumes(held), others: volumes(others), members }
    }

    /// What the cuts write to. May block.
    pub(super) fn targets(&self) -> Result<Vec<providers::Target>, VssError> {
        providers::targets(&self.members)
    }

    /// Asks the maker of holds, from a thread that may block; when none is to be held there is nothing to ask.
    pub(super) async fn ask<T: Send + 'static>(
        self,
        maker: Arc<dyn HoldMaker>,
        what: &str,
        ask: impl FnOnce(&dyn HoldMaker, &Self) -> Result<T, VssError> + Send + 'static,
    ) -> Result<Option<T>, VssError> {
        if self.held.is_empty() {
            return Ok(None);
        }
        blocking::run(what, limits::PROVIDER_IN_WINDOW, move || ask(&*maker, &self)).await.map(Some)
    }
}
