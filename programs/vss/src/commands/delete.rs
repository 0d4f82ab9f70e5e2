//! `vss delete`: deletes shadow copies.

use super::Failure;
use crate::args::DeleteArguments;
use crate::output;
use vss_api::management::Selection;
use vss_model::VssError;
use vss_requester::{Instance, Management, volumes};

pub(super) fn delete(instance: &Instance, arguments: DeleteArguments) -> Result<(), Failure> {
    let deleted = Management::connect(instance)?.delete(selection(arguments)?)?;
    if deleted.is_empty() {
        output::line("There was no shadow copy to delete")?;
    }
    for shadow_id in deleted {
        output::line(&format!("Deleted {shadow_id}"))?;
    }
    Ok(())
}

fn selection(arguments: DeleteArguments) -> Result<Selection, VssError> {
    Ok(Selection {
        shadow_ids: arguments.shadow,
        set_id: arguments.set,
        oldest_of: arguments.oldest.map(|path| volumes::resolve(&path)).transpose()?,
        all: arguments.all,
    })
}
