//! Sagas: operations of several parties as tables of named rows, each a pair of (do, undo).
//!
//! The runner does the rows from top to bottom. When one fails it undoes from that row back to the first and reports the
//! cause together with every undo that failed. Rows marked [`Act::Window`] stand next to each other; they run on the window
//! thread as one piece that never comes back half done: a failure inside it is undone there, before anything else.
//!
//! A row that panics has failed.
//!
//! Rules for rows, kept by three generic tests (`tests/saga_table.rs` of this crate): a row can fail, and then all is
//! undone; a row done twice is done once; an undo done twice is done once, and an undo of a row that never ran is no harm.

pub mod create_set;
mod end_prepare;
mod held_volumes;
mod hold;
mod post_snapshot;
mod proof;
mod recording;
mod set_record;

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    task::Poll,
    time::{Duration, Instant},
};
use vss_model::{VssCode, VssError};

/// What a row of the conductor does; it may wait.
pub type Step<C> = for<'a> fn(&'a mut C) -> StepFuture<'a>;
/// The future of a [`Step`].
pub type StepFuture<'a> = Pin<Box<dyn Future<Output = Result<(), VssError>> + Send + 'a>>;
/// What a row of the window does: synchronous, no allocation, no log, no file (design 3).
pub type WindowStep<W> = fn(&mut W) -> Result<(), VssError>;

/// Where and how a row is done and undone.
pub enum Act<C: Context> {
    /// On the conductor's side.
    Conductor {
        /// The deed.
        run: Step<C>,
        /// Its undo; also called when `run` failed half way or never ran.
        undo: Step<C>,
    },
    /// On the window thread.
    Window {
        /// The deed.
        run: WindowStep<C::Window>,
        /// Its undo.
        undo: WindowStep<C::Window>,
    },
}

impl<C: Context> Clone for Act<C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C: Context> Copy for Act<C> {}

/// One row of a saga.
pub struct Row<C: Context> {
    /// Its name, in logs and tests.
    pub name: &'static str,
    /// What is going on, for a person who waits.
    pub says: &'static str,
    /// What it does.
    pub act: Act<C>,
}

impl<C: Context> Clone for Row<C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C: Context> Copy for Row<C> {}

/// What rows work on.
pub trait Context: Send + Sized + 'static {
    /// What the window rows work on; lives on the window thread while they run.
    type Window: Send;

    /// A row of the conductor begins: shows progress, notices a cancelled operation.
    ///
    /// # Errors
    /// The row is not begun, and all is undone.
    fn entering(&mut self, row: &'static Row<Self>) -> Result<(), VssError>;

    /// A row of the conductor has ended.
    fn left(&mut self, row: &'static Row<Self>, took: Duration, result: &Result<(), VssError>);

    /// Runs these window rows with [`run_window_rows`] on the window thread.
    ///
    /// # Errors
    /// The window failed; whatever it did is undone or will undo itself.
    fn window<'a>(&'a mut self, rows: &'static [Row<Self>]) -> StepFuture<'a>;
}

/// Why a saga ended early, and what could not be undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The row that failed.
    pub row: &'static str,
    /// Why.
    pub cause: VssError,
    /// The undos that failed, by row: what they left is found again by the next start of the service.
    pub undo_failures: Vec<(&'static str, VssError)>,
}

impl Failure {
    /// The error for the requester: the cause, and what was left behind.
    #[must_use]
    pub fn into_error(self) -> VssError {
        let mut error = self.cause;
        for (row, undo) in self.undo_failures {
            error.message.push_str(&format!("; undoing {row} failed too: {}", undo.message));
        }
        error
    }
}

/// Does the rows from top to bottom; on a failure undoes from that row to the first.
///
/// # Errors
/// The first row that failed.
pub async fn run<C: Context>(table: &'static [Row<C>], context: &mut C) -> Result<(), Failure> {
    let mut next = 0;
    while next < table.len() {
        let row = &table[next];
        let (done, result) = match &row.act {
            Act::Conductor { run, .. } => {
                let began = Instant::now();
                let result = match context.entering(row) {
                    Ok(()) => unless_it_panics(row.name, async { run(context).await }).await,
                    Err(error) => Err(error),
                };
                context.left(row, began.elapsed(), &result);
                (next + 1, result)
            }
            Act::Window { .. } => {
                let end = table[next..]
                    .iter()
                    .position(|row| matches!(row.act, Act::Conductor { .. }))
                    .map_or(table.len(), |length| next + length);
                (end, context.window(&table[next..end]).await)
            }
        };
        if let Err(cause) = result {
            let undo_failures = undo(&table[..done], context).await;
            return Err(Failure { row: row.name, cause, undo_failures });
        }
        next = done;
    }
    Ok(())
}

/// Undoes these rows from the last to the first; window rows have undone themselves.
pub async fn undo<C: Context>(rows: &'static [Row<C>], context: &mut C) -> Vec<(&'static str, VssError)> {
    let mut failures = Vec::new();
    for row in rows.iter().rev() {
        if let Act::Conductor { undo, .. } = &row.act
            && let Err(error) = unless_it_panics(row.name, async { undo(context).await }).await
        {
            failures.push((row.name, error));
        }
    }
    failures
}

/// A step that panics has failed, like any other that fails: what was done is undone, and what it works on is not lost.
async fn unless_it_panics(row: &str, step: impl Future<Output = Result<(), VssError>>) -> Result<(), VssError> {
    let mut step = pin!(step);
    let poll = |waker: &mut std::task::Context<'_>| {
        // What a panic leaves half done is the undo's business; the step itself is not polled again.
        catch_unwind(AssertUnwindSafe(|| step.as_mut().poll(waker))).unwrap_or_else(|_| {
            Poll::Ready(Err(VssError::new(VssCode::Unexpected, format!("The row {row} broke off"))
                .with_hint("The service's log says why")))
        })
    };
    std::future::poll_fn(poll).await
}

/// Does the window rows of a table on the calling thread; on a failure undoes from that row to the first of them.
///
/// `entering` is called before each row.
///
/// # Errors
/// What the first failing row said; failing undos change nothing, since the guard thaws by itself.
pub fn run_window_rows<C: Context>(
    rows: &'static [Row<C>],
    window: &mut C::Window,
    mut entering: impl FnMut(&mut C::Window, &'static str) -> Result<(), VssError>,
) -> Result<(), VssError> {
    for (index, row) in rows.iter().enumerate() {
        let Act::Window { run, .. } = &row.act else { continue };
        let result = match entering(window, row.name) {
            Ok(()) => run(window),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            for row in rows[..=index].iter().rev() {
                if let Act::Window { undo, .. } = &row.act {
                    // The cause is what matters; the guard's own deadline covers an undo that fails.
                    let _undone = undo(window);
                }
            }
            return Err(error);
        }
    }
    Ok(())
}

/// A row without an undo: what it did needs none.
pub fn nothing_to_undo<C: Context>(_context: &mut C) -> StepFuture<'_> {
    Box::pin(async { Ok(()) })
}
