//! vss-linux
pub mod child;
pub mod clock;
pub mod freeze;
pub mod hold;
pub mod inherited;
pub mod loop_device;
pub mod peer;
pub mod process;
pub mod btrfs;
pub mod fs_uuid;
pub mod mount;
pub mod mountinfo;
pub mod statfs;
