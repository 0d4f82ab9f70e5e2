//! A mount whose program never answers delays nobody who does not name it: no list, no check, no set.

use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;
use vss_tests::instance::Instance;
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::stalling::StallingDisk;
use vss_tests::traces;
use vss_tests::turn::creation_turn;
use vss_tests::volume::Mounted;

/// A question that asks the hung mount would take 45 s; one that does not, milliseconds.
const AT_ONCE: Duration = Duration::from_secs(20);

#[test]
fn a_hung_fuse_mount_delays_no_list_no_check_and_no_set() -> anyhow::Result<()> {
    let test = "a_hung_fuse_mount_delays_no_list_no_check_and_no_set";
    if LoopFs::skips(test, &[Kind::Ext4]) {
        return Ok(());
    }
    if let Some(why) = StallingDisk::missing() {
        println!("SKIPPED: {test}: {why}");
        return Ok(());
    }
    let disk = StallingDisk::new(64)?;
    let _turn = creation_turn();
    let mut instance = Instance::new()?;
    let fake = json!({"store": traces::fake_store(&instance), "policy": "needs_hold"});
    instance.set("VSS_FAKE", fake.to_string());
    let volume = LoopFs::new(Kind::Ext4, 64)?;
    let covered = LoopFs::new(Kind::Ext4, 32)?;
    // A disk that is mounted where the hung mount covers the way to it.
    let hiding = Mounted::bind(covered.path(), &disk.beside().join("hidden/disk"))?;
    let cover = Mounted::bind(&disk.mount_point(), &disk.beside().join("hidden"))?;
    instance.start()?;

    let stall = disk.stall()?;
    ensure!(hangs(&disk.mount_point()), "the mount answers: this test would show nothing");
    let name = volume.path().to_string_lossy();
    for words in [
        &["list", "volumes", "--json"][..],
        &["check", &name, "--json"],
        &["create", &name, "--json"],
        &["list", "shadows", "--json"],
        &["run", "--volume", &name, "--", "true"],
    ] {
        let asked = Instant::now();
        let outcome = instance.vss(words)?;
        let took = asked.elapsed();
        println!("vss {} beside a hung mount: {took:?}", words[..2].join(" "));
        ensure!(outcome.is_success() && took < AT_ONCE, "{words:?} took {took:?}: {outcome:?}");
        let is_list = words[1] == "volumes";
        ensure!(!is_list || outcome.stdout.contains(&*name), "the volume is not listed: {outcome:?}");
        ensure!(!outcome.stdout.contains("/hidden/disk"), "what cannot be seen is listed: {outcome:?}");
    }
    drop(stall);
    ensure!(instance.vss(["delete", "--all"])?.is_success());
    drop((cover, hiding));
    traces::has_no_markers(&instance)
}

/// True when a stat of it does not come back; the thread does when the disk answers.
fn hangs(path: &Path) -> bool {
    let (tell, told) = mpsc::channel();
    let path = path.to_owned();
    thread::spawn(move || tell.send(fs::metadata(path).is_ok()));
    told.recv_timeout(Duration::from_millis(500)).is_err()
}
