//! What stands in the file of a simulated writer beside what every writer says of itself.

use super::description::{Deed, Description, Failing, Said, Sleeping};
use crate::description;
use serde::Deserialize;
use std::collections::BTreeSet;
use vss_api::writer::EventKind;
use vss_model::{BackupType, ComponentData, ComponentName, DifferencedFiles, PartialFile, VssCode};

/// The keys of its own.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SimulatedTable {
    stamps: bool,
    spit: bool,
    deeds: BTreeSet<Deed>,
    fail: Vec<Failing>,
    sleep: Vec<Sleeping>,
    say: Vec<SaidTable>,
}

/// What it says of one component.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SaidTable {
    event: EventKind,
    #[serde(default)]
    backup_types: Vec<BackupType>,
    component: ComponentName,
    code: Option<VssCode>,
    application_code: Option<u32>,
    #[serde(default)]
    message: String,
    backup_stamp: Option<String>,
    backup_metadata: Option<String>,
    #[serde(default)]
    partial_files: Vec<PartialFile>,
    #[serde(default)]
    differenced_files: Vec<DifferencedFiles>,
}

impl From<SaidTable> for Said {
    fn from(table: SaidTable) -> Self {
        Self {
            event: table.event,
            backup_types: table.backup_types,
            component: table.component,
            code: table.code,
            application_code: table.application_code,
            message: table.message,
            data: ComponentData {
                backup_stamp: table.backup_stamp,
                backup_metadata: table.backup_metadata,
                partial_files: table.partial_files,
                differenced_files: table.differenced_files,
            },
        }
    }
}

/// Reads the text of a description (TOML).
///
/// # Errors
/// What is wrong, and on which line, as part of a sentence.
pub fn read(text: &str) -> Result<Description, String> {
    let (writer, own) = description::read::<SimulatedTable>(text)?;
    Ok(Description {
        name: writer.name.ok_or("it has no name")?,
        class_id: writer.class_id,
        instance_name: writer.instance_name,
        usage: writer.usage.unwrap_or_default(),
        level: writer.level,
        freeze_timeout_ms: writer.freeze_timeout_ms,
        stamps: own.stamps,
        spit: own.spit,
        deeds: own.deeds,
        fail: own.fail,
        sleep: own.sleep,
        say: own.say.into_iter().map(Said::from).collect(),
        components: writer.components,
        declaration: writer.declaration,
    })
}
