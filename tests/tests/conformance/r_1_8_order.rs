//! R 1.8 and 1.4: what happens when the order is violated.

use crate::rows;
use crate::scene::Scene;
use serde_json::json;
use vss_model::VssCode::{BadState, InvalidArgument, ObjectAlreadyExists, ObjectNotFound};

rows! {
    /// Any call before InitializeForBackup/Restore
    any_call_before_initialize => |scene| {
        let mut wire = scene.connect()?;
        for call in ["GatherWriterMetadata", "StartSnapshotSet", "PrepareForBackup", "BackupComplete", "AbortBackup"] {
            wire.refused(call, json!({}), BadState)?;
        }
        wire.refused("Query", json!({"returned_type": "snapshot"}), BadState)?;
        Ok(())
    };
    /// Backup-only call in a restore session
    backup_call_in_a_restore_session => |scene| {
        let mut wire = scene.connect()?;
        wire.ok("InitializeForRestore", json!({"requester": "conformance"}))?;
        wire.refused("SetContext", json!({"context": "backup"}), BadState)?;
        wire.refused("SetBackupState", Scene::state("full"), BadState)?;
        for call in ["StartSnapshotSet", "PrepareForBackup", "DoSnapshotSet", "BackupComplete", "AbortBackup"] {
            wire.refused(call, json!({}), BadState)?;
        }
        Ok(())
    };
    /// Restore-only call in a backup session
    restore_call_in_a_backup_session => |scene| {
        let mut wire = scene.session()?;
        wire.refused("SetRestoreState", json!({"restore_type": "by_copy"}), BadState)?;
        for call in ["PreRestore", "PostRestore"] {
            wire.refused(call, json!({}), BadState)?;
        }
        Ok(())
    };
    /// Second InitializeFor*
    second_initialize => |scene| {
        let mut wire = scene.session()?;
        wire.refused("InitializeForBackup", json!({"requester": "x"}), BadState)?;
        wire.refused("InitializeForRestore", json!({"requester": "x"}), BadState)?;
        Ok(())
    };
    /// Second GatherWriterMetadata
    second_gather_writer_metadata => |scene| {
        let mut wire = scene.session()?;
        wire.done("GatherWriterMetadata", json!({}))?;
        wire.refused("GatherWriterMetadata", json!({}), BadState)?;
        Ok(())
    };
    /// SetContext twice, and after StartSnapshotSet
    set_context_out_of_order => |scene| {
        let mut wire = scene.in_context("file_share_backup")?;
        wire.refused("SetContext", json!({"context": "backup"}), BadState)?;
        let mut wire = scene.session()?;
        wire.ok("StartSnapshotSet", json!({}))?;
        wire.refused("SetContext", json!({"context": "backup"}), BadState)?;
        Ok(())
    };
    /// PrepareForBackup without SetBackupState
    prepare_without_set_backup_state => |scene| {
        let mut wire = scene.session()?;
        wire.done("GatherWriterMetadata", json!({}))?;
        wire.refused("PrepareForBackup", json!({}), BadState)?;
        Ok(())
    };
    /// DoSnapshotSet without StartSnapshotSet
    do_snapshot_set_without_start => |scene| {
        let mut wire = scene.in_context("file_share_backup")?;
        wire.refused("DoSnapshotSet", json!({}), BadState)?;
        Ok(())
    };
    /// DoSnapshotSet without GatherWriterMetadata in a writer context
    do_snapshot_set_without_gather => |scene| {
        let mut wire = scene.session()?;
        wire.ok("StartSnapshotSet", json!({}))?;
        scene.add_volume(&mut wire)?;
        wire.refused("DoSnapshotSet", json!({}), BadState)?;
        Ok(())
    };
    /// AddComponent / PrepareForBackup / BackupComplete in a no-writer context
    writer_calls_in_a_context_without_writers => |scene| {
        let _shop = scene.shop()?;
        for context in ["file_share_backup", "nas_rollback", "client_accessible"] {
            let mut wire = scene.in_context(context)?;
            let shop = scene.gather(&mut wire, "full")?;
            wire.refused("AddComponent", Scene::component(&shop, "", "orders"), BadState)?;
            wire.refused("PrepareForBackup", json!({}), BadState)?;
            wire.refused("BackupComplete", json!({}), BadState)?;
        }
        Ok(())
    };
    /// AddComponent twice with the same (logical path, name)
    add_component_twice => |scene| {
        let _shop = scene.shop()?;
        let mut wire = scene.session()?;
        let shop = scene.gather(&mut wire, "full")?;
        Scene::add_components(&mut wire, &shop)?;
        wire.refused("AddComponent", Scene::component(&shop, "", "orders"), ObjectAlreadyExists)?;
        Ok(())
    };
    /// AddComponent naming something unknown
    add_component_of_the_unknown => |scene| {
        let _shop = scene.shop()?;
        let mut wire = scene.session()?;
        let shop = scene.gather(&mut wire, "full")?;
        wire.refused("AddComponent", Scene::component(&shop, "", "nothing"), ObjectNotFound)?;
        Ok(())
    };
    /// AddComponent of a non-selectable subcomponent, and below an explicit selectable ancestor
    add_component_of_a_part => |scene| {
        let mut description = scene.description();
        description.components[2].selectable = false;
        let _shop = scene.join(description)?;
        let mut wire = scene.session()?;
        let shop = scene.gather(&mut wire, "full")?;
        wire.refused("AddComponent", Scene::component(&shop, "orders", "old"), InvalidArgument)?;
        Ok(())
    };
    /// AddComponent on a subcomponent whose selectable ancestor is already explicit
    add_component_below_an_explicit_one => |scene| {
        let _shop = scene.shop()?;
        let mut wire = scene.session()?;
        let shop = scene.gather(&mut wire, "full")?;
        Scene::add_components(&mut wire, &shop)?;
        wire.refused("AddComponent", Scene::component(&shop, "orders", "old"), InvalidArgument)?;
        Ok(())
    };
    /// 11.12 AddComponent after StartSnapshotSet, and no more after PrepareForBackup
    add_component_until_prepare => |scene| {
        let _shop = scene.shop()?;
        let mut wire = scene.session()?;
        let shop = scene.gather(&mut wire, "full")?;
        wire.ok("StartSnapshotSet", json!({}))?;
        wire.ok("AddComponent", Scene::component(&shop, "", "settings"))?;
        wire.done("PrepareForBackup", json!({}))?;
        wire.refused("AddComponent", Scene::component(&shop, "", "orders"), BadState)?;
        Ok(())
    };
    /// 1.3 StartSnapshotSet and AddToSnapshotSet before GatherWriterMetadata, and not after PrepareForBackup
    set_begun_before_the_gather => |scene| {
        let _shop = scene.shop()?;
        let mut wire = scene.session()?;
        wire.ok("StartSnapshotSet", json!({}))?;
        scene.add_volume(&mut wire)?;
        let shop = scene.gather(&mut wire, "full")?;
        Scene::add_components(&mut wire, &shop)?;
        wire.done("PrepareForBackup", json!({}))?;
        wire.refused("StartSnapshotSet", json!({}), BadState)?;
        wire.refused("AddToSnapshotSet", json!({"volume": scene.volume.name()}), BadState)?;
        wire.refused("SetBackupState", Scene::state("full"), BadState)?;
        wire.done("DoSnapshotSet", json!({}))
    };
    /// 1.1 one object is one backup: nothing of a second one after the set is made, and none after BackupComplete
    one_object_one_backup => |scene| {
        let _shop = scene.shop()?;
        let mut wire = scene.session()?;
        scene.made(&mut wire, "full")?;
        for is_complete in [false, true] {
            if is_complete {
                wire.done("BackupComplete", json!({}))?;
            }
            for call in ["StartSnapshotSet", "PrepareForBackup", "DoSnapshotSet", "GatherWriterMetadata"] {
                wire.refused(call, json!({}), BadState)?;
            }
            wire.refused("AddToSnapshotSet", json!({"volume": scene.volume.name()}), BadState)?;
        }
        Ok(())
    };
    /// Enable/Disable writer calls after GatherWriterMetadata: accepted, no effect
    enable_and_disable_after_the_gather => |scene| {
        let _shop = scene.shop()?;
        let mut wire = scene.session()?;
        let shop = scene.gather(&mut wire, "full")?;
        wire.ok("DisableWriterClasses", json!({"class_ids": [shop["class_id"]]}))?;
        wire.ok("DisableWriterInstances", json!({"instance_ids": [shop["instance_id"]]}))?;
        Scene::add_components(&mut wire, &shop)?;
        Ok(())
    };
    /// SetPreviousBackupStamp in the wrong phase
    previous_backup_stamp_after_prepare => |scene| {
        let _shop = scene.shop()?;
        let mut wire = scene.session()?;
        let shop = scene.prepared(&mut wire, "incremental")?;
        let component = Scene::component(&shop, "", "orders");
        wire.refused("SetPreviousBackupStamp", json!({"component": component, "stamp": "1"}), BadState)?;
        wire.refused("SetBackupOptions", json!({"component": component, "options": "x"}), BadState)?;
        Ok(())
    };
    /// BackupComplete and SetBackupSucceeded before the set is made, BackupComplete twice
    backup_complete_out_of_order => |scene| {
        let _shop = scene.shop()?;
        let mut wire = scene.session()?;
        let shop = scene.prepared(&mut wire, "full")?;
        wire.refused("BackupComplete", json!({}), BadState)?;
        let component = Scene::component(&shop, "", "orders");
        wire.refused("SetBackupSucceeded", json!({"component": component, "succeeded": true}), BadState)?;
        wire.done("DoSnapshotSet", json!({}))?;
        wire.ok("SetBackupSucceeded", json!({"component": component, "succeeded": true}))?;
        wire.done("BackupComplete", json!({}))?;
        wire.refused("BackupComplete", json!({}), BadState)?;
        Ok(())
    };
}

crate::skip! {
    set_selected_for_restore_of_the_unknown: "restore";
    calls_on_a_document_with_bad_xml: "restore";
}
