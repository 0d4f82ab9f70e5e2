//! The messages that the manuals show are messages of the interfaces: each block of JSON in them has a call and its answer
//! on a line each.

use serde::de::DeserializeOwned;
use serde_json::Value;
use vss_api::{Empty, ErrorParameters, requester as r, writer as w};
use vss_model::VssCode;

/// The lines of every block of JSON in the manual.
fn messages(manual: &str) -> Vec<Vec<Value>> {
    let path = format!("{}/../../docs/{manual}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let blocks = text.split("```json\n").skip(1).map(|block| block.split("```").next().unwrap().to_owned());
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{manual}: {error}: {line}"));
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
        (false, "GatherWriterMetadata") => is::<r::OperationStarted>(parameters),
        (false, "Wait") => is::<r::OperationStatus>(parameters),
        (false, other) => panic!("the answer to {other} is not known here"),
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
