//! The reflink provider: shadow copies of ext4 and XFS volumes that lie in an image file, by sharing the image's blocks.
//!
//! The image is attached to a loop device and lies on XFS with reflink, or on btrfs: the *outer* file system. Commit is one
//! FICLONE a volume, from the image to a file that was made and opened before, while the *inner* file system is held. The
//! outer one must flow: a FICLONE on a frozen file system waits for ever, and cannot be killed.
//!
//! The copy is the file `.vss/<shadow-id>.image` at the top of the outer file system ([`vss_provider::store`]). It belongs to
//! this copy alone, so it can be written to: PreFinal attaches and mounts it, which replays the log of XFS and ends orphans
//! of ext4; writers mend what they must; PostFinal makes it read-only: file system clean, mode 0400, immutable. From then on
//! every mount has a read-only loop device of its own. The cost of the cut grows with the pieces that the image lies in
//! (`cost.rs`). What a copy in an image file is, and the file system that it lies on, stands in `vss-provider`
//! ([`vss_provider::image_copy`], [`vss_provider::outer`]).
//!
//! | file | what it knows |
//! |---|---|
//! | `provider.rs` | the contract: phases, mount, delete |
//! | `creation.rs` | one set in creation: what is open for it, what was cut |
//! | `image.rs` | the image of a volume: which file, what stands in the way |
//! | `cost.rs` | how long a cut will take |

mod cost;
mod creation;
mod image;
mod provider;

pub use cost::forecast;
pub use provider::{ReflinkOptions, ReflinkProvider};
