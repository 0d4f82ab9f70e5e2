//! R 3: components, inclusion, and what is said of them.

use crate::r_2_writers::said;
use crate::rows;
use crate::scene::Scene;
use anyhow::ensure;
use serde_json::{Value, json};
use vss_model::{Component, Dependency, FileBackupMask, FileSpec, VssCode, WriterClassId};
use vss_writer::messages::EventKind as E;
use vss_writer::simulated::{Deed, Description};

/// What of shop's components is in the backup, after `adds` were added and the writer was told.
fn told(scene: &Scene, adds: &[(&str, &str)]) -> anyhow::Result<Vec<String>> {
    let shop = scene.shop()?;
    let mut wire = scene.session()?;
    let metadata = scene.gather(&mut wire, "full")?;
    for (path, name) in adds {
        wire.ok("AddComponent", Scene::component(&metadata, path, name))?;
    }
    wire.done("PrepareForBackup", json!({}))?;
    let event = shop.handle().last(E::PrepareBackup);
    Ok(event.into_iter().flat_map(|event| event.components).map(|one| one.name.to_string()).collect())
}

rows! {
    /// 3.1 / 3.3 the component record and its file sets reach the requester
    the_record => |scene| {
        let mut description = scene.description();
        description.components[1].caption = Some("Orders".to_owned());
        description.components[1].files[0].backup_type_mask = FileBackupMask(0x0101);
        description.components[1].files[0].alternate_path = Some("/var/spit".into());
        description.components[1].selectable_for_restore = true;
        let _shop = scene.join(description)?;
        let shop = scene.gather(&mut scene.session()?, "full")?;
        let orders = &shop["components"][1];
        ensure!(orders["caption"] == "Orders" && orders["selectable_for_restore"] == true, "{orders}");
        let settings: FileSpec = serde_json::from_value(shop["components"][0]["files"][0].clone())?;
        ensure!(settings.backup_type_mask == FileBackupMask(3855), "the default is 0x0F0F: {settings:?}");
        ensure!(orders["files"][0]["backup_type_mask"] == 0x0101 && orders["files"][0]["alternate_path"] == "/var/spit", "{orders}");
        Ok(())
    };
    /// 3.1 uniqueness of (logical path, name); bad names: the writer is not listed
    a_record_against_the_rules => |scene| {
        let mut twice = scene.description();
        twice.components[2].name = twice.components[1].name.clone();
        let mut named = scene.description();
        named.components[1].name.name = "a\\b".to_owned();
        let mut with_directory = scene.description();
        with_directory.components[1].files[0].pattern = "a/*".to_owned();
        for wrong in [twice, named, with_directory] {
            let _shop = scene.join(wrong)?;
            ensure!(scene.gather(&mut scene.session()?, "full")?.is_null(), "it is listed");
        }
        Ok(())
    };
    /// 3.2 a database has data and logs apart, a file group has no logs. Its files may be a tree, as those of a cluster are
    databases => |scene| {
        let directory = scene.volume.path().join("shop/orders");
        let mut ledger = Component::database("ledger").files_directly_in(directory).build()?;
        ledger.log_files.push(FileSpec { pattern: "*.log".to_owned(), ..ledger.files[0].clone() });
        let writer = scene.join(Description { components: vec![ledger], ..scene.description() })?;
        let shop = scene.gather(&mut scene.session()?, "full")?;
        let ledger = &shop["components"][0];
        ensure!(ledger["type"] == "database" && ledger["log_files"][0]["pattern"] == "*.log", "{shop}");
        drop(writer);
        let mut logged = scene.description();
        logged.components[1].log_files = logged.components[1].files.clone();
        let _writer = scene.join(logged)?;
        ensure!(scene.gather(&mut scene.session()?, "full")?.is_null(), "it is listed");
        Ok(())
    };
    /// 3.4 / 11.2 a component that is not selectable below one that is not: both explicit
    mandatory_below_mandatory => |scene| {
        let mut description = scene.description();
        description.components[2].name.logical_path = "settings".to_owned();
        description.components[2].selectable = false;
        let shop = scene.join(description)?;
        let mut wire = scene.session()?;
        let metadata = scene.gather(&mut wire, "full")?;
        wire.ok("AddComponent", Scene::component(&metadata, "", "settings"))?;
        wire.ok("AddComponent", Scene::component(&metadata, "settings", "old"))?;
        wire.done("PrepareForBackup", json!({}))?;
        let told = shop.handle().last(E::PrepareBackup).into_iter().flat_map(|event| event.components);
        let names: Vec<String> = told.map(|one| one.name.to_string()).collect();
        ensure!(names == ["settings", "settings\\old"], "{names:?}");
        Ok(())
    };
    /// 3.4 mandatory component: explicit
    mandatory_is_explicit => |scene| {
        ensure!(told(&scene, &[("", "settings")])? == ["settings"], "settings");
        Ok(())
    };
    /// 3.4 optional top of a set: itself recorded, its parts implicit
    a_set_is_one_component => |scene| {
        ensure!(told(&scene, &[("", "settings"), ("", "orders")])? == ["orders", "settings"], "the parts are implicit");
        Ok(())
    };
    /// 3.4 selectable subcomponent: explicit on its own without its ancestor
    a_selectable_part_alone => |scene| {
        ensure!(told(&scene, &[("orders", "old")])? == ["orders\\old"], "old alone");
        Ok(())
    };
    /// 3.6 dependencies reach the requester
    dependencies => |scene| {
        let mut description = scene.description();
        let on = vss_model::ComponentName::new("", "ledger");
        description.components[1].dependencies = vec![Dependency { writer: WriterClassId::from_u128(9), on }];
        let _shop = scene.join(description)?;
        let shop = scene.gather(&mut scene.session()?, "full")?;
        let dependency = &shop["components"][1]["dependencies"][0];
        ensure!(dependency["name"] == "ledger" && dependency["writer"] == json!(WriterClassId::from_u128(9)), "{shop}");
        Ok(())
    };
    /// 3.7 excludes, exclude-from-snapshot, schema and version reach the requester
    writer_level_lists => |scene| {
        let mut description = scene.description();
        let path = scene.volume.path().join("shop");
        let set = vss_model::FileSet { path, pattern: "*.tmp".to_owned(), recursive: true };
        description.declaration.exclude_files = vec![set.clone()];
        description.declaration.exclude_files_from_snapshot = vec![set];
        description.declaration.version_major = 3;
        description.declaration.backup_schema = vss_model::BackupSchema(0x3);
        let _shop = scene.join(description)?;
        let shop = scene.gather(&mut scene.session()?, "full")?;
        ensure!(shop["exclude_files"][0]["pattern"] == "*.tmp" && shop["version_major"] == 3, "{shop}");
        ensure!(shop["exclude_files_from_snapshot"][0]["recursive"] == true && shop["backup_schema"] == 3, "{shop}");
        Ok(())
    };
    /// 3.8 backup options reach the writer
    backup_options => |scene| {
        let writer = scene.shop()?;
        let mut wire = scene.session()?;
        let shop = scene.gather(&mut wire, "full")?;
        Scene::add_components(&mut wire, &shop)?;
        let component = Scene::component(&shop, "", "orders");
        wire.ok("SetBackupOptions", json!({"component": component, "options": "verify=yes"}))?;
        wire.done("PrepareForBackup", json!({}))?;
        let event = writer.handle().last(E::PrepareBackup).into_iter().flat_map(|event| event.components);
        let options: Vec<_> = event.filter_map(|one| one.backup_options).collect();
        ensure!(options == ["verify=yes"], "{options:?}");
        ensure!(Scene::kept(&mut wire, &shop, "orders")?["backup_options"] == "verify=yes", "the requester reads it too");
        Ok(())
    };
    /// 3.8 backup succeeded reaches the writer in BackupComplete
    backup_succeeded => |scene| {
        let writer = scene.shop()?;
        let mut wire = scene.session()?;
        let shop = scene.made(&mut wire, "full")?;
        for (name, succeeded) in [("orders", true), ("settings", false)] {
            let component = Scene::component(&shop, "", name);
            wire.ok("SetBackupSucceeded", json!({"component": component, "succeeded": succeeded}))?;
        }
        wire.done("BackupComplete", json!({}))?;
        let event = writer.handle().last(E::BackupComplete).into_iter().flat_map(|event| event.components);
        let said: Vec<_> = event.map(|one| (one.name.name, one.backup_succeeded)).collect();
        ensure!(said == [("orders".to_owned(), Some(true)), ("settings".to_owned(), Some(false))], "{said:?}");
        Ok(())
    };
    /// 3.8 stamp, metadata, partial and differenced files: writers say them, the requester reads them
    what_writers_say => |scene| {
        let mut description = scene.description();
        let path = scene.volume.path().join("shop/orders");
        description.declaration.backup_schema = vss_model::BackupSchema(0x42);
        description.say = vec![
            said(json!({"event": "prepare_backup", "component": {"name": "orders"}, "backup_metadata": "m", "backup_stamp": "early"}))?,
            said(json!({"event": "post_snapshot", "component": {"name": "orders"}, "backup_stamp": "late",
                "partial_files": [{"path": path, "file_name": "1", "ranges": "0:2, 0x10:4", "metadata": "p"}],
                "differenced_files": [{"path": path, "pattern": "*", "recursive": true, "last_modified": 5}]}))?,
        ];
        let _shop = scene.join(description)?;
        let mut wire = scene.session()?;
        let shop = scene.made(&mut wire, "incremental")?;
        let orders = Scene::kept(&mut wire, &shop, "orders")?;
        ensure!(orders["backup_stamp"] == "late" && orders["backup_metadata"] == "m", "{orders}");
        ensure!(orders["partial_files"][0]["ranges"] == "0:2, 16:4" && orders["partial_files"][0]["metadata"] == "p", "{orders}");
        ensure!(orders["differenced_files"][0]["last_modified"] == 5, "{orders}");
        Ok(())
    };
    /// 3.8 partial files need SetBackupState's partial file support
    partial_files_need_support => |scene| {
        let mut description = scene.description();
        let path = scene.volume.path().join("shop/orders");
        description.say = vec![said(json!({"event": "post_snapshot", "component": {"name": "orders"},
            "partial_files": [{"path": path, "file_name": "1", "ranges": "0:2"}]}))?];
        let _shop = scene.join(description)?;
        let mut wire = scene.session()?;
        let shop = scene.gather(&mut wire, "full")?;
        let mut state = Scene::state("full");
        state["state"]["partial_file_support"] = json!(false);
        wire.ok("SetBackupState", state)?;
        Scene::add_components(&mut wire, &shop)?;
        wire.ok("StartSnapshotSet", json!({}))?;
        scene.add_volume(&mut wire)?;
        wire.done("PrepareForBackup", json!({}))?;
        wire.done("DoSnapshotSet", json!({}))?;
        let orders = Scene::kept(&mut wire, &shop, "orders")?;
        ensure!(orders["failure"]["code"] == "VSS_E_WRITERERROR_NONRETRYABLE" && orders["partial_files"].is_null(), "{orders}");
        Ok(())
    };
    /// 3.8 a partial file lies in or below the directory of a file set of the component, or of a component below that
    partial_files_in_file_sets => |scene| {
        for (directory, is_kept) in [("shop/orders/deep", true), ("shop/old", true), ("shop/settings", false)] {
            let mut description = scene.description();
            let path = scene.volume.path().join(directory);
            description.say = vec![said(json!({"event": "post_snapshot", "component": {"name": "orders"},
                "partial_files": [{"path": path, "file_name": "1", "ranges": "0:2"}]}))?];
            let _shop = scene.join(description)?;
            let mut wire = scene.session()?;
            let shop = scene.made(&mut wire, "full")?;
            let orders = Scene::kept(&mut wire, &shop, "orders")?;
            ensure!(orders["partial_files"].is_null() != is_kept, "{directory}: {orders}");
            let number = orders["failure"]["number"].as_u64();
            ensure!(number.is_none() == is_kept || number == Some(VssCode::WriterErrorNonRetryable.hresult().into()), "{orders}");
        }
        Ok(())
    };
    /// 12 the document is read-only for writers outside PrepareBackup and PostSnapshot (5.2, 11.8)
    write_window => |scene| {
        for event in ["prepare_snapshot", "freeze", "thaw"] {
            let mut description = scene.description();
            description.say = vec![said(json!({"event": event, "component": {"name": "orders"}, "backup_stamp": "x"}))?];
            let _shop = scene.join(description)?;
            let mut wire = scene.session()?;
            let shop = scene.made(&mut wire, "full")?;
            let status = wire.writer_status("shop")?;
            ensure!(status["failure"]["number"] == VssCode::WriterErrorNonRetryable.hresult(), "{event}: {status}");
            ensure!(status["failure"]["message"].as_str().is_some_and(|text| text.contains("VSS_E_BAD_STATE")), "{status}");
            ensure!(Scene::kept(&mut wire, &shop, "orders")?["backup_stamp"].is_null(), "it is kept");
        }
        Ok(())
    };
    /// 12 the test writer deletes originals after the cut: the copy has them
    originals_deleted_after_the_cut => |scene| {
        let _shop = scene.join(Description { deeds: [Deed::DeleteFiles].into(), ..scene.description() })?;
        let mut wire = scene.session()?;
        scene.made(&mut wire, "full")?;
        ensure!(!scene.volume.path().join("shop/orders/1").exists(), "the original stays");
        ensure!(scene.look(&mut wire)?.join("shop/orders/1").exists(), "the copy has it");
        Ok(())
    };
    /// 12 spit writer: the alternate path is in the copy and gone from the live volume
    spit_directory => |scene| {
        let mut description = Description { spit: true, ..scene.description() };
        description.components[1].files[0].alternate_path = Some(scene.volume.path().join("spit"));
        let _shop = scene.join(description)?;
        let mut wire = scene.session()?;
        scene.made(&mut wire, "full")?;
        ensure!(scene.look(&mut wire)?.join("spit/1").exists(), "the copy has what was spat");
        ensure!(!scene.volume.path().join("spit/1").exists(), "it stays on the live volume");
        Ok(())
    };
    /// 3.8 what is kept of a component is bounded
    bounded_data => |scene| {
        let mut description = scene.description();
        let long = "x".repeat((64 << 10) + 1);
        description.say = vec![said(json!({"event": "post_snapshot", "component": {"name": "orders"}, "backup_stamp": long}))?];
        let _shop = scene.join(description)?;
        let mut wire = scene.session()?;
        let shop = scene.made(&mut wire, "full")?;
        let orders = Scene::kept(&mut wire, &shop, "orders")?;
        let code: &Value = &orders["failure"]["code"];
        ensure!(code == "VSS_E_WRITERERROR_OUTOFRESOURCES" && orders["backup_stamp"].is_null(), "{code}");
        Ok(())
    };
}

crate::skip! {
    selectability_for_restore: "restore";
    restore_method_and_target: "restore";
    restore_subcomponents: "restore";
    restore_options: "restore";
}
