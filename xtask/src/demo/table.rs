//! The table at the end of the demo.

use crate::demo::invariant::Image;
use crate::demo::workload::Pace;
use crate::demo::{Backup, PlainCopy, TRIES};
use std::fmt::Write;

/// Everything that the demo has found out.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The program's pace before the backup.
    pub(super) before: Pace,
    /// The backup from a shadow copy.
    pub(super) backup: Backup,
    /// The program's pace after the backup.
    pub(super) after: Pace,
    /// What was restored from the backup.
    pub(super) with: Image,
    /// The plain copy.
    pub(super) copy: PlainCopy,
}

impl Outcome {
    /// True when it was good with us and broken without.
    pub(super) fn is_as_promised(&self) -> bool {
        self.with.holds() && !self.copy.image.holds()
    }

    /// The table.
    pub(super) fn table(&self) -> String {
        let set = &self.backup.set;
        let instant = if set["atomic"] == true { "one instant" } else { "several instants" };
        let ms = |key: &str| set[key].as_u64().map_or_else(|| "?".to_owned(), |ms| format!("{ms} ms"));
        let pace = |pace: Pace| format!("{:.0} (longest step {} ms)", pace.per_second, pace.longest.as_millis());
        let rows = [
            ("consistency level", format!("{} ({instant})", set["consistency"].as_str().unwrap_or("?"))),
            ("freeze (writers)", ms("freeze_ms")),
            ("hold (writes)", ms("hold_ms")),
            ("writes per second before", pace(self.before)),
            ("writes per second during", pace(self.backup.during)),
            ("writes per second after", pace(self.after)),
            ("  during the plain copy", pace(self.copy.during)),
            ("invariant with us", self.with.verdict()),
            (
                "invariant without",
                format!("{} (copy {} of at most {TRIES})", self.copy.image.verdict(), self.copy.tries),
            ),
        ];
        rows.iter().fold(String::new(), |mut table, (name, value)| {
            // Writing to a String cannot fail.
            let _ = writeln!(table, "{name:<26}{value}");
            table
        })
    }
}
