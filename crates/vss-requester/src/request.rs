//! What to back up and how: everything that a backup is asked for, in one value.

use crate::components::ComponentChoice;
use crate::volumes::{Selected, mounts, one_each, select};
use std::path::PathBuf;
use std::time::Duration;
use vss_model::{BackupComponents, BackupState, BackupType, Consistency, Context, CreationOptions, VssError};

/// How long another creation is waited for, when nothing else is said.
const WAIT: Duration = Duration::from_secs(600);

/// How long the copies live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// As long as the session: they go with the [`crate::Backup`], or with the process.
    Session,
    /// Until reboot, or until they are deleted.
    UntilReboot,
    /// Until they are deleted.
    Persistent,
}

impl Lifetime {
    /// The context for it, with or without writers.
    #[must_use]
    pub fn context(self, writers: bool) -> Context {
        match (self, writers) {
            (Self::Session, true) => Context::Backup,
            (Self::Session, false) => Context::FileShareBackup,
            (Self::UntilReboot, true) => Context::UntilReboot,
            (Self::UntilReboot, false) => Context::UntilRebootNoWriters,
            (Self::Persistent, true) => Context::AppRollback,
            (Self::Persistent, false) => Context::NasRollback,
        }
    }
}

/// Which writers take part, in a context that has writers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriterChoice {
    /// All that are registered.
    All,
    /// Only these, by name; each must be there.
    Named(Vec<String>),
}

/// What to back up and how. [`BackupRequest::new`] and [`BackupRequest::of_paths`] fill in what is usual.
#[derive(Debug, Clone)]
pub struct BackupRequest {
    /// Who asks, for lists and records.
    pub requester: String,
    /// What the set is for; decides whether writers take part and how long the copies live ([`Lifetime::context`]).
    pub context: Context,
    /// What kind of backup it is.
    pub state: BackupState,
    /// Which writers take part.
    pub writers: WriterChoice,
    /// The provider of every volume, by name; none: the service chooses.
    pub provider: Option<String>,
    /// How the copies are to be made, as far as their providers can heed it.
    pub options: CreationOptions,
    /// One path on each volume to copy, absolute and without symbolic links ([`one_each`]).
    pub volumes: Vec<PathBuf>,
    /// What the backup that this one builds on said of its components: their stamps go to the writers as the previous ones. A
    /// component that failed there, or is not in it, is refused where its writer would build on it.
    pub previous: Option<BackupComponents>,
    /// The components to back up. Their volumes are added to those above; none: whole volumes.
    pub components: Vec<ComponentChoice>,
    /// True: the failure of an involved writer fails the set.
    pub strict: bool,
    /// The least consistency that the finished set must have.
    pub require: Option<Consistency>,
    /// How long to wait while another set is being created; zero: not at all.
    pub wait: Duration,
}

impl BackupRequest {
    /// A request for the volumes that hold what was selected: with all writers, strict, of no particular consistency,
    /// waiting for others for 10 minutes.
    ///
    /// Copies that live as long as the session are a full backup. Others are a copy backup, after which no writer truncates
    /// its logs, because nothing is known to read them.
    #[must_use]
    pub fn new(requester: impl Into<String>, lifetime: Lifetime, selected: &[Selected]) -> Self {
        let backup_type = if lifetime == Lifetime::Session { BackupType::Full } else { BackupType::Copy };
        Self {
            requester: requester.into(),
            context: lifetime.context(true),
            state: BackupState { backup_type, ..BackupState::default() },
            writers: WriterChoice::All,
            provider: None,
            options: CreationOptions::default(),
            volumes: one_each(selected).into_iter().map(|one| one.path.clone()).collect(),
            previous: None,
            components: Vec::new(),
            strict: true,
            require: None,
            wait: WAIT,
        }
    }

    /// As [`Self::new`], for the volumes that hold these paths. Symbolic links are followed.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND` for a path that does not exist.
    pub fn of_paths(requester: impl Into<String>, lifetime: Lifetime, paths: &[PathBuf]) -> Result<Self, VssError> {
        Ok(Self::new(requester, lifetime, &select(paths, &mounts()?)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lifetime_has_its_twin_without_writers() {
        for lifetime in [Lifetime::Session, Lifetime::UntilReboot, Lifetime::Persistent] {
            let (with, without) = (lifetime.context(true), lifetime.context(false));
            assert!(with.has_writers() && !without.has_writers());
            assert_eq!(with.is_persistent(), without.is_persistent());
            assert_eq!(with.is_auto_release(), without.is_auto_release());
            assert_eq!(with.is_auto_release(), lifetime == Lifetime::Session);
        }
    }

    #[test]
    fn a_volume_is_asked_for_once_and_a_lasting_copy_is_no_full_backup() {
        let paths = ["/proc".into(), "/proc/self/fd".into()];
        let request = BackupRequest::of_paths("test", Lifetime::Session, &paths).unwrap();
        assert_eq!(request.volumes, [PathBuf::from("/proc")]);
        assert!(request.strict && request.state.backup_type == BackupType::Full);
        let lasting = BackupRequest::of_paths("test", Lifetime::Persistent, &paths).unwrap();
        assert_eq!(lasting.state.backup_type, BackupType::Copy);
        assert!(BackupRequest::of_paths("test", Lifetime::Session, &["/no/such".into()]).is_err());
    }
}
