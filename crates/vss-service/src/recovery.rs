//! What the service does at its start, before anybody is served: puts right whatever an earlier life left behind, and says
//! what it did (design 2.1; issue "catalogue").
//!
//! In this order: thaw what a dead guard left frozen; undo creations that were under way; delete what does not outlive its
//! session or its boot; forget what is gone; remove documents without a set; take away stray mounts; show persistent exposures again.

use crate::catalogue::{KeptCopy, PendingRevert, SetEntry};
use crate::environment::Environment;
use std::collections::BTreeSet;
use std::path::Path;
use vss_linux::hold::sweep;
use vss_model::{ShadowId, VssError};
use vss_provider::{Deletion, Presence};

/// Thaws what dead guards left frozen. Needs nothing but the runtime directory, so it comes before everything else. What a
/// disk that does not answer keeps, is thawed in the background when it does.
#[must_use]
pub fn thaw(runtime_directory: &Path) -> Vec<String> {
    match sweep::sweep(runtime_directory, sweep::START_LIMIT) {
        Ok(swept) => swept.iter().map(ToString::to_string).collect(),
        Err(error) => vec![format!("The ledgers of holds could not be read: {error}")],
    }
}

/// Puts the rest right. May block; what fails is said and left for the next start.
#[must_use]
pub fn recover(environment: &Environment) -> Vec<String> {
    let mut report = Vec::new();
    undo_pending(environment, &mut report);
    for entry in environment.catalogue.sets() {
        settle(environment, entry, &mut report);
    }
    let kept: BTreeSet<ShadowId> =
        environment.catalogue.sets().iter().flat_map(|entry| &entry.copies).map(|copy| copy.stored.shadow_id).collect();
    let sets = environment.catalogue.sets().iter().map(|entry| entry.set.set_id).collect();
    match environment.catalogue.documents().clear(&sets) {
        Ok(0) => {}
        Ok(1) => report.push("Removed the documents of 1 set that is not there".to_owned()),
        Ok(count) => report.push(format!("Removed the documents of {count} sets that are not there")),
        Err(error) => report.push(format!("Documents of sets that are not there were left: {error}")),
    }
    match environment.exposures.clear(&kept) {
        Ok(0) => {}
        Ok(1) => report.push("Unmounted 1 mount of an earlier run".to_owned()),
        Ok(count) => report.push(format!("Unmounted {count} mounts of an earlier run")),
        Err(error) => report.push(format!("Stray mounts were left: {error}")),
    }
    expose_again(environment, &mut report);
    let told = |revert: &PendingRevert| {
        format!("The revert of {} to shadow copy {} broke off", revert.volume_id, revert.shadow_id)
    };
    match environment.catalogue.reverts() {
        Ok(reverts) => report.extend(reverts.iter().map(told)),
        Err(error) => report.push(format!("Reverts that broke off are not known: {error}")),
    }
    report
}

/// Deletes whatever creations that were under way may have made.
fn undo_pending(environment: &Environment, report: &mut Vec<String>) {
    let pending = match environment.catalogue.pending() {
        Ok(pending) => pending,
        Err(error) => return report.push(format!("Creations that were under way are not known: {error}")),
    };
    for set in pending {
        let mut deleted = 0;
        let mut left = None;
        for copy in &set.copies {
            match delete(environment, copy) {
                Ok(Deletion::Deleted) => deleted += 1,
                Ok(Deletion::WasGone) => {}
                Err(error) => left = Some(error),
            }
        }
        let forgotten = match left {
            None => environment.catalogue.forget_pending(set.set_id),
            Some(error) => Err(error),
        };
        report.push(match forgotten {
            Ok(()) => {
                format!("Undid set {} of {}, which was under way ({deleted} copies deleted)", set.set_id, set.requester)
            }
            Err(error) => format!("Set {} of {} is not wholly undone: {error}", set.set_id, set.requester),
        });
    }
}

/// Decides what becomes of one finished set.
fn settle(environment: &Environment, entry: SetEntry, report: &mut Vec<String>) {
    let context = entry.set.context;
    let outlived = if context.is_auto_release() {
        Some("its session has ended")
    } else if !context.is_persistent() && entry.boot_id != environment.boot_id {
        Some("it was to live until reboot")
    } else {
        None
    };
    for copy in entry.copies {
        let shadow_id = copy.stored.shadow_id;
        let gone = match outlived {
            Some(why) => match end(environment, &copy) {
                Ok(()) => Some(format!("Deleted shadow copy {shadow_id}: {why}")),
                Err(error) => {
                    report.push(format!("Shadow copy {shadow_id} is not deleted ({why}): {error}"));
                    None
                }
            },
            None => match presence(environment, &copy) {
                Ok(Presence::Gone) => match environment.unexpose(shadow_id) {
                    Ok(_) => Some(format!("Forgot shadow copy {shadow_id}: it is gone from its volume")),
                    Err(error) => {
                        report.push(format!(
                            "Shadow copy {shadow_id} is gone from its volume, and still mounted: {error}"
                        ));
                        None
                    }
                },
                Ok(Presence::Present) => None,
                Ok(Presence::Unreachable) => {
                    report.push(format!("Shadow copy {shadow_id}: its volume cannot be reached now"));
                    None
                }
                Err(error) => {
                    report.push(format!("Shadow copy {shadow_id} cannot be examined: {error}"));
                    None
                }
            },
        };
        if let Some(said) = gone {
            report.push(environment.catalogue.remove_copy(shadow_id).map_or_else(|error| error.to_string(), |()| said));
        }
    }
}

fn end(environment: &Environment, copy: &KeptCopy) -> Result<(), VssError> {
    environment.unexpose(copy.stored.shadow_id)?;
    delete(environment, copy).map(drop)
}

fn delete(environment: &Environment, copy: &KeptCopy) -> Result<Deletion, VssError> {
    environment.providers.named(&copy.provider)?.delete(&copy.stored)
}

fn presence(environment: &Environment, copy: &KeptCopy) -> Result<Presence, VssError> {
    environment.providers.named(&copy.provider)?.presence(&copy.stored)
}

/// Shows copies again that were exposed at a directory in an earlier boot. Whoever unmounted one in this boot meant it.
fn expose_again(environment: &Environment, report: &mut Vec<String>) {
    for copy in environment.catalogue.sets().into_iter().flat_map(|entry| entry.copies) {
        let shadow_id = copy.stored.shadow_id;
        let show = || -> Result<Option<String>, VssError> {
            let Some(exposure) = environment.catalogue.exposure(shadow_id)? else { return Ok(None) };
            let place = exposure.place.display();
            if exposure.boot_id == environment.boot_id {
                if exposure.is_there(&environment.exposures.mounts()?) {
                    return Ok(None);
                }
                environment.catalogue.set_exposure(shadow_id, None)?;
                return Ok(Some(format!("Shadow copy {shadow_id} was unmounted from {place}: not exposed any more")));
            }
            let provider = environment.providers.named(&copy.provider)?;
            let trees = provider.mount(&copy.stored, false)?;
            environment.expose_at(shadow_id, trees, &exposure.place)?;
            Ok(Some(format!("Exposed shadow copy {shadow_id} at {place} again")))
        };
        match show() {
            Ok(said) => report.extend(said),
            Err(error) => report.push(format!("Shadow copy {shadow_id} is not exposed: {error}")),
        }
    }
}
