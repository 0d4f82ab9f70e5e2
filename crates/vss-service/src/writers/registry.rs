//! The registered writers of the machine: who may join, and how long each may stay frozen.

use super::port::WriterPort;
use crate::config;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use vss_api::event::{Event, EventKind};
use vss_api::management;
use vss_api::writer::Register;
use vss_model::time::milliseconds;
use vss_model::{VssCode, VssError, WriterInstanceId, limits};

/// Longest name of a writer or instance, in bytes.
const LONGEST_NAME: usize = 128;

/// One registered writer.
pub struct RegisteredWriter {
    /// This registration.
    pub instance_id: WriterInstanceId,
    /// What it said of itself.
    pub register: Register,
    /// The uid of its process.
    pub uid: u32,
    /// Its process id.
    pub pid: u32,
    /// The line to it.
    pub port: Arc<dyn WriterPort>,
}

impl RegisteredWriter {
    /// An event about it; it belongs to the uid of its process.
    #[must_use]
    pub fn event(&self, kind: EventKind) -> Event {
        Event { writer: Some(self.register.name.clone()), uid: Some(self.uid), ..Event::of(kind) }
    }
}

/// All registered writers, in the order of registration.
#[derive(Default)]
pub struct Registry {
    writers: Vec<Arc<RegisteredWriter>>,
    /// Limits from Freeze to Thaw by writer name, from `vss.toml` and `SetLimits`.
    freeze_by_name: BTreeMap<String, Duration>,
    /// The limit for writers that name no shorter one.
    freeze: Duration,
}

impl Registry {
    /// An empty registry with the limits of `vss.toml`.
    #[must_use]
    pub fn new(settings: &config::Writers) -> Self {
        let freeze_by_name =
            settings.freeze_ms.iter().map(|(name, ms)| (name.clone(), Duration::from_millis(*ms))).collect();
        Self { writers: Vec::new(), freeze_by_name, freeze: limits::WRITER_FREEZE }
    }

    /// Checks what a writer says of itself and whether there is room for it.
    ///
    /// # Errors
    /// `E_INVALIDARG` for a bad name or limit, `VSS_E_WRITER_ALREADY_SUBSCRIBED` for the same class and instance name
    /// twice, `E_OUTOFMEMORY` when there are too many.
    pub fn admit(&self, register: &Register, uid: u32) -> Result<(), VssError> {
        let name = &register.name;
        check_name(name)?;
        if register.instance_name.len() > LONGEST_NAME || register.instance_name.chars().any(char::is_control) {
            return Err(VssError::new(
                VssCode::InvalidArgument,
                format!("Writer {name}: its instance name has more than {LONGEST_NAME} bytes, or a control character"),
            ));
        }
        if register.freeze_timeout_ms.is_some_and(|ms| ms == 0 || u128::from(ms) > limits::WRITER_FREEZE.as_millis()) {
            return Err(VssError::new(
                VssCode::InvalidArgument,
                format!("Writer {name}: freeze_timeout_ms is 1 to {}", limits::WRITER_FREEZE.as_millis()),
            ));
        }
        let same = |writer: &&Arc<RegisteredWriter>| {
            writer.register.class_id == register.class_id && writer.register.instance_name == register.instance_name
        };
        if let Some(other) = self.writers.iter().find(same) {
            return Err(VssError::new(
                VssCode::WriterAlreadySubscribed,
                format!("Writer {name} (class {}) is registered already, by process {}", register.class_id, other.pid),
            )
            .with_hint("Stop that process, or give each instance its own instance_name"));
        }
        let of_uid = self.writers.iter().filter(|writer| writer.uid == uid).count();
        if self.writers.len() >= limits::WRITERS || (uid != 0 && of_uid >= limits::WRITERS_PER_UID) {
            return Err(VssError::new(
                VssCode::OutOfMemory,
                format!("Too many writers are registered ({})", self.writers.len()),
            ));
        }
        Ok(())
    }

    /// Adds an admitted writer.
    pub fn add(&mut self, writer: Arc<RegisteredWriter>) {
        self.writers.push(writer);
    }

    /// Ends a registration; none when it had ended.
    pub fn remove(&mut self, instance_id: WriterInstanceId) -> Option<Arc<RegisteredWriter>> {
        let index = self.writers.iter().position(|writer| writer.instance_id == instance_id)?;
        Some(self.writers.remove(index))
    }

    /// All writers, in the order of registration.
    #[must_use]
    pub fn writers(&self) -> &[Arc<RegisteredWriter>] {
        &self.writers
    }

    /// The longest time from this writer's Freeze to its Thaw: the administrator's word for it, its own if shorter.
    #[must_use]
    pub fn freeze_limit(&self, register: &Register) -> Duration {
        let limit = self.freeze_by_name.get(&register.name).copied().unwrap_or(self.freeze);
        register.freeze_timeout_ms.map_or(limit, |ms| limit.min(Duration::from_millis(ms)))
    }

    /// Changes the limit of all writers, or of one by name.
    pub fn set_freeze_limit(&mut self, name: Option<String>, limit: Duration) {
        match name {
            Some(name) => {
                self.freeze_by_name.insert(name, limit);
            }
            None => self.freeze = limit,
        }
    }

    /// The limit of all writers in milliseconds, and those by name.
    #[must_use]
    pub fn freeze_limits(&self) -> (u64, Vec<management::WriterLimit>) {
        let limit = |(name, limit): (&String, &Duration)| management::WriterLimit {
            name: name.clone(),
            freeze_ms: milliseconds(*limit),
        };
        (milliseconds(self.freeze), self.freeze_by_name.iter().map(limit).collect())
    }

    /// The list for `ListWriters`.
    #[must_use]
    pub fn entries(&self) -> Vec<management::RegisteredWriter> {
        self.writers
            .iter()
            .map(|writer| management::RegisteredWriter {
                name: writer.register.name.clone(),
                instance_name: writer.register.instance_name.clone(),
                class_id: writer.register.class_id,
                instance_id: writer.instance_id,
                level: writer.register.level,
                freeze_ms: milliseconds(self.freeze_limit(&writer.register)),
                uid: writer.uid,
                pid: writer.pid,
            })
            .collect()
    }
}

/// Can a writer have this name?
///
/// # Errors
/// `E_INVALIDARG`.
pub fn check_name(name: &str) -> Result<(), VssError> {
    if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
        return Err(VssError::new(
            VssCode::InvalidArgument,
            format!("A writer's name has 1 to {LONGEST_NAME} bytes and no control character"),
        ));
    }
    Ok(())
}
