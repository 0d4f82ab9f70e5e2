//! What a test does to a service under systemd: settings on top of its unit, commands of systemctl, what the journal has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use vss_requester::Management;

use crate::instance::{Outcome, Running, is_alive};

/// The service's unit.
pub const VSSD: &str = "vssd.service";

/// Anything that systemd does for us is done within this time, in a machine without acceleration.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Between two looks, each of which may start a process.
const PAUSE: Duration = Duration::from_millis(100);

/// Looks until `condition` holds; false when it does not within [`LIMIT`].
pub fn wait(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + LIMIT;
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

/// Runs systemctl.
///
/// # Errors
/// It fails; the message has what it said.
pub fn systemctl(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("systemctl").args(arguments).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("systemctl {}: {}", arguments.join(" "), String::from_utf8_lossy(&said));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A property of a unit, for example `ActiveState`.
///
/// # Errors
/// As [`systemctl`].
pub fn property(unit: &str, name: &str) -> anyhow::Result<String> {
    Ok(systemctl(&["show", "--value", "--property", name, unit])?.trim_end().to_owned())
}

/// Waits until a unit is in this state: `active`, `inactive`, `failed`.
///
/// # Errors
/// It is in another one after [`LIMIT`].
pub fn wait_for_state(unit: &str, state: &str) -> anyhow::Result<()> {
    let is_there = wait(|| property(unit, "ActiveState").is_ok_and(|found| found == state));
    ensure!(is_there, "{unit} is not {state}: {}", systemctl(&["show", unit])?);
    Ok(())
}

/// The process of the running service.
///
/// # Errors
/// It does not run.
pub fn service_pid() -> anyhow::Result<u32> {
    let pid: u32 = property(VSSD, "MainPID")?.parse()?;
    ensure!(pid != 0, "{VSSD} does not run");
    Ok(pid)
}

/// A connection for questions to the machine's own service.
///
/// # Errors
/// It does not answer.
pub fn management() -> anyhow::Result<Management> {
    Ok(Management::connect(&vss_requester::Instance::new(PathBuf::from("/run/vss"), PathBuf::from("/var/lib/vss")))?)
}

/// Starts the installed `vss`.
///
/// # Errors
/// It is not installed.
pub fn start_vss(arguments: &[&str]) -> anyhow::Result<Running> {
    let mut command = Command::new("/usr/bin/vss");
    command.args(arguments).stdin(Stdio::null());
    Running::start(command)
}

/// Runs the installed `vss` to its end.
///
/// # Errors
/// It takes longer than 90 s.
pub fn vss(arguments: &[&str]) -> anyhow::Result<Outcome> {
    start_vss(arguments)?.finish()
}

/// Entries of this boot that match, as journalctl(1) selects them: `VSS_SET_ID=...`, `--unit=vssd`. All that was sent by now is
/// among them.
///
/// # Errors
/// The journal cannot be read.
pub fn journal(matches: &[&str]) -> anyhow::Result<Vec<Value>> {
    let synced = Command::new("journalctl").arg("--sync").output()?;
    ensure!(synced.status.success(), "journalctl --sync: {}", String::from_utf8_lossy(&synced.stderr));
    let mut command = Command::new("journalctl");
    let output = command.args(["--boot", "--output=json", "--no-pager"]).args(matches).output()?;
    ensure!(output.status.success(), "journalctl: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout)?;
    lines.lines().map(|line| serde_json::from_str(line).context("an entry")).collect()
}

/// Where settings on top of the service's unit lie; gone with a boot.
const DROP_INS: &str = "/run/systemd/system/vssd.service.d";
/// The variables of a test. A file of their own: to change it, systemd need not read its units again, which takes seconds.
const VARIABLES: &str = "/run/vss-test.environment";

/// A provider that needs a hold, as `VSS_FAKE` describes it; it stays this long in Commit.
#[must_use]
pub fn holding(commit: Duration) -> String {
    serde_json::json!({"policy": "needs_hold", "commit_delay_ms": commit.as_millis()}).to_string()
}

/// The vssd that was restarted with variables of a test's own. Dropping it restarts it without them.
#[derive(Debug)]
pub struct Service {
    stays_dead: bool,
}

impl Service {
    /// Restarts vssd with these variables.
    ///
    /// # Errors
    /// It does not start.
    pub fn with(variables: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start(variables, false)
    }

    /// Restarts vssd with these variables; when it is killed, systemd does not start it again by itself.
    ///
    /// # Errors
    /// It does not start.
    pub fn that_stays_dead(variables: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start(variables, true)
    }

    fn start(variables: &[(&str, &str)], stays_dead: bool) -> anyhow::Result<Self> {
        let variables: String = variables.iter().map(|(name, value)| format!("{name}='{value}'\n")).collect();
        fs::write(VARIABLES, variables)?;
        let service = Self { stays_dead };
        let reads = drop_in("variables", &format!("EnvironmentFile=-{VARIABLES}"))?;
        if (stays_dead && drop_in("dead", "Restart=no")?) || reads {
            systemctl(&["daemon-reload"])?;
        }
        systemctl(&["restart", VSSD])?;
        Ok(service)
    }

    /// Takes the settings away from its next start on.
    ///
    /// # Errors
    /// systemd does not read its units.
    pub fn restore(&mut self) -> anyhow::Result<()> {
        fs::write(VARIABLES, "")?;
        if std::mem::take(&mut self.stays_dead) {
            fs::remove_file(Path::new(DROP_INS).join("dead.conf"))?;
            systemctl(&["daemon-reload"])?;
        }
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // What fails here fails the next test.
        let _ = self.restore();
        let _ = systemctl(&["restart", VSSD]);
    }
}

/// Puts a line on top of the service's unit; false when it is there already.
fn drop_in(name: &str, line: &str) -> anyhow::Result<bool> {
    let place = Path::new(DROP_INS).join(name).with_extension("conf");
    if place.exists() {
        return Ok(false);
    }
    fs::create_dir_all(DROP_INS)?;
    fs::write(place, format!("[Service]\n{line}\n"))?;
    Ok(true)
}

/// A guard that lives, as systemd sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenGuard {
    /// Its process.
    pub pid: u32,
    /// The unit that it is in.
    pub unit: String,
    /// The process that it is a child of.
    pub parent: u32,
}

/// Every living guard.
///
/// # Errors
/// /proc cannot be read.
pub fn guards() -> anyhow::Result<Vec<SeenGuard>> {
    let mut guards = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // One that is gone meanwhile is none.
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        if read("comm").trim_end() != "vss-guard" || !is_alive(pid) {
            continue;
        }
        let unit = read("cgroup").trim_end().rsplit('/').next().unwrap_or_default().to_owned();
        let status = read("status");
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).and_then(|pid| pid.trim().parse().ok());
        if let Some(parent) = parent {
            guards.push(SeenGuard { pid, unit, parent });
        }
    }
    Ok(guards)
}

/// A `vss create` that stands in the hold.
#[derive(Debug)]
pub struct InHold {
    /// The command.
    pub run: Running,
    /// The guard.
    pub guard: SeenGuard,
}

/// Starts `vss create VOLUME` and waits until its volume is held.
///
/// # Errors
/// It never is.
pub fn create_and_hold(volume: &Path) -> anyhow::Result<InHold> {
    let run = start_vss(&["create", volume.to_str().context("a path in UTF-8")?])?;
    let started = Instant::now();
    let holds = wait(|| management().and_then(|mut asked| Ok(asked.status()?.holding)).unwrap_or(false));
    ensure!(holds, "nothing is held after {:?}: {}", started.elapsed(), run.stderr()?);
    match guards()?.as_slice() {
        [guard] => Ok(InHold { run, guard: guard.clone() }),
        other => bail!("one guard was to be seen: {other:?}"),
    }
}
