//! The words of the schema. Those of the first kind stand in documents that Windows wrote or in its documentation. Where
//! neither shows one it is made from the name of the documented call, constant or argument, and marked "ours": Windows may
//! write another, which is then remarked and kept, never refused.

use vss_model::{
    AppLevel, BackupType, ComponentKind, DataSource, FileRestoreStatus, RestoreMethodKind, RestoreTarget, RestoreType,
    Usage, WriterRestore,
};

pub(crate) const USAGE: [(Usage, &str); 4] = [
    (Usage::BootableSystemState, "BOOTABLE_SYSTEM_STATE"),
    (Usage::SystemService, "SYSTEM_SERVICE"),
    (Usage::UserData, "USER_DATA"),
    (Usage::Other, "OTHER"),
];

/// NONTRANSACTION_DB and UNDEFINED are ours.
pub(crate) const SOURCE: [(DataSource, &str); 4] = [
    (DataSource::TransactedDb, "TRANSACTION_DB"),
    (DataSource::NonTransactedDb, "NONTRANSACTION_DB"),
    (DataSource::Other, "OTHER"),
    (DataSource::Undefined, "UNDEFINED"),
];

/// RESTORE_IF_CAN_BE_REPLACED, REPLACE_AT_REBOOT and REPLACE_AT_REBOOT_IF_CANNOT_REPLACE are seen; the others are ours.
pub(crate) const METHOD: [(RestoreMethodKind, &str); 8] = [
    (RestoreMethodKind::RestoreIfNotThere, "RESTORE_IF_NOT_THERE"),
    (RestoreMethodKind::RestoreIfCanReplace, "RESTORE_IF_CAN_BE_REPLACED"),
    (RestoreMethodKind::StopRestoreStart, "STOP_RESTORE_START"),
    (RestoreMethodKind::RestoreToAlternateLocation, "RESTORE_TO_ALTERNATE_LOCATION"),
    (RestoreMethodKind::RestoreAtReboot, "REPLACE_AT_REBOOT"),
    (RestoreMethodKind::RestoreAtRebootIfCannotReplace, "REPLACE_AT_REBOOT_IF_CANNOT_REPLACE"),
    (RestoreMethodKind::Custom, "CUSTOM"),
    (RestoreMethodKind::RestoreStopStart, "RESTORE_STOP_START"),
];

/// ifReplaceFails is ours.
pub(crate) const WRITER_RESTORE: [(WriterRestore, &str); 3] = [
    (WriterRestore::Never, "never"),
    (WriterRestore::IfReplaceFails, "ifReplaceFails"),
    (WriterRestore::Always, "always"),
];

/// No document of Windows has it: ours, in our namespace.
pub(crate) const LEVEL: [(AppLevel, &str); 3] =
    [(AppLevel::FrontEnd, "frontEnd"), (AppLevel::BackEnd, "backEnd"), (AppLevel::System, "system")];

pub(crate) const COMPONENT_TYPE: [(ComponentKind, &str); 2] =
    [(ComponentKind::FileGroup, "filegroup"), (ComponentKind::Database, "database")];

/// `full` is seen; the others are ours.
pub(crate) const BACKUP_TYPE: [(BackupType, &str); 6] = [
    (BackupType::Full, "full"),
    (BackupType::Incremental, "incremental"),
    (BackupType::Differential, "differential"),
    (BackupType::Log, "log"),
    (BackupType::Copy, "copy"),
    (BackupType::Other, "other"),
];

/// Ours.
pub(crate) const RESTORE_TYPE: [(RestoreType, &str); 3] =
    [(RestoreType::ByCopy, "byCopy"), (RestoreType::Import, "import"), (RestoreType::Other, "other")];

/// Ours.
pub(crate) const RESTORE_TARGET: [(RestoreTarget, &str); 5] = [
    (RestoreTarget::Original, "original"),
    (RestoreTarget::Alternate, "alternate"),
    (RestoreTarget::Directed, "directed"),
    (RestoreTarget::OriginalLocation, "originalLocation"),
    (RestoreTarget::Undefined, "undefined"),
];

/// Ours.
pub(crate) const FILE_RESTORE_STATUS: [(FileRestoreStatus, &str); 3] =
    [(FileRestoreStatus::None, "none"), (FileRestoreStatus::All, "all"), (FileRestoreStatus::Failed, "failed")];

/// How a value is written; none for one without a word.
pub(crate) fn word<T: PartialEq>(words: &[(T, &'static str)], value: &T) -> Option<&'static str> {
    words.iter().find(|(one, _)| one == value).map(|(_, word)| *word)
}
