//! What came out: counted from what tests print, and the table at the end.

use crate::interrupt::Ended;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// The line of a test that could not run, `SKIPPED: NAME: WHY` (the tests are libtest's, which cannot skip).
const SKIPPED: &str = "SKIPPED: ";

/// What came out of one part.
#[derive(Debug)]
pub(crate) struct Report {
    name: String,
    passed: usize,
    failed: usize,
    /// Why each was skipped, by name.
    skipped: BTreeMap<String, String>,
    /// Its time.
    pub(crate) took: Duration,
}

impl Report {
    /// Of a part that has not begun.
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), passed: 0, failed: 0, skipped: BTreeMap::new(), took: Duration::ZERO }
    }

    /// True when nothing failed.
    pub(crate) fn passed(&self) -> bool {
        self.failed == 0
    }

    /// Counts one check.
    pub(crate) fn count(&mut self, good: bool) {
        if good { self.passed += 1 } else { self.failed += 1 }
    }

    /// Counts one check that could not be made.
    pub(crate) fn skip(&mut self, name: &str, why: &str) {
        self.skipped.insert(name.to_owned(), why.to_owned());
    }

    /// Counts what a run of `name` printed; true when nothing in it failed. One that ran no tests is a check itself.
    pub(crate) fn read(&mut self, name: &str, ended: Ended, text: &str) -> bool {
        let before = self.failed;
        let (mut summaries, mut passed) = (0, 0);
        let skipped = self.skipped.len();
        for line in text.lines() {
            if let Some(counts) = line.strip_prefix("test result: ") {
                summaries += 1;
                passed += count(counts, "passed");
                self.failed += count(counts, "failed");
            } else if let Some(ignored) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... ignored")) {
                self.skip(ignored.0, ignored.1.trim_start_matches([',', ' ']));
                passed += 1;
            } else if let Some((test, why)) =
                line.trim_start().strip_prefix(SKIPPED).and_then(|line| line.split_once(": "))
            {
                self.skip(test, why);
            }
        }
        // A test that skipped itself has passed for libtest.
        self.passed += usize::saturating_sub(passed, self.skipped.len() - skipped);
        match ended {
            Ended::TimedOut => {
                println!("   {name} was killed at the limit of its part");
                self.failed += 1;
            }
            // A crash of the tests' own process leaves no summary.
            Ended::With(status) if !status.success() && self.failed == before => self.failed += 1,
            Ended::With(status) if status.success() && summaries == 0 => self.passed += 1,
            Ended::With(_) => {}
        }
        self.failed == before
    }

    /// One line.
    pub(crate) fn line(&self) -> String {
        let Self { passed, failed, skipped, took, .. } = self;
        format!("{passed} passed, {failed} failed, {} skipped, {:.1} s", skipped.len(), took.as_secs_f64())
    }
}

/// The number before `word` in libtest's summary.
fn count(summary: &str, word: &str) -> usize {
    let before = summary.split(';').find_map(|part| part.trim().strip_suffix(word)).unwrap_or_default();
    before.split_whitespace().last().and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// The table, and below it why what was skipped was.
pub(crate) fn table(reports: &[Report], took: Duration) -> String {
    let mut text = format!("{:<18}{:>8}{:>8}{:>9}{:>9}\n", "part", "passed", "failed", "skipped", "seconds");
    let mut row = |name: &str, passed: usize, failed: usize, skipped: usize, took: Duration| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<18}{passed:>8}{failed:>8}{skipped:>9}{:>9.1}", took.as_secs_f64());
    };
    for report in reports {
        row(&report.name, report.passed, report.failed, report.skipped.len(), report.took);
    }
    let sum = |of: fn(&Report) -> usize| reports.iter().map(of).sum();
    row("all", sum(|report| report.passed), sum(|report| report.failed), sum(|report| report.skipped.len()), took);
    for (test, why) in reports.iter().flat_map(|report| &report.skipped) {
        let _ = writeln!(text, "{SKIPPED}{test}: {why}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    fn read(code: i32, text: &str) -> (usize, usize, usize) {
        let mut report = Report::new("part");
        report.read("test", Ended::With(ExitStatus::from_raw(code << 8)), text);
        (report.passed, report.failed, report.skipped.len())
    }

    #[test]
    fn skipped_and_ignored_tests_are_not_passed() {
        let text = "test a ... ok\ntest c ... ignored, slow\n\n---- b stdout ----\nSKIPPED: b: needs root\n\n\
            test result: ok. 4 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";
        assert_eq!(read(0, text), (3, 0, 2));
    }

    #[test]
    fn a_failure_and_a_crash_are_failures() {
        assert_eq!(
            read(101, "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n"),
            (3, 2, 0)
        );
        assert_eq!(read(134, "test a ... ok\n"), (0, 1, 0));
        assert_eq!(read(1, "error: no\n"), (0, 1, 0));
    }

    #[test]
    fn a_check_without_tests_is_one() {
        assert_eq!(read(0, "Finished\n"), (1, 0, 0));
        assert_eq!(read(0, "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n"), (0, 0, 0));
    }

    #[test]
    fn the_table_says_why() {
        let mut report = Report::new("model");
        report.count(true);
        report.skip("b", "needs root");
        let text = table(&[report], Duration::from_secs(1));
        assert!(text.contains("SKIPPED: b: needs root\n") && text.lines().count() == 4, "{text}");
    }
}
