//! The stream of a shadow copy: its blocks, or those that changed since another copy, in a form that travels.
//!
//! ```text
//!  header  record  record ...  end
//!    |       |                  `- how many records, how many bytes of data, BLAKE3 of all that came before
//!    |       `- data: these bytes; zero: so many zeroes; unused: no file needs these any more
//!    `- which copy of which volume, how large, and since which copy
//! ```
//!
//! Here lives the format alone, over [`std::io::Read`] and [`std::io::Write`]: [`Header`], [`Writer`], [`Reader`]. Where the
//! blocks come from and what they are written to is the business of `vss export` and `vss import`. `docs/stream.md` has the
//! tables of bytes and the argument why a torn stream does no harm.
//!
//! Whatever comes in is an enemy's: nothing is taken before its checksum is right, no length is believed beyond its bound,
//! and every error says at which byte.

mod base;
mod error;
mod header;
mod reader;
mod record;
mod writer;

pub use base::{BaseHasher, BaseSum};
pub use error::{Fault, StreamError};
pub use header::{Header, LONGEST_HEADER, MAGIC, VERSION};
pub use reader::Reader;
pub use record::{DATA_BYTES, END_BYTES, RECORD_BYTES, Record, Summary};
pub use writer::Writer;
