//! One backup: the order of calls from the opening of the session to its release (spec R 1.3).

use crate::components::{self, WriterComponents};
use crate::volumes::{self, Mount, Selected};
use crate::{BackupRequest, Management, Monitor, Requester, WriterChoice, requester::interrupted};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use vss_api::management::RegisteredWriter;
use vss_api::requester::{VolumeAdded, VolumeQuestion};
use vss_model::{
    BackupState, ComponentName, Consistency, SessionComponent, ShadowCopySet, ShadowId, VssCode, VssError,
    WriterClassId, WriterInstanceId, WriterMetadata, WriterState, WriterStatus,
};

/// Time between two tries to begin a set while another one is being created.
const RETRY: Duration = Duration::from_millis(100);

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
            choose_writers(&mut requester, &request.writers, monitor)?;
        }
        let (chosen, volumes, not_copied) = choose_components(&mut requester, request)?;
        start_set(&mut requester, request, monitor)?;
        let finished = make_set(&mut requester, request, &volumes, monitor);
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
        match request.require.map_or(Ok(()), |level| require(&backup.set, level)) {
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

    /// Mounts below the trees of components that no provider can copy, and why: what is there is in no copy.
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

    /// Tells the service of each explicit component whether all its files are in the backup. `succeeded` gets the number of
    /// the component: those of all writers are counted in their order.
    ///
    /// # Errors
    /// What the service answers.
    pub fn report(&mut self, succeeded: impl Fn(usize) -> bool) -> Result<(), VssError> {
        let references: Vec<_> = self.chosen.iter().flat_map(WriterComponents::references).collect();
        for (number, reference) in references.into_iter().enumerate() {
            self.requester.set_backup_succeeded(reference, succeeded(number))?;
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
        degraded(&self.set, &self.statuses)
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
                all_completed(&self.requester.writer_status()?)
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

fn degraded(set: &ShadowCopySet, statuses: &[WriterStatus]) -> Vec<String> {
    let failed = statuses.iter().filter(|writer| writer.involved).filter_map(|writer| {
        let failure = writer.failure.as_ref()?;
        Some(format!("Writer {} failed: {failure}", writer.name))
    });
    let worse = set.writers.iter().flat_map(|writer| {
        let components = writer.components.iter().filter(|one| one.consistency < Consistency::Application);
        components
            .map(move |one| format!("{} of writer {} is only {}-consistent", one.name, writer.name, one.consistency))
    });
    failed.chain(worse).collect()
}

/// Narrows the session to the chosen writers and gathers what they own.
fn choose_writers(requester: &mut Requester, choice: &WriterChoice, monitor: &mut dyn Monitor) -> Result<(), VssError> {
    let WriterChoice::Named(names) = choice else {
        return requester.gather_writer_metadata(monitor);
    };
    // Metadata is gathered once a session, and the choice comes before it: another connection knows the classes.
    let registered = Management::connect(requester.instance())?.writers()?;
    requester.enable_writer_classes(classes_of(names, &registered)?)?;
    requester.gather_writer_metadata(monitor)?;
    all_answered(names, &requester.writer_metadata()?)
}

type Choice = (Vec<WriterComponents>, Vec<PathBuf>, Vec<(PathBuf, String)>);

/// Adds the components to the session; the result names every volume of the set, and the mounts that cannot be copied.
fn choose_components(requester: &mut Requester, request: &BackupRequest) -> Result<Choice, VssError> {
    let mut volumes = request.volumes.clone();
    if request.components.is_empty() {
        return Ok((Vec::new(), volumes, Vec::new()));
    }
    let chosen = components::resolve(&request.components, &requester.writer_metadata()?)?;
    for writer in &chosen {
        for reference in writer.references() {
            let name = ComponentName::new(reference.logical_path.clone(), reference.name.clone());
            let stamp = request.previous.as_ref().and_then(|before| {
                let same = |one: &&SessionComponent| one.name == name && one.kind == reference.kind;
                before.of_class(writer.metadata.class_id).find(same).map(|one| one.backup_stamp.clone())
            });
            requester.add_component(reference.clone())?;
            if let Some(stamp) = stamp.filter(|stamp| !stamp.is_empty()) {
                requester.set_previous_backup_stamp(reference, stamp)?;
            }
        }
    }
    let mounts = volumes::mounts()?;
    let (needed, below) = components::places(&chosen, &mounts);
    volumes.extend(needed);
    let mut not_copied = Vec::new();
    for volume in below {
        let question = VolumeQuestion { volume: volume.clone(), provider: request.provider.clone() };
        let answer = requester.is_volume_supported(question)?;
        if answer.supported {
            volumes.push(volume);
        } else {
            not_copied.push((volume, answer.reason));
        }
    }
    let mut seen = BTreeSet::new();
    volumes.retain(|path| Selected::among(&mounts, path.clone()).is_none_or(|one| seen.insert(one.volume)));
    Ok((chosen, volumes, not_copied))
}

/// The classes of the named writers.
fn classes_of(names: &[String], registered: &[RegisteredWriter]) -> Result<Vec<WriterClassId>, VssError> {
    let mut classes = Vec::new();
    for name in names {
        let before = classes.len();
        classes.extend(registered.iter().filter(|writer| writer.name == *name).map(|writer| writer.class_id));
        if classes.len() == before {
            return Err(VssError::new(VssCode::ObjectNotFound, format!("No writer named \"{name}\" is registered"))
                .with_hint("`vss list writers` shows those that are"));
        }
    }
    classes.sort_unstable();
    classes.dedup();
    Ok(classes)
}

/// A writer whose Identify failed is not in the metadata (spec R 2.2); a writer that was asked for by name must be.
fn all_answered(names: &[String], metadata: &[WriterMetadata]) -> Result<(), VssError> {
    match names.iter().find(|name| metadata.iter().all(|writer| writer.name != **name)) {
        None => Ok(()),
        Some(name) => Err(VssError::new(
            VssCode::ObjectNotFound,
            format!("Writer \"{name}\" did not say what it owns (Identify)"),
        )
        .with_hint("See the writer's log, and restart it")),
    }
}

/// Fails with the first writer that failed in BackupComplete; earlier failures were told when the set was made.
fn all_completed(statuses: &[WriterStatus]) -> Result<(), VssError> {
    let failed = statuses.iter().find(|writer| writer.involved && writer.state == WriterState::FailedAtBackupComplete);
    failed.and_then(|writer| Some((writer, writer.failure.clone()?))).map_or(Ok(()), |(writer, failure)| {
        Err(failure.while_doing(format!("Writer {} ({})", writer.name, writer.state)))
    })
}

/// Begins the set, waiting for another one to be finished, as long as the request says.
fn start_set(requester: &mut Requester, request: &BackupRequest, monitor: &mut dyn Monitor) -> Result<(), VssError> {
    let wait = request.wait;
    let deadline = Instant::now() + wait;
    let mut said = String::new();
    loop {
        let error = match requester.start_snapshot_set(&request.options) {
            Ok(_) => return Ok(()),
            Err(error) if error.code == VssCode::SnapshotSetInProgress => error,
            Err(error) => return Err(error),
        };
        if monitor.interruptions() > 0 {
            return Err(interrupted());
        }
        if Instant::now() >= deadline {
            return Err(VssError {
                message: format!("{}; waited {} s for it", error.message, wait.as_secs()),
                ..error
            });
        }
        // The message names who is at it.
        if error.message != said {
            monitor.waiting(&error.message);
            said = error.message;
        }
        std::thread::sleep(RETRY);
    }
}

type Finished = (Vec<VolumeAdded>, Vec<WriterStatus>, ShadowCopySet);

/// From the begun set to the finished one.
fn make_set(
    requester: &mut Requester,
    request: &BackupRequest,
    volumes: &[PathBuf],
    monitor: &mut dyn Monitor,
) -> Result<Finished, VssError> {
    let has_writers = request.context.has_writers();
    let mut members = Vec::with_capacity(volumes.len());
    for volume in volumes {
        let question = VolumeQuestion { volume: volume.clone(), provider: request.provider.clone() };
        members.push(requester.add_to_snapshot_set(question)?);
    }
    if has_writers {
        requester.prepare_for_backup(monitor)?;
    }
    requester.do_snapshot_set(request.strict && has_writers, monitor)?;
    let statuses = if has_writers {
        requester.gather_writer_status(monitor)?;
        requester.writer_status()?
    } else {
        Vec::new()
    };
    Ok((members, statuses, requester.snapshot_set()?))
}

/// Refuses a set that is worse than `level`, naming what makes it so.
fn require(set: &ShadowCopySet, level: Consistency) -> Result<(), VssError> {
    if set.consistency >= level {
        return Ok(());
    }
    let volumes = set.shadows.iter().filter(|shadow| shadow.consistency < level).map(|shadow| {
        let volume = shadow.volume.display();
        match shadow.nested.len() {
            0 => format!("{volume} is {}", shadow.consistency),
            1 => format!("{volume} is {} (cut with a nested subvolume)", shadow.consistency),
            nested => format!("{volume} is {} (cut with {nested} nested subvolumes)", shadow.consistency),
        }
    });
    let writers = set.writers.iter().flat_map(|writer| {
        let worse = writer.components.iter().filter(|component| component.consistency < level);
        worse.map(move |component| format!("{} of writer {} is {}", component.name, writer.name, component.consistency))
    });
    let mut parts: Vec<String> = volumes.chain(writers).collect();
    if parts.is_empty() {
        parts.push(format!("it is {}", set.consistency));
    }
    Err(VssError::new(
        VssCode::WriterErrorInconsistentSnapshot,
        format!("The shadow copy set is not {level}-consistent, as was required: {}; it was deleted", parts.join(", ")),
    )
    .with_hint("Require less, or let a writer that knows the data take part"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::VolumeKey;
    use vss_model::{AppLevel, WriterInstanceId};

    fn writer(name: &str, class: u128) -> RegisteredWriter {
        RegisteredWriter {
            name: name.to_owned(),
            instance_name: String::new(),
            class_id: WriterClassId::from_u128(class),
            instance_id: WriterInstanceId::random(),
            level: AppLevel::default(),
            freeze_ms: 60_000,
            uid: 0,
            pid: 1,
        }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn names_become_classes_each_once() {
        let registered = [writer("postgresql", 1), writer("postgresql", 1), writer("redis", 2), writer("script", 3)];
        let classes = classes_of(&names(&["redis", "postgresql"]), &registered).unwrap();
        assert_eq!(classes, [WriterClassId::from_u128(1), WriterClassId::from_u128(2)]);
    }

    #[test]
    fn a_name_that_is_not_there_is_named() {
        let error = classes_of(&names(&["oracle"]), &[writer("redis", 2)]).unwrap_err();
        assert_eq!(error.code, VssCode::ObjectNotFound);
        assert!(error.message.contains("oracle"));
        assert_eq!(all_answered(&names(&["redis"]), &[]).unwrap_err().code, VssCode::ObjectNotFound);
    }

    #[test]
    fn a_path_is_found_in_the_copy_of_its_volume() {
        let volume = |device| VolumeKey { device, subvolume: 0 };
        let mounts: Vec<Mount> = [("/", 1, ""), ("/srv", 2, ""), ("/mnt/bound", 2, "shop/data"), ("/srv/wal", 3, "")]
            .map(|(place, device, root)| Mount { mount_point: place.into(), volume: volume(device), root: root.into() })
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

    fn set(consistency: Consistency) -> ShadowCopySet {
        serde_json::from_value(serde_json::json!({
            "set_id": vss_model::SetId::random(), "consistency": consistency, "atomic": false, "hold_ms": 0, "freeze_ms": 1,
            "writers": [], "context": "backup", "owner": 0, "requester": "test", "created_at": "2026-11-24T09:30:00Z",
            "backup_state": {"select_components": false, "bootable_system_state": false, "backup_type": "full",
                "partial_file_support": false},
            "shadows": [{"id": ShadowId::random(), "set_id": vss_model::SetId::random(), "volume": "/srv",
                "volume_id": "btrfs:x:5", "provider": "btrfs", "provider_id": vss_model::ProviderId::random(),
                "device": null, "path": null, "consistency": consistency, "cut_at": "2026-11-24T09:30:00Z",
                "created_at": "2026-11-24T09:30:00Z", "attributes": 0, "owner": 0,
                "nested": [{"path": "a", "cut_at": "2026-11-24T09:30:00Z"}]}],
        }))
        .unwrap()
    }

    #[test]
    fn a_failed_writer_and_its_components_are_warned_of() {
        let id = WriterInstanceId::random();
        let failure = VssError::new(VssCode::WriterErrorRetryable, "The lock is taken");
        let writer = serde_json::json!({"name": "redis", "class_id": id, "instance_id": id, "state": "FAILED_AT_FREEZE",
            "failure": failure, "frozen_ms": 0, "components": [
                {"logical_path": "", "name": "data", "consistency": "crash", "failure": null},
                {"logical_path": "", "name": "rest", "consistency": "application", "failure": null}]});
        let set = ShadowCopySet { writers: vec![serde_json::from_value(writer).unwrap()], ..set(Consistency::Crash) };
        let status = |involved| WriterStatus {
            instance_id: id,
            class_id: WriterClassId::random(),
            name: "redis".to_owned(),
            involved,
            state: WriterState::FailedAtFreeze,
            failure: Some(failure.clone()),
            application_code: None,
        };
        let warnings = degraded(&set, &[status(true), status(false)]);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("redis failed: The lock is taken"));
        assert!(warnings[1].contains("data of writer redis is only crash-consistent"));
    }

    #[test]
    fn what_is_required_is_the_least_and_the_culprit_is_named() {
        require(&set(Consistency::Application), Consistency::FileSystem).unwrap();
        require(&set(Consistency::Crash), Consistency::Crash).unwrap();
        let error = require(&set(Consistency::Crash), Consistency::FileSystem).unwrap_err();
        assert_eq!(error.code, VssCode::WriterErrorInconsistentSnapshot);
        assert!(error.message.contains("/srv is crash (cut with a nested subvolume)"), "{}", error.message);
    }
}
