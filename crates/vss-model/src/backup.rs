//! What kind of backup a session makes (spec R 1.5 and 4).

use serde::{Deserialize, Serialize};

/// `VSS_BT_*`: what the backup will hold. Serialised by name in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupType {
    /// Everything; writers may truncate their logs afterwards.
    #[default]
    Full,
    /// What changed since the last full or incremental backup.
    Incremental,
    /// What changed since the last full backup.
    Differential,
    /// Logs only.
    Log,
    /// Everything, and no writer may take note of it.
    Copy,
    /// None of these.
    Other,
}

impl BackupType {
    /// True for a backup that is of no use without an earlier one.
    #[must_use]
    pub const fn builds_on_another(self) -> bool {
        matches!(self, Self::Incremental | Self::Differential | Self::Log)
    }
}

/// What `SetBackupState` says; writers read it from `PrepareBackup` on.
///
/// What is left out on the wire is false, or [`BackupType::Full`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BackupState {
    /// True: the requester chooses components. False: whole volumes.
    pub select_components: bool,
    /// True: the bootable system state is backed up too.
    pub bootable_system_state: bool,
    /// The kind of backup.
    pub backup_type: BackupType,
    /// True: writers may name parts of files.
    pub partial_file_support: bool,
}
