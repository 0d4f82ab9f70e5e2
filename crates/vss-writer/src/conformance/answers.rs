//! What an answer may say (spec R 2.7 and 2.9).

use crate::Answer;
use vss_api::writer::{Event, EventKind};

/// The answer, with a failure that is told in its fields as an error.
///
/// # Panics
/// No service would understand it.
pub(super) fn checked(event: &Event, kind: EventKind, answer: Answer) -> Answer {
    let name = kind.name();
    let reply = match answer {
        Ok(reply) => reply,
        Err(error) => {
            assert!(error.code.allowed_from_writer(), "{name} failed with {}, which is no writer's code", error.code);
            return Err(error);
        }
    };
    if let Some(code) = reply.code {
        assert!(code.allowed_from_writer(), "{name} answers with {code}, which is no writer's code");
    }
    if let Some(error) = reply.failure() {
        return Err(error);
    }
    if let Some(state) = reply.state {
        let leads_to = kind.state_after();
        assert!(
            leads_to.is_none_or(|to| to == state),
            "{name} succeeds and leads to {leads_to:?}; the answer says {state}"
        );
    }
    for component in &reply.components {
        let is_ours = event.components.iter().any(|ours| ours.name == component.name);
        assert!(is_ours, "{name} answers for component {}, which the backup does not concern", component.name);
    }
    Ok(reply)
}
