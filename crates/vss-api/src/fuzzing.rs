//! Doors for the fuzzer alone (`fuzz/`): what a peer's bytes go through before anybody is asked what they mean. Built with the
//! feature `fuzzing`, which no program of ours has.

use crate::frames::{Frames, IncomingReply, MESSAGE_BYTES, READ_BYTES};
use crate::parameters::{read_call, read_fields, without_nulls};
use crate::server::{Call, Face, What, read};
use crate::writer::{EventCall, EventReply, Identity};
use serde_json::{Map, Value};

/// Longest answer of the loop's own: the longest description of an interface, and an envelope.
const ANSWER_BYTES: usize = 256 << 10;

/// Reads a stream of calls as the connection loop does, until it would give the peer up.
///
/// # Panics
/// An answer of the loop's own is no message, or a call that was read is another one when it is written and read again.
pub fn calls(face: Face, stream: &[u8]) {
    let mut frames = Frames::new(MESSAGE_BYTES);
    for piece in stream.chunks(READ_BYTES) {
        frames.push(piece);
        loop {
            match frames.next() {
                Err(_) => return,
                Ok(None) => break,
                Ok(Some(message)) => match read(&message, face).what {
                    What::Answer(answer) => check_answer(&answer),
                    What::Garbage(answer) => return check_answer(&answer),
                    What::Call(_, call) => check_call(face, &call),
                    What::Register(register) => {
                        let mut value = to_value(&crate::writer::Call::Register(register.clone()));
                        value["upgrade"] = Value::Bool(true);
                        let again = read(value.to_string().as_bytes(), face).what;
                        assert!(matches!(again, What::Register(other) if other == register), "{value}");
                    }
                },
            }
        }
    }
}

fn check_answer(answer: &[u8]) {
    assert!(answer.len() <= ANSWER_BYTES, "an answer of {} bytes", answer.len());
    let Some((0, json)) = answer.split_last() else { panic!("an answer without its NUL") };
    let object: Map<String, Value> = serde_json::from_slice(json).expect("an answer is a JSON object");
    assert!(object.contains_key("error") || object.contains_key("parameters"), "{object:?}");
}

fn check_call(face: Face, call: &Call) {
    let value = match call {
        Call::Requester(call) => to_value(call),
        Call::Management(call) => to_value(call),
    };
    let again = read(value.to_string().as_bytes(), face).what;
    assert!(matches!(&again, What::Call(_, other) if other == call), "{value}");
}

fn to_value(call: &impl serde::Serialize) -> Value {
    serde_json::to_value(call).expect("a call that was read is written")
}

/// Reads a writer's reply as the service does; what the writer owns, if that is what it says.
///
/// # Panics
/// A reply that was read is another one when it is written and read again.
#[must_use]
pub fn reply(message: &[u8]) -> Option<Identity> {
    let reply = IncomingReply::read(message).ok()?;
    let parameters: Value = serde_json::from_str(reply.parameters?.get()).ok()?;
    let parameters = without_nulls(parameters);
    if let Ok(reply) = serde_json::from_value::<EventReply>(parameters.clone()) {
        let again: EventReply = serde_json::from_value(to_value(&reply)).expect("we wrote it");
        assert_eq!(again, reply);
        let failure = reply.failure();
        assert!(failure.is_none_or(|failure| failure.code.allowed_from_writer()));
    }
    let identity: Identity = serde_json::from_value(parameters).ok()?;
    let again: Identity = serde_json::from_value(to_value(&identity)).expect("we wrote it");
    assert_eq!(again, identity);
    Some(identity)
}

/// Reads what a service calls a writer with, as a writer does.
///
/// # Panics
/// An event that was read is another one when it is written and read again.
pub fn event(message: &[u8]) {
    #[derive(serde::Deserialize)]
    struct Envelope {
        method: String,
        parameters: Option<Map<String, Value>>,
    }
    let read_event = |object: Map<String, Value>| {
        let Envelope { method, parameters } = read_fields(object).ok()?;
        read_call::<EventCall>(&method, parameters.unwrap_or_default()).ok()
    };
    let Ok(object) = serde_json::from_slice(message) else { return };
    let Some(event) = read_event(object) else { return };
    let Value::Object(object) = to_value(&event) else { panic!("an event is an object") };
    assert_eq!(read_event(object), Some(event));
}
