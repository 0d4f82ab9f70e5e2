//! The last that happens before the power of the machine is cut off: copies that are to stay and to go, a creation that is under
//! way, a volume that is frozen with nobody left to thaw it. What the next boot makes of it is in `rebooted.rs`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use rustix::mount::{MountFlags, mount};
use vss_tests::systemd::{Service, VSSD, guards, systemctl, vss, wait, wait_for_state};

use crate::is_elsewhere;

/// Where the volumes are mounted before and after.
pub(crate) const HELD: (&str, &str) = ("/dev/vda", "/mnt/held");
pub(crate) const COPIED: (&str, &str) = ("/dev/vdb", "/mnt/copied");

/// Where the test remembers the copy that is to stay.
pub(crate) const KEPT: &str = "/var/lib/vss-test-kept";

#[test]
fn copies_and_a_hold_are_left_behind() -> anyhow::Result<()> {
    if is_elsewhere("copies_and_a_hold_are_left_behind", "cut_off") {
        return Ok(());
    }
    for ((device, place), kind) in [(HELD, "ext4"), (COPIED, "btrfs")] {
        ensure!(wait(|| Path::new(device).exists()), "there is no {device}");
        let made = Command::new(format!("mkfs.{kind}")).arg("-q").arg(device).status()?;
        ensure!(made.success(), "mkfs.{kind} {device}: {made}");
        fs::create_dir_all(place)?;
        mount(device, place, kind, MountFlags::empty(), None)?;
        fs::write(Path::new(place).join("file"), "old")?;
    }
    let create = |more: &[&str]| vss(&[&["create", COPIED.1, "--json"], more].concat())?.json();
    let kept = create(&["--persistent"])?;
    create(&[])?;
    fs::write(Path::new(COPIED.1).join("file"), "new")?;
    fs::write(KEPT, kept["shadows"][0]["id"].as_str().context("an id")?)?;
    let listed = vss(&["list", "shadows", "--json"])?.json()?;
    ensure!(listed["shadows"].as_array().is_some_and(|shadows| shadows.len() == 2), "{listed}");
    // Everything so far is on disk; the rest is as the cut leaves it.
    rustix::fs::sync();

    systemctl(&["stop", "vss-writers.service"])?;
    // The next boot has the provider still, to undo what it may have made, and the fault no more.
    fs::create_dir_all("/etc/systemd/system/vssd.service.d")?;
    let provider = "[Service]\nEnvironment='VSS_FAKE={\"policy\": \"needs_hold\"}'\n";
    fs::write("/etc/systemd/system/vssd.service.d/provider.conf", provider)?;
    rustix::fs::sync();
    // Not ended by its drop: the machine ends before.
    let service = std::mem::ManuallyDrop::new(Service::that_stays_dead(&[("VSS_FAULT", "commit:kill-both")])?);
    let outcome = vss(&["create", HELD.1])?;
    ensure!(outcome.code == Some(1), "{outcome:?}");
    wait_for_state(VSSD, "failed")?;
    ensure!(guards()?.is_empty(), "{:?} lives", guards()?);
    let ledgers = fs::read_dir("/run/vss/holds")?.count();
    ensure!(ledgers == 1, "{ledgers} ledgers; {service:?}");
    Ok(())
}
