//! Waiting for processes and for what they do, and what they say when they fail.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Time between two looks at something that has to change.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks every 5 ms until `condition` holds; false when it does not within `limit`.
pub(crate) fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(PAUSE);
    }
}

/// Runs `command` to its end and returns what it printed.
///
/// # Errors
/// It does not succeed: what it said.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{name} ended with {}: {}{}", output.status, said.trim_end(), String::from_utf8_lossy(&output.stdout));
    }
    String::from_utf8(output.stdout).with_context(|| format!("{name} prints something that is not UTF-8"))
}

/// True unless the process has ended; one that nobody waits for has ended too: not every machine's first process reaps.
pub(crate) fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // "PID (NAME) STATE ...", where NAME may hold anything.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// The living processes whose working directory this is.
pub(crate) fn working_in(directory: &Path) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|place| place == directory)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_alive_until_it_has_ended_and_its_failure_says_what_it_said() -> anyhow::Result<()> {
        let own = std::process::id();
        let mut child = Command::new("/bin/sleep").arg("60").spawn()?;
        assert!(is_alive(own) && is_alive(child.id()));
        child.kill()?;
        assert!(wait_until(Duration::from_secs(10), || !is_alive(child.id())), "not waited for, but ended");
        child.wait()?;
        let error = output(Command::new("/bin/sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("why") && error.contains('3'), "{error}");
        assert_eq!(output(Command::new("/bin/echo").arg("said"))?, "said\n");
        Ok(())
    }
}
