//! The interface: three Varlink interfaces, their messages, the connection loop and a blocking client (design 2.4).
//!
//! Here live the messages as Rust types ([`requester`], [`writer`], [`management`] with [`blocks`] and [`documents`]), their IDL with the meaning and the
//! errors of every method ([`interface`]), our own connection loop with its bounds ([`server`]) and a blocking client
//! ([`client`]). What a call means is not here: the conductor (`vss-service`) answers, and knows no transport.

pub mod blocks;
pub mod client;
pub mod documents;
pub mod error;
pub mod event;
mod frames;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod interface;
pub mod management;
pub mod objects;
mod parameters;
pub mod progress;
pub mod requester;
pub mod server;
pub mod writer;

pub use error::ErrorParameters;
pub use frames::{MESSAGE_BYTES, MESSAGE_FDS};

/// No parameters, or nothing in the reply: `{}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Empty {}
