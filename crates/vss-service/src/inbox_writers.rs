//! The in-box writers of an instance on demand: `vss-writers`, started with the service and ended with it. Under systemd it
//! is a unit of its own.

use crate::config::Writers;
use crate::service::Options;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long they may take to join; then the service is ready without them.
const JOIN: Duration = Duration::from_secs(5);
/// How long they may take to end.
const FAREWELL: Duration = Duration::from_secs(5);

/// The running program.
pub struct InboxWriters(Child);

impl InboxWriters {
    /// Starts the program if there is anything for it to do, and waits until its writers have joined.
    pub async fn start(options: &Options, settings: &Writers) -> Option<Self> {
        let program = options.writers.as_deref()?;
        let has_scripts = has_entries(&settings.script_directory) || has_entries(&settings.freeze_directory);
        if !has_scripts && !settings.postgresql {
            return None;
        }
        let mut command = Command::new(program);
        command
            .arg("--socket")
            .arg(options.runtime_directory.join("writer"))
            .arg("--directory")
            .arg(&settings.script_directory)
            .arg("--freeze-directory")
            .arg(&settings.freeze_directory)
            .arg("--runtime-dir")
            .arg(&options.runtime_directory)
            .args(["--exit-with-parent", "--notify-ready"])
            // Its end of this pipe closes with us, however we end: then they undo and go.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if !settings.postgresql {
            command.arg("--no-postgresql");
        }
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                tracing::error!(program = %program.display(), %error, "cannot start the in-box writers");
                return None;
            }
        };
        if let Some(stdout) = child.stdout.take() {
            let mut lines = BufReader::new(stdout).lines();
            let joined = async {
                while let Ok(Some(line)) = lines.next_line().await
                    && line != "READY=1"
                {}
            };
            if tokio::time::timeout(JOIN, joined).await.is_err() {
                tracing::warn!("the in-box writers have not joined in time");
            }
        }
        Some(Self(child))
    }

    /// Ends the program: politely, then not.
    pub async fn stop(mut self) {
        if let Some(pid) = self.0.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw)
        {
            // A program that has ended already needs no signal.
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if tokio::time::timeout(FAREWELL, self.0.wait()).await.is_err() {
            drop(self.0.kill().await);
        }
    }
}

fn has_entries(directory: &Path) -> bool {
    std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
}
