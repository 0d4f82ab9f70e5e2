//! Reading a file: its keys are parted into those of every writer and those of its kind, and what is wrong is told with its
//! line.

use super::nearest::unknown;
use super::{WriterDescription, WriterTable, fields};
use serde::de::{Deserialize, DeserializeOwned};
use toml::Spanned;
use toml::de::{DeTable, Deserializer, Error};

/// Reads the text of a description: what every writer says, and what the kind `K` has besides. `K` is a structure that denies
/// unknown fields.
///
/// # Errors
/// What is wrong, and on which line, as part of a sentence.
pub fn read<K: DeserializeOwned>(text: &str) -> Result<(WriterDescription, K), String> {
    let told = |error: Error| format!("{}{}", line(text, error.span()), words(&error));
    let whole = DeTable::parse(text).map_err(told)?;
    let span = whole.span();
    let (mut common, mut own) = (DeTable::new(), DeTable::new());
    let (of_every, of_kind) = (fields::of::<WriterTable>(), fields::of::<K>());
    for (key, value) in whole.into_inner() {
        let name = key.get_ref().as_ref();
        if of_every.contains(&name) {
            common.insert(key, value);
        } else if of_kind.contains(&name) {
            own.insert(key, value);
        } else {
            let known = of_every.iter().chain(of_kind).copied();
            return Err(format!("{}{}", line(text, Some(key.span())), unknown("key", name, known)));
        }
    }
    let common = WriterTable::deserialize(Deserializer::from(Spanned::new(span.clone(), common))).map_err(told)?;
    let own = K::deserialize(Deserializer::from(Spanned::new(span, own))).map_err(told)?;
    Ok((common.into(), own))
}

fn line(text: &str, span: Option<std::ops::Range<usize>>) -> String {
    let before = span.and_then(|span| text.get(..span.start));
    before.map_or_else(String::new, |before| format!("line {}: ", before.matches('\n').count() + 1))
}

/// The error in one line. Of a key that is unknown in a table the known ones are in its text, in the words of serde:
/// ``unknown field `a`, expected one of `b`, `c` ``.
fn words(error: &Error) -> String {
    let message = error.message();
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match quoted.as_slice() {
        [key, known @ ..] if message.starts_with("unknown field `") => unknown("key", key, known.iter().copied()),
        _ => message.split_whitespace().collect::<Vec<_>>().join(" "),
    }
}
