//! `vss unexpose`: takes a shadow copy away from where it is mounted.

use super::Failure;
use crate::args::UnexposeArguments;
use crate::output;
use std::path::Path;
use vss_model::{ShadowCopy, ShadowId, VssCode, VssError};
use vss_requester::{Instance, Management, Requester, volumes};

pub(super) fn unexpose(instance: &Instance, arguments: &UnexposeArguments) -> Result<(), Failure> {
    let shadow_id = match id(&arguments.place) {
        Some(shadow_id) => shadow_id,
        None => mounted_at(&volumes::resolve(&arguments.place)?, &Management::connect(instance)?.shadows()?)?,
    };
    let mut requester = Requester::connect(instance)?;
    requester.unexpose_snapshot(shadow_id)?;
    output::line(&format!("Shadow copy {shadow_id} is not mounted any more"))?;
    Ok(())
}

/// The id, when the word is one; a directory with such a name is meant by `./NAME`.
fn id(place: &Path) -> Option<ShadowId> {
    place.to_str()?.parse().ok()
}

fn mounted_at(place: &Path, shadows: &[ShadowCopy]) -> Result<ShadowId, VssError> {
    let found = shadows.iter().find(|shadow| shadow.path.as_deref() == Some(place));
    found.map(|shadow| shadow.id).ok_or_else(|| {
        VssError::new(VssCode::ObjectNotFound, format!("No shadow copy is mounted at {}", place.display()))
            .with_hint("`vss list shadows` shows where they are mounted")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_an_id_is_no_directory() {
        let word = "b5946137-7b9f-4925-af80-51abd60b20d5";
        assert!(id(Path::new(word)).is_some());
        assert!(id(&Path::new(".").join(word)).is_none() && id(Path::new("/mnt")).is_none());
    }

    #[test]
    fn a_place_without_a_copy_is_named() {
        let error = mounted_at(Path::new("/mnt"), &[]).unwrap_err();
        assert!(error.code == VssCode::ObjectNotFound && error.message.contains("/mnt"));
    }
}
