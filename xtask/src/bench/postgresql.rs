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

/// What commits came to around the cuts of one way: over all rounds.
#[derive(Debug, Clone, Serialize)]
struct Row {
    way: Way,
    p50: Summary,
    p99: Summary,
    longest: Summary,
    took: Summary,
    /// Round by round.
    #[serde(skip)]
    p99_of_rounds: Vec<Duration>,
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
        let p99_of_rounds = p99.clone();
        let [p50, p99, longest, took] = [p50, p99, longest, took].map(|series| Summary::of(&series));
        Self { way, p50, p99, longest, took, p99_of_rounds }
    }
}

fn report(rows: &[Row; Way::ALL.len()], arguments: &Arguments) -> bool {
    let rounds = arguments.rounds;
    println!(
        "\ncommits from 1 s before to 4 s after the cut is asked for, ms: median of {rounds} rounds (least..most)"
    );
    println!("{:<22}{:>18}{:>20}{:>18}{:>20}", "", "p50", "p99", "longest", "the cut itself");
    for row in rows {
        let fine = |of: &Summary| format!("{:.1} ({:.1}..{:.1})", of.p50, of.least, of.most);
        let coarse = |of: &Summary| format!("{:.0} ({:.0}..{:.0})", of.p50, of.least, of.most);
        let ([p50, p99], [longest, took]) = ([&row.p50, &row.p99].map(fine), [&row.longest, &row.took].map(coarse));
        println!("{:<22}{p50:>18}{p99:>20}{longest:>18}{took:>20}", row.way.name());
    }
    let [none, snapshot, checkpoint, script, ours] = rows;
    let best = [none, snapshot, script].into_iter().min_by(|one, other| one.p99.p50.total_cmp(&other.p99.p50));
    let best = best.unwrap_or(snapshot);
    let above = ours.p99_of_rounds.iter().zip(&best.p99_of_rounds).filter(|(ours, best)| ours > best).count();
    let too_often = more_than_chance(ours.p99_of_rounds.len());
    let times = |row: &Row| row.p99.p50 / snapshot.p99.p50;
    let (best_met, times_met) = (above < too_often, times(ours) <= WANTED_TIMES);
    let word = |met| if met { "met" } else { "MISSED" };
    println!(
        "p99 of vss create is {:.1} ms, of the best other ({}) {:.1}; above it in {above} of {rounds} rounds, from \
         {too_often} on it would be more than chance; wanted no worse: {}",
        ours.p99.p50,
        best.way.name(),
        best.p99.p50,
        word(best_met)
    );
    println!("p99 is {:.2} times the bare snapshot's; wanted at most {WANTED_TIMES}: {}", times(ours), word(times_met));
    println!(
        "(a checkpoint and a bare snapshot {:.2} times, the script {:.2} times)",
        times(checkpoint),
        times(script)
    );
    if arguments.json {
        println!("{}", json!({"rounds": rounds, "ways": rows}));
    }
    best_met && times_met
}

/// In how many of `rounds` one of two equal ways is above the other by chance in at most 1 of 20 runs (sign test); more than
/// `rounds` when no number is so rare.
fn more_than_chance(rounds: usize) -> usize {
    let mut tail = 0.0;
    // From the rarest on: the chance of exactly `above` is (rounds over above) / 2^rounds.
    let mut chance = 0.5f64.powi(i32::try_from(rounds).unwrap_or(i32::MAX));
    for above in (0..=rounds).rev() {
        tail += chance;
        if tail > 0.05 {
            return above + 1;
        }
        #[expect(clippy::cast_precision_loss, reason = "rounds are few")]
        let ratio = above as f64 / (rounds - above + 1) as f64;
        chance *= ratio;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_that_of_a_coin() {
        // 9 heads of 9: 1 in 512; 8 or more: 10 in 512; 7 or more: 46 in 512. Of 4, 4 heads are 1 in 16.
        assert_eq!([9, 4, 5, 20].map(more_than_chance), [8, 5, 5, 15]);
    }
}
