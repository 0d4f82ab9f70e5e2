//! What the rows share: a service, a volume with files, writers, and the usual way through a backup.

use serde_json::{Value, json};
use std::ffi::OsString;
use vss_model::{Component, WriterClassId};
use vss_tests::instance::Instance;
use vss_tests::simulated::Simulated;
use vss_tests::turn::{CreationTurn, creation_turn};
use vss_tests::volume::Volume;
use vss_tests::wire::Wire;
use vss_writer::simulated::Description;

/// A service and a btrfs volume; the turn to create sets is ours.
pub(crate) struct Scene {
    pub(crate) instance: Instance,
    pub(crate) volume: Volume,
    _turn: CreationTurn,
}

impl Scene {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let turn = creation_turn();
        let volume = Volume::new()?;
        for file in ["shop/orders/1", "shop/orders/2", "shop/settings/main", "shop/orders/cache.tmp"] {
            volume.write(file, file)?;
        }
        let mut instance = Instance::new()?;
        instance.start()?;
        Ok(Self { instance, volume, _turn: turn })
    }

    /// Starts the service again with a variable in its environment, for a fault or the provider of the tests.
    pub(crate) fn restart_with(&mut self, name: &str, value: impl Into<OsString>) -> anyhow::Result<()> {
        self.instance.stop()?;
        self.instance.set(name, value);
        self.instance.start()
    }

    pub(crate) fn connect(&self) -> anyhow::Result<Wire> {
        Wire::connect(&self.instance)
    }

    /// A session of a backup.
    pub(crate) fn session(&self) -> anyhow::Result<Wire> {
        let mut wire = self.connect()?;
        wire.ok("InitializeForBackup", json!({"requester": "conformance"}))?;
        Ok(wire)
    }

    /// The same in a context.
    pub(crate) fn in_context(&self, context: &str) -> anyhow::Result<Wire> {
        let mut wire = self.session()?;
        wire.ok("SetContext", json!({"context": context}))?;
        Ok(wire)
    }

    /// A session without writers whose set has begun.
    pub(crate) fn started(&self) -> anyhow::Result<Wire> {
        let mut wire = self.in_context("file_share_backup")?;
        wire.ok("StartSnapshotSet", json!({}))?;
        Ok(wire)
    }

    /// The writer `shop`: components `settings` (mandatory), `orders` (a set) and `orders\old` in it.
    pub(crate) fn description(&self) -> Description {
        let directory = |name: &str| self.volume.path().join("shop").join(name);
        let components = [
            Component::file_group("settings").not_selectable().files_below(directory("settings")),
            Component::file_group("orders").files_below(directory("orders")),
            Component::file_group("old").logical_path("orders").files_below(directory("old")),
        ];
        let built = components.map(|component| component.build().expect("a component"));
        Description { class_id: Some(WriterClassId::from_u128(7)), ..Description::new("shop", built.into()) }
    }

    pub(crate) fn join(&self, description: Description) -> anyhow::Result<Simulated> {
        Simulated::join(&self.instance, description)
    }

    /// The writer as it is.
    pub(crate) fn shop(&self) -> anyhow::Result<Simulated> {
        self.join(self.description())
    }

    /// A set of the volume in a context without writers: its id and the copy's.
    pub(crate) fn copy(&self, wire: &mut Wire) -> anyhow::Result<(String, String)> {
        let set = wire.ok("StartSnapshotSet", json!({}))?;
        let added = self.add_volume(wire)?;
        wire.done("DoSnapshotSet", json!({}))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok((text(&set["set_id"]), text(&added["shadow_id"])))
    }

    pub(crate) fn add_volume(&self, wire: &mut Wire) -> anyhow::Result<Value> {
        wire.ok("AddToSnapshotSet", json!({"volume": self.volume.name()}))
    }

    /// The parameters of SetBackupState.
    pub(crate) fn state(backup_type: &str) -> Value {
        json!({"state": {"select_components": true, "bootable_system_state": false, "backup_type": backup_type,
            "partial_file_support": true}})
    }

    /// SetBackupState and GatherWriterMetadata; what shop says of itself.
    pub(crate) fn gather(&self, wire: &mut Wire, backup_type: &str) -> anyhow::Result<Value> {
        wire.ok("SetBackupState", Self::state(backup_type))?;
        wire.done("GatherWriterMetadata", json!({}))?;
        let metadata = wire.ok("GetWriterMetadata", json!({}))?;
        let writers = metadata["writers"].as_array().cloned().unwrap_or_default();
        Ok(writers.into_iter().find(|writer| writer["name"] == "shop").unwrap_or_default())
    }

    /// A component of shop, as calls name it.
    pub(crate) fn component(shop: &Value, logical_path: &str, name: &str) -> Value {
        json!({"instance_id": shop["instance_id"], "class_id": shop["class_id"], "type": "file_group",
            "logical_path": logical_path, "name": name})
    }

    /// Adds settings and orders.
    pub(crate) fn add_components(wire: &mut Wire, shop: &Value) -> anyhow::Result<()> {
        for name in ["settings", "orders"] {
            wire.ok("AddComponent", Self::component(shop, "", name))?;
        }
        Ok(())
    }

    /// To the end of PrepareForBackup, with settings and orders and the volume; what shop says of itself.
    pub(crate) fn prepared(&self, wire: &mut Wire, backup_type: &str) -> anyhow::Result<Value> {
        let shop = self.gather(wire, backup_type)?;
        Self::add_components(wire, &shop)?;
        wire.ok("StartSnapshotSet", json!({}))?;
        self.add_volume(wire)?;
        wire.done("PrepareForBackup", json!({}))?;
        Ok(shop)
    }

    /// To the end of DoSnapshotSet.
    pub(crate) fn made(&self, wire: &mut Wire, backup_type: &str) -> anyhow::Result<Value> {
        let shop = self.prepared(wire, backup_type)?;
        wire.done("DoSnapshotSet", json!({}))?;
        Ok(shop)
    }

    /// What the backup knows of one component of shop.
    pub(crate) fn kept(wire: &mut Wire, shop: &Value, name: &str) -> anyhow::Result<Value> {
        let all = wire.ok("GetWriterComponents", json!({"instance_id": shop["instance_id"]}))?;
        let found = all["components"].as_array().into_iter().flatten().find(|one| one["name"] == name);
        found.cloned().ok_or_else(|| anyhow::anyhow!("no component {name}: {all}"))
    }

    /// The copy of the session's set, exposed: a directory to look into.
    pub(crate) fn look(&self, wire: &mut Wire) -> anyhow::Result<std::path::PathBuf> {
        let set = wire.ok("GetSnapshotSet", json!({}))?;
        let shown = wire.ok("ExposeSnapshot", json!({"shadow_id": set["set"]["shadows"][0]["id"]}))?;
        Ok(shown["path"].as_str().unwrap_or_default().into())
    }
}
