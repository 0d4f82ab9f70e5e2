//! Backups in a directory: the engine behind `vss backup`, `vss verify` and `vss restore`.
//!
//! Here live the choice of files, the copying, the manifest and what is done with a finished backup. Nothing here talks to
//! the service: a caller says where each volume's shadow copy can be read. The layout is told in `docs/backup-directory.md`.

pub mod digest;
pub mod entry;
pub mod order;
pub mod pattern;
