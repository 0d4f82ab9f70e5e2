//! The conductor: sessions, sagas, the freeze window, the catalogue, exposure and recovery (design 4).
//!
//! The way of one request: `api/door.rs` (credentials) -> `coordinator.rs` -> `api/requester.rs` -> `vss-session` (what
//! may happen) -> `jobs.rs` -> `sagas/create_set.rs` -> `writers/`, `freeze_window.rs` (with `guard/`), providers ->
//! `catalogue/` -> `exposure.rs`. Concrete providers and writers are named by the daemon's wiring only.

pub mod api;
pub mod blocking;
pub mod catalogue;
pub mod check;
pub mod config;
pub mod coordinator;
pub mod creation_lock;
pub mod documents;
pub mod environment;
pub mod events;
pub mod exposure;
pub mod fault;
pub mod freeze_window;
pub mod guard;
pub mod guard_hold;
pub mod hold_trace;
pub mod inbox_writers;
pub mod jobs;
pub mod mount_graph;
pub mod operation;
pub mod providers;
pub mod recovery;
pub mod removal;
pub mod request_queue;
pub mod reverts;
pub mod rules;
pub mod sagas;
pub mod service;
pub mod sessions;
pub mod set_watcher;
pub mod storage;
pub mod volumes;
pub mod writers;
