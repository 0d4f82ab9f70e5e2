//! For tests: the process ends at a named place, as by kill -9.
//!
//! Without the feature `fault-injection` (any released build) there is nothing here and the environment is not read. With it,
//! the variable `VSS_MIRROR_FAULT` names the place; `without-completions` is none, and lets the tracer leave out the marks at
//! completions, so that a test sees what they are for.

#[cfg(feature = "fault-injection")]
use std::sync::OnceLock;

#[cfg(feature = "fault-injection")]
fn plan() -> Option<&'static str> {
    static PLAN: OnceLock<Option<String>> = OnceLock::new();
    PLAN.get_or_init(|| std::env::var("VSS_MIRROR_FAULT").ok()).as_deref()
}

/// True when writes are not to be marked when they complete.
#[cfg(feature = "fault-injection")]
pub(crate) fn without_completions() -> bool {
    plan() == Some("without-completions")
}

/// Ends the process when this is the place.
#[cfg(feature = "fault-injection")]
pub(crate) fn at(place: &str) {
    use rustix::process::{Signal, getpid, kill_process};
    if plan() == Some(place) {
        // Nothing returns from it.
        let _ = kill_process(getpid(), Signal::KILL);
    }
}

/// Does nothing in this build.
#[cfg(not(feature = "fault-injection"))]
pub(crate) fn at(_place: &str) {}
