//! What takes part in a backup: its writers, its components, and the volumes that these lie on.

use super::base;
use crate::components::{self, WriterComponents};
use crate::volumes::{self, Selected};
use crate::{BackupRequest, Management, Monitor, Requester, WriterChoice};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use vss_api::requester::VolumeQuestion;
use vss_model::{VssError, named_writers};

/// Narrows the session to the chosen writers and gathers what they own.
pub(super) fn choose_writers(
    requester: &mut Requester,
    choice: &WriterChoice,
    monitor: &mut dyn Monitor,
) -> Result<(), VssError> {
    let WriterChoice::Named(names) = choice else {
        return requester.gather_writer_metadata(monitor);
    };
    // Metadata is gathered once a session, and the choice comes before it: another connection knows the classes.
    let registered = Management::connect(requester.instance())?.writers()?;
    let by_name = registered.iter().map(|writer| (writer.name.as_str(), writer.class_id));
    let (classes, unknown) = named_writers::classes_of(names, by_name);
    unknown.map_or(Ok(()), Err)?;
    requester.enable_writer_classes(classes)?;
    requester.gather_writer_metadata(monitor)?;
    let metadata = requester.writer_metadata()?;
    named_writers::silent(names.iter(), metadata.iter().map(|writer| writer.name.as_str())).map_or(Ok(()), Err)
}

pub(super) type Choice = (Vec<WriterComponents>, Vec<PathBuf>, Vec<(PathBuf, String)>);

/// Adds the components to the session; the result names every volume of the set, and the mounts that cannot be copied.
pub(super) fn choose_components(requester: &mut Requester, request: &BackupRequest) -> Result<Choice, VssError> {
    let mut volumes = request.volumes.clone();
    if request.components.is_empty() {
        return Ok((Vec::new(), volumes, Vec::new()));
    }
    let chosen = components::resolve(&request.components, &requester.writer_metadata()?)?;
    components::refuse_links(&chosen)?;
    let stamps = match &request.previous {
        Some(base) => base::stamps(&chosen, request.state.backup_type, base)?,
        None => BTreeMap::new(),
    };
    for (number, reference) in chosen.iter().flat_map(WriterComponents::references).enumerate() {
        requester.add_component(reference.clone())?;
        if let Some(stamp) = stamps.get(&number) {
            requester.set_previous_backup_stamp(reference, stamp.clone())?;
        }
    }
    let mounts = volumes::mounts()?;
    let (needed, below) = components::places(&chosen, &mounts);
    volumes.extend(needed);
    let mut not_copied = Vec::new();
    for mounts_of_volume in below {
        let Some(volume) = mounts_of_volume.first().cloned() else { continue };
        let question = VolumeQuestion { volume: volume.clone(), provider: request.provider.clone() };
        let answer = requester.is_volume_supported(question)?;
        if answer.supported {
            volumes.push(volume);
        } else {
            not_copied.extend(mounts_of_volume.into_iter().map(|mount| (mount, answer.reason.clone())));
        }
    }
    let mut seen = BTreeSet::new();
    volumes.retain(|path| Selected::among(&mounts, path.clone()).is_none_or(|one| seen.insert(one.volume)));
    Ok((chosen, volumes, not_copied))
}
