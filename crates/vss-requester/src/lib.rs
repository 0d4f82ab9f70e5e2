//! The requester's side of the interface: what a backup tool calls. The command line of `vss` is built on it.
//!
//! [`Backup`] makes a shadow copy set in the right order of calls, tells where the copies are, and ends the backup;
//! [`Requester`] has each call of a session by itself, for those who choose components or a different order;
//! [`Management`] lists and deletes what is kept. All block. The service is started on demand when the caller is root
//! (`launch`). The library prints nothing: what happens is told to a [`Monitor`]. What a call means is decided by the
//! service; what a message looks like, by `vss-api`.
//!
//! A backup tool in one page:
//!
//! ```no_run
//! use std::path::{Path, PathBuf};
//! use vss_requester::model::{Consistency, VssError};
//! use vss_requester::{Backup, BackupRequest, Instance, Lifetime, Monitor, Requester, WriterChoice};
//!
//! /// Hears of every step. One that wants to be stopped by Ctrl-C answers `interruptions` with how often it was pressed.
//! struct Steps;
//!
//! impl Monitor for Steps {
//!     fn step(&mut self, step: &str) {
//!         eprintln!("{step}"); // for example: freezing: postgresql
//!     }
//!     fn waiting(&mut self, why: &str) {
//!         eprintln!("waiting: {why}"); // one set is made at a time on a machine
//!     }
//! }
//!
//! fn copy_files(from: &Path, into_archive_as: &Path) -> std::io::Result<()> {
//!     # let _ = (from, into_archive_as);
//!     Ok(()) // your own
//! }
//!
//! fn back_up(paths: &[PathBuf]) -> Result<(), VssError> {
//!     // The volumes that hold the paths, for as long as this process keeps the session.
//!     let request = BackupRequest {
//!         writers: WriterChoice::All,                  // or Named(vec!["postgresql".into()])
//!         require: Some(Consistency::FileSystem),      // the least that will do
//!         strict: true,                                // a writer that fails, fails the backup
//!         ..BackupRequest::of_paths("my-backup 1.0", Lifetime::Session, paths)?
//!     };
//!     let requester = Requester::connect(&Instance::default())?;
//!     let mut backup = Backup::create(requester, &request, &mut Steps)?;
//!     eprintln!("{}, writes were held for {} ms", backup.set().consistency, backup.set().hold_ms);
//!     for warning in backup.warnings() {
//!         eprintln!("warning: {warning}");             // with strict: false a failed writer is one
//!     }
//!
//!     // The files are read where the copy is mounted, read-only, and saved under their own names.
//!     let mut saved = Ok(());
//!     for path in paths {
//!         let copy = backup.copy_of(path)?;
//!         saved = saved.and(copy_files(&copy, path));
//!     }
//!
//!     // BackupComplete, or Abort: only now may writers truncate their logs.
//!     backup.finish(saved.is_ok(), &mut Steps)?;
//!     backup.delete()                                  // dropping it does the same, without waiting
//! }
//!
//! if let Err(error) = back_up(&["/srv/shop".into()]) {
//!     // A stable kind for programs, a sentence for people, and the way out.
//!     eprintln!("{} ({}). {}", error.message, error.code, error.hint);
//! }
//! ```
//!
//! The connection is the session's lease: when the process dies, the writers are told, and a set that lives as long as its
//! session is deleted. Errors are [`vss_model::VssError`] throughout; [`vss_model::VssCode::is_transient`] tells those that are
//! worth trying again after a while.

pub mod backup;
mod component_data;
pub mod components;
mod failure;
pub mod instance;
pub mod launch;
pub mod management;
pub mod monitor;
mod objects;
pub mod request;
pub mod requester;
pub mod volumes;

pub use backup::Backup;
pub use components::{ComponentChoice, WriterComponents};
pub use failure::unexpected_answer;
pub use instance::Instance;
pub use management::{Blocks, Following, Management};
pub use monitor::{Monitor, Quiet};
pub use request::{BackupRequest, Lifetime, WriterChoice};
pub use requester::Requester;

/// How far a copy is, for a [`Monitor`].
pub use vss_api::progress::CopyProgress;
/// The messages of the interface, for [`Requester`]'s calls.
pub use vss_api::requester as messages;
/// The words of the house: ids, error codes, records of sets.
pub use vss_model as model;

/// The code in the manual for authors of backup tools.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/requesters.md")]
struct Manual;
