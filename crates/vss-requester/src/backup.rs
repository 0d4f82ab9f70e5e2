//! One backup: the order of calls from the opening of the session to its release (spec R 1.3).

mod base;
mod choice;
mod making;
mod quality;

use crate::components::WriterComponents;
use crate::volumes::{self, Mount, Selected};
use crate::{BackupRequest, Management, Monitor, Requester};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use vss_api::requester::VolumeAdded;
use vss_model::{
    BackupState, ShadowCopySet, ShadowId, VssCode, VssError, WriterInstanceId, WriterMetadata, WriterStatus,
};

/// A finished set and the session that made it. Dropping it ends the session, and with it the set where its context is
/// auto-release.
#[derive(Debug)]
pub struct Backup {
    requester: Requester,
    set: ShadowCopySet,
    members: Vec<VolumeAdded>,
    statuses: Vec<WriterStatus>,
    chosen: Vec<WriterComponents>,
    not_copied: Vec<(PathBuf, String)>,
    /// What was exposed here and not taken away.
    exposed: BTreeSet<ShadowId>,
}

impl Backup {
    /// Makes the set, on a connection without a session yet. When it fails, nothing is kept and the writers have been told.
    ///
    /// # Errors
    /// What the service answers to any of the calls (spec R 10); `VSS_E_OBJECT_NOT_FOUND` for a named writer that is not
    /// there; `VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT` when the set is worse than required; `E_ABORT` when `monitor`
    /// wished to stop.
    pub fn create(
        mut requester: Requester,
        request: &BackupRequest,
        monitor: &mut dyn Monitor,
    ) -> Result<Self, VssError> {
        let session_id = requester.initialize_for_backup(&request.requester)?;
        monitor.opened(session_id);
        requester.set_context(request.context)?;
        let select_components = request.state.select_components || !request.components.is_empty();
        requester.set_backup_state(BackupState { select_components, ..request.state })?;
        if request.context.has_writers() {
            choice::choose_writers(&mut requester, &request.writers, monitor)?;
        }
        let (chosen, volumes, not_copied) = choice::choose_components(&mut requester, request)?;
        making::start_set(&mut requester, request, monitor)?;
        let finished = making::make_set(&mut requester, request, &volumes, monitor);
        let (members, statuses, set) = match finished {
            Ok(finished) => finished,
            Err(error) => {
                // Required once a set was begun (spec R 1.6). Its failure changes nothing: the end of the connection,
                // which follows, undoes the same. Who wished twice to stop does not want to wait for it.
                if monitor.interruptions() < 2 {
                    let _ = requester.abort_backup();
                }
                return Err(error);
            }
        };
        let mut backup = Self { requester, set, members, statuses, chosen, not_copied, exposed: BTreeSet::new() };
        match request.require.map_or(Ok(()), |level| quality::require(&backup.set, level)) {
            Ok(()) => Ok(backup),
            Err(error) => {
                let _ = backup.requester.abort_backup();
                backup.delete().map_err(|why| error.clone().while_doing(format!("It could not be deleted ({why})")))?;
                Err(error)
            }
        }
    }

    /// The record of the finished set.
    #[must_use]
    pub fn set(&self) -> &ShadowCopySet {
        &self.set
    }

    /// The volumes as the service added them, in the order of the request.
    #[must_use]
    pub fn members(&self) -> &[VolumeAdded] {
        &self.members
    }

    /// The status of the session's writers right after the set was made; empty in a context without writers.
    #[must_use]
    pub fn writer_statuses(&self) -> &[WriterStatus] {
        &self.statuses
    }

    /// The explicit components of the backup, by writer; empty without components.
    #[must_use]
    pub fn components(&self) -> &[WriterComponents] {
        &self.chosen
    }

    /// Mounts below the trees of components that no provider can copy, and why: what is there is in no copy, and a component
    /// that does not exclude it is not whole (spec R 1.9).
    #[must_use]
    pub fn not_copied(&self) -> &[(PathBuf, String)] {
        &self.not_copied
    }

    /// What the writers said of themselves; empty in a context without writers.
    ///
    /// # Errors
    /// What the service answers.
    pub fn writer_metadata(&mut self) -> Result<Vec<WriterMetadata>, VssError> {
        if self.set.context.has_writers() { self.requester.writer_metadata() } else { Ok(Vec::new()) }
    }

    /// The explicit components that their writers gave up while the set was made, and those of writers that failed: their
    /// files are in the copies, and not as the writer would restore them. By number: those of all writers are counted in
    /// their order.
    #[must_use]
    pub fn given_up(&self) -> BTreeSet<usize> {
        quality::given_up(&self.set, &self.chosen)
    }

    /// Tells the service of each explicit component whether all its files are in the backup. `succeeded` gets the number of
    /// the component. One that was given up has failed, whatever is said of it.
    ///
    /// # Errors
    /// What the service answers.
    pub fn report(&mut self, succeeded: impl Fn(usize) -> bool) -> Result<(), VssError> {
        let given_up = self.given_up();
        let references: Vec<_> = self.chosen.iter().flat_map(WriterComponents::references).collect();
        for (number, reference) in references.into_iter().enumerate() {
            self.requester.set_backup_succeeded(reference, succeeded(number) && !given_up.contains(&number))?;
        }
        Ok(())
    }

    /// The Backup Components Document of this backup as it is now: stamps, metadata and files that writers named, and what
    /// was reported of them.
    ///
    /// # Errors
    /// What the service answers.
    pub fn document(&self) -> Result<Vec<u8>, VssError> {
        Management::connect(self.requester.instance())?.document(self.set.set_id, None)
    }

    /// The same, with the Writer Metadata Documents of the writers that have explicit components in the backup: what is to
    /// be saved beside the files. Each by the writer that it is of.
    ///
    /// # Errors
    /// What the service answers.
    pub fn documents(&self) -> Result<BTreeMap<Option<WriterInstanceId>, Vec<u8>>, VssError> {
        let mut management = Management::connect(self.requester.instance())?;
        let of_writers = self.chosen.iter().map(|writer| Some(writer.metadata.instance_id));
        let all = std::iter::once(None).chain(of_writers);
        all.map(|of| Ok((of, management.document(self.set.set_id, of)?))).collect()
    }

    /// What is less than it could be because a writer failed that the request let pass (`strict: false`): a sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        quality::degraded(&self.set, &self.statuses)
    }

    /// Where the copy of `path`, an absolute path of the live system, can be read. The copy is exposed if it is not yet.
    ///
    /// # Errors
    /// `VSS_E_SNAPSHOT_NOT_IN_SET` when no volume of the set holds the path; `E_ACCESSDENIED` for others than root; what the
    /// service answers.
    pub fn copy_of(&mut self, path: &Path) -> Result<PathBuf, VssError> {
        let path = match path.canonicalize() {
            // The copy may have what the live volume has no more.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && path.is_absolute() => path.to_owned(),
            _ => volumes::resolve(path)?,
        };
        let (shadow_id, inner) = place_of(&self.members, &volumes::mounts()?, path.clone()).ok_or_else(|| {
            let message = format!("No volume of the shadow copy set holds {}", path.display());
            VssError::new(VssCode::SnapshotNotInSet, message).with_hint("Add a path on its volume to the request")
        })?;
        let root = self.expose(shadow_id)?;
        Ok(if inner.as_os_str().is_empty() { root } else { root.join(inner) })
    }

    /// Shows a shadow copy at a directory of the service's own and returns it.
    ///
    /// # Errors
    /// What the service answers.
    pub fn expose(&mut self, shadow_id: ShadowId) -> Result<PathBuf, VssError> {
        let place = self.requester.expose_snapshot(shadow_id, None)?;
        self.exposed.insert(shadow_id);
        Ok(place)
    }

    /// Tells the writers whether the files are in the backup: BackupComplete, else Abort. Nothing to say in a context
    /// without writers.
    ///
    /// # Errors
    /// What the service answers; why the first writer failed that did in BackupComplete.
    pub fn finish(&mut self, succeeded: bool, monitor: &mut dyn Monitor) -> Result<(), VssError> {
        match (self.set.context.has_writers(), succeeded) {
            (false, _) => Ok(()),
            (true, true) => {
                self.requester.backup_complete(monitor)?;
                // The call succeeds whatever they answered (spec R 1.3).
                self.requester.gather_writer_status(monitor)?;
                quality::all_completed(&self.requester.writer_status()?)
            }
            (true, false) => self.requester.abort_backup(),
        }
    }

    /// Takes the set's shadow copies away from where they are shown, deletes them whatever their context, and returns when
    /// they are gone. Also when the service was lost: the next one is asked.
    ///
    /// # Errors
    /// What the service answers: `VSS_E_VOLUME_IN_USE` while somebody reads a copy.
    pub fn delete(&mut self) -> Result<(), VssError> {
        let mut in_use = Ok(());
        for shadow_id in std::mem::take(&mut self.exposed) {
            match self.requester.unexpose_snapshot(shadow_id) {
                // Gone with the service, or taken away by somebody else.
                Ok(())
                | Err(VssError { code: VssCode::ObjectNotFound | VssCode::BadState | VssCode::Unexpected, .. }) => {}
                Err(error) => in_use = Err(error.while_doing(format!("Shadow copy {shadow_id} is still mounted"))),
            }
        }
        Management::connect(self.requester.instance())?.delete_set(self.set.set_id)?;
        in_use
    }
}

impl AsFd for Backup {
    /// Readable only when the service has ended the session, while no call is under way.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.requester.as_fd()
    }
}

/// The copy of the volume that holds `path`, and its place in that volume.
fn place_of(members: &[VolumeAdded], mounts: &[Mount], path: PathBuf) -> Option<(ShadowId, PathBuf)> {
    let wanted = Selected::among(mounts, path)?;
    let is_of_volume = |member: &&VolumeAdded| {
        Selected::among(mounts, member.volume.clone()).is_some_and(|member| member.volume == wanted.volume)
    };
    Some((members.iter().find(is_of_volume)?.shadow_id, wanted.inner))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::VolumeKey;

    #[test]
    fn a_path_is_found_in_the_copy_of_its_volume() {
        let volume = |device| VolumeKey { device, subvolume: 0 };
        let mounts: Vec<Mount> = [("/", 1, ""), ("/srv", 2, ""), ("/mnt/bound", 2, "shop/data"), ("/srv/wal", 3, "")]
            .map(|(place, device, root)| Mount {
                mount_point: place.into(),
                volume: volume(device),
                root: root.into(),
                is_interface: false,
            })
            .into();
        let member = |place: &str| VolumeAdded {
            shadow_id: ShadowId::random(),
            volume: place.into(),
            inner: "elsewhere".into(),
            provider: "fake".to_owned(),
        };
        let members = [member("/"), member("/srv")];
        let found = |path: &str| place_of(&members, &mounts, path.into());
        assert_eq!(found("/etc/x"), Some((members[0].shadow_id, "etc/x".into())));
        assert_eq!(found("/srv"), Some((members[1].shadow_id, PathBuf::new())));
        // The same volume by another mount.
        assert_eq!(found("/mnt/bound/file"), Some((members[1].shadow_id, "shop/data/file".into())));
        // It is mounted below a member and belongs to none.
        assert_eq!(found("/srv/wal/1"), None);
    }
}
