//! The messages that the manuals show are messages of the interfaces: each block of JSON in them has a call and its answer
//! on a line each. The times that they name are the limits.

use serde::de::DeserializeOwned;
use serde_json::Value;
use vss_api::{Empty, ErrorParameters, requester as r, writer as w};
use vss_model::{VssCode, limits};

/// The lines of every block of JSON in the manual.
fn messages(name: &str) -> Vec<Vec<Value>> {
    let text = manual(name);
    let blocks = text.split("```json\n").skip(1).map(|block| block.split("```").next().unwrap().to_owned());
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{name}: {error}: {line}"));
    blocks.map(|block| block.lines().map(parse).collect()).collect()
}

fn is<T: DeserializeOwned>(value: &Value) {
    serde_json::from_value::<T>(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"));
}

/// Checks one call and its answer.
fn check(call: &Value, answer: &Value) {
    let method = call["method"].as_str().unwrap_or_else(|| panic!("no call: {call}"));
    let (interface, name) = method.rsplit_once('.').unwrap();
    let is_writer = interface == w::INTERFACE;
    match (is_writer, name) {
        (true, "Register") => {
            assert_eq!(call["upgrade"], true);
            is::<w::Call>(call);
        }
        (true, _) => is::<w::EventCall>(call),
        (false, _) => is::<r::Call>(call),
    }
    let parameters = &answer["parameters"];
    if let Some(error) = answer.get("error") {
        assert_eq!(error, &format!("{interface}.VssError"));
        let error: ErrorParameters = serde_json::from_value(parameters.clone()).unwrap();
        let code: VssCode = error.name.parse().unwrap();
        assert_eq!(Some(u64::from(code.hresult())), parameters["code"].as_u64(), "{code}");
        return;
    }
    match (is_writer, name) {
        (true, "Register") => is::<w::Registered>(parameters),
        (true, "Identify") => is::<w::Identity>(parameters),
        (true, _) => is::<w::EventReply>(parameters),
        (false, "InitializeForBackup") => is::<r::SessionOpened>(parameters),
        (false, "SetContext" | "SetBackupState") => is::<Empty>(parameters),
        (false, "GatherWriterMetadata" | "DoSnapshotSet") => is::<r::OperationStarted>(parameters),
        (false, "StartSnapshotSet") => is::<r::SetStarted>(parameters),
        (false, "AddToSnapshotSet") => is::<r::VolumeAdded>(parameters),
        (false, "ExposeSnapshot") => is::<r::Exposed>(parameters),
        (false, "Wait") => is::<r::OperationStatus>(parameters),
        (false, other) => panic!("the answer to {other} is not known here"),
    }
}

fn manual(name: &str) -> String {
    let path = format!("{}/../../docs/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

/// As the manual for writers has it in its picture of the events.
#[test]
fn the_times_in_the_manual_are_the_limits() {
    let manual = manual("writers.md");
    let (_, picture) = manual.split_once("```text\n").unwrap();
    for (event, limit) in [
        ("Identify", limits::WRITER_IDENTIFY),
        ("PrepareBackup", limits::WRITER_PREPARE),
        ("PrepareSnapshot", limits::WRITER_PREPARE),
        ("Freeze", limits::WRITER_FREEZE),
        ("Thaw", limits::WRITER_THAW),
        ("PostSnapshot", limits::WRITER_FINISH),
        ("BackupComplete", limits::WRITER_FINISH),
        ("BackupShutdown", limits::WRITER_FAREWELL),
    ] {
        let seconds = limit.as_secs();
        let time = if seconds > 60 { format!("{} min", seconds / 60) } else { format!("{seconds} s") };
        // The second column; the first has the requester's calls.
        let is_of_event = |line: &&str| line.get(26..).is_some_and(|line| line.trim_start().starts_with(event));
        let line = picture.lines().find(is_of_event).unwrap_or_else(|| panic!("{event} is not in the picture"));
        assert!(line.contains(&time), "{event} has {time}: {line}");
    }
}

#[test]
fn what_the_manuals_show_is_what_is_sent() {
    let mut calls = 0;
    for manual in ["writers.md", "requesters.md"] {
        let blocks = messages(manual);
        assert!(!blocks.is_empty(), "{manual} shows no message");
        for block in blocks {
            for pair in block.chunks(2) {
                let [call, answer] = pair else { panic!("{manual}: a call without its answer: {pair:?}") };
                check(call, answer);
                calls += 1;
            }
        }
    }
    assert!(calls > 8, "only {calls} calls");
}
