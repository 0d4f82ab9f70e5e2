//! The one error of each interface: `org.linuxvss.<Interface>.VssError` (design 2.4).

use serde::{Deserialize, Serialize};
use vss_model::{VssCode, VssError};

/// The parameters of the error: what happened, for a program and for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorParameters {
    /// The `VSS_E_*` name.
    pub name: String,
    /// Its HRESULT as an unsigned number, for example 2147754753 for `VSS_E_BAD_STATE` (0x80042301).
    pub code: u32,
    /// What happened.
    pub message: String,
    /// What to do; empty when there is nothing to say.
    #[serde(default)]
    pub hint: String,
}

impl From<&VssError> for ErrorParameters {
    fn from(error: &VssError) -> Self {
        Self {
            name: error.code.name().to_owned(),
            code: error.code.hresult(),
            message: error.message.clone(),
            hint: error.hint.clone(),
        }
    }
}

impl From<ErrorParameters> for VssError {
    /// A name that this release does not know reads as `VSS_E_UNEXPECTED`, its name kept in the message.
    fn from(parameters: ErrorParameters) -> Self {
        match parameters.name.parse::<VssCode>() {
            Ok(code) => Self::new(code, parameters.message).with_hint(parameters.hint),
            Err(_) => Self::new(VssCode::Unexpected, format!("{} ({})", parameters.message, parameters.name))
                .with_hint(parameters.hint),
        }
    }
}
