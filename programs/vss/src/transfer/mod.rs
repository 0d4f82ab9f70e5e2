//! A copy's blocks on their way: from its image into a stream ([`send`]), and from a stream into an image file or a device
//! ([`receive`]). The stream itself is `vss-stream`'s.

mod held;
mod place;
mod receive;
mod send;
mod target;

pub(crate) use held::{Decision, Held, decide};
pub(crate) use place::put_in_place;
pub(crate) use receive::{apply, in_words, unreadable, verify};
pub(crate) use send::{Image, Plan, send};
pub(crate) use target::Target;
