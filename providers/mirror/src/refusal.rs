//! The words in which a copy is refused that would hold writes for too long: those of creation, and those of its forecast.

use crate::rounds::Standing;
use std::time::Duration;
use vss_model::{VssCode, VssError};

const MIB: u64 = 1 << 20;

/// What was measured, in bytes a second; none: not known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    pub(crate) read: Option<u64>,
    pub(crate) dirty: Option<u64>,
}

impl Standing {
    /// Why no hold is begun here, when the longest that may be is `longest`.
    pub(crate) fn refusal(&self, rates: Rates, longest: Duration, is_untraced: bool) -> VssError {
        let per_second =
            |rate: Option<u64>| rate.map_or("an unknown rate".to_owned(), |rate| format!("{} MiB/s", rate / MIB));
        let (left, hold, most) = (self.dirty / MIB, self.hold.unwrap_or_default().as_millis(), longest.as_millis());
        let read = per_second(rates.read);
        let (message, hint) = if is_untraced {
            (
                format!(
                    "Comparing all {left} MiB in use inside the hold would take {hold} ms at {read}, and {most} ms is the \
                     most that is begun"
                ),
                "Allow a longer hold with --max-hold, 8000 ms at most, or make tracing possible",
            )
        } else {
            (
                format!(
                    "After {} rounds {left} MiB are left to be read: {hold} ms at {read}, and {most} ms is the most that is \
                     held for; applications write to {}",
                    self.round,
                    per_second(rates.dirty)
                ),
                "Try again when less is written to the volume, or allow a longer hold with --max-hold, 8000 ms at most",
            )
        };
        VssError::new(VssCode::ProviderVeto, message).with_hint(hint)
    }
}
