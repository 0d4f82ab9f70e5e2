//! The writer contract: what the service asks of an application that owns data, and the loop that serves a [`Writer`].
//!
//! Here live the trait with VSS's events ([`Writer`]; [`AnyWriter`] for what takes them all in one place), one call of an event
//! ([`Call`]) with what helps to serve it, the loop that registers a writer and serves its events over the socket
//! `/run/vss/writer` ([`run`]), the same for applications on tokio (`asynchronous`, with the feature `tokio`), what a writer says
//! of itself in a file (`description`, with the feature of that name), fakes of both sides ([`fake::FakeWriter`],
//! [`fake_service::FakeService`]) and the conformance suite that every writer runs ([`conformance`]). Real writers are crates of
//! their own under `writers/`. `docs/writers.md` is for the author of one: this crate is all that it needs ([`model`] and
//! [`messages`] have the words).
//!
//! Everything here blocks: a writer is one thread. It prints nothing; who wants to know passes a [`Monitor`].
//!
//! ```no_run
//! use std::path::Path;
//! use vss_writer::messages::{Identify, Identity, Register};
//! use vss_writer::model::{AppLevel, Component, VssError, WriterClassId};
//! use vss_writer::{Answer, Call, Options, Writer, done, run};
//!
//! struct Ledger;
//!
//! impl Writer for Ledger {
//!     fn registration(&self) -> Register {
//!         let class_id = WriterClassId::from_u128(0x0f0d_3b9a_6ac8_4f7b_9a50_1c2c_9d60_11aa);
//!         Register { level: AppLevel::BackEnd, freeze_timeout_ms: Some(20_000), ..Register::new(class_id, "ledger") }
//!     }
//!     fn identify(&mut self, _: &Identify) -> Result<Identity, VssError> {
//!         Ok(Identity::of([Component::database("books").files_below("/var/lib/ledger").build()?]))
//!     }
//!     fn prepare_snapshot(&mut self, call: &Call<'_>) -> Answer {
//!         call.must_have(Path::new("/var/lib/ledger"))?;
//!         done()
//!     }
//!     fn freeze(&mut self, _: &Call<'_>) -> Answer {
//!         done()
//!     }
//!     fn thaw(&mut self, _: &Call<'_>) -> Answer {
//!         done()
//!     }
//!     fn abort(&mut self, _: &Call<'_>) -> Answer {
//!         done()
//!     }
//! }
//!
//! run(Path::new("/run/vss/writer"), &mut Ledger, &Options::default()).unwrap();
//! ```

mod affected;
#[cfg(feature = "tokio")]
pub mod asynchronous;
mod call;
pub mod conformance;
mod copy;
#[cfg(feature = "description")]
pub mod description;
pub mod fake;
pub mod fake_service;
mod run;
mod sessions;
pub mod simulated;
mod stop;
mod writer;

pub use call::{Call, Interrupted};
pub use copy::CopyPath;
pub use run::{Monitor, Notice, Options, RunError, Silent, run};
pub use stop::{Stop, Stopper};
pub use writer::{Answer, AnyWriter, Writer, done};

/// How a file of the copy is opened or made ([`CopyPath`]).
pub use rustix::fs::{Mode, OFlags};
/// The messages of the interface: events, answers, registration.
pub use vss_api::writer as messages;
/// The words of the house: ids, error codes, components.
pub use vss_model as model;

/// The code in the manual for authors of writers.
#[cfg(all(doctest, feature = "tokio"))]
#[doc = include_str!("../../../docs/writers.md")]
struct Manual;
