//! One backup: the order of calls from the opening of the session to its release (spec R 1.3).

use crate::{Management, Monitor, Requester, requester::interrupted};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use vss_api::management::RegisteredWriter;
use vss_api::requester::{VolumeAdded, VolumeQuestion};
use vss_model::{
    BackupState, Consistency, Context, ShadowCopySet, ShadowId, VssCode, VssError, WriterClassId, WriterMetadata,
    WriterState, WriterStatus,
};

/// Time between two tries to begin a set while another one is being created.
const RETRY: Duration = Duration::from_millis(100);

/// Which writers take part, in a context that has writers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriterChoice {
    /// All that are registered.
    All,
    /// Only these, by name; each must be there.
    Named(Vec<String>),
}

/// What to back up and how.
#[derive(Debug, Clone)]
pub struct BackupRequest {
    /// Who asks, for lists and records.
    pub requester: String,
    /// What the set is for; decides whether writers take part and how long the copies live.
    pub context: Context,
    /// What kind of backup it is.
    pub state: BackupState,
    /// Which writers take part.
    pub writers: WriterChoice,
    /// The provider of every volume, by name; none: the service chooses.
    pub provider: Option<String>,
    /// One path on each volume to copy, absolute and without symbolic links.
    pub volumes: Vec<PathBuf>,
    /// True: the failure of an involved writer fails the set.
    pub strict: bool,
    /// The least consistency that the finished set must have.
    pub require: Option<Consistency>,
    /// How long to wait while another set is being created; zero: not at all.
    pub wait: Duration,
}

/// A finished set and the session that made it. Dropping it ends the session, and with it the set where its context is
/// auto-release.
#[derive(Debug)]
pub struct Backup {
    requester: Requester,
    set: ShadowCopySet,
    members: Vec<VolumeAdded>,
    statuses: Vec<WriterStatus>,
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
        requester.initialize_for_backup(&request.requester)?;
        requester.set_context(request.context)?;
        requester.set_backup_state(request.state)?;
        if request.context.has_writers() {
            choose_writers(&mut requester, &request.writers, monitor)?;
        }
        start_set(&mut requester, request.wait, monitor)?;
        let finished = make_set(&mut requester, request, monitor);
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
        let mut backup = Self { requester, set, members, statuses };
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

    /// Shows a shadow copy at a directory of the service's own and returns it.
    ///
    /// # Errors
    /// What the service answers.
    pub fn expose(&mut self, shadow_id: ShadowId) -> Result<PathBuf, VssError> {
        self.requester.expose_snapshot(shadow_id, None)
    }

    /// Takes a shadow copy away from where it is shown.
    ///
    /// # Errors
    /// What the service answers.
    pub fn unexpose(&mut self, shadow_id: ShadowId) -> Result<(), VssError> {
        self.requester.unexpose_snapshot(shadow_id)
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

    /// Deletes the set's shadow copies, whatever its context, and returns when they are gone.
    ///
    /// # Errors
    /// What the service answers.
    pub fn delete(&mut self) -> Result<(), VssError> {
        Management::connect(self.requester.instance())?.delete_set(self.set.set_id)
    }
}

impl AsFd for Backup {
    /// Readable only when the service has ended the session, while no call is under way.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.requester.as_fd()
    }
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

/// Begins the set, waiting at most `wait` for another one to be finished.
fn start_set(requester: &mut Requester, wait: Duration, monitor: &mut dyn Monitor) -> Result<(), VssError> {
    let deadline = Instant::now() + wait;
    let mut said = String::new();
    loop {
        let error = match requester.start_snapshot_set() {
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
    monitor: &mut dyn Monitor,
) -> Result<Finished, VssError> {
    let has_writers = request.context.has_writers();
    let mut members = Vec::with_capacity(request.volumes.len());
    for volume in &request.volumes {
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
    fn what_is_required_is_the_least_and_the_culprit_is_named() {
        require(&set(Consistency::Application), Consistency::FileSystem).unwrap();
        require(&set(Consistency::Crash), Consistency::Crash).unwrap();
        let error = require(&set(Consistency::Crash), Consistency::FileSystem).unwrap_err();
        assert_eq!(error.code, VssCode::WriterErrorInconsistentSnapshot);
        assert!(error.message.contains("/srv is crash (cut with a nested subvolume)"), "{}", error.message);
    }
}
