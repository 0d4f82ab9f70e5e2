//! First copies beside dd(1) on the same device, how much of it they read, and second copies after 1 % was changed.
//!
//! A round reads past the page cache and writes past it, so `dd iflag=direct oflag=direct` of as many bytes to the same place is
//! its peer. A dd through the page cache of the place may end before anything is written, and one to /dev/null writes nothing:
//! both are told, and neither is a copy.
//!
//! The second copy's peer reads and writes as many single blocks and does nothing else ([`Blocks`]): what the copy takes beyond
//! it is what there is to be won, and the slower of reading and writing is what bounds both.
//!
//! What the one before left to be written is on disk before the next begins.

use super::blocks::{Blocks, Took};
use super::scene::{CHANGED_MIB, STILL_MIB, Scene};
use super::word;
use crate::bench::statistics::Summary;
use crate::interrupt::Interrupt;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Issue: of dd's rate.
const WANTED_RATE: f64 = 0.85;
/// Issue: of a first copy's time.
const WANTED_SECOND: f64 = 0.05;
/// Where dd writes to.
#[derive(Clone, Copy)]
enum To {
    /// To the place of the images, past its page cache.
    Storage,
    /// There, through its page cache.
    Cached,
    Nowhere,
}

impl To {
    const ALL: [Self; 3] = [Self::Storage, Self::Cached, Self::Nowhere];

    /// What dd is told besides what it reads.
    fn shown(self) -> &'static str {
        match self {
            Self::Storage => "dd iflag=direct oflag=direct to the place",
            Self::Cached => "dd iflag=direct to the place, cached",
            Self::Nowhere => "dd iflag=direct of=/dev/null",
        }
    }
}

/// Measures, and prints the table.
pub(super) fn run(scene: &Scene, pairs: u32, interrupt: &Interrupt) -> Result<(bool, Value)> {
    let (mut by_dd, mut copied, mut of_dd) = ([const { Vec::new() }; 3], Vec::new(), [const { Vec::new() }; 3]);
    let (mut beyond, mut firsts, mut seconds, mut ratios) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut alone, mut of_alone, mut alone_of_first) = (Vec::new(), Vec::new(), Vec::new());
    let blocks = Blocks::make(scene, interrupt)?;
    for pair in 0..pairs {
        scene.forget(interrupt)?;
        let in_use = in_use(scene)?;
        let dds = || To::ALL.iter().map(|to| dd(scene, *to, in_use, interrupt)).collect::<Result<Vec<_>>>();
        let before = if pair % 2 == 0 { Some(dds()?) } else { None };
        settle(scene)?;
        let counted = scene.sectors(2)?;
        let first = scene.copy(interrupt)?;
        beyond.push((scene.sectors(2)? - counted) as f64 * 512.0 / in_use as f64 - 1.0);
        let rate = first.first_round.and_then(|round| round.copy_rate).context("the first round said no rate")? as f64;
        copied.push(rate);
        let measured = before.map_or_else(dds, Ok)?;
        for ((series, of), measured) in by_dd.iter_mut().zip(&mut of_dd).zip(measured) {
            series.push(measured);
            of.push(rate / measured);
        }
        change(scene, interrupt)?;
        let peer = || blocks.run(|| settle(scene));
        let before = if pair % 2 == 0 { Some(peer()?) } else { None };
        settle(scene)?;
        let second = scene.copy(interrupt)?;
        let measured = before.map_or_else(peer, Ok)?;
        let of = |one: Duration, other: Duration| one.as_secs_f64() / other.as_secs_f64();
        ratios.push(of(second.took, first.took));
        of_alone.push(of(second.took, measured.copied));
        alone_of_first.push(of(measured.copied, first.took));
        alone.push(measured);
        firsts.push(first.took);
        seconds.push(second.took);
    }
    let [beyond, ratios, of_alone, alone_of_first] = [beyond, ratios, of_alone, alone_of_first].map(Spread::of);
    let (by_dd, of_dd) = (by_dd.map(Spread::of), of_dd.map(Spread::of));
    println!("{:<44}{:>9}{:>9}{:>9}   {pairs} pairs", "", "p50", "least", "most");
    let megabytes = |spread: &Spread| spread.scaled(1e-6).text(0);
    println!("{:<44}{}", "round one, MB/s", megabytes(&Spread::of(copied)));
    for ((to, rate), of) in To::ALL.iter().zip(&by_dd).zip(&of_dd) {
        println!("{:<44}{}", to.shown(), megabytes(rate));
        println!("{:<44}{}", "  round one of it", of.text(3));
    }
    println!("{:<44}{}", "read beyond what is in use, of it", beyond.text(4));
    let of_peer = |part: fn(&Took) -> Duration| alone.iter().map(part).collect::<Vec<_>>();
    let peers = [
        ("as many blocks read, ms", of_peer(|took| took.read)),
        ("as many blocks written, ms", of_peer(|took| took.written)),
        ("as many blocks read and written, ms", of_peer(|took| took.copied)),
        ("  and on disk", of_peer(|took| took.on_disk)),
    ];
    let milliseconds = |name: &str, series: &[Duration]| {
        let Summary { p50, least, most, .. } = Summary::of(series);
        println!("{name:<44}{}", Spread { middle: p50, least, most }.text(0));
    };
    milliseconds("first copy, ms", &firsts);
    milliseconds("after 1 % was changed, ms", &seconds);
    println!("{:<44}{}", "  of the first", ratios.text(4));
    for (name, series) in &peers {
        milliseconds(name, series);
    }
    println!("{:<44}{}", "  the copy of reading and writing", of_alone.text(3));
    let [rates, cached, read] = of_dd;
    let (is_fast, is_short) = (rates.middle >= WANTED_RATE, ratios.middle < WANTED_SECOND);
    println!("round one: {:.3} of a dd that copies; wanted at least {WANTED_RATE}: {}", rates.middle, word(is_fast));
    println!(
        "second copy: {:.4} of the first, its blocks alone {:.4}; wanted less than {WANTED_SECOND}: {}",
        ratios.middle,
        alone_of_first.middle,
        word(is_short)
    );
    let [read_ms, written_ms, copied_ms, on_disk_ms] = peers.map(|(_, series)| Summary::of(&series));
    let row = json!({"rate_of_dd": rates.json(), "rate_of_dd_cached": cached.json(), "rate_of_dd_to_null": read.json(),
        "beyond": beyond.json(), "first_ms": Summary::of(&firsts), "second_ms": Summary::of(&seconds),
        "second_of_first": ratios.json(), "blocks_read_ms": read_ms, "blocks_written_ms": written_ms,
        "blocks_ms": copied_ms, "blocks_on_disk_ms": on_disk_ms, "second_of_blocks": of_alone.json()});
    Ok((is_fast && is_short, row))
}

/// Everything that the file system does not call free, its own tables included.
fn in_use(scene: &Scene) -> Result<u64> {
    let space = rustix::fs::statfs(scene.volume().path())?;
    let size: u64 = fs::read_to_string(scene.size_file()?)?.trim().parse::<u64>()? * 512;
    Ok(size - space.f_bfree * u64::try_from(space.f_bsize)?)
}

/// Waits until nothing is left to be written, of the volume and of the place.
fn settle(scene: &Scene) -> Result<()> {
    scene.volume().settle()?;
    scene.storage().settle()
}

/// Bytes a second that dd copies of so many.
fn dd(scene: &Scene, to: To, bytes: u64, interrupt: &Interrupt) -> Result<f64> {
    settle(scene)?;
    let mebibytes = bytes >> 20;
    let mut command = Command::new("dd");
    command.args(["bs=1M", "iflag=direct", "status=none"]).arg(format!("count={mebibytes}"));
    command.arg(format!("if={}", scene.volume().device().display()));
    let file = scene.storage().path().join("dd");
    match to {
        To::Storage => command.arg(format!("of={}", file.display())).arg("oflag=direct"),
        To::Cached => command.arg(format!("of={}", file.display())),
        To::Nowhere => command.arg("of=/dev/null"),
    };
    let began = Instant::now();
    interrupt.check(&mut command)?;
    let took = began.elapsed();
    if file.exists() {
        fs::remove_file(file)?;
    }
    Ok((mebibytes << 20) as f64 / took.as_secs_f64())
}

/// Writes one hundredth of the volume again, in blocks of 4 KiB.
fn change(scene: &Scene, interrupt: &Interrupt) -> Result<()> {
    let mut fio = Scene::fio(&scene.still(), STILL_MIB);
    fio.args(["--rw=randwrite", "--bs=4k", "--ioengine=libaio", "--iodepth=16"]);
    interrupt.check(fio.arg(format!("--io_size={CHANGED_MIB}M")).stdout(Stdio::null()))?;
    scene.volume().settle()
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

    fn scaled(&self, by: f64) -> Self {
        Self { middle: self.middle * by, least: self.least * by, most: self.most * by }
    }

    fn text(&self, digits: usize) -> String {
        format!("{:>9.digits$}{:>9.digits$}{:>9.digits$}", self.middle, self.least, self.most)
    }

    fn json(&self) -> Value {
        json!({"p50": self.middle, "least": self.least, "most": self.most})
    }
}
