//! `[[components]]` and their files.

use super::mask;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use vss_model::{
    Component, ComponentFlags, ComponentKind, ComponentName, Dependency, FileBackupMask, FileSpec, WriterClassId,
};

/// A component.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ComponentTable {
    #[serde(default, rename = "type")]
    kind: ComponentKind,
    #[serde(default)]
    logical_path: String,
    name: String,
    caption: Option<String>,
    #[serde(default = "yes")]
    selectable: bool,
    #[serde(default)]
    selectable_for_restore: bool,
    icon: Option<String>,
    #[serde(default)]
    restore_metadata: bool,
    #[serde(default)]
    notify_on_backup_complete: bool,
    #[serde(default, deserialize_with = "mask::flags")]
    flags: ComponentFlags,
    #[serde(default)]
    files: Vec<SpecTable>,
    #[serde(default)]
    log_files: Vec<SpecTable>,
    #[serde(default)]
    dependencies: Vec<DependencyTable>,
}

/// Files of a component.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpecTable {
    path: PathBuf,
    #[serde(default = "any_file")]
    pattern: String,
    #[serde(default)]
    recursive: bool,
    alternate_path: Option<PathBuf>,
    #[serde(default, deserialize_with = "mask::backup_types")]
    backup_type_mask: FileBackupMask,
}

/// A component of another writer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DependencyTable {
    writer: WriterClassId,
    #[serde(default)]
    logical_path: String,
    name: String,
}

const fn yes() -> bool {
    true
}

pub(super) fn any_file() -> String {
    "*".to_owned()
}

impl From<ComponentTable> for Component {
    fn from(table: ComponentTable) -> Self {
        let specs = |tables: Vec<SpecTable>| tables.into_iter().map(FileSpec::from).collect();
        Self {
            kind: table.kind,
            name: ComponentName::new(table.logical_path, table.name),
            caption: table.caption,
            selectable: table.selectable,
            selectable_for_restore: table.selectable_for_restore,
            icon: table.icon,
            restore_metadata: table.restore_metadata,
            notify_on_backup_complete: table.notify_on_backup_complete,
            flags: table.flags,
            files: specs(table.files),
            log_files: specs(table.log_files),
            dependencies: table
                .dependencies
                .into_iter()
                .map(|on| Dependency { writer: on.writer, on: ComponentName::new(on.logical_path, on.name) })
                .collect(),
            other: BTreeMap::new(),
        }
    }
}

impl From<SpecTable> for FileSpec {
    fn from(table: SpecTable) -> Self {
        Self {
            recursive: table.recursive,
            alternate_path: table.alternate_path,
            backup_type_mask: table.backup_type_mask,
            ..Self::directly_in(table.path).matching(table.pattern)
        }
    }
}
