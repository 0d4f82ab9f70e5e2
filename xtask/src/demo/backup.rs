//! The backup that every demo makes: restic, which knows nothing of shadow copies, under `vss run`; and its restore.

use crate::demo::stage::{Stage, tour};
use crate::interrupt::{Ended, Interrupt};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

/// Where backups are restored, in the stage's directory.
pub(super) const RESTORED: &str = "restored";
/// Longest time from the start of `vss run` until its set is in the list.
const LISTED: Duration = Duration::from_secs(120);

/// Backs the volume up, at its usual path, from a shadow copy. Returns the record of the set, as `vss show --json` has it.
pub(super) fn make(stage: &Stage, interrupt: &Interrupt) -> Result<Value> {
    let volume = stage.volume().to_string_lossy().into_owned();
    let mut command = stage.vss(&["run", "--volume", &volume]);
    command.args(["--", "restic", "backup", &volume]);
    tour(&command);
    let mut child = interrupt.spawn(&mut command)?;
    let set = match record(stage, interrupt, &mut child) {
        Ok(set) => set,
        Err(error) => {
            if child.try_wait()?.is_none() {
                interrupt.finish(&mut child, Some(Duration::ZERO))?;
            }
            return Err(error);
        }
    };
    match interrupt.finish(&mut child, None)? {
        Ended::With(status) if status.success() => Ok(set),
        ended => bail!("vss run did not succeed: {ended:?}"),
    }
}

/// Restores the newest backup into [`RESTORED`], and returns where the volume's files are now.
pub(super) fn restore(stage: &Stage, interrupt: &Interrupt) -> Result<PathBuf> {
    let restored = stage.path(RESTORED);
    fs::create_dir(&restored)?;
    // Not everything that is restored is for root.
    fs::set_permissions(&restored, Permissions::from_mode(0o755))?;
    stage.restic(&["restore", "latest", "--quiet", "--target", &restored.to_string_lossy()], interrupt)?;
    Ok(restored.join(stage.volume().strip_prefix("/").unwrap_or(stage.volume())))
}

/// The record of the set that `vss run` is working with: gone when it has ended.
fn record(stage: &Stage, interrupt: &Interrupt, run: &mut Child) -> Result<Value> {
    let deadline = Instant::now() + LISTED;
    while Instant::now() < deadline {
        interrupt.sleep(Duration::from_millis(50))?;
        if let Some(status) = run.try_wait()? {
            bail!("vss run ended with {status} before its shadow copy was in the list");
        }
        if !stage.is_served() {
            continue;
        }
        let list = document(&interrupt.output(&mut stage.vss(&["list", "shadows", "--json"]))?)?;
        if let Some(id) = list["shadows"][0]["set_id"].as_str() {
            return document(&interrupt.output(&mut stage.vss(&["show", id, "--json"]))?);
        }
    }
    bail!("no shadow copy was in the list after {} s", LISTED.as_secs())
}

fn document(text: &str) -> Result<Value> {
    serde_json::from_str(text).with_context(|| format!("not one JSON document: {text}"))
}
