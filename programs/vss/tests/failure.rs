//! What a program reads when a command fails that was asked for JSON: a document all the same.

use serde_json::Value;
use std::process::{Command, Output};

#[test]
fn what_fails_prints_a_document_too_where_one_was_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), "").unwrap();
    for (line, code) in [
        ("verify missing", "VSS_E_OBJECT_NOT_FOUND"),
        ("restore --from file --files-only --to there", "E_INVALIDARG"),
        ("document show missing", "VSS_E_OBJECT_NOT_FOUND"),
        ("document show .", "E_INVALIDARG"),
        ("create missing", "VSS_E_OBJECT_NOT_FOUND"),
        ("list shadows --runtime-dir file/run --state-dir state", "E_INVALIDARG"),
    ] {
        for json in [true, false] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_vss"));
            command.args(line.split(' ')).args(json.then_some("--json")).current_dir(directory.path());
            let Output { status, stdout, stderr } = command.output().unwrap();
            let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
            assert!(status.code() == Some(1) && stderr.contains(code), "{line}: {status:?} {stderr}");
            if !json {
                assert_eq!(stdout, "", "{line}");
                continue;
            }
            let failure = &serde_json::from_str::<Value>(&stdout).unwrap()["failure"];
            assert!(failure["code"] == code && failure["number"].is_u64(), "{line}: {failure}");
            let message = failure["message"].as_str().unwrap();
            assert!(!message.is_empty() && stderr.contains(message), "{line}: {stderr}");
        }
    }
}
