//! `vss delete`: deletes shadow copies.

use super::Failure;
use crate::args::DeleteArguments;
use crate::output;
use std::collections::BTreeSet;
use vss_api::management::Selection;
use vss_model::{ShadowId, VssError};
use vss_requester::{Instance, Management, volumes};

pub(super) fn delete(instance: &Instance, arguments: DeleteArguments) -> Result<(), Failure> {
    let mut management = Management::connect(instance)?;
    let mut is_empty = true;
    for selection in selections(arguments)? {
        for shadow_id in management.delete(selection)? {
            is_empty = false;
            output::line(&format!("Deleted {shadow_id}"))?;
        }
    }
    if is_empty {
        output::line("There was no shadow copy to delete")?;
    }
    Ok(())
}

/// Copies that are named are deleted one by one: what is gone is said before the first that cannot be deleted.
fn selections(arguments: DeleteArguments) -> Result<Vec<Selection>, VssError> {
    if !arguments.shadow.is_empty() {
        let mut seen = BTreeSet::<ShadowId>::new();
        let named = arguments.shadow.into_iter().filter(|id| seen.insert(*id));
        return Ok(named.map(|id| Selection { shadow_ids: vec![id], ..Selection::default() }).collect());
    }
    Ok(vec![Selection {
        set_id: arguments.set,
        oldest_of: arguments.oldest.map(|path| volumes::resolve(&path)).transpose()?,
        all: arguments.all,
        ..Selection::default()
    }])
}
