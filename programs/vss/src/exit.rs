//! How `vss` ends: exit statuses and the error line (design 8).

use crate::output::{printable, say};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use vss_model::{VssCode, VssError};

/// Done.
pub(crate) const DONE: u8 = 0;
/// Failed.
pub(crate) const FAILED: u8 = 1;
/// `run` could not make the shadow copy; the command was not run. As env(1) for failures of its own.
pub(crate) const NO_COPY: u8 = 125;
/// `run` could not run the command.
pub(crate) const CANNOT_RUN: u8 = 126;
/// `run` did not find the command.
pub(crate) const NOT_FOUND: u8 = 127;

/// The status that `run` passes on: the command's own, 128+N when signal N killed it, as shells have it.
pub(crate) fn status_of_command(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(FAILED),
        (None, Some(signal)) => u8::try_from(128 + signal).unwrap_or(FAILED),
        (None, None) => FAILED,
    }
}

/// The status of a command that could not be started, as env(1).
pub(crate) fn status_of_failed_start(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN }
}

/// Prints the error: what failed, its VSS_E_ name, what to do.
pub(crate) fn report(error: &VssError) {
    say(&format!("vss: {}", printable(&error.to_string())));
}

/// An error of the system's, met while doing `what`.
pub(crate) fn system_error(what: impl std::fmt::Display, error: &io::Error) -> VssError {
    let (code, hint) = match error.kind() {
        io::ErrorKind::NotFound => {
            (VssCode::ObjectNotFound, "Look whether the name is right and its file system is mounted")
        }
        io::ErrorKind::PermissionDenied => (VssCode::AccessDenied, "Use sudo"),
        io::ErrorKind::ReadOnlyFilesystem => (VssCode::AccessDenied, "Name a place that can be written to"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (VssCode::InsufficientStorage, "Make room and run the same command again")
        }
        io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => (VssCode::InvalidArgument, "Check the path"),
        io::ErrorKind::OutOfMemory => (VssCode::OutOfMemory, "Try again when other programs have ended"),
        _ => (VssCode::Unexpected, "Look into dmesg for what the system says of it"),
    };
    VssError::new(code, format!("{what}: {error}")).with_hint(hint)
}

/// A file that was named on the command line cannot be read.
pub(crate) fn unreadable_file(file: &Path, error: &io::Error) -> VssError {
    let error_of_system = system_error(format_args!("Cannot read {}", file.display()), error);
    match error.kind() {
        io::ErrorKind::NotFound => error_of_system.with_hint("Check the path"),
        io::ErrorKind::IsADirectory => error_of_system.with_hint("Name a file"),
        _ => error_of_system,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn status(script: &str) -> u8 {
        status_of_command(Command::new("/bin/sh").args(["-c", script]).status().unwrap())
    }

    #[test]
    fn the_commands_own_status_is_passed_on() {
        assert_eq!((status("exit 0"), status("exit 3"), status("exit 255")), (0, 3, 255));
        assert_eq!((status("kill -9 $$"), status("kill -15 $$")), (137, 143));
    }

    #[test]
    fn every_error_of_the_system_has_a_way_out() {
        let code = |number| {
            let error = system_error("/srv cannot be read", &io::Error::from_raw_os_error(number));
            assert!(!error.hint.is_empty(), "{error}");
            error.code
        };
        // ENOENT, EACCES, ENOMEM, ENOSPC and EIO.
        let codes = [2, 13, 12, 28, 5].map(code);
        assert_eq!(codes[..2], [VssCode::ObjectNotFound, VssCode::AccessDenied]);
        assert_eq!(codes[2..], [VssCode::OutOfMemory, VssCode::InsufficientStorage, VssCode::Unexpected]);
    }

    #[test]
    fn a_command_that_cannot_start_ends_as_env_does() {
        let start = |program: &str| status_of_failed_start(&Command::new(program).status().unwrap_err());
        assert_eq!(start("/no/such/program"), NOT_FOUND);
        assert_eq!(start("no-such-program-of-ours"), NOT_FOUND);
        assert_eq!(start("/etc"), CANNOT_RUN);
    }
}
