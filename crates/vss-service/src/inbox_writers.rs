//! The in-box writers of an instance on demand: `vss-writers`, started with the service and ended with it. Under systemd it
//! is a unit of its own.
//!
//! Where they are wanted and do not run, no backup with writers is made: their applications would be copied as they are,
//! without a word.

use crate::config::Writers;
use crate::fault;
use crate::service::Options;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use vss_model::{VssCode, VssError};

/// How long they may take to join; then the service is ready without them.
const JOIN: Duration = Duration::from_secs(5);
/// How long they may take to end.
const FAREWELL: Duration = Duration::from_secs(5);
/// What to do when they do not run.
const WAY_OUT: &str = "The service's log says more; they are started with the service, which ends when it is idle. Copies \
    without writers can be made (--no-writers)";

/// The program, as far as this service starts it.
#[derive(Debug, Default)]
pub struct InboxWriters(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    /// There is nothing for it to do, or somebody else runs it.
    #[default]
    Unwanted,
    Running(Child),
    /// It does not run, because of this.
    Failed(String),
}

impl InboxWriters {
    /// Starts the program if there is anything for it to do, and waits until its writers have joined.
    pub async fn start(&self, options: &Options, settings: &Writers) {
        let Some(program) = options.writers.as_deref() else { return };
        let has_scripts = has_entries(&settings.script_directory) || has_entries(&settings.freeze_directory);
        if !has_scripts && !settings.postgresql {
            return;
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
                *self.state() = State::Failed(format!("{} cannot be started: {error}", program.display()));
                return;
            }
        };
        if let Some(stdout) = child.stdout.take() {
            let mut lines = BufReader::new(stdout).lines();
            let joined = async {
                while let Ok(Some(line)) = lines.next_line().await {
                    if line == "READY=1" {
                        return true;
                    }
                }
                false
            };
            match tokio::time::timeout(JOIN, joined).await {
                Ok(true) => {}
                // Nobody writes to its output any more: it is about to be gone, and then it can be said why.
                Ok(false) => drop(tokio::time::timeout(FAREWELL, child.wait()).await),
                Err(_) => tracing::warn!("the in-box writers have not joined in time"),
            }
        }
        *self.state() = State::Running(child);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere cannot leave it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses a backup with writers where the program is wanted and does not run. Waits for nothing.
    ///
    /// # Errors
    /// `VSS_E_WRITER_INFRASTRUCTURE`.
    pub fn check(&self) -> Result<(), VssError> {
        let mut state = self.state();
        if let State::Running(child) = &mut *state
            && let Ok(Some(status)) = child.try_wait()
        {
            tracing::error!(%status, "the in-box writers have ended");
            *state = State::Failed(format!("vss-writers has ended: {status}"));
        }
        match &*state {
            State::Failed(why) if !fault::is_off("infrastructure") => {
                let message = format!("The in-box writers do not run: {why}");
                Err(VssError::new(VssCode::WriterInfrastructure, message).with_hint(WAY_OUT))
            }
            _ => Ok(()),
        }
    }

    /// Ends the program: politely, then not.
    pub async fn stop(&self) {
        let State::Running(mut child) = std::mem::take(&mut *self.state()) else { return };
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw) {
            // A program that has ended already needs no signal.
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if tokio::time::timeout(FAREWELL, child.wait()).await.is_err() {
            drop(child.kill().await);
        }
    }
}

fn has_entries(directory: &Path) -> bool {
    std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// What is told when this program is to run the in-box writers, for a hook directory with something in it.
    async fn told(program: &str) -> Result<(), VssError> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("hook"), "").unwrap();
        let options = Options {
            runtime_directory: directory.path().to_owned(),
            state_directory: directory.path().to_owned(),
            guard: PathBuf::new(),
            writers: Some(program.into()),
            on_demand: true,
            sockets: None,
        };
        let settings = Writers { freeze_directory: directory.path().to_owned(), ..Writers::default() };
        let writers = InboxWriters::default();
        assert_eq!(writers.check(), Ok(()), "nobody wants them yet");
        writers.start(&options, &settings).await;
        let told = writers.check();
        writers.stop().await;
        told
    }

    #[tokio::test]
    async fn a_program_that_does_not_run_is_told_with_its_reason_and_the_way_out() {
        for (program, reason) in [("/no/such/program", "No such file"), ("/bin/false", "exit status: 1")] {
            let error = told(program).await.unwrap_err();
            assert_eq!(error.code, VssCode::WriterInfrastructure);
            assert!(error.message.contains(reason) && error.hint.contains("--no-writers"), "{error}");
        }
    }
}
