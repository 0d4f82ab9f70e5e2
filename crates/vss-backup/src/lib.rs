//! Backups in a directory: the engine behind `vss backup`, `vss verify` and `vss restore`.
//!
//! Here live the choice of files, the copying, the manifest and what is done with a finished backup. Nothing here talks to
//! the service: a caller says where each volume's shadow copy can be read. The layout is told in `docs/backup-directory.md`.

mod attributes;
pub mod base;
pub mod chain;
pub mod components;
mod data;
pub mod digest;
mod dir_chain;
pub mod directory;
pub mod documents;
pub mod entry;
mod failure;
mod lock;
pub mod make;
mod manifest;
pub mod order;
pub mod pattern;
pub mod progress;
mod ranges_file;
pub mod restore;
pub mod selection;
mod target;
pub mod tree;
pub mod verify;
mod walk;

pub use tree::Tree;
