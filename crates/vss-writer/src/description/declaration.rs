//! What a writer says beside its components: its version, how it is restored, what is excluded.

use super::component::any_file;
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use std::path::PathBuf;
use vss_model::{AlternateLocation, FileSet, RestoreMethod, RestoreMethodKind, WriterRestore};

/// Files by their names alone.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FilesTable {
    path: PathBuf,
    #[serde(default = "any_file")]
    pattern: String,
    #[serde(default)]
    recursive: bool,
}

/// Where files of a component may be restored to.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LocationTable {
    path: PathBuf,
    #[serde(default = "any_file")]
    pattern: String,
    #[serde(default)]
    recursive: bool,
    alternate_path: PathBuf,
}

/// How files are put back.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RestoreTable {
    method: RestoreMethodKind,
    service: Option<String>,
    user_procedure: Option<String>,
    #[serde(default)]
    writer_restore: WriterRestore,
    #[serde(default)]
    reboot_required: bool,
}

impl From<FilesTable> for FileSet {
    fn from(table: FilesTable) -> Self {
        Self { path: table.path, pattern: table.pattern, recursive: table.recursive }
    }
}

impl From<LocationTable> for AlternateLocation {
    fn from(table: LocationTable) -> Self {
        Self {
            files: FileSet { path: table.path, pattern: table.pattern, recursive: table.recursive },
            alternate_path: table.alternate_path,
        }
    }
}

impl From<RestoreTable> for RestoreMethod {
    fn from(table: RestoreTable) -> Self {
        Self {
            method: table.method,
            service: table.service,
            user_procedure: table.user_procedure,
            writer_restore: table.writer_restore,
            reboot_required: table.reboot_required,
        }
    }
}

/// Reads `MAJOR.MINOR`.
pub(super) fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(u32, u32), D::Error> {
    let text = String::deserialize(deserializer)?;
    let numbers = text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    numbers.ok_or_else(|| D::Error::custom(format!("version is two numbers, as in \"2.1\", not \"{text}\"")))
}
