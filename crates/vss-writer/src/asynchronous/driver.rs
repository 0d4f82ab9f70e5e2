//! The runtime's side: takes the thread's jobs one at a time and runs the writer's handlers.

use super::adapter::{Adapter, WAITING_JOBS};
use super::writer::deliver;
use super::{Call, Writer};
use crate::Stop;
use rustix::pipe::{PipeFlags, pipe_with};
use std::any::Any;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::thread;
use tokio::sync::mpsc;
use tokio::sync::oneshot::{self, error::TryRecvError};
use vss_api::writer::{EventReply, Identify, Identity};
use vss_model::{VssCode, VssError};

/// One call on its way to the runtime.
#[derive(Debug)]
pub(super) enum Job {
    Identify(Identify, Task<Identity>),
    Event(Call, Task<EventReply>),
}

/// Where a job's answer goes, and how long it is wanted.
#[derive(Debug)]
pub(super) struct Task<T> {
    pub(super) answer: oneshot::Sender<Result<T, VssError>>,
    /// Closed as soon as nobody waits for the answer any more; none: the handler runs whole.
    pub(super) given_up: Option<oneshot::Receiver<Infallible>>,
}

impl<T> Task<T> {
    /// Runs the handler until it ends or nobody waits for it; then it is dropped, or not even begun.
    async fn run(self, handler: impl Future<Output = Result<T, VssError>>) {
        let Self { answer, mut given_up } = self;
        let mut handler = pin!(handler);
        let end = poll_fn(|context| {
            // First, so that a Freeze that was given up does not begin after its Abort.
            if given_up.as_mut().is_some_and(|given_up| is_closed(given_up, context)) {
                return Poll::Ready(None);
            }
            let polled = catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(context)));
            polled.unwrap_or_else(|panic| Poll::Ready(Err(panicked(&*panic)))).map(Some)
        });
        if let Some(end) = end.await {
            // Nobody may be waiting any more.
            let _ = answer.send(end);
        }
    }
}

/// True when the other end is gone; else the task is woken when it goes. A poll alone may say "not yet" of what has been
/// closed for long, when tokio wants the task to yield.
fn is_closed(given_up: &mut oneshot::Receiver<Infallible>, context: &mut Context<'_>) -> bool {
    given_up.try_recv() == Err(TryRecvError::Closed) || Pin::new(given_up).poll(context).is_ready()
}

fn panicked(panic: &(dyn Any + Send)) -> VssError {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let message = format!("The handler panicked: {}", text.unwrap_or("it did not say why"));
    VssError::new(VssCode::WriterErrorNonRetryable, message).with_hint("This is a mistake in the writer")
}

/// Runs `on_thread` on a thread of its own with a blocking stand-in for `writer`, and the handlers here. The stop flag that
/// it is given comes when this future is dropped.
///
/// # Errors
/// No thread or no pipe can be made.
pub(super) async fn drive<W: Writer, T: Send + 'static>(
    writer: &mut W,
    on_thread: impl FnOnce(&mut Adapter, &Stop) -> T + Send + 'static,
) -> io::Result<T> {
    let (_stopper, stop) = Stop::new()?;
    let (bell, ringer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let (jobs, mut taken) = mpsc::channel(WAITING_JOBS);
    let mut adapter = Adapter { register: writer.registration(), jobs, bell };
    let thread = thread::Builder::new().name("vss-writer".into()).spawn(move || on_thread(&mut adapter, &stop))?;
    while let Some(job) = taken.recv().await {
        match job {
            Job::Identify(identify, task) => task.run(writer.identify(&identify)).await,
            Job::Event(call, task) => task.run(deliver(writer, &call)).await,
        }
        ring(&ringer);
    }
    // The adapter is gone, so the thread has nothing left to do.
    thread.join().map_err(|panic| resume_unwind(panic))
}

/// A pipe that is full rings as well.
fn ring(ringer: &OwnedFd) {
    let _ = rustix::io::write(ringer, b"!");
}
