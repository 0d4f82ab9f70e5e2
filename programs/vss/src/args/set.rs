//! What is typed to make a shadow copy set, for a command or to stay, or to be told what it would be; and how it is made.

use clap::{Args, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use vss_model::creation::{LEAST_RATE, LONGEST_HOLD_MS};
use vss_model::{BackupType, Consistency};

/// How a set is made: the same for `run`, `create`, `check` and `backup`.
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
    /// Show the copy at this path; the volume that holds it is copied (more than once: all of them)
    #[arg(long, value_name = "PATH", required = true)]
    pub(crate) volume: Vec<PathBuf>,
    /// Leave this directory below a PATH live and writable (more than once: all of them)
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

pub(crate) const CREATE_HELP: &str = "\
Without --persistent the copies live until reboot or `vss delete`. What would be
made, and what it takes, `vss check` tells with the same options.

--json prints an object with these keys:
  set_id
  consistency  application, file-system, crash
  atomic       all volumes were cut at one instant
  hold_ms      how long writes were held
  freeze_ms    how long the writers were frozen
  shadows      [id, volume, provider, device, path, consistency, cut_at, nested:
               [path, cut_at], left out when there are none]
  writers      [name, state, components: [logical_path, name, consistency]];
               failure (code, number, message, hint) where one failed

Examples:
  vss create /srv
  vss create /srv /home --persistent --require file-system --json
  vss create /srv --max-rate 50M --storage /backup/images";

pub(crate) const CHECK_HELP: &str = "\
Takes the options of `vss create` and judges by the rules of `vss create` and
`vss run`, with every writer taken to succeed; so --backup-type, --allow-degraded
and --wait change nothing here. Writers are asked what they own, and nothing else;
no copy is made. A volume that is missing is told as the words to add to
`vss run`; `vss create` and `vss check` take its path alone.

Where blocks are copied (provider mirror), applications' writes are traced for a
second, and the rounds, the time and the hold are estimated by that and by the
rates of the last copy. What is not known is said to be so: before a first copy
its rate, and with it the time. Writes that are too fast now are a warning, and
no obstacle: they may be slower when the set is made.

--json prints an object with these keys:
  possible     a set of all paths can be made, as consistent as required
  consistency  application, file-system, crash; null when nothing can be copied
  atomic       all its volumes would be cut at one instant
  paths        [path, resolved, volume_id, failure]
  volumes      [volume, volume_id, fs_type, provider, consistency, nested_count,
               nested (the first 20), shadows, hold_ms, failure, copying: null or
               [work (copying, comparing, catching), full_compare, storage,
               places: [storage, bytes_needed, bytes_available], rounds,
               bytes_to_read, copy_rate, dirty_rate (bytes a second), read_ms]];
               null: not known
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
  vss check /srv --max-hold 200 --storage /backup/images
  vss check /srv/db /srv/wal --require application --json

Exit status: 0 it can be made, as required; 1 not; 2 wrong usage.";

/// The set that `create` makes, and `check` foretells.
#[derive(Debug, Args)]
pub(crate) struct SetArguments {
    /// A path on each volume to copy
    #[arg(value_name = "PATH", required = true)]
    pub(crate) path: Vec<PathBuf>,
    /// Keep the copies over reboots
    #[arg(long)]
    pub(crate) persistent: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) backup: BackupArguments,
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

fn rate(text: &str) -> Result<u64, String> {
    let rate = vss_model::bytes::parse(text)?;
    if rate < LEAST_RATE { Err(format!("less than {}", vss_model::Bytes(LEAST_RATE))) } else { Ok(rate) }
}
