//! `cargo xtask conformance`: the contract of VSS row by row, each shown by a test over the wire, and the proof that the tests
//! can fail: what a row is about is left out of the service (`vss-service::fault`, `VSS_OFF`), and its test must turn red.

use crate::interrupt::{Ended, Interrupt};
use crate::packages::{self, BTRFS};
use crate::test::build::{Built, Test, build};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::process::Command;
use std::time::Duration;

/// The file of the tests.
const TARGET: &str = "conformance";
/// Longest time of the whole table.
const LIMIT: Duration = Duration::from_secs(900);
/// Longest time of one test with something left out.
const MUTATION_LIMIT: Duration = Duration::from_secs(120);
/// What names the thing that the service leaves out.
const OFF: &str = "VSS_OFF";
/// So many mutations are tried when nothing is said: the first of the list.
const SAMPLE: usize = 6;
/// The only reasons for a row without a test.
const REASONS: [&str; 2] = ["restore", "Windows only"];

/// What is left out, and the row that must notice.
const MUTATIONS: [(&str, &str); 40] = [
    ("order", "r_1_8_order::set_context_out_of_order"),
    ("words", "r_4_backup_types::stamp_hand_over"),
    ("exclude", "p_3_contexts::exclude_files_from_snapshot"),
    ("silence", "r_2_writers::not_selected_is_silent"),
    ("auto_release", "r_1_2_asynchronous::requester_death_deletes_auto_release_copies"),
    ("strict", "r_2_writers::strict"),
    ("filter", "r_2_writers::who_takes_part"),
    ("limits", "r_1_2_asynchronous::restore_sessions_are_limited"),
    ("cancel", "r_1_2_asynchronous::cancel_and_its_answers"),
    ("numbers", "r_1_2_asynchronous::query_status_numbers"),
    ("levels", "r_2_writers::freeze_order"),
    ("data", "r_3_components::what_writers_say"),
    ("window", "r_3_components::write_window"),
    ("partial", "r_3_components::partial_files_need_support"),
    ("schema", "r_4_backup_types::differenced_files_need_the_schema"),
    ("components", "r_2_writers::partial_failure"),
    ("attributes", "p_3_contexts::bits_are_kept"),
    ("count", "p_4_objects::snapshots_count_stays"),
    ("no_autorecovery", "p_3_contexts::no_autorecovery"),
    ("query", "p_4_objects::query_by_context"),
    ("property", "p_4_objects::set_snapshot_property"),
    ("abort_all", "r_1_2_asynchronous::abort_all_snapshots_in_progress"),
    ("abort", "r_1_2_asynchronous::abort_backup"),
    ("shutdown", "r_1_2_asynchronous::requester_death_tells_writers"),
    ("context", "p_3_contexts::client_accessible_needs_the_system_provider"),
    ("kind", "p_3_contexts::differential_and_plex"),
    ("words", "r_3_components::backup_options"),
    ("inside", "r_3_components::partial_files_in_file_sets"),
    ("exposable", "p_4_objects::expose_of_what_goes_with_its_session"),
    ("rights", "r_10_errors::e_accessdenied"),
    ("integrity", "r_10_errors::corrupt_xml_document"),
    ("integrity", "r_10_errors::invalid_xml_document"),
    ("copies", "r_10_volumes::maximum_number_of_snapshots"),
    ("remote", "r_10_volumes::volume_not_local"),
    ("contract", "r_10_creation::unexpected_provider_error"),
    ("lost", "r_10_creation::hold_writes_timeout"),
    ("garbled", "r_10_writers::unexpected_writer_error"),
    ("infrastructure", "r_10_writers::writer_infrastructure"),
    ("reverts", "r_10_errors::revert_in_progress"),
    ("busy", "r_10_writers::writer_status_not_available"),
];

/// Options of the task.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Try every mutation instead of a sample
    #[arg(long)]
    all: bool,
}

/// What became of one row.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Pass,
    Fail,
    Skip(String),
}

/// True when every row passes or has a good reason, and every mutation is noticed.
pub(crate) fn run(arguments: &Arguments, interrupt: &Interrupt) -> Result<bool> {
    packages::need(&[BTRFS], interrupt)?;
    let built: Built = build(interrupt)?;
    let test = built.tests.iter().find(|test| test.is_house(TARGET)).context("there is no conformance suite")?;
    let log = run_test(test, &["--show-output"], None, LIMIT, interrupt)?.1;
    let rows = rows(&log);
    ensure!(!rows.is_empty(), "the suite did not run:\n{log}");
    for (name, outcome) in &rows {
        println!("{:<62}{}", row(name), words(outcome));
    }
    let count = |wanted: fn(&Outcome) -> bool| rows.values().filter(|outcome| wanted(outcome)).count();
    let failed = count(|outcome| *outcome == Outcome::Fail);
    let skipped = count(|outcome| matches!(outcome, Outcome::Skip(_)));
    println!("\n{} rows: {} pass, {failed} fail, {skipped} skipped", rows.len(), rows.len() - failed - skipped);
    let strange =
        rows.values().any(|outcome| matches!(outcome, Outcome::Skip(why) if !REASONS.contains(&why.as_str())));
    if strange {
        println!("a row may only be skipped for: {}", REASONS.join(", "));
    }
    if failed > 0 {
        println!("{log}");
    }
    let noticed = mutate(test, if arguments.all { MUTATIONS.len() } else { SAMPLE }, interrupt)?;
    Ok(failed == 0 && !strange && noticed)
}

/// Leaves one thing after another out, and runs its row.
fn mutate(test: &Test, how_many: usize, interrupt: &Interrupt) -> Result<bool> {
    println!("\n{how_many} of {} mutations: a part of the service is left out, its row must fail", MUTATIONS.len());
    let mut all = true;
    for (off, name) in &MUTATIONS[..how_many] {
        let (ended, said) = run_test(test, &["--exact", name], Some(off), MUTATION_LIMIT, interrupt)?;
        // A test that is not there would not fail either.
        let noticed = matches!(ended, Ended::With(status) if !status.success()) && said.contains("0 passed; 1 failed");
        all &= noticed;
        println!("without {off:<18}{:<62}{}", row(name), if noticed { "red" } else { "NOT NOTICED" });
    }
    Ok(all)
}

fn run_test(
    test: &Test,
    arguments: &[&str],
    off: Option<&str>,
    limit: Duration,
    interrupt: &Interrupt,
) -> Result<(Ended, String)> {
    let log = tempfile::NamedTempFile::new()?;
    let mut command = Command::new(&test.executable);
    command.args(arguments).current_dir(&test.directory).env("CARGO_MANIFEST_DIR", &test.directory);
    command.env("RUST_BACKTRACE", "0").envs(off.map(|off| (OFF, off)));
    let ended = interrupt.run_within(&mut command, &File::create(log.path())?, limit)?;
    Ok((ended, String::from_utf8_lossy(&fs::read(log.path())?).into_owned()))
}

/// The rows in what the tests' program printed.
fn rows(log: &str) -> BTreeMap<String, Outcome> {
    let mut rows = BTreeMap::new();
    for line in log.lines() {
        if let Some((name, outcome)) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... ")) {
            let outcome = if outcome == "ok" { Outcome::Pass } else { Outcome::Fail };
            rows.entry(name.to_owned()).or_insert(outcome);
        }
    }
    for line in log.lines() {
        if let Some((name, why)) = line.strip_prefix("SKIPPED: ").and_then(|line| line.split_once(": ")) {
            rows.insert(name.to_owned(), Outcome::Skip(why.to_owned()));
        }
    }
    rows
}

/// A test's name as a row: `r_1_8_order::second_initialize` is `R 1.8  second initialize`.
fn row(name: &str) -> String {
    let (module, test) = name.split_once("::").unwrap_or(("", name));
    let mut parts = module.split('_');
    let sheet = parts.next().unwrap_or_default().to_uppercase();
    let numbers: Vec<&str> = parts.take_while(|part| part.parse::<u32>().is_ok()).collect();
    format!("{:<8}{}", format!("{sheet} {}", numbers.join(".")), test.replace('_', " "))
}

fn words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Pass => "pass".to_owned(),
        Outcome::Fail => "FAIL".to_owned(),
        Outcome::Skip(why) => format!("skip ({why})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_from_what_tests_print() {
        let log = "test r_1_8_order::second ... ok\ntest r_2_writers::x ... FAILED\ntest r_3_components::y ... ok\n\
            ---- r_3_components::y stdout ----\nSKIPPED: r_3_components::y: restore\n";
        let rows = rows(log);
        assert_eq!(rows["r_1_8_order::second"], Outcome::Pass);
        assert_eq!(rows["r_2_writers::x"], Outcome::Fail);
        assert_eq!(rows["r_3_components::y"], Outcome::Skip("restore".to_owned()));
        assert_eq!(row("r_1_8_order::second_initialize"), "R 1.8   second initialize");
        assert_eq!(row("p_4_objects::delete"), "P 4     delete");
    }
}
