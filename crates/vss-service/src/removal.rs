//! Removing finished copies: exposure, copy, record, in this order, so that a crash in between leaves only what the next
//! start finds again.

use crate::catalogue::{KeptCopy, SetEntry};
use crate::environment::Environment;
use crate::providers::by_contract;
use crate::{blocking, reverts};
use std::sync::Arc;
use vss_api::event::{Event, EventKind};
use vss_model::{SetId, ShadowId, VssCode, VssError, limits};

/// The entry of a set that holds this copy.
///
/// # Errors
/// `VSS_E_OBJECT_NOT_FOUND`.
pub fn find(environment: &Environment, shadow_id: ShadowId) -> Result<(SetEntry, KeptCopy), VssError> {
    let found = environment.catalogue.set_of(shadow_id).and_then(|entry| {
        let copy = entry.copies.iter().find(|copy| copy.stored.shadow_id == shadow_id).cloned()?;
        Some((entry, copy))
    });
    found.ok_or_else(|| {
        VssError::new(VssCode::ObjectNotFound, format!("There is no shadow copy {shadow_id}"))
            .with_hint("`vss list shadows` shows what there is")
    })
}

/// The ids of the copies that are left of a set.
///
/// # Errors
/// `VSS_E_OBJECT_NOT_FOUND`.
pub fn of_set(environment: &Environment, set_id: SetId) -> Result<Vec<ShadowId>, VssError> {
    environment
        .catalogue
        .set(set_id)
        .map(|entry| entry.copies.iter().map(|copy| copy.stored.shadow_id).collect())
        .ok_or_else(|| {
            VssError::new(VssCode::ObjectNotFound, format!("There is no shadow copy set {set_id}"))
                .with_hint("`vss list shadows` shows what there is")
        })
}

/// Removes one copy. Removals wait for each other, so that two of one set do not write over each other's record, and for
/// exposures, so that no copy is shown that is just going.
///
/// # Errors
/// `VSS_E_OBJECT_NOT_FOUND`, `VSS_E_REVERT_IN_PROGRESS`, what the provider says, `VSS_E_UNEXPECTED`; the record stays until the copy is gone.
pub async fn remove(environment: &Arc<Environment>, shadow_id: ShadowId) -> Result<(), VssError> {
    let _one = environment.changes.lock().await;
    let environment = Arc::clone(environment);
    blocking::run("Deleting a shadow copy", limits::PROVIDER_OUTSIDE, move || {
        let (entry, copy) = find(&environment, shadow_id)?;
        let volume = &copy.stored.volume;
        if reverts::pending(&environment, &volume.id)?.is_some_and(|pending| pending.shadow_id == shadow_id) {
            return Err(reverts::in_progress(volume, shadow_id));
        }
        if environment.unexpose(shadow_id)? {
            tell(&environment, &entry, &copy, Event::of(EventKind::CopyUnexposed));
        }
        let provider = environment.providers.named(&copy.provider)?;
        provider.delete(&copy.stored).map_err(|error| {
            let error = by_contract(&copy.provider, error);
            let (step, failure) = (Some("delete".to_owned()), Some(error.clone()));
            tell(&environment, &entry, &copy, Event { step, failure, ..Event::of(EventKind::ProviderTrouble) });
            error
        })?;
        environment.catalogue.remove_copy(shadow_id)?;
        tell(&environment, &entry, &copy, Event::of(EventKind::CopyDeleted));
        Ok(())
    })
    .await
}

/// Tells what became of a finished copy; it belongs to the copy's owner.
pub fn tell(environment: &Environment, entry: &SetEntry, copy: &KeptCopy, event: Event) {
    environment.events.tell(Event {
        set_id: Some(entry.set.set_id),
        shadow_id: Some(copy.stored.shadow_id),
        uid: Some(entry.set.owner),
        provider: Some(copy.provider.clone()),
        volume: Some(copy.stored.volume.mount_point.clone()),
        ..event
    });
}
