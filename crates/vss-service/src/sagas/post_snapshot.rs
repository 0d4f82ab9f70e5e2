//! The row in which the copies can be written to: writers mend them, and what writers exclude from them is deleted.

use super::StepFuture;
use super::create_set::CreateSet;
use crate::writers::excluded;
use crate::{blocking, fault};
use rustix::fs::OFlags;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use vss_model::{Attributes, FileSet, Volume, VssCode, VssError, involvement, limits};

/// The directories of the members whose copies can be written to, each with its index in the set.
type Directories = Vec<(usize, OwnedFd)>;

pub(super) fn post_snapshot(saga: &mut CreateSet) -> StepFuture<'_> {
    Box::pin(async {
        // Nobody may change copies that were asked for without recovery (spec P 3.3).
        let changes =
            !saga.plan.facts.attributes.contains(Attributes::NO_AUTORECOVERY) || fault::is_off("no_autorecovery");
        let directories =
            if changes && saga.writers.involved().next().is_some() { stage(saga).await? } else { Vec::new() };
        let told = saga.writers.post_snapshot(&saga.plan.facts, &directories);
        saga.operation.unless_cancelled(told).await??;
        if changes && !fault::is_off("exclude") {
            exclude(saga, &directories).await;
        }
        drop(directories);
        unstage(saga).await?;
        saga.judge_writers()
    })
}

pub(super) fn unstage(saga: &mut CreateSet) -> StepFuture<'_> {
    Box::pin(async {
        while let Some(shadow_id) = saga.staged.pop() {
            let staging = Arc::clone(&saga.environment.staging);
            blocking::run("Unmounting a copy", limits::PROVIDER_IN_WINDOW, move || staging.unstage(shadow_id)).await?;
        }
        Ok(())
    })
}

async fn stage(saga: &mut CreateSet) -> Result<Directories, VssError> {
    let mut directories = Vec::new();
    for (index, member) in saga.plan.members.iter().enumerate() {
        // A copy that nobody can write to has no directory for its writers: mending it fails in their hands.
        if !member.provider.properties().capabilities.writable_phase {
            continue;
        }
        let stored = saga.stored(member);
        let (provider, staging) = (Arc::clone(&member.provider), Arc::clone(&saga.environment.staging));
        let (shadow_id, volume) = (member.shadow_id, member.volume.clone());
        saga.staged.push(shadow_id);
        let work = move || {
            let trees = provider.mount(&stored, true)?;
            shown_by(&volume, staging.stage(shadow_id, trees)?)
        };
        let staged = blocking::run("Mounting a copy for its writers", limits::PROVIDER_OUTSIDE, work).await?;
        directories.push((index, staged));
    }
    Ok(directories)
}

/// What of the copy the volume's mount point shows: writers know their files by it, not by the volume's root.
fn shown_by(volume: &Volume, copy: OwnedFd) -> Result<OwnedFd, VssError> {
    let inside = volume.root.strip_prefix("/").unwrap_or(&volume.root);
    vss_linux::mount::open_beneath(&copy, inside, OFlags::RDONLY | OFlags::DIRECTORY).map_err(|error| {
        let message =
            format!("The copy has no {}, which {} shows: {error}", inside.display(), volume.mount_point.display());
        VssError::new(VssCode::Unexpected, message)
    })
}

/// A file set that a writer excludes, in the copy of one member.
struct Exclusion {
    set: FileSet,
    /// Where in the copy it begins.
    begin: PathBuf,
    /// The member's index.
    member: usize,
    writer: String,
    uid: u32,
}

fn exclusions(saga: &CreateSet) -> Vec<Exclusion> {
    let mounts: Vec<_> = saga.mounts.iter().map(|(path, volume)| (path.as_path(), volume)).collect();
    let mut found = Vec::new();
    for writer in saga.writers.involved().filter(|writer| !writer.state().is_failed()) {
        for set in &writer.metadata.declaration.exclude_files_from_snapshot {
            for (index, member) in saga.plan.members.iter().enumerate() {
                // Not where something else is mounted on the volume: its files are not in this copy.
                let holds = set.recursive || involvement::volume_of(&set.path, &mounts) == Some(&member.volume.id);
                let begin = excluded::place_in_copy(set, &member.volume.mount_point).filter(|_| holds);
                found.extend(begin.map(|begin| Exclusion {
                    set: set.clone(),
                    begin,
                    member: index,
                    writer: writer.metadata.name.clone(),
                    uid: writer.writer.uid,
                }));
            }
        }
    }
    found
}

/// Deletes from the copies what the involved writers exclude from them. As well as can be (spec P 3.3): what is left is told.
async fn exclude(saga: &mut CreateSet, directories: &Directories) {
    for Exclusion { set, begin, member, writer, uid } in exclusions(saga) {
        let files = set.path.join(&set.pattern);
        let done = match directories.iter().find(|(of, _)| *of == member).map(|(_, root)| root.try_clone()) {
            None => Err("its copies cannot be written to".to_owned()),
            Some(Err(error)) => Err(error.to_string()),
            Some(Ok(root)) => {
                let work = move || {
                    excluded::delete(&root, &begin, &set, uid)
                        .map_err(|error| VssError::new(VssCode::Unexpected, error.to_string()))
                };
                let done = blocking::run("Deleting what a writer excludes", limits::PROVIDER_OUTSIDE, work);
                done.await.map_err(|error| error.message)
            }
        };
        match done {
            Ok(count) => tracing::debug!(writer, count, files = %files.display(), "deleted what it excludes"),
            Err(why) => {
                let member = &saga.plan.members[member];
                let (name, place) = (member.provider.properties().name, member.volume.mount_point.display());
                let files = files.display();
                let message = format!(
                    "{files}, which writer {writer} excludes from shadow copies, is in the copy of {place}: {why}"
                );
                let failure = VssError::new(VssCode::NotSupported, message);
                tracing::warn!(writer, %failure, "excluded files stay");
                saga.plan.facts.teller.provider_trouble(saga.plan.set_id, &name, "exclude", &failure);
            }
        }
    }
}
