//! One asynchronous operation of a session: where it stands, what it is doing, and the wish that it should stop.

use crate::fault;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vss_api::progress::CopyProgress;
use vss_api::requester::{OperationState, OperationStatus};
use vss_model::{OperationId, VssCode, VssError};

/// The shared end of an operation: the job reports here, calls look here.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    status: Arc<watch::Sender<OperationStatus>>,
    holding: Arc<AtomicBool>,
    cancel: CancellationToken,
}

impl Default for Operation {
    fn default() -> Self {
        Self::new()
    }
}

impl Operation {
    /// A new pending operation.
    #[must_use]
    pub fn new() -> Self {
        let state = OperationState::Pending;
        let status = OperationStatus {
            state,
            number: state.number(None),
            error: None,
            progress: 0,
            step: String::new(),
            copying: None,
        };
        Self {
            id: OperationId::random(),
            status: Arc::new(watch::Sender::new(status)),
            holding: Arc::default(),
            cancel: CancellationToken::new(),
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> OperationStatus {
        self.status.borrow().clone()
    }

    /// Follows it; the receiver wakes at every step and at the end.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<OperationStatus> {
        self.status.subscribe()
    }

    /// Says what it is doing now.
    pub fn step(&self, step: impl Into<String>) {
        self.status.send_modify(|status| {
            status.progress += 1;
            status.step = step.into();
            status.copying = None;
        });
    }

    /// Says how far the copying of a volume is; the words of it are the step.
    pub fn copying(&self, copying: CopyProgress) {
        self.status.send_modify(|status| {
            status.progress += 1;
            status.step = copying.to_string();
            status.copying = Some(copying);
        });
    }

    /// Says that writes are held now, or no longer.
    pub fn set_holding(&self, holding: bool) {
        self.holding.store(holding, Ordering::Relaxed);
    }

    /// True while it holds writes.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        self.holding.load(Ordering::Relaxed)
    }

    /// Ends it. A failure after a wish to stop is `cancelled`.
    pub fn finish(&self, result: &Result<(), VssError>) {
        self.status.send_modify(|status| {
            status.progress += 1;
            status.copying = None;
            match result {
                Ok(()) => status.state = OperationState::Finished,
                Err(_) if self.cancel.is_cancelled() => status.state = OperationState::Cancelled,
                Err(error) => {
                    status.state = OperationState::Failed;
                    status.error = Some(error.clone());
                }
            }
            status.number = if fault::is_off("numbers") { 0 } else { status.state.number(status.error.as_ref()) };
        });
    }

    /// Wishes that it should stop; it undoes what it did.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// True when it should stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Returns when it should stop; not before.
    pub async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }

    /// Runs `work` unless, and until, the operation should stop.
    ///
    /// # Errors
    /// The error of a cancelled operation; `work` is dropped where it stands.
    pub async fn unless_cancelled<T>(&self, work: impl Future<Output = T>) -> Result<T, VssError> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(cancelled()),
            value = work => Ok(value),
        }
    }
}

/// The error of an operation that was told to stop.
#[must_use]
pub fn cancelled() -> VssError {
    VssError::new(VssCode::BadState, "The operation was cancelled, or its requester is gone")
}
