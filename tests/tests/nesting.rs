//! Volumes that lie in files on other members of their set.

use std::fs;
use std::path::Path;

use anyhow::ensure;
use vss_api::requester::VolumeQuestion;
use vss_model::{Context, VssCode, VssError};
use vss_requester::{Quiet, Requester};
use vss_tests::instance::Instance;
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::traces::{self, BusyVolume};
use vss_tests::turn::creation_turn;
use vss_tests::volume::Mounted;

/// A service whose fake provider holds what it copies.
fn with_fake() -> anyhow::Result<Instance> {
    let mut instance = Instance::new()?;
    let fake = serde_json::json!({"store": traces::fake_store(&instance), "policy": "needs_hold"});
    instance.set("VSS_FAKE", fake.to_string());
    instance.start()?;
    Ok(instance)
}

/// The outer one is named first and the inner one is being written to: frozen in that order, the inner one could not flush
/// any more, and the hold would end by its deadline.
#[test]
fn a_volume_in_a_file_on_another_is_held_first() -> anyhow::Result<()> {
    if LoopFs::skips("a_volume_in_a_file_on_another_is_held_first", &[Kind::Ext4]) {
        return Ok(());
    }
    let outer = LoopFs::new(Kind::Ext4, 96)?;
    {
        let inner = BusyVolume::of(LoopFs::new_in(outer.path(), Kind::Ext4, 32)?)?;
        let instance = with_fake()?;
        inner.writes_flow()?;
        for _ in 0..3 {
            let _turn = creation_turn();
            let words = ["create".as_ref(), "--json".as_ref(), outer.path().as_os_str(), inner.path().as_os_str()];
            let set = instance.vss(words)?.json()?;
            ensure!(set["atomic"] == true && set["shadows"].as_array().map(Vec::len) == Some(2), "{set}");
            let held = set["hold_ms"].as_u64();
            ensure!(held.is_some_and(|ms| ms < 5000), "{set}");
            println!("both held for {held:?} ms");
            inner.writes_flow()?;
            fs::write(outer.path().join("after"), "x")?;
        }
        instance.vss(["delete", "--all"])?;
        traces::has_no_markers(&instance)?;
    }
    Ok(())
}

/// What lies between them is no member, has no device number of its own in the mount table, and the image is named by the
/// path of a bind mount.
#[test]
fn a_volume_on_btrfs_on_another_is_held_before_that_one() -> anyhow::Result<()> {
    if LoopFs::skips("a_volume_on_btrfs_on_another_is_held_before_that_one", &[Kind::Ext4, Kind::Btrfs]) {
        return Ok(());
    }
    let outer = LoopFs::new(Kind::Ext4, 320)?;
    {
        let middle = LoopFs::new_in(outer.path(), Kind::Btrfs, 256)?;
        let instance = with_fake()?;
        let bound = Mounted::bind(middle.path(), &instance.path().join("bound"))?;
        let _turn = creation_turn();
        {
            let inner = BusyVolume::of(LoopFs::new_in(bound.path(), Kind::Ext4, 32)?)?;
            inner.writes_flow()?;
            let words = ["create".as_ref(), "--json".as_ref(), outer.path().as_os_str(), inner.path().as_os_str()];
            let set = instance.vss(words)?.json()?;
            ensure!(set["atomic"] == true && set["hold_ms"].as_u64().is_some_and(|ms| ms < 5000), "{set}");
            inner.writes_flow()?;
        }
        // Its cut writes to the outer one.
        let error = set_of(&instance, &[(outer.path(), "fake"), (bound.path(), "btrfs")]).unwrap_err();
        ensure!(error.code == VssCode::NestedVolumeLimit, "{error}");
        instance.vss(["delete", "--all"])?;
    }
    Ok(())
}

#[test]
fn a_volume_whose_cut_writes_to_a_held_one_is_refused_unfrozen() -> anyhow::Result<()> {
    if LoopFs::skips("a_volume_whose_cut_writes_to_a_held_one_is_refused_unfrozen", &[Kind::Ext4, Kind::Btrfs]) {
        return Ok(());
    }
    let outer = LoopFs::new(Kind::Ext4, 192)?;
    {
        let inner = BusyVolume::of(LoopFs::new_in(outer.path(), Kind::Btrfs, 128)?)?;
        let instance = with_fake()?;
        inner.writes_flow()?;
        let _turn = creation_turn();
        let error = set_of(&instance, &[(outer.path(), "fake"), (inner.path(), "btrfs")]).unwrap_err();
        ensure!(error.code == VssCode::NestedVolumeLimit, "{error}");
        let names = [outer.path(), inner.path()].iter().all(|path| error.message.contains(&*path.to_string_lossy()));
        ensure!(names, "{error}");
        let stall = inner.writes_flow()?;
        ensure!(stall.as_millis() < 1000, "something was frozen for {stall:?}");
        inner.has_no_copies()?;
        traces::has_no_markers(&instance)?;
        // Each alone is no trouble.
        set_of(&instance, &[(outer.path(), "fake")])?;
        set_of(&instance, &[(inner.path(), "btrfs")])?;
    }
    Ok(())
}

/// Makes a set of these volumes by these providers, which goes with its session at once.
fn set_of(instance: &Instance, volumes: &[(&Path, &str)]) -> Result<(), VssError> {
    let mut requester = Requester::connect(&instance.directories())?;
    requester.initialize_for_backup("test")?;
    requester.set_context(Context::FileShareBackup)?;
    requester.start_snapshot_set(&vss_model::CreationOptions::default())?;
    for (volume, provider) in volumes {
        let question = VolumeQuestion { volume: volume.to_path_buf(), provider: Some((*provider).to_owned()) };
        requester.add_to_snapshot_set(question)?;
    }
    requester.do_snapshot_set(true, &mut Quiet)
}
