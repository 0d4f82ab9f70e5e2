//! The mirror provider: shadow copies of any mounted ext4 or XFS, with nothing set up beforehand.
//!
//! ```text
//!  begin_prepare  is it one device? where is room for its image?
//!  end_prepare    attach the tracer (vss-trace)                      writes go on all the time
//!                 round 1   flush, take the marks, ask what is free, copy what is in use      700 MB
//!                 round 2   flush, take the marks, ask what is free, copy what is marked      100 MB
//!                 ...                                                                          20 MB
//!                 until little is left, or what is left can be read in the hold (rounds.rs)     4 MB
//!  pre_commit     once more, at most 2 s; threads, memory and lists for the hold
//!  commit         HELD: take the marks, read those blocks into locked memory, look for late marks
//!  post_commit    write them to the image; the image is the volume at one instant: copy it by sharing its blocks, or lend it
//!  pre_final      mount the copy writable, if it has to be mended or a writer asks for it; what is mended is traced too
//!  post_final     seal it, write down what changed
//! ```
//!
//! The image and the tracer stay (the *running mirror*): the next copy begins with round 2. Where the tracer cannot be trusted
//! (`trust.rs`), everything is compared.
//!
//! No write is lost: marks are taken before blocks are read (`vss-trace`, `lib.rs`), what was taken and not copied is put back
//! whatever happens (`member.rs`), and what is free need not be read (`used.rs`).
//!
//! | file | what it knows |
//! |---|---|
//! | `provider.rs` | the contract: phases, mount, delete |
//! | `creation.rs` | one set in creation: rounds over all its volumes |
//! | `member.rs`, `cut.rs`, `mending.rs` | one volume of it: what is marked, owed, read; its cut; what comes after |
//! | `rounds.rs`, `refusal.rs` | when to hold, where the rounds lead; the words when they lead nowhere |
//! | `outlook.rs`, `look.rs` | what a copy would take; how much is written just now |
//! | `copier.rs` | reading and writing while applications work |
//! | `hold.rs` | reading while writes are held |
//! | `source.rs`, `used.rs` | the volume, and which blocks of it are in use |
//! | `mirror.rs`, `kept.rs`, `record.rs` | the running mirror on disk, and what is remembered of it |
//! | `place.rs` | where images lie |
//! | `reading.rs` | who reads an image |
//! | `identity.rs`, `trust.rs` | is the image the one that was left; may the marks be trusted |
//! | `tracer.rs` | the tracer is opened, begun and ended |
//! | `changes.rs`, `blocks.rs` | which blocks changed between copies |
//! | `revert.rs`, `device.rs` | putting a volume back; which device it is |
//! | `storage.rs` | mirrors that are kept, and their end |
//! | `fault.rs` | for tests: where the process is killed |
//! | `reference.rs` | for tests: what the volume was in the hold |
//! | `teller.rs` | how far it is |

mod blocks;
mod changes;
mod copier;
mod creation;
mod cut;
mod device;
mod fault;
mod hold;
mod identity;
mod kept;
mod look;
mod member;
mod mending;
mod mirror;
mod outlook;
mod place;
mod provider;
mod reading;
mod record;
#[cfg(feature = "fault-injection")]
mod reference;
mod refusal;
mod revert;
mod rounds;
mod source;
mod storage;
mod teller;
mod tracer;
mod trust;
mod used;

pub use provider::{MirrorOptions, MirrorProvider};
