//! A writer by description on the socket of an instance, served by a thread of the test.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use vss_api::writer::{EventKind, Identify, Identity, Register};
use vss_model::{VssCode, VssError};
use vss_writer::simulated::{Description, Handle, SimulatedWriter};
use vss_writer::{Answer, AnyWriter, Call, Monitor, Notice, Options, Stop, Stopper, run};

use crate::instance::Instance;

/// A writer joins at once, or something is wrong.
const JOIN_LIMIT: Duration = Duration::from_secs(30);

/// The writer; it leaves when this is dropped.
#[derive(Debug)]
pub struct Simulated {
    handle: Handle,
    stopper: Option<Stopper>,
    thread: Option<JoinHandle<()>>,
}

struct Looking<F> {
    writer: SimulatedWriter,
    look: F,
}

impl<F: FnMut(&Call<'_>) -> anyhow::Result<()> + Send> AnyWriter for Looking<F> {
    fn registration(&self) -> Register {
        self.writer.registration()
    }

    fn identify(&mut self, identify: &Identify) -> Result<Identity, VssError> {
        self.writer.identify(identify)
    }

    fn event(&mut self, call: &Call<'_>) -> Answer {
        if call.kind() == EventKind::BackupComplete {
            (self.look)(call)
                .map_err(|error| VssError::new(VssCode::WriterErrorNonRetryable, format!("cannot look: {error:#}")))?;
        }
        self.writer.event(call)
    }
}

struct Joined(mpsc::Sender<()>);

impl Monitor for Joined {
    fn notice(&self, notice: &Notice<'_>) {
        if matches!(notice, Notice::Registered { .. }) {
            // Nobody listens to a second one.
            let _ = self.0.send(());
        }
    }
}

impl Simulated {
    /// Registers the writer and returns when it is.
    ///
    /// # Errors
    /// The description is wrong, or the service does not take it.
    pub fn join(instance: &Instance, description: Description) -> anyhow::Result<Self> {
        Self::join_and_look(instance, description, |_| Ok(()))
    }

    /// The same, and `look` is called in each BackupComplete: nothing changes in the copies any more, and they are still shown.
    ///
    /// # Errors
    /// As [`Self::join`]. What `look` cannot do, the writer fails with.
    pub fn join_and_look(
        instance: &Instance,
        description: Description,
        look: impl FnMut(&Call<'_>) -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let writer = SimulatedWriter::new(description)?;
        let handle = writer.handle();
        let mut writer = Looking { writer, look };
        let (stopper, stop) = Stop::new()?;
        let (tell, told) = mpsc::channel();
        let socket = instance.writer_socket();
        let thread = thread::spawn(move || {
            let monitor = Joined(tell);
            // It waits for one of its kind that is just leaving. How it ends is seen by the events that it got.
            let _ = run(&socket, &mut writer, &Options { stop: Some(&stop), reconnect: true, monitor: &monitor });
        });
        told.recv_timeout(JOIN_LIMIT).context("the service does not take the writer")?;
        Ok(Self { handle, stopper: Some(stopper), thread: Some(thread) })
    }

    /// What it was told.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        drop(self.stopper.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the writer has failed the test already.
            let _ = thread.join();
        }
    }
}
