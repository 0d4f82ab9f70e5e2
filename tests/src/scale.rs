//! How much a test does: enough for every day, or as much as was promised to be shown (`cargo xtask soak`).

/// Set to `1` by `cargo xtask soak`.
const VARIABLE: &str = "VSS_SOAK";

/// How many rounds: `daily` of them, or `full` of them when this is a soak.
#[must_use]
pub fn rounds(daily: u32, full: u32) -> u32 {
    if std::env::var(VARIABLE).is_ok_and(|value| value == "1") { full } else { daily }
}
