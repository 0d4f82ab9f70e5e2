//! 4 KiB direct random writes to a file on ext4 with the tracer on and off, in turn, at depth 1 and 16.

use super::Arguments;
use crate::house;
use crate::interrupt::Interrupt;
use crate::volume::{Kind, Volume};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;
use vss_trace::{Pins, Target, Tracer};

/// Issue: of the writes without the tracer.
const WANTED_RATIO: f64 = 0.97;
const DEPTHS: [u32; 2] = [1, 16];
/// Of the file that is written to.
const FILE_MIB: u64 = 512;
const VOLUME_MIB: u64 = 1024;

/// What came out.
pub(super) struct Overhead {
    /// For JSON.
    pub(super) rows: Vec<Value>,
    /// The medians are what was wanted.
    pub(super) is_met: bool,
}

/// A tracer for the time of a run.
struct On(Pins);

impl On {
    fn attach(device: &Path) -> Result<(Self, Tracer)> {
        let pins = Pins::new("bench", &std::process::id().to_string());
        let target = Target::of(device.metadata()?.rdev())?;
        let tracer = Tracer::attach(&pins, &target)?;
        Ok((Self(pins), tracer))
    }
}

impl Drop for On {
    fn drop(&mut self) {
        if let Err(error) = Tracer::remove(&self.0) {
            eprintln!("{error}");
        }
    }
}

/// Measures, and prints the table.
pub(super) fn run(arguments: &Arguments, interrupt: &Interrupt) -> Result<Overhead> {
    let directory = TempDir::with_prefix_in("vss-bench-", house::scratch())?;
    let volume = Volume::create_of(Kind::Ext4, &directory.path().join("volume"), VOLUME_MIB, interrupt)?;
    let file = volume.path().join("data");
    // Written once, so that no run allocates.
    interrupt.output(fio(&file, 16).args(["--rw=write", "--bs=1M"]))?;
    volume.settle()?;
    println!(
        "{:<8}{:>10}{:>10}{:>10}{:>10}{:>12}{:>9}{:>9}   4 KiB writes a second, {} pairs of {} s",
        "depth",
        "off p50",
        "least",
        "most",
        "on p50",
        "on/off p50",
        "least",
        "most",
        arguments.pairs,
        arguments.seconds
    );
    let (mut rows, mut is_met) = (Vec::new(), true);
    for depth in DEPTHS {
        let (mut off, mut on, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for pair in 0..arguments.pairs {
            let mut speeds = [0.0; 2];
            for turn in [pair % 2, (pair + 1) % 2] {
                let _on = (turn == 1).then(|| On::attach(volume.device())).transpose()?;
                speeds[turn as usize] = speed(&file, depth, arguments, interrupt)?;
            }
            off.push(speeds[0]);
            on.push(speeds[1]);
            ratios.push(speeds[1] / speeds[0]);
        }
        let [off, on, ratio] = [off, on, ratios].map(Spread::of);
        println!(
            "{depth:<8}{:>10.0}{:>10.0}{:>10.0}{:>10.0}{:>12.3}{:>9.3}{:>9.3}",
            off.middle, off.least, off.most, on.middle, ratio.middle, ratio.least, ratio.most
        );
        let met = ratio.middle >= WANTED_RATIO;
        is_met &= met;
        println!("depth {depth}: wanted at least {WANTED_RATIO}: {}", if met { "met" } else { "MISSED" });
        rows.push(json!({
            "depth": depth, "off": off.middle, "on": on.middle, "ratio": ratio.middle,
            "ratio_least": ratio.least, "ratio_most": ratio.most,
        }));
    }
    let (_on, tracer) = On::attach(volume.device())?;
    let counting = Tracer::count_runs()?;
    speed(&file, DEPTHS[1], arguments, interrupt)?;
    drop(counting);
    for runs in tracer.runs()? {
        let each = runs.nanoseconds.checked_div(runs.count).unwrap_or_default();
        println!("{:<20}{:>10} runs of {each} ns (with the counting itself)", runs.tracepoint, runs.count);
        rows.push(json!({"tracepoint": runs.tracepoint, "runs": runs.count, "ns": each}));
    }
    Ok(Overhead { rows, is_met })
}

/// fio(1) on the file, without the way of writing.
fn fio(file: &Path, depth: u32) -> Command {
    let mut command = Command::new("fio");
    command.args(["--name=load", "--ioengine=libaio", "--direct=1", "--randrepeat=0", "--output-format=json"]);
    command.arg(format!("--filename={}", file.display())).arg(format!("--size={FILE_MIB}M"));
    command.arg(format!("--iodepth={depth}"));
    command
}

/// Writes a second.
fn speed(file: &Path, depth: u32, arguments: &Arguments, interrupt: &Interrupt) -> Result<f64> {
    let mut command = fio(file, depth);
    command.args(["--rw=randwrite", "--bs=4k", "--time_based"]).arg(format!("--runtime={}", arguments.seconds));
    let said = interrupt.output(&mut command)?;
    let said: Value = serde_json::from_str(&said).context("fio's JSON")?;
    said["jobs"][0]["write"]["iops"].as_f64().context("fio says no writes a second")
}

/// Middle and ends of a series.
struct Spread {
    middle: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(mut series: Vec<f64>) -> Self {
        series.sort_by(f64::total_cmp);
        let at = |place: usize| series.get(place).copied().unwrap_or_default();
        Self { middle: at(series.len() / 2), least: at(0), most: at(series.len().saturating_sub(1)) }
    }
}
