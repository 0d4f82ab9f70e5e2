//! A writer that does what a description says: for the tests of requesters and of the service (spec R 12, spec P 6.5).
//!
//! It owns real files, keeps copies of them in a spit directory, deletes the originals after the cut so that only a backup out
//! of the shadow copy is whole, fails the event that it is told to fail, and says stamps, metadata, partial and differenced
//! files. What it was told is kept ([`Handle`]) for whoever watches.

mod description;
mod files;
#[cfg(feature = "description")]
mod table;
mod writer;

pub use description::{Deed, Description, Failing, Said, Sleeping};
#[cfg(feature = "description")]
pub use table::read;
pub use writer::{Handle, SimulatedWriter, Told};
