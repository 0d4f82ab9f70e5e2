//! One writer in one session: what its answers mean, and the state that follows (spec R 2.7 to 2.9). Who calls it and when
//! stands in [`super::session`].

use crate::fault;

use super::registry::RegisteredWriter;
use std::path::{Component as Part, Path, PathBuf};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;
use vss_api::writer::{EventKind, EventReply};
use vss_model::time::milliseconds;
use vss_model::{
    BackupSchema, BackupState, Component, ComponentData, ComponentName, PartialFile, VssCode, VssError, WriterMetadata,
    WriterState, WriterStatus, limits,
};
use vss_session::Chosen;

/// One writer in one session.
pub struct SessionWriter {
    /// The registered writer.
    pub writer: Arc<RegisteredWriter>,
    /// What it owns, as it answered to Identify.
    pub metadata: WriterMetadata,
    /// Its components that the backup concerns; empty: not involved.
    pub components: BTreeSet<ComponentName>,
    /// Components that it gave up by name.
    pub component_failures: BTreeMap<ComponentName, VssError>,
    /// What the requester says of its components.
    pub words: BTreeMap<ComponentName, Chosen>,
    /// What it said of its components itself.
    pub data: BTreeMap<ComponentName, ComponentData>,
    /// Components that the requester says are in the backup, or are not.
    pub backed_up: BTreeMap<ComponentName, bool>,
    /// Milliseconds from its Freeze to its Thaw (or Abort); 0 when it was not frozen.
    pub frozen_ms: u64,
    pub(super) state: WriterState,
    pub(super) failure: Option<VssError>,
    /// The application's own number for the failure.
    pub(super) application_code: Option<u32>,
    pub(super) freeze_limit: Duration,
    pub(super) frozen_at: Option<Instant>,
    /// Told PrepareBackup or more: BackupShutdown is owed.
    pub(super) began: bool,
    /// Told PrepareSnapshot or more, PostSnapshot not handled yet: Abort is owed if it ends now.
    pub(super) in_snapshot: bool,
    /// Let the time for an answer pass: nothing is waited for any more.
    pub(super) is_silent: bool,
}

impl SessionWriter {
    /// A writer that has said what it owns and was told nothing yet.
    #[must_use]
    pub fn new(writer: Arc<RegisteredWriter>, metadata: WriterMetadata, freeze_limit: Duration) -> Self {
        Self {
            writer,
            metadata,
            components: BTreeSet::new(),
            component_failures: BTreeMap::new(),
            words: BTreeMap::new(),
            data: BTreeMap::new(),
            backed_up: BTreeMap::new(),
            frozen_ms: 0,
            state: WriterState::Stable,
            failure: None,
            application_code: None,
            freeze_limit,
            frozen_at: None,
            began: false,
            in_snapshot: false,
            is_silent: false,
        }
    }

    /// True when the backup concerns it.
    #[must_use]
    pub fn is_involved(&self) -> bool {
        !self.components.is_empty()
    }

    /// Its state in this session.
    #[must_use]
    pub fn state(&self) -> WriterState {
        self.state
    }

    /// Why it failed; none while it has not.
    #[must_use]
    pub fn failure(&self) -> Option<&VssError> {
        self.failure.as_ref()
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> WriterStatus {
        WriterStatus {
            instance_id: self.metadata.instance_id,
            class_id: self.metadata.class_id,
            name: self.metadata.name.clone(),
            involved: self.is_involved(),
            state: self.state,
            failure: self.failure.clone(),
            application_code: self.application_code,
        }
    }

    pub(super) fn fail(&mut self, kind: EventKind, failure: VssError) {
        self.state = if self.state.is_failed() { self.state } else { kind.state_failed() };
        // The first failure is the cause; what follows from it would hide it. But a writer that had given up a component
        // has now failed as a whole.
        if self.failure.as_ref().is_none_or(is_partial) {
            self.failure = Some(failure);
        }
    }

    /// Takes in an answer that is no refusal.
    pub(super) fn take_reply(&mut self, kind: EventKind, mut reply: EventReply, state: &BackupState) {
        if let Err(failure) = self.take_data(kind, &mut reply, state) {
            return self.fail(kind, failure);
        }
        let reply = &reply;
        if self.failure.is_none() {
            self.application_code = reply.application_code;
        }
        let lost = self.take_component_failures(reply);
        match reply.failure() {
            // Some components failed, the writer goes on with the rest (spec R 2.9).
            Some(failure) if is_partial(&failure) => {
                if self.component_failures.is_empty() {
                    // It does not say which: none of them can be trusted.
                    let all = self.components.iter().map(|name| (name.clone(), failure.clone()));
                    self.component_failures = all.collect();
                }
                let failure = match lost {
                    Some(lost) if reply.message.is_empty() => lost.failure(),
                    Some(lost) => VssError { message: format!("{}; {}", failure.message, lost.words()), ..failure },
                    None => failure,
                };
                self.failure.get_or_insert(failure);
                self.advance(kind);
            }
            Some(failure) => self.fail(kind, failure),
            None => {
                if let Some(lost) = lost {
                    self.failure.get_or_insert(lost.failure());
                }
                self.advance(kind);
            }
        }
    }

    /// Takes in what is to be kept of its components with the backup; a component with what may not be kept fails.
    fn take_data(&mut self, kind: EventKind, reply: &mut EventReply, state: &BackupState) -> Result<(), VssError> {
        for component in &mut reply.components {
            let data = std::mem::take(&mut component.data);
            if data.is_empty() || !self.components.contains(&component.name) || fault::is_off("data") {
                continue;
            }
            let is_open = matches!(kind, EventKind::PrepareBackup | EventKind::PostSnapshot);
            if !is_open && !fault::is_off("window") {
                let (what, bad) = (&component.name, VssCode::BadState);
                let message = format!("it changed what is kept of component {what} in {} ({bad})", kind.name());
                return Err(VssError::new(VssCode::WriterErrorNonRetryable, message)
                    .with_hint("It may in PrepareBackup and in PostSnapshot"));
            }
            let room = limits::BACKUP_DATA_PER_WRITER - self.data.values().map(ComponentData::size).sum::<usize>();
            let schema = self.metadata.declaration.backup_schema;
            let is_inside = self.check_partial_files(&component.name, &data);
            match is_inside.and_then(|()| keepable(self.data.get(&component.name), &data, state, schema, room)) {
                Ok(()) => self.data.entry(component.name.clone()).or_default().add(data),
                Err(refusal) if component.code.is_none() => {
                    component.code = Some(refusal.code);
                    component.message = refusal.message;
                }
                // It failed by its own word, which says more.
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Does every partial file lie in or below the directory of a file set of the component, or of a component below that
    /// (spec R 3.8)? Patterns are not asked: many files by many file sets would take long.
    fn check_partial_files(&self, name: &ComponentName, data: &ComponentData) -> Result<(), VssError> {
        // There may be 10,000 components.
        if data.partial_files.is_empty() {
            return Ok(());
        }
        let of_it = self.metadata.components.iter().filter(|one| one.name == *name || name.contains(&one.name));
        let places: BTreeSet<&Path> = of_it.flat_map(Component::all_files).map(|set| set.path.as_path()).collect();
        let is_outside = |file: &&PartialFile| !file.path.ancestors().any(|place| places.contains(place));
        let outside = data.partial_files.iter().find(is_outside);
        match outside {
            Some(file) if !fault::is_off("inside") => {
                let path = file.path.join(&file.file_name);
                let message = format!(
                    "it named ranges of {}, which is below the directory of no file set of component {name}",
                    path.display()
                );
                Err(VssError::new(VssCode::WriterErrorNonRetryable, message))
            }
            _ => Ok(()),
        }
    }

    /// Takes in which of its components in the backup failed alone, and returns the first of them.
    fn take_component_failures(&mut self, reply: &EventReply) -> Option<Lost> {
        let mut lost = None;
        for component in reply.components.iter().filter(|_| !fault::is_off("components")) {
            let failure =
                EventReply { code: component.code, message: component.message.clone(), ..EventReply::default() };
            if let Some(failure) = failure.failure()
                && self.components.contains(&component.name)
            {
                lost.get_or_insert_with(|| Lost { name: component.name.clone(), reason: failure.message.clone() });
                self.component_failures.entry(component.name.clone()).or_insert(failure);
            }
        }
        lost
    }

    fn advance(&mut self, kind: EventKind) {
        if !self.state.is_failed()
            && let Some(state) = kind.state_after()
        {
            self.state = state;
        }
    }

    pub(super) fn end_freeze(&mut self) {
        if let Some(frozen_at) = self.frozen_at.take() {
            self.frozen_ms = milliseconds(frozen_at.elapsed());
        }
    }
}

/// May this be kept of a component, beside what is kept of it already?
fn keepable(
    kept: Option<&ComponentData>,
    data: &ComponentData,
    state: &BackupState,
    schema: BackupSchema,
    room: usize,
) -> Result<(), VssError> {
    if !data.partial_files.is_empty() && !state.partial_file_support && !fault::is_off("partial") {
        let message = "it named ranges of files, and the requester does not support partial files";
        return Err(VssError::new(VssCode::WriterErrorNonRetryable, message));
    }
    let names_changes = schema.has(BackupSchema::LAST_MODIFY) && schema.supports(state.backup_type);
    if !data.differenced_files.is_empty() && !names_changes && !fault::is_off("schema") {
        let message = format!(
            "it named differenced files in a backup of type {:?}, and its backup schema {:#x} does not say that it does so",
            state.backup_type, schema.0
        );
        return Err(VssError::new(VssCode::WriterErrorNonRetryable, message));
    }
    let of_partial = data.partial_files.iter().map(|file| (&file.path, &file.file_name));
    let of_differenced = data.differenced_files.iter().map(|one| (&one.files.path, &one.files.pattern));
    let is_wrong = |(path, name): &(&PathBuf, &String)| {
        !path.is_absolute()
            || path.components().any(|part| part == Part::ParentDir)
            || name.is_empty()
            || name.contains('/')
    };
    if let Some((path, name)) = of_partial.chain(of_differenced).find(is_wrong) {
        let message = format!("\"{}\" in {} is no file of an absolute directory", name.escape_debug(), path.display());
        return Err(VssError::new(VssCode::WriterErrorNonRetryable, message));
    }
    let files = |count: fn(&ComponentData) -> usize| kept.map_or(0, count) + count(data);
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let too_much = length(&data.backup_stamp) > limits::BACKUP_WORDS
        || length(&data.backup_metadata) > limits::BACKUP_METADATA
        || files(|data| data.partial_files.len()) > limits::BACKUP_FILES
        || files(|data| data.differenced_files.len()) > limits::BACKUP_FILES
        || data.size() > room;
    if too_much {
        let message = format!("there is no room to keep {} bytes of it with the backup", data.size());
        return Err(VssError::new(VssCode::WriterErrorOutOfResources, message));
    }
    Ok(())
}

/// A component that its writer gave up, while the writer goes on.
struct Lost {
    name: ComponentName,
    reason: String,
}

impl Lost {
    fn words(&self) -> String {
        format!("it gave up component {}: {}", self.name, self.reason)
    }

    fn failure(&self) -> VssError {
        VssError::new(VssCode::WriterErrorPartialFailure, self.words())
    }
}

fn is_partial(failure: &VssError) -> bool {
    failure.code == VssCode::WriterErrorPartialFailure
}

#[cfg(test)]
mod tests {
    use super::super::WriterPort;
    use super::super::port::PortFuture;
    use super::*;
    use serde_json::{Value, json};
    use std::os::fd::OwnedFd;
    use vss_api::writer::{Event, Identify, Identity};
    use vss_model::{BackupType, WriterClassId, WriterInstanceId};

    /// Nobody calls it here.
    struct NoPort;

    impl WriterPort for NoPort {
        fn identify(&self, _question: Identify) -> PortFuture<Identity> {
            Box::pin(std::future::pending())
        }

        fn event(&self, _kind: EventKind, _event: Event, _directories: Vec<OwnedFd>) -> PortFuture<EventReply> {
            Box::pin(std::future::pending())
        }

        fn close(&self) {}
    }

    /// A writer with components `0`, `1` and `2` in the backup, after it answered so.
    fn after(answer: Value) -> SessionWriter {
        after_event(EventKind::PrepareSnapshot, answer, BackupState::default())
    }

    fn after_event(kind: EventKind, answer: Value, state: BackupState) -> SessionWriter {
        let class_id = WriterClassId::random();
        let register = json!({"class_id": class_id, "name": "one"});
        let instance_id = WriterInstanceId::random();
        let registered = RegisteredWriter {
            instance_id,
            register: serde_json::from_value(register).unwrap(),
            uid: 1,
            pid: 1,
            port: Arc::new(NoPort),
        };
        let files = json!([{"path": "/srv", "pattern": "*", "recursive": true}]);
        let components: Vec<Value> = ["0", "1", "2"].map(|name| json!({"name": name, "files": files})).into();
        let metadata = json!({"class_id": class_id, "instance_id": instance_id, "name": "one", "components": components,
            "backup_schema": 0x42});
        let metadata: WriterMetadata = serde_json::from_value(metadata).unwrap();
        let mut writer = SessionWriter::new(Arc::new(registered), metadata, Duration::from_secs(1));
        writer.components = writer.metadata.components.iter().map(|component| component.name.clone()).collect();
        writer.take_reply(kind, serde_json::from_value(answer).unwrap(), &state);
        writer
    }

    fn lost(names: &[&str]) -> Value {
        let one = |name: &&str| json!({"name": name, "code": "VSS_E_WRITERERROR_RETRYABLE", "message": format!("{name} is busy")});
        names.iter().map(one).collect()
    }

    fn words(writer: &SessionWriter) -> &str {
        &writer.failure().unwrap().message
    }

    #[test]
    fn a_component_that_is_given_up_is_a_partial_failure_whatever_else_the_writer_says() {
        let writer = after(json!({"components": lost(&["2", "1"])}));
        assert_eq!(writer.failure().unwrap().code, VssCode::WriterErrorPartialFailure);
        assert_eq!(writer.state(), WriterState::WaitingForFreeze);
        let given_up: Vec<&str> = writer.component_failures.keys().map(|name| name.name.as_str()).collect();
        assert_eq!(given_up, ["1", "2"]);
    }

    #[test]
    fn a_partial_failure_names_the_first_lost_component_and_its_reason() {
        let code = "VSS_E_WRITERERROR_PARTIAL_FAILURE";
        assert_eq!(words(&after(json!({"components": lost(&["2", "1"])}))), "it gave up component 2: 2 is busy");
        let silent = after(json!({"code": code, "components": lost(&["1"])}));
        assert_eq!(words(&silent), "it gave up component 1: 1 is busy");
        let wordy = after(json!({"code": code, "message": "not all", "components": lost(&["1"])}));
        assert_eq!(words(&wordy), "not all; it gave up component 1: 1 is busy");
        let no_reason = after(json!({"components": [{"name": "1", "code": "VSS_E_WRITERERROR_TIMEOUT"}]}));
        assert_eq!(words(&no_reason), "it gave up component 1: it gave no reason");
    }

    #[test]
    fn a_partial_failure_that_names_no_component_is_one_of_all() {
        let writer = after(json!({"code": "VSS_E_WRITERERROR_PARTIAL_FAILURE"}));
        assert_eq!(writer.component_failures.len(), 3);
    }

    #[test]
    fn a_writer_that_had_given_up_a_component_can_fail_as_a_whole_once() {
        let mut writer = after(json!({"components": lost(&["1"])}));
        for (kind, why) in [(EventKind::Freeze, "first"), (EventKind::Thaw, "second")] {
            writer.fail(kind, VssError::new(VssCode::WriterErrorTimeout, why));
        }
        assert_eq!((words(&writer), writer.state()), ("first", WriterState::FailedAtFreeze));
    }

    #[test]
    fn stamps_metadata_and_files_are_kept_where_they_may_be_said() {
        let said = json!([{"name": "1", "backup_stamp": "s", "partial_files": []},
            {"name": "unknown", "backup_stamp": "s"}]);
        for kind in [EventKind::PrepareBackup, EventKind::PostSnapshot] {
            let writer = after_event(kind, json!({"components": said}), BackupState::default());
            assert!(writer.failure().is_none() && writer.data.len() == 1);
            assert_eq!(writer.data.values().next().unwrap().backup_stamp.as_deref(), Some("s"));
        }
        for kind in [EventKind::PrepareSnapshot, EventKind::Freeze, EventKind::Thaw, EventKind::BackupComplete] {
            let writer = after_event(kind, json!({"components": said}), BackupState::default());
            let failure = writer.failure().unwrap();
            assert_eq!(failure.code, VssCode::WriterErrorNonRetryable, "{kind:?}");
            assert!(failure.message.contains("VSS_E_BAD_STATE") && writer.data.is_empty(), "{failure}");
        }
    }

    #[test]
    fn parts_of_files_need_a_requester_that_supports_them() {
        let said = json!({"components": [{"name": "1", "partial_files":
            [{"path": "/srv", "file_name": "f", "ranges": "0:1"}]}]});
        let refused = after_event(EventKind::PrepareBackup, said.clone(), BackupState::default());
        assert_eq!(refused.failure().unwrap().code, VssCode::WriterErrorPartialFailure);
        assert!(refused.data.is_empty() && refused.component_failures.len() == 1);
        let state = BackupState { partial_file_support: true, ..BackupState::default() };
        assert_eq!(after_event(EventKind::PrepareBackup, said, state).data.len(), 1);
        let elsewhere = json!({"components": [{"name": "1", "partial_files":
            [{"path": "/srv/../etc", "file_name": "f", "ranges": "0:1"}]}, {"name": "2", "partial_files":
            [{"path": "/srvs", "file_name": "f", "ranges": "0:1"}]}]});
        assert!(after_event(EventKind::PrepareBackup, elsewhere, state).data.is_empty());
    }

    #[test]
    fn differenced_files_need_a_schema_and_a_backup_that_asks_for_changes() {
        let said = json!({"components": [{"name": "1", "differenced_files": [{"path": "/srv", "pattern": "*"}]}]});
        let of = |backup_type| {
            let state = BackupState { backup_type, ..BackupState::default() };
            after_event(EventKind::PostSnapshot, said.clone(), state).data.len()
        };
        // The writer's schema says LAST_MODIFY and INCREMENTAL.
        assert_eq!((of(BackupType::Incremental), of(BackupType::Differential), of(BackupType::Log)), (1, 0, 0));
    }

    #[test]
    fn what_is_kept_of_a_component_is_bounded() {
        let of = |data: Value| {
            let state = BackupState { backup_type: BackupType::Incremental, ..BackupState::default() };
            let writer = after_event(EventKind::PostSnapshot, json!({"components": [data]}), state);
            writer.component_failures.values().next().map(|failure| failure.code)
        };
        let text = |bytes: usize| "x".repeat(bytes);
        assert_eq!(of(json!({"name": "1", "backup_stamp": text(limits::BACKUP_WORDS)})), None);
        let too_much = Some(VssCode::WriterErrorOutOfResources);
        assert_eq!(of(json!({"name": "1", "backup_stamp": text(limits::BACKUP_WORDS + 1)})), too_much);
        assert_eq!(of(json!({"name": "1", "backup_metadata": text(limits::BACKUP_METADATA + 1)})), too_much);
        let files: Vec<_> =
            (0..=limits::BACKUP_FILES).map(|n| json!({"path": "/s", "pattern": n.to_string()})).collect();
        assert_eq!(of(json!({"name": "1", "differenced_files": files})), too_much);
        let large = |name: &str| json!({"name": name, "backup_metadata": text(limits::BACKUP_METADATA)});
        let all = json!({"components": [large("0"), large("1"), large("2"), {"name": "2", "backup_stamp": "s"}]});
        let writer = after_event(EventKind::PostSnapshot, all, BackupState::default());
        assert!(writer.data.values().map(ComponentData::size).sum::<usize>() <= limits::BACKUP_DATA_PER_WRITER);
        assert_eq!(writer.component_failures.len(), 1, "three times 1 MiB leave no room for a stamp");
    }

    #[test]
    fn of_an_answer_only_what_was_asked_for_is_kept() {
        let unknown: Vec<_> = (0..1000).map(|n| json!({"name": format!("u{n}"), "code": "E_OUTOFMEMORY"})).collect();
        let writer = after(json!({"components": unknown}));
        assert!(writer.failure().is_none() && writer.component_failures.is_empty());

        let lost = json!([{"name": "1", "code": "E_OUTOFMEMORY", "message": "x".repeat(1 << 20)}]);
        let writer = after(json!({"components": lost}));
        let failure = writer.component_failures.values().next().unwrap();
        assert_eq!(failure.code, VssCode::WriterErrorNonRetryable, "E_OUTOFMEMORY is not a writer's to say");
        assert!(failure.message.len() < 5000 && words(&writer).len() < 5000);
    }
}
