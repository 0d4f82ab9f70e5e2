//! The table at the end.

use crate::demo::stage::{set_rows, table};
use anyhow::Result;
use serde_json::Value;
use std::time::{Duration, SystemTime};
use vss_lab::postgresql::load::Log;
use vss_lab::postgresql::verify::Verdict;

/// Something that was done while the load went on, and when.
#[derive(Debug)]
pub(super) struct Span<T> {
    from: SystemTime,
    to: SystemTime,
    /// What came of it.
    pub(super) value: T,
}

impl<T> Span<T> {
    /// Does it.
    pub(super) fn of(what: impl FnOnce() -> Result<T>) -> Result<Self> {
        let from = SystemTime::now();
        let value = what()?;
        Ok(Self { from, to: SystemTime::now(), value })
    }

    /// How the load went on meanwhile.
    fn pace(&self, log: &Log) -> String {
        let transactions = log.between(self.from, self.to);
        let seconds = self.to.duration_since(self.from).unwrap_or_default().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "transactions of a minute are far below 2^52")]
        let rate = transactions.len() as f64 / seconds;
        let longest = transactions.iter().map(|transaction| transaction.took).max().unwrap_or_default();
        format!("{rate:.0} (longest {} ms)", longest.as_millis())
    }
}

/// Everything that the demo has found out.
#[derive(Debug)]
pub(super) struct Outcome {
    /// What pgbench was told.
    pub(super) log: Log,
    /// Before the backup.
    pub(super) before: Span<()>,
    /// The backup, with the record of its set.
    pub(super) during: Span<Value>,
    /// After it.
    pub(super) after: Span<()>,
    /// The plain copy.
    pub(super) copying: Span<Duration>,
    /// The server on what was restored.
    pub(super) with: Verdict,
    /// The server on the plain copy.
    pub(super) without: Verdict,
}

impl Outcome {
    /// True when it was whole with us and broken without.
    pub(super) fn is_as_promised(&self) -> bool {
        let is_application = self.during.value["consistency"] == "application";
        is_application && self.with.holds() && self.with.has_all(self.acknowledged()) && !self.without.holds()
    }

    /// Transactions that have to be in the backup.
    fn acknowledged(&self) -> usize {
        self.log.acknowledged_before(self.during.from)
    }

    /// The table.
    pub(super) fn table(&self) -> String {
        let [level, freeze, hold] = set_rows(&self.during.value);
        let whole = if self.with.has_all(self.acknowledged()) { "all of them and" } else { "NOT ALL of them:" };
        let in_backup = format!(
            "{} acknowledged before the backup began; {whole} {} in it",
            self.acknowledged(),
            self.with.history
        );
        let mut rows = vec![
            level,
            freeze,
            hold,
            ("transactions/s before", self.before.pace(&self.log)),
            ("transactions/s during", self.during.pace(&self.log)),
            ("transactions/s after", self.after.pace(&self.log)),
            ("  during the slow copy", self.copying.pace(&self.log)),
            ("transactions", in_backup),
            ("recovery with us", format!("{} ms", self.with.recovery.as_millis())),
        ];
        for (name, verdict) in [("second server with us", &self.with), ("second server without", &self.without)] {
            // One line for each fault.
            let lines = if verdict.holds() {
                vec![verdict.to_string()]
            } else {
                verdict.faults.iter().map(|fault| format!("BROKEN: {fault}")).collect()
            };
            let names = std::iter::once(name).chain(std::iter::repeat(""));
            rows.extend(names.zip(lines));
        }
        table(&rows)
    }
}
