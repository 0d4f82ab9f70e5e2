//! The boot after the machine was cut off in a hold (`cut_off.rs`): the units start with it, and nothing is left but what is to stay.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use rustix::mount::{MountFlags, mount};
use vss_tests::load::Load;
use vss_tests::systemd::{
    VSSD, guards, journal, management, property, service_pid, systemctl, vss, wait, wait_for_state,
};

use crate::cut_off::{COPIED, HELD, KEPT};
use crate::is_elsewhere;

#[test]
fn the_service_starts_with_the_machine_and_nothing_is_left() -> anyhow::Result<()> {
    if is_elsewhere("the_service_starts_with_the_machine_and_nothing_is_left", "rebooted") {
        return Ok(());
    }
    for unit in ["vssd-requester.socket", "vssd-writer.socket", VSSD, "vss-writers.service"] {
        wait_for_state(unit, "active")?;
    }
    ensure!(property(VSSD, "NRestarts")? == "0", "it was started more than once");
    let pid = service_pid()?;
    let ready = journal(&["--unit=vssd", &format!("VSS_PID={pid}")])?;
    ensure!(
        ready.iter().any(|entry| entry["MESSAGE"].as_str().is_some_and(|text| text.starts_with("ready"))),
        "{ready:?}"
    );

    // Their volumes were not there when it started, so it could not decide: that is said, and done by the next start.
    let recovery = management()?.status()?.recovery;
    println!("{recovery:?}");
    ensure!(recovery.iter().any(|line| line.contains("which was under way")), "the creation: {recovery:?}");
    ensure!(recovery.iter().all(|line| !line.contains("is thawed")), "a boot thaws by itself: {recovery:?}");
    ensure!(fs::read_dir("/run/vss/holds").map_or(0, Iterator::count) == 0, "a ledger is left");
    ensure!(guards()?.is_empty(), "{:?}", guards()?);

    for ((device, place), kind) in [(HELD, "ext4"), (COPIED, "btrfs")] {
        // Their driver is a module, which may come after us.
        ensure!(wait(|| Path::new(device).exists()), "there is no {device}");
        mount(device, place, kind, MountFlags::empty(), None).with_context(|| format!("mounting {device}"))?;
    }
    let load = Load::start(Path::new(HELD.1))?;
    ensure!(wait(|| load.writes() > 1), "the volume of the hold takes no writes");

    systemctl(&["restart", VSSD])?;
    let recovery = management()?.status()?.recovery;
    println!("{recovery:?}");
    ensure!(recovery.len() == 1 && recovery[0].contains("it was to live until reboot"), "{recovery:?}");
    let kept = fs::read_to_string(KEPT)?;
    let listed = vss(&["list", "shadows", "--json"])?.json()?;
    let shadows = listed["shadows"].as_array().map(Vec::as_slice).unwrap_or_default();
    ensure!(shadows.len() == 1 && shadows[0]["id"] == kept, "{listed}");
    fs::create_dir_all("/mnt/exposed")?;
    ensure!(vss(&["expose", &kept, "/mnt/exposed"])?.is_success());
    ensure!(fs::read_to_string("/mnt/exposed/file")? == "old" && fs::read_to_string("/mnt/copied/file")? == "new");
    Ok(())
}
