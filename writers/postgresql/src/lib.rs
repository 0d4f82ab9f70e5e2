//! The PostgreSQL writer: running clusters of one user, copied so that a second server starts on them with nothing lost.
//!
//! ```text
//!  Identify          the user's running clusters: one component each, with pg_wal and tablespaces below it     discovery.rs
//!  PrepareSnapshot   are all files in the set, and cut at one instant?                                         span.rs
//!                    yes: CHECKPOINT            no: pg_backup_start on a connection that is held               connection.rs
//!  Freeze, Thaw      nothing: writes that go on between the cuts are what backup mode is for
//!  PostSnapshot      pg_backup_stop; backup_label, tablespace_map and the WAL since the start into the copy    backup_mode.rs, mending.rs
//!  Abort             the connection ends, and with it backup mode
//! ```
//!
//! Here live what the writer knows of PostgreSQL's files and functions. Who runs it as which user, and when it registers,
//! is the business of `programs/vss-writers`. It runs as the user that owns the clusters and logs in as that user (peer
//! authentication over the unix socket); [`Sources::owners`] is the one thing that is meant for root.

mod backup_mode;
mod cluster;
mod connection;
mod control_file;
mod discovery;
mod mending;
mod pid_file;
mod small_file;
mod span;
mod wal;
mod writer;

pub use cluster::Cluster;
pub use discovery::{Owner, Sources};
pub use writer::PostgresqlWriter;
