//! R 5: the Writer Metadata Document and the Backup Components Document.

use crate::scene::Scene;
use crate::{rows, skip};
use anyhow::{Context, ensure};
use serde_json::json;
use vss_documents::{BackupComponentsDocument, WriterMetadataDocument};
use vss_model::{BackupComponents, BackupType, SetId, VssCode, WriterInstanceId};
use vss_tests::wire::Wire;

rows! {
    /// 5.1 it has the identification and the components with their files, as the writer said them in Identify
    writer_metadata_document => |scene| {
        let _shop = scene.shop()?;
        let mut wire = scene.session()?;
        let shop = scene.made(&mut wire, "full")?;
        let instance: WriterInstanceId = shop["instance_id"].as_str().context("an instance")?.parse()?;
        let document = scene.instance.management()?.document(set_of(&mut wire)?, Some(instance))?;
        let document = WriterMetadataDocument::parse(&document)?;
        let said = document.content();
        ensure!(said.instance_id == instance && said.name == "shop", "{said:?}");
        ensure!(said.components == scene.description().components, "{said:?}");
        Ok(())
    };
    /// 5.2 it has the session's state and what was included explicitly, and no file specification
    backup_components_document => |scene| {
        let _shop = scene.shop()?;
        let mut wire = scene.session()?;
        scene.made(&mut wire, "incremental")?;
        let set_id = set_of(&mut wire)?;
        let text = scene.instance.management()?.document(set_id, None)?;
        let said = parsed(&text)?;
        ensure!(said.set_id == Some(set_id) && said.state.backup_type == BackupType::Incremental, "{said:?}");
        ensure!(names(&said) == ["settings", "orders"], "{said:?}");
        let directory = scene.volume.path().join("shop").display().to_string();
        ensure!(!String::from_utf8_lossy(&text).contains(&directory), "it has a path");
        Ok(())
    };
    /// 5.2 the requester writes to it until BackupComplete
    success_is_in_the_document => |scene| {
        let _shop = scene.shop()?;
        let mut wire = scene.session()?;
        let shop = scene.made(&mut wire, "full")?;
        for (name, succeeded) in [("settings", true), ("orders", false)] {
            let component = Scene::component(&shop, "", name);
            wire.ok("SetBackupSucceeded", json!({"component": component, "succeeded": succeeded}))?;
        }
        let set_id = set_of(&mut wire)?;
        wire.done("BackupComplete", json!({}))?;
        let said = parsed(&scene.instance.management()?.document(set_id, None)?)?;
        let succeeded: Vec<_> = said.writers.iter().flat_map(|one| &one.components).map(|one| one.backup_succeeded).collect();
        ensure!(succeeded == [Some(true), Some(false)], "{said:?}");
        Ok(())
    };
    /// 5.2 it is not there before the set is made; 5.3 both kinds are saved with it
    both_kinds_are_saved_with_the_set => |scene| {
        let _shop = scene.shop()?;
        let mut wire = scene.in_context("app_rollback")?;
        let shop = scene.gather(&mut wire, "full")?;
        Scene::add_components(&mut wire, &shop)?;
        let set_id: SetId = wire.ok("StartSnapshotSet", json!({}))?["set_id"].as_str().context("a set")?.parse()?;
        scene.add_volume(&mut wire)?;
        let early = scene.instance.management()?.document(set_id, None).err().context("a document of no set")?;
        ensure!(early.code == VssCode::ObjectNotFound, "{early}");
        wire.done("PrepareForBackup", json!({}))?;
        wire.done("DoSnapshotSet", json!({}))?;
        wire.done("BackupComplete", json!({}))?;
        drop(wire);
        let listed = scene.instance.management()?.documents(set_id)?;
        let writers: Vec<_> = listed.iter().map(|one| one.writer.as_deref()).collect();
        ensure!(writers == [None, Some("shop")], "{listed:?}");
        Ok(())
    };
}

skip! {
    loaded_for_a_restore: "restore";
    writer_edits_in_pre_restore: "restore";
}

/// The set of the session.
fn set_of(wire: &mut Wire) -> anyhow::Result<SetId> {
    let set = wire.ok("GetSnapshotSet", json!({}))?;
    Ok(set["set"]["set_id"].as_str().context("a set")?.parse()?)
}

fn parsed(text: &[u8]) -> anyhow::Result<BackupComponents> {
    Ok(BackupComponentsDocument::parse(text)?.content().clone())
}

fn names(said: &BackupComponents) -> Vec<&str> {
    said.writers.iter().flat_map(|one| &one.components).map(|one| one.name.name.as_str()).collect()
}
