//! `vss storage`: what providers keep for copies to come.

use super::Failure;
use crate::args::{RemoveStorageArguments, StorageArguments, StorageCommand};
use crate::json::List;
use crate::output;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::Duration;
use vss_api::management::{RemoveStorage, StorageEntry};
use vss_model::{Bytes, ShadowCopySet, VolumeId, VssCode, VssError};
use vss_requester::{Instance, Management, volumes};

/// How long a command that is over waits to hear what stays.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn storage(instance: &Instance, arguments: &StorageArguments) -> Result<(), Failure> {
    let mut management = Management::connect(instance)?;
    match &arguments.command {
        StorageCommand::List { json: true } => output::json(&List::Storage(management.storage()?))?,
        StorageCommand::List { json: false } => print(&management.storage()?)?,
        StorageCommand::Remove(remove) => {
            let mut is_empty = true;
            for wanted in wanted(remove)? {
                for entry in management.remove_storage(wanted)? {
                    is_empty = false;
                    output::line(&format!("Removed {}", words(&entry)))?;
                }
            }
            if is_empty {
                output::line("There was nothing to remove")?;
            }
        }
    }
    Ok(())
}

fn wanted(arguments: &RemoveStorageArguments) -> Result<Vec<RemoveStorage>, VssError> {
    if arguments.all {
        return Ok(vec![RemoveStorage { all: true, ..RemoveStorage::default() }]);
    }
    arguments.volume.iter().map(|word| one(word)).collect()
}

/// A path, or the lasting name of a volume.
fn one(word: &OsStr) -> Result<RemoveStorage, VssError> {
    let id = word.to_str().filter(|word| !word.contains('/')).and_then(|word| word.split_once(':'));
    if let Some((kind, rest)) = id {
        return Ok(RemoveStorage { volume_id: Some(VolumeId::file_system(kind, rest)), ..RemoveStorage::default() });
    }
    // The volume may be gone, and its mount point with it.
    let path = match volumes::resolve(Path::new(word)) {
        Err(error) if error.code == VssCode::ObjectNotFound => std::path::absolute(word).map_err(|_| error)?,
        resolved => resolved?,
    };
    Ok(RemoveStorage { volume: Some(path), ..RemoveStorage::default() })
}

/// What is kept, as `the mirror of /srv in /var/lib/vss (1.2 GiB)`.
fn words(entry: &StorageEntry) -> String {
    let StorageEntry { provider, storage } = entry;
    let (volume, place) = (storage.volume.display(), storage.place.display());
    format!("the {provider} of {volume} in {place} ({})", Bytes(storage.used_bytes))
}

/// Says what providers keep of the volumes now that the copies of this set are gone: nobody likes to find gigabytes later.
pub(super) fn tell_what_stays(instance: &Instance, set: &ShadowCopySet) {
    let is_of_set = |entry: &StorageEntry| {
        set.shadows.iter().any(|one| one.volume_id == entry.storage.volume_id && one.provider == entry.provider)
    };
    // What was asked for is done: without an answer there is nothing to say.
    let kept = Management::connect(instance).and_then(|mut management| {
        management.set_timeout(Some(PATIENCE))?;
        management.storage()
    });
    for entry in kept.unwrap_or_default().iter().filter(|entry| is_of_set(entry)) {
        output::say(&format!("vss: {}", output::printable(&stays(entry))));
    }
}

/// What stays behind when the copies of a set are gone, and how it is got rid of.
fn stays(entry: &StorageEntry) -> String {
    let StorageEntry { provider, storage } = entry;
    let (volume, place, size) = (storage.volume.display(), storage.place.display(), Bytes(storage.used_bytes));
    let next = match &storage.full_compare {
        None => "the next copy reads only what changed".to_owned(),
        Some(why) => format!("the next copy reads everything ({why})"),
    };
    format!("The {provider} of {volume} stays in {place} ({size}); {next}; `vss storage remove {volume}` removes it")
}

const STORAGE: [&str; 7] = ["VOLUME", "PROVIDER", "PLACE", "USED", "SHADOWS", "LAST USED", "NEXT COPY READS"];

pub(super) fn print(entries: &[StorageEntry]) -> io::Result<()> {
    let row = |entry: &StorageEntry| {
        let StorageEntry { provider, storage } = entry;
        vec![
            storage.volume.display().to_string(),
            provider.clone(),
            storage.place.display().to_string(),
            Bytes(storage.used_bytes).to_string(),
            storage.shadows.to_string(),
            storage.last_used.local(),
            storage.full_compare.as_ref().map_or_else(|| "what changed".to_owned(), |why| format!("everything: {why}")),
        ]
    };
    output::table(&STORAGE, &entries.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(full_compare: Option<&str>) -> StorageEntry {
        serde_json::from_value(serde_json::json!({"provider": "mirror", "volume_id": "ext4:u", "volume": "/srv",
            "place": "/var/lib/vss", "used_bytes": 1_288_490_189, "volume_bytes": 1, "shadows": 0,
            "last_used": "2026-11-24T09:30:00Z", "full_compare": full_compare}))
        .unwrap()
    }

    #[test]
    fn what_stays_is_told_with_its_size_and_its_way_out() {
        assert_eq!(
            stays(&entry(None)),
            "The mirror of /srv stays in /var/lib/vss (1.2 GiB); the next copy reads only what changed; \
             `vss storage remove /srv` removes it"
        );
        assert!(stays(&entry(Some("the machine crashed"))).contains("reads everything (the machine crashed)"));
    }

    #[test]
    fn a_volume_is_named_by_a_path_or_by_its_lasting_name() {
        let named = |word: &str| one(OsStr::new(word)).unwrap();
        assert_eq!(named("ext4:1234").volume_id, Some(VolumeId::file_system("ext4", "1234")));
        assert_eq!(named("/proc/..").volume, Some("/".into()));
        assert_eq!(named("/gone/mount:point").volume, Some("/gone/mount:point".into()));
    }
}
