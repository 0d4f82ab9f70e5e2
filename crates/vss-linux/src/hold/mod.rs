//! Holding the writes of several file systems at one instant, safely: what the guard, the service's backup of the guard
//! and the sweep at the next start have in common.
//!
//! ```text
//!   vssd (crate vss-service, module guard)            vss-guard (one per shadow copy set)
//!     supervisor, backup threads   --- channel --->     one thread per member: syncfs, FIFREEZE, FITHAW
//!           |                      <-- protocol ---          |
//!           |  reads, marks                                  |  writes, locks
//!           +-------------------> ledger <-------------------+
//!                                   ^
//!                                   +--- sweep (the next start of vssd, when both were killed)
//! ```
//!
//! The thread that freezes a file system is the one that thaws it, because FITHAW beside a running FIFREEZE answers
//! EINVAL and the freeze completes afterwards. The ledger names, for each member, whether a freeze may be ours; nothing
//! else is ever thawed by anybody. And nobody calls FITHAW while the guard's own call on that file system may be running: it
//! would wait behind it, uninterruptibly, and a process with such a thread keeps its locks even when it is killed.
//!
//! Not here: who asks for a hold, and what is done while it lasts.

pub mod channel;
pub mod expedite;
mod find;
pub mod identity;
pub mod ledger;
pub mod protocol;
pub mod sweep;
pub mod thaw;
pub mod threads;

use std::time::Duration;

/// A hold ends by itself so long after the first FIFREEZE. The figure is that of VSS, where it is not configurable
/// either (spec, requesters and writers, 8: "10 s from hold to release").
pub const HOLD_LIMIT: Duration = Duration::from_secs(10);

/// So long a FIFREEZE that finds the file system frozen (EBUSY) is repeated: a device-mapper suspend passing by lasts
/// less than a second.
pub const BUSY_LIMIT: Duration = Duration::from_secs(2);

/// Pause between two such tries.
pub const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// A guard is late when a member is still held so long after its deadline. Then others thaw for it.
pub const LATE_AFTER: Duration = Duration::from_secs(1);

/// Between two tries to thaw a member whose guard has not ended yet.
pub const THAW_PAUSE: Duration = Duration::from_millis(100);

/// Most members of one hold: the number of volumes that VSS allows in a shadow copy set.
pub const MAX_MEMBERS: usize = 64;

/// The directory of the ledgers, inside the runtime directory.
pub const LEDGER_DIRECTORY: &str = "holds";
