//! What is typed to be told what a set would be.

use super::set::BackupArguments;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = CHECK_HELP)]
pub(crate) struct CheckArguments {
    /// A path on each volume to copy
    #[arg(value_name = "PATH", required = true)]
    pub(crate) path: Vec<PathBuf>,
    /// The copies would be kept over reboots
    #[arg(long)]
    pub(crate) persistent: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) backup: BackupArguments,
}

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
