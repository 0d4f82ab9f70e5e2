//! How a writer wants to be restored, and what a restore says of itself (spec R 3.9 to 3.11).

use crate::component::is_default;
use serde::{Deserialize, Serialize};

/// `VSS_RESTOREMETHOD_ENUM`: how files are put back (spec R 3.9). For all components of the writer, each by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreMethodKind {
    /// `VSS_RME_UNDEFINED` 0, or a name that this release does not know.
    #[default]
    Undefined = 0,
    /// `VSS_RME_RESTORE_IF_NOT_THERE` 1: only where none of the files exists.
    RestoreIfNotThere = 1,
    /// `VSS_RME_RESTORE_IF_CAN_REPLACE` 2: only where all existing files can be replaced.
    RestoreIfCanReplace = 2,
    /// `VSS_RME_STOP_RESTORE_START` 3: the service is stopped meanwhile.
    StopRestoreStart = 3,
    /// `VSS_RME_RESTORE_TO_ALTERNATE_LOCATION` 4: always to the mapping.
    RestoreToAlternateLocation = 4,
    /// `VSS_RME_RESTORE_AT_REBOOT` 5: put in place at the next boot.
    RestoreAtReboot = 5,
    /// `VSS_RME_RESTORE_AT_REBOOT_IF_CANNOT_REPLACE` 6: now, and all of it at the next boot where one file cannot be replaced.
    RestoreAtRebootIfCannotReplace = 6,
    /// `VSS_RME_CUSTOM` 7: a procedure of the writer's own.
    Custom = 7,
    /// `VSS_RME_RESTORE_STOP_START` 8: the service is restarted afterwards.
    RestoreStopStart = 8,
}

/// `VSS_WRITERRESTORE_ENUM`: which restore events the writer wants (spec R 3.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriterRestore {
    /// `VSS_WRE_UNDEFINED` 0, or a name that this release does not know.
    #[default]
    Undefined = 0,
    /// `VSS_WRE_NEVER` 1: none.
    Never = 1,
    /// `VSS_WRE_IF_REPLACE_FAILS` 2: PreRestore, and PostRestore when files could not be put in their places.
    IfReplaceFails = 2,
    /// `VSS_WRE_ALWAYS` 3: both.
    Always = 3,
}

/// What SetRestoreMethod says: once for a writer (spec R 3.9).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RestoreMethod {
    /// How files are put back.
    pub method: RestoreMethodKind,
    /// The service that is stopped and started, by its exact name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The procedure of [`RestoreMethodKind::Custom`]; reserved by VSS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_procedure: Option<String>,
    /// Which restore events it wants.
    #[serde(default)]
    pub writer_restore: WriterRestore,
    /// True: the machine must be rebooted after the restore.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reboot_required: bool,
}

/// `VSS_RESTORE_TARGET`: where a component set goes, as its writer says in PreRestore (spec R 3.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreTarget {
    /// `VSS_RT_UNDEFINED` 0, or a name that this release does not know.
    Undefined = 0,
    /// `VSS_RT_ORIGINAL` 1: as the restore method says. The default.
    #[default]
    Original = 1,
    /// `VSS_RT_ALTERNATE` 2: to the alternate location mappings.
    Alternate = 2,
    /// `VSS_RT_DIRECTED` 3: to the directed targets.
    Directed = 3,
    /// `VSS_RT_ORIGINAL_LOCATION` 4: to where it was, whatever the restore method.
    OriginalLocation = 4,
}

/// `VSS_FILE_RESTORE_STATUS`: what became of the files of a component (spec R 3.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileRestoreStatus {
    /// `VSS_RS_UNDEFINED` 0: not restored yet, or a name that this release does not know. The default.
    #[default]
    Undefined = 0,
    /// `VSS_RS_NONE` 1: failed, and nothing is left on disk.
    None = 1,
    /// `VSS_RS_ALL` 2: all are there.
    All = 2,
    /// `VSS_RS_FAILED` 3: some were written: what is on disk is of no use.
    Failed = 3,
}

/// `VSS_RESTORE_TYPE`: what brings the data back (spec R 3.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreType {
    /// `VSS_RTYPE_UNDEFINED` 0: writers take it as by copy. The default.
    #[default]
    Undefined = 0,
    /// `VSS_RTYPE_BY_COPY` 1: files are copied back.
    ByCopy = 1,
    /// `VSS_RTYPE_IMPORT` 2: a shadow copy is imported.
    Import = 2,
    /// `VSS_RTYPE_OTHER` 3: something else.
    Other = 3,
}

/// `VSS_ROLLFORWARD_TYPE` and its point: how far logs are replayed after a restore (spec R 3.11).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type", content = "point")]
pub enum RollForward {
    /// `VSS_RF_UNDEFINED` 0: not said. The default.
    #[default]
    Undefined,
    /// `VSS_RF_NONE` 1: not at all.
    None,
    /// `VSS_RF_ALL` 2: all of them.
    All,
    /// `VSS_RF_PARTIAL` 3: up to a point that the writer understands: a time, a number, a mark.
    Partial(String),
}
