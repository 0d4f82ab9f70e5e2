//! Every finished set keeps its documents: as the session left them, over a restart and a kill of the service, until the set
//! is deleted; and no document is there without its set.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use vss_api::documents::{DocumentEntry, TEXT_BYTES};
use vss_documents::{BackupComponentsDocument, WriterMetadataDocument};
use vss_model::{Component, ComponentName, SessionComponent, SetId, VssCode, WriterClassId, WriterInstanceId, limits};
use vss_requester::Management;
use vss_tests::instance::{Instance, Running, wait_until};
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::programs::program;
use vss_tests::simulated::Simulated;
use vss_tests::turn::creation_turn;
use vss_tests::volume::Volume;
use vss_tests::wire::Wire;
use vss_writer::simulated::Description;

/// What must happen happens within this time.
const LIMIT: Duration = Duration::from_secs(30);
/// File sets of the large component: more than one answer can hold of its document.
const MANY: usize = 10_000;
/// Who may ask, and owns nothing here.
const NOBODY: u32 = 65534;

/// A volume with the files of a writer `shop`, which stamps its components, and a service.
struct Scene {
    instance: Instance,
    volume: Volume,
}

impl Scene {
    fn new() -> anyhow::Result<Self> {
        let volume = Volume::new()?;
        volume.write("shop/orders/1", "one")?;
        let mut instance = Instance::new()?;
        instance.settings(&format!("[requesters]\nuids = [{NOBODY}]"))?;
        instance.start()?;
        Ok(Self { instance, volume })
    }

    fn shop(&self) -> anyhow::Result<Simulated> {
        let shop = self.volume.path().join("shop");
        let many = (0..MANY).fold(Component::file_group("archive"), |archive, number| {
            archive.files_directly_in(shop.join(format!("a-directory-with-a-long-name/another-one/{number:06}")))
        });
        let orders = Component::file_group("orders").files_below(shop.join("orders"));
        let description = Description {
            class_id: Some(WriterClassId::from_u128(7)),
            stamps: true,
            ..Description::new("shop", vec![orders.build()?, many.build()?])
        };
        Simulated::join(&self.instance, description)
    }

    /// A session whose persistent set of both components is made, and its parts: set, instance of shop, components.
    fn made(&self) -> anyhow::Result<(Wire, SetId, WriterInstanceId, [Value; 2])> {
        let mut wire = Wire::connect(&self.instance)?;
        wire.ok("InitializeForBackup", json!({"requester": "documents"}))?;
        wire.ok("SetContext", json!({"context": "app_rollback"}))?;
        let state = json!({"select_components": true, "bootable_system_state": false, "backup_type": "full",
            "partial_file_support": false});
        wire.ok("SetBackupState", json!({"state": state}))?;
        wire.done("GatherWriterMetadata", json!({}))?;
        let metadata = wire.ok("GetWriterMetadata", json!({}))?;
        let shop = &metadata["writers"][0];
        let component = |name: &str| {
            json!({"instance_id": shop["instance_id"], "class_id": shop["class_id"], "type": "file_group",
                "logical_path": "", "name": name})
        };
        let components = ["orders", "archive"].map(component);
        for component in &components {
            wire.ok("AddComponent", component.clone())?;
        }
        wire.ok("SetBackupOptions", json!({"component": components[0], "options": "fast <&\">"}))?;
        let started = wire.ok("StartSnapshotSet", json!({}))?;
        wire.ok("AddToSnapshotSet", json!({"volume": self.volume.name()}))?;
        wire.done("PrepareForBackup", json!({}))?;
        wire.done("DoSnapshotSet", json!({}))?;
        let set_id = started["set_id"].as_str().context("a set")?.parse()?;
        Ok((wire, set_id, shop["instance_id"].as_str().context("an instance")?.parse()?, components))
    }

    fn listed(&self, set_id: SetId) -> anyhow::Result<Vec<DocumentEntry>> {
        Ok(self.instance.management()?.documents(set_id)?)
    }

    fn text(&self, set_id: SetId, of: Option<WriterInstanceId>) -> anyhow::Result<Vec<u8>> {
        Ok(self.instance.management()?.document(set_id, of)?)
    }

    /// What the Backup Components Document of the set says of a component of shop.
    fn said(&self, set_id: SetId, name: &str) -> anyhow::Result<SessionComponent> {
        let document = BackupComponentsDocument::parse(&self.text(set_id, None)?)?;
        let components = document.content();
        ensure!(components.set_id == Some(set_id) && components.state.select_components, "{components:?}");
        let name = ComponentName::new("", name);
        let mut of_shop = components.writers.iter().filter(|one| one.name == "shop").flat_map(|one| &one.components);
        of_shop.find(|one| one.name == name).cloned().with_context(|| format!("no component {name}: {components:?}"))
    }

    /// The sets of which there are files.
    fn directories(&self) -> anyhow::Result<BTreeSet<String>> {
        let directory = self.instance.state_dir().join("documents");
        let entries =
            if directory.exists() { fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()? } else { Vec::new() };
        Ok(entries.into_iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    }
}

#[test]
fn the_documents_of_a_set_are_read_back_until_it_is_deleted() -> anyhow::Result<()> {
    if LoopFs::skips("the_documents_of_a_set_are_read_back_until_it_is_deleted", &[Kind::Btrfs]) {
        return Ok(());
    }
    let mut scene = Scene::new()?;
    let shop = scene.shop()?;
    let turn = creation_turn();
    let (mut wire, set_id, writer, components) = scene.made()?;
    drop(turn);

    // As of the end of DoSnapshotSet.
    let listed = scene.listed(set_id)?;
    let named: Vec<_> = listed.iter().map(|one| (one.writer.as_deref(), one.instance_id)).collect();
    ensure!(named == [(None, None), (Some("shop"), Some(writer))], "{named:?}");
    let orders = scene.said(set_id, "orders")?;
    ensure!(orders.backup_options == "fast <&\">" && orders.backup_stamp == "1", "{orders:?}");
    ensure!(orders.backup_succeeded.is_none() && scene.said(set_id, "archive")?.backup_stamp == "1");
    let metadata = scene.text(set_id, Some(writer))?;
    ensure!(listed[1].bytes == metadata.len() as u64 && listed[1].bytes > TEXT_BYTES, "{listed:?}");
    let archive = WriterMetadataDocument::parse(&metadata)?.content().components[1].clone();
    ensure!(archive.files.len() == MANY, "{} of {MANY} file sets", archive.files.len());

    // What the session says later is read at once, and kept with BackupComplete.
    for (component, succeeded) in components.iter().zip([true, false]) {
        wire.ok("SetBackupSucceeded", json!({"component": component, "succeeded": succeeded}))?;
    }
    let succeeded = |scene: &Scene| -> anyhow::Result<[Option<bool>; 2]> {
        Ok([scene.said(set_id, "orders")?.backup_succeeded, scene.said(set_id, "archive")?.backup_succeeded])
    };
    ensure!(succeeded(&scene)? == [Some(true), Some(false)], "{:?}", succeeded(&scene)?);
    let kept = scene.instance.state_dir().join(format!("documents/{set_id}/backup-components.xml"));
    ensure!(!fs::read_to_string(&kept)?.contains("backupSucceeded"), "kept before BackupComplete");
    wire.done("BackupComplete", json!({}))?;
    ensure!(fs::read_to_string(&kept)?.contains("backupSucceeded"), "not kept with BackupComplete");
    ensure!(succeeded(&scene)? == [Some(true), Some(false)], "{:?}", succeeded(&scene)?);
    drop(wire);

    // Or with the end of the session.
    let turn = creation_turn();
    let (mut wire, other, _, components) = scene.made()?;
    drop(turn);
    wire.ok("SetBackupSucceeded", json!({"component": components[0], "succeeded": true}))?;
    drop(wire);
    let kept = scene.instance.state_dir().join(format!("documents/{other}/backup-components.xml"));
    let is_kept = || fs::read_to_string(&kept).is_ok_and(|text| text.contains("backupSucceeded"));
    ensure!(wait_until(LIMIT, is_kept), "not kept with the end of the session");

    let before = (scene.text(set_id, None)?, scene.text(other, None)?);
    drop(shop);
    scene.instance.stop()?;
    scene.instance.start()?;
    ensure!((scene.text(set_id, None)?, scene.text(other, None)?) == before, "a restart changed them");
    scene.instance.kill()?;
    scene.instance.start()?;
    ensure!((scene.text(set_id, None)?, scene.text(other, None)?) == before, "a kill changed them");
    ensure!(scene.text(set_id, Some(writer))? == metadata, "the metadata changed");

    the_command_shows_them(&scene, set_id, &before.0, &metadata)?;

    let refused = scene.instance.management()?.document(set_id, Some(WriterInstanceId::random())).err();
    ensure!(refused.as_ref().is_some_and(|error| error.code == VssCode::ObjectNotFound), "{refused:?}");
    let gone = scene.instance.vss(["delete", "--set", &set_id.to_string()])?;
    ensure!(gone.is_success(), "{gone:?}");
    let refused = scene.instance.management()?.documents(set_id).err();
    ensure!(refused.as_ref().is_some_and(|error| error.code == VssCode::ObjectNotFound), "{refused:?}");
    ensure!(scene.directories()? == BTreeSet::from([other.to_string()]), "{:?}", scene.directories()?);
    let gone = scene.instance.vss(["delete", "--all"])?;
    ensure!(gone.is_success() && scene.directories()?.is_empty(), "{gone:?}");
    scene.volume.is_clean()
}

/// A document is looked through by one caller at a time, and each of those who wait has a thread of the service.
#[test]
fn of_many_who_ask_at_once_some_are_told_to_wait() -> anyhow::Result<()> {
    if LoopFs::skips("of_many_who_ask_at_once_some_are_told_to_wait", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    let _shop = scene.shop()?;
    let turn = creation_turn();
    let (_wire, set_id, writer, _) = scene.made()?;
    drop(turn);
    let metadata = scene.text(set_id, Some(writer))?;
    let asking = 4 * limits::DOCUMENT_QUESTIONS;
    let ask_together = || -> anyhow::Result<Vec<_>> {
        let connections = (0..asking).map(|_| scene.instance.management()).collect::<anyhow::Result<Vec<_>>>()?;
        let together = Barrier::new(asking);
        Ok(thread::scope(|scope| {
            let ask = |mut connection: Management| {
                let together = &together;
                scope.spawn(move || {
                    together.wait();
                    connection.document(set_id, Some(writer))
                })
            };
            let asked: Vec<_> = connections.into_iter().map(ask).collect();
            asked.into_iter().map(|asked| asked.join().unwrap()).collect()
        }))
    };
    // How many really come together is up to the machine.
    let mut answers = ask_together()?;
    for _ in 0..50 {
        if answers.iter().any(Result::is_err) {
            break;
        }
        answers = ask_together()?;
    }
    let (told, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    ensure!(told.len() >= limits::DOCUMENT_QUESTIONS && !refused.is_empty(), "{} of {asking} are told", told.len());
    ensure!(told.into_iter().flatten().all(|text| text == metadata), "a document is not what it was");
    for refusal in refused.into_iter().filter_map(Result::err) {
        ensure!(refusal.code == VssCode::OutOfMemory && refusal.hint.contains("Wait until"), "{refusal:?}");
    }
    ensure!(scene.text(set_id, Some(writer))? == metadata, "nobody asks any more, and it is not told");
    let gone = scene.instance.vss(["delete", "--all"])?;
    ensure!(gone.is_success(), "{gone:?}");
    scene.volume.is_clean()
}

fn the_command_shows_them(scene: &Scene, set_id: SetId, session: &[u8], metadata: &[u8]) -> anyhow::Result<()> {
    let id = set_id.to_string();
    let vss = |words: &[&str]| scene.instance.vss(words.iter().copied());
    let list = vss(&["document", "list", &id, "--json"])?.json()?;
    let documents = &list["documents"];
    ensure!(documents[0]["kind"] == "backup_components" && documents[1]["writer"] == "shop", "{list}");
    let text = vss(&["document", "list", &id])?;
    ensure!(text.is_success() && text.stdout.contains("writer metadata\tshop"), "{text:?}");
    for (words, wanted) in [(vec![], session), (vec!["--writer", "shop"], metadata)] {
        let mut all = vec!["document", "show", "--set", &id];
        all.extend(words);
        let shown = vss(&all)?;
        ensure!(shown.is_success() && shown.stdout.contains("orders"), "{shown:?}");
        all.push("--xml");
        let xml = vss(&all)?;
        ensure!(xml.stdout.as_bytes() == wanted, "{} bytes, {} wanted", xml.stdout.len(), wanted.len());
        // What is saved is a document as any other.
        let file = scene.instance.path().join("saved.xml");
        fs::write(&file, &xml.stdout)?;
        let checked = scene.instance.vss(["document".as_ref(), "check".as_ref(), file.as_os_str()])?;
        ensure!(checked.is_success(), "{checked:?}");
    }
    let unknown = vss(&["document", "show", "--set", &id, "--writer", "none"])?;
    ensure!(unknown.code == Some(1) && unknown.stderr.contains("VSS_E_OBJECT_NOT_FOUND"), "{unknown:?}");
    // They are the owner's.
    let place = scene.instance.path().join("bin");
    fs::create_dir(&place)?;
    ensure!(Command::new("cp").arg(program("vss")).arg(&place).status()?.success(), "cp failed");
    for word in ["list", "show"] {
        let mut other = Command::new(place.join("vss"));
        other.args(["document", word]).args((word == "show").then_some("--set")).arg(&id);
        other.args(scene.instance.arguments()).uid(NOBODY).gid(NOBODY).current_dir("/").stdin(Stdio::null());
        let refused = Running::start(other)?.finish()?;
        ensure!(refused.code == Some(1) && refused.stderr.contains("E_ACCESSDENIED"), "{refused:?}");
    }
    Ok(())
}

#[test]
fn a_kill_around_the_record_leaves_documents_with_a_set_or_none() -> anyhow::Result<()> {
    if LoopFs::skips("a_kill_around_the_record_leaves_documents_with_a_set_or_none", &[Kind::Btrfs]) {
        return Ok(());
    }
    let mut scene = Scene::new()?;
    scene.instance.stop()?;
    // The fault, the sets that have documents after it, and those that there are after the next start; else anything whole.
    let faults = [
        ("record:kill-service", Some((0, 0))),
        ("documents:kill-service", Some((1, 0))),
        ("recorded:kill-service", Some((1, 1))),
        ("record:kill-service+5000", None),
        ("record:kill-service+60000", None),
    ];
    for (fault, wanted) in faults {
        scene.instance.set("VSS_FAULT", fault);
        scene.instance.start()?;
        let shop = scene.shop()?;
        let turn = creation_turn();
        let made = scene.made();
        drop(turn);
        let answered = made.is_ok();
        drop((made, shop));
        // One that came through in time is killed a moment later.
        ensure!(wait_until(LIMIT, || scene.instance.service_pid().is_none()), "it was not killed");
        scene.instance.kill()?;
        let left = scene.directories()?;
        scene.instance.unset("VSS_FAULT");
        scene.instance.start()?;
        let sets: BTreeSet<SetId> =
            scene.instance.management()?.shadows()?.iter().map(|shadow| shadow.set_id).collect();
        println!(
            "{fault}: answered {answered}, documents of {} before the start, {} sets after it",
            left.len(),
            sets.len()
        );
        ensure!(wanted.is_none_or(|wanted| wanted == (left.len(), sets.len()) && !answered), "{fault}");
        ensure!(!answered || sets.len() == 1, "an answered set is gone");
        ensure!(scene.directories()? == sets.iter().map(ToString::to_string).collect(), "{:?}", scene.directories()?);
        for set_id in sets {
            for one in scene.listed(set_id)? {
                let text = scene.text(set_id, one.instance_id)?;
                ensure!(text.len() as u64 == one.bytes && one.failure.is_none(), "{one:?}");
                match one.instance_id {
                    Some(_) => drop(WriterMetadataDocument::parse(&text)?),
                    None => drop(scene.said(set_id, "orders")?),
                }
            }
        }
        let gone = scene.instance.vss(["delete", "--all"])?;
        ensure!(gone.is_success() && scene.directories()?.is_empty(), "{gone:?}");
        scene.instance.stop()?;
    }
    scene.volume.is_clean()
}
