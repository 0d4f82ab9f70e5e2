//! The command line as it was typed. What it comes to on this machine is decided in [`crate::commands`].

mod blocks;
mod directory;
mod document;
mod storage;
mod writer;

pub(crate) use blocks::{DiffArguments, ExportArguments, ImportArguments, RevertArguments};
pub(crate) use directory::{DirectoryBackupArguments, RestoreArguments, VerifyArguments};
pub(crate) use document::{
    DocumentArguments, DocumentCheckArguments, DocumentCommand, DocumentListArguments, DocumentShowArguments,
};
pub(crate) use storage::{RemoveStorageArguments, StorageArguments, StorageCommand};
#[cfg(test)]
pub(crate) use writer::SIMULATE_HELP;
pub(crate) use writer::{SimulateArguments, WriterArguments, WriterCommand};

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use vss_model::creation::{LEAST_RATE, LONGEST_HOLD_MS};
use vss_model::{BackupType, Consistency, SetId, ShadowId};
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

Exit status: 0 done, 1 failed, 2 wrong usage; `vss run` ends with the command's own.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command that sees shadow copies in place of the live files
    Run(RunArguments),
    /// Make a shadow copy set
    Create(CreateArguments),
    /// Tell what a shadow copy set would be, and what stands in the way; change nothing
    Check(CheckArguments),
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

/// How a set is made: the same for `run`, `create` and `backup`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Making the set")]
pub(crate) struct BackupArguments {
    /// Let no writer take part
    #[arg(long, conflicts_with = "writer")]
    pub(crate) no_writers: bool,
    /// Let only this writer take part (more than once: only these)
    #[arg(long, value_name = "NAME")]
    pub(crate) writer: Vec<String>,
    /// Make the copies with this provider
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: Option<String>,
    /// Fail unless the set is at least so consistent
    #[arg(long, value_name = "LEVEL")]
    pub(crate) require: Option<Level>,
    /// What writers are told of the backup [default: full for run and backup, copy for create]
    #[arg(long, value_name = "TYPE")]
    pub(crate) backup_type: Option<Type>,
    /// Go on when a writer fails; its data is less consistent then
    #[arg(long)]
    pub(crate) allow_degraded: bool,
    /// Seconds to wait while another set is being created; 0: fail at once
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) wait: u32,
    #[command(flatten)]
    pub(crate) copying: CopyingArguments,
}

/// Wishes for providers that copy the blocks of a volume.
#[derive(Debug, Args)]
#[command(next_help_heading = "Copying blocks (provider mirror)")]
pub(crate) struct CopyingArguments {
    /// Read at most so much a second before the hold: 50M, 1.5G (powers of 1024), 100MB (powers of 1000)
    #[arg(long, value_name = "BYTES", value_parser = rate)]
    pub(crate) max_rate: Option<u64>,
    /// Begin no hold that would be longer, in milliseconds, 1 to 8000 [default: 500]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=LONGEST_HOLD_MS))]
    pub(crate) max_hold: Option<u64>,
    /// Keep the images in this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) storage: Option<PathBuf>,
    /// Read and compare the whole volume in the hold; for kernels that cannot trace what is written
    #[arg(long)]
    pub(crate) full_compare: bool,
}

#[derive(Debug, Args)]
#[command(after_help = RUN_HELP)]
pub(crate) struct RunArguments {
    /// Show the copy at this path; the volume that holds it is copied
    #[arg(long, value_name = "PATH", required = true)]
    pub(crate) volume: Vec<PathBuf>,
    /// Leave this directory below a PATH live and writable
    #[arg(long, value_name = "DIR")]
    pub(crate) live: Vec<PathBuf>,
    /// Run the command as the user who called sudo
    #[arg(long)]
    pub(crate) as_caller: bool,
    /// The command to run and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
    #[command(flatten)]
    pub(crate) backup: BackupArguments,
}

const RUN_HELP: &str = "\
The command sees each PATH as it was at one moment, at its usual place and
read-only; everything beside it is live. Below PATH, other volumes that are not
chosen too stay live (stderr names them), and so do /proc, /sys, /dev, /run and
/tmp. The copies are deleted when the command ends. The command finds VSS_SET_ID
and VSS_CONSISTENCY in its environment.

Examples:
  vss run --volume /srv -- restic -r /backup backup /srv
  vss run --volume /srv/db --volume /srv/wal --require application -- \\
      borg create /backup::now /srv/db /srv/wal
  sudo vss run --as-caller --volume /home -- tar -cf /tmp/home.tar /home/me

Exit status: the command's own, 128+N when signal N killed it; 125 when no shadow
copy could be made (the command was not run), 126 when the command could not be
run, 127 when it was not found; 2 wrong usage.";

#[derive(Debug, Args)]
#[command(after_help = "\
Without --persistent the copies live until reboot or `vss delete`.

Examples:
  vss create /srv
  vss create /srv /home --persistent --require file-system --json")]
pub(crate) struct CreateArguments {
    /// A path on each volume to copy
    #[arg(value_name = "VOLUME", required = true)]
    pub(crate) volume: Vec<PathBuf>,
    /// Keep the copies over reboots
    #[arg(long)]
    pub(crate) persistent: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) backup: BackupArguments,
}

#[derive(Debug, Args)]
#[command(after_help = CHECK_HELP)]
pub(crate) struct CheckArguments {
    /// A path on each volume to copy
    #[arg(value_name = "PATH", required = true)]
    pub(crate) path: Vec<PathBuf>,
    /// Let no writer take part
    #[arg(long, conflicts_with = "writer")]
    pub(crate) no_writers: bool,
    /// Let only this writer take part (more than once: only these)
    #[arg(long, value_name = "NAME")]
    pub(crate) writer: Vec<String>,
    /// Make the copies with this provider
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: Option<String>,
    /// Say no unless the set would be at least so consistent
    #[arg(long, value_name = "LEVEL")]
    pub(crate) require: Option<Level>,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) const CHECK_HELP: &str = "\
Judges by the rules of `vss create` and `vss run`, with every writer taken to
succeed. Writers are asked what they own, and nothing else; no copy is made. A
volume that is missing is told as the words to add to `vss run`; `vss create` and
`vss check` take its path alone.

--json prints an object with these keys:
  possible     a set of all paths can be made, as consistent as required
  consistency  application, file-system, crash; null when nothing can be copied
  atomic       all its volumes would be cut at one instant
  paths        [path, resolved, volume_id, failure]
  volumes      [volume, volume_id, fs_type, provider, consistency, nested_count,
               nested (the first 20), shadows, failure, copying: null or
               [storage, bytes_to_read, bytes_needed, bytes_available, read_ms,
               hold_ms, full_compare]]
  writers      [name, instance_name, class_id, instance_id, failure,
               component_count, components: [logical_path, name, consistency,
               missing: [volume, volume_id, provider, reason]]]
  stays_live   mount points below the paths that `vss run` would show live
  obstacles    [code, number, message, hint] of what else keeps the set from
               being made
  warnings     [code, number, message, hint] of what should be known
A failure is null or has code, number (its HRESULT), message and hint.

Examples:
  vss check /srv
  vss check /srv/db /srv/wal --require application --json

Exit status: 0 it can be made, as required; 1 not; 2 wrong usage.";

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vss list shadows
  vss list writers --json")]
pub(crate) struct ListArguments {
    /// What to list
    pub(crate) what: Listed,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = SHOW_HELP)]
pub(crate) struct ShowArguments {
    /// A shadow copy or a shadow copy set
    #[arg(value_name = "ID", value_parser = id)]
    pub(crate) id: Id,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

const SHOW_HELP: &str = "\
Of a set its freeze window is shown too: a time line in milliseconds from the
first freeze, and what was done to each volume, when, and what the guard that
held it answered. That is the proof that all volumes are of one instant.

--json prints the keys of `vss create --json` and, for a set, context, created_at,
requester, owner, frozen_ms of each writer, and
  proof        null for a set of an earlier release, else an object:
    began_at, began_boottime_us   the instant that microseconds count from
    flush, flush_in_window        null or a span [from_us, took_us]
    hold         null, or [frozen_at, frozen_us, release_at, release_us,
                 thawed_at, thawed_us, expedited, expedited_restored,
                 expedited_us]
    members      [shadow_id, volume, held, level, freeze, commit, cut_at, thaw,
                 answers]: freeze, commit and thaw are spans; answers are
                 synced, frozen, thawed, thawed_early, lost

Example:
  vss show b5946137-7b9f-4925-af80-51abd60b20d5 --json";

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  vss expose b5946137-7b9f-4925-af80-51abd60b20d5 /mnt")]
pub(crate) struct ExposeArguments {
    /// The shadow copy
    #[arg(value_name = "ID")]
    pub(crate) shadow: ShadowId,
    /// An empty directory
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vss unexpose /mnt
  vss unexpose b5946137-7b9f-4925-af80-51abd60b20d5")]
pub(crate) struct UnexposeArguments {
    /// Where a shadow copy is mounted, or its id
    #[arg(value_name = "DIR|ID")]
    pub(crate) place: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vss delete b5946137-7b9f-4925-af80-51abd60b20d5
  vss delete --set 0a6f8d1c-5a2f-4a3e-9d6f-0c9a3c1d2e4f
  vss delete --oldest /srv")]
#[group(id = "selection", required = true, multiple = false)]
pub(crate) struct DeleteArguments {
    /// Shadow copies
    #[arg(value_name = "ID", group = "selection")]
    pub(crate) shadow: Vec<ShadowId>,
    /// All shadow copies of this set
    #[arg(long, value_name = "ID", group = "selection")]
    pub(crate) set: Option<SetId>,
    /// The oldest shadow copy of the volume that holds this path
    #[arg(long, value_name = "VOLUME", group = "selection")]
    pub(crate) oldest: Option<PathBuf>,
    /// All shadow copies that you may delete
    #[arg(long, group = "selection")]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
#[command(after_help = EVENTS_HELP)]
pub(crate) struct EventsArguments {
    /// Tell what happens from now on, until the service ends
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Begin behind the event with this number; with --follow, 0 begins with all that are remembered
    #[arg(long, value_name = "SEQ")]
    pub(crate) after: Option<u64>,
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

const EVENTS_HELP: &str = "\
Root hears everything, others what belongs to their own sessions, copies and
writers. The newest 4096 events are remembered, in memory: as long as the service
runs. A service on demand that does not run is started, and runs as long as it is
followed; so what later commands do is heard too. Who reads slowly misses events,
and is told how many.

--json prints objects with these keys, each only where it belongs:
  seq, at, kind   always: number since the service started, RFC 3339, and
                  service_started service_stopped session_opened session_closed
                  set_begun step writer_event member set_finished set_failed
                  copy_deleted copy_exposed copy_unexposed writer_registered
                  writer_gone provider_trouble progress
  session_id set_id shadow_id uid requester writer provider volume path
  step            of making a set; the writer's event; the provider's phase
  took_us         how long that took, in microseconds
  member          of a volume in the freeze window: level, freeze, commit, thaw
                  (each [from_us, took_us] from the first freeze), answers
  consistency hold_us    of a finished set
  failure         code, number, message, hint
  progress        of copying a volume: volume, shadow_id, work (copying, catching,
                  comparing, reverting), round, bytes_done, bytes_total,
                  copy_rate, dirty_rate (bytes a second), hold_ms, left_ms; of a
                  session only the newest is remembered
  recovery        what the service did at its start
An object {\"kind\": \"lost\", \"lost\": N} stands where N events were missed.

Examples:
  vss events
  vss events --follow --json

Exit status: 0 the service has ended in order, 1 the connection was lost.";

/// What `vss list` lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Listed {
    Shadows,
    Writers,
    Providers,
    Volumes,
    Storage,
}

/// A consistency level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// A writer held the data still
    Application,
    /// One instant for each volume
    FileSystem,
    /// Anything
    Crash,
}

impl From<Level> for Consistency {
    fn from(level: Level) -> Self {
        match level {
            Level::Application => Self::Application,
            Level::FileSystem => Self::FileSystem,
            Level::Crash => Self::Crash,
        }
    }
}

/// A backup type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Type {
    /// Everything; writers may truncate their logs afterwards
    Full,
    /// Everything, and no writer takes note of it
    Copy,
    /// What changed since the last full or incremental backup
    Incremental,
    /// What changed since the last full backup
    Differential,
    /// Logs only
    Log,
}

impl From<Type> for BackupType {
    fn from(backup_type: Type) -> Self {
        match backup_type {
            Type::Full => Self::Full,
            Type::Copy => Self::Copy,
            Type::Incremental => Self::Incremental,
            Type::Differential => Self::Differential,
            Type::Log => Self::Log,
        }
    }
}

/// An id that names a shadow copy or a set; only the service knows which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id {
    pub(crate) shadow: ShadowId,
    pub(crate) set: SetId,
}

fn rate(text: &str) -> Result<u64, String> {
    let rate = vss_model::bytes::parse(text)?;
    if rate < LEAST_RATE { Err(format!("less than {}", vss_model::Bytes(LEAST_RATE))) } else { Ok(rate) }
}

fn id(text: &str) -> Result<Id, String> {
    let shadow = text.parse().map_err(|error: vss_model::id::InvalidId| error.to_string())?;
    let set = text.parse().map_err(|error: vss_model::id::InvalidId| error.to_string())?;
    Ok(Id { shadow, set })
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
        for command in Arguments::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{} has no examples", command.get_name());
            // Wider lines would be broken a second time on a terminal.
            assert!(help.lines().all(|line| line.len() <= 82), "{}: {help}", command.get_name());
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
    fn ids_are_read_as_windows_writes_them() {
        let arguments = parse(&format!("vss show {{{}}}", ID.to_uppercase())).unwrap();
        let Command::Show(show) = arguments.command else { panic!("not show") };
        assert_eq!(show.id.set.to_string(), ID);
        assert_eq!(show.id.shadow.to_string(), ID);
    }
}
