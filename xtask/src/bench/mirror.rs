//! `cargo xtask bench mirror`: what the mirror costs, part by part.
//!
//! - the tracer: writes with it on against off (`mirror/overhead.rs`).

mod overhead;

use crate::interrupt::Interrupt;
use crate::{house, packages};
use anyhow::Result;
use serde_json::json;

/// Options of the measurement.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many pairs of runs, with and without what is measured, in turn
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// How long each run takes
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Print one JSON document as well
    #[arg(long)]
    json: bool,
}

/// True when everything is what was wanted.
pub(super) fn run(arguments: &Arguments, interrupt: &Interrupt) -> Result<bool> {
    packages::need(&[packages::EXT4, packages::FIO], interrupt)?;
    house::need_root("bench mirror")?;
    let overhead = overhead::run(arguments, interrupt)?;
    if arguments.json {
        println!("{}", json!({"pairs": arguments.pairs, "overhead": overhead.rows}));
    }
    Ok(overhead.is_met)
}
