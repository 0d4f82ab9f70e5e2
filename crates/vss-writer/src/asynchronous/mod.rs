//! The asynchronous face of the writer contract, for applications that live on tokio (feature `tokio`).
//!
//! The handlers are [`Writer`]'s, of the same names and with the same contract as [`crate::Writer`]'s, as `async fn`. There is
//! no second loop: a thread runs [`crate::run`]'s, and every promise that it keeps, it keeps here too. It hands each call to
//! the runtime and waits for the handler there, no longer than until the call's deadline, the end of the connection or the
//! stop flag:
//!
//! ```text
//!  service <-> thread: the loop, registration, limits, freeze timer        runtime: the writer's handlers, one at a time
//!                |  call ------------------------------------------------->  handler runs
//!                |  <------------------------------------------------ answer
//!                |  too late, or the service is gone: give up ----------->  handler is dropped
//!                |  Abort ------------------------------------------------>  runs whole, as BackupShutdown does
//! ```
//!
//! A handler may be dropped at any of its `await`s; Abort follows. Abort and BackupShutdown are never dropped, and wait for a
//! runtime that is stuck, because nothing else would end the hold. A handler that panics has failed (NONRETRYABLE); the
//! writer goes on with Abort.
//!
//! Handlers run inside the future of [`run`], so a writer needs not be `Send` and any runtime will do, also one of one
//! thread and one without a timer. Work that blocks, such as mending files in PostSnapshot, belongs on
//! `tokio::task::spawn_blocking`, with a clone of the [`Call`]; what runs there is not stopped when its handler is dropped.
//!
//! ```no_run
//! use std::path::Path;
//! use vss_writer::asynchronous::{Call, Options, Writer, run};
//! use vss_writer::messages::{Identify, Identity, Register};
//! use vss_writer::model::{Component, VssError, WriterClassId};
//! use vss_writer::{Answer, done};
//!
//! struct Shop(tokio::sync::watch::Sender<bool>);
//!
//! impl Writer for Shop {
//!     fn registration(&self) -> Register {
//!         Register::new(WriterClassId::from_u128(0x51b3_04f6_8f0d_4a43_8a4b_7a2e_6c0e_19d5), "shop")
//!     }
//!     async fn identify(&mut self, _: &Identify) -> Result<Identity, VssError> {
//!         Ok(Identity::of([Component::file_group("orders").files_below("/srv/shop").build()?]))
//!     }
//!     async fn prepare_snapshot(&mut self, _: &Call) -> Answer {
//!         done()
//!     }
//!     async fn freeze(&mut self, _: &Call) -> Answer {
//!         self.0.send_replace(true);
//!         done()
//!     }
//!     async fn thaw(&mut self, _: &Call) -> Answer {
//!         self.0.send_replace(false);
//!         done()
//!     }
//!     async fn abort(&mut self, call: &Call) -> Answer {
//!         self.thaw(call).await
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let (hold, _held) = tokio::sync::watch::channel(false);
//! run(Path::new("/run/vss/writer"), &mut Shop(hold), Options::default()).await.unwrap();
//! # }
//! ```

mod adapter;
mod call;
mod driver;
mod writer;

pub use call::Call;
pub use writer::Writer;

use crate::run::run_until;
use crate::{Monitor, RunError, Silent, Stop, conformance};
use std::fmt;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use vss_api::client::ClientError;

/// How [`run`] runs; as [`crate::Options`], but owned, because the loop's thread may outlive the future of [`run`].
#[derive(Clone)]
pub struct Options {
    /// Ends the loop; none: it runs until the service refuses.
    pub stop: Option<Stop>,
    /// As [`crate::Options::reconnect`].
    pub reconnect: bool,
    /// Who is told what happens, on the loop's thread.
    pub monitor: Arc<dyn Monitor + Send>,
}

impl Default for Options {
    /// For ever, reconnecting, silently.
    fn default() -> Self {
        Self { stop: None, reconnect: true, monitor: Arc::new(Silent) }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("stop", &self.stop).field("reconnect", &self.reconnect).finish_non_exhaustive()
    }
}

/// Registers `writer` at `socket` and serves its events, as [`crate::run`] does and with its promises.
///
/// End it by its stop flag. Dropping the future ends the connection at once, but then no handler can run any more, and
/// what is frozen is left to the writer's own `Drop`.
///
/// # Errors
/// See [`RunError`]; `Connection` also when no thread can be started.
pub async fn run<W: Writer>(socket: &Path, writer: &mut W, options: Options) -> Result<(), RunError> {
    let socket = socket.to_owned();
    let outcome = driver::drive(writer, move |adapter, dropped| {
        let stops: Vec<_> = options.stop.iter().chain([dropped]).map(AsFd::as_fd).collect();
        run_until(&socket, adapter, options.reconnect, &*options.monitor, &stops)
    });
    outcome.await.unwrap_or_else(|error| Err(RunError::Connection(ClientError::Io(error))))
}

/// Runs the conformance suite ([`conformance::check`]) on an asynchronous writer.
///
/// # Panics
/// The writer breaks the contract; no thread can be started.
pub async fn check<W: Writer>(writer: &mut W) {
    let outcome = driver::drive(writer, |adapter, _| conformance::check(adapter));
    outcome.await.expect("a thread for the suite");
}
