//! The table at the end.

use crate::demo::files::invariant::Image;
use crate::demo::files::workload::Pace;
use crate::demo::files::{Backup, PlainCopy, TRIES};
use crate::demo::stage::{set_rows, table};

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
        let [level, freeze, hold] = set_rows(&self.backup.set);
        let pace = |pace: Pace| format!("{:.0} (longest step {} ms)", pace.per_second, pace.longest.as_millis());
        table(&[
            level,
            freeze,
            hold,
            ("writes per second before", pace(self.before)),
            ("writes per second during", pace(self.backup.during)),
            ("writes per second after", pace(self.after)),
            ("  during the plain copy", pace(self.copy.during)),
            ("invariant with us", self.with.verdict()),
            (
                "invariant without",
                format!("{} (copy {} of at most {TRIES})", self.copy.image.verdict(), self.copy.tries),
            ),
        ])
    }
}
