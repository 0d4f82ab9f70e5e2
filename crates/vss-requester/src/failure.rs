//! What a failed call means to the caller: always a VSS error.

use vss_api::client::ClientError;
use vss_model::{VssCode, VssError};

/// What the service said; anything else that went wrong is `VSS_E_UNEXPECTED`.
pub(crate) fn of_call(error: ClientError) -> VssError {
    match error {
        ClientError::Vss(error) => error,
        ClientError::Io(error) => {
            VssError::new(VssCode::Unexpected, format!("The connection to the service was lost: {error}"))
                .with_hint("Nothing of an unfinished set is kept; look at the service's log and try again")
        }
        ClientError::Varlink { name, parameters } => {
            unexpected_answer(format!("The service refused the call: {name} {parameters}"))
        }
        ClientError::Protocol(message) => unexpected_answer(message),
    }
}

/// The error of an answer that keeps no promise of the interface: `VSS_E_UNEXPECTED`.
#[must_use]
pub fn unexpected_answer(message: impl Into<String>) -> VssError {
    VssError::new(VssCode::Unexpected, message).with_hint("Is the service of the same release as this program?")
}
