//! What is typed about shadow copies that are there: to list, show, mount and delete them.

use clap::{Args, ValueEnum};
use std::path::PathBuf;
use vss_model::{SetId, ShadowId};

/// What `vss list` lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Listed {
    Shadows,
    Writers,
    Providers,
    Volumes,
    Storage,
}

#[derive(Debug, Args)]
#[command(after_help = LIST_HELP)]
pub(crate) struct ListArguments {
    /// What to list
    pub(crate) what: Listed,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) const LIST_HELP: &str = "\
--json prints an object with one key, the word that was typed, and its list:
  shadows    the keys of shadows in `vss create --json`, and set_id, created_at,
             attributes, owner
  writers    [name, instance_name, class_id, instance_id, level, freeze_ms, uid,
             pid]
  providers  [id, name, version, type, freeze_policy, kind, writable_phase]
  volumes    [volume, volume_id, fs_type, source, provider (null: none can copy
             it), reason, shadows]
  storage    as `vss storage list --json`

Examples:
  vss list shadows
  vss list writers --json";

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

/// An id that names a shadow copy or a set; only the service knows which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id {
    pub(crate) shadow: ShadowId,
    pub(crate) set: SetId,
}

pub(super) fn id(text: &str) -> Result<Id, String> {
    let shadow = text.parse().map_err(|error: vss_model::id::InvalidId| error.to_string())?;
    let set = text.parse().map_err(|error: vss_model::id::InvalidId| error.to_string())?;
    Ok(Id { shadow, set })
}
