//! The rows that write the catalogue: what may be left behind, before anything is made, and the finished set in its place.

use super::StepFuture;
use super::create_set::CreateSet;
use crate::catalogue::{KeptCopy, PendingSet};
use crate::{blocking, documents, fault};
use std::sync::Arc;
use vss_model::{Instant, limits};

pub(super) fn record_intent(saga: &mut CreateSet) -> StepFuture<'_> {
    Box::pin(async {
        let copies = saga
            .plan
            .members
            .iter()
            .map(|member| KeptCopy { provider: member.provider.properties().name, stored: member.stored.clone() })
            .collect();
        let pending = PendingSet {
            set_id: saga.plan.set_id,
            copies,
            owner: saga.plan.requester.uid,
            requester: saga.plan.requester.name.clone(),
            started_at: Instant::now(),
        };
        let environment = Arc::clone(&saga.environment);
        blocking::run("Writing the catalogue", limits::PROVIDER_OUTSIDE, move || environment.catalogue.begin(&pending))
            .await
    })
}

pub(super) fn forget_intent(saga: &mut CreateSet) -> StepFuture<'_> {
    Box::pin(async {
        // Leftovers that could not be deleted, or that a lost thread may still make, are found by this entry.
        if !saga.aborted || saga.thread_lost {
            return Ok(());
        }
        let (environment, set_id) = (Arc::clone(&saga.environment), saga.plan.set_id);
        let work = move || environment.catalogue.forget_pending(set_id);
        blocking::run("Writing the catalogue", limits::PROVIDER_OUTSIDE, work).await
    })
}

pub(super) fn record(saga: &mut CreateSet) -> StepFuture<'_> {
    Box::pin(async {
        let mut entry = saga.entry();
        let environment = Arc::clone(&saga.environment);
        let set = entry.set.clone();
        let said = documents::backup_components(set.set_id, set.backup_state, &saga.writers);
        // Those that the backup concerns first: should there be no room for all, they are worth most.
        let (involved, others): (Vec<_>, Vec<_>) = saga.writers.iter().partition(|writer| writer.is_involved());
        let writers: Vec<_> = involved.into_iter().chain(others).map(|writer| writer.metadata.clone()).collect();
        let work = move || {
            let (set_id, catalogue) = (entry.set.set_id, &environment.catalogue);
            // Nobody could delete a set without a copy: there is nothing to keep of it.
            if entry.copies.is_empty() {
                return catalogue.forget_pending(set_id);
            }
            entry.documents = catalogue.documents().write(set_id, &said, &writers)?;
            fault::at("documents", fault::Victims::default())
                .and_then(|()| catalogue.finish(&entry))
                .inspect_err(|_| catalogue.documents().remove(set_id))
        };
        blocking::run("Writing the catalogue", limits::PROVIDER_OUTSIDE, work).await?;
        fault::at("recorded", fault::Victims::default())?;
        saga.set = Some(set);
        Ok(())
    })
}
