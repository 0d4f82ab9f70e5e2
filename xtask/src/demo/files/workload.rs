//! The program that keeps writing: number n to the first file, row n to the database, n to the last file, each made durable
//! before the next. So at every instant `last <= database <= first <= last + 1`, and a copy in which this does not hold was
//! not made at one instant.

use crate::interrupt::{Interrupt, end};
use anyhow::{Context, Result};
use clap::Args;
use rusqlite::Connection;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use vss_linux::process::PidFd;

/// The hidden subcommand of xtask that is the program.
pub(crate) const SUBCOMMAND: &str = "demo-workload";
/// The file that is written first in each step, and that a copy in the order of names reads first.
pub(super) const FIRST: &str = "a-first";
/// The database.
pub(super) const DATABASE: &str = "database.sqlite";
/// The file that is written last in each step.
pub(super) const LAST: &str = "z-last";

/// Each step makes so many durable writes.
const WRITES_PER_STEP: u64 = 3;
/// How often the program reports.
const REPORT: Duration = Duration::from_millis(20);

/// Arguments of the program.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where it writes
    directory: PathBuf,
}

/// The program: writes until it is killed, and reports on standard output `STEPS LONGEST`: steps done so far, and the
/// longest step since the last report in microseconds.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut writer = StepWriter::create(&arguments.directory)?;
    let mut output = std::io::stdout();
    let (mut reported, mut longest) = (Instant::now(), Duration::ZERO);
    for step in 1.. {
        let began = Instant::now();
        writer.step(step)?;
        longest = longest.max(began.elapsed());
        if reported.elapsed() >= REPORT {
            writeln!(output, "{step} {}", longest.as_micros())?;
            (reported, longest) = (Instant::now(), Duration::ZERO);
        }
    }
    Ok(())
}

/// Two files and a database.
#[derive(Debug)]
struct StepWriter {
    first: File,
    database: Connection,
    last: File,
}

impl StepWriter {
    fn create(directory: &Path) -> Result<Self> {
        let first = File::create_new(directory.join(FIRST))?;
        let database = Connection::open(directory.join(DATABASE))?;
        database.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE step (n INTEGER PRIMARY KEY, square INTEGER NOT NULL);",
        )?;
        Ok(Self { first, database, last: File::create_new(directory.join(LAST))? })
    }

    fn step(&mut self, step: u64) -> Result<()> {
        write_number(&self.first, step)?;
        self.database
            .prepare_cached("INSERT INTO step (n, square) VALUES (?1, ?1 * ?1)")?
            .execute([i64::try_from(step)?])?;
        write_number(&self.last, step)
    }
}

/// Twenty digits hold every u64, so that each write replaces the whole file.
fn write_number(file: &File, number: u64) -> Result<()> {
    file.write_all_at(format!("{number:020}\n").as_bytes(), 0)?;
    Ok(file.sync_all()?)
}

/// How the program went on for a while.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pace {
    /// Durable writes a second.
    pub(super) per_second: f64,
    /// The longest step: three writes.
    pub(super) longest: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Report {
    at: Instant,
    steps: u64,
    longest: Duration,
}

/// The running program. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Workload {
    child: Child,
    pidfd: PidFd,
    reports: Arc<Mutex<Vec<Report>>>,
}

impl Workload {
    /// Starts the program in `directory` and waits for its first report.
    pub(super) fn start(directory: &Path, interrupt: &Interrupt) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = interrupt.spawn(command.arg(SUBCOMMAND).arg(directory).stdout(Stdio::piped()))?;
        let output = child.stdout.take().context("its standard output was asked for")?;
        let reports = Arc::new(Mutex::new(Vec::new()));
        let theirs = Arc::clone(&reports);
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(report) = parse(&line) {
                    theirs.lock().unwrap_or_else(PoisonError::into_inner).push(report);
                }
            }
        });
        let workload = Self { pidfd: PidFd::open(child.id())?, child, reports };
        while workload.reports().is_empty() {
            anyhow::ensure!(!workload.pidfd.is_gone(), "the program that writes has ended");
            interrupt.sleep(REPORT)?;
        }
        Ok(workload)
    }

    /// Its pace in the `time` from now.
    pub(super) fn watch(&self, time: Duration, interrupt: &Interrupt) -> Result<Pace> {
        let began = Instant::now();
        interrupt.sleep(time)?;
        self.since(began)
    }

    /// Its pace from `began` to now.
    pub(super) fn since(&self, began: Instant) -> Result<Pace> {
        anyhow::ensure!(!self.pidfd.is_gone(), "the program that writes has ended");
        pace(&self.reports(), began).context("the program that writes has reported nothing")
    }

    fn reports(&self) -> Vec<Report> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it.
    pub(super) fn stop(mut self) -> Result<()> {
        end(&mut self.child, &self.pidfd)?;
        Ok(())
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        // It has ended already after `stop`.
        let _ = end(&mut self.child, &self.pidfd);
    }
}

fn parse(line: &str) -> Option<Report> {
    let (steps, longest) = line.split_once(' ')?;
    let longest = Duration::from_micros(longest.parse().ok()?);
    Some(Report { at: Instant::now(), steps: steps.parse().ok()?, longest })
}

fn pace(reports: &[Report], began: Instant) -> Option<Pace> {
    let seen = reports.get(reports.partition_point(|report| report.at < began)..)?;
    let (first, last) = (seen.first()?, seen.last()?);
    let seconds = last.at.duration_since(first.at).as_secs_f64();
    if seconds == 0.0 {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "steps of a minute are far below 2^52")]
    let writes = ((last.steps - first.steps) * WRITES_PER_STEP) as f64;
    Some(Pace { per_second: writes / seconds, longest: seen.iter().map(|report| report.longest).max()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_counts_from_the_first_report_in_the_time() {
        let began = Instant::now();
        let at = |ms, steps, longest| Report {
            at: began + Duration::from_millis(ms),
            steps,
            longest: Duration::from_millis(longest),
        };
        let reports = [at(0, 1000, 90), at(1000, 2000, 5), at(3000, 2100, 40)];
        let pace = pace(&reports, began + Duration::from_millis(500)).unwrap();
        assert_eq!(pace, Pace { per_second: 150.0, longest: Duration::from_millis(40) });
        assert!(super::pace(&reports, began + Duration::from_secs(5)).is_none());
    }
}
