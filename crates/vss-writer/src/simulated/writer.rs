//! The writer itself.

use super::description::{Deed, Description};
use super::files;
use crate::{Answer, AnyWriter, Call};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use vss_api::writer::{ComponentReply, Event, EventKind, EventReply, Identify, Identity, Register};
use vss_model::{BackupType, Component, ComponentData, FileSet, VssCode, VssError, WriterClassId};

/// One event as it reached the writer.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Told {
    /// Which.
    pub kind: EventKind,
    /// Its parameters; none for Identify.
    #[serde(flatten)]
    pub event: Option<Event>,
    /// How many directories of copies came with it.
    pub directories: usize,
}

/// Watches a [`SimulatedWriter`] from another thread.
#[derive(Debug, Clone, Default)]
pub struct Handle(Arc<Mutex<Vec<Told>>>);

impl Handle {
    /// The events so far, in order.
    #[must_use]
    pub fn told(&self) -> Vec<Told> {
        self.lock().clone()
    }

    /// The events so far without Identify, in order.
    #[must_use]
    pub fn events(&self) -> Vec<EventKind> {
        self.lock().iter().map(|told| told.kind).filter(|kind| *kind != EventKind::Identify).collect()
    }

    /// The last event of this kind.
    #[must_use]
    pub fn last(&self, kind: EventKind) -> Option<Event> {
        self.lock().iter().rev().find(|told| told.kind == kind).and_then(|told| told.event.clone())
    }

    /// Takes the events out, in order.
    #[must_use]
    pub fn take(&self) -> Vec<Told> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Told>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A writer that does what its description says.
#[derive(Debug)]
pub struct SimulatedWriter {
    description: Description,
    class_id: WriterClassId,
    handle: Handle,
    /// Events that have failed or slept so far, by place in the description.
    failed: BTreeMap<usize, u32>,
    slept: BTreeMap<usize, u32>,
    /// Backups that were stamped.
    stamped: u64,
}

impl SimulatedWriter {
    /// The writer of this description.
    ///
    /// # Errors
    /// Those of [`Description::check`].
    pub fn new(description: Description) -> Result<Self, VssError> {
        description.check()?;
        Ok(Self {
            class_id: description.class_id.unwrap_or_else(WriterClassId::random),
            description,
            handle: Handle::default(),
            failed: BTreeMap::new(),
            slept: BTreeMap::new(),
            stamped: 0,
        })
    }

    /// What watches it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Sleeps and fails as described; the reply of a failure.
    fn misbehave(&mut self, kind: EventKind) -> Option<EventReply> {
        for (place, sleeping) in self.description.sleep.iter().enumerate() {
            if sleeping.event == kind && counts(&mut self.slept, place, sleeping.times) {
                thread::sleep(Duration::from_millis(sleeping.ms));
            }
        }
        for (place, failing) in self.description.fail.iter().enumerate() {
            if failing.event == kind && counts(&mut self.failed, place, failing.times) {
                let message = if failing.message.is_empty() {
                    format!("the simulated writer fails {}", kind.name())
                } else {
                    failing.message.clone()
                };
                let partial = failing.code == VssCode::WriterErrorPartialFailure;
                return Some(EventReply {
                    // A writer that gave up some components goes on with the rest.
                    state: (!partial).then(|| kind.state_failed()),
                    code: Some(failing.code),
                    application_code: failing.application_code,
                    message,
                    ..EventReply::default()
                });
            }
        }
        None
    }

    /// Its components in the backup.
    fn involved<'a>(&'a self, event: &'a Event) -> impl Iterator<Item = &'a Component> {
        let is_in = |component: &&Component| event.components.iter().any(|one| one.name == component.name);
        self.description.components.iter().filter(is_in)
    }

    fn say(&mut self, kind: EventKind, event: &Event) -> Vec<ComponentReply> {
        let backup_type = event.backup_state.backup_type;
        let is_now = |types: &[BackupType]| types.is_empty() || types.contains(&backup_type);
        let said = self.description.say.iter().filter(|said| said.event == kind && is_now(&said.backup_types));
        let mut replies: Vec<ComponentReply> = said
            .map(|said| ComponentReply {
                code: said.code,
                application_code: said.application_code,
                message: said.message.clone(),
                data: said.data.clone(),
                ..ComponentReply::of(said.component.clone())
            })
            .collect();
        if self.description.stamps && kind == EventKind::PostSnapshot {
            self.stamped += 1;
            let stamp = self.stamped.to_string();
            replies.extend(self.involved(event).map(|component| ComponentReply {
                data: ComponentData { backup_stamp: Some(stamp.clone()), ..ComponentData::default() },
                ..ComponentReply::of(component.name.clone())
            }));
        }
        replies
    }

    fn work_on_files(&self, kind: EventKind, event: &Event, reply: &EventReply) -> io::Result<()> {
        let specs = || self.description.components.iter().flat_map(Component::all_files);
        match kind {
            EventKind::PrepareSnapshot if self.description.spit => specs().try_for_each(files::spit),
            EventKind::PostSnapshot => {
                if self.description.spit {
                    specs().try_for_each(files::wipe)?;
                }
                self.description.deeds.iter().try_for_each(|deed| self.do_deed(*deed, event, reply))
            }
            EventKind::Abort if self.description.spit => specs().try_for_each(files::wipe),
            _ => Ok(()),
        }
    }

    fn do_deed(&self, deed: Deed, event: &Event, reply: &EventReply) -> io::Result<()> {
        let said = reply.components.iter().map(|component| &component.data);
        match deed {
            Deed::DeleteFiles => {
                let specs = self.involved(event).flat_map(Component::all_files);
                specs.map(vss_model::FileSpec::file_set).try_for_each(|set| files::delete(&set))
            }
            Deed::DeletePartialFiles => said.flat_map(|data| &data.partial_files).try_for_each(|file| {
                let (path, pattern) = (file.path.clone(), file.file_name.clone());
                files::delete(&FileSet { path, pattern, recursive: false })
            }),
            Deed::DeleteDifferencedFiles => {
                said.flat_map(|data| &data.differenced_files).try_for_each(|one| files::delete(&one.files))
            }
        }
    }
}

/// Counts one more of what may happen `most` times; false when it has happened often enough.
fn counts(counters: &mut BTreeMap<usize, u32>, place: usize, most: u32) -> bool {
    let counter = counters.entry(place).or_default();
    let happens = *counter < most;
    *counter = counter.saturating_add(u32::from(happens));
    happens
}

impl AnyWriter for SimulatedWriter {
    fn registration(&self) -> Register {
        self.description.register(self.class_id)
    }

    fn identify(&mut self, _identify: &Identify) -> Result<Identity, VssError> {
        self.handle.lock().push(Told { kind: EventKind::Identify, event: None, directories: 0 });
        if let Some(failure) = self.misbehave(EventKind::Identify) {
            let code = failure.code.unwrap_or(VssCode::WriterErrorNonRetryable);
            return Err(VssError::new(code, failure.message));
        }
        Ok(Identity {
            declaration: self.description.declaration.clone(),
            ..Identity::of(self.description.components.iter().cloned())
        })
    }

    fn event(&mut self, call: &Call<'_>) -> Answer {
        let (kind, event) = (call.kind(), call.event());
        let directories = event.volumes.iter().filter(|volume| call.directory(&volume.volume).is_some()).count();
        self.handle.lock().push(Told { kind, event: Some(event.clone()), directories });
        let failure = self.misbehave(kind);
        if let Some(failure) = failure.as_ref().filter(|failure| failure.state.is_some()) {
            return Ok(failure.clone());
        }
        let mut reply = failure.unwrap_or_default();
        reply.components = self.say(kind, event);
        self.work_on_files(kind, event, &reply).map_err(|error| {
            VssError::new(VssCode::WriterErrorNonRetryable, format!("{} on its files: {error}", kind.name()))
        })?;
        Ok(reply)
    }
}
