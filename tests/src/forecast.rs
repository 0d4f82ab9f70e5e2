//! Asking `vss check`, for tests of it.

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::instance::{Instance, Outcome};

/// The document of `vss check --json` with these words, and its exit status.
///
/// # Errors
/// It printed no document, or anything on stderr.
pub fn check(instance: &Instance, words: &[&str]) -> anyhow::Result<(Value, Option<i32>)> {
    answer(instance.vss([&["check", "--json"], words].concat())?)
}

/// The document that a finished `vss check --json` printed, and its exit status.
///
/// # Errors
/// As [`check`].
pub fn answer(outcome: Outcome) -> anyhow::Result<(Value, Option<i32>)> {
    ensure!(outcome.stderr.is_empty(), "the answer is on stdout alone: {outcome:?}");
    let document = serde_json::from_str(&outcome.stdout).with_context(|| format!("no document: {outcome:?}"))?;
    Ok((document, outcome.code))
}

/// The document of a check whose answer is yes.
///
/// # Errors
/// It is no.
pub fn foretold(instance: &Instance, words: &[&str]) -> anyhow::Result<Value> {
    let (document, code) = check(instance, words)?;
    ensure!(code == Some(0) && document["possible"] == true, "{words:?}: {code:?}: {document}");
    Ok(document)
}

/// The list under a key of a document.
///
/// # Errors
/// There is none.
pub fn list<'a>(value: &'a Value, key: &str) -> anyhow::Result<&'a Vec<Value>> {
    value[key].as_array().with_context(|| format!("no list {key}: {value}"))
}
