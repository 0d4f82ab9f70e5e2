//! The requester's side of the interface: a blocking client with typed calls, the order of calls of one backup, and the
//! start of the service on demand (design 2.3).
//!
//! The library prints nothing: what happens is told to a [`Monitor`]. What a call means is decided by the service; what a
//! message looks like, by `vss-api`.

pub mod backup;
mod failure;
pub mod instance;
pub mod launch;
pub mod management;
pub mod monitor;
pub mod requester;

pub use backup::{Backup, BackupRequest, WriterChoice};
pub use instance::Instance;
pub use management::Management;
pub use monitor::{Monitor, Quiet};
pub use requester::Requester;
