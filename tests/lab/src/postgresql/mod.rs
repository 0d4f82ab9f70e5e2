//! PostgreSQL: clusters of one's own under load, the ways in which people copy them, and the judgement of a copy.
//!
//! The system's own clusters are not touched: every [`Cluster`] has its directories, its socket and its port.

pub mod cluster;
pub mod copies;
pub mod load;
mod programs;
pub mod session;
pub mod verify;

pub use cluster::{Cluster, Stop};
pub use programs::missing;
