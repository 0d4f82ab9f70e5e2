//! Writers as others see them: levels, states, status (spec R 2).

use crate::{VssCode, VssError, WriterClassId, WriterInstanceId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The application level: decides the order of Freeze (spec R 2.6). Serialised by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AppLevel {
    /// `VSS_APP_FRONT_END` 3: keeps its data in another writer; frozen first. The default.
    #[default]
    FrontEnd,
    /// `VSS_APP_BACK_END` 2: databases; frozen second.
    BackEnd,
    /// `VSS_APP_SYSTEM` 1: system services; frozen last.
    System,
}

impl AppLevel {
    /// The order of Freeze; Thaw is the reverse (spec R 11.14).
    pub const FREEZE_ORDER: [Self; 3] = [Self::FrontEnd, Self::BackEnd, Self::System];
}

/// What a writer's data is for, `VSS_USAGE_TYPE`. Serialised by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Usage {
    /// Part of what the machine needs to boot.
    BootableSystemState,
    /// A service of the system.
    SystemService,
    /// Data of users and their applications. The default.
    #[default]
    UserData,
    /// None of these.
    Other,
}

/// The state of a writer in one session, with Microsoft's numbers (spec R 2.7). Serialised by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WriterState {
    /// Not known: a writer error.
    Unknown = 0,
    /// Idle, or all events of the session are done.
    #[default]
    Stable = 1,
    /// PrepareSnapshot handled.
    WaitingForFreeze = 2,
    /// Freeze handled.
    WaitingForThaw = 3,
    /// Thaw handled.
    WaitingForPostSnapshot = 4,
    /// PostSnapshot handled.
    WaitingForBackupComplete = 5,
    /// Vetoed in Identify; such a writer is not listed.
    FailedAtIdentify = 6,
    /// Vetoed in PrepareBackup.
    FailedAtPrepareBackup = 7,
    /// Vetoed in PrepareSnapshot.
    FailedAtPrepareSnapshot = 8,
    /// Vetoed in Freeze, or frozen for too long.
    FailedAtFreeze = 9,
    /// Failed in Thaw.
    FailedAtThaw = 10,
    /// Failed in PostSnapshot.
    FailedAtPostSnapshot = 11,
    /// Failed in BackupComplete.
    FailedAtBackupComplete = 12,
    /// Failed in PreRestore.
    FailedAtPreRestore = 13,
    /// Failed in PostRestore.
    FailedAtPostRestore = 14,
    /// Failed in BackupShutdown.
    #[serde(rename = "FAILED_AT_BACKUPSHUTDOWN")]
    FailedAtBackupShutdown = 15,
}

impl WriterState {
    /// Microsoft's number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// True for the FAILED_AT states and for UNKNOWN.
    #[must_use]
    pub const fn is_failed(self) -> bool {
        !matches!(
            self,
            Self::Stable
                | Self::WaitingForFreeze
                | Self::WaitingForThaw
                | Self::WaitingForPostSnapshot
                | Self::WaitingForBackupComplete
        )
    }

    /// The name as spec R 2.7 has it, without the prefix `VSS_WS_`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Stable => "STABLE",
            Self::WaitingForFreeze => "WAITING_FOR_FREEZE",
            Self::WaitingForThaw => "WAITING_FOR_THAW",
            Self::WaitingForPostSnapshot => "WAITING_FOR_POST_SNAPSHOT",
            Self::WaitingForBackupComplete => "WAITING_FOR_BACKUP_COMPLETE",
            Self::FailedAtIdentify => "FAILED_AT_IDENTIFY",
            Self::FailedAtPrepareBackup => "FAILED_AT_PREPARE_BACKUP",
            Self::FailedAtPrepareSnapshot => "FAILED_AT_PREPARE_SNAPSHOT",
            Self::FailedAtFreeze => "FAILED_AT_FREEZE",
            Self::FailedAtThaw => "FAILED_AT_THAW",
            Self::FailedAtPostSnapshot => "FAILED_AT_POST_SNAPSHOT",
            Self::FailedAtBackupComplete => "FAILED_AT_BACKUP_COMPLETE",
            Self::FailedAtPreRestore => "FAILED_AT_PRE_RESTORE",
            Self::FailedAtPostRestore => "FAILED_AT_POST_RESTORE",
            Self::FailedAtBackupShutdown => "FAILED_AT_BACKUPSHUTDOWN",
        }
    }
}

impl fmt::Display for WriterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What `GetWriterStatus` says of one writer in one session (spec R 2.8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterStatus {
    /// The running writer.
    pub instance_id: WriterInstanceId,
    /// Its kind.
    pub class_id: WriterClassId,
    /// Its name.
    pub name: String,
    /// True when it has a component on a volume of the set, or one was added.
    pub involved: bool,
    /// Its state in this session; on the wire with its number beside it.
    #[serde(flatten, with = "numbered")]
    pub state: WriterState,
    /// Why it failed; none while it has not.
    pub failure: Option<VssError>,
    /// The application's own number for the failure (`hrApplication`); none when it gave none.
    pub application_code: Option<u32>,
}

/// A state as its name and its number; only the name is read.
mod numbered {
    use super::WriterState;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Fields {
        state: WriterState,
        #[serde(default)]
        state_number: u8,
    }

    pub(super) fn serialize<S: Serializer>(state: &WriterState, serializer: S) -> Result<S::Ok, S::Error> {
        Fields { state: *state, state_number: state.number() }.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WriterState, D::Error> {
        Ok(Fields::deserialize(deserializer)?.state)
    }
}

impl WriterStatus {
    /// The code of the failure, none while there is none.
    #[must_use]
    pub fn code(&self) -> Option<VssCode> {
        self.failure.as_ref().map(|failure| failure.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_wire_are_the_names_of_the_specification() {
        for (state, number) in
            [(WriterState::Unknown, 0), (WriterState::FailedAtFreeze, 9), (WriterState::FailedAtBackupShutdown, 15)]
        {
            assert_eq!(state.number(), number);
        }
        assert!(WriterState::FailedAtThaw.is_failed() && WriterState::Unknown.is_failed());
        assert!(!WriterState::Stable.is_failed());
    }
}
