//! P 4.1 to 4.12: finished shadow copies as objects, and the refusals of what comes later.

use crate::rows;
use anyhow::ensure;
use serde_json::{Value, json};
use vss_model::VssCode::{
    BadState, InvalidArgument, ObjectAlreadyExists, ObjectNotFound, ProviderVeto, UnsupportedContext,
};

const NOBODY: &str = "00000000-0000-0000-0000-0000000000ff";

fn ids(queried: &Value) -> Vec<&str> {
    queried["snapshots"].as_array().into_iter().flatten().filter_map(|one| one["snapshot_id"].as_str()).collect()
}

rows! {
    /// 4.1 Query of nothing: S_FALSE
    query_of_nothing => |scene| {
        let queried = scene.in_context("all")?.ok("Query", json!({"returned_type": "snapshot"}))?;
        ensure!(queried["result"] == 1 && ids(&queried).is_empty(), "{queried}");
        Ok(())
    };
    /// 4.1 Query returns shadow copies of the session's context; VSS_CTX_ALL all (P 10, row 16)
    query_by_context => |scene| {
        let mut wire = scene.in_context("nas_rollback")?;
        let (_, shadow) = scene.copy(&mut wire)?;
        let queried = wire.ok("Query", json!({"returned_type": "snapshot"}))?;
        ensure!(queried["result"] == 0 && ids(&queried) == [shadow.as_str()], "{queried}");
        let other = scene.in_context("file_share_backup")?.ok("Query", json!({"returned_type": "snapshot"}))?;
        ensure!(ids(&other).is_empty(), "{other}");
        let all = scene.in_context("all")?.ok("Query", json!({"returned_type": "snapshot"}))?;
        ensure!(ids(&all) == [shadow.as_str()], "{all}");
        Ok(())
    };
    /// 4.1 Query of providers
    query_of_providers => |scene| {
        let queried = scene.session()?.ok("Query", json!({"returned_type": "provider"}))?;
        let names: Vec<_> = queried["providers"].as_array().into_iter().flatten().map(|one| &one["name"]).collect();
        ensure!(names.contains(&&json!("btrfs")), "{queried}");
        Ok(())
    };
    /// 4.1 Query with a filter object, and for a set
    query_of_what_cannot_be_asked_for => |scene| {
        let mut wire = scene.session()?;
        wire.refused("Query", json!({"returned_type": "snapshot_set"}), InvalidArgument)?;
        wire.refused("Query", json!({"queried_type": "snapshot", "returned_type": "snapshot"}), InvalidArgument)?;
        Ok(())
    };
    /// 4.2 every member of VSS_SNAPSHOT_PROP
    snapshot_properties => |scene| {
        let mut wire = scene.in_context("nas_rollback")?;
        let (set, shadow) = scene.copy(&mut wire)?;
        let found = wire.ok("GetSnapshotProperties", json!({"snapshot_id": shadow}))?;
        let properties = &found["properties"];
        ensure!(properties["snapshot_id"] == shadow && properties["snapshot_set_id"] == set, "{properties}");
        ensure!(properties["snapshots_count"] == 1 && properties["exposed_name"].is_null(), "{properties}");
        let volume = properties["original_volume_name"].as_str().unwrap_or_default();
        ensure!(volume.starts_with("btrfs:"), "{properties}");
        for text in ["originating_machine", "service_machine", "provider_id", "creation_timestamp"] {
            ensure!(properties[text].as_str().is_some_and(|text| !text.is_empty()), "{text}: {properties}");
        }
        let bits = properties["snapshot_attributes"].as_u64().unwrap_or_default();
        ensure!(bits & 0x2_0059 == 0x2_0059, "persistent, kept, no writers, not surfaced, differential: {bits:#x}");
        Ok(())
    };
    /// 4.2 SnapshotsCount is not reduced by later deletes
    snapshots_count_stays => |scene| {
        let second = vss_tests::volume::Volume::new()?;
        let mut wire = scene.in_context("nas_rollback")?;
        wire.ok("StartSnapshotSet", json!({}))?;
        let first = scene.add_volume(&mut wire)?;
        let other = wire.ok("AddToSnapshotSet", json!({"volume": second.name()}))?;
        wire.done("DoSnapshotSet", json!({}))?;
        let gone = wire.ok("DeleteSnapshots", json!({"object_id": first["shadow_id"], "object_type": "snapshot"}))?;
        ensure!(gone["deleted"] == 1, "{gone}");
        let left = wire.ok("GetSnapshotProperties", json!({"snapshot_id": other["shadow_id"]}))?;
        ensure!(left["properties"]["snapshots_count"] == 2, "{left}");
        wire.ok("DeleteSnapshots", json!({"object_id": other["shadow_id"], "object_type": "snapshot"}))?;
        Ok(())
    };
    /// 4.3 SetSnapshotProperty: the service machine and nothing else
    set_snapshot_property => |scene| {
        let mut wire = scene.in_context("nas_rollback")?;
        let (_, shadow) = scene.copy(&mut wire)?;
        let set = |property: &str, value: &str| json!({"snapshot_id": shadow, "property": property, "value": value});
        wire.ok("SetSnapshotProperty", set("service_machine", "elsewhere"))?;
        let found = wire.ok("GetSnapshotProperties", json!({"snapshot_id": shadow}))?;
        ensure!(found["properties"]["service_machine"] == "elsewhere", "{found}");
        for property in ["snapshot_id", "exposed_name", "snapshot_attributes", "status", "originating_machine"] {
            wire.refused("SetSnapshotProperty", set(property, "x"), InvalidArgument)?;
        }
        wire.refused("SetSnapshotProperty", set("service_machine", ""), InvalidArgument)?;
        Ok(())
    };
    /// 4.4 a requester only ever observes CREATED; nothing before
    only_created_is_seen => |scene| {
        let mut wire = scene.in_context("file_share_backup")?;
        wire.ok("StartSnapshotSet", json!({}))?;
        let added = scene.add_volume(&mut wire)?;
        wire.refused("GetSnapshotProperties", json!({"snapshot_id": added["shadow_id"]}), ObjectNotFound)?;
        ensure!(wire.ok("Query", json!({"returned_type": "snapshot"}))?["result"] == 1, "it is listed");
        wire.done("DoSnapshotSet", json!({}))?;
        let found = wire.ok("GetSnapshotProperties", json!({"snapshot_id": added["shadow_id"]}))?;
        ensure!(found["properties"]["status"] == "CREATED" && found["properties"]["status_number"] == 12, "{found}");
        Ok(())
    };
    /// 4.5 DeleteSnapshots of one copy and of a set
    delete => |scene| {
        for object_type in ["snapshot", "snapshot_set"] {
            let mut wire = scene.in_context("nas_rollback")?;
            let (set, shadow) = scene.copy(&mut wire)?;
            let object_id = if object_type == "snapshot" { &shadow } else { &set };
            let gone = wire.ok("DeleteSnapshots", json!({"object_id": object_id, "object_type": object_type}))?;
            ensure!(gone["deleted"] == 1 && gone["first_not_deleted"].is_null(), "{gone}");
            wire.refused("GetSnapshotProperties", json!({"snapshot_id": shadow}), ObjectNotFound)?;
        }
        Ok(())
    };
    /// 4.5 DeleteSnapshots stops at the first error and names the copy
    delete_stops_at_the_first_error => |scene| {
        let mut owner = scene.in_context("nas_rollback")?;
        let (set, shadow) = scene.copy(&mut owner)?;
        let mut wire = scene.in_context("all")?;
        let place = scene.instance.path().join("place");
        std::fs::create_dir(&place)?;
        owner.ok("ExposeSnapshot", json!({"shadow_id": shadow, "path": place}))?;
        let over = rustix::mount::mount("none", &place, "tmpfs", rustix::mount::MountFlags::empty(), None::<&std::ffi::CStr>);
        over?;
        let gone = wire.ok("DeleteSnapshots", json!({"object_id": set, "object_type": "snapshot_set"}));
        rustix::mount::unmount(&place, rustix::mount::UnmountFlags::empty())?;
        let gone = gone?;
        ensure!(gone["deleted"] == 0 && gone["first_not_deleted"] == shadow, "{gone}");
        ensure!(gone["failure"]["code"] == "VSS_E_VOLUME_IN_USE" && gone["failure"]["number"] == 0x8004_231d_u32, "{gone}");
        Ok(())
    };
    /// 4.5 DeleteSnapshots of what is not there, and of what cannot be deleted
    delete_of_the_unknown => |scene| {
        let mut wire = scene.session()?;
        for object_type in ["snapshot", "snapshot_set"] {
            wire.refused("DeleteSnapshots", json!({"object_id": NOBODY, "object_type": object_type}), ObjectNotFound)?;
        }
        wire.refused("DeleteSnapshots", json!({"object_id": NOBODY, "object_type": "provider"}), InvalidArgument)?;
        wire.refused("DeleteSnapshots", json!({"object_id": "x", "object_type": "snapshot"}), InvalidArgument)?;
        Ok(())
    };
    /// 4.5 the oldest of a volume
    delete_the_oldest => |scene| {
        let mut shadows = Vec::new();
        for _ in 0..2 {
            shadows.push(scene.copy(&mut scene.in_context("nas_rollback")?)?.1);
        }
        let mut wire = scene.in_context("all")?;
        let gone = wire.ok("org.linuxvss.Management.DeleteShadows", json!({"oldest_of": scene.volume.name()}))?;
        ensure!(gone["shadow_ids"] == json!([shadows[0]]), "{gone} of {shadows:?}");
        Ok(())
    };
    /// 4.6 ExposeSnapshot at an empty folder: bits and ExposedName; read-only; UnexposeSnapshot undoes it
    expose_and_unexpose => |scene| {
        let mut wire = scene.in_context("nas_rollback")?;
        let (_, shadow) = scene.copy(&mut wire)?;
        let place = scene.instance.path().join("place");
        std::fs::create_dir(&place)?;
        wire.ok("ExposeSnapshot", json!({"shadow_id": shadow, "path": place}))?;
        let shown = wire.ok("GetSnapshotProperties", json!({"snapshot_id": shadow}))?;
        let bits = shown["properties"]["snapshot_attributes"].as_u64().unwrap_or_default();
        ensure!(bits & 0x10_0040 == 0x10_0000 && shown["properties"]["exposed_name"] == json!(place), "{shown}");
        ensure!(place.join("shop/orders/1").exists() && std::fs::write(place.join("new"), "x").is_err(), "read-only");
        let elsewhere = scene.instance.path().join("elsewhere");
        std::fs::create_dir(&elsewhere)?;
        wire.refused("ExposeSnapshot", json!({"shadow_id": shadow, "path": elsewhere}), ObjectAlreadyExists)?;
        wire.ok("UnexposeSnapshot", json!({"shadow_id": shadow}))?;
        let hidden = wire.ok("GetSnapshotProperties", json!({"snapshot_id": shadow}))?;
        let bits = hidden["properties"]["snapshot_attributes"].as_u64().unwrap_or_default();
        ensure!(bits & 0x10_0040 == 0x40 && hidden["properties"]["exposed_name"].is_null(), "{hidden}");
        Ok(())
    };
    /// 4.6 only copies that outlive their session can be exposed at a folder; one until reboot can (P 11), and every copy is
    /// shown at a place of the service's own
    expose_of_what_goes_with_its_session => |scene| {
        let place = scene.instance.path().join("place");
        std::fs::create_dir(&place)?;
        let mut wire = scene.in_context("file_share_backup")?;
        let (_, shadow) = scene.copy(&mut wire)?;
        let at = |shadow: &str| json!({"shadow_id": shadow, "path": place});
        let refusal = wire.refused("ExposeSnapshot", at(&shadow), UnsupportedContext)?;
        refusal.says("goes with its session", "--persistent")?;
        let shown = wire.ok("ExposeSnapshot", json!({"shadow_id": shadow}))?;
        ensure!(shown["path"].as_str().is_some_and(|path| path.ends_with(&shadow)), "{shown}");
        let (_, shadow) = scene.copy(&mut scene.in_context("until_reboot_no_writers")?)?;
        ensure!(wire.ok("ExposeSnapshot", at(&shadow))?["path"] == json!(place), "it is not shown");
        Ok(())
    };
    /// 4.6 the user unmounts it: the copy is hidden again, still there, and can be exposed once more
    unmounted_by_hand => |scene| {
        let mut wire = scene.in_context("nas_rollback")?;
        let (_, shadow) = scene.copy(&mut wire)?;
        let place = scene.instance.path().join("place");
        std::fs::create_dir(&place)?;
        let exposed = json!({"shadow_id": shadow, "path": place});
        wire.ok("ExposeSnapshot", exposed.clone())?;
        rustix::mount::unmount(&place, rustix::mount::UnmountFlags::empty())?;
        let hidden = wire.ok("GetSnapshotProperties", json!({"snapshot_id": shadow}))?;
        let bits = hidden["properties"]["snapshot_attributes"].as_u64().unwrap_or_default();
        ensure!(bits & 0x10_0040 == 0x40 && hidden["properties"]["exposed_name"].is_null(), "{hidden}");
        wire.ok("ExposeSnapshot", exposed)?;
        ensure!(place.join("shop/orders/1").exists(), "it is not shown");
        Ok(())
    };
    /// 4.6 errors of ExposeSnapshot and UnexposeSnapshot
    expose_errors => |scene| {
        let mut wire = scene.in_context("nas_rollback")?;
        let (_, shadow) = scene.copy(&mut wire)?;
        wire.refused("ExposeSnapshot", json!({"shadow_id": NOBODY}), ObjectNotFound)?;
        wire.refused("ExposeSnapshot", json!({"shadow_id": shadow, "path": "relative"}), InvalidArgument)?;
        wire.refused("ExposeSnapshot", json!({"shadow_id": shadow, "path": scene.volume.path()}), ObjectAlreadyExists)?;
        wire.refused("UnexposeSnapshot", json!({"shadow_id": shadow}), ObjectNotFound)?;
        Ok(())
    };
    /// 4.7 ImportSnapshots without a document
    import => |scene| {
        scene.session()?.refused("ImportSnapshots", json!({}), BadState)?;
        Ok(())
    };
    /// 4.8 BreakSnapshotSet of a software copy: PROVIDER_VETO
    break_set => |scene| {
        let mut wire = scene.in_context("nas_rollback")?;
        let (set, _) = scene.copy(&mut wire)?;
        wire.refused("BreakSnapshotSet", json!({"set_id": set}), ProviderVeto)?;
        wire.refused("BreakSnapshotSet", json!({"set_id": NOBODY}), ObjectNotFound)?;
        for flags in [0x3, 0xc] {
            wire.refused("BreakSnapshotSet", json!({"set_id": set, "flags": flags}), InvalidArgument)?;
        }
        Ok(())
    };
}

crate::skip! {
    expose_remotely_as_a_share: "Windows only";
    lun_resync_and_swap: "Windows only";
}
