//! From a message to a request: which call it is, or what to answer at once because it is none of ours.

use super::{Call, Face};
use crate::{
    frames::{encode_any_error, encode_reply},
    interface, management,
    parameters::{Fault, read_call, read_fields},
    requester, writer,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use zlink::varlink_service;

/// Longest part of a peer's own text that is sent back in an error.
const ECHO_CHARS: usize = 256;

/// One message, understood.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) what: What,
    /// The peer wants no answer.
    pub(super) oneway: bool,
    /// The peer takes more than one answer.
    pub(super) more: bool,
}

#[derive(Debug)]
pub(crate) enum What {
    /// For the handler.
    Call(&'static str, Call),
    /// For the handler; the line turns round when it accepts.
    Register(writer::Register),
    /// Answered by the loop itself with these bytes.
    Answer(Vec<u8>),
    /// As above; nothing sensible can follow on this connection.
    Garbage(Vec<u8>),
}

#[derive(Deserialize)]
struct Envelope {
    method: String,
    #[serde(default)]
    parameters: Option<Map<String, Value>>,
    #[serde(default)]
    oneway: Option<bool>,
    #[serde(default)]
    upgrade: Option<bool>,
    #[serde(default)]
    more: Option<bool>,
}

/// Understands one message.
pub(crate) fn read(message: &[u8], face: Face) -> Request {
    let object = match serde_json::from_slice::<Map<String, Value>>(message) {
        Ok(object) => object,
        Err(error) => {
            tracing::debug!(%error, "a message is no JSON object");
            return Request { what: What::Garbage(invalid_parameter("message")), oneway: false, more: false };
        }
    };
    match read_fields::<Envelope>(object) {
        Ok(envelope) => Request {
            oneway: envelope.oneway.unwrap_or(false),
            more: envelope.more.unwrap_or(false),
            what: dispatch(
                &envelope.method,
                envelope.parameters.unwrap_or_default(),
                envelope.upgrade.unwrap_or(false),
                face,
            ),
        },
        Err(fault) => Request { what: What::Answer(answer_fault("", fault)), oneway: false, more: false },
    }
}

fn dispatch(method: &str, parameters: Map<String, Value>, upgrade: bool, face: Face) -> What {
    let interface = method.rsplit_once('.').map_or("", |(interface, _)| interface);
    let call = match (face, interface) {
        (_, interface::SERVICE) => return What::Answer(answer_service(method, parameters, face)),
        (Face::Requester, requester::INTERFACE) => {
            read_call(method, parameters).map(|call| What::Call(requester::INTERFACE, Call::Requester(call)))
        }
        (Face::Requester, management::INTERFACE) => {
            read_call(method, parameters).map(|call| What::Call(management::INTERFACE, Call::Management(call)))
        }
        (Face::Writer, writer::INTERFACE) => match read_call(method, parameters) {
            Ok(writer::Call::Register(register)) if upgrade => return What::Register(register),
            Ok(writer::Call::Register(_)) => {
                return What::Answer(service_error(&varlink_service::Error::ExpectedUpgrade));
            }
            Err(Fault::UnknownMethod) if interface::WRITER_EVENTS.contains(&method) => {
                return What::Answer(service_error(&varlink_service::Error::MethodNotImplemented {
                    method: method.into(),
                }));
            }
            Err(fault) => Err(fault),
        },
        _ => {
            let interface = echo(interface).into();
            return What::Answer(service_error(&varlink_service::Error::InterfaceNotFound { interface }));
        }
    };
    match call {
        Ok(_) if upgrade => What::Answer(invalid_parameter("upgrade")),
        Ok(call) => call,
        Err(fault) => What::Answer(answer_fault(method, fault)),
    }
}

/// `org.varlink.service`: who we are and what we speak.
fn answer_service(method: &str, parameters: Map<String, Value>, face: Face) -> Vec<u8> {
    /// The calls of `org.varlink.service`.
    #[derive(Deserialize)]
    #[serde(tag = "method", content = "parameters")]
    enum ServiceCall {
        #[serde(rename = "org.varlink.service.GetInfo")]
        GetInfo,
        #[serde(rename = "org.varlink.service.GetInterfaceDescription")]
        GetInterfaceDescription(Described),
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Described {
        interface: String,
    }

    let reply = match read_call(method, parameters) {
        Ok(ServiceCall::GetInfo) => encode_reply(&json!({
            "vendor": interface::VENDOR,
            "product": interface::PRODUCT,
            "version": interface::VERSION,
            "url": interface::URL,
            "interfaces": interface::interfaces(face),
        })),
        Ok(ServiceCall::GetInterfaceDescription(Described { interface })) => {
            match interface::description(face, &interface) {
                Some(description) => encode_reply(&json!({ "description": description })),
                None => {
                    let interface = echo(&interface).into();
                    return service_error(&varlink_service::Error::InterfaceNotFound { interface });
                }
            }
        }
        Err(fault) => return answer_fault(method, fault),
    };
    reply.unwrap_or_else(|_| invalid_parameter("method"))
}

fn answer_fault(method: &str, fault: Fault) -> Vec<u8> {
    tracing::debug!(%fault, method = %echo(method), "a call cannot be read");
    match fault {
        Fault::UnknownMethod => service_error(&varlink_service::Error::MethodNotFound { method: echo(method).into() }),
        Fault::Field { name, .. } => invalid_parameter(&name),
    }
}

/// `org.varlink.service.InvalidParameter`, which names the field.
pub(super) fn invalid_parameter(name: &str) -> Vec<u8> {
    service_error(&varlink_service::Error::InvalidParameter { parameter: echo(name).into() })
}

fn service_error(error: &varlink_service::Error<'_>) -> Vec<u8> {
    crate::frames::encode(error)
        .unwrap_or_else(|_| encode_any_error("org.varlink.service.InvalidParameter", &json!({})))
}

/// The beginning of a peer's text, so that an error is never long.
fn echo(text: &str) -> String {
    text.chars().take(ECHO_CHARS).collect()
}
