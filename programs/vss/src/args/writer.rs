//! What is typed about writers.

use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  vss writer simulate shop.toml")]
pub(crate) struct WriterArguments {
    #[command(subcommand)]
    pub(crate) command: WriterCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WriterCommand {
    /// Run a writer that does what a file says, until a signal ends it
    #[command(after_help = SIMULATE_HELP)]
    Simulate(SimulateArguments),
}

#[derive(Debug, Args)]
pub(crate) struct SimulateArguments {
    /// The description (TOML)
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

pub(crate) const SIMULATE_HELP: &str = "\
Prints one line of JSON for each event that the writer was told; nothing while it
is frozen. What every writer says of itself stands in the file as a script writer
says it (docs/script-writer.md).

Example of a description:
  name = \"shop\"
  stamps = true                      # each backup is stamped: 1, 2, ...
  spit = true                        # PrepareSnapshot fills alternate_path
  # After the cut; also delete_partial_files, delete_differenced_files:
  deeds = [\"delete_files\"]
  backup_schema = [\"incremental\", \"stamps\", \"differenced_files\"]
  [[components]]
  name = \"orders\"
  [[components.files]]
  path = \"/srv/shop/orders\"
  recursive = true
  [[exclude_files_from_snapshot]]
  path = \"/srv/shop/orders\"
  pattern = \"*.tmp\"
  [[fail]]                           # an event, how often, and with what
  event = \"freeze\"
  times = 1
  code = \"VSS_E_WRITERERROR_RETRYABLE\"
  [[sleep]]
  event = \"prepare_snapshot\"
  ms = 2000
  [[say]]                            # of a component, in the answer to an event
  event = \"post_snapshot\"
  backup_types = [\"incremental\"]
  component = { name = \"orders\" }
  differenced_files = [{ path = \"/srv/shop/orders\", recursive = true }]";
