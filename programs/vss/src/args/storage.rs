//! What is typed about shadow storage.

use clap::{Args, Subcommand};
use std::ffi::OsString;

#[derive(Debug, Args)]
#[command(after_help = STORAGE_HELP)]
pub(crate) struct StorageArguments {
    #[command(subcommand)]
    pub(crate) command: StorageCommand,
}

const STORAGE_HELP: &str = "\
A provider that copies blocks keeps its image of a volume, so that the next copy
reads only what changed. It goes by itself when it was not used for 7 days, and
when it crowds its file system.

`list --json` prints {\"storage\": [provider, volume_id, volume, place, used_bytes,
volume_bytes, shadows, last_used, full_compare]}; full_compare says why the next
copy will read everything, and is null when it will not.

Examples:
  vss storage list
  vss storage remove /srv
  vss storage remove --all";

#[derive(Debug, Subcommand)]
pub(crate) enum StorageCommand {
    /// List what is kept, for which volume and where
    List {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Remove what is kept for volumes; their next copies are first ones again
    Remove(RemoveStorageArguments),
}

#[derive(Debug, Args)]
#[group(id = "kept", required = true, multiple = false)]
pub(crate) struct RemoveStorageArguments {
    /// A path on the volume, where it was mounted, or its lasting name (TYPE:UUID)
    #[arg(value_name = "VOLUME", group = "kept")]
    pub(crate) volume: Vec<OsString>,
    /// Of all volumes
    #[arg(long, group = "kept")]
    pub(crate) all: bool,
}
