//! The order of calls of a backup, against a service that only records and answers (spec R 1.3).

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use vss_model::{BackupState, BackupType, Consistency, Context, CreationOptions, VssCode};
use vss_requester::{Backup, BackupRequest, Instance, Monitor, Quiet, Requester, WriterChoice};

const ID: &str = "b5946137-7b9f-4925-af80-51abd60b20d5";
const AT: &str = "2026-11-24T09:30:00Z";

/// What the fake service does otherwise than succeed at once.
#[derive(Default)]
struct Behaviour {
    /// How often StartSnapshotSet finds another set being created.
    busy: u32,
    /// The operation that never ends by itself.
    endless: Option<&'static str>,
    /// The operation that fails.
    failing: Option<&'static str>,
    consistency: Option<Consistency>,
    writers: Vec<&'static str>,
}

struct State {
    behaviour: Behaviour,
    calls: Vec<String>,
    operation: String,
    cancelled: bool,
}

/// A service that listens in a directory of its own.
struct Fake {
    directory: TempDir,
    state: Arc<Mutex<State>>,
}

impl Fake {
    fn start(behaviour: Behaviour) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("requester")).unwrap();
        let state = State { behaviour, calls: Vec::new(), operation: String::new(), cancelled: false };
        let state = Arc::new(Mutex::new(state));
        let of_thread = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, state) = (stream.unwrap(), Arc::clone(&of_thread));
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    let mut message = Vec::new();
                    while reader.read_until(0, &mut message).unwrap_or(0) > 0 {
                        let call: Value = serde_json::from_slice(&message[..message.len() - 1]).unwrap();
                        let mut answer = serde_json::to_vec(&state.lock().unwrap().answer(&call)).unwrap();
                        answer.push(0);
                        if stream.write_all(&answer).is_err() {
                            return;
                        }
                        message.clear();
                    }
                });
            }
        });
        Self { directory, state }
    }

    fn requester(&self) -> Requester {
        Requester::connect(&Instance::new(self.directory.path(), self.directory.path().join("state"))).unwrap()
    }

    /// The calls so far, without those that only look.
    fn calls(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.calls.iter().filter(|call| !["GetStatus", "Wait"].contains(&call.as_str())).cloned().collect()
    }
}

impl State {
    fn answer(&mut self, call: &Value) -> Value {
        let name = call["method"].as_str().unwrap();
        let short = name.rsplit('.').next().unwrap().to_owned();
        self.calls.push(short.clone());
        let writer = |name: &&str| json!({"class_id": ID, "instance_id": ID, "name": name});
        let parameters = match short.as_str() {
            "InitializeForBackup" => json!({"session_id": ID}),
            "StartSnapshotSet" if self.behaviour.busy > 0 => {
                self.behaviour.busy -= 1;
                let error = VssCode::SnapshotSetInProgress;
                return json!({"error": "org.linuxvss.Requester.VssError", "parameters": {"name": error.name(),
                    "code": error.hresult(), "message": "Another set is being created by borg", "hint": ""}});
            }
            "StartSnapshotSet" => {
                assert_eq!(call["parameters"], json!({"max_rate": 1 << 20, "full_compare": false}));
                json!({"set_id": ID})
            }
            "AddToSnapshotSet" => json!({"shadow_id": ID, "volume": "/srv", "inner": "", "provider": "fake"}),
            "GetWriterMetadata" => json!({"writers": self.behaviour.writers.iter().map(writer).collect::<Vec<_>>()}),
            "GetWriterStatus" => json!({"writers": []}),
            "GetSnapshotSet" => json!({"set": self.set()}),
            "ExposeSnapshot" => json!({"path": "/run/vss/shadows/x"}),
            "DeleteShadows" => json!({"shadow_ids": [ID]}),
            "GetStatus" => {
                json!({"version": "0", "pid": 1, "started_at": AT, "recovery": [], "sessions": [], "writers": 0,
                "shadows": 0, "creating": null, "holding": false})
            }
            "ListWriters" => {
                json!({"writers": [{"name": "redis", "instance_name": "", "class_id": ID, "instance_id": ID,
                "level": "back_end", "freeze_ms": 1, "uid": 0, "pid": 1}]})
            }
            "GatherWriterMetadata" | "PrepareForBackup" | "DoSnapshotSet" | "GatherWriterStatus" | "BackupComplete" => {
                self.operation.clone_from(&short);
                json!({"operation_id": ID})
            }
            "Cancel" => {
                self.cancelled = true;
                let mut status = self.status();
                status["result"] = json!(0);
                status
            }
            "Wait" => self.status(),
            _ => json!({}),
        };
        json!({ "parameters": parameters })
    }

    fn status(&self) -> Value {
        let is = |name: Option<&str>| name == Some(self.operation.as_str());
        let error = json!({"code": "VSS_E_PROVIDER_VETO", "message": "It does not want to", "hint": ""});
        let (state, error) = match () {
            () if is(self.behaviour.failing) => ("failed", error),
            () if !is(self.behaviour.endless) => ("finished", Value::Null),
            () if self.cancelled => ("cancelled", Value::Null),
            () => ("pending", Value::Null),
        };
        json!({"state": state, "error": error, "progress": 1, "step": format!("step of {}", self.operation)})
    }

    fn set(&self) -> Value {
        json!({"set_id": ID, "consistency": self.behaviour.consistency.unwrap_or(Consistency::FileSystem), "atomic": true,
            "hold_ms": 0, "freeze_ms": 1, "shadows": [], "writers": [], "context": "backup", "backup_state": {
                "select_components": false, "bootable_system_state": false, "backup_type": "full",
                "partial_file_support": false}, "owner": 0, "requester": "test", "created_at": AT})
    }
}

fn request(context: Context) -> BackupRequest {
    BackupRequest {
        requester: "test".to_owned(),
        context,
        state: BackupState { backup_type: BackupType::Full, ..BackupState::default() },
        writers: WriterChoice::All,
        provider: None,
        options: CreationOptions { max_rate: Some(1 << 20), ..CreationOptions::default() },
        volumes: vec!["/srv".into(), "/home".into()],
        strict: true,
        require: None,
        wait: Duration::from_secs(10),
        previous: None,
        components: Vec::new(),
    }
}

/// Remembers what it hears; wishes to stop as often as it is told to.
#[derive(Default)]
struct Ears {
    heard: Vec<String>,
    wishes: u32,
}

impl Monitor for Ears {
    fn step(&mut self, step: &str) {
        self.heard.push(step.to_owned());
    }

    fn waiting(&mut self, why: &str) {
        self.heard.push(format!("waiting: {why}"));
    }

    fn interruptions(&mut self) -> u32 {
        self.wishes
    }
}

#[test]
fn a_backup_with_writers() {
    let fake = Fake::start(Behaviour::default());
    let mut ears = Ears::default();
    let mut backup = Backup::create(fake.requester(), &request(Context::Backup), &mut ears).unwrap();
    assert_eq!(
        fake.calls(),
        [
            "InitializeForBackup",
            "SetContext",
            "SetBackupState",
            "GatherWriterMetadata",
            "StartSnapshotSet",
            "AddToSnapshotSet",
            "AddToSnapshotSet",
            "PrepareForBackup",
            "DoSnapshotSet",
            "GatherWriterStatus",
            "GetWriterStatus",
            "GetSnapshotSet",
        ]
    );
    assert_eq!(ears.heard.len(), 4, "each operation's step once: {:?}", ears.heard);
    backup.finish(true, &mut Quiet).unwrap();
    // What the writers answered is in their status.
    assert!(fake.calls().ends_with(&["BackupComplete", "GatherWriterStatus", "GetWriterStatus"].map(str::to_owned)));
    backup.finish(false, &mut Quiet).unwrap();
    assert_eq!(fake.calls().last().unwrap(), "AbortBackup");
}

#[test]
fn a_backup_without_writers_calls_nothing_that_concerns_them() {
    let fake = Fake::start(Behaviour::default());
    let mut backup = Backup::create(fake.requester(), &request(Context::FileShareBackup), &mut Quiet).unwrap();
    let calls = fake.calls();
    for forbidden in ["GatherWriterMetadata", "PrepareForBackup", "GatherWriterStatus", "EnableWriterClasses"] {
        assert!(!calls.iter().any(|call| call == forbidden), "{forbidden} in {calls:?}");
    }
    assert!(backup.members().len() == 2 && backup.writer_statuses().is_empty());
    backup.delete().unwrap();
}

#[test]
fn named_writers_are_chosen_before_their_metadata_is_gathered() {
    let fake = Fake::start(Behaviour { writers: vec!["redis"], ..Behaviour::default() });
    let named = |name: &str| WriterChoice::Named(vec![name.to_owned()]);
    let chosen = BackupRequest { writers: named("redis"), ..request(Context::Backup) };
    drop(Backup::create(fake.requester(), &chosen, &mut Quiet).unwrap());
    let calls = fake.calls();
    let at = |name: &str| calls.iter().position(|call| call == name).unwrap();
    assert!(at("ListWriters") < at("EnableWriterClasses") && at("EnableWriterClasses") < at("GatherWriterMetadata"));

    let unknown = BackupRequest { writers: named("oracle"), ..request(Context::Backup) };
    let error = Backup::create(fake.requester(), &unknown, &mut Quiet).unwrap_err();
    assert_eq!(error.code, VssCode::ObjectNotFound);
}

#[test]
fn another_creation_is_waited_for_or_not() {
    let fake = Fake::start(Behaviour { busy: 3, ..Behaviour::default() });
    let mut ears = Ears::default();
    drop(Backup::create(fake.requester(), &request(Context::Backup), &mut ears).unwrap());
    assert_eq!(ears.heard.iter().filter(|heard| heard.starts_with("waiting: ")).count(), 1);
    assert!(ears.heard.iter().any(|heard| heard.contains("borg")));

    let fake = Fake::start(Behaviour { busy: 1, ..Behaviour::default() });
    let impatient = BackupRequest { wait: Duration::ZERO, ..request(Context::Backup) };
    let error = Backup::create(fake.requester(), &impatient, &mut Quiet).unwrap_err();
    assert!(error.code == VssCode::SnapshotSetInProgress && error.message.contains("borg"), "{error}");
}

#[test]
fn a_failure_after_the_set_was_begun_is_told_to_the_writers() {
    for operation in ["PrepareForBackup", "DoSnapshotSet"] {
        let fake = Fake::start(Behaviour { failing: Some(operation), ..Behaviour::default() });
        let error = Backup::create(fake.requester(), &request(Context::Backup), &mut Quiet).unwrap_err();
        assert_eq!(error.code, VssCode::ProviderVeto);
        assert_eq!(fake.calls().last().unwrap(), "AbortBackup", "after {operation}");
    }
}

#[test]
fn a_wish_to_stop_cancels_and_a_second_one_does_not_wait() {
    let fake = Fake::start(Behaviour { endless: Some("DoSnapshotSet"), ..Behaviour::default() });
    let mut once = Ears { wishes: 1, ..Ears::default() };
    let error = Backup::create(fake.requester(), &request(Context::Backup), &mut once).unwrap_err();
    assert_eq!(error.code, VssCode::Aborted);
    let calls = fake.calls();
    assert_eq!(calls[calls.len() - 2..], ["Cancel", "AbortBackup"]);

    let fake = Fake::start(Behaviour { endless: Some("DoSnapshotSet"), ..Behaviour::default() });
    let mut twice = Ears { wishes: 2, ..Ears::default() };
    let error = Backup::create(fake.requester(), &request(Context::Backup), &mut twice).unwrap_err();
    assert_eq!(error.code, VssCode::Aborted);
    assert_eq!(fake.calls().last().unwrap(), "DoSnapshotSet");
}

#[test]
fn what_was_shown_is_taken_away_before_it_is_deleted() {
    let fake = Fake::start(Behaviour::default());
    let mut backup = Backup::create(fake.requester(), &request(Context::Backup), &mut Quiet).unwrap();
    let shadow_id = backup.members()[0].shadow_id;
    assert_eq!(backup.expose(shadow_id).unwrap(), std::path::Path::new("/run/vss/shadows/x"));
    // Shown twice is shown once.
    backup.expose(shadow_id).unwrap();
    backup.delete().unwrap();
    let calls = fake.calls();
    assert_eq!(calls[calls.len() - 3..], ["ExposeSnapshot", "UnexposeSnapshot", "DeleteShadows"]);
    backup.delete().unwrap();
    assert_eq!(fake.calls()[calls.len()..], ["DeleteShadows"]);
}

#[test]
fn a_set_that_is_worse_than_required_is_deleted() {
    let fake = Fake::start(Behaviour { consistency: Some(Consistency::Crash), ..Behaviour::default() });
    let wanted = BackupRequest { require: Some(Consistency::FileSystem), ..request(Context::AppRollback) };
    let error = Backup::create(fake.requester(), &wanted, &mut Quiet).unwrap_err();
    assert_eq!(error.code, VssCode::WriterErrorInconsistentSnapshot);
    let calls = fake.calls();
    assert_eq!(calls[calls.len() - 2..], ["AbortBackup", "DeleteShadows"]);
}
