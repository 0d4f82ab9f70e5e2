//! Tracing, in the kernel, which blocks of a mounted volume are written: what the mirror copies again.
//!
//! ```text
//!  programs on tracepoints (bpf/trace.bpf.c)          this crate, in any process
//!  bio queued    -> mark                              Tracer::take:   bits -> Bitmap, bits cleared
//!  request issued -> mark           bits, counters    Tracer::mark:   Bitmap -> bits
//!  completed     -> mark           (shared memory)    Tracer::counters, balance, distrust
//! ```
//!
//! [`Tracer`] attaches the programs and pins them, so that they go on when the process ends, and are found again; [`Target`]
//! says which sectors of which disk; [`Bitmap`] is a set of chunks; [`Counters`] says whether the bits can be trusted. What is
//! copied when, and what a hold is, is decided on the floors above.
//!
//! # Why no write is missed
//!
//! The race: a write is queued and marked; the mark is taken; the block is read, and still has its old content; then the write
//! reaches the device. Marks at the queue alone lose it. So writes are marked when they **complete**, too:
//!
//! Let a reader take the mark of a block and then read the block, and let a write to it complete
//! - before the mark is taken: its data are on the device by then, and the read has them;
//! - after the mark was taken: its completion marks the block again, and a later round reads it.
//!
//! The last round is in a hold. A file system is frozen only when all its writes have completed, and a completion is traced
//! before whoever waits for it is told. So when FIFREEZE has returned, every write is one of the two, and what the last
//! `take` gives is all that is missing.
//!
//! A program leaves a bit alone that is set already. It looks after the completion it was called for; what it saw is taken
//! after that look, and read after that: the first of the two cases.
//!
//! Where the range of a completion comes from: a request says it. A device without requests (device-mapper, zram) ends the bio
//! that it was given, but may have moved its iterator, so the range is remembered when the bio is queued.
//!
//! # What is distrusted
//!
//! What cannot be marked is counted ([`Counters::distrust`]): beginnings of writes at which the program was running already on
//! that CPU, writes of a device without requests that were under way at the attach or that were too many to be remembered, and
//! commands that pass the block layer by.
//!
//! Ends at which the program was running already are counted apart. They are no rarity where one disk is completed by a thread
//! (loop) and another by an interrupt that comes in between. Which writes may have been meant is known, as all of them were seen
//! queued: they are dealt with as those of the next paragraphs ([`Distrust::is_of_ends`]).
//!
//! The argument rests on each completion reaching the program, and the kernel does not promise that. One was seen that did not
//! always: a completion is handled in an interrupt, and when that interrupted a thread of process 1, the programs were not
//! called and no miss was counted, while the same tracepoint's events in tracefs were all there. In 14 runs of 131072 direct
//! writes, each of another block, with marks at completions only, 165 blocks were not marked: all 165 completions came on top
//! of such a thread, and not one of the 1.8 million others was lost. `tests/tests/tracer.rs` counts the same in its soak. What
//! kernels do so, and why, is open; so this is expected of any:
//!
//! - writes are marked when they are queued and when they are issued too, in the context of who writes;
//! - [`Counters::balance`]: at rest, as many sectors have been completed as were queued. If not, everything that was queued since
//!   the last moment of rest is suspect, [`Tracer::queued_since_balance`] has it, and has to be read again at rest.
//!
//! What stays: a thread for which programs are never called and that writes past the page cache itself. Neither end of such a
//! write is seen unless another thread has a part in it, and the balance is right.
//!
//! Not seen, and for the caller to rule out: writes to a disk below a device that is traced, or another table of device-mapper
//! there; a file system that spans devices; a
//! device that was resized; passthrough commands that send no data and write all the same (NVMe Write Zeroes).

mod available;
mod bitmap;
mod counters;
mod error;
mod kernel;
mod layout;
mod load;
mod pins;
mod target;
mod tracer;

pub use available::available;
pub use bitmap::{Bitmap, Runs};
pub use counters::{Counters, Distrust};
pub use error::TraceError;
#[cfg(feature = "fault-injection")]
pub use load::Marks;
pub use pins::Pins;
pub use target::Target;
pub use tracer::{ProgramRuns, Tracer};
