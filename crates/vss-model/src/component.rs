//! Components: named groups of file sets that are backed up and restored as a unit (spec R 3.1). What a writer says of itself
//! beside them is in [`crate::metadata`], which of them a backup or a restore takes in [`crate::selection`].
//!
//! A field that this release does not know is kept in `other` and passed on unchanged.

use crate::bits::bits;
use crate::json::Json;
use crate::{Dependency, FileSpec, VssCode, VssError, limits};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, collections::BTreeSet, fmt, path::PathBuf};

/// The type of a component, `VSS_CT_*` (spec R 3.1). Serialised by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComponentKind {
    /// `VSS_CT_DATABASE` 1.
    Database,
    /// `VSS_CT_FILEGROUP` 2. The default.
    #[default]
    FileGroup,
}

/// What names a component within its writer: logical path and name (spec R 3.1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct ComponentName {
    /// Elements separated by `\`; empty at the root.
    #[serde(default)]
    pub logical_path: String,
    /// Not empty, no `\`.
    pub name: String,
}

impl ComponentName {
    /// The name at this logical path; the root is the empty path.
    pub fn new(logical_path: impl Into<String>, name: impl Into<String>) -> Self {
        Self { logical_path: logical_path.into(), name: name.into() }
    }

    /// True when `inner` lies below this one in the logical path: by whole elements, and case counts (spec R 3.4, 11.18).
    #[must_use]
    pub fn contains(&self, inner: &Self) -> bool {
        let below = |outer: &str, path: &str| {
            path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('\\'))
        };
        if self.logical_path.is_empty() {
            return below(&self.name, &inner.logical_path);
        }
        let rest = inner.logical_path.strip_prefix(&self.logical_path).and_then(|rest| rest.strip_prefix('\\'));
        rest.is_some_and(|rest| below(&self.name, rest))
    }
}

impl fmt::Display for ComponentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.logical_path.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}\\{}", self.logical_path, self.name)
        }
    }
}

/// One component: a named group of file sets that is backed up and restored as a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// Database or file group.
    #[serde(rename = "type", default)]
    pub kind: ComponentKind,
    /// Logical path and name.
    #[serde(flatten)]
    pub name: ComponentName,
    /// Name for a person; may be localised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// True when a requester may choose it alone for backup.
    #[serde(default = "yes")]
    pub selectable: bool,
    /// True when it may be restored alone although it was backed up as part of another (spec R 3.5).
    #[serde(default, skip_serializing_if = "is_default")]
    pub selectable_for_restore: bool,
    /// Its picture: an .ico file in base64, at most [`limits::ICON_CHARACTERS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icon: Option<String>,
    /// Reserved by VSS: should be false (spec R 3.1).
    #[serde(default, skip_serializing_if = "is_default")]
    pub restore_metadata: bool,
    /// Reserved by VSS: should be false; its writer is told of the end of the backup in any case (spec R 3.1).
    #[serde(default, skip_serializing_if = "is_default")]
    pub notify_on_backup_complete: bool,
    /// What else is to be known of it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub flags: ComponentFlags,
    /// Its files; of a database the data.
    #[serde(default)]
    pub files: Vec<FileSpec>,
    /// Of a database: its logs, which are all that a log backup takes (spec R 3.2).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_files: Vec<FileSpec>,
    /// Components of other writers that must be in every backup and restore that this one is in (spec R 3.6).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<Dependency>,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Json>,
}

fn yes() -> bool {
    true
}

/// True for what a message leaves out: its reader takes it as the default.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

bits! {
    /// `VSS_COMPONENT_FLAGS` (spec R 3.1). A bit that this release does not know is kept.
    ComponentFlags = 0;
    /// `VSS_CF_BACKUP_RECOVERY`: its writer mends the shadow copy after it was made.
    BACKUP_RECOVERY = 0x1, "backup recovery";
    /// `VSS_CF_APP_ROLLBACK_RECOVERY`: the same, of shadow copies that are made to roll back to.
    APP_ROLLBACK_RECOVERY = 0x2, "rollback recovery";
    /// `VSS_CF_NOT_SYSTEM_STATE`: no part of the system state, although its writer's data is.
    NOT_SYSTEM_STATE = 0x4, "not system state";
}

impl Component {
    /// All its file sets: files, or data and logs.
    pub fn all_files(&self) -> impl Iterator<Item = &FileSpec> {
        self.files.iter().chain(&self.log_files)
    }

    /// Checks what the contract says of one component: names, absolute paths, patterns, bounds (spec R 3.1 to 3.3).
    ///
    /// # Errors
    /// `E_INVALIDARG`, naming the component.
    pub fn check(&self) -> Result<(), VssError> {
        let invalid = |message: String| Err(VssError::new(VssCode::InvalidArgument, message));
        let name = &self.name;
        if name.name.is_empty() || name.name.contains('\\') {
            return invalid(format!("component name \"{}\" is empty or has a backslash", name.name));
        }
        if !name.logical_path.is_empty() && name.logical_path.split('\\').any(str::is_empty) {
            return invalid(format!(
                "component {name}: logical path \"{}\" has an empty element; the root is the empty path",
                name.logical_path
            ));
        }
        if self.files.len() + self.log_files.len() > limits::FILES_PER_COMPONENT {
            return invalid(format!("component {name} has more than {} file sets", limits::FILES_PER_COMPONENT));
        }
        if self.kind == ComponentKind::FileGroup && !self.log_files.is_empty() {
            return invalid(format!(
                "component {name} has log files: only a database has some, a file group has files"
            ));
        }
        if self.dependencies.len() > limits::DEPENDENCIES_PER_COMPONENT {
            let most = limits::DEPENDENCIES_PER_COMPONENT;
            return invalid(format!("component {name} depends on more than {most} components"));
        }
        if self.icon.as_ref().is_some_and(|icon| icon.len() > limits::ICON_CHARACTERS) {
            return invalid(format!("component {name}: the icon is longer than {}", limits::ICON_CHARACTERS));
        }
        if let Some(wrong) = self.dependencies.iter().find(|other| other.on.name.is_empty()) {
            let writer = wrong.writer;
            return invalid(format!("component {name} depends on a component without a name of writer class {writer}"));
        }
        let mut sets = BTreeSet::new();
        for file in self.all_files() {
            if let Some(path) = [Some(&file.path), file.alternate_path.as_ref()].into_iter().flatten().find(is_no_place)
            {
                return invalid(format!("component {name}: path {} is not absolute or has .. in it", path.display()));
            }
            if file.pattern.is_empty() || file.pattern.contains('/') {
                let pattern = &file.pattern;
                return invalid(format!("component {name}: pattern \"{pattern}\" is empty or has a directory part"));
            }
            if !sets.insert((&file.path, &file.pattern)) {
                let path = file.path.join(&file.pattern);
                return invalid(format!("component {name}: {} is listed twice", path.display()));
            }
        }
        Ok(())
    }
}

fn is_no_place(path: &&PathBuf) -> bool {
    !path.is_absolute() || path.components().any(|part| part == std::path::Component::ParentDir)
}
