//! The two kinds of writer that tests put beside each other: one on the socket, in this process, and one that `vss-writers`
//! runs as a script.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, bail};
use vss_api::writer::EventKind;
use vss_writer::fake::{FakeHandle, FakeWriter};
use vss_writer::{Monitor, Notice, Options, Stop, Stopper, run};

use crate::instance::Instance;

/// A writer joins at once, or something is wrong.
const JOIN_LIMIT: Duration = Duration::from_secs(30);

/// A writer on the socket, served by a thread of the test. It does not come back when its connection is lost.
#[derive(Debug)]
pub struct SocketWriter {
    handle: FakeHandle,
    _stopper: Stopper,
    thread: Option<JoinHandle<()>>,
}

/// Tells the thread that waits for it that the writer is registered.
struct Joined(mpsc::Sender<()>);

impl Monitor for Joined {
    fn notice(&self, notice: &Notice<'_>) {
        if matches!(notice, Notice::Registered { .. }) {
            // Nobody listens to a second one.
            let _ = self.0.send(());
        }
    }
}

impl SocketWriter {
    /// Registers the writer and returns when it is.
    ///
    /// # Errors
    /// The service does not take it.
    pub fn join(instance: &Instance, mut writer: FakeWriter) -> anyhow::Result<Self> {
        let handle = writer.handle();
        let (stopper, stop) = Stop::new()?;
        let (tell, told) = mpsc::channel();
        let socket = instance.writer_socket();
        let thread = thread::spawn(move || {
            let monitor = Joined(tell);
            // How it ends is seen by the events that it got.
            let _ = run(&socket, &mut writer, &Options { stop: Some(&stop), reconnect: false, monitor: &monitor });
        });
        told.recv_timeout(JOIN_LIMIT).context("the service does not take the writer")?;
        Ok(Self { handle, _stopper: stopper, thread: Some(thread) })
    }

    /// What it saw, and how it is told to misbehave.
    #[must_use]
    pub fn handle(&self) -> &FakeHandle {
        &self.handle
    }

    /// True when its connection has ended and it has said farewell to its application.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

/// Checks that a writer that was not to blame got what the contract says (spec R 2.2 and 2.5): after each Freeze a Thaw or an
/// Abort; after PrepareSnapshot a PostSnapshot or an Abort; after PrepareBackup, at last, BackupShutdown.
///
/// # Errors
/// What is missing, and what came.
pub fn check_events(events: &[EventKind]) -> anyhow::Result<()> {
    let follows = |first: EventKind, then: &[EventKind]| {
        let Some(place) = events.iter().rposition(|kind| *kind == first) else { return true };
        events[place..].iter().any(|kind| then.contains(kind))
    };
    if !follows(EventKind::Freeze, &[EventKind::Thaw, EventKind::Abort]) {
        bail!("frozen, then neither Thaw nor Abort: {events:?}");
    }
    if !follows(EventKind::PrepareSnapshot, &[EventKind::PostSnapshot, EventKind::Abort]) {
        bail!("PrepareSnapshot, then neither PostSnapshot nor Abort: {events:?}");
    }
    if events.contains(&EventKind::PrepareBackup) && events.last() != Some(&EventKind::BackupShutdown) {
        bail!("the session began and did not end with BackupShutdown: {events:?}");
    }
    Ok(())
}

/// A script writer of an instance: it notes each phase in a file and answers `ok`.
#[derive(Debug)]
pub struct ScriptWriter {
    log: PathBuf,
}

impl ScriptWriter {
    /// Makes the script writer `name` that owns everything in `directory`. In the phase and with the shell commands of
    /// `misdeed` it does those instead of answering.
    ///
    /// # Errors
    /// Its files cannot be made.
    pub fn install(
        instance: &Instance,
        name: &str,
        directory: &Path,
        misdeed: Option<(&str, &str)>,
    ) -> anyhow::Result<Self> {
        let (script, log) = (instance.path().join(format!("{name}.sh")), instance.path().join(format!("{name}.log")));
        let (phase, deed) = misdeed.unwrap_or(("", ":"));
        let text = format!(
            "while read -r phase rest; do\n\
             echo \"$phase\" >> {}\n\
             if [ \"$phase\" = \"{phase}\" ]; then\n{deed}\nelse echo ok; fi\ndone\n",
            log.display()
        );
        fs::write(&script, text)?;
        // Run by the shell, not by its own name: another thread of the test may be forking while it is open for writing.
        let config = format!(
            "name = \"{name}\"\ncommand = [\"/bin/sh\", \"{}\"]\nfreeze_timeout_ms = 3000\n\
             [[components]]\nname = \"data\"\n[[components.files]]\npath = \"{}\"\nrecursive = true\n",
            script.display(),
            directory.display()
        );
        fs::write(instance.script_directory().join(format!("{name}.toml")), config)?;
        Ok(Self { log })
    }

    /// The phases that it was told so far.
    #[must_use]
    pub fn phases(&self) -> Vec<String> {
        fs::read_to_string(&self.log).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}
