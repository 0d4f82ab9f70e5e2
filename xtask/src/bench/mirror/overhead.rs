//! 4 KiB direct random writes to a file on ext4 with the tracer on and off, in turn, at depth 1 and 16.
//!
//! The device is a loop device on memory where there is such a file system: nothing there is slow or uneven, so the tracer's
//! share is larger than on a disk. Somebody writes all the time, while the tracer is on and off in turn. The slices are short
//! and many, so that what else the machine does hits both alike: the median of their ratios is what counts, and it is told how
//! far it may be off.
//!
//! At depth 16 it is one fio(1), and the device's own count of writes says how many it did. At depth 1 each write is timed, and
//! the median one of a slice counts: what else the machine does makes some writes long, which the mean of a slice has and the
//! median has not, and where nothing else is done they are the same. Both are told.

use super::Arguments;
use super::load::Load;
use super::word;
use super::writer::Writer;
use crate::house;
use crate::interrupt::Interrupt;
use crate::volume::{Kind, Volume};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vss_trace::{Pins, Target, Tracer};

/// Issue: of the writes without the tracer.
const WANTED_RATIO: f64 = 0.97;
/// Of fio(1).
const DEPTH: u32 = 16;
/// Of the file that is written to.
const FILE_MIB: u64 = 256;
const VOLUME_MIB: u64 = 384;
/// Of tmpfs, in linux/magic.h.
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// A file system in memory.
const MEMORY: &str = "/dev/shm";
/// How long the tracer is on or off at a time.
const SLICE: Duration = Duration::from_millis(200);
/// Between switching the tracer and counting: the kernel tidies up after that.
const SETTLING: Duration = Duration::from_millis(100);

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
    let in_memory = rustix::fs::statfs(MEMORY).is_ok_and(|found| found.f_type == TMPFS_MAGIC);
    let place = if in_memory { PathBuf::from(MEMORY) } else { house::scratch() };
    let directory = TempDir::with_prefix_in("vss-bench-", place)?;
    let volume = Volume::create_of(Kind::Ext4, &directory.path().join("volume"), VOLUME_MIB, interrupt)?;
    let file = volume.path().join("data");
    // Written once, so that no run allocates.
    interrupt.output(fio(&file, DEPTH).args(["--rw=write", "--bs=1M"]))?;
    volume.settle()?;
    let slices = arguments.pairs * (arguments.seconds * 1000 / SLICE.as_millis() as u32).max(1);
    println!(
        "{:<12}{:>10}{:>10}{:>10}{:>10}{:>12}{:>17}   4 KiB writes a second, {slices} pairs of {} ms",
        "depth",
        "off p50",
        "least",
        "most",
        "on p50",
        "on/off p50",
        "95 % between",
        SLICE.as_millis()
    );
    let (mut rows, mut is_met, mut fastest) = (Vec::new(), true, 0.0_f64);
    for depth in [1, DEPTH] {
        let mut writes = Writes::start(&file, depth, volume.device(), interrupt)?;
        interrupt.sleep(Duration::from_secs(1))?;
        let (mut means, mut medians) = (Ratios::default(), Ratios::default());
        for pair in 0..slices {
            let mut speeds = [Speed::default(); 2];
            for turn in [pair % 2, (pair + 1) % 2] {
                // Attached in any case, so that what that costs comes before both.
                let attached = On::attach(volume.device())?;
                let _on = (turn == 1).then_some(attached);
                speeds[turn as usize] = writes.speed(interrupt)?;
            }
            let [off, on] = speeds;
            means.add(off.mean, on.mean);
            if let (Some(off), Some(on)) = (off.median, on.median) {
                medians.add(off, on);
            }
        }
        drop(writes);
        let [means, medians] = [means, medians].map(Ratios::end);
        fastest = fastest.max(means.off.most());
        means.print(&format!("{depth}"));
        let judged = if medians.off.is_empty() {
            &means
        } else {
            medians.print("  its median");
            &medians
        };
        let (ratio, (least, most)) = (judged.ratio.middle(), judged.ratio.interval());
        is_met &= ratio >= WANTED_RATIO;
        let sure = if (least >= WANTED_RATIO) == (most >= WANTED_RATIO) { "" } else { ", within what it may be off" };
        println!("depth {depth}: wanted at least {WANTED_RATIO}: {}{sure}", word(ratio >= WANTED_RATIO));
        rows.push(json!({
            "depth": depth, "off": means.off.middle(), "on": means.on.middle(), "ratio": ratio,
            "ratio_least": least, "ratio_most": most, "ratio_of_means": means.ratio.middle(),
        }));
    }
    let (_on, tracer) = On::attach(volume.device())?;
    let counting = Tracer::count_runs()?;
    let load = Load::start(writing(&file, DEPTH).stdout(Stdio::null()), interrupt)?;
    interrupt.sleep(Duration::from_secs(1))?;
    drop(load);
    drop(counting);
    let runs = tracer.runs()?;
    let (spent, written) =
        (runs.iter().map(|run| run.nanoseconds).sum::<u64>(), runs.iter().map(|run| run.count).max());
    // Without the noise of a whole stack: what a write would lose if nothing else ran beside it.
    let each = spent as f64 / written.unwrap_or_default().max(1) as f64;
    let share = each * fastest / 1e9;
    println!("its programs take {each:.0} ns of a write: {share:.4} of one at the fastest rate, {fastest:.0} a second");
    for runs in runs {
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

/// fio(1) that writes until it is ended.
fn writing(file: &Path, depth: u32) -> Command {
    let mut command = fio(file, depth);
    command.args(["--rw=randwrite", "--bs=4k", "--time_based", "--runtime=86400"]);
    command
}

/// Who writes.
enum Writes<'a> {
    /// One at a time.
    Own(Writer),
    /// Many at once, to this device.
    Fio(Load, &'a Path),
}

/// Writes a second, of a slice.
#[derive(Clone, Copy, Default)]
struct Speed {
    mean: f64,
    /// As if each took as long as the median one.
    median: Option<f64>,
}

impl<'a> Writes<'a> {
    fn start(file: &Path, depth: u32, device: &'a Path, interrupt: &Interrupt) -> Result<Self> {
        Ok(if depth == 1 {
            Self::Own(Writer::start(file, FILE_MIB << 20)?)
        } else {
            Self::Fio(Load::start(writing(file, depth).stdout(Stdio::null()), interrupt)?, device)
        })
    }

    fn speed(&mut self, interrupt: &Interrupt) -> Result<Speed> {
        interrupt.sleep(SETTLING)?;
        match self {
            Self::Own(writer) => {
                writer.take()?;
                let began = Instant::now();
                interrupt.sleep(SLICE)?;
                let mut times = writer.take()?;
                let mean = times.len() as f64 / began.elapsed().as_secs_f64();
                let middle = times.len() / 2;
                let median = (!times.is_empty()).then(|| 1.0 / times.select_nth_unstable(middle).1.as_secs_f64());
                Ok(Speed { mean, median })
            }
            Self::Fio(load, device) => {
                let (before, began) = (writes(device)?, Instant::now());
                interrupt.sleep(SLICE)?;
                let mean = (writes(device)? - before) as f64 / began.elapsed().as_secs_f64();
                ensure!(load.is_running()?, "fio ended too soon");
                Ok(Speed { mean, median: None })
            }
        }
    }
}

/// Speeds with the tracer off and on, in pairs.
#[derive(Default)]
struct Ratios {
    off: Vec<f64>,
    on: Vec<f64>,
    ratio: Vec<f64>,
}

/// They, in order.
struct Ended {
    off: Spread,
    on: Spread,
    ratio: Spread,
}

impl Ratios {
    /// A slice in which nothing was written says nothing.
    fn add(&mut self, off: f64, on: f64) {
        if off > 0.0 && on > 0.0 {
            self.off.push(off);
            self.on.push(on);
            self.ratio.push(on / off);
        }
    }

    fn end(self) -> Ended {
        Ended { off: Spread::of(self.off), on: Spread::of(self.on), ratio: Spread::of(self.ratio) }
    }
}

impl Ended {
    fn print(&self, name: &str) {
        let (least, most) = self.ratio.interval();
        println!(
            "{name:<12}{:>10.0}{:>10.0}{:>10.0}{:>10.0}{:>12.3}{least:>9.3}{most:>8.3}",
            self.off.middle(),
            self.off.least(),
            self.off.most(),
            self.on.middle(),
            self.ratio.middle()
        );
    }
}

/// Writes that the device has ended so far (Documentation/block/stat.rst).
fn writes(device: &Path) -> Result<u64> {
    let name = device.file_name().context("a device has a name")?;
    let text = fs::read_to_string(Path::new("/sys/class/block").join(name).join("stat"))?;
    Ok(text.split_whitespace().nth(4).context("no such number")?.parse()?)
}

/// A series, ascending.
struct Spread(Vec<f64>);

impl Spread {
    fn of(mut series: Vec<f64>) -> Self {
        series.sort_by(f64::total_cmp);
        Self(series)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn at(&self, place: usize) -> f64 {
        self.0.get(place.min(self.0.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    fn least(&self) -> f64 {
        self.at(0)
    }

    fn middle(&self) -> f64 {
        self.at(self.0.len() / 2)
    }

    fn most(&self) -> f64 {
        self.at(usize::MAX)
    }

    /// Where the median of ever more such values would be, with 95 %: by rank, whatever their distribution.
    fn interval(&self) -> (f64, f64) {
        let (middle, off) = (self.0.len() as f64 / 2.0, 0.98 * (self.0.len() as f64).sqrt());
        (self.at((middle - off).max(0.0).floor() as usize), self.at((middle + off).ceil() as usize))
    }
}
