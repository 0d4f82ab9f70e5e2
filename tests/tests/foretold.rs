//! What `vss check` foretells is what `vss create` then makes, and a check changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use vss_api::writer::EventKind;
use vss_linux::mountinfo;
use vss_model::{Component, VssCode};
use vss_service::mount_graph::MountGraph;
use vss_service::volumes;
use vss_tests::forecast::{check, foretold, list};
use vss_tests::instance::{Instance, wait_until};
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::traces;
use vss_tests::turn::creation_turn;
use vss_tests::volume::Volume;
use vss_tests::writers::SocketWriter;
use vss_writer::fake::FakeWriter;

/// What must happen happens within this time.
const LIMIT: Duration = Duration::from_secs(30);

/// The level of each volume by its mount point, and of each component by its writer and its name.
fn levels(document: &Value, volumes: &str) -> anyhow::Result<BTreeMap<String, Value>> {
    let mut levels = BTreeMap::new();
    for volume in list(document, volumes)? {
        levels.insert(volume["volume"].to_string(), volume["consistency"].clone());
    }
    for writer in list(document, "writers")? {
        for component in list(writer, "components")? {
            let name = format!("{}: {}", writer["name"], component["name"]);
            levels.insert(name, component["consistency"].clone());
        }
    }
    Ok(levels)
}

/// Asks, makes the set, and compares: the levels of the set, of every volume and of every component, and the instants.
fn comes_true(instance: &Instance, words: &[&str], level: &str, atomic: bool) -> anyhow::Result<Value> {
    let _turn = creation_turn();
    let foretold = foretold(instance, words)?;
    let set = instance.vss([&["create", "--json"], words].concat())?.json()?;
    ensure!(
        set["consistency"] == level && set["atomic"] == atomic,
        "{words:?}: the test expects {level}, {atomic}: {set}"
    );
    for key in ["consistency", "atomic"] {
        ensure!(foretold[key] == set[key], "{words:?}: {key}: {} was foretold, {} was made", foretold[key], set[key]);
    }
    let (before, after) = (levels(&foretold, "volumes")?, levels(&set, "shadows")?);
    ensure!(before == after, "{words:?}: {before:?} was foretold, {after:?} was made");
    for (volume, shadow) in list(&foretold, "volumes")?.iter().zip(list(&set, "shadows")?) {
        let made: Vec<&Value> = shadow["nested"].as_array().into_iter().flatten().map(|one| &one["path"]).collect();
        let named: Vec<&Value> = list(volume, "nested")?.iter().collect();
        ensure!(named == made && volume["nested_count"] == made.len(), "{words:?}: {volume}: {shadow}");
        ensure!(volume["provider"] == shadow["provider"], "{volume}: {shadow}");
    }
    ensure!(instance.vss(["delete", "--all"])?.is_success(), "delete failed");
    Ok(foretold)
}

/// A component of these directories, with all that is below them.
fn component(name: &str, directories: &[&Path]) -> anyhow::Result<Component> {
    let files: Vec<Value> = directories.iter().map(|path| json!({"path": path, "recursive": true})).collect();
    Ok(serde_json::from_value(json!({"name": name, "files": files}))?)
}

#[test]
fn what_is_foretold_without_writers_is_made() -> anyhow::Result<()> {
    if LoopFs::skips("what_is_foretold_without_writers_is_made", &[Kind::Btrfs]) {
        return Ok(());
    }
    let (one, other) = (Volume::new()?, Volume::new()?);
    let instance = Instance::new()?;
    let nested = one.mount_subvolume("outer", &instance.path().join("outer"))?;
    let second = one.mount_subvolume("second", &instance.path().join("second"))?;
    one.make_subvolume("outer/inner")?;
    one.make_subvolume("outer/inner/most")?;
    comes_true(&instance, &[other.name()], "file-system", true)?;
    comes_true(&instance, &[second.name(), other.name()], "file-system", false)?;
    let two_of_one = comes_true(&instance, &[second.name(), nested.name()], "crash", false)?;
    ensure!(two_of_one["volumes"][1]["nested_count"] == 2, "{two_of_one}");
    comes_true(&instance, &[nested.name()], "crash", false)?;
    // Several paths on one volume are one volume; a link leads where it leads.
    other.write("dir/file", "old")?;
    let link = instance.path().join("link");
    std::os::unix::fs::symlink(other.path().join("dir"), &link)?;
    let link = link.to_str().context("UTF-8")?;
    let document = comes_true(&instance, &[link, other.name()], "file-system", true)?;
    let resolved = format!("{}/dir", other.name());
    ensure!(document["paths"][0]["path"] == link && document["paths"][0]["resolved"] == resolved, "{document}");
    ensure!(document["paths"][0]["volume_id"] == document["paths"][1]["volume_id"], "{document}");
    ensure!(one.copies()?.is_empty(), "copies are left");
    traces::has_no_processes(&instance)
}

#[test]
fn what_is_foretold_with_writers_is_made() -> anyhow::Result<()> {
    if LoopFs::skips("what_is_foretold_with_writers_is_made", &[Kind::Btrfs]) {
        return Ok(());
    }
    let (data, wal, other) = (Volume::new()?, Volume::new()?, Volume::new()?);
    data.make_subvolume("nested")?;
    let mut instance = Instance::new()?;
    instance.start()?;
    let whole = component("whole", &[data.path()])?;
    let split = component("split", &[data.path(), wal.path()])?;
    let _writer =
        SocketWriter::join(&instance, FakeWriter::new("db", data.path()).with_components(vec![whole, split]))?;

    let alone = comes_true(&instance, &[data.name()], "application", false)?;
    let components = list(&alone["writers"][0], "components")?;
    ensure!(list(&components[0], "missing")?.is_empty(), "{alone}");
    let missing = list(&components[1], "missing")?;
    ensure!(missing.len() == 1 && missing[0]["volume"] == wal.name() && missing[0]["provider"] == "btrfs", "{alone}");
    let said = instance.vss(["check", data.name()])?;
    let words = format!("add --volume {}", wal.name());
    ensure!(said.is_success() && said.stdout.contains(&words), "{said:?}");
    for words in [
        "application (several instants), if every writer succeeds",
        "split\tapplication",
        "1 nested subvolume (nested)",
    ] {
        ensure!(said.stdout.contains(words), "{words}: {}", said.stdout);
    }

    let both = comes_true(&instance, &[data.name(), wal.name()], "application", false)?;
    ensure!(list(&both["writers"][0]["components"][1], "missing")?.is_empty(), "{both}");
    comes_true(&instance, &[data.name(), other.name()], "file-system", false)?;
    comes_true(&instance, &[data.name(), "--no-writers"], "crash", false)?;
    comes_true(&instance, &[data.name(), "--writer", "db", "--provider", "btrfs"], "application", false)?;
    let without = comes_true(&instance, &[other.name()], "file-system", true)?;
    ensure!(list(&without, "writers")?.is_empty(), "{without}");
    Ok(())
}

#[test]
fn volumes_that_are_held_are_foretold_as_one_instant() -> anyhow::Result<()> {
    if LoopFs::skips("volumes_that_are_held_are_foretold_as_one_instant", &[Kind::Ext4, Kind::Btrfs]) {
        return Ok(());
    }
    let (one, other) = (LoopFs::new(Kind::Ext4, 32)?, LoopFs::new(Kind::Ext4, 256)?);
    {
        let inner = LoopFs::new_in(other.path(), Kind::Btrfs, 128)?;
        let mut instance = Instance::new()?;
        let fake = json!({"store": traces::fake_store(&instance), "policy": "needs_hold"});
        instance.set("VSS_FAKE", fake.to_string());
        instance.start()?;
        let name = |file_system: &LoopFs| file_system.path().to_str().map(str::to_owned).context("UTF-8");
        let names = [name(&one)?, name(&other)?, name(&inner)?];
        comes_true(&instance, &[&names[0], &names[1]], "file-system", true)?;
        comes_true(&instance, &[&names[0], &names[1], &names[2]], "file-system", true)?;
    }
    Ok(())
}

/// Creation would refuse it by the same words, if one set could be asked of two providers by `vss`.
#[test]
fn a_volume_whose_cut_would_write_to_a_held_one_is_foretold() -> anyhow::Result<()> {
    if LoopFs::skips("a_volume_whose_cut_would_write_to_a_held_one_is_foretold", &[Kind::Ext4, Kind::Btrfs]) {
        return Ok(());
    }
    let outer = LoopFs::new(Kind::Ext4, 192)?;
    {
        let inner = LoopFs::new_in(outer.path(), Kind::Btrfs, 128)?;
        let volume = |file_system: &LoopFs| anyhow::Ok(volumes::resolve(file_system.path())?.volume);
        let (outer, inner) = ([volume(&outer)?], [volume(&inner)?]);
        let graph = MountGraph::read()?;
        let obstacle = graph.levels(&outer, &inner, &[]).err().context("no obstacle")?;
        ensure!(obstacle.code == VssCode::NestedVolumeLimit, "{obstacle}");
        ensure!(obstacle.message.contains(&*inner[0].mount_point.to_string_lossy()), "{obstacle}");
        let both = [outer[0].clone(), inner[0].clone()];
        for (held, others) in [(&both[..], &[][..]), (&[], &both), (&inner, &outer)] {
            ensure!(graph.levels(held, others, &[]).is_ok(), "{held:?} with {others:?}");
        }
    }
    Ok(())
}

/// Everything that a check could have changed.
#[derive(Debug, PartialEq)]
struct World {
    subvolumes: Vec<String>,
    mounts: Vec<(PathBuf, u64)>,
    files: BTreeMap<PathBuf, Option<u64>>,
    shadows: Value,
    sessions: usize,
    creating: bool,
}

impl World {
    fn of(instance: &Instance, volume: &Volume) -> anyhow::Result<Self> {
        let status = instance.management()?.status()?;
        let mounts = mountinfo::mounts()?.into_iter().filter(|mount| {
            mount.mount_point.starts_with(instance.path()) || mount.mount_point.starts_with(volume.path())
        });
        Ok(Self {
            subvolumes: volume.subvolumes()?,
            mounts: mounts.map(|mount| (mount.mount_point, mount.mount_id)).collect(),
            files: files(&[&instance.runtime_dir(), &instance.state_dir(), volume.path()])?,
            shadows: instance.vss(["list", "shadows", "--json"])?.json()?,
            sessions: status.sessions.len(),
            creating: status.creating.is_some(),
        })
    }
}

/// Every file and directory below these directories, with a hash of its bytes where it is a regular file.
fn files(directories: &[&Path]) -> anyhow::Result<BTreeMap<PathBuf, Option<u64>>> {
    let mut files = BTreeMap::new();
    let mut left: Vec<PathBuf> = directories.iter().map(|directory| directory.to_path_buf()).collect();
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let mut hash = None;
            if kind.is_dir() {
                left.push(entry.path());
            } else if kind.is_file() {
                let mut hasher = std::hash::DefaultHasher::new();
                hasher.write(&fs::read(entry.path())?);
                hash = Some(hasher.finish());
            }
            files.insert(entry.path(), hash);
        }
    }
    Ok(files)
}

#[test]
fn a_check_changes_nothing_and_writers_hear_identify_alone() -> anyhow::Result<()> {
    if LoopFs::skips("a_check_changes_nothing_and_writers_hear_identify_alone", &[Kind::Btrfs]) {
        return Ok(());
    }
    let volume = Volume::new()?;
    volume.write("file", "old")?;
    volume.make_subvolume("nested")?;
    let mut instance = Instance::new()?;
    instance.start()?;
    let writer = SocketWriter::join(&instance, FakeWriter::new("db", volume.path()))?;
    let kept = {
        let _turn = creation_turn();
        instance.vss(["create", "--persistent", volume.name()])?
    };
    ensure!(kept.is_success(), "{kept:?}");
    let is_over =
        || instance.management().and_then(|mut one| Ok(one.status()?)).is_ok_and(|one| one.sessions.is_empty());
    ensure!(wait_until(LIMIT, is_over), "the session of the set is left");
    writer.handle().forget();

    let before = World::of(&instance, &volume)?;
    ensure!(before.files.len() > 5 && before.mounts.iter().any(|(place, _)| place == volume.path()), "{before:?}");
    let no = ["check", volume.name(), "/dev/shm", "/no/such/path", "--require", "application"];
    for words in [&["check", volume.name()][..], &["check", volume.name(), "--json"], &no] {
        let outcome = instance.vss(words)?;
        ensure!(outcome.code == Some(i32::from(words.len() > 3)), "{words:?}: {outcome:?}");
    }
    let after = World::of(&instance, &volume)?;
    ensure!(before == after, "before: {before:?}\nafter: {after:?}");
    let heard: Vec<EventKind> = writer.handle().records().iter().map(|record| record.kind).collect();
    ensure!(heard == [EventKind::Identify; 3], "{heard:?}");
    let (quiet, _) = check(&instance, &[volume.name(), "--no-writers"])?;
    ensure!(list(&quiet, "writers")?.is_empty() && writer.handle().records().len() == 3, "{quiet}");
    ensure!(instance.vss(["delete", "--all"])?.is_success());
    Ok(())
}
