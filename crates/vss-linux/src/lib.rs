//! vss-linux
pub mod clock;
pub mod freeze;
pub mod hold;
pub mod loop_device;
pub mod process;
