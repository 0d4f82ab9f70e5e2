//! Mirrors of volumes that programs write to, over the wire: each image is the volume at one instant, block for block, and its
//! file system is whole.

use anyhow::ensure;
use vss_tests::loopfs::Kind;
use vss_tests::mirror::{Loads, Scene, Storage, Volume};
use vss_tests::postgresql::load_turn;
use vss_tests::scale::rounds;
use vss_tests::tracing;

/// Of the files that fio writes to.
const LOAD_MIB: u64 = 36;

/// True (and says so) when a test cannot run here.
fn skips(test: &str, kinds: &[Kind]) -> bool {
    tracing::skips(test, kinds)
        || ["fio", "stress-ng"].iter().any(|program| tracing::lacks(test, program))
        || vss_tests::postgresql::skips(test)
}

/// Makes mirrors of the volume under all the loads.
fn under_load(volume: Volume, storage: Storage) -> anyhow::Result<()> {
    // Two processors are not enough for all the loads of all the tests.
    let _turn = load_turn();
    let mut scene = Scene::new(volume, storage)?;
    let mut loads = Loads::start(scene.volume().path(), LOAD_MIB, true)?;
    // The five tests together: 10 every day, 200 in a soak.
    for round in 1..=rounds(2, 40) {
        let judged = scene.judged()?;
        println!(
            "{round}: {} chunks written, {} wrong, held for {} ms",
            judged.written,
            judged.wrong.len(),
            judged.hold_ms
        );
        ensure!(judged.wrong.is_empty(), "chunks {:?} are not what they were in the hold", judged.wrong);
        loads.are_running()?;
    }
    loads.finish()?;
    scene.end()
}

#[test]
fn ext4_with_its_images_on_xfs() -> anyhow::Result<()> {
    if skips("ext4_with_its_images_on_xfs", &[Kind::Ext4, Kind::Xfs]) {
        return Ok(());
    }
    under_load(Volume::whole(Kind::Ext4, 500)?, Storage::Other(Kind::Xfs))
}

#[test]
fn xfs_with_its_images_on_btrfs() -> anyhow::Result<()> {
    if skips("xfs_with_its_images_on_btrfs", &[Kind::Xfs, Kind::Btrfs]) {
        return Ok(());
    }
    under_load(Volume::whole(Kind::Xfs, 600)?, Storage::Other(Kind::Btrfs))
}

#[test]
fn a_partition_with_its_image_on_ext4() -> anyhow::Result<()> {
    if skips("a_partition_with_its_image_on_ext4", &[Kind::Ext4]) {
        return Ok(());
    }
    under_load(Volume::partition(Kind::Ext4, 500)?, Storage::Other(Kind::Ext4))
}

#[test]
fn ext4_with_its_image_on_itself() -> anyhow::Result<()> {
    if skips("ext4_with_its_image_on_itself", &[Kind::Ext4]) {
        return Ok(());
    }
    under_load(Volume::whole(Kind::Ext4, 1200)?, Storage::Itself)
}

#[test]
fn xfs_with_its_images_on_itself() -> anyhow::Result<()> {
    if skips("xfs_with_its_images_on_itself", &[Kind::Xfs]) {
        return Ok(());
    }
    under_load(Volume::whole(Kind::Xfs, 1500)?, Storage::Itself)
}
