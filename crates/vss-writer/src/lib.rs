//! The writer contract: what the service asks of an application that owns data, and the loop that serves a [`Writer`].
//!
//! Here live the trait with VSS's events ([`Writer`]), one call of an event ([`Call`]), the loop that registers a writer and
//! serves its events over the socket `/run/vss/writer` ([`run`]), fakes of both sides ([`fake::FakeWriter`],
//! [`fake_service::FakeService`]) and the conformance suite that every writer runs ([`conformance`]). Real writers are crates of their own under `writers/`.
//!
//! Everything here blocks: a writer is one thread. It prints nothing; who wants to know passes a [`Monitor`].
//!
//! ```no_run
//! use std::path::Path;
//! use vss_api::writer::{Event, Identify, Identity, Register};
//! use vss_model::{AppLevel, Usage, VssError, WriterClassId};
//! use vss_writer::{Answer, Call, Options, Writer, done};
//!
//! struct Ledger;
//!
//! impl Writer for Ledger {
//!     fn registration(&self) -> Register {
//!         Register {
//!             class_id: WriterClassId::from_u128(0x0f0d_3b9a_6ac8_4f7b_9a50_1c2c_9d60_11aa),
//!             name: "ledger".into(),
//!             instance_name: String::new(),
//!             usage: Usage::UserData,
//!             level: AppLevel::BackEnd,
//!             freeze_timeout_ms: Some(20_000),
//!         }
//!     }
//!     fn identify(&mut self, _: &Identify) -> Result<Identity, VssError> {
//!         Ok(Identity::default())
//!     }
//!     fn prepare_snapshot(&mut self, _: &Call<'_>) -> Answer {
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
//! vss_writer::run(Path::new("/run/vss/writer"), &mut Ledger, &Options::default()).unwrap();
//! ```

mod affected;
#[cfg(feature = "tokio")]
pub mod asynchronous;
mod call;
pub mod conformance;
mod copy;
pub mod fake;
pub mod fake_service;
mod run;
mod sessions;
mod stop;
mod writer;

pub use call::{Call, Interrupted};
pub use copy::CopyPath;
pub use run::{Monitor, Notice, Options, RunError, Silent, run};
pub use stop::{Stop, Stopper};
pub use writer::{Answer, Writer, deliver, done};
