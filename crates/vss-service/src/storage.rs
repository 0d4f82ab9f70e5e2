//! Shadow storage over all providers: listing it, removing it, and tending it at the start and every hour.

use crate::environment::Environment;
use crate::providers::by_contract;
use crate::{blocking, volumes};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use vss_api::management::{RemoveStorage, StorageEntry};
use vss_model::{Bytes, VolumeId, VssCode, VssError, limits};
use vss_provider::storage::ShadowStorage;

/// How often storage is tended.
const EVERY: Duration = Duration::from_secs(3600);

/// The providers that keep something, by name.
fn keepers(environment: &Environment) -> impl Iterator<Item = (String, &dyn ShadowStorage)> {
    environment.providers.iter().filter_map(|provider| Some((provider.properties().name, provider.storage()?)))
}

/// Everything that is kept, by provider. May block.
///
/// # Errors
/// What the first provider says that cannot tell.
pub fn list(environment: &Environment) -> Result<Vec<StorageEntry>, VssError> {
    let mut entries = Vec::new();
    for (provider, keeper) in keepers(environment) {
        let listed = keeper.list().map_err(|error| by_contract(&provider, error))?;
        entries.extend(listed.into_iter().map(|storage| StorageEntry { provider: provider.clone(), storage }));
    }
    Ok(entries)
}

/// Removes what is chosen, one after another, and returns what is gone. May block.
///
/// # Errors
/// `E_INVALIDARG` for a choice of none or several kinds; `VSS_E_OBJECT_NOT_FOUND` for a volume for which nothing is kept; what
/// a provider says of the first that cannot be removed, with its volume: those before are gone.
pub fn remove(environment: &Environment, wanted: &RemoveStorage) -> Result<Vec<StorageEntry>, VssError> {
    let entries = list(environment)?;
    let chosen: Vec<StorageEntry> = match (&wanted.volume, &wanted.volume_id, wanted.all) {
        (Some(path), None, false) => of_path(entries, path)?,
        (None, Some(id), false) => of_volume(entries, id, id.as_str())?,
        (None, None, true) => entries,
        _ => {
            let why = "RemoveStorage takes exactly one of volume, volume_id and all";
            return Err(VssError::new(VssCode::InvalidArgument, why));
        }
    };
    for (done, entry) in chosen.iter().enumerate() {
        let Some((_, keeper)) = keepers(environment).find(|(name, _)| *name == entry.provider) else { continue };
        keeper.remove(&entry.storage.volume_id).map_err(|error| {
            let place = entry.storage.volume.display();
            by_contract(&entry.provider, error)
                .while_doing(format!("The storage of {place} is not removed ({done} others were)"))
        })?;
        tracing::info!("removed {}", words(entry));
    }
    Ok(chosen)
}

/// What is kept for the volume that holds `path` now, else for the one that was mounted there when it was last copied.
fn of_path(entries: Vec<StorageEntry>, path: &Path) -> Result<Vec<StorageEntry>, VssError> {
    if !path.is_absolute() {
        let message = format!("{} is not an absolute path", path.display());
        return Err(VssError::new(VssCode::InvalidArgument, message).with_hint("Name it from / on"));
    }
    if let Ok(located) = volumes::resolve(path)
        && entries.iter().any(|entry| entry.storage.volume_id == located.volume.id)
    {
        return of_volume(entries, &located.volume.id, &path.display().to_string());
    }
    let was_there: Vec<_> = entries.into_iter().filter(|entry| entry.storage.volume == path).collect();
    if was_there.is_empty() { Err(nothing_kept(&path.display().to_string())) } else { Ok(was_there) }
}

fn of_volume(entries: Vec<StorageEntry>, id: &VolumeId, name: &str) -> Result<Vec<StorageEntry>, VssError> {
    let of_it: Vec<_> = entries.into_iter().filter(|entry| entry.storage.volume_id == *id).collect();
    if of_it.is_empty() { Err(nothing_kept(name)) } else { Ok(of_it) }
}

fn nothing_kept(name: &str) -> VssError {
    VssError::new(VssCode::ObjectNotFound, format!("Nothing is kept for {name}"))
        .with_hint("`vss storage list` shows what is kept, and for which volumes")
}

fn words(entry: &StorageEntry) -> String {
    let StorageEntry { provider, storage } = entry;
    let (volume, place) = (storage.volume.display(), storage.place.display());
    format!("what provider {provider} kept for {volume} in {place} ({})", Bytes(storage.used_bytes))
}

/// Tends all storage now and every hour, until it is told to stop; a round that has begun is ended first.
pub async fn tend(environment: Arc<Environment>, stop: CancellationToken) {
    if keepers(&environment).next().is_none() {
        return;
    }
    let mut hours = interval(EVERY);
    hours.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = hours.tick() => {}
        }
        let environment = Arc::clone(&environment);
        let round = blocking::run("Tending the shadow storage", limits::PROVIDER_OUTSIDE, move || {
            tend_once(&environment);
            Ok(())
        });
        if let Err(error) = round.await {
            tracing::warn!(%error, "the shadow storage is not tended");
        }
    }
}

/// One round; what it did is told to the log.
fn tend_once(environment: &Environment) {
    for (provider, keeper) in keepers(environment) {
        match keeper.tend() {
            Ok(removed) => {
                for storage in removed {
                    tracing::info!("removed {}", words(&StorageEntry { provider: provider.clone(), storage }));
                }
            }
            Err(error) => tracing::warn!(provider, %error, "the shadow storage could not be tended"),
        }
    }
}
