//! Mirrors of a virtio disk, whose driver has requests, and of a dm-linear volume, which has none.

use std::path::Path;

use anyhow::ensure;
use vss_tests::loopfs::Kind;
use vss_tests::mirror::{Loads, Scene, Storage, Volume};
use vss_tests::tracing;

use super::{FIRST_DISK, Mapped, run};
use crate::is_elsewhere;

/// Two mirrors under load: the first reads everything, the second what changed. Both are compared with the volume in the hold.
fn is_mirrored(test: &str, kind: Kind, device: &Path, storage: Kind) -> anyhow::Result<()> {
    if tracing::skips(test, &[kind, storage]) || tracing::lacks(test, "fio") {
        return Ok(());
    }
    let mut scene = Scene::new(Volume::on(kind, device)?, Storage::Other(storage))?;
    // As much as a guest on a busy machine keeps up with.
    let loads = Loads::buffered(&scene.volume().path().join("data"), 16, 2)?;
    for _ in 0..2 {
        let judged = scene.judged()?;
        println!("{}: {} chunks written, held for {} ms", device.display(), judged.written, judged.hold_ms);
        ensure!(judged.wrong.is_empty(), "{judged:?}");
    }
    loads.finish()?;
    scene.end()
}

#[test]
fn a_virtio_disk_is_mirrored() -> anyhow::Result<()> {
    let test = "a_virtio_disk_is_mirrored";
    if is_elsewhere(test, "lane") {
        return Ok(());
    }
    is_mirrored(test, Kind::Xfs, Path::new(FIRST_DISK), Kind::Xfs)
}

#[test]
fn a_device_mapper_volume_is_mirrored() -> anyhow::Result<()> {
    let test = "a_device_mapper_volume_is_mirrored";
    if is_elsewhere(test, "lane") {
        return Ok(());
    }
    let sectors = run("blockdev", &["--getsz", FIRST_DISK])?;
    let volume = Mapped("vss-mirrored");
    run("dmsetup", &["create", volume.0, "--table", &format!("0 {} linear {FIRST_DISK} 0", sectors.trim())])?;
    is_mirrored(test, Kind::Ext4, &volume.path(), Kind::Ext4)
}
