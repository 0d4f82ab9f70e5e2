//! What can go wrong with a guard, small enough to be made in a hold.

use std::fmt;
use std::sync::Arc;

use rustix::io::Errno;
use vss_linux::hold::protocol::Refusal;
use vss_linux::hold::{BUSY_LIMIT, HOLD_LIMIT};
use vss_model::VssCode;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GuardErrorKind {
    /// The program could not be started, or never said that it is ready.
    CannotStart,
    /// The guard cannot work with this set.
    Refused(Refusal),
    /// A flush before the hold took too long.
    SyncTimeout,
    /// A flush before the hold failed.
    SyncFailed,
    /// FIFREEZE did not return before the hold's limit.
    FreezeTimeout,
    /// Somebody else holds the file system frozen.
    FrozenByAnother,
    /// FIFREEZE failed otherwise.
    FreezeFailed,
    /// The hold ended by itself, at its limit.
    HoldExpired,
    /// Somebody else thawed the file system during the hold.
    Lost,
    /// FITHAW failed or takes long; it is being repeated.
    ThawFailed,
    /// The guard died, or does not talk sense. Its members are thawed by the backup.
    GuardDied,
    /// The guard was told to end (SIGTERM), and thawed its members first.
    GuardEnded,
    /// Called out of order.
    Misused,
}

impl GuardErrorKind {
    /// The VSS code that a requester is told (spec, requesters and writers, 10).
    pub fn code(self) -> VssCode {
        match self {
            Self::SyncTimeout | Self::SyncFailed | Self::FreezeTimeout | Self::FreezeFailed => {
                VssCode::FlushWritesTimeout
            }
            Self::HoldExpired | Self::Lost => VssCode::HoldWritesTimeout,
            Self::FrozenByAnother => VssCode::VolumeInUse,
            Self::Refused(Refusal::LedgerOnMember) => VssCode::NestedVolumeLimit,
            Self::CannotStart
            | Self::Refused(_)
            | Self::ThawFailed
            | Self::GuardDied
            | Self::GuardEnded
            | Self::Misused => VssCode::Unexpected,
        }
    }
}

/// A failure of the guard. The set that it was made for is void.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardError {
    kind: GuardErrorKind,
    volume: Option<Arc<str>>,
    errno: Option<Errno>,
}

impl GuardError {
    pub(super) fn new(kind: GuardErrorKind, volume: Option<Arc<str>>, errno: Option<Errno>) -> Self {
        Self { kind, volume, errno }
    }

    /// What went wrong.
    pub fn kind(&self) -> GuardErrorKind {
        self.kind
    }

    /// The volume that it went wrong with.
    pub fn volume(&self) -> Option<&str> {
        self.volume.as_deref()
    }

    /// What the kernel said.
    pub fn errno(&self) -> Option<Errno> {
        self.errno
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self.kind {
            GuardErrorKind::SyncTimeout | GuardErrorKind::FreezeTimeout | GuardErrorKind::HoldExpired => {
                "try again when less is being written; a slow or failing disk shows in the kernel log"
            }
            GuardErrorKind::SyncFailed | GuardErrorKind::FreezeFailed | GuardErrorKind::ThawFailed => {
                "look for input/output errors in the kernel log"
            }
            GuardErrorKind::FrozenByAnother | GuardErrorKind::Lost => {
                "let no other program freeze or thaw this file system (fsfreeze, lvcreate, a hypervisor's agent)"
            }
            GuardErrorKind::Refused(Refusal::LedgerOnMember) => {
                "use a runtime directory on another file system, usually /run"
            }
            GuardErrorKind::CannotStart => "is vss-guard installed beside vssd, and is vssd run by root?",
            GuardErrorKind::Refused(_)
            | GuardErrorKind::GuardDied
            | GuardErrorKind::GuardEnded
            | GuardErrorKind::Misused => "see the log of the service",
        }
    }
}

impl fmt::Display for GuardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(volume) = &self.volume {
            write!(f, "{volume}: ")?;
        }
        match self.kind {
            GuardErrorKind::CannotStart => write!(f, "the guard could not be started")?,
            GuardErrorKind::Refused(Refusal::Setup) => write!(f, "the guard could not set itself up")?,
            GuardErrorKind::Refused(Refusal::Member) => write!(f, "the guard could not identify the file system")?,
            GuardErrorKind::Refused(Refusal::Ledger) => write!(f, "the guard could not write its ledger")?,
            GuardErrorKind::Refused(Refusal::LedgerOnMember) => {
                write!(f, "the service's runtime directory lies on this file system, which is to be frozen")?;
            }
            GuardErrorKind::Refused(Refusal::Thread) => write!(f, "the guard could not make its threads")?,
            GuardErrorKind::SyncTimeout => write!(f, "flushing the file system took too long")?,
            GuardErrorKind::SyncFailed => write!(f, "flushing the file system failed")?,
            GuardErrorKind::FreezeTimeout => write!(f, "freezing the file system took longer than a hold may last")?,
            GuardErrorKind::FrozenByAnother => {
                write!(f, "somebody else holds the file system frozen (waited {} s)", BUSY_LIMIT.as_secs())?;
            }
            GuardErrorKind::FreezeFailed => write!(f, "freezing the file system failed")?,
            GuardErrorKind::HoldExpired => {
                write!(
                    f,
                    "the hold of writes ended at its limit ({} s at most): the guard thawed the file system",
                    HOLD_LIMIT.as_secs()
                )?;
            }
            GuardErrorKind::Lost => write!(f, "somebody else thawed the file system during the hold")?,
            GuardErrorKind::ThawFailed => write!(f, "the file system is not thawed yet; it is being tried again")?,
            GuardErrorKind::GuardDied => write!(f, "the guard died; what it held is being thawed")?,
            GuardErrorKind::GuardEnded => {
                write!(f, "the guard was told to end (SIGTERM) and thawed the file system during the hold")?;
            }
            GuardErrorKind::Misused => write!(f, "the guard was called out of order")?,
        }
        match self.errno {
            Some(errno) => write!(f, " ({errno})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for GuardError {}
