//! The btrfs provider: shadow copies are snapshots of subvolumes, made by ioctl.
//!
//! The copies lie in a plain directory `.vss` (root, 0700) of the top level subvolume, reached through a mount that is
//! attached nowhere and exists only while a call needs it; the directory comes with the first copy and goes with the last.
//! A copy is `.vss/<shadow-id>.0`, those of the subvolumes nested in it are `.vss/<shadow-id>.1` and on, and their places
//! are listed in the file `.vss/<shadow-id>.nested`. So whatever a crash leaves says whose it is, and everything of a copy
//! is found from its id alone.
//!
//! What is not in a copy: a nested subvolume that appeared after PreCommit or vanished before its cut, and one that holds a
//! swap file in use (the kernel snapshots none); its place is an empty directory then.
//!
//! | file | what it knows |
//! |---|---|
//! | `provider.rs` | the contract: phases, state, mount, delete |
//! | `creation.rs` | one set in creation: what was opened, what was cut |
//! | `cut.rs` | the cut: several file systems at once, each one's subvolumes in order |
//! | `file_system.rs` | reaching the top level subvolume of a file system, mounted or not |
//! | `store.rs` | the directory `.vss` |
//! | `nested.rs` | subvolumes nested in a volume |
//! | `space.rs` | how much must be free |
//! | `failure.rs` | the kernel's errors in the words of the contract |

mod creation;
mod cut;
mod failure;
mod file_system;
mod nested;
mod provider;
mod space;
mod store;

pub use provider::{BtrfsOptions, BtrfsProvider};
pub use space::least_free;
