//! What scripts and hooks learn of the backup from their environment.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use vss_api::writer::{Event, EventComponent};
use vss_model::{VssCode, VssError};

/// The version of the script protocol, `VSS_PROTOCOL`.
pub(crate) const PROTOCOL: &str = "1";

/// The longest variable that a program can be started with, its name, `=` and the end among it (execve(2): 32 pages).
const VARIABLE: usize = 128 << 10;

/// The variables of an event, for the writer with this name. Lists have one entry a line.
///
/// # Errors
/// `VSS_E_WRITERERROR_OUTOFRESOURCES` when one is too long for a program to be started with.
pub(crate) fn variables(writer: &str, event: &Event) -> Result<Vec<(&'static str, OsString)>, VssError> {
    let set = event.set_id.map_or_else(String::new, |id| id.to_string());
    let components: Vec<String> = event.components.iter().map(|component| component.name.to_string()).collect();
    let of_components = |said: fn(&EventComponent) -> &Option<String>| {
        let words = event.components.iter().filter_map(|one| Some((one.name.to_string(), said(one).as_ref()?)));
        let lines: Vec<Vec<u8>> =
            words.map(|(name, said)| [escaped(name.as_bytes()), escaped(said.as_bytes())].join(&b'=')).collect();
        OsString::from_vec(lines.join(&b'\n'))
    };
    let volumes: Vec<&[u8]> = event.volumes.iter().map(|volume| volume.volume.as_os_str().as_bytes()).collect();
    let variables = vec![
        ("VSS_PROTOCOL", PROTOCOL.into()),
        ("VSS_WRITER", writer.into()),
        ("VSS_SESSION_ID", event.session_id.to_string().into()),
        ("VSS_SET_ID", set.into()),
        ("VSS_CONTEXT", word(&event.context)),
        ("VSS_BACKUP_TYPE", word(&event.backup_state.backup_type)),
        ("VSS_COMPONENTS", components.join("\n").into()),
        ("VSS_VOLUMES", OsString::from_vec(volumes.join(&b'\n'))),
        ("VSS_BACKUP_OPTIONS", of_components(|one| &one.backup_options)),
        ("VSS_PREVIOUS_STAMPS", of_components(|one| &one.previous_backup_stamp)),
    ];
    let mut lengths = variables.iter().map(|(name, value)| (*name, name.len() + value.len() + 2));
    match lengths.find(|(_, bytes)| *bytes > VARIABLE) {
        Some((name, bytes)) => Err(too_long(writer, name, bytes)),
        None => Ok(variables),
    }
}

fn too_long(writer: &str, name: &str, bytes: usize) -> VssError {
    let message =
        format!("No program of {writer} is started: {name} would have {bytes} bytes; one may have {VARIABLE}");
    VssError::new(VssCode::WriterErrorOutOfResources, message).with_hint(match name {
        "VSS_BACKUP_OPTIONS" => "Set shorter backup options",
        "VSS_PREVIOUS_STAMPS" => "Begin with a full backup, and let the writer give shorter stamps",
        _ => "Back up fewer components or volumes at once",
    })
}

/// The name that a value has on the wire.
fn word(value: &impl serde::Serialize) -> OsString {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word.into(),
        _ => OsString::new(),
    }
}

/// A path or name as one word of a line: white space, `=`, `\` and control characters as `\0` and three octal digits,
/// which `printf %b` reads back.
pub(crate) fn escaped(bytes: &[u8]) -> Vec<u8> {
    let mut word = Vec::with_capacity(bytes.len());
    for byte in bytes {
        if *byte <= b' ' || matches!(byte, b'=' | b'\\' | 0x7f) {
            word.extend_from_slice(format!("\\0{byte:03o}").as_bytes());
        } else {
            word.push(*byte);
        }
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_hold_no_separators() {
        assert_eq!(escaped(b"/srv/my data=1\\x\n"), b"/srv/my\\0040data\\00751\\0134x\\0012");
    }
}
