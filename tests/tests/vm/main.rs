//! What takes a machine of its own: a kernel with device-mapper, and a systemd that may be stopped, filled with units and cut off.
//!
//! `cargo xtask test --vm` boots the machines and runs each module in its own (`VSS_VM_GUEST` says which it is); everywhere else
//! the tests say that they are left out. One binary, so that a machine is booted once for all that is tested in it.

mod cut_off;
mod lane;
mod rebooted;
mod systemd;

/// True, and says so, when this is not the guest that a test is for.
fn is_elsewhere(test: &str, guest: &str) -> bool {
    let is_elsewhere = std::env::var("VSS_VM_GUEST").as_deref() != Ok(guest);
    if is_elsewhere {
        println!("SKIPPED: {test}: runs in a virtual machine (cargo xtask test --vm)");
    }
    is_elsewhere
}
