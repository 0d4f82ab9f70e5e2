//! The guard's own scope under systemd (design 2.1): a transient unit that is made around its process.
//!
//! Without it the guard is in the unit of the vssd that started it, and whatever is done to that unit is done to the guard:
//! `systemctl kill` ends both, `systemctl freeze` stops both. In a scope it stays vssd's child, and is nobody's target.
//!
//! This is the one place that speaks D-Bus. The bus may block while a file system is frozen, so it is spoken to right after
//! the guard was started, long before anything is frozen, for a bounded time, and never again. A guard without a scope is as
//! good in every other way: then it is said, and the set is made all the same.

use std::fs;
use std::path::Path;
use std::time::Duration;

use zbus::Variant;

/// Longest time for the whole matter; it usually takes 10 ms.
const LIMIT: Duration = Duration::from_secs(2);

/// Between two looks whether the process has been moved.
const PAUSE: Duration = Duration::from_millis(2);

/// Where systemd shows that it is the system's manager (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// Moves the process into a scope named after `name`, and returns the scope's name. None where there is no systemd, or where
/// it cannot be done, which is said in the log.
pub(super) fn enter(pid: u32, name: &str) -> Option<String> {
    if !is_managed() {
        return None;
    }
    let scope = scope_name(name);
    // A runtime of our own: who makes guards need not have one, and the connection is gone with it.
    let made = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Problem::Runtime);
    let entered = made.and_then(|runtime| {
        runtime
            .block_on(async { tokio::time::timeout(LIMIT, make(pid, &scope)).await.unwrap_or(Err(Problem::TimedOut)) })
    });
    match entered {
        Ok(()) => Some(scope),
        Err(error) => {
            tracing::warn!(%error, pid, "the guard has no scope of its own: `systemctl kill vssd` would end it as well");
            None
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("no runtime can be made: {0}")]
    Runtime(#[source] std::io::Error),
    #[error("systemd cannot be asked: {0}")]
    Bus(#[from] zbus::Error),
    #[error("systemd did not do it within {LIMIT:?}")]
    TimedOut,
}

/// Asks systemd for the scope and waits until the process is in it: the answer to the call comes before it is.
async fn make(pid: u32, scope: &str) -> Result<(), Problem> {
    let bus = zbus::Connection::system().await?;
    let properties = vec![
        ("Description", Variant::from("Guard of a shadow copy set")),
        ("PIDs", Variant::from(vec![pid])),
        // Nobody looks after a scope whose process was killed: it is not to stay as failed.
        ("CollectMode", Variant::from("inactive-or-failed")),
    ];
    let others: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
    bus.call_method(
        Some("org.freedesktop.systemd1"),
        "/org/freedesktop/systemd1",
        Some("org.freedesktop.systemd1.Manager"),
        "StartTransientUnit",
        &(scope, "fail", properties, others),
    )
    .await?;
    while unit_of(&cgroup(&pid.to_string())) != Some(scope) {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Is systemd our manager, and are we in a unit? In a container that sees the host's /run, process ids mean others to systemd.
fn is_managed() -> bool {
    Path::new(BOOTED).is_dir()
        && fs::read_to_string("/proc/1/comm").is_ok_and(|name| name.trim_end() == "systemd")
        && unit_of(&cgroup("self")).is_some()
}

fn cgroup(process: &str) -> String {
    fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default()
}

/// The innermost unit in a /proc/PID/cgroup (cgroups(7)): in the one hierarchy of version 2, or systemd's own of version 1.
fn unit_of(cgroup: &str) -> Option<&str> {
    let paths = cgroup.lines().filter_map(|line| {
        let (_, line) = line.split_once(':')?;
        let (controllers, path) = line.split_once(':')?;
        ["", "name=systemd"].contains(&controllers).then_some(path)
    });
    let is_unit = |name: &&str| [".service", ".scope"].iter().any(|kind| name.ends_with(kind));
    paths.filter_map(|path| path.rsplit('/').find(is_unit)).next()
}

/// `name` is a ledger's: of what it may hold, a unit's name may not hold braces (systemd.unit(5)).
fn scope_name(name: &str) -> String {
    format!("vss-guard-{}.scope", name.replace(['{', '}'], ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_unit_is_found() {
        assert_eq!(unit_of("0::/system.slice/vssd.service\n"), Some("vssd.service"));
        assert_eq!(unit_of("0::/user.slice/user-0.slice/session-3.scope\n"), Some("session-3.scope"));
        assert_eq!(unit_of("0::/system.slice/vssd.service/payload\n"), Some("vssd.service"));
        let hybrid =
            "12:cpuset:/other.service\n1:name=systemd:/system.slice/vssd.service\n0::/system.slice/vssd.service\n";
        assert_eq!(unit_of(hybrid), Some("vssd.service"));
        for none in ["", "0::/\n", "0::/docker/0123\n", "4:memory:/a.service\n", "nonsense\n"] {
            assert_eq!(unit_of(none), None, "{none}");
        }
    }

    #[test]
    fn a_set_names_its_scope() {
        assert_eq!(scope_name("{b5946137}"), "vss-guard-b5946137.scope");
    }

    #[test]
    fn without_systemd_nothing_is_done() {
        if is_managed() {
            println!("SKIPPED: without_systemd_nothing_is_done: systemd is the manager here");
            return;
        }
        let before = cgroup("self");
        assert_eq!(enter(std::process::id(), "test"), None);
        assert_eq!(cgroup("self"), before);
    }
}
