//! `cargo xtask bench postgresql`: how long commits take around a cut of a cluster under load.
//!
//! pgbench runs throughout. Each round makes a cut in every way, in an order that is turned by one from round to round, so that
//! no way always meets what the same other one left. The latencies are those of all transactions that end from 1 s before the
//! cut is asked for to 4 s after it. Every way that makes the server write a checkpoint pays for it twice: for the writing, and
//! because the first change of each page after it goes to the log as a whole page. So one row is that checkpoint alone, with the
//! bare snapshot after it: nobody who asks for one can be below it.

mod ways;

use crate::bench::postgresql::ways::{Bench, Way};
use crate::bench::statistics::Summary;
use crate::interrupt::Interrupt;
use crate::{house, packages};
use anyhow::Result;
use serde::Serialize;
use serde_json::json;
use std::time::{Duration, SystemTime};
use vss_lab::postgresql::load::Log;

/// Issue: at p99, at most so many times the bare snapshot.
const WANTED_TIMES: f64 = 1.5;
/// Latencies count from so long before the cut is asked for...
const BEFORE: Duration = Duration::from_secs(1);
/// ...to so long after that.
const AFTER: Duration = Duration::from_secs(4);
/// After each cut, what it left is removed and the load goes on for this long before the next.
const REST: Duration = Duration::from_secs(3);

/// Options of the measurement.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many rounds
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Print one JSON document as well
    #[arg(long)]
    json: bool,
}

/// One cut, or the lack of one.
#[derive(Debug, Clone, Copy)]
struct Cut {
    way: Way,
    asked: SystemTime,
    took: Duration,
}

/// What commits came to around the cuts of one way: the middle one of all rounds, and the least and the most.
#[derive(Debug, Clone, Copy, Serialize)]
struct Row {
    way: Way,
    p50: Summary,
    p99: Summary,
    longest: Summary,
    took: Summary,
}

/// True when the p99 of ours is what was wanted.
pub(super) fn run(arguments: &Arguments, interrupt: &Interrupt) -> Result<bool> {
    packages::need(&[packages::BTRFS, packages::POSTGRESQL], interrupt)?;
    let programs = house::build_release(interrupt)?;
    house::need_root("bench postgresql")?;
    let bench = Bench::set_up(&programs, interrupt)?;
    let mut cuts = Vec::new();
    let ways = Way::ALL;
    for round in 0..usize::try_from(arguments.rounds)? {
        for place in 0..ways.len() {
            let way = ways[(round + place) % ways.len()];
            interrupt.sleep(REST + BEFORE)?;
            let asked = SystemTime::now();
            let left = bench.cut(way, interrupt)?;
            let took = asked.elapsed().unwrap_or_default();
            interrupt.sleep(AFTER.saturating_sub(took))?;
            bench.remove(left, interrupt)?;
            cuts.push(Cut { way, asked, took });
        }
        println!("Round {} of {}", round + 1, arguments.rounds);
    }
    let log = bench.tear_down()?;
    let rows = ways.map(|way| Row::of(way, &cuts, &log));
    Ok(report(&rows, arguments))
}

impl Row {
    fn of(way: Way, cuts: &[Cut], log: &Log) -> Self {
        let (mut p50, mut p99, mut longest, mut took) = (vec![], vec![], vec![], vec![]);
        for cut in cuts.iter().filter(|cut| cut.way == way) {
            let transactions = log.between(cut.asked - BEFORE, cut.asked + AFTER);
            let mut latencies: Vec<Duration> = transactions.iter().map(|transaction| transaction.took).collect();
            latencies.sort_unstable();
            // Nearest rank.
            let at = |hundredths: usize| {
                let rank = (latencies.len() * hundredths).div_ceil(100).max(1);
                latencies.get(rank - 1).copied().unwrap_or_default()
            };
            p50.push(at(50));
            p99.push(at(99));
            longest.push(at(100));
            took.push(cut.took);
        }
        let [p50, p99, longest, took] = [p50, p99, longest, took].map(|series| Summary::of(&series));
        Self { way, p50, p99, longest, took }
    }
}

fn report(rows: &[Row], arguments: &Arguments) -> bool {
    let rounds = arguments.rounds;
    println!(
        "\ncommits from 1 s before to 4 s after the cut is asked for, ms: median of {rounds} rounds (least to most)"
    );
    println!("{:<34}{:>22}{:>24}{:>26}{:>24}", "", "p50", "p99", "longest", "the cut itself");
    for row in rows {
        let cell = |summary: &Summary| format!("{:.1} ({:.1} to {:.1})", summary.p50, summary.least, summary.most);
        let [p50, p99, longest, took] = [&row.p50, &row.p99, &row.longest, &row.took].map(cell);
        println!("{:<34}{p50:>22}{p99:>24}{longest:>26}{took:>24}", row.way.name());
    }
    let p99 = |way: Way| rows.iter().find(|row| row.way == way).map_or(f64::NAN, |row| row.p99.p50);
    let ours = p99(Way::VssCreate);
    let others = [Way::None, Way::Snapshot, Way::Script].map(p99);
    let best = others.into_iter().fold(f64::INFINITY, f64::min);
    let times = ours / p99(Way::Snapshot);
    let (best_met, times_met) = (ours <= best, times <= WANTED_TIMES);
    let word = |met| if met { "met" } else { "MISSED" };
    println!(
        "p99 of vss create is {ours:.1} ms; wanted no more than the best of the others, {best:.1}: {}",
        word(best_met)
    );
    println!("that is {times:.2} times the bare snapshot; wanted at most {WANTED_TIMES}: {}", word(times_met));
    let bound = p99(Way::Checkpoint);
    println!(
        "a checkpoint and the bare snapshot: {bound:.1} ms, {:.2} times; the pg_backup_start script: {:.2} times",
        bound / p99(Way::Snapshot),
        p99(Way::Script) / p99(Way::Snapshot)
    );
    if arguments.json {
        println!("{}", json!({"rounds": rounds, "ways": rows}));
    }
    best_met && times_met
}
