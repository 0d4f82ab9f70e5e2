//! `cargo xtask bench mirror`: what the mirror costs, part by part.
//!
//! - the tracer: writes with it on against off (`mirror/overhead.rs`);
//! - the hold under random writes, beside a freeze and thaw alone (`mirror/hold.rs`);
//! - first and second copies: rate beside dd(1), bytes read, time beside as many blocks read and written (`mirror/copies.rs`,
//!   `mirror/blocks.rs`).
//!
//! The last two on one ext4 of 4 GiB with its images on an XFS, both on loop devices (`mirror/scene.rs`).

mod blocks;
mod copies;
mod hold;
mod load;
mod overhead;
mod scene;
mod writer;

use crate::interrupt::Interrupt;
use crate::{house, packages};
use anyhow::Result;
use scene::Scene;
use serde_json::json;

/// Options of the measurement.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many pairs of runs, with and without what is measured, in turn
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// How many seconds of each pair are written with the tracer on, and as many with it off, in turn in short slices
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Measure only this part
    #[arg(long)]
    only: Option<Measured>,
    /// Print one JSON document as well
    #[arg(long)]
    json: bool,
}

/// A part of the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Measured {
    /// Writes with the tracer on and off
    Overhead,
    /// Holds under random writes
    Hold,
    /// First and second copies
    Copies,
}

impl Arguments {
    fn has(&self, part: Measured) -> bool {
        self.only.is_none_or(|only| only == part)
    }
}

/// True when everything is what was wanted.
pub(super) fn run(arguments: &Arguments, interrupt: &Interrupt) -> Result<bool> {
    packages::need(&[packages::EXT4, packages::XFS, packages::FIO], interrupt)?;
    let programs = house::build_release(interrupt)?;
    house::need_root("bench mirror")?;
    let mut is_met = true;
    let mut parts = serde_json::Map::new();
    if arguments.has(Measured::Overhead) {
        let overhead = overhead::run(arguments, interrupt)?;
        is_met &= overhead.is_met;
        parts.insert("overhead".to_owned(), overhead.rows.into());
    }
    if arguments.has(Measured::Hold) || arguments.has(Measured::Copies) {
        let scene = Scene::set_up(&programs, interrupt)?;
        if arguments.has(Measured::Hold) {
            let (met, row) = hold::run(&scene, arguments.pairs, interrupt)?;
            is_met &= met;
            parts.insert("hold".to_owned(), row);
        }
        if arguments.has(Measured::Copies) {
            let (met, row) = copies::run(&scene, arguments.pairs, interrupt)?;
            is_met &= met;
            parts.insert("copies".to_owned(), row);
        }
    }
    if arguments.json {
        println!("{}", json!({"pairs": arguments.pairs, "parts": parts}));
    }
    Ok(is_met)
}

fn word(is_met: bool) -> &'static str {
    if is_met { "met" } else { "MISSED" }
}
