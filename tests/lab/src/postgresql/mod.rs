//! PostgreSQL: clusters of one's own under load, the ways in which people copy them, and the judgement of a copy.
//!
//! The system's own clusters are not touched: every [`Cluster`] has its directories, its socket and its port.

pub mod cluster;
mod programs;
pub mod session;

pub use cluster::{Cluster, Stop};
pub use programs::missing;
