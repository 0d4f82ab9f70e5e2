//! `cargo xtask demo`: something that keeps writing is backed up twice, from a shadow copy and from the live files, and both
//! backups are judged. Each demo is a file here; what they share is the stage and the way of making the backup.

mod backup;
pub(crate) mod files;
mod postgresql;
mod stage;

use crate::interrupt::Interrupt;
use anyhow::Result;
use clap::Subcommand;

/// What to show.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    demo: Option<Demo>,
}

#[derive(Debug, Subcommand)]
enum Demo {
    /// PostgreSQL under pgbench's load, restored into a second server
    Postgresql,
}

/// True when all was as promised.
pub(crate) fn run(arguments: &Arguments, interrupt: &Interrupt) -> Result<bool> {
    match arguments.demo {
        None => files::run(interrupt),
        Some(Demo::Postgresql) => postgresql::run(interrupt),
    }
}
