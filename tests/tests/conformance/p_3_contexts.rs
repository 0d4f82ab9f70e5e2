//! P 3: contexts and attribute bits.

use crate::rows;
use crate::scene::Scene;
use anyhow::ensure;
use serde_json::json;
use std::time::{Duration, Instant};
use vss_model::VssCode::{InvalidArgument, UnsupportedContext, VolumeNotSupported, VolumeNotSupportedByProvider};
use vss_tests::instance::wait_until;
use vss_tests::wire::Wire;
use vss_writer::messages::EventKind;

/// The attribute bits of a copy, as GetSnapshotProperties shows them.
fn bits(wire: &mut Wire, shadow: &str) -> anyhow::Result<u64> {
    let found = wire.ok("GetSnapshotProperties", json!({"snapshot_id": shadow}))?;
    Ok(found["properties"]["snapshot_attributes"].as_u64().unwrap_or_default())
}

/// What the copy of a context is once its session has ended: its bits, or none when it is gone.
fn after_the_end(scene: &Scene, context: &str) -> anyhow::Result<Option<u64>> {
    let mut wire = scene.in_context(context)?;
    let (_, shadow) = scene.copy(&mut wire)?;
    let mut other = scene.in_context("all")?;
    bits(&mut other, &shadow)?;
    drop(wire);
    let began = Instant::now();
    let mut gone = false;
    // One that stays is looked at again when the end of the session is long over.
    wait_until(Duration::from_secs(30), || {
        gone = bits(&mut other, &shadow).is_err();
        let sessions = scene.instance.management().and_then(|mut one| Ok(one.status()?.sessions.len()));
        gone || (began.elapsed() > Duration::from_secs(2) && sessions.is_ok_and(|sessions| sessions == 1))
    });
    if gone { Ok(None) } else { bits(&mut other, &shadow).map(Some) }
}

rows! {
    /// VSS_CTX_BACKUP 0x00: writers, auto-release
    backup => |scene| {
        let shop = scene.shop()?;
        let mut wire = scene.in_context("backup")?;
        scene.made(&mut wire, "full")?;
        ensure!(shop.handle().events().contains(&EventKind::Freeze), "writers take part");
        let told = shop.handle().last(EventKind::Freeze).map(|event| event.attributes.bits());
        ensure!(told == Some(0), "{told:?}");
        Ok(())
    };
    /// VSS_CTX_FILE_SHARE_BACKUP 0x10: no writers, auto-release
    file_share_backup => |scene| {
        let shop = scene.shop()?;
        ensure!(after_the_end(&scene, "file_share_backup")?.is_none(), "it outlives its session");
        ensure!(shop.handle().events().is_empty(), "{:?}", shop.handle().events());
        Ok(())
    };
    /// VSS_CTX_NAS_ROLLBACK 0x19: no writers, persistent
    nas_rollback => |scene| {
        let kept = after_the_end(&scene, "nas_rollback")?;
        ensure!(kept.is_some_and(|bits| bits & 0x19 == 0x19), "{kept:?}");
        Ok(())
    };
    /// VSS_CTX_APP_ROLLBACK 0x09: writers, persistent
    app_rollback => |scene| {
        let shop = scene.shop()?;
        let mut wire = scene.in_context("app_rollback")?;
        scene.made(&mut wire, "full")?;
        let set = wire.ok("GetSnapshotSet", json!({}))?;
        let bits = set["set"]["shadows"][0]["attributes"].as_u64().unwrap_or_default();
        ensure!(bits & 0x19 == 0x09, "{bits:#x}");
        ensure!(shop.handle().last(EventKind::Freeze).is_some_and(|event| event.attributes.bits() == 0x09), "writers read it");
        Ok(())
    };
    /// Neither PERSISTENT nor AUTO_RELEASE: until reboot (P 11)
    until_reboot => |scene| {
        let kept = after_the_end(&scene, "until_reboot_no_writers")?;
        ensure!(kept.is_some_and(|bits| bits & 0x19 == 0x18), "{kept:?}");
        Ok(())
    };
    /// VSS_CTX_CLIENT_ACCESSIBLE 0x1d and 0x0d: system provider only
    client_accessible_needs_the_system_provider => |scene| {
        for context in ["client_accessible", "client_accessible_writers"] {
            let mut wire = scene.in_context(context)?;
            wire.ok("StartSnapshotSet", json!({}))?;
            wire.refused("AddToSnapshotSet", json!({"volume": scene.volume.name()}), UnsupportedContext)?;
        }
        Ok(())
    };
    /// VSS_CTX_ALL: refused in StartSnapshotSet
    all_makes_no_set => |scene| {
        let mut wire = scene.in_context("all")?;
        wire.refused("StartSnapshotSet", json!({}), UnsupportedContext)?;
        Ok(())
    };
    /// Bits that a requester may not set
    foreign_bits => |scene| {
        for bits in [0x1, 0x4, 0x8, 0x10, 0x40, 0x1_0000, 0x8_0000, 0x10_0000, 0x20_0000, 0x40_0000, 0x100_0000, 0x400_0000] {
            scene.session()?.refused("SetContext", json!({"context": "backup", "attributes": bits}), InvalidArgument)?;
        }
        Ok(())
    };
    /// PLEX exclusive with DIFFERENTIAL; NO_AUTORECOVERY with ROLLBACK_RECOVERY
    exclusive_bits => |scene| {
        for bits in [0x6_0000, 0x80_0002] {
            scene.session()?.refused("SetContext", json!({"context": "backup", "attributes": bits}), InvalidArgument)?;
        }
        Ok(())
    };
    /// TRANSPORTABLE: no provider here (P 4.7)
    transportable => |scene| {
        scene.session()?.refused("SetContext", json!({"context": "backup", "attributes": 0x20}), UnsupportedContext)?;
        Ok(())
    };
    /// None of the bits with CLIENT_ACCESSIBLE
    no_bits_with_client_accessible => |scene| {
        let wanted = json!({"context": "client_accessible", "attributes": 0x2_0000});
        scene.session()?.refused("SetContext", wanted, UnsupportedContext)?;
        Ok(())
    };
    /// DIFFERENTIAL and PLEX choose among the providers
    differential_and_plex => |scene| {
        let start = |bits: u32| -> anyhow::Result<Wire> {
            let mut wire = scene.session()?;
            wire.ok("SetContext", json!({"context": "file_share_backup", "attributes": bits}))?;
            wire.ok("StartSnapshotSet", json!({}))?;
            Ok(wire)
        };
        let mut plex = start(0x4_0000)?;
        let volume = json!({"volume": scene.volume.name(), "provider": "btrfs"});
        plex.refused("AddToSnapshotSet", volume.clone(), VolumeNotSupportedByProvider)?;
        plex.refused("AddToSnapshotSet", json!({"volume": scene.volume.name()}), VolumeNotSupported)?;
        drop(plex);
        ensure!(
            wait_until(Duration::from_secs(30), || {
                start(0x2_0000).is_ok_and(|mut wire| wire.ok("AddToSnapshotSet", volume.clone()).is_ok())
            }),
            "a btrfs copy is differential"
        );
        Ok(())
    };
    /// NOT_TRANSACTED, TXF_RECOVERY, ROLLBACK_RECOVERY are kept with the copy
    bits_are_kept => |scene| {
        let mut wire = scene.session()?;
        wire.ok("SetContext", json!({"context": "file_share_backup", "attributes": 0x280_0080}))?;
        let (_, shadow) = scene.copy(&mut wire)?;
        let bits = bits(&mut wire, &shadow)?;
        ensure!(bits & 0x280_0080 == 0x280_0080, "{bits:#x}");
        Ok(())
    };
    /// NO_AUTORECOVERY: nobody may change the copy
    no_autorecovery => |scene| {
        let mut description = scene.description();
        description.declaration.exclude_files_from_snapshot = vec![excluded(&scene)];
        let shop = scene.join(description)?;
        let mut wire = scene.session()?;
        wire.ok("SetContext", json!({"context": "backup", "attributes": 0x2}))?;
        scene.made(&mut wire, "full")?;
        let directories: Vec<usize> = shop.handle().told().iter().map(|told| told.directories).collect();
        ensure!(directories.iter().all(|count| *count == 0), "writers got directories: {directories:?}");
        ensure!(scene.look(&mut wire)?.join("shop/orders/cache.tmp").exists(), "excluded files stay");
        let set = wire.ok("GetSnapshotSet", json!({}))?;
        ensure!(set["set"]["shadows"][0]["attributes"].as_u64().is_some_and(|bits| bits & 2 == 2), "{set}");
        Ok(())
    };
    /// P 3.3: files of AddExcludeFilesFromSnapshot are deleted before the copy turns read-only; the live ones stay
    exclude_files_from_snapshot => |scene| {
        let mut description = scene.description();
        description.declaration.exclude_files_from_snapshot = vec![excluded(&scene)];
        let _shop = scene.join(description)?;
        let mut wire = scene.session()?;
        scene.made(&mut wire, "full")?;
        let copy = scene.look(&mut wire)?;
        ensure!(!copy.join("shop/orders/cache.tmp").exists(), "it is in the copy");
        ensure!(copy.join("shop/orders/1").exists(), "its neighbour is not");
        ensure!(scene.volume.path().join("shop/orders/cache.tmp").exists(), "the live one is gone");
        ensure!(std::fs::write(copy.join("shop/orders/new"), "x").is_err(), "the copy can be written to");
        Ok(())
    };
    /// P 3.3: a component that recovers for a rollback alone counts with ROLLBACK_RECOVERY, and without it does not
    rollback_recovery => |scene| {
        let mut description = scene.description();
        description.components[1].flags = vss_model::ComponentFlags::APP_ROLLBACK_RECOVERY;
        let _shop = scene.join(description)?;
        for (attributes, recovers) in [(0x80_0000, true), (0, false)] {
            let mut wire = scene.session()?;
            wire.ok("SetContext", json!({"context": "backup", "attributes": attributes}))?;
            scene.made(&mut wire, "full")?;
            let set = wire.ok("GetSnapshotSet", json!({}))?;
            let bits = set["set"]["shadows"][0]["attributes"].as_u64().unwrap_or_default();
            ensure!((bits & 0x40_0000 != 0) == recovers, "{attributes:#x}: {bits:#x}");
        }
        Ok(())
    };
    /// P 3.3: the copy gets AUTORECOVER when a component asks for it
    autorecover => |scene| {
        let mut description = scene.description();
        description.components[1].flags = vss_model::ComponentFlags::BACKUP_RECOVERY;
        let shop = scene.join(description)?;
        let mut wire = scene.session()?;
        scene.made(&mut wire, "full")?;
        let set = wire.ok("GetSnapshotSet", json!({}))?;
        let bits = set["set"]["shadows"][0]["attributes"].as_u64().unwrap_or_default();
        ensure!(bits & 0x40_0000 != 0, "{bits:#x}");
        let post = shop.handle().told().into_iter().find(|told| told.kind == EventKind::PostSnapshot);
        ensure!(post.is_some_and(|told| told.directories == 1), "no directory in PostSnapshot");
        Ok(())
    };
}

fn excluded(scene: &Scene) -> vss_model::FileSet {
    let path = scene.volume.path().join("shop");
    vss_model::FileSet { path, pattern: "*.tmp".to_owned(), recursive: true }
}

crate::skip! {
    files_not_to_snapshot_list: "Windows only";
}
