//! The subcommands, one file each.

mod backup;
mod check;
mod create;
mod delete;
mod diff;
mod document;
mod events;
mod export;
mod expose;
mod import;
mod list;
mod restore;
mod revert;
mod run;
mod show;
mod storage;
mod unexpose;
mod verify;
mod writer;

use crate::args::{Arguments, Command};
use crate::exit::{DONE, FAILED, report, system_error};
use crate::json::FailureDocument;
use crate::output;
use std::io;
use std::path::{Path, PathBuf};
use vss_model::VssError;
use vss_requester::Instance;

/// Why a subcommand failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// With this error.
    Vss(VssError),
    /// Its result could not be printed.
    Output(io::Error),
    /// The answer is printed, and it is no.
    No,
}

impl From<VssError> for Failure {
    fn from(error: VssError) -> Self {
        Self::Vss(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Does what was typed; the result is the exit status.
pub(crate) fn execute(arguments: Arguments) -> u8 {
    let instance = Instance::new(absolute(&arguments.instance.runtime_dir), absolute(&arguments.instance.state_dir));
    let is_json = arguments.command.is_json();
    let done = match arguments.command {
        Command::Run(run) => return run::run(&instance, run),
        Command::Create(create) => create::create(&instance, &create),
        Command::Check(check) => check::check(&instance, &check),
        Command::List(list) => list::list(&instance, &list),
        Command::Show(show) => show::show(&instance, &show),
        Command::Expose(expose) => expose::expose(&instance, &expose),
        Command::Unexpose(unexpose) => unexpose::unexpose(&instance, &unexpose),
        Command::Delete(delete) => delete::delete(&instance, delete),
        Command::Storage(storage) => storage::storage(&instance, &storage),
        Command::Diff(diff) => diff::diff(&instance, &diff),
        Command::Export(export) => export::export(&instance, &export),
        Command::Import(import) => import::import(&import),
        Command::Revert(revert) => revert::revert(&instance, &revert),
        Command::Events(events) => events::events(&instance, &events),
        Command::Document(document) => document::document(&instance, &document),
        Command::Backup(backup) => backup::backup(&instance, &backup),
        Command::Verify(verify) => verify::verify(&verify),
        Command::Restore(restore) => restore::restore(&restore),
        Command::Writer(writer) => writer::writer(&instance, &writer),
    };
    match done {
        Ok(()) => return DONE,
        Err(Failure::No) => {}
        Err(Failure::Vss(error)) => {
            report(&error);
            if is_json {
                // Where that fails too, stderr has it.
                let _ = output::json_line(&FailureDocument { failure: &error });
            }
        }
        // The reader has what it wanted, as in `vss list shadows | head -1`.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(Failure::Output(error)) => report(&system_error("Cannot print the result", &error)),
    }
    FAILED
}

/// The path from `/`, since the service has another working directory; it need not exist.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
