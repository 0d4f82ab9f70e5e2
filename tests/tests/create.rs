//! `vss create`, `list`, `show`, `expose`, `unexpose` and `delete`: what is printed, what is kept, and for how long.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;
use vss_tests::gate::Gate;
use vss_tests::instance::{Instance, Outcome, Running};
use vss_tests::loopfs::{Kind, LoopFs, unmount_idle};
use vss_tests::programs::program;
use vss_tests::traces;
use vss_tests::turn::creation_turn;
use vss_tests::volume::{Mounted, Volume};
use vss_tests::writers::ScriptWriter;

/// An instance on demand and a volume with the file `file`, whose text is `old`.
struct Scene {
    instance: Instance,
    volume: Volume,
}

impl Scene {
    fn new() -> anyhow::Result<Self> {
        let volume = Volume::new()?;
        volume.write("file", "old")?;
        Ok(Self { instance: Instance::new()?, volume })
    }

    fn vss(&self, words: &[&str]) -> anyhow::Result<Outcome> {
        self.instance.vss(words)
    }

    /// `vss create --json` of these volumes: the document.
    fn create(&self, words: &[&str]) -> anyhow::Result<Value> {
        let _turn = creation_turn();
        self.vss(&[&["create", "--json"], words].concat())?.json()
    }

    /// A persistent copy of the volume: its id.
    fn persistent(&self) -> anyhow::Result<String> {
        shadow_id(&self.create(&["--persistent", self.volume.name()])?, 0)
    }

    /// The copies that are listed.
    fn shadows(&self) -> anyhow::Result<Vec<Value>> {
        let listed = self.vss(&["list", "shadows", "--json"])?.json()?;
        Ok(listed["shadows"].as_array().context("a list")?.clone())
    }

    /// Their ids.
    fn ids(&self) -> anyhow::Result<Vec<String>> {
        self.shadows()?.iter().map(|shadow| text(&shadow["id"])).collect()
    }

    /// A command that has to fail like this.
    fn fails(&self, words: &[&str], code: &str) -> anyhow::Result<Outcome> {
        let outcome = self.vss(words)?;
        ensure!(
            outcome.code == Some(1) && outcome.stderr.contains(code),
            "{words:?}: expected {code}, got {outcome:?}"
        );
        ensure!(outcome.stdout.is_empty(), "{words:?}: a failure prints on stderr: {outcome:?}");
        Ok(outcome)
    }

    /// A command that has to succeed.
    fn does(&self, words: &[&str]) -> anyhow::Result<Outcome> {
        let outcome = self.vss(words)?;
        ensure!(outcome.is_success(), "{words:?}: {outcome:?}");
        Ok(outcome)
    }

    /// An empty directory outside of every volume.
    fn directory(&self, name: &str) -> anyhow::Result<String> {
        let directory = self.instance.path().join(name);
        fs::create_dir(&directory)?;
        Ok(directory.to_str().context("a path in UTF-8")?.to_owned())
    }

    fn is_over(&self) -> anyhow::Result<()> {
        traces::has_no_shadows(&self.instance)?;
        self.volume.is_clean()?;
        traces::has_no_processes(&self.instance)
    }
}

fn text(value: &Value) -> anyhow::Result<String> {
    Ok(value.as_str().with_context(|| format!("{value} is no text"))?.to_owned())
}

/// The id of a copy of a set that was created.
fn shadow_id(set: &Value, index: usize) -> anyhow::Result<String> {
    text(&set["shadows"][index]["id"])
}

/// The keys of a JSON object are these, in any order.
fn has_keys(object: &Value, keys: &[&str]) -> anyhow::Result<()> {
    let found: BTreeSet<&str> = object.as_object().context("an object")?.keys().map(String::as_str).collect();
    let wanted: BTreeSet<&str> = keys.iter().copied().collect();
    ensure!(found == wanted, "keys {found:?} instead of {wanted:?}");
    Ok(())
}

const SET: [&str; 7] = ["set_id", "consistency", "atomic", "hold_ms", "freeze_ms", "shadows", "writers"];
const SHADOW: [&str; 7] = ["id", "volume", "provider", "device", "path", "consistency", "cut_at"];
const LISTED: [&str; 4] = ["set_id", "created_at", "attributes", "owner"];

#[test]
fn the_documents_have_these_keys() -> anyhow::Result<()> {
    if LoopFs::skips("the_documents_have_these_keys", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    ScriptWriter::install(&scene.instance, "shop", scene.volume.path(), None)?;
    let set = scene.create(&[scene.volume.name()])?;
    has_keys(&set, &SET)?;
    let shadow = &set["shadows"][0];
    has_keys(shadow, &SHADOW)?;
    ensure!(shadow["volume"] == scene.volume.name() && shadow["provider"] == "btrfs", "{shadow}");
    ensure!(shadow["device"].is_null() && shadow["path"].is_null(), "{shadow}");
    let cut_at = text(&shadow["cut_at"])?;
    ensure!(cut_at.starts_with("20") && cut_at.contains('T') && cut_at.ends_with('Z'), "no time: {cut_at}");
    let writer = &set["writers"][0];
    has_keys(writer, &["name", "state", "components"])?;
    ensure!(writer["name"] == "shop" && writer["state"] == "WAITING_FOR_BACKUP_COMPLETE", "{writer}");
    ensure!(writer["components"][0]["name"] == "data", "{writer}");
    ensure!(writer["components"][0]["consistency"] == "application", "{writer}");
    ensure!(set["consistency"] == "application" && set["atomic"] == true && set["hold_ms"] == 0, "{set}");

    let listed = &scene.shadows()?[0];
    has_keys(listed, &[&SHADOW[..], &LISTED].concat())?;
    ensure!(listed["set_id"] == set["set_id"] && listed["owner"] == 0 && listed["attributes"].is_u64(), "{listed}");
    for key in SHADOW {
        ensure!(listed[key] == shadow[key], "{key}: {} in the list, {} in the set", listed[key], shadow[key]);
    }
    let mut shown = scene.does(&["show", &text(&set["set_id"])?, "--json"])?.json()?;
    has_keys(&shown, &[&SET[..], &["context", "created_at", "requester", "owner", "proof"]].concat())?;
    // A set that is shown says one thing more of its writers.
    let frozen = shown["writers"][0].as_object_mut().and_then(|writer| writer.remove("frozen_ms"));
    ensure!(frozen.is_some_and(|ms| ms.is_u64()), "{shown}");
    for key in SET {
        ensure!(shown[key] == set[key], "{key}: {} is shown, {} was made", shown[key], set[key]);
    }
    let shown = scene.does(&["show", &shadow_id(&set, 0)?, "--json"])?.json()?;
    ensure!(shown == *listed, "{shown} is shown, {listed} is listed");
    scene.does(&["delete", "--all"])?;

    // A nested subvolume: one key more.
    scene.volume.make_subvolume("nested one")?;
    let set = scene.create(&[scene.volume.name()])?;
    has_keys(&set["shadows"][0], &[&SHADOW[..], &["nested"]].concat())?;
    let nested = &set["shadows"][0]["nested"][0];
    has_keys(nested, &["path", "cut_at"])?;
    ensure!(nested["path"] == "nested one" && nested["cut_at"].as_str() > Some(&cut_at), "{nested}");
    scene.does(&["delete", "--all"])?;
    scene.is_over()
}

#[test]
fn a_set_says_how_consistent_it_is() -> anyhow::Result<()> {
    if LoopFs::skips("a_set_says_how_consistent_it_is", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    let (volume, other) = (scene.volume.name(), Volume::new()?);
    scene.volume.make_subvolume("sub")?;
    let by_itself = Mounted::bind(&scene.volume.path().join("sub"), &scene.instance.path().join("sub"))?;
    for (volumes, consistency, is_atomic) in [
        (&[other.name()][..], "file-system", true),
        (&[by_itself.name()], "file-system", true),
        (&[volume], "crash", false),
        (&[other.name(), by_itself.name()], "file-system", false),
        (&[other.name(), volume], "crash", false),
    ] {
        let set = scene.create(volumes)?;
        ensure!(set["consistency"] == consistency && set["atomic"] == is_atomic, "{volumes:?}: {set}");
        let shadows = set["shadows"].as_array().context("a list")?;
        let made: Vec<_> = shadows.iter().filter_map(|shadow| shadow["volume"].as_str()).collect();
        ensure!(made == volumes, "{volumes:?}: {set}");
        for shadow in shadows {
            let level = if shadow["volume"] == volume { "crash" } else { "file-system" };
            ensure!(shadow["consistency"] == level, "{volumes:?}: {shadow}");
        }
        ensure!(set["writers"] == serde_json::json!([]) && set["hold_ms"] == 0, "{volumes:?}: {set}");
    }
    // What is required is made, or nothing.
    scene.create(&["--require", "file-system", other.name()])?;
    let before = scene.ids()?;
    for words in [
        ["create", "--require", "application", other.name()],
        ["create", "--require", "file-system", volume],
        ["create", "--persistent", "--require=application", other.name()],
    ] {
        let _turn = creation_turn();
        let failed = scene.fails(&words, "VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT")?;
        ensure!(failed.stderr.contains(words[3]), "the culprit is not named: {failed:?}");
        ensure!(scene.ids()? == before, "{words:?}: something is kept");
    }
    // The same volume twice is one copy; one that cannot be copied fails the whole.
    let set = scene.create(&[other.name(), other.name()])?;
    ensure!(set["shadows"].as_array().is_some_and(|shadows| shadows.len() == 1), "{set}");
    let before = scene.ids()?;
    let turn = creation_turn();
    scene.fails(&["create", other.name(), "/proc"], "VSS_E_VOLUME_NOT_SUPPORTED")?;
    drop(turn);
    ensure!(scene.ids()? == before, "something is kept");
    scene.does(&["delete", "--all"])?;
    drop(by_itself);
    other.is_clean()?;
    scene.is_over()
}

#[test]
fn how_long_copies_live() -> anyhow::Result<()> {
    if LoopFs::skips("how_long_copies_live", &[Kind::Btrfs]) {
        return Ok(());
    }
    let mut scene = Scene::new()?;
    let lasting = scene.persistent()?;
    let until_reboot = shadow_id(&scene.create(&[scene.volume.name()])?, 0)?;
    scene.volume.write("file", "new")?;
    // Each of these commands was served by a service of its own.
    traces::has_no_processes(&scene.instance)?;
    ensure!(scene.ids()?.len() == 2, "not both are listed: {:?}", scene.ids());
    for _ in 0..2 {
        traces::has_no_processes(&scene.instance)?;
        scene.instance.start()?;
        let status = scene.instance.management()?.status()?;
        ensure!(status.recovery.is_empty() && status.shadows == 2, "{status:?}");
        scene.instance.kill()?;
    }
    for id in [&lasting, &until_reboot] {
        let place = scene.directory(id)?;
        scene.does(&["expose", id, &place])?;
        ensure!(fs::read_to_string(format!("{place}/file"))? == "old", "{id} is not as it was");
        scene.does(&["unexpose", &place])?;
    }
    // A boot has an id of its own, and empties the runtime directory.
    traces::has_no_processes(&scene.instance)?;
    fs::remove_dir_all(scene.instance.runtime_dir())?;
    let boot_id = scene.instance.path().join("boot_id");
    fs::write(&boot_id, "01234567-89ab-4cde-8f01-23456789abcd\n")?;
    let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(boot_id).arg(program("vss")).args(scene.instance.arguments());
    command.args(["list", "shadows", "--json"]).stdin(Stdio::null());
    let listed = Running::start(command)?.finish()?.json()?;
    ensure!(listed["shadows"].as_array().is_some_and(|shadows| shadows.len() == 1), "after the boot: {listed}");
    ensure!(listed["shadows"][0]["id"] == lasting.as_str(), "after the boot: {listed}");
    ensure!(scene.volume.copies()?.len() == 1, "after the boot: {:?}", scene.volume.copies());
    scene.does(&["delete", &lasting])?;
    scene.is_over()
}

#[test]
fn exposing_and_unexposing() -> anyhow::Result<()> {
    if LoopFs::skips("exposing_and_unexposing", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    scene.volume.make_subvolume("nested")?;
    scene.volume.write("nested/file", "deep")?;
    let id = scene.persistent()?;
    scene.volume.write("file", "new")?;
    let (place, other) = (scene.directory("place")?, scene.directory("other")?);
    let read = |file: &str| fs::read_to_string(format!("{place}/{file}"));
    let path = || -> anyhow::Result<Value> { Ok(scene.shadows()?[0]["path"].clone()) };

    scene.does(&["expose", &id, &place])?;
    ensure!(read("file")? == "old" && read("nested/file")? == "deep", "not the old content");
    for file in ["new", "nested/new"] {
        let error = fs::write(format!("{place}/{file}"), "").err().map(|error| error.kind());
        ensure!(error == Some(std::io::ErrorKind::ReadOnlyFilesystem), "{file} is written: {error:?}");
    }
    ensure!(!PathBuf::from(&place).join(".vss").exists(), "the store of the copies is seen");
    ensure!(path()? == place.as_str(), "{}", path()?);
    // It needs no service to stay.
    traces::has_no_processes(&scene.instance)?;
    ensure!(read("file")? == "old", "gone with the service");
    scene.does(&["expose", &id, &place])?;
    scene.fails(&["expose", &id, &other], "VSS_E_OBJECT_ALREADY_EXISTS")?;
    scene.does(&["unexpose", &place])?;
    ensure!(path()?.is_null() && fs::read_dir(&place)?.next().is_none(), "still there: {}", path()?);
    scene.fails(&["unexpose", &place], "VSS_E_OBJECT_NOT_FOUND")?;
    scene.fails(&["unexpose", &id], "VSS_E_OBJECT_NOT_FOUND")?;

    // By a relative path, over a link; taken away by its id.
    std::os::unix::fs::symlink(&place, scene.instance.path().join("link"))?;
    let mut command = scene.instance.command("vss");
    command.args(scene.instance.arguments()).args(["expose", &id, "link"]).current_dir(scene.instance.path());
    let outcome = Running::start(command)?.finish()?;
    ensure!(outcome.is_success() && read("file")? == "old" && path()? == place.as_str(), "by a link: {outcome:?}");
    scene.does(&["unexpose", &id])?;

    // Where it cannot be.
    fs::write(format!("{other}/something"), "")?;
    scene.fails(&["expose", &id, &other], "E_INVALIDARG")?;
    scene.fails(&["expose", &id, &format!("{other}/something")], "E_INVALIDARG")?;
    scene.fails(&["expose", &id, &format!("{other}/missing")], "VSS_E_OBJECT_NOT_FOUND")?;
    let mounted = Mounted::memory(&scene.instance.path().join("mounted"))?;
    scene.fails(&["expose", &id, mounted.name()], "VSS_E_OBJECT_ALREADY_EXISTS")?;
    let unknown = "b5946137-7b9f-4925-af80-51abd60b20d5";
    scene.fails(&["expose", unknown, &place], "VSS_E_OBJECT_NOT_FOUND")?;
    scene.fails(&["unexpose", unknown], "VSS_E_OBJECT_NOT_FOUND")?;
    drop(mounted);

    // A copy goes with its exposure.
    scene.does(&["expose", &id, &place])?;
    scene.does(&["delete", &id])?;
    ensure!(fs::read_dir(&place)?.next().is_none(), "still mounted");
    scene.is_over()
}

#[test]
fn what_others_mount_and_unmount_is_theirs() -> anyhow::Result<()> {
    if LoopFs::skips("what_others_mount_and_unmount_is_theirs", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    let id = scene.persistent()?;
    let (place, other) = (scene.directory("place")?, scene.directory("other")?);
    scene.does(&["expose", &id, &place])?;
    unmount_idle(place.as_ref()).context("an administrator cannot unmount it")?;
    ensure!(scene.shadows()?[0]["path"].is_null(), "it is mounted nowhere: {:?}", scene.shadows());
    let theirs = Mounted::memory(place.as_ref())?;
    fs::write(theirs.path().join("theirs"), "")?;
    ensure!(scene.shadows()?[0]["path"].is_null(), "another's mount is taken for ours: {:?}", scene.shadows());
    scene.fails(&["unexpose", &place], "VSS_E_OBJECT_NOT_FOUND")?;
    scene.does(&["expose", &id, &other])?;
    // Over ours, by another administrator.
    let over = Mounted::memory(other.as_ref())?;
    ensure!(scene.shadows()?[0]["path"].is_null(), "what is seen there is another's: {:?}", scene.shadows());
    for words in [["unexpose", &id], ["delete", &id]] {
        let failed = scene.fails(&words, "VSS_E_VOLUME_IN_USE")?;
        ensure!(failed.stderr.contains(&other), "where it is in use is not said: {failed:?}");
    }
    drop(over);
    scene.does(&["delete", &id])?;
    ensure!(fs::read_dir(&other)?.next().is_none(), "still mounted");
    ensure!(theirs.path().join("theirs").exists(), "another's mount was taken away");
    drop(theirs);
    scene.is_over()
}

#[test]
fn deleting() -> anyhow::Result<()> {
    if LoopFs::skips("deleting", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    let other = Volume::new()?;
    let volume = scene.volume.name();
    let deleted = |words: &[&str]| -> anyhow::Result<BTreeSet<String>> {
        let before: BTreeSet<String> = scene.ids()?.into_iter().collect();
        let said = scene.does(&[&["delete"], words].concat())?;
        let gone: BTreeSet<String> = before.difference(&scene.ids()?.into_iter().collect()).cloned().collect();
        ensure!(gone.iter().all(|id| said.stdout.contains(id.as_str())), "{gone:?} are gone, said is {said:?}");
        Ok(gone)
    };
    let set = scene.create(&[volume, other.name()])?;
    let second = scene.persistent()?;
    let third = scene.persistent()?;
    let first = [shadow_id(&set, 0)?, shadow_id(&set, 1)?];
    // The newest stand first.
    ensure!(scene.ids()?[..2] == [third.clone(), second.clone()], "{:?}", scene.ids());

    ensure!(deleted(&["--oldest", volume])? == BTreeSet::from([first[0].clone()]), "the oldest of {volume}");
    let shown = scene.does(&["show", &text(&set["set_id"])?, "--json"])?.json()?;
    ensure!(shown["shadows"].as_array().is_some_and(|left| left.len() == 1), "the rest of the set: {shown}");
    ensure!(other.copies()?.len() == 1 && scene.volume.copies()?.len() == 2, "the wrong copies are gone");
    ensure!(deleted(&["--set", &text(&set["set_id"])?])? == BTreeSet::from([first[1].clone()]), "the set");
    other.is_clean()?;
    scene.fails(&["delete", "--set", &text(&set["set_id"])?], "VSS_E_OBJECT_NOT_FOUND")?;
    scene.fails(&["delete", "--oldest", other.name()], "VSS_E_OBJECT_NOT_FOUND")?;
    scene.fails(&["delete", &first[0]], "VSS_E_OBJECT_NOT_FOUND")?;
    // Stops at the first that is not there.
    let failed = scene.instance.vss(["delete", &second, &first[0], &third])?;
    ensure!(failed.code == Some(1) && failed.stderr.contains("VSS_E_OBJECT_NOT_FOUND"), "{failed:?}");
    ensure!(failed.stderr.contains(&first[0]) && scene.ids()? == [third.clone()], "{failed:?}");
    ensure!(failed.stdout == format!("Deleted {second}\n"), "what is gone is not said: {failed:?}");
    let fourth = scene.persistent()?;
    ensure!(deleted(&[&third, &fourth, &third])?.len() == 2, "two by id, one of them twice");
    scene.persistent()?;
    scene.create(&[volume, other.name()])?;
    ensure!(deleted(&["--all"])?.len() == 3, "all");
    let none = scene.does(&["delete", "--all"])?;
    ensure!(none.stdout.contains("no shadow copy"), "{none:?}");
    other.is_clean()?;
    scene.is_over()
}

#[test]
fn a_copy_in_use_is_not_deleted() -> anyhow::Result<()> {
    if LoopFs::skips("a_copy_in_use_is_not_deleted", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    let gate = Gate::new()?;
    let script = format!("{}; cat {}/file", gate.shell(), scene.volume.name());
    let turn = creation_turn();
    let run = scene.instance.start_vss(["run", "--volume", scene.volume.name(), "--", "sh", "-c", &script])?;
    gate.reached_by(&run)?;
    drop(turn);
    let lasting = scene.persistent()?;
    let shadows = scene.shadows()?;
    let used = shadows.iter().find(|shadow| shadow["id"] != lasting.as_str()).context("the copy of run is listed")?;
    let (id, set_id) = (text(&used["id"])?, text(&used["set_id"])?);
    for words in [&["delete", &id][..], &["delete", "--set", &set_id], &["delete", "--oldest", scene.volume.name()]] {
        let failed = scene.fails(words, "VSS_E_VOLUME_IN_USE")?;
        ensure!(failed.stderr.contains("vss run"), "who uses it is not said: {failed:?}");
    }
    scene.does(&["delete", "--all"])?;
    ensure!(scene.ids()? == [id], "--all leaves what is in use: {:?}", scene.ids());
    gate.open()?;
    let outcome = run.finish()?;
    ensure!(outcome.is_success() && outcome.stdout == "old", "{outcome:?}");
    scene.is_over()
}

#[test]
fn showing_and_listing() -> anyhow::Result<()> {
    if LoopFs::skips("showing_and_listing", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    ScriptWriter::install(&scene.instance, "shop", scene.volume.path(), None)?;
    scene.volume.make_subvolume("nested")?;
    let set = scene.create(&["--persistent", scene.volume.name()])?;
    let (set_id, id) = (text(&set["set_id"])?, shadow_id(&set, 0)?);
    let says = |words: &[&str], expected: &[&str]| -> anyhow::Result<()> {
        let outcome = scene.does(words)?;
        let missing: Vec<_> = expected.iter().filter(|word| !outcome.stdout.contains(**word)).collect();
        ensure!(missing.is_empty() && outcome.stderr.is_empty(), "{words:?}: no {missing:?} in {outcome:?}");
        Ok(())
    };
    says(
        &["show", &set_id],
        &[&set_id, &id, "vss create", "until it is deleted", "several instants", "Writer shop", "nested"],
    )?;
    says(&["show", &id], &[&id, scene.volume.name(), "btrfs", "nested"])?;
    says(&["show", &format!("{{{}}}", id.to_uppercase())], &[&id])?;
    scene.fails(&["show", "b5946137-7b9f-4925-af80-51abd60b20d5"], "VSS_E_OBJECT_NOT_FOUND")?;
    says(&["list", "shadows"], &["ID\tVOLUME\t", &id, scene.volume.name(), "application", "btrfs"])?;
    says(&["list", "writers"], &["NAME\t", "shop"])?;
    says(&["list", "providers"], &["NAME\t", "btrfs"])?;
    says(&["list", "volumes"], &["VOLUME\t", scene.volume.name(), "btrfs"])?;

    let writers = scene.does(&["list", "writers", "--json"])?.json()?;
    let all = writers["writers"].as_array().context("a list")?;
    let shop = all.iter().find(|writer| writer["name"] == "shop").context("our writer")?;
    ensure!(shop["freeze_ms"] == 3000 && shop["uid"] == 0, "{shop}");
    let providers = scene.does(&["list", "providers", "--json"])?.json()?;
    ensure!(providers["providers"][0]["name"] == "btrfs", "{providers}");
    let volumes = scene.does(&["list", "volumes", "--json"])?.json()?;
    let all = volumes["volumes"].as_array().context("a list")?;
    let ours = all.iter().find(|volume| volume["volume"] == scene.volume.name()).context("our volume")?;
    ensure!(ours["provider"] == "btrfs" && ours["shadows"] == 1, "{ours}");
    scene.does(&["delete", "--all"])?;
    scene.is_over()
}

#[test]
fn a_volume_that_goes_away_and_copies_that_do() -> anyhow::Result<()> {
    if LoopFs::skips("a_volume_that_goes_away_and_copies_that_do", &[Kind::Btrfs]) {
        return Ok(());
    }
    let mut scene = Scene::new()?;
    scene.instance.start()?;
    let (kept, lost) = (scene.persistent()?, scene.persistent()?);
    // Nothing of ours keeps the volume busy, also while the service runs.
    scene.volume.unmount().context("the volume cannot be unmounted while copies of it exist")?;
    scene.instance.stop()?;
    scene.instance.start()?;
    let recovery = scene.instance.management()?.status()?.recovery;
    let is_said = |id: &str, words: &str| recovery.iter().any(|line| line.contains(id) && line.contains(words));
    ensure!(is_said(&kept, "cannot be reached") && is_said(&lost, "cannot be reached"), "{recovery:?}");
    ensure!(scene.ids()?.len() == 2, "a copy whose volume cannot be reached is forgotten: {:?}", scene.ids());
    scene.volume.mount()?;
    let place = scene.directory("place")?;
    scene.does(&["expose", &kept, &place])?;
    ensure!(fs::read_to_string(format!("{place}/file"))? == "old", "not the old content");
    scene.does(&["unexpose", &kept])?;

    // Behind our back.
    let copies = scene.volume.copies()?;
    let copy = copies.iter().find(|copy| copy.contains(&lost)).context("the copy's subvolume has its id")?;
    scene.volume.delete_subvolume(copy)?;
    let gone = scene.fails(&["expose", &lost, &place], "VSS_E_OBJECT_NOT_FOUND")?;
    ensure!(gone.stderr.contains(&lost), "{gone:?}");
    scene.instance.stop()?;
    scene.instance.start()?;
    let recovery = scene.instance.management()?.status()?.recovery;
    ensure!(recovery.len() == 1 && recovery[0].contains(&lost) && recovery[0].contains("gone"), "{recovery:?}");
    ensure!(scene.ids()? == [kept], "{:?}", scene.ids());

    // The disk is pulled out for good.
    scene.volume = Volume::new()?;
    scene.instance.stop()?;
    scene.instance.start()?;
    let recovery = scene.instance.management()?.status()?.recovery;
    ensure!(recovery.len() == 1 && recovery[0].contains("cannot be reached"), "{recovery:?}");
    ensure!(scene.ids()?.len() == 1, "forgotten: {:?}", scene.ids());
    let failed = scene.fails(&["delete", "--all"], "VSS_E_")?;
    println!("delete without the volume: {}", failed.stderr.trim_end());
    scene.instance.stop()
}
