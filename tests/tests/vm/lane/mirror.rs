//! Mirrors of a virtio disk, whose driver has requests, and of a dm-linear volume, which has none.

use std::fs;
use std::path::Path;

use anyhow::ensure;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use vss_tests::loopfs::Kind;
use vss_tests::mirror::{Loads, Scene, Storage, Volume};
use vss_tests::tracing;

use super::{FIRST_DISK, Mapped, run, text};
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

/// As LVM does it when it merges a snapshot: the device stays, and its table and what lies below it become others and then the
/// same again. No write of that is one to the device.
#[test]
fn what_is_exchanged_below_an_unmounted_device_mapper_volume_is_in_its_mirror() -> anyhow::Result<()> {
    const SECTORS: u64 = 128 << 11;
    let test = "what_is_exchanged_below_an_unmounted_device_mapper_volume_is_in_its_mirror";
    if is_elsewhere(test, "lane") || tracing::skips(test, &[Kind::Ext4]) {
        return Ok(());
    }
    let table = |first: u64| format!("0 {SECTORS} linear {FIRST_DISK} {first}");
    let volume = Mapped("vss-exchanged");
    run("dmsetup", &["create", volume.0, "--table", &table(0)])?;
    let mut scene = Scene::new(Volume::on(Kind::Ext4, &volume.path())?, Storage::Other(Kind::Ext4))?;
    let place = scene.volume().path().to_owned();
    let file = place.join("file");
    fs::write(&file, vec![1; 8 << 20])?;
    ensure!(scene.judged()?.wrong.is_empty());
    let exchange = |first: u64| -> anyhow::Result<()> {
        run("dmsetup", &["suspend", volume.0])?;
        run("dmsetup", &["load", volume.0, "--table", &table(first)])?;
        run("dmsetup", &["resume", volume.0]).map(drop)
    };
    unmount(&place, UnmountFlags::empty())?;
    // The same file system with another content of the file, beside the volume.
    let beside = Mapped("vss-beside");
    run("dmsetup", &["create", beside.0, "--table", &table(SECTORS)])?;
    run(
        "dd",
        &[&format!("if={}", text(&volume.path())?), &format!("of={}", text(&beside.path())?), "bs=1M", "conv=fsync"],
    )?;
    for (content, stays_at) in [(2, SECTORS), (3, 0)] {
        // Below the volume, where nothing is traced.
        run("dmsetup", &["load", beside.0, "--table", &table(stays_at)])?;
        run("dmsetup", &["resume", beside.0])?;
        mount(beside.path(), &place, "ext4", MountFlags::empty(), None)?;
        fs::write(&file, vec![content; 8 << 20])?;
        unmount(&place, UnmountFlags::empty())?;
        exchange(SECTORS)?;
        exchange(stays_at)?;
        mount(volume.path(), &place, "ext4", MountFlags::empty(), None)?;
        let listed = scene.instance.vss(["storage", "list"])?;
        ensure!(listed.stdout.contains("it was unmounted since the last copy"), "{listed:?}");
        let judged = scene.judged()?;
        ensure!(judged.wrong.is_empty(), "{} of {} blocks are wrong", judged.wrong.len(), judged.written);
        unmount(&place, UnmountFlags::empty())?;
    }
    mount(volume.path(), &place, "ext4", MountFlags::empty(), None)?;
    drop(beside);
    scene.end()
}
