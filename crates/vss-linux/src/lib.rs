//! System calls, safe to use: freezing, mounts, swap space, btrfs, block and loop devices, free space, shared blocks, memory
//! in pages, processes and their credentials.
//!
//! Here lives all `unsafe` of the project, each place with the reason why it is sound, and what vssd and its guard share
//! about a hold ([`hold`]: protocol, ledger, sweep). What a call is for is decided on the floors above; nothing here knows
//! a session, a writer or a provider.

pub mod aio;
pub mod block_device;
pub mod btrfs;
pub mod child;
pub mod clock;
pub mod device_use;
pub mod ext4;
pub mod fiemap;
pub mod flock;
pub mod freeze;
pub mod fs_uuid;
pub mod fsmap;
pub mod hold;
pub mod inherited;
pub mod loop_device;
pub mod mount;
pub mod mountinfo;
pub mod pages;
pub mod peer;
pub mod process;
pub mod reflink;
pub mod statfs;
pub mod swaps;
pub mod user;
pub mod write_back;
