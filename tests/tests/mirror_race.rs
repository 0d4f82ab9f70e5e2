//! The race of a late write with its copy, through the whole provider: a volume on a disk whose writes take 2 to 30 ms and are
//! half done in the middle of that, mirrored while 16 direct writes are under way at any time.
//!
//! Without the marks at the completion of writes images must be wrong: a test that such a mirror passes shows nothing.

use std::thread;
use std::time::Duration;

use anyhow::ensure;
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::mirror::{Loads, Scene, Storage, Volume};
use vss_tests::postgresql::load_turn;
use vss_tests::scale::rounds;
use vss_tests::stalling::StallingDisk;
use vss_tests::tracing::{self, run, set_direct};

/// Of the disk.
const MIB: u64 = 96;
/// Of the file that is written to, each block once: a loss is not made good by a later write.
const FILE_MIB: u64 = 24;
/// The writes are under way by then.
const WARM: Duration = Duration::from_millis(400);

fn skips(test: &str) -> bool {
    let missing = StallingDisk::missing();
    if let Some(why) = &missing {
        println!("SKIPPED: {test}: {why}");
    }
    missing.is_some() || tracing::skips(test, &[Kind::Ext4, Kind::Xfs]) || tracing::lacks(test, "fio")
}

/// How many blocks of each image are wrong, up to the first of which some are.
fn wrong_blocks(trials: u32, fault: Option<&str>) -> anyhow::Result<Vec<usize>> {
    let _turn = load_turn();
    let disk = StallingDisk::new(MIB)?;
    let volume = LoopFs::new_on(&disk.image(), Kind::Ext4)?;
    set_direct(volume.device())?;
    let file = volume.path().join("data");
    run(std::process::Command::new("dd")
        .args(["if=/dev/urandom", "bs=1M", "conv=fsync"])
        .arg(format!("count={FILE_MIB}"))
        .arg(format!("of={}", file.display())))?;
    let mut scene = Scene::new(Volume::of(Kind::Ext4, volume), Storage::Other(Kind::Xfs))?;
    if let Some(fault) = fault {
        scene.instance.set("VSS_MIRROR_FAULT", fault);
    }
    let mut wrong = Vec::new();
    for _ in 0..trials {
        disk.set_slow(true)?;
        let loads = Loads::direct_once(&file, FILE_MIB)?;
        thread::sleep(WARM);
        let judged = scene.judged()?;
        drop(loads);
        disk.set_slow(false)?;
        println!("{} of {} blocks are wrong, held for {} ms", judged.wrong.len(), judged.written, judged.hold_ms);
        wrong.push(judged.wrong.len());
        if !judged.wrong.is_empty() {
            break;
        }
    }
    scene.end()?;
    Ok(wrong)
}

#[test]
fn late_writes_are_in_the_image() -> anyhow::Result<()> {
    if skips("late_writes_are_in_the_image") {
        return Ok(());
    }
    let wrong = wrong_blocks(rounds(4, 100), None)?;
    ensure!(wrong.iter().all(|wrong| *wrong == 0), "{wrong:?}");
    Ok(())
}

#[test]
fn without_marks_at_the_completion_late_writes_are_lost() -> anyhow::Result<()> {
    if skips("without_marks_at_the_completion_late_writes_are_lost") {
        return Ok(());
    }
    // One of two to one of eight, the fewer the busier the machine is; the first ends it.
    let wrong = wrong_blocks(40, Some("without-completions"))?;
    ensure!(wrong.iter().any(|wrong| *wrong > 0), "the race is not met, so that the other test shows nothing");
    Ok(())
}
