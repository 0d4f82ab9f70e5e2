//! `vss writer simulate FILE`: a writer that does what a file says, until a signal ends it. It prints one line of JSON for each
//! event that it was told; nothing while one of its sessions is frozen.

use crate::args::SimulateArguments;
use crate::commands::Failure;
use crate::exit::{system_error, unreadable_file};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::io::{Write, stdout};
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use vss_linux::process::{Signal, signal_descriptor};
use vss_model::{VssCode, VssError};
use vss_requester::Instance;
use vss_writer::messages::EventKind;
use vss_writer::simulated::{self, Description, Handle, SimulatedWriter};
use vss_writer::{Monitor, Notice, Options, RunError, Stop, run};

pub(super) fn simulate(instance: &Instance, arguments: &SimulateArguments) -> Result<(), Failure> {
    let description = read(&arguments.file)?;
    let mut writer = SimulatedWriter::new(description)?;
    let (stopper, stop) = Stop::new().map_err(|error| system_error("Cannot make a pipe", &error))?;
    let signals = signal_descriptor(&[Signal::INT, Signal::TERM, Signal::HUP])
        .map_err(|error| system_error("Cannot catch signals", &error))?;
    thread::spawn(move || {
        // Any signal ends the writer, so which one it is need not be read. Interrupted by another, poll is called again.
        while poll(&mut [PollFd::new(&signals, PollFlags::IN)], None) == Err(Errno::INTR) {}
        drop(stopper);
    });
    let printer = Printer { handle: writer.handle(), frozen: Mutex::new(false) };
    let socket = instance.runtime_dir().join("writer");
    run(&socket, &mut writer, &Options { stop: Some(&stop), reconnect: true, monitor: &printer }).map_err(refused)?;
    Ok(())
}

fn read(file: &Path) -> Result<Description, VssError> {
    let text = std::fs::read_to_string(file).map_err(|error| unreadable_file(file, &error))?;
    simulated::read(&text).map_err(|problem| {
        VssError::new(VssCode::InvalidArgument, format!("{}: {problem}", file.display()))
            .with_hint("`vss writer simulate --help` shows an example")
    })
}

fn refused(error: RunError) -> VssError {
    match error {
        RunError::Refused(error) => error,
        other => VssError::new(VssCode::WriterInfrastructure, other.to_string())
            .with_hint("Start the service first, and name its directory where it is another: --runtime-dir DIR"),
    }
}

/// Prints what the writer was told, as soon as nothing of it is frozen.
struct Printer {
    handle: Handle,
    frozen: Mutex<bool>,
}

impl Monitor for Printer {
    fn notice(&self, notice: &Notice<'_>) {
        let Ok(mut frozen) = self.frozen.lock() else { return };
        match notice {
            Notice::Registered { .. } => say("registered"),
            Notice::Handled { kind: EventKind::Freeze, failure: None, .. } => *frozen = true,
            Notice::Handled { kind: EventKind::Thaw | EventKind::Abort, .. } => *frozen = false,
            Notice::Lost { .. } if !*frozen => say("lost"),
            _ => {}
        }
        if !*frozen && matches!(notice, Notice::Handled { .. }) {
            for told in self.handle.take() {
                if let Ok(line) = serde_json::to_string(&told) {
                    print(&line);
                }
            }
        }
    }
}

fn say(state: &str) {
    print(&format!("{{\"state\":\"{state}\"}}"));
}

fn print(line: &str) {
    // Nobody reads it any more: the writer goes on.
    let _ = writeln!(stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::SIMULATE_HELP;
    use std::fs;

    #[test]
    fn the_example_of_the_help_is_a_description() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("shop.toml");
        let (_, example) = SIMULATE_HELP.split_once("Example of a description:\n").unwrap();
        fs::write(&file, example).unwrap();
        let description = read(&file).unwrap();
        description.check().unwrap();
        assert_eq!((description.name.as_str(), description.fail.len(), description.say.len()), ("shop", 1, 1));
        assert_eq!(description.declaration.exclude_files_from_snapshot.len(), 1);
        assert_eq!(description.say[0].data.differenced_files.len(), 1);
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x.toml");
        fs::write(&file, "name = \"x\"\ncomponents = 7\n").unwrap();
        let error = read(&file).unwrap_err();
        assert!(error.code == VssCode::InvalidArgument && error.message.contains("line 2"), "{error}");
    }
}
