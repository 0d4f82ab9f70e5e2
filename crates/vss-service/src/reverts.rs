//! Reverts: a volume is put back to one of its copies (spec P 4.9).
//!
//! ```text
//!   RevertToSnapshot --> may it be? --> recorded --> its provider writes --> ended: the record goes
//!                                          ^               |
//!                                          |               +--> failed before it wrote anything: the record goes
//!                                          |               `--> broke off: unfinished, the record stays
//!                                          `-- the same call again, or the next start of the service, if nobody
//!                                              wrote to the volume meanwhile
//! ```
//!
//! While there is a record, the copy is not deleted ([`crate::removal`]) and no copy is made of the volume
//! ([`crate::jobs::find_volume`]). Windows loses the copies that are newer than the one that is reverted to, which lie in
//! the volume's own diff area; here a provider that can revert has whole images, and they stay.

use crate::catalogue::{KeptCopy, PendingRevert};
use crate::environment::Environment;
use crate::fault::{self, Victims};
use crate::providers::by_contract;
use crate::{removal, rules};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use vss_api::blocks::{RevertState, RevertStatus};
use vss_api::server::Peer;
use vss_linux::{device_use, fs_uuid};
use vss_model::{Instant, ShadowId, Volume, VolumeId, VssCode, VssError};
use vss_provider::Presence;
use vss_provider::progress::{Progress, Watcher};
use vss_provider::revert::Left;

/// Ended reverts that are remembered, for those who ask how they ended.
const REMEMBERED: usize = 64;
/// A volume that is mounted at one of these places is one that the system runs from.
const SYSTEM: [&str; 4] = ["/", "/boot", "/usr", "/var"];

/// The reverts since the service started: the last one of each volume.
#[derive(Debug, Default)]
pub struct Reverts {
    latest: Mutex<Vec<Arc<Revert>>>,
}

/// One revert.
#[derive(Debug)]
pub struct Revert {
    copy: KeptCopy,
    owner: u32,
    status: watch::Sender<RevertStatus>,
    /// It may have written something: its provider has told of it, now or in an earlier run.
    has_begun: AtomicBool,
}

impl Reverts {
    fn latest(&self) -> MutexGuard<'_, Vec<Arc<Revert>>> {
        // A panic elsewhere cannot leave the list half changed.
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last revert of this volume, for its owner and root.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND` when there is none; `E_ACCESSDENIED`.
    pub fn of(&self, peer: &Peer, volume_id: &VolumeId) -> Result<Arc<Revert>, VssError> {
        let found = self.latest().iter().find(|revert| revert.copy.stored.volume.id == *volume_id).cloned();
        let revert = found.ok_or_else(|| {
            VssError::new(VssCode::ObjectNotFound, format!("No revert of {volume_id} is running or has ended"))
                .with_hint("The service remembers those since its start")
        })?;
        rules::owner(peer, revert.owner, "see this revert")?;
        Ok(revert)
    }

    /// Checks that a volume may be put back to this copy now, and records it. What is returned has to [`Revert::run`]. May
    /// block; the caller holds [`Environment::changes`].
    ///
    /// # Errors
    /// Those of `RevertToSnapshot` in the interface.
    pub fn begin(&self, environment: &Environment, peer: &Peer, shadow_id: ShadowId) -> Result<Arc<Revert>, VssError> {
        let (entry, copy) = removal::find(environment, shadow_id)?;
        rules::owner(peer, entry.set.owner, &format!("revert to shadow copy {shadow_id}"))?;
        let volume = &copy.stored.volume;
        let unfinished = pending(environment, &volume.id)?;
        if let Some(other) = unfinished.as_ref().filter(|pending| pending.shadow_id != shadow_id) {
            return Err(in_progress(volume, other.shadow_id));
        }
        if !entry.set.context.is_persistent() {
            let message =
                format!("Shadow copy {shadow_id} is not persistent: it could be gone before its revert is ended");
            return Err(VssError::new(VssCode::UnsupportedContext, message)
                .with_hint("Make copies to go back to with `vss create --persistent`"));
        }
        let provider = environment.providers.named(&copy.provider)?;
        if provider.revert().is_none() {
            return Err(VssError::new(
                VssCode::NotImplemented,
                format!("Provider {} cannot put a volume back to a copy", copy.provider),
            )
            .with_hint(format!("Copy the files back: `vss expose {shadow_id} DIR`, then rsync or cp")));
        }
        check_is_free(volume)?;
        let revert = self.take(copy.clone(), entry.set.owner, unfinished.is_some())?;
        let record = PendingRevert { volume_id: volume.id.clone(), shadow_id, began_at: Instant::now() };
        if unfinished.is_none()
            && let Err(error) = environment.catalogue.begin_revert(&record)
        {
            self.forget(&volume.id);
            return Err(error);
        }
        Ok(revert)
    }

    /// The reverts that an earlier run of the service left unfinished; those that can go on now have to [`Revert::run`]. May
    /// block.
    #[must_use]
    pub fn left(&self, environment: &Environment) -> Vec<Arc<Revert>> {
        let pending = environment.catalogue.reverts().unwrap_or_else(|error| {
            tracing::error!(%error, "unfinished reverts are not known");
            Vec::new()
        });
        let go_on = |pending: PendingRevert| {
            let (entry, copy) = match removal::find(environment, pending.shadow_id) {
                Ok(found) => found,
                Err(error) => {
                    tracing::error!(volume = %pending.volume_id, %error, "a revert cannot be ended: its copy is gone");
                    return None;
                }
            };
            let revert = self.take(copy, entry.set.owner, true).ok()?;
            match revert.may_go_on(environment) {
                Ok(true) => Some(revert),
                Ok(false) => {
                    self.forget(&pending.volume_id);
                    if let Err(error) = environment.catalogue.end_revert(&pending.volume_id) {
                        tracing::error!(%error, "a revert that is over cannot be forgotten");
                    }
                    tracing::info!(volume = %pending.volume_id, "a revert had not begun, or had ended");
                    None
                }
                Err(error) => {
                    tracing::error!(volume = %pending.volume_id, %error, "a revert cannot go on");
                    revert.end(RevertState::Unfinished, 0, Some(error));
                    None
                }
            }
        };
        pending.into_iter().filter_map(go_on).collect()
    }

    /// Forgets an unfinished revert to this copy. May block.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND` when there is none; `VSS_E_REVERT_IN_PROGRESS` while it is running; `E_ACCESSDENIED`; what the
    /// provider says.
    pub fn give_up(
        &self,
        environment: &Environment,
        peer: &Peer,
        shadow_id: ShadowId,
    ) -> Result<RevertStatus, VssError> {
        let (entry, copy) = removal::find(environment, shadow_id)?;
        rules::owner(peer, entry.set.owner, "give up this revert")?;
        let volume = &copy.stored.volume;
        if pending(environment, &volume.id)?.is_none_or(|pending| pending.shadow_id != shadow_id) {
            let message = format!("No revert to shadow copy {shadow_id} is unfinished");
            return Err(VssError::new(VssCode::ObjectNotFound, message));
        }
        let known = self.latest().iter().find(|revert| revert.copy.stored.volume.id == volume.id).cloned();
        if known.as_ref().is_some_and(|revert| revert.is_running()) {
            return Err(in_progress(volume, shadow_id));
        }
        if let Some(revert) = environment.providers.named(&copy.provider)?.revert() {
            revert.give_up(&copy.stored).map_err(|error| by_contract(&copy.provider, error))?;
        }
        environment.catalogue.end_revert(&volume.id)?;
        self.forget(&volume.id);
        tracing::warn!(%shadow_id, volume = %volume.id, "an unfinished revert was given up");
        Ok(known.map_or_else(|| beginning(&copy, RevertState::Unfinished), |revert| revert.status()))
    }

    /// The place of the volume's revert, if none is running there.
    fn take(&self, copy: KeptCopy, owner: u32, has_begun: bool) -> Result<Arc<Revert>, VssError> {
        let mut latest = self.latest();
        let volume = &copy.stored.volume;
        if let Some(running) = latest.iter().find(|one| one.copy.stored.volume.id == volume.id && one.is_running()) {
            return Err(in_progress(volume, running.copy.stored.shadow_id));
        }
        latest.retain(|one| one.copy.stored.volume.id != volume.id);
        if latest.len() >= REMEMBERED
            && let Some(oldest) = latest.iter().position(|one| !one.is_running())
        {
            latest.remove(oldest);
        }
        let status = watch::Sender::new(beginning(&copy, RevertState::Running));
        let revert = Arc::new(Revert { copy, owner, status, has_begun: AtomicBool::new(has_begun) });
        latest.push(Arc::clone(&revert));
        Ok(revert)
    }

    fn forget(&self, volume_id: &VolumeId) {
        self.latest().retain(|revert| revert.copy.stored.volume.id != *volume_id);
    }
}

impl Revert {
    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> RevertStatus {
        self.status.borrow().clone()
    }

    /// Follows it; the receiver wakes with everything that is told.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<RevertStatus> {
        self.status.subscribe()
    }

    fn is_running(&self) -> bool {
        self.status.borrow().state == RevertState::Running
    }

    /// May it go on by itself, with nobody who was asked? False when nothing is left to be done. May block.
    fn may_go_on(&self, environment: &Environment) -> Result<bool, VssError> {
        let (copy, volume) = (&self.copy.stored, &self.copy.stored.volume);
        let provider = environment.providers.named(&self.copy.provider)?;
        let revert = provider.revert().ok_or_else(|| VssError::new(VssCode::NotImplemented, "It cannot revert"))?;
        let left = revert.left(copy).map_err(|error| by_contract(&self.copy.provider, error))?;
        if left == Left::Nothing {
            return Ok(false);
        }
        check_is_free(volume)?;
        let Left::Touched(why) = left else { return Ok(true) };
        let (place, shadow_id) = (volume.mount_point.display(), copy.shadow_id);
        Err(VssError::new(
            VssCode::RevertInProgress,
            format!("The revert of {place} to shadow copy {shadow_id} broke off, and does not go on by itself: {why}"),
        )
        .with_hint(format!(
            "`vss revert {shadow_id}` ends it, and what was written to the volume since is lost; `vss revert {shadow_id} \
             --give-up` leaves the volume as it is"
        )))
    }

    /// Lets the provider write, and settles what became of it. Blocks for as long as that takes.
    pub fn run(&self, environment: &Environment) {
        let (shadow_id, volume) = (self.copy.stored.shadow_id, &self.copy.stored.volume);
        tracing::info!(%shadow_id, volume = %volume.id, "reverting");
        let forget = || {
            if let Err(error) = environment.catalogue.end_revert(&volume.id) {
                tracing::error!(%error, "a revert that is over cannot be forgotten");
            }
        };
        match self.write_back(environment) {
            Ok(written) => {
                forget();
                tracing::info!(%shadow_id, volume = %volume.id, written, "reverted");
                self.end(RevertState::Finished, written, None);
            }
            Err(error) if self.has_begun.load(Ordering::Relaxed) => {
                tracing::error!(%shadow_id, volume = %volume.id, %error, "a revert broke off");
                self.end(RevertState::Unfinished, 0, Some(error));
            }
            Err(error) => {
                forget();
                tracing::warn!(%shadow_id, volume = %volume.id, %error, "a revert failed before it changed anything");
                self.end(RevertState::Failed, 0, Some(error));
            }
        }
    }

    fn write_back(&self, environment: &Environment) -> Result<u64, VssError> {
        let provider = environment.providers.named(&self.copy.provider)?;
        let revert = provider.revert().ok_or_else(|| VssError::new(VssCode::NotImplemented, "It cannot revert"))?;
        let done = revert.revert(&self.copy.stored, self).map_err(|error| {
            let is_lost = error.code == VssCode::ObjectNotFound
                && !matches!(provider.presence(&self.copy.stored), Ok(Presence::Gone));
            if is_lost {
                return VssError::new(VssCode::RevertVolumeLost, error.message)
                    .with_hint("Attach the volume's device and revert again");
            }
            by_contract(&self.copy.provider, error)
        })?;
        Ok(done.written_bytes)
    }

    fn end(&self, state: RevertState, written_bytes: u64, failure: Option<VssError>) {
        self.status.send_modify(|status| {
            status.progress += 1;
            (status.state, status.written_bytes, status.failure) = (state, written_bytes, failure);
        });
    }
}

impl Watcher for Revert {
    fn progress(&self, progress: Progress) {
        self.has_begun.store(true, Ordering::Relaxed);
        // Here a test ends the service in the middle.
        let _planned = fault::at("revert", Victims::default());
        self.status.send_modify(|status| {
            status.progress += 1;
            (status.bytes_done, status.bytes_total) = (progress.bytes_done, progress.bytes_total);
        });
    }
}

/// The unfinished revert of a volume.
///
/// # Errors
/// `VSS_E_UNEXPECTED` when the catalogue cannot be read.
pub fn pending(environment: &Environment, volume_id: &VolumeId) -> Result<Option<PendingRevert>, VssError> {
    if fault::is_off("reverts") {
        return Ok(None);
    }
    Ok(environment.catalogue.reverts()?.into_iter().find(|pending| pending.volume_id == *volume_id))
}

/// The error for who meets a revert.
#[must_use]
pub fn in_progress(volume: &Volume, shadow_id: ShadowId) -> VssError {
    let place = volume.mount_point.display();
    VssError::new(VssCode::RevertInProgress, format!("{place} is being put back to shadow copy {shadow_id}"))
        .with_hint(format!("Wait for its end; if it broke off, `vss revert {shadow_id}` ends it"))
}

fn beginning(copy: &KeptCopy, state: RevertState) -> RevertStatus {
    let volume = &copy.stored.volume;
    RevertStatus {
        volume_id: volume.id.clone(),
        volume: volume.mount_point.clone(),
        shadow_id: copy.stored.shadow_id,
        state,
        progress: 1,
        bytes_done: 0,
        bytes_total: 0,
        written_bytes: 0,
        failure: None,
    }
}

/// Says who uses the volume's device. When another file system is at its place by now, its provider will find it, or say that
/// it is lost.
fn check_is_free(volume: &Volume) -> Result<(), VssError> {
    let device = Path::new(&volume.source);
    let is_it = |uuid: fs_uuid::FsUuid| uuid.to_string() == volume.uuid;
    if !fs_uuid::of_device(device, &volume.fs_type).ok().flatten().is_some_and(is_it) {
        return Ok(());
    }
    let used = device_use::of_device(device).map_err(|error| {
        VssError::new(VssCode::Unexpected, format!("It cannot be found out who uses {}: {error}", device.display()))
    })?;
    if used.is_free() {
        return Ok(());
    }
    let message = format!("{} cannot be overwritten: {}", device.display(), used.words());
    let is_system = used.swap || used.mounts.iter().any(|place| SYSTEM.iter().any(|one| place == Path::new(one)));
    if is_system {
        return Err(VssError::new(VssCode::VolumeNotSupported, message)
            .with_hint("The system runs from it: start another one, a rescue system, and revert there"));
    }
    let place = used.mounts.first().map_or_else(|| "it".to_owned(), |place| place.display().to_string());
    Err(VssError::new(VssCode::VolumeInUse, message)
        .with_hint(format!("`umount {place}` first; `fuser -vm {place}` shows which programs have files open there")))
}
