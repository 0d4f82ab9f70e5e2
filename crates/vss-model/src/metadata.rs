//! Writer metadata: what a writer says of itself when it answers to Identify (spec R 3.7 and 5.1).

use crate::component::{Component, is_default};
use crate::file_spec::{AlternateLocation, FileSet};
use crate::json::Json;
use crate::{
    AppLevel, BackupSchema, ComponentName, RestoreMethod, Usage, VssCode, VssError, WriterClassId, WriterInstanceId,
    limits,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// `VSS_SOURCE_TYPE`: what manages the writer's data (spec R 3.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataSource {
    /// `VSS_ST_UNDEFINED` 0, or a name that this release does not know.
    Undefined = 0,
    /// `VSS_ST_TRANSACTEDDB` 1: a database with transactions.
    TransactedDb = 1,
    /// `VSS_ST_NONTRANSACTEDDB` 2: a database without.
    NonTransactedDb = 2,
    /// `VSS_ST_OTHER` 3. The default.
    #[default]
    Other = 3,
}

/// What a writer says beside its components.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Declaration {
    /// What manages its data.
    #[serde(default, skip_serializing_if = "is_default")]
    pub source: DataSource,
    /// The version of the writer, before the dot.
    #[serde(default, skip_serializing_if = "is_default")]
    pub version_major: u32,
    /// The version of the writer, after the dot.
    #[serde(default, skip_serializing_if = "is_default")]
    pub version_minor: u32,
    /// What it can do beyond full backups.
    #[serde(default, skip_serializing_if = "is_default")]
    pub backup_schema: BackupSchema,
    /// How it is restored; VSS demands it of every writer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_method: Option<RestoreMethod>,
    /// Where its files may be restored to when their own places cannot be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternate_locations: Vec<AlternateLocation>,
    /// Files that are in no backup, whatever its components name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_files: Vec<FileSet>,
    /// Files that are deleted from the shadow copy before it turns read-only. They are not excluded from backups by that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_files_from_snapshot: Vec<FileSet>,
}

/// What one running writer says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterMetadata {
    /// The kind of writer.
    pub class_id: WriterClassId,
    /// This running writer.
    pub instance_id: WriterInstanceId,
    /// Its name for people and for `--writer`.
    pub name: String,
    /// Unique among the instances of the class on a machine; empty for a class with one instance.
    #[serde(default)]
    pub instance_name: String,
    /// What its data is for.
    #[serde(default)]
    pub usage: Usage,
    /// When it is frozen.
    #[serde(default)]
    pub level: AppLevel,
    /// What it owns.
    #[serde(default)]
    pub components: Vec<Component>,
    /// What it says beside its components.
    #[serde(flatten)]
    pub declaration: Declaration,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Json>,
}

impl Declaration {
    /// Checks the lists: their lengths, and that a mapping names a file set of a component (spec R 3.7).
    ///
    /// # Errors
    /// `E_INVALIDARG`; `VSS_E_OBJECT_NOT_FOUND` for a mapping of files that no component has.
    fn check(&self, components: &[Component]) -> Result<(), VssError> {
        let invalid = |message: String| Err(VssError::new(VssCode::InvalidArgument, message));
        let most = limits::FILES_PER_COMPONENT;
        for (what, count) in [
            ("alternate_locations", self.alternate_locations.len()),
            ("exclude_files", self.exclude_files.len()),
            ("exclude_files_from_snapshot", self.exclude_files_from_snapshot.len()),
        ] {
            if count > most {
                return invalid(format!("{what} has {count} entries, at most {most}"));
            }
        }
        for set in self.exclude_files.iter().chain(&self.exclude_files_from_snapshot) {
            let path = set.path.display();
            if !set.path.is_absolute() {
                return invalid(format!("excluded path {path} is not absolute"));
            }
            if set.pattern.is_empty() || set.pattern.contains('/') {
                return invalid(format!("excluded {path}: pattern \"{}\" is empty or has a directory", set.pattern));
            }
        }
        if !self.alternate_locations.is_empty() {
            let sets: BTreeSet<FileSet> =
                components.iter().flat_map(Component::all_files).map(crate::FileSpec::file_set).collect();
            if let Some(lost) = self.alternate_locations.iter().find(|mapping| !sets.contains(&mapping.files)) {
                let files = lost.files.path.join(&lost.files.pattern);
                let message = format!("alternate location of {}: no component has this file set", files.display());
                return Err(VssError::new(VssCode::ObjectNotFound, message)
                    .with_hint("Path, pattern and recursive must be those of a file set of a component"));
            }
        }
        self.backup_schema.check(components.iter().any(|component| !component.log_files.is_empty()))
    }
}

impl WriterMetadata {
    /// Checks what the contract says of metadata: each component, their number, that their names differ (spec R 3.1), and
    /// what is said beside them.
    ///
    /// # Errors
    /// `E_INVALIDARG`, `VSS_E_OBJECT_ALREADY_EXISTS` or `VSS_E_OBJECT_NOT_FOUND`, naming what is wrong.
    pub fn check(&self) -> Result<(), VssError> {
        let ours = |error: VssError| error.while_doing(format!("Writer {}", self.name));
        if self.components.len() > limits::COMPONENTS_PER_WRITER {
            let message = format!("{} components, at most {}", self.components.len(), limits::COMPONENTS_PER_WRITER);
            return Err(ours(VssError::new(VssCode::InvalidArgument, message)));
        }
        let mut names = BTreeSet::new();
        for component in &self.components {
            component.check().map_err(ours)?;
            if !names.insert(&component.name) {
                let message = format!("component {} is listed twice", component.name);
                return Err(ours(VssError::new(VssCode::ObjectAlreadyExists, message)));
            }
        }
        self.declaration.check(&self.components).map_err(ours)
    }

    /// The component with this name.
    #[must_use]
    pub fn component(&self, name: &ComponentName) -> Option<&Component> {
        self.components.iter().find(|component| component.name == *name)
    }
}
