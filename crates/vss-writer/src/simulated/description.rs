//! What a simulated writer is and does.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use vss_api::writer::{EventKind, Register};
use vss_model::{
    AppLevel, BackupType, Component, ComponentData, ComponentName, Declaration, Usage, VssCode, VssError,
    WriterClassId, limits,
};

/// The whole description. It is read from TOML by `simulated::read`, with the feature `description`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Its kind; none: a new one each time.
    pub class_id: Option<WriterClassId>,
    /// Unique among the instances of the class.
    pub instance_name: String,
    /// What its data is for.
    pub usage: Usage,
    /// When it is frozen.
    pub level: AppLevel,
    /// Longest time from its Freeze to its Thaw in milliseconds, 1 to 60000.
    pub freeze_timeout_ms: Option<u64>,
    /// True: it stamps each component of a backup: `1` for its first backup, `2` for the next.
    pub stamps: bool,
    /// True: files with an alternate path are copied there in PrepareSnapshot, and deleted there in PostSnapshot.
    pub spit: bool,
    /// What it does to its own live files after the cut, in PostSnapshot.
    pub deeds: BTreeSet<Deed>,
    /// Events that it fails.
    pub fail: Vec<Failing>,
    /// Events that take their time.
    pub sleep: Vec<Sleeping>,
    /// What it says of its components.
    pub say: Vec<Said>,
    /// What it owns: at least one.
    pub components: Vec<Component>,
    /// What else it says of itself.
    pub declaration: Declaration,
}

/// What becomes of live files after the cut: a backup that reads them misses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// All files of the components in the backup are deleted.
    DeleteFiles,
    /// The partial files that it has said are deleted.
    DeletePartialFiles,
    /// The differenced files that it has said are deleted.
    DeleteDifferencedFiles,
}

/// An event that fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failing {
    /// Which.
    pub event: EventKind,
    /// How often it fails before it succeeds; left out: always.
    #[serde(default = "always")]
    pub times: u32,
    /// With what.
    #[serde(default = "retryable")]
    pub code: VssCode,
    /// The application's own number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application_code: Option<u32>,
    /// Why, for a person.
    #[serde(default)]
    pub message: String,
}

/// An event that takes its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sleeping {
    /// Which.
    pub event: EventKind,
    /// How long, in milliseconds, deaf to everything.
    pub ms: u64,
    /// How often; left out: always.
    #[serde(default = "always")]
    pub times: u32,
}

/// What it says of one component in its answer to an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// In the answer to which event.
    pub event: EventKind,
    /// In backups of these types alone; left out: of all.
    #[serde(default)]
    pub backup_types: Vec<BackupType>,
    /// Of which component.
    pub component: ComponentName,
    /// That it failed, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<VssCode>,
    /// The application's own number for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application_code: Option<u32>,
    /// Why it failed.
    #[serde(default)]
    pub message: String,
    /// What is kept with the backup.
    #[serde(flatten)]
    pub data: ComponentData,
}

const fn always() -> u32 {
    u32::MAX
}

const fn retryable() -> VssCode {
    VssCode::WriterErrorRetryable
}

impl Description {
    /// A writer with these components and nothing special.
    #[must_use]
    pub fn new(name: impl Into<String>, components: Vec<Component>) -> Self {
        Self {
            name: name.into(),
            class_id: None,
            instance_name: String::new(),
            usage: Usage::default(),
            level: AppLevel::default(),
            freeze_timeout_ms: None,
            stamps: false,
            spit: false,
            deeds: BTreeSet::new(),
            fail: Vec::new(),
            sleep: Vec::new(),
            say: Vec::new(),
            components,
            declaration: Declaration::default(),
        }
    }

    /// Checks what the service would refuse, so that a mistake in a file is found before it is told to anybody.
    ///
    /// # Errors
    /// `E_INVALIDARG` or `VSS_E_OBJECT_NOT_FOUND`, naming what is wrong.
    pub fn check(&self) -> Result<(), VssError> {
        let invalid = |message: String| Err(VssError::new(VssCode::InvalidArgument, message));
        if self.components.is_empty() {
            return invalid(format!("writer {} has no component", self.name));
        }
        let longest = limits::WRITER_FREEZE.as_millis();
        if self.freeze_timeout_ms.is_some_and(|ms| ms == 0 || u128::from(ms) > longest) {
            return invalid(format!("freeze_timeout_ms is 1 to {longest}"));
        }
        for said in &self.say {
            if self.components.iter().all(|component| component.name != said.component) {
                let message = format!("it says something of component {}, which it has not", said.component);
                return Err(VssError::new(VssCode::ObjectNotFound, message));
            }
        }
        Ok(())
    }

    /// What it registers with.
    #[must_use]
    pub fn register(&self, class_id: WriterClassId) -> Register {
        Register {
            instance_name: self.instance_name.clone(),
            usage: self.usage,
            level: self.level,
            freeze_timeout_ms: self.freeze_timeout_ms,
            ..Register::new(class_id, self.name.clone())
        }
    }
}
