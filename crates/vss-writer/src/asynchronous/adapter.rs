//! The thread's side: a blocking writer that hands each call to the runtime and waits for what comes back.

use super::Call;
use super::driver::{Job, Task};
use crate::call::{LONGEST, wait};
use crate::{Answer, AnyWriter, Interrupted};
use rustix::io::{Errno, read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot::{self, error::TryRecvError};
use vss_api::writer::{EventKind, Identify, Identity, Register};
use vss_model::{VssCode, VssError, limits};

/// Jobs that a runtime may be behind with: Abort and BackupShutdown of every session, and as many again.
pub(super) const WAITING_JOBS: usize = 4 * limits::BACKUP_SESSIONS;
/// So many of those are kept for what is run whatever happens.
const KEPT: usize = 2 * limits::BACKUP_SESSIONS;

/// Stands in the loop for a writer that lives on a runtime.
#[derive(Debug)]
pub(super) struct Adapter {
    pub(super) register: Register,
    pub(super) jobs: Sender<Job>,
    /// Readable after each job, and closed when the runtime's side is gone. Does not block.
    pub(super) bell: OwnedFd,
}

impl Adapter {
    /// Hands over one job and waits for its answer: no longer than `wait` does, which waits until the bell rings (true), the
    /// time is up (false) or there is no point in waiting.
    fn ask<T>(
        &mut self,
        kind: EventKind,
        job: impl FnOnce(Task<T>) -> Job,
        wait: impl Fn(BorrowedFd<'_>) -> Result<bool, Interrupted>,
    ) -> Result<T, VssError> {
        let name = kind.name();
        let runs_whole = matches!(kind, EventKind::Abort | EventKind::BackupShutdown);
        let busy = || {
            let message = format!("The writer's runtime is stuck: {name} cannot even be queued");
            VssError::new(VssCode::WriterErrorOutOfResources, message).with_hint("Restart the application")
        };
        if !runs_whole && self.jobs.capacity() <= KEPT {
            return Err(busy());
        }
        let (answer, mut answered) = oneshot::channel();
        // Its drop, at the latest when this returns, is what drops the handler.
        let (_patience, given_up) = oneshot::channel();
        let task = Task { answer, given_up: (!runs_whole).then_some(given_up) };
        self.jobs.try_send(job(task)).map_err(|_| if self.jobs.is_closed() { gone(name) } else { busy() })?;
        loop {
            match answered.try_recv() {
                Ok(answer) => return answer,
                Err(TryRecvError::Closed) => return Err(gone(name)),
                Err(TryRecvError::Empty) => {}
            }
            match wait(self.bell.as_fd()) {
                Ok(true) => self.silence(),
                Ok(false) => return Err(late(name, runs_whole)),
                Err(interrupted) => return Err(interrupted.into()),
            }
        }
    }

    /// Empties the bell: it may have rung for jobs that were given up.
    fn silence(&self) {
        let mut bytes = [0; 64];
        while matches!(read(&self.bell, &mut bytes), Ok(64) | Err(Errno::INTR)) {}
    }
}

fn gone(name: &str) -> VssError {
    VssError::new(VssCode::WriterErrorRetryable, format!("The writer's runtime ended before {name} was handled"))
}

fn late(name: &str, runs_whole: bool) -> VssError {
    let what = if runs_whole { "goes on without an answer" } else { "was dropped" };
    VssError::new(VssCode::WriterErrorTimeout, format!("The handler of {name} did not end in time and {what}"))
        .with_hint("Try again when the machine is less busy")
}

impl AnyWriter for Adapter {
    fn registration(&self) -> Register {
        self.register.clone()
    }

    fn identify(&mut self, identify: &Identify) -> Result<Identity, VssError> {
        let until = Instant::now() + Duration::from_millis(identify.time_left_ms.min(LONGEST));
        let identify = identify.clone();
        self.ask(EventKind::Identify, |task| Job::Identify(identify, task), |bell| wait(Some(bell), &[], until))
    }

    fn event(&mut self, call: &crate::Call<'_>) -> Answer {
        let owned = Call::of(call).map_err(|error| {
            let message = format!("Cannot duplicate the directories of the copies: {error}");
            VssError::new(VssCode::WriterErrorOutOfResources, message).with_hint("Raise the limit of open files")
        })?;
        self.ask(call.kind(), |task| Job::Event(owned, task), |bell| call.wait_for(Some(bell), call.deadline()))
    }
}
