//! `cargo xtask bench`: measurements, each beside the system's own means on the same file systems in the same run.

mod documents;
mod hold;
mod mirror;
mod postgresql;
mod service;
mod statistics;
mod window;

use crate::interrupt::Interrupt;
use anyhow::Result;
use clap::Subcommand;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// First FIFREEZE to last FITHAW of 1, 8 and 32 busy members, beside fsfreeze(8) in a loop
    Hold(hold::Arguments),
    /// What the mirror costs: writes with the tracer on, holds under load, first and second copies
    Mirror(mirror::Arguments),
    /// Freeze to thaw with idle writers on btrfs, beside the bare snapshot ioctl
    Window(window::Arguments),
    /// How long commits take around a cut of a PostgreSQL cluster under load, beside other ways to make one
    Postgresql(postgresql::Arguments),
    /// Reading and writing the largest document of Windows, beside other parsers
    Documents(documents::Arguments),
}

/// True when the measurement is what was wanted.
pub(crate) fn run(arguments: &Arguments, interrupt: &Interrupt) -> Result<bool> {
    match &arguments.bench {
        Bench::Hold(arguments) => hold::run(arguments, interrupt),
        Bench::Mirror(arguments) => mirror::run(arguments, interrupt),
        Bench::Window(arguments) => window::run(arguments, interrupt),
        Bench::Postgresql(arguments) => postgresql::run(arguments, interrupt),
        Bench::Documents(arguments) => documents::run(arguments, interrupt),
    }
}
