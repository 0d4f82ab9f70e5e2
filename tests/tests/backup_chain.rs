//! Full, incremental and differential backups of components: put back, the chain is what the shadow copy of its last backup held.

use std::any::Any;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use vss_lab::postgresql::Cluster;
use vss_lab::postgresql::load::{self, Load};
use vss_lab::postgresql::verify::{Restored, judge};
use vss_linux::mountinfo;
use vss_tests::instance::Instance;
use vss_tests::kills::{Moments, kill_after, kill_at, kill_when};
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::postgresql::{CLIENTS, SCALE, directory_for_copies, load_turn};
use vss_tests::scale::rounds;
use vss_tests::simulated::Simulated;
use vss_tests::trees::{copy, differences};
use vss_tests::turn::creation_turn;
use vss_tests::volume::Volume;
use vss_tests::wire::Wire;
use vss_writer::messages::EventKind;
use vss_writer::simulated::{self, Description};

/// 2010-01-01 UTC in Windows' units: after the files of the beginning, before all that the tests change.
const SINCE: u64 = 129_067_776_000_000_000;
const NAME: &str = "chain";

/// An instance on demand, a volume at `root`, and a directory on another file system for backups.
struct Scene {
    instance: Instance,
    root: PathBuf,
    place: TempDir,
    _volume: Box<dyn Any>,
}

impl Scene {
    fn btrfs() -> anyhow::Result<Self> {
        let volume = Volume::new()?;
        Self::new(Instance::new()?, volume.path().to_owned(), Box::new(volume))
    }

    /// ext4, of which the mirror provider makes images on another file system.
    fn ext4() -> anyhow::Result<Self> {
        let (volume, storage) = (LoopFs::new(Kind::Ext4, 64)?, LoopFs::new(Kind::Ext4, 200)?);
        let instance = Instance::new()?;
        let place = storage.path();
        instance.settings(&format!(
            "[providers.mirror]\nstorage = {place:?}\nmin_free_bytes = 1048576\nmax_hold_ms = 8000\n"
        ))?;
        Self::new(instance, volume.path().to_owned(), Box::new((volume, storage)))
    }

    fn new(mut instance: Instance, root: PathBuf, volume: Box<dyn Any>) -> anyhow::Result<Self> {
        instance.start()?;
        Ok(Self { instance, root, place: directory_for_copies()?, _volume: volume })
    }

    fn data(&self, name: &str) -> PathBuf {
        self.root.join("data").join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> anyhow::Result<()> {
        let path = self.data(name);
        fs::create_dir_all(path.parent().context("a parent")?)?;
        Ok(fs::write(path, text)?)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn name(&self, name: &str) -> anyhow::Result<String> {
        Ok(self.at(name).to_str().context("UTF-8")?.to_owned())
    }

    /// The writer `chain`, which keeps aside what the copy of each backup holds: in `held`.
    fn join(&self, description: Value) -> anyhow::Result<Simulated> {
        let (instance, held) = (self.instance.path().to_owned(), self.at("held"));
        Simulated::join_and_look(&self.instance, described(&description)?, move |_| {
            let shown = mountinfo::mounts()?.into_iter().map(|mount| mount.mount_point);
            let mut shown = shown.filter(|place| place.starts_with(&instance) && place.join("data").is_dir());
            fs::create_dir_all(&held)?;
            copy(&shown.next().context("no copy is shown")?.join("data"), &held)
        })
    }

    fn vss(&self, words: &[&str]) -> anyhow::Result<Value> {
        let _turn = creation_turn();
        let outcome = self.instance.vss(words)?;
        ensure!(outcome.is_success(), "{words:?}: {outcome:?}");
        Ok(if words.contains(&"--json") { outcome.json()? } else { Value::Null })
    }

    /// Backs components up and checks the backup; what `vss backup --json` says.
    fn back_up(&self, components: &[&str], to: &str, kind: &str, base: Option<&str>) -> anyhow::Result<Value> {
        let (to, base) = (self.at(to), base.map(|base| self.at(base)));
        let to = to.to_str().context("UTF-8")?;
        let mut words = vec!["backup", "--json", "--to", to, "--backup-type", kind];
        words.extend(components.iter().flat_map(|component| ["--component", component]));
        if let Some(base) = &base {
            words.extend(["--base", base.to_str().context("UTF-8")?]);
        }
        let said = self.vss(&words)?;
        self.vss(&["verify", to])?;
        Ok(said)
    }

    /// Puts a chain back; its directory `data`.
    fn restored(&self, from: &str) -> anyhow::Result<PathBuf> {
        let (from, to) = (self.at(from), self.at(&format!("{from}, restored")));
        let (from, to) = (from.to_str().context("UTF-8")?, to.to_str().context("UTF-8")?);
        self.vss(&["restore", "--files-only", "--from", from, "--to", to])?;
        Ok(Path::new(to).join(self.data("").strip_prefix("/")?))
    }

    /// Puts a chain back and compares it with what the copy of its last backup held.
    fn is_what_the_copy_held(&self, from: &str) -> anyhow::Result<()> {
        let (restored, held) = (self.restored(from)?, self.at("held"));
        // Read at the alternate path, put back to its own.
        fs::remove_dir_all(held.join("settings"))?;
        fs::rename(held.join("spit"), held.join("settings"))?;
        for excluded in ["docs/x.tmp", "docs/deep/y.tmp"] {
            ensure!(held.join(excluded).exists() && !restored.join(excluded).exists(), "{excluded}");
            fs::remove_file(held.join(excluded))?;
        }
        // Of no component.
        fs::remove_file(held.join("ranges"))?;
        // The names in these directories are others than in the copy's, and so their times.
        let differences = differences(&held, &restored)?;
        let differences: Vec<&str> = differences.lines().filter(|line| !line.starts_with(".d..t")).collect();
        ensure!(differences.is_empty(), "{from}: {differences:?}");
        Ok(())
    }
}

/// A writer with all that a chain can meet.
fn description(scene: &Scene) -> Value {
    let data = |name: &str| scene.data(name);
    let changes = |event: &str, name: Value, more: Value| {
        let mut said = json!({"event": event, "component": name, "backup_types": ["incremental", "differential"]});
        said.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        said
    };
    let all = |name: &str, since: u64| json!({"differenced_files": [{"path": data(name), "pattern": "*", "recursive": true, "last_modified": since}]});
    json!({
        "name": NAME,
        "class_id": "00000000-0000-0000-0000-0000000000c4",
        "stamps": true,
        "spit": true,
        "backup_schema": 0x63,
        "exclude_files": [{"path": data("docs"), "pattern": "*.tmp", "recursive": true}],
        "exclude_files_from_snapshot": [{"path": data("docs/cache"), "recursive": true}],
        "components": [
            {"type": "file_group", "name": "docs", "selectable": true,
                "files": [{"path": data("docs"), "recursive": true}]},
            {"type": "file_group", "logical_path": "docs", "name": "letters", "selectable": false,
                "files": [{"path": data("letters"), "recursive": true}]},
            {"type": "database", "name": "db", "selectable": true,
                "files": [{"path": data("db"), "pattern": "*.db"},
                    {"path": data("template"), "recursive": true, "backup_type_mask": 0x0101}],
                "log_files": [{"path": data("db/log"), "pattern": "*.log"}]},
            {"type": "file_group", "name": "settings", "selectable": true,
                "files": [{"path": data("settings"), "alternate_path": data("spit"), "recursive": true}]}],
        "say": [
            changes("prepare_backup", json!({"name": "docs"}), all("docs", SINCE)),
            changes("post_snapshot", json!({"name": "docs"}), all("letters", 0)),
            changes("post_snapshot", json!({"name": "db"}), json!({
                "backup_metadata": "lsn 7",
                "partial_files": [{"path": data("db"), "file_name": "big.db", "ranges": "4096:4096, 0x4000:100",
                    "metadata": "pages"},
                    {"path": data("db"), "file_name": "paged.db", "ranges": format!("File={}", data("ranges").display())}]}))]
    })
}

/// The description by way of the text that a file would have.
fn described(description: &Value) -> anyhow::Result<Description> {
    simulated::read(&toml::to_string(description)?).map_err(anyhow::Error::msg)
}

fn make_files(scene: &Scene) -> anyhow::Result<()> {
    for file in 0..20 {
        for directory in ["docs", "docs/deep/er", "letters", "letters/old", "template"] {
            scene.write(&format!("{directory}/{file}"), format!("{directory} {file}\n").repeat(1 + file * 30))?;
        }
    }
    for name in ["docs/x.tmp", "docs/deep/y.tmp", "docs/cache/z", "settings/a", "settings/in/b", "db/small.db"] {
        scene.write(name, name)?;
    }
    scene.write("db/big.db", vec![1; 1 << 20])?;
    scene.write("db/log/1.log", "begin")?;
    scene.write("db/paged.db", vec![2; 1 << 20])?;
    // One range: 8,192 bytes from 512 on.
    scene.write("ranges", [1_u64, 512, 8192].map(u64::to_le_bytes).concat())?;
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for directory in ["docs", "docs/deep/er"] {
        for file in 0..20 {
            File::open(scene.data(directory).join(file.to_string()))?.set_modified(old)?;
        }
    }
    fs::hard_link(scene.data("letters/1"), scene.data("letters/same as 1"))?;
    Ok(())
}

fn change(scene: &Scene, round: u8) -> anyhow::Result<()> {
    let first = usize::from(round) * 5;
    for directory in ["docs", "letters"] {
        scene.write(&format!("{directory}/{first}"), format!("changed {round}"))?;
        scene.write(&format!("{directory}/new {round}"), "new")?;
        fs::remove_file(scene.data(directory).join((first + 1).to_string()))?;
        // As old as it was.
        fs::rename(
            scene.data(directory).join((first + 2).to_string()),
            scene.data(&format!("{directory}/name {round}")),
        )?;
        // A directory where a file was.
        fs::remove_file(scene.data(directory).join((first + 3).to_string()))?;
        scene.write(&format!("{directory}/{}/inner", first + 3), "inner")?;
    }
    scene.write(&format!("settings/in/{round}"), "a setting")?;
    scene.write(&format!("db/log/{}.log", round + 1), "more")?;
    let big = File::options().write(true).open(scene.data("db/big.db"))?;
    big.write_all_at(&[round; 4096], 4096)?;
    big.write_all_at(&[round; 100], 0x4000)?;
    let paged = File::options().write(true).open(scene.data("db/paged.db"))?;
    Ok(paged.write_all_at(&[round; 8192], 512)?)
}

fn bytes_of(backup: &Value) -> u64 {
    backup["totals"]["bytes"].as_u64().unwrap_or_default()
}

fn a_chain(scene: &Scene) -> anyhow::Result<()> {
    make_files(scene)?;
    let writer = scene.join(description(scene))?;
    let previous = || -> anyhow::Result<Vec<Option<String>>> {
        let event = writer.handle().last(EventKind::PrepareBackup).context("no PrepareBackup")?;
        Ok(event.components.into_iter().map(|one| one.previous_backup_stamp).collect())
    };
    let full = scene.back_up(&[NAME], "full", "full", None)?;
    ensure!(previous()?.iter().all(Option::is_none), "{:?}", previous()?);
    scene.is_what_the_copy_held("full")?;

    change(scene, 1)?;
    let more = scene.back_up(&[NAME], "more", "incremental", Some("full"))?;
    ensure!(previous()?.contains(&Some("1".to_owned())), "{:?}", previous()?);
    scene.is_what_the_copy_held("more")?;
    ensure!(bytes_of(&more) < 100_000 && bytes_of(&full) > 1 << 20, "{more}");

    change(scene, 2)?;
    fs::remove_file(scene.data("db/small.db"))?;
    scene.back_up(&[NAME], "third", "incremental", Some("more"))?;
    ensure!(previous()?.contains(&Some("2".to_owned())), "{:?}", previous()?);
    scene.is_what_the_copy_held("third")?;

    fs::remove_file(scene.data("letters/same as 1"))?;
    let differential = scene.back_up(&[NAME], "difference", "differential", Some("full"))?;
    ensure!(previous()?.contains(&Some("1".to_owned())), "{:?}", previous()?);
    scene.is_what_the_copy_held("difference")?;
    ensure!(bytes_of(&differential) < 100_000, "{differential}");
    let said = fs::read_to_string(scene.at("difference/documents/backup-components.xml"))?;
    for word in ["backupStamp=\"4\"", "big.db", "4096:4096", "lsn 7"] {
        ensure!(said.contains(word), "{word}: {said}");
    }
    Ok(())
}

#[test]
fn a_chain_of_a_btrfs_volume_is_what_the_last_copy_held() -> anyhow::Result<()> {
    if LoopFs::skips("a_chain_of_a_btrfs_volume_is_what_the_last_copy_held", &[Kind::Btrfs]) {
        return Ok(());
    }
    a_chain(&Scene::btrfs()?)
}

#[test]
fn a_chain_of_an_ext4_volume_is_what_the_last_copy_held() -> anyhow::Result<()> {
    let name = "a_chain_of_an_ext4_volume_is_what_the_last_copy_held";
    if LoopFs::skips(name, &[Kind::Ext4]) || vss_tests::tracing::skips(name, &[Kind::Ext4]) {
        return Ok(());
    }
    a_chain(&Scene::ext4()?)
}

/// A full backup, and changes after it.
fn changed(scene: &Scene) -> anyhow::Result<Simulated> {
    make_files(scene)?;
    let writer = scene.join(description(scene))?;
    scene.back_up(&[NAME], "full", "full", None)?;
    change(scene, 1)?;
    Ok(writer)
}

/// A backup that was killed is whole, or known not to be. True: it is whole.
fn is_judged(scene: &Scene, to: &str) -> anyhow::Result<bool> {
    let verified = scene.instance.vss(["verify", to])?;
    let is_whole = Path::new(to).join("complete").exists();
    ensure!(verified.is_success() == is_whole && !verified.stderr.contains("damaged"), "{verified:?}");
    Ok(is_whole)
}

fn killed_at_any_moment(kind: &str) -> anyhow::Result<()> {
    let scene = Scene::btrfs()?;
    let writer = changed(&scene)?;
    let (full, to, whole) = (scene.name("full")?, scene.name("killed")?, scene.name("whole")?);
    let words = |to| ["backup", "--component", NAME, "--backup-type", kind, "--base", &full, "--to", to];
    let turn = creation_turn();
    let outcome = scene.instance.vss(words(&whole))?;
    ensure!(outcome.is_success(), "{outcome:?}");
    // It is written to from the first file on.
    let journal = || scene.at("killed/journal").metadata().and_then(|journal| journal.modified()).ok();
    let (mut killed, mut resumed, mut moments) = (0, 0, Moments::default());
    while killed < rounds(10, 100) {
        let before = journal();
        let copies = || journal().is_some_and(|now| before != Some(now));
        // Most of the time is the set's: every second run is killed when it copies.
        let killed_now = if killed % 2 == 0 {
            kill_after(&scene.instance, moments.of(outcome.took), &words(&to))?
        } else {
            kill_when(&scene.instance, copies, &words(&to))?
        };
        killed += u32::from(killed_now.signal.is_some());
        resumed += u32::from(copies());
        if is_judged(&scene, &to)? {
            fs::remove_dir_all(&to)?;
        }
        // The volume goes on living.
        scene.write("docs/living", format!("{killed}"))?;
    }
    println!("{kind}: {resumed} of {killed} runs were killed while they copied");
    ensure!(resumed > 0, "no run was killed while it copied");
    drop(turn);
    scene.back_up(&[NAME], "killed", kind, Some("full"))?;
    let event = writer.handle().last(EventKind::PrepareBackup).context("no PrepareBackup")?;
    // A run that was killed counts for nobody.
    let previous: Vec<_> = event.components.into_iter().filter_map(|one| one.previous_backup_stamp).collect();
    ensure!(!previous.is_empty() && previous.iter().all(|stamp| stamp == "1"), "{previous:?}");
    scene.is_what_the_copy_held("killed")
}

#[test]
fn an_incremental_backup_killed_at_any_moment_is_run_again_and_ends_right() -> anyhow::Result<()> {
    if LoopFs::skips("an_incremental_backup_killed_at_any_moment_is_run_again_and_ends_right", &[Kind::Btrfs]) {
        return Ok(());
    }
    killed_at_any_moment("incremental")
}

#[test]
fn a_differential_backup_killed_at_any_moment_is_run_again_and_ends_right() -> anyhow::Result<()> {
    if LoopFs::skips("a_differential_backup_killed_at_any_moment_is_run_again_and_ends_right", &[Kind::Btrfs]) {
        return Ok(());
    }
    killed_at_any_moment("differential")
}

/// Calls of a backup that change something, and which of them is the first that is not done.
const STEPS: [(&str, u32); 11] = [
    ("fsync", 1),
    ("/^rename", 1),
    ("mkdirat", 2),
    ("pread64", 20),
    ("utimensat", 5),
    ("utimensat", 15),
    ("/^rename", 2),
    ("syncfs", 1),
    ("/^rename", 3),
    ("/^unlink", 1),
    ("fsync", 5),
];

#[test]
fn an_incremental_backup_killed_at_each_of_its_steps_is_run_again_and_ends_right() -> anyhow::Result<()> {
    let name = "an_incremental_backup_killed_at_each_of_its_steps_is_run_again_and_ends_right";
    if LoopFs::skips(name, &[Kind::Btrfs]) || vss_tests::kills::skips(name) {
        return Ok(());
    }
    let scene = Scene::btrfs()?;
    let _writer = changed(&scene)?;
    let full = scene.name("full")?;
    for (call, number) in STEPS {
        let target = format!("{} {number}", call.trim_start_matches("/^"));
        let to = scene.name(&target)?;
        let words =
            ["backup", "--component", NAME, "--backup-type", "incremental", "--base", &full, "--to", to.as_str()];
        let turn = creation_turn();
        let outcome = kill_at(&scene.instance, call, number, &words)?;
        ensure!(outcome.signal.is_some(), "{target} was not met: {outcome:?}");
        // What comes after the record of a whole backup is but tidying up.
        let is_whole = matches!((call, number), ("/^unlink", 1) | ("fsync", 5));
        ensure!(is_judged(&scene, &to)? == is_whole, "{target}: {outcome:?}");
        if is_whole {
            fs::remove_dir_all(&to)?;
        }
        drop(turn);
        scene.back_up(&[NAME], &target, "incremental", Some("full"))?;
        scene.is_what_the_copy_held(&target).with_context(|| target.clone())?;
    }
    Ok(())
}

#[test]
fn what_a_writer_says_of_stamps_and_parts_reaches_the_requester() -> anyhow::Result<()> {
    if LoopFs::skips("what_a_writer_says_of_stamps_and_parts_reaches_the_requester", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::btrfs()?;
    make_files(&scene)?;
    let writer = Simulated::join(&scene.instance, described(&description(&scene))?)?;
    let _turn = creation_turn();
    let mut wire = Wire::connect(&scene.instance)?;
    wire.ok("InitializeForBackup", json!({"requester": "test"}))?;
    let state = json!({"state": {"select_components": true, "bootable_system_state": false,
        "backup_type": "incremental", "partial_file_support": true}});
    wire.ok("SetBackupState", state)?;
    wire.done("GatherWriterMetadata", json!({}))?;
    let all = wire.ok("GetWriterMetadata", json!({}))?;
    let found = all["writers"].as_array().into_iter().flatten().find(|one| one["name"] == NAME);
    let found = found.context("the writer is not there")?;
    let component = json!({"instance_id": found["instance_id"], "class_id": found["class_id"],
        "type": "database", "logical_path": "", "name": "db"});
    wire.ok("AddComponent", component.clone())?;
    wire.ok("SetPreviousBackupStamp", json!({"component": component, "stamp": "41"}))?;
    wire.ok("StartSnapshotSet", json!({}))?;
    wire.ok("AddToSnapshotSet", json!({"volume": scene.root}))?;
    wire.done("PrepareForBackup", json!({}))?;
    let event = writer.handle().last(EventKind::PrepareBackup).context("no PrepareBackup")?;
    assert_eq!(event.components[0].previous_backup_stamp.as_deref(), Some("41"));
    wire.done("DoSnapshotSet", json!({}))?;
    let said = wire.ok("GetWriterComponents", json!({"instance_id": found["instance_id"]}))?;
    let said = &said["components"][0];
    assert_eq!(said["backup_stamp"], "1", "{said}");
    assert_eq!(said["backup_metadata"], "lsn 7", "{said}");
    assert_eq!(
        said["partial_files"][0],
        json!({"path": scene.data("db"), "file_name": "big.db", "ranges": "4096:4096, 16384:100", "metadata": "pages"})
    );
    wire.done("BackupComplete", json!({})).map(drop)
}

#[test]
fn a_chain_of_a_cluster_under_load_starts_and_is_what_the_last_copy_held() -> anyhow::Result<()> {
    if vss_tests::postgresql::skips("a_chain_of_a_cluster_under_load_starts_and_is_what_the_last_copy_held") {
        return Ok(());
    }
    let _turn = load_turn();
    let volume = Volume::of_size(4096)?;
    let mut scene = Scene::new(Instance::with_postgresql()?, volume.path().to_owned(), Box::new(volume))?;
    // It looks; the cluster has a writer of its own.
    scene.write("witness/file", "here")?;
    let files = json!([{"path": scene.data("witness")}]);
    let component = json!({"type": "file_group", "name": "witness", "selectable": true, "files": files});
    let _witness = scene.join(json!({"name": NAME, "components": [component]}))?;
    let mut cluster = Cluster::create(&scene.data("cluster"), &load::SETTINGS)?;
    cluster.start()?;
    scene.instance.start_writers()?;
    load::prepare(&cluster, SCALE, None)?;
    let mut load = Load::start(&cluster, CLIENTS)?;
    // By its name: other tests may have clusters, too.
    let ours = format!("postgresql/{}", cluster.data().display());
    let mut verdicts = Vec::new();
    for (to, kind, base) in [
        ("full", "full", None),
        ("more", "incremental", Some("full")),
        ("third", "incremental", Some("more")),
        ("difference", "differential", Some("full")),
    ] {
        std::thread::sleep(Duration::from_millis(1500));
        let asked = SystemTime::now();
        let said = scene.back_up(&[&ours, NAME], to, kind, base)?;
        ensure!(said["consistency"] == "application" && said["failures"] == json!([]), "{said}");
        load.pause()?;
        let restored = scene.restored(to)?.join("cluster");
        assert_eq!(differences(&scene.at("held/cluster"), &restored)?, "", "{kind}");
        // As its owner reaches it.
        let data = scene.at("cluster");
        fs::rename(restored, &data)?;
        let verdict = judge(&Restored { data: &data, moved: &[], remove_lock: false }, SCALE)?;
        let (bytes, unchanged) = (bytes_of(&said), &said["totals"]["unchanged"]);
        println!("{kind}: {bytes} bytes, {unchanged} files unchanged; {verdict}");
        ensure!(verdict.holds(), "{kind}: {verdict}");
        fs::remove_dir_all(data)?;
        // Catalogues at least, and the tables that the load does not write to. How much it writes meanwhile is the machine's.
        ensure!(base.is_none() || unchanged.as_u64() > Some(500), "{said}");
        load.resume()?;
        verdicts.push((kind, asked, verdict));
    }
    let log = load.finish()?;
    for (kind, asked, verdict) in verdicts {
        ensure!(verdict.has_all(log.acknowledged_before(asked)), "{kind}: a transaction is missing");
    }
    Ok(())
}
