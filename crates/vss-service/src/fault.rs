//! Injected faults, for the tests that fail or kill something at every row of a saga table.
//!
//! Without the feature `fault-injection` (any released build) every function here is empty and the environment is not read.
//! With it, the variable `VSS_FAULT` names one fault as `ROW:DEED`, for example `commit:kill-guard`; `commit:kill-4711`
//! kills a process that is none of ours, such as the server whose files are copied. `hold:kill-guard+350` kills 350 us after
//! the row has begun, wherever the set is then, and says on standard error which row that was. `hold:skip` leaves the hold
//! out, so that a test sees what it is for. `documents` and `recorded` are no rows: within `record`, before and after the
//! catalogue has the set.
//!
//! `VSS_OFF` names one thing that the service then does not do ([`is_off`]): `cargo xtask conformance` shows that the test of
//! its row fails without it.
//!
//! `VSS_TURN` names who has to have the turn to create sets, and the file that says who has it: a set that a test begins out
//! of turn is refused, always, and not only when another test's set is in its way.

#[cfg(feature = "fault-injection")]
use std::{
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};
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
    /// Leave out what the row does; only some rows ask.
    Skip,
}

#[cfg(feature = "fault-injection")]
struct Plan {
    row: String,
    deed: Deed,
    /// After the row has begun; none: before it does anything.
    delay: Option<Duration>,
}

#[cfg(feature = "fault-injection")]
fn planned() -> Option<&'static Plan> {
    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
    PLAN.get_or_init(|| {
        let text = std::env::var("VSS_FAULT").ok()?;
        let (row, deed) = text.split_once(':')?;
        let (deed, delay) = match deed.split_once('+') {
            Some((deed, delay)) => (deed, Some(Duration::from_micros(delay.parse().ok()?))),
            None => (deed, None),
        };
        let deed = match deed {
            "fail" => Deed::Fail,
            "skip" => Deed::Skip,
            "kill-service" => Deed::KillService,
            "kill-guard" => Deed::KillGuard,
            "kill-both" => Deed::KillBoth,
            "kill-requester" => Deed::KillRequester,
            "kill-writer" => Deed::KillWriter,
            "stop-service" => Deed::StopService,
            other => Deed::Kill(other.strip_prefix("kill-")?.parse().ok()?),
        };
        Some(Plan { row: row.to_owned(), deed, delay })
    })
    .as_ref()
}

/// True when the service is told to leave this out: the word that a test of the contract must miss.
#[cfg(feature = "fault-injection")]
pub fn is_off(what: &str) -> bool {
    static OFF: OnceLock<Option<String>> = OnceLock::new();
    OFF.get_or_init(|| std::env::var("VSS_OFF").ok()).as_deref() == Some(what)
}

/// False in this build.
#[cfg(not(feature = "fault-injection"))]
pub const fn is_off(_what: &str) -> bool {
    false
}

/// Checks that the test which started the service has the turn to create sets (`tests/src/turn.rs`). Reads a file.
///
/// # Errors
/// `VSS_E_UNEXPECTED` when another one has it, or nobody.
#[cfg(feature = "fault-injection")]
pub fn check_turn() -> Result<(), VssError> {
    let Ok(turn) = std::env::var("VSS_TURN") else { return Ok(()) };
    let Some((expected, file)) = turn.split_once(' ') else { return Ok(()) };
    let holder = std::fs::read_to_string(file).unwrap_or_default();
    if holder.lines().next() == Some(expected) {
        return Ok(());
    }
    let holder = holder.lines().nth(1).unwrap_or("nobody");
    let message = format!("A test begins a set out of turn; the turn has {holder}");
    Err(VssError::new(VssCode::Unexpected, message)
        .with_hint("Take `vss_tests::turn::creation_turn()` before, in the thread that starts the service"))
}

/// Nobody takes turns in this build.
///
/// # Errors
/// None in this build.
#[cfg(not(feature = "fault-injection"))]
pub fn check_turn() -> Result<(), VssError> {
    Ok(())
}

/// The row that was begun last.
#[cfg(feature = "fault-injection")]
static STANDING: Mutex<&'static str> = Mutex::new("");

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
    *STANDING.lock().unwrap_or_else(PoisonError::into_inner) = row;
    let Some(Plan { deed, delay, .. }) = planned().filter(|plan| plan.row == row) else { return Ok(()) };
    match (deed, delay) {
        (Deed::Fail, _) => return Err(VssError::new(VssCode::Unexpected, "A fault was injected")),
        (Deed::Skip, _) => {}
        (deed, None) => end(*deed, victims),
        (deed, Some(delay)) => {
            std::thread::spawn(move || {
                std::thread::sleep(*delay);
                // Kept until the signal is sent: the next row does not begin meanwhile.
                let standing = STANDING.lock().unwrap_or_else(PoisonError::into_inner);
                eprintln!("fault: {deed:?} in {standing}");
                end(*deed, victims);
            });
        }
    }
    Ok(())
}

/// Kills or stops whom the deed names.
#[cfg(feature = "fault-injection")]
fn end(deed: Deed, victims: Victims) {
    use rustix::process::{Pid, Signal, kill_process};
    let tell = |pid: Option<u32>, signal: Signal| {
        if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) {
            // A victim that is gone already is what the fault wanted.
            let _gone = kill_process(pid, signal);
        }
    };
    let end = |pid: Option<u32>| tell(pid, Signal::KILL);
    let service = Some(std::process::id());
    match deed {
        Deed::Fail | Deed::Skip => {}
        Deed::KillService => end(service),
        Deed::KillGuard => end(victims.guard),
        Deed::KillBoth => match (victims.guard, service) {
            (Some(guard), Some(service)) => end_both(guard, service),
            _ => end(service),
        },
        Deed::KillRequester => end(victims.requester),
        Deed::KillWriter => end(victims.writer),
        Deed::Kill(pid) => end(Some(pid)),
        // Until a test has prepared what is to happen next, and lets it go on.
        Deed::StopService => {
            tell(service, Signal::STOP);
            // Another thread may have taken the signal: this one must not get ahead of it.
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Ends two processes that watch each other so that neither can act on the other's end: both are stopped first, by a third. A
/// process goes on after its signal until one thread after another has taken it, so that is waited for; a thread in the kernel
/// stops as it comes out.
#[cfg(feature = "fault-injection")]
fn end_both(guard: u32, service: u32) {
    let script = format!(
        "for victim in {guard} {service}; do
            kill -STOP $victim
            tries=0 moves=yes
            while [ $moves ] && [ $tries -lt {STOP_TRIES} ]; do
                tries=$((tries + 1)) moves=
                for thread in /proc/$victim/task/*/stat; do
                    read -r state 2>/dev/null < $thread || continue
                    case $state in *') T '*|*') D '*) ;; *) moves=yes ;; esac
                done
            done
        done
        kill -KILL {guard} {service}"
    );
    let killer = std::process::Command::new("/bin/sh").args(["-c", &script]).spawn();
    assert!(killer.is_ok(), "no shell for the fault");
    std::thread::sleep(std::time::Duration::from_secs(60));
}

/// Times that all threads of a process are looked at, some 100 us each, until they have stopped.
#[cfg(feature = "fault-injection")]
const STOP_TRIES: u32 = 10_000;

/// True when what this row does is to be left out.
#[cfg(feature = "fault-injection")]
pub fn skips(row: &str) -> bool {
    planned().is_some_and(|plan| plan.row == row && plan.deed == Deed::Skip)
}

/// False in this build.
#[cfg(not(feature = "fault-injection"))]
pub fn skips(_row: &str) -> bool {
    false
}

/// Does nothing in this build.
///
/// # Errors
/// None in this build.
#[cfg(not(feature = "fault-injection"))]
pub fn at(_row: &'static str, _victims: Victims) -> Result<(), VssError> {
    Ok(())
}
