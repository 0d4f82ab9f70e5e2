//! Writer metadata: what a writer owns, as it answers to Identify (spec R 3 and 5).
//!
//! Later contracts add fields. A field that this release does not know is kept in `other` and passed on unchanged.

use crate::{AppLevel, Usage, VssCode, VssError, WriterClassId, WriterInstanceId, limits};
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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ComponentName {
    /// Elements separated by `\`; empty at the root.
    #[serde(default)]
    pub logical_path: String,
    /// Not empty, no `\`.
    pub name: String,
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

/// One file set: where files are and which (spec R 3.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSpec {
    /// The directory: absolute, no wildcards.
    #[serde(with = "crate::path_text")]
    pub path: PathBuf,
    /// File name pattern with `?` and `*`, no directory part. `*` when left out.
    #[serde(default = "any_file")]
    pub pattern: String,
    /// True: the directories below too.
    #[serde(default)]
    pub recursive: bool,
    /// Read the files here instead at backup; restore still goes to `path`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::path_text::optional")]
    pub alternate_path: Option<PathBuf>,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Json>,
}

fn any_file() -> String {
    "*".to_owned()
}

/// Any JSON value, kept as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number that is negative or small.
    Integer(i64),
    /// A whole number beyond `i64`.
    Unsigned(u64),
    /// Any other number, by its bits so that equality is plain.
    Float(Float),
    /// A string.
    Text(String),
    /// An array.
    Array(Vec<Json>),
    /// An object.
    Object(BTreeMap<String, Json>),
}

/// A floating-point number that compares by its bits.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Float(f64);

impl PartialEq for Float {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Float {}

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
    /// Its files.
    #[serde(default)]
    pub files: Vec<FileSpec>,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Json>,
}

fn yes() -> bool {
    true
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
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Json>,
}

impl Component {
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
        if self.files.len() > limits::FILES_PER_COMPONENT {
            return invalid(format!("component {name} has more than {} file sets", limits::FILES_PER_COMPONENT));
        }
        let mut sets = BTreeSet::new();
        for file in &self.files {
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

impl WriterMetadata {
    /// Checks what the contract says of metadata: each component, their number, and that their names differ (spec R 3.1).
    ///
    /// # Errors
    /// `E_INVALIDARG` or `VSS_E_OBJECT_ALREADY_EXISTS`, naming the component.
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
        Ok(())
    }
}
