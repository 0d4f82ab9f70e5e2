//! The command line as it was typed. What it comes to on this machine is decided in [`crate::commands`].

mod blocks;
mod directory;
mod document;
mod events;
mod set;
mod shadow;
mod storage;
mod writer;

pub(crate) use blocks::{DiffArguments, ExportArguments, ImportArguments, RevertArguments};
pub(crate) use directory::{DirectoryBackupArguments, RestoreArguments, VerifyArguments};
pub(crate) use document::{
    DocumentArguments, DocumentCheckArguments, DocumentCommand, DocumentListArguments, DocumentShowArguments,
};
pub(crate) use events::EventsArguments;
pub(crate) use set::{BackupArguments, CHECK_HELP, CREATE_HELP, CopyingArguments, RunArguments, SetArguments};
#[cfg(test)]
pub(crate) use shadow::LIST_HELP;
pub(crate) use shadow::{
    DeleteArguments, ExposeArguments, Id, ListArguments, Listed, ShowArguments, UnexposeArguments,
};
pub(crate) use storage::{RemoveStorageArguments, StorageArguments, StorageCommand};
#[cfg(test)]
pub(crate) use writer::SIMULATE_HELP;
pub(crate) use writer::{SimulateArguments, WriterArguments, WriterCommand};

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use vss_requester::Instance;

/// Shadow copies of volumes, consistent while applications keep writing.
#[derive(Debug, Parser)]
#[command(name = "vss", version, disable_help_subcommand = true, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) instance: InstanceArguments,
}

const EXAMPLES: &str = "\
Examples:
  vss check /srv
  vss run --volume /srv -- restic -r /backup backup /srv
  vss create /srv --persistent
  vss list shadows

Exit status: 0 done, 1 failed, 2 wrong usage; `vss run` ends with the command's own.
An error is told on stderr, with its code and the way out; where --json was given
also on stdout, as {\"failure\": {\"code\", \"number\", \"message\", \"hint\"}}.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command that sees shadow copies in place of the live files
    Run(RunArguments),
    /// Make a shadow copy set
    #[command(after_help = CREATE_HELP)]
    Create(SetArguments),
    /// Tell what a shadow copy set would be, and what stands in the way; change nothing
    #[command(after_help = CHECK_HELP)]
    Check(SetArguments),
    /// List shadow copies, writers, providers, volumes or storage
    List(ListArguments),
    /// Show a shadow copy or a shadow copy set
    Show(ShowArguments),
    /// Mount a shadow copy read-only at a directory
    Expose(ExposeArguments),
    /// Take a shadow copy away from where it is mounted
    Unexpose(UnexposeArguments),
    /// Delete shadow copies
    Delete(DeleteArguments),
    /// List or remove what is kept for copies to come
    Storage(StorageArguments),
    /// Tell which blocks changed from one shadow copy to another
    Diff(DiffArguments),
    /// Write a shadow copy, or what changed since an earlier one, as a stream
    Export(ExportArguments),
    /// Apply a stream to an image file or a device
    Import(ImportArguments),
    /// Put an unmounted volume back to one of its shadow copies
    Revert(RevertArguments),
    /// Tell what the service did, or does from now on
    Events(EventsArguments),
    /// Look at a document of VSS: of a writer, of a backup, or the manifest of a cabinet
    Document(DocumentArguments),
    /// Copy files out of shadow copies into a directory
    Backup(DirectoryBackupArguments),
    /// Check that a backup in a directory is whole and undamaged
    Verify(VerifyArguments),
    /// Put the files of a backup back
    Restore(RestoreArguments),
    /// Be a writer, for tests
    Writer(WriterArguments),
}

impl Command {
    /// True when stdout is for a program: one JSON document, or one a line.
    pub(crate) fn is_json(&self) -> bool {
        match self {
            Self::Create(create) => create.json,
            Self::Check(check) => check.json,
            Self::List(list) => list.json,
            Self::Show(show) => show.json,
            Self::Storage(storage) => matches!(storage.command, StorageCommand::List { json: true }),
            Self::Diff(diff) => diff.json,
            Self::Events(events) => events.json,
            Self::Document(document) => match &document.command {
                DocumentCommand::Check(check) => check.json,
                DocumentCommand::Show(show) => show.json,
                DocumentCommand::List(list) => list.json,
            },
            Self::Backup(backup) => backup.json,
            Self::Verify(verify) => verify.json,
            Self::Restore(restore) => restore.json,
            Self::Run(_)
            | Self::Expose(_)
            | Self::Unexpose(_)
            | Self::Delete(_)
            | Self::Export(_)
            | Self::Import(_)
            | Self::Revert(_)
            | Self::Writer(_) => false,
        }
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Instance of the service")]
pub(crate) struct InstanceArguments {
    /// Catalogue of the service
    #[arg(long, global = true, value_name = "DIR", default_value = Instance::STATE_DIR, hide_short_help = true)]
    pub(crate) state_dir: PathBuf,
    /// Sockets, lock and exposures of the service
    #[arg(long, global = true, value_name = "DIR", default_value = Instance::RUNTIME_DIR, hide_short_help = true)]
    pub(crate) runtime_dir: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    const ID: &str = "b5946137-7b9f-4925-af80-51abd60b20d5";

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_sound_and_every_subcommand_has_examples() {
        Arguments::command().debug_assert();
        let help = |command: &clap::Command| command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for command in Arguments::command().get_subcommands() {
            assert!(help(command).contains("Example"), "{} has no examples", command.get_name());
            for command in [command].into_iter().chain(command.get_subcommands()) {
                // Wider lines would be broken a second time on a terminal.
                let wide: Vec<String> =
                    help(command).lines().filter(|line| line.len() > 82).map(str::to_owned).collect();
                assert!(wide.is_empty(), "{}: {wide:?}", command.get_name());
            }
        }
    }

    #[test]
    fn what_is_wrong_usage() {
        for (line, kind) in [
            ("vss", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
            ("vss run -- true", ErrorKind::MissingRequiredArgument),
            ("vss run --volume /srv", ErrorKind::MissingRequiredArgument),
            ("vss run --volume /srv true", ErrorKind::UnknownArgument),
            ("vss run --volume /srv --no-writers --writer redis -- true", ErrorKind::ArgumentConflict),
            ("vss run --volume /srv --require perfect -- true", ErrorKind::InvalidValue),
            ("vss run --volume /srv --wait -1 -- true", ErrorKind::UnknownArgument),
            ("vss create /srv --max-rate 50", ErrorKind::ValueValidation),
            ("vss create /srv --max-rate fast", ErrorKind::ValueValidation),
            ("vss create /srv --max-hold 8001", ErrorKind::ValueValidation),
            ("vss create", ErrorKind::MissingRequiredArgument),
            ("vss check", ErrorKind::MissingRequiredArgument),
            ("vss check /srv --no-writers --writer redis", ErrorKind::ArgumentConflict),
            ("vss check /srv --require perfect", ErrorKind::InvalidValue),
            ("vss list everything", ErrorKind::InvalidValue),
            ("vss show not-an-id", ErrorKind::ValueValidation),
            ("vss delete", ErrorKind::MissingRequiredArgument),
            ("vss storage remove", ErrorKind::MissingRequiredArgument),
            ("vss storage remove /srv --all", ErrorKind::ArgumentConflict),
            ("vss diff 7f2b0e4a-0000-4000-8000-000000000001", ErrorKind::MissingRequiredArgument),
            ("vss export", ErrorKind::MissingRequiredArgument),
            ("vss import stream", ErrorKind::MissingRequiredArgument),
            ("vss import stream --to image --verify-only", ErrorKind::ArgumentConflict),
            ("vss import --verify-only --overwrite", ErrorKind::ArgumentConflict),
            ("vss revert /srv", ErrorKind::ValueValidation),
            ("vss backup --volume /srv", ErrorKind::MissingRequiredArgument),
            ("vss backup --to /x", ErrorKind::MissingRequiredArgument),
            ("vss backup --to /x --volume /srv --component w", ErrorKind::ArgumentConflict),
            ("vss backup --to /x --component w/", ErrorKind::ValueValidation),
            ("vss backup --to /x --component w --no-writers", ErrorKind::ArgumentConflict),
            ("vss restore --from /x --to /y", ErrorKind::MissingRequiredArgument),
            ("vss verify", ErrorKind::MissingRequiredArgument),
            ("vss document", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
            ("vss document check", ErrorKind::MissingRequiredArgument),
            ("vss document check a b", ErrorKind::UnknownArgument),
            ("vss document show", ErrorKind::MissingRequiredArgument),
            ("vss document show /f --writer w", ErrorKind::ArgumentConflict),
            ("vss document show --writer w", ErrorKind::MissingRequiredArgument),
            ("vss document show /f --xml --json", ErrorKind::ArgumentConflict),
            ("vss document list /f", ErrorKind::ValueValidation),
            ("vss frobnicate", ErrorKind::InvalidSubcommand),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.kind(), kind, "{line}");
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        assert_eq!(parse(&format!("vss delete {ID} --all")).unwrap_err().kind(), ErrorKind::ArgumentConflict);
    }

    #[test]
    fn the_command_is_taken_as_it_is() {
        let arguments = parse("vss run --volume /a --volume /b --live /a/c -- tar --volume x -- y").unwrap();
        let Command::Run(run) = arguments.command else { panic!("not run") };
        assert_eq!(run.volume, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!(run.command, ["tar", "--volume", "x", "--", "y"]);
        assert_eq!((run.backup.wait, run.backup.backup_type), (600, None));
    }

    #[test]
    fn the_directories_of_the_instance_go_with_every_subcommand() {
        let subcommands = [
            "run --volume /a".to_owned(),
            "create /a".to_owned(),
            "check /a".to_owned(),
            "list shadows".to_owned(),
            format!("show {ID}"),
            format!("expose {ID} /mnt"),
            "unexpose /mnt".to_owned(),
            "delete --all".to_owned(),
            "storage list".to_owned(),
            format!("diff {ID} --blocks"),
            format!("export {ID} --since {ID}"),
            "import --to /image".to_owned(),
            format!("revert {ID} --yes"),
            "document show /f".to_owned(),
            "backup --to /b --volume /a".to_owned(),
            "verify /b".to_owned(),
            "restore --from /b --files-only --to /c".to_owned(),
        ];
        for subcommand in subcommands {
            let tail = if subcommand.starts_with("run") { " -- true" } else { "" };
            let arguments = parse(&format!("vss {subcommand} --state-dir /s --runtime-dir /r{tail}")).unwrap();
            assert_eq!(arguments.instance.state_dir, PathBuf::from("/s"), "{subcommand}");
            assert_eq!(arguments.instance.runtime_dir, PathBuf::from("/r"), "{subcommand}");
        }
        assert_eq!(parse("vss list shadows").unwrap().instance.runtime_dir, PathBuf::from("/run/vss"));
    }

    #[test]
    fn every_command_that_has_json_is_known_as_such() {
        fn count(command: &clap::Command) -> usize {
            let own = usize::from(command.get_arguments().any(|argument| argument.get_id() == "json"));
            own + command.get_subcommands().map(count).sum::<usize>()
        }
        let lines = [
            "create /a".to_owned(),
            "check /a".to_owned(),
            "list shadows".to_owned(),
            format!("show {ID}"),
            "storage list".to_owned(),
            format!("diff {ID} --blocks"),
            "events".to_owned(),
            "document check /f".to_owned(),
            "document show /f".to_owned(),
            format!("document list {ID}"),
            "backup --to /b --volume /a".to_owned(),
            "verify /b".to_owned(),
            "restore --from /b --files-only --to /c".to_owned(),
        ];
        assert_eq!(count(&Arguments::command()), lines.len());
        for line in lines {
            assert!(parse(&format!("vss {line} --json")).unwrap().command.is_json(), "{line}");
            assert!(!parse(&format!("vss {line}")).unwrap().command.is_json(), "{line}");
        }
    }

    #[test]
    fn ids_are_read_as_windows_writes_them() {
        let arguments = parse(&format!("vss show {{{}}}", ID.to_uppercase())).unwrap();
        let Command::Show(show) = arguments.command else { panic!("not show") };
        assert_eq!(show.id.set.to_string(), ID);
        assert_eq!(show.id.shadow.to_string(), ID);
    }
}
