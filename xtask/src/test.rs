//! `cargo xtask test`: everything that can be checked here, part by part, and a table of what was passed and skipped.
//!
//! All tests are built once, with the faults of `vss-service::fault` compiled in, and run here without cargo: so a part
//! can have a limit, and what it skips can be found.

pub(crate) mod build;
mod part;
pub(crate) mod report;
mod units;
mod vm;

use crate::house::{self, Metadata};
use crate::interrupt::Interrupt;
use crate::python::VarlinkClient;
use crate::test::build::{Built, build};
use crate::test::part::{Check, Part, parts};
use crate::test::report::Report;
use crate::{fuzz, packages, rules};
use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Longest time of a part; what runs longer is killed and has failed.
const LIMIT: Duration = Duration::from_secs(300);
/// The same for a part at its full numbers.
const SOAK_LIMIT: Duration = Duration::from_secs(6 * 3600);
/// How long each target is fuzzed.
const FUZZ_SECONDS: u32 = 60;
/// The same in a soak.
const FUZZ_SOAK_SECONDS: u32 = 3600;
/// Tells the tests to run at their full numbers (`vss_tests::scale`).
const SOAK: &str = "VSS_SOAK";
/// Most of a log that is printed when its part failed.
const PRINTED: usize = 64 << 10;

/// Options of the task.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Run only these parts [default: all]
    #[arg(value_name = "PART")]
    parts: Vec<String>,
    /// Run only what runs in virtual machines
    #[arg(long, conflicts_with = "parts")]
    vm: bool,
    /// List the parts
    #[arg(long)]
    list: bool,
}

/// Options of `cargo xtask soak`.
#[derive(Debug, clap::Args)]
pub(crate) struct SoakArguments {
    /// The parts of `cargo xtask test` to run at their full numbers
    #[arg(value_name = "PART", required = true)]
    parts: Vec<String>,
}

/// True when everything passed.
pub(crate) fn run(arguments: &Arguments, interrupt: &Interrupt) -> Result<bool> {
    let metadata = house::metadata()?;
    let names = if arguments.vm { &vec![vm::TARGET.to_owned()] } else { &arguments.parts };
    let parts = chosen(parts(&metadata)?, names)?;
    if arguments.list {
        parts.iter().for_each(|part| println!("{:<16}{}", part.name, part.what));
        return Ok(true);
    }
    run_parts(&metadata, &parts, &Pace { limit: LIMIT, is_soak: false }, interrupt)
}

/// `cargo xtask soak`: the same parts, doing all that was promised to be shown instead of what fits into every day.
pub(crate) fn soak(arguments: &SoakArguments, interrupt: &Interrupt) -> Result<bool> {
    let metadata = house::metadata()?;
    let parts = chosen(parts(&metadata)?, &arguments.parts)?;
    run_parts(&metadata, &parts, &Pace { limit: SOAK_LIMIT, is_soak: true }, interrupt)
}

/// How much the tests do, and how long they may take.
struct Pace {
    limit: Duration,
    is_soak: bool,
}

fn run_parts(metadata: &Metadata, parts: &[Part], pace: &Pace, interrupt: &Interrupt) -> Result<bool> {
    use packages::{BTRFS, EXT4, FIO, POSTGRESQL, PYTHON, RESTIC, RSYNC, STRACE, STRESS, SYSTEMD, XFS};
    packages::need(&[BTRFS, XFS, EXT4, FIO, STRESS, RESTIC, RSYNC, STRACE, PYTHON, SYSTEMD, POSTGRESQL], interrupt)?;
    if std::env::var_os("VSS_TESTDATA").is_none() {
        println!("VSS_TESTDATA is not set: tests that read documents made by Windows are skipped");
    }
    let started = Instant::now();
    let built = if parts.iter().any(Part::needs_build) { Some(build(interrupt)?) } else { None };
    if built.is_some() {
        println!("Built in {} s", started.elapsed().as_secs());
    }
    let wants_client = parts.iter().any(|part| part.name == "varlink_clients");
    let client = if wants_client { varlink_client(interrupt)? } else { None };
    let mut reports = Vec::new();
    for part in parts {
        println!("== {}: {}", part.name, part.what);
        let report = Task { metadata, built: built.as_ref(), client: client.as_ref(), pace, interrupt }.run(part)?;
        println!("   {}", report.line());
        reports.push(report);
    }
    print!("\n{}", report::table(&reports, started.elapsed()));
    Ok(reports.iter().all(Report::passed))
}

fn chosen(parts: Vec<Part>, names: &[String]) -> Result<Vec<Part>> {
    if let Some(name) = names.iter().find(|name| parts.iter().all(|part| part.name != **name)) {
        let known: Vec<_> = parts.iter().map(|part| part.name.as_str()).collect();
        anyhow::bail!("there is no part {name}; there are {}", known.join(", "));
    }
    Ok(parts.into_iter().filter(|part| names.is_empty() || names.contains(&part.name)).collect())
}

/// What running a part takes.
struct Task<'a> {
    metadata: &'a Metadata,
    built: Option<&'a Built>,
    pace: &'a Pace,
    client: Option<&'a VarlinkClient>,
    interrupt: &'a Interrupt,
}

impl Task<'_> {
    fn run(&self, part: &Part) -> Result<Report> {
        let began = Instant::now();
        let mut report = Report::new(&part.name);
        match &part.check {
            Check::Cargo(arguments) => self.cargo(arguments, &mut report)?,
            Check::Rules => {
                let broken = rules::broken()?;
                broken.iter().for_each(|rule| println!("   {rule}"));
                report.count(broken.is_empty());
            }
            Check::Fuzz => {
                let seconds = if self.pace.is_soak { FUZZ_SOAK_SECONDS } else { FUZZ_SECONDS };
                fuzz::check(seconds, &mut report, self.interrupt)?;
            }
            Check::Units => units::verify(self.metadata, self.interrupt, &mut report)?,
            Check::Guests => {
                let built = self.built.context("the tests are built for every part that has some")?;
                vm::run(built, self.interrupt, &mut report)?;
            }
            Check::Tests(selection) => {
                let built = self.built.context("the tests are built for every part that has some")?;
                for test in built.tests.iter().filter(|test| selection.has(test)) {
                    let left = self.pace.limit.saturating_sub(began.elapsed());
                    let mut command = Command::new(&test.executable);
                    command
                        .arg("--show-output")
                        .current_dir(&test.directory)
                        .env("CARGO_MANIFEST_DIR", &test.directory)
                        .envs(self.client.map(|client| ("VARLINK_PYTHON", client.interpreter())));
                    if self.pace.is_soak {
                        command.env(SOAK, "1");
                    }
                    self.logged(&mut command, &test.name, left, &mut report)?;
                }
            }
        }
        report.took = began.elapsed();
        Ok(report)
    }

    /// A cargo command; its success is one test passed, unless it runs tests itself.
    fn cargo(&self, arguments: &[&str], report: &mut Report) -> Result<()> {
        let (subcommand, name) = (arguments[0], arguments.join(" "));
        if !has_subcommand(subcommand) {
            report.skip(subcommand, &format!("cargo {subcommand} is not installed"));
            return Ok(());
        }
        let mut command = house::cargo();
        self.logged(command.args(arguments), &name, self.pace.limit, report)
    }

    /// Runs a command within `limit`, its output going to a log, and counts what it says.
    fn logged(&self, command: &mut Command, name: &str, limit: Duration, report: &mut Report) -> Result<()> {
        let path = log_path(name)?;
        let began = Instant::now();
        let ended = self.interrupt.run_within(command, &File::create(&path)?, limit)?;
        let said = fs::read(&path)?;
        let good = report.read(name, ended, &String::from_utf8_lossy(&said));
        println!("   {name}: {} s{}", began.elapsed().as_secs(), if good { "" } else { ": FAILED" });
        if good && self.pace.is_soak {
            // What was counted is what a soak is for.
            print!("{}", String::from_utf8_lossy(&said));
        }
        if !good {
            println!("{}\n   (all of it: {})", tail(&String::from_utf8_lossy(&said)), path.display());
        }
        Ok(())
    }
}

/// Where the log of a check is kept.
pub(crate) fn log_path(name: &str) -> Result<PathBuf> {
    let directory = house::target()?.join("test-logs");
    fs::create_dir_all(&directory)?;
    let file = name.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "_");
    Ok(directory.join(format!("{file}.log")))
}

/// What of a long text is printed: its end.
pub(crate) fn tail(text: &str) -> &str {
    let from = (text.len().saturating_sub(PRINTED)..text.len()).find(|place| text.is_char_boundary(*place));
    &text[from.unwrap_or(text.len())..]
}

/// The Python client of the tests; none, and said, where it cannot be had.
fn varlink_client(interrupt: &Interrupt) -> Result<Option<VarlinkClient>> {
    match VarlinkClient::ensure(&house::target()?, interrupt) {
        Ok(client) => Ok(Some(client)),
        Err(error) => {
            // Not when somebody has pressed Ctrl-C.
            interrupt.sleep(Duration::ZERO)?;
            println!("   the Python package varlink is not there, its tests are skipped: {error:#}");
            Ok(None)
        }
    }
}

/// True when cargo has this subcommand: rustfmt and clippy may be left out of an installation.
fn has_subcommand(name: &str) -> bool {
    matches!(name, "test" | "build")
        || house::cargo().args([name, "--version"]).output().is_ok_and(|output| output.status.success())
}

/// Where the parts come from is checked with them: every package of the workspace is in one.
pub(crate) fn ensure_covered(metadata: &Metadata, parts: &[Part]) -> Result<()> {
    for package in &metadata.packages {
        let named = |part: &&Part| matches!(&part.check, Check::Tests(selection) if selection.has_package(package));
        ensure!(
            parts.iter().any(|part| named(&part)),
            "no part of `cargo xtask test` runs the tests of {}",
            package.name
        );
    }
    Ok(())
}
