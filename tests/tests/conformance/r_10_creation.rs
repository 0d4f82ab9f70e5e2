//! R 10: the errors of DoSnapshotSet, each told by QueryStatus with its number, its cause and the way out.

use crate::rows;
use crate::scene::Scene;
use anyhow::{Context, ensure};
use rustix::fs::FallocateFlags;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::time::Duration;
use vss_linux::freeze::{self, Thaw};
use vss_model::VssCode::{
    FlushWritesTimeout, HoldWritesTimeout, InsufficientStorage, NestedVolumeLimit, ProviderVeto, Unexpected,
    UnexpectedProviderError, VolumeInUse,
};
use vss_tests::instance::wait_until;
use vss_tests::loopfs::{Kind, LoopFs, thaw_timer};
use vss_tests::traces;
use vss_tests::volume::{Mounted, Volume};
use vss_tests::wire::Wire;

/// The provider of the tests, which holds what it is given: it stands in for one that cuts ext4, and behaves as described.
fn holding(scene: &mut Scene, what: &Value) -> anyhow::Result<()> {
    let mut fake = json!({"policy": "needs_hold"});
    for (name, value) in what.as_object().into_iter().flatten() {
        fake[name] = value.clone();
    }
    scene.restart_with("VSS_FAKE", fake.to_string())
}

/// A session without writers, with this volume in its set.
fn with_volume(scene: &Scene, volume: &LoopFs, provider: &str) -> anyhow::Result<Wire> {
    let mut wire = scene.started()?;
    wire.ok("AddToSnapshotSet", json!({"volume": volume.path(), "provider": provider}))?;
    Ok(wire)
}

fn ext4() -> anyhow::Result<LoopFs> {
    LoopFs::new(Kind::Ext4, 32)
}

rows! {
    /// VSS_E_UNEXPECTED 0x80042302: the service failed inside, where its record is made
    unexpected => |mut scene| {
        // What is injected is any failure inside: it is reported with this code.
        scene.restart_with("VSS_FAULT", "record:fail")?;
        let mut wire = scene.started()?;
        scene.add_volume(&mut wire)?;
        wire.fails("DoSnapshotSet", json!({}), Unexpected)?.says("fault", "")
    };
    /// VSS_E_PROVIDER_VETO 0x80042306: the directory for copies is somebody else's
    provider_veto => |scene| {
        scene.volume.write(".vss/mine", "x")?;
        let mut wire = scene.started()?;
        scene.add_volume(&mut wire)?;
        wire.fails("DoSnapshotSet", json!({}), ProviderVeto)?.says(".vss at the top", "rename what is there")?;
        ensure!(scene.volume.read(".vss/mine")? == "x", "it is not left alone");
        Ok(())
    };
    /// VSS_E_UNEXPECTED_PROVIDER_ERROR 0x8004230F: a code that no provider may use (P 2.7)
    unexpected_provider_error => |mut scene| {
        holding(&mut scene, &json!({"fail": ["pre_commit", "VSS_E_FLUSH_WRITES_TIMEOUT"]}))?;
        let volume = ext4()?;
        let mut wire = with_volume(&scene, &volume, "fake")?;
        let failure = wire.fails("DoSnapshotSet", json!({}), UnexpectedProviderError)?;
        failure.says("Provider fake failed", "try again, 3 times at most")
    };
    /// VSS_E_FLUSH_WRITES_TIMEOUT 0x80042313: what has to be flushed cannot be written, its disk is full
    flush_writes_timeout => |mut scene| {
        holding(&mut scene, &json!({}))?;
        let memory = Mounted::memory_of(&scene.instance.path().join("memory"), 24)?;
        let volume = LoopFs::new_in(memory.path(), Kind::Ext4, 96)?;
        let mut wire = with_volume(&scene, &volume, "fake")?;
        fs::write(volume.path().join("much"), vec![7; 48 << 20])?;
        let failure = wire.fails("DoSnapshotSet", json!({}), FlushWritesTimeout)?;
        failure.says(&volume.path().display().to_string(), "kernel log")
    };
    /// VSS_E_HOLD_WRITES_TIMEOUT 0x80042314: the hold ended before the commit did, by somebody else's thaw
    hold_writes_timeout => |mut scene| {
        holding(&mut scene, &json!({"commit_delay_ms": 1500}))?;
        let volume = ext4()?;
        let directory = volume.open()?;
        let mut wire = with_volume(&scene, &volume, "fake")?;
        let started = wire.ok("DoSnapshotSet", json!({}))?;
        let is_thawed = || freeze::thaw(&directory) == Ok(Thaw::Thawed);
        ensure!(wait_until(Duration::from_secs(20), is_thawed), "nothing is held");
        drop(directory);
        let failure = wire.failed(&started["operation_id"], HoldWritesTimeout)?;
        failure.says("somebody else thawed", "no other program")?;
        ensure!(volume.start_write().finish(Duration::from_secs(30)).is_some(), "it stays frozen");
        Ok(())
    };
    /// VSS_E_VOLUME_IN_USE 0x8004231D: somebody else holds it frozen
    volume_in_use => |mut scene| {
        holding(&mut scene, &json!({}))?;
        let volume = ext4()?;
        let mut wire = with_volume(&scene, &volume, "fake")?;
        let directory = volume.open()?;
        let timer = thaw_timer(volume.open()?, Duration::from_secs(60));
        freeze::freeze(&directory)?;
        let failure = wire.fails("DoSnapshotSet", json!({}), VolumeInUse);
        freeze::thaw(&directory).context("its freeze was undone")?;
        drop((directory, timer));
        failure?.says("somebody else holds the file system frozen", "no other program")
    };
    /// VSS_E_INSUFFICIENT_STORAGE 0x8004231F: the volume was filled after it was added; AddToSnapshotSet refuses a full one
    insufficient_storage => |scene| {
        let volume = Volume::of_size(128)?;
        let mut wire = scene.started()?;
        wire.ok("AddToSnapshotSet", json!({"volume": volume.name()}))?;
        fill(&volume)?;
        let failure = wire.fails("DoSnapshotSet", json!({}), InsufficientStorage)?;
        failure.says(volume.name(), "delete old shadow copies")?;
        let mut wire = scene.started()?;
        let refusal = wire.refused("AddToSnapshotSet", json!({"volume": volume.name()}), InsufficientStorage)?;
        refusal.says("16 MiB", "Free space")?;
        ensure!(volume.copies()?.is_empty(), "a copy is left");
        Ok(())
    };
    /// VSS_E_NESTED_VOLUME_LIMIT 0x8004232C: a volume in an image file, and the volume that the file lies on; where its cut
    /// writes to nothing that is held (design 3) both can be in one set
    nested_volume_limit => |mut scene| {
        holding(&mut scene, &json!({}))?;
        let outer = LoopFs::new(Kind::Ext4, 192)?;
        {
            let inner = LoopFs::new_in(outer.path(), Kind::Btrfs, 128)?;
            let mut wire = with_volume(&scene, &outer, "fake")?;
            wire.ok("AddToSnapshotSet", json!({"volume": inner.path(), "provider": "btrfs"}))?;
            let failure = wire.fails("DoSnapshotSet", json!({}), NestedVolumeLimit)?;
            failure.says(&outer.path().display().to_string(), "two sets")?;
            failure.says(&inner.path().display().to_string(), "two sets")?;
        }
        traces::has_no_shadows(&scene.instance)?;
        let inner = LoopFs::new_in(scene.volume.path(), Kind::Ext4, 32)?;
        let mut wire = with_volume(&scene, &inner, "reflink")?;
        wire.ok("AddToSnapshotSet", json!({"volume": scene.volume.name(), "provider": "btrfs"}))?;
        wire.done("DoSnapshotSet", json!({}))
    };
}

/// Leaves nothing available.
fn fill(volume: &Volume) -> anyhow::Result<()> {
    let file = File::create(volume.path().join("filler"))?;
    let mut end = 0;
    for piece in [16 << 20, 1 << 20, 64 << 10] {
        while rustix::fs::fallocate(&file, FallocateFlags::empty(), end, piece).is_ok() {
            end += piece;
        }
    }
    Ok(file.sync_all()?)
}

crate::skip! {
    // A driver of the provider's that is there only after a reboot: here the kernel has it, or the volume is refused.
    reboot_required: "Windows only";
    // The transaction managers DTC and KTM.
    transaction_freeze_timeout: "Windows only";
    transaction_thaw_timeout: "Windows only";
    // NTFS's own recovery of a copy; a writer's is VSS_E_WRITERERROR_RECOVERY_FAILED.
    autorecovery_failed: "Windows only";
}
