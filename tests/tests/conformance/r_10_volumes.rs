//! R 10: the errors of AddToSnapshotSet, each with its number, its cause and the way out.

use crate::rows;
use crate::scene::Scene;
use anyhow::{Context, ensure};
use serde_json::json;
use std::fs::File;
use std::path::Path;
use vss_model::VssCode::{
    MaximumNumberOfSnapshotsReached, MaximumNumberOfVolumesReached, ObjectAlreadyExists, ObjectNotFound,
    ProviderNotRegistered, VolumeNotLocal, VolumeNotSupported, VolumeNotSupportedByProvider,
};
use vss_model::{SetId, ShadowId, limits};
use vss_service::catalogue::Catalogue;
use vss_tests::stalling::StallingDisk;
use vss_tests::traces;
use vss_tests::volume::Mounted;

/// As many copies more as nobody waits for in a test: in the catalogue of the service, which does not run, and in the store
/// of their provider.
fn multiply(scene: &Scene, count: usize, store: &Path) -> anyhow::Result<()> {
    let catalogue = Catalogue::open(&scene.instance.state_dir())?;
    let mut entry = catalogue.sets().pop().context("no set")?;
    let (shadow, copy) = (entry.set.shadows.remove(0), entry.copies.remove(0));
    entry.set.set_id = SetId::random();
    for _ in 0..count {
        let (mut shadow, mut copy) = (shadow.clone(), copy.clone());
        shadow.id = ShadowId::random();
        (copy.stored.set_id, copy.stored.shadow_id) = (entry.set.set_id, shadow.id);
        File::create(store.join(shadow.id.to_string()))?;
        entry.set.shadows.push(shadow);
        entry.copies.push(copy);
    }
    Ok(catalogue.finish(&entry)?)
}

rows! {
    /// VSS_E_PROVIDER_NOT_REGISTERED 0x80042304
    provider_not_registered => |scene| {
        let wanted = json!({"volume": scene.volume.name(), "provider": "nobody"});
        let refusal = scene.started()?.refused("AddToSnapshotSet", wanted.clone(), ProviderNotRegistered)?;
        refusal.says("nobody", "Registered: btrfs")?;
        scene.session()?.refused("IsVolumeSupported", wanted, ProviderNotRegistered)?;
        Ok(())
    };
    /// VSS_E_OBJECT_NOT_FOUND 0x80042308 of a volume
    object_not_found => |scene| {
        let wanted = json!({"volume": "/no/such/place"});
        scene.started()?.refused("AddToSnapshotSet", wanted, ObjectNotFound)?.says("/no/such/place", "that exists")
    };
    /// VSS_E_VOLUME_NOT_SUPPORTED 0x8004230C; the command line prints the same line
    volume_not_supported => |scene| {
        let wanted = json!({"volume": "/proc"});
        scene.started()?.refused("AddToSnapshotSet", wanted, VolumeNotSupported)?.says("/proc (proc)", "vss list volumes")?;
        let printed = scene.instance.vss(["create", "--wait", "60", "/proc"])?.stderr;
        ensure!(printed.contains("(VSS_E_VOLUME_NOT_SUPPORTED, 0x8004230C). Name a path"), "{printed}");
        Ok(())
    };
    /// VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER 0x8004230E
    volume_not_supported_by_provider => |scene| {
        let wanted = json!({"volume": "/proc", "provider": "btrfs"});
        let refusal = scene.started()?.refused("AddToSnapshotSet", wanted, VolumeNotSupportedByProvider)?;
        refusal.says("btrfs cannot copy /proc", "--provider")
    };
    /// VSS_E_OBJECT_ALREADY_EXISTS 0x8004230D of a volume
    volume_twice => |scene| {
        let mut wire = scene.started()?;
        scene.add_volume(&mut wire)?;
        let wanted = json!({"volume": scene.volume.name()});
        wire.refused("AddToSnapshotSet", wanted, ObjectAlreadyExists)?.says("in the shadow copy set already", "once")
    };
    /// VSS_E_VOLUME_NOT_LOCAL 0x8004232D: sshfs, whose server is not even asked
    volume_not_local => |scene| {
        if let Some(why) = StallingDisk::missing() {
            println!("SKIPPED: r_10_volumes::volume_not_local: {why}");
            return Ok(());
        }
        let place = scene.instance.path().join("remote");
        let (remote, _server) = Mounted::unanswered(&place)?;
        let wanted = json!({"volume": remote.path().join("a/file")});
        let refusal = scene.started()?.refused("AddToSnapshotSet", wanted, VolumeNotLocal)?;
        refusal.says("user@server:/ (fuse.sshfs)", "on the machine that holds the volume")
    };
    /// VSS_E_MAXIMUM_NUMBER_OF_VOLUMES_REACHED 0x80042312: the 65th
    maximum_number_of_volumes => |scene| {
        let mut wire = scene.started()?;
        let mut mounted = Vec::new();
        for number in 0..=limits::VOLUMES_PER_SET {
            let place = format!("v{number}");
            let at = scene.instance.path().join(&place);
            std::fs::create_dir(&at)?;
            mounted.push(scene.volume.mount_subvolume(&place, &at)?);
            let volume = json!({"volume": at});
            if number == limits::VOLUMES_PER_SET {
                wire.refused("AddToSnapshotSet", volume, MaximumNumberOfVolumesReached)?.says("number 65", "two sets")?;
            } else {
                wire.ok("AddToSnapshotSet", volume)?;
            }
        }
        Ok(())
    };
    /// VSS_E_MAXIMUM_NUMBER_OF_SNAPSHOTS_REACHED 0x80042317: the 513th copy of a volume; one less and there is room again
    maximum_number_of_snapshots => |mut scene| {
        let store = traces::fake_store(&scene.instance);
        let fake = json!({"policy": "must_not_hold", "store": store});
        scene.restart_with("VSS_FAKE", fake.to_string())?;
        let copy = |scene: &Scene| -> anyhow::Result<String> {
            let mut wire = scene.in_context("nas_rollback")?;
            wire.ok("StartSnapshotSet", json!({}))?;
            let added = wire.ok("AddToSnapshotSet", json!({"volume": scene.volume.name(), "provider": "fake"}))?;
            wire.done("DoSnapshotSet", json!({}))?;
            Ok(added["shadow_id"].as_str().unwrap_or_default().to_owned())
        };
        let first = copy(&scene)?;
        scene.instance.stop()?;
        multiply(&scene, limits::SHADOW_COPIES_PER_VOLUME - 2, &store)?;
        scene.instance.start()?;
        copy(&scene)?;
        let wanted = json!({"volume": scene.volume.name()});
        let refusal = scene.started()?.refused("AddToSnapshotSet", wanted.clone(), MaximumNumberOfSnapshotsReached)?;
        refusal.says("512 shadow copies", "vss delete --oldest")?;
        // In principle it can be copied still (P 2.3).
        let supported = scene.session()?.ok("IsVolumeSupported", wanted.clone())?;
        ensure!(supported["supported"] == true, "{supported}");
        let gone = json!({"object_id": first, "object_type": "snapshot"});
        scene.in_context("all")?.ok("DeleteSnapshots", gone)?;
        scene.started()?.ok("AddToSnapshotSet", wanted)?;
        Ok(())
    };
}
