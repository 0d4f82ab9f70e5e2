//! The btrfs provider: shadow copies are snapshots of subvolumes, made by ioctl.
//!
//! The copies lie in the directory `.vss` of the top level subvolume ([`vss_provider::store`]), reached through a mount that
//! exists only while a call needs it. A copy is `.vss/<shadow-id>.0`, those of the subvolumes nested in it are `.vss/<shadow-id>.1` and on, and their places
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
//! | `store.rs` | what is in the directory `.vss` |
//! | `nested.rs` | subvolumes nested in a volume |

mod creation;
mod cut;
mod file_system;
mod nested;
mod provider;
mod store;

pub use provider::{BtrfsOptions, BtrfsProvider};
