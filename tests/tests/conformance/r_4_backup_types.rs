//! R 4: backup types, schemas and stamps.

use crate::r_2_writers::said;
use crate::rows;
use crate::scene::Scene;
use anyhow::ensure;
use serde_json::json;
use vss_model::{BackupSchema, BackupType, VssCode};
use vss_writer::messages::EventKind as E;
use vss_writer::simulated::Description;

rows! {
    /// 4.1 writers are told the type: FULL, INCREMENTAL, DIFFERENTIAL, LOG, COPY, OTHER
    writers_are_told_the_type => |scene| {
        let shop = scene.shop()?;
        let types = [
            ("full", BackupType::Full),
            ("incremental", BackupType::Incremental),
            ("differential", BackupType::Differential),
            ("log", BackupType::Log),
            ("copy", BackupType::Copy),
            ("other", BackupType::Other),
        ];
        for (name, wanted) in types {
            let mut wire = scene.session()?;
            let metadata = scene.gather(&mut wire, name)?;
            Scene::add_components(&mut wire, &metadata)?;
            wire.done("PrepareForBackup", json!({}))?;
            let told = shop.handle().last(E::PrepareBackup).map(|event| event.backup_state.backup_type);
            ensure!(told == Some(wanted), "{name}: {told:?}");
        }
        Ok(())
    };
    /// 1.5 writers read what SetBackupState said
    writers_read_the_backup_state => |scene| {
        let shop = scene.shop()?;
        let mut wire = scene.session()?;
        scene.prepared(&mut wire, "full")?;
        let state = shop.handle().last(E::PrepareBackup).map(|event| event.backup_state);
        ensure!(state.is_some_and(|state| state.select_components && state.partial_file_support), "{state:?}");
        Ok(())
    };
    /// 4.2 stamps: full, then incremental with the stamp of the full, then differential
    stamp_hand_over => |scene| {
        let mut description = Description { stamps: true, ..scene.description() };
        description.declaration.backup_schema = BackupSchema(0x23);
        let writer = scene.join(description)?;
        let mut previous: Option<String> = None;
        for (count, backup_type) in ["full", "incremental", "differential"].into_iter().enumerate() {
            let mut wire = scene.session()?;
            let shop = scene.gather(&mut wire, backup_type)?;
            Scene::add_components(&mut wire, &shop)?;
            if let Some(stamp) = &previous {
                let component = Scene::component(&shop, "", "orders");
                wire.ok("SetPreviousBackupStamp", json!({"component": component, "stamp": stamp}))?;
            }
            wire.ok("StartSnapshotSet", json!({}))?;
            scene.add_volume(&mut wire)?;
            wire.done("PrepareForBackup", json!({}))?;
            wire.done("DoSnapshotSet", json!({}))?;
            let event = writer.handle().last(E::PrepareBackup).into_iter().flat_map(|event| event.components);
            let told: Vec<_> = event.filter(|one| one.name.name == "orders").map(|one| one.previous_backup_stamp).collect();
            ensure!(told == [previous.clone()], "{backup_type}: {told:?} instead of {previous:?}");
            let orders = Scene::kept(&mut wire, &shop, "orders")?;
            ensure!(orders["backup_stamp"].as_str() == Some((count + 1).to_string().as_str()), "{orders}");
            if previous.is_none() {
                previous = orders["backup_stamp"].as_str().map(str::to_owned);
            }
        }
        Ok(())
    };
    /// 4.1 the schema reaches the requester, who decides what an unsupported type is
    schema_is_readable => |scene| {
        let mut description = scene.description();
        description.declaration.backup_schema = BackupSchema(0x11);
        let _shop = scene.join(description)?;
        let shop = scene.gather(&mut scene.session()?, "incremental")?;
        let schema = BackupSchema(u32::try_from(shop["backup_schema"].as_u64().unwrap_or_default())?);
        ensure!(schema.effective(BackupType::Incremental) == BackupType::Full, "{schema:?}");
        ensure!(schema.effective(BackupType::Differential) == BackupType::Differential, "{schema:?}");
        Ok(())
    };
    /// 4.1 bits that need others: the writer is not listed
    schema_against_the_rules => |scene| {
        for bits in [0x4, 0x8, 0x20, 0x40] {
            let mut description = scene.description();
            description.declaration.backup_schema = BackupSchema(bits);
            let _shop = scene.join(description)?;
            ensure!(scene.gather(&mut scene.session()?, "full")?.is_null(), "{bits:#x} is listed");
        }
        Ok(())
    };
    /// 3.8 / 4.1 differenced files need LAST_MODIFY and the type in the schema
    differenced_files_need_the_schema => |scene| {
        let path = scene.volume.path().join("shop/orders");
        for (schema, backup_type, kept) in [(0x42, "incremental", true), (0x42, "differential", false), (0x2, "incremental", false)] {
            let mut description = scene.description();
            description.declaration.backup_schema = BackupSchema(schema);
            description.say = vec![said(json!({"event": "post_snapshot", "component": {"name": "orders"},
                "differenced_files": [{"path": path, "pattern": "*"}]}))?];
            let _shop = scene.join(description)?;
            let mut wire = scene.session()?;
            let shop = scene.made(&mut wire, backup_type)?;
            let orders = Scene::kept(&mut wire, &shop, "orders")?;
            ensure!(orders["differenced_files"].is_null() != kept, "{schema:#x} {backup_type}: {orders}");
            let number = orders["failure"]["number"].as_u64();
            ensure!(number.is_none() == kept || number == Some(VssCode::WriterErrorNonRetryable.hresult().into()), "{orders}");
        }
        Ok(())
    };
}

crate::skip! {
    restore_chain_with_additional_restores: "restore";
}
