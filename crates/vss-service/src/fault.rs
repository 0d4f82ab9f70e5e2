//! Injected faults, for the tests that fail or kill something at every row of a saga table.
//!
//! Without the feature `fault-injection` (any released build) every function here is empty and the environment is not read.
//! With it, the variable `VSS_FAULT` names one fault as `ROW:DEED`, for example `commit:kill-guard`; `commit:kill-4711`
//! kills a process that is none of ours, such as the server whose files are copied.

#[cfg(feature = "fault-injection")]
use std::sync::OnceLock;
#[cfg(feature = "fault-injection")]
use vss_model::VssCode;
use vss_model::VssError;

/// The process ids that a fault may end.
#[derive(Debug, Clone, Copy, Default)]
pub struct Victims {
    /// The guard of the set.
    pub guard: Option<u32>,
    /// The requester.
    pub requester: Option<u32>,
    /// The first involved writer.
    pub writer: Option<u32>,
}

#[cfg(feature = "fault-injection")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Fail,
    KillService,
    KillGuard,
    KillBoth,
    KillRequester,
    KillWriter,
    /// Any process, by its number.
    Kill(u32),
    StopService,
}

#[cfg(feature = "fault-injection")]
fn planned() -> Option<&'static (String, Deed)> {
    static PLAN: OnceLock<Option<(String, Deed)>> = OnceLock::new();
    PLAN.get_or_init(|| {
        let text = std::env::var("VSS_FAULT").ok()?;
        let (row, deed) = text.split_once(':')?;
        let deed = match deed {
            "fail" => Deed::Fail,
            "kill-service" => Deed::KillService,
            "kill-guard" => Deed::KillGuard,
            "kill-both" => Deed::KillBoth,
            "kill-requester" => Deed::KillRequester,
            "kill-writer" => Deed::KillWriter,
            "stop-service" => Deed::StopService,
            other => Deed::Kill(other.strip_prefix("kill-")?.parse().ok()?),
        };
        Some((row.to_owned(), deed))
    })
    .as_ref()
}

/// Reads the plan, so that [`at`] allocates nothing later.
pub fn prepare() {
    #[cfg(feature = "fault-injection")]
    let _plan = planned();
}

/// Does the fault that is planned for this row.
///
/// # Errors
/// `VSS_E_UNEXPECTED` when the plan says `fail`.
#[cfg(feature = "fault-injection")]
pub fn at(row: &'static str, victims: Victims) -> Result<(), VssError> {
    use rustix::process::{Pid, Signal, kill_process};
    let Some((_, deed)) = planned().filter(|(planned, _)| planned == row) else { return Ok(()) };
    let tell = |pid: Option<u32>, signal: Signal| {
        if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) {
            // A victim that is gone already is what the fault wanted.
            let _gone = kill_process(pid, signal);
        }
    };
    let end = |pid: Option<u32>| tell(pid, Signal::KILL);
    let service = Some(std::process::id());
    match deed {
        Deed::Fail => return Err(VssError::new(VssCode::Unexpected, "A fault was injected")),
        Deed::KillService => end(service),
        Deed::KillGuard => end(victims.guard),
        Deed::KillBoth => match (victims.guard, service) {
            (Some(guard), Some(service)) => end_both(guard, service),
            _ => end(service),
        },
        Deed::KillRequester => end(victims.requester),
        Deed::KillWriter => end(victims.writer),
        Deed::Kill(pid) => end(Some(*pid)),
        // Until a test has prepared what is to happen next, and lets it go on.
        Deed::StopService => {
            tell(service, Signal::STOP);
            // Another thread may have taken the signal: this one must not get ahead of it.
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }
    Ok(())
}

/// Ends two processes that watch each other so that neither can act on the other's end: both are stopped first, by a third.
#[cfg(feature = "fault-injection")]
fn end_both(guard: u32, service: u32) {
    let script = format!("kill -STOP {guard}; kill -STOP {service}; kill -KILL {guard} {service}");
    let killer = std::process::Command::new("/bin/sh").args(["-c", &script]).spawn();
    assert!(killer.is_ok(), "no shell for the fault");
    std::thread::sleep(std::time::Duration::from_secs(60));
}

/// Does nothing in this build.
///
/// # Errors
/// None in this build.
#[cfg(not(feature = "fault-injection"))]
pub fn at(_row: &'static str, _victims: Victims) -> Result<(), VssError> {
    Ok(())
}
