//! `vss backup`, `verify` and `restore`: what a copy held is what comes back, whatever happens on the way.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use vss_linux::process::Signal;
use vss_tests::backups::{Scene, fails, is_marked};
use vss_tests::instance::{Instance, Outcome, Running, wait_until};
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::simulated::Simulated;
use vss_tests::trees::differences;
use vss_tests::turn::creation_turn;
use vss_tests::volume::{Mounted, Volume};
use vss_tests::writers::ScriptWriter;
use vss_writer::messages::EventKind;
use vss_writer::simulated;

#[test]
fn a_volume_is_backed_up_verified_and_put_back() -> anyhow::Result<()> {
    if LoopFs::skips("a_volume_is_backed_up_verified_and_put_back", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    // A nested subvolume belongs to the copy.
    scene.volume.make_subvolume("data/nested")?;
    scene.volume.write("data/nested/deep/file", "in a nested subvolume")?;
    let made = scene.back_up("backup", &["--json"])?;
    ensure!(made.is_success(), "{made:?}");
    let document = made.json()?;
    assert_eq!(document["totals"]["files"], 204);
    assert_eq!(document["failures"], serde_json::json!([]));
    assert!(document["set_id"].is_string());
    scene.verified("backup")?;
    assert_eq!(differences(&scene.data(), &scene.restored("backup", "other")?)?, "");
    // It is whole, and stays what it is.
    fails(&scene.back_up("backup", &[])?, "VSS_E_OBJECT_ALREADY_EXISTS")?;
    ensure_no_copies(&scene.volume)?;
    // Damage is found, and nothing damaged is put back.
    let file = scene.at("backup/data").join(scene.volume.path().strip_prefix("/")?).join("data/3/f3");
    File::options().write(true).open(file)?.write_all_at(b"X", 2)?;
    let damaged = scene.vss(&["verify", &scene.name("backup")?])?;
    ensure!(damaged.code == Some(1) && damaged.stderr.contains("data/3/f3: damaged"), "{damaged:?}");
    let refused =
        scene.vss(&["restore", "--from", &scene.name("backup")?, "--files-only", "--to", &scene.name("third")?])?;
    ensure!(refused.code == Some(1) && refused.stderr.contains("data/3/f3"), "{refused:?}");
    Ok(())
}

#[test]
fn what_was_added_to_a_file_of_a_backup_is_not_put_back() -> anyhow::Result<()> {
    if LoopFs::skips("what_was_added_to_a_file_of_a_backup_is_not_put_back", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    // Backup and restoration share blocks.
    let volume = scene.volume.path();
    let (backup, other) = (volume.join("backup"), volume.join("other"));
    let name = |path: &Path| path.to_string_lossy().into_owned();
    let turn = creation_turn();
    let made = scene.vss(&["backup", "--volume", &name(&scene.data()), "--to", &name(&backup)])?;
    ensure!(made.is_success(), "{made:?}");
    drop(turn);
    let file = backup.join("data").join(scene.data().strip_prefix("/")?).join("3/f3");
    let right = fs::read(&file)?;
    fs::write(&file, [right.as_slice(), b"and garbage"].concat())?;
    let restored = scene.vss(&["restore", "--from", &name(&backup), "--files-only", "--to", &name(&other)])?;
    let there = other.join(scene.data().strip_prefix("/")?).join("3/f3");
    ensure!(restored.is_success() && fs::read(&there)? == right, "{restored:?}");
    Ok(())
}

fn ensure_no_copies(volume: &Volume) -> anyhow::Result<()> {
    ensure!(volume.copies()?.is_empty(), "copies are left");
    Ok(())
}

/// Begins a backup to the directory `backup`, does this as soon as it copies, and says how the backup ends; once more when it
/// was faster.
fn disturbed(
    scene: &mut Scene,
    disturb: impl Fn(&mut Instance, &Running) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    let to = scene.name("backup")?;
    let is_started = scene.instance.service_pid().is_some();
    for _ in 0..10 {
        if is_started && scene.instance.service_pid().is_none() {
            scene.instance.start()?;
        }
        let running = scene.instance.start_vss(["backup", "--volume", scene.volume.name(), "--to", &to])?;
        let copies = || scene.at("backup/journal").exists();
        ensure!(wait_until(Duration::from_secs(30), copies), "it copies nothing: {}", running.stderr()?);
        disturb(&mut scene.instance, &running)?;
        let outcome = running.finish()?;
        if !outcome.is_success() {
            return Ok(outcome);
        }
        fs::remove_dir_all(&to)?;
    }
    bail!("it is done before anything can be done to it")
}

#[test]
fn interrupted_by_ctrl_c_it_says_so_and_keeps_what_it_has() -> anyhow::Result<()> {
    if LoopFs::skips("interrupted_by_ctrl_c_it_says_so_and_keeps_what_it_has", &[Kind::Btrfs]) {
        return Ok(());
    }
    let mut scene = Scene::new()?;
    let large = vec![7_u8; 60 << 20];
    fs::write(scene.data().join("large"), large)?;
    let turn = creation_turn();
    let to = scene.name("backup")?;
    let outcome = disturbed(&mut scene, |_, running| running.signal(Signal::INT))?;
    fails(&outcome, "E_ABORT")?;
    ensure!(outcome.stderr.contains("Run the same command again"), "{outcome:?}");
    fails(&scene.instance.vss(["verify", &to])?, "VSS_E_BAD_STATE")?;
    fails(&scene.instance.vss(["restore", "--from", &to, "--files-only", "--to", &scene.name("x")?])?, "half-made")?;
    ensure_no_copies(&scene.volume)?;
    let end = scene.back_up("backup", &[])?;
    ensure!(end.is_success(), "{end:?}");
    drop(turn);
    assert_eq!(differences(&scene.data(), &scene.restored("backup", "other")?)?, "");
    Ok(())
}

#[test]
fn copies_that_go_with_the_service_leave_a_half_made_backup() -> anyhow::Result<()> {
    if LoopFs::skips("copies_that_go_with_the_service_leave_a_half_made_backup", &[Kind::Btrfs]) {
        return Ok(());
    }
    let mut scene = Scene::new()?;
    scene.instance.start()?;
    fs::write(scene.data().join("large"), vec![7_u8; 60 << 20])?;
    let turn = creation_turn();
    let to = scene.name("backup")?;
    let outcome = disturbed(&mut scene, |instance, _| instance.kill())?;
    fails(&outcome, "The service ended while the shadow copies were read")?;
    fails(&scene.instance.vss(["verify", &to])?, "VSS_E_BAD_STATE")?;
    let end = scene.back_up("backup", &[])?;
    ensure!(end.is_success(), "{end:?}");
    drop(turn);
    assert_eq!(differences(&scene.data(), &scene.restored("backup", "other")?)?, "");
    Ok(())
}

#[test]
fn a_full_disk_is_told_and_room_is_all_that_it_takes() -> anyhow::Result<()> {
    if LoopFs::skips("a_full_disk_is_told_and_room_is_all_that_it_takes", &[Kind::Btrfs, Kind::Ext4]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    fs::write(scene.data().join("zz"), vec![3; 6 << 20])?;
    let backups = LoopFs::new(Kind::Ext4, 24)?;
    let filler = ballast(&backups)?;
    let to = backups.path().to_str().context("UTF-8")?;
    let words = ["backup", "--volume", scene.volume.name(), "--to", to];
    let full = scene.vss(&words)?;
    fails(&full, "VSS_E_INSUFFICIENT_STORAGE")?;
    ensure!(full.stderr.contains("Make room"), "{full:?}");
    fails(&scene.vss(&["verify", to])?, "VSS_E_BAD_STATE")?;
    fs::remove_file(filler)?;
    let done = scene.vss(&words)?;
    ensure!(done.is_success() && done.stdout.contains("of an earlier run"), "{done:?}");
    let verified = scene.vss(&["verify", to])?;
    ensure!(verified.is_success(), "{verified:?}");
    // The same when it is put back.
    let target = LoopFs::new(Kind::Ext4, 24)?;
    let ballast = ballast(&target)?;
    let other = target.path().join("other");
    let words = ["restore", "--from", to, "--files-only", "--to", other.to_str().context("UTF-8")?];
    let full = scene.vss(&words)?;
    fails(&full, "VSS_E_INSUFFICIENT_STORAGE")?;
    ensure!(full.stderr.contains("Make room") && full.stderr.contains("data/zz"), "{full:?}");
    ensure!(is_marked(&other), "it is not marked");
    fs::remove_file(ballast)?;
    let done = scene.vss(&words)?;
    ensure!(done.is_success() && done.stdout.contains("were there already") && !is_marked(&other), "{done:?}");
    assert_eq!(differences(&scene.data(), &scene.data_in(&other)?)?, "");
    Ok(())
}

/// A file that leaves 11 MiB of the 24.
fn ballast(target: &LoopFs) -> anyhow::Result<PathBuf> {
    let path = target.path().join("lost+found/ballast");
    let file = File::create(&path)?;
    file.write_all_at(&vec![1; 13 << 20], 0)?;
    file.sync_all()?;
    Ok(path)
}

#[test]
fn a_component_is_backed_up_and_its_writer_told() -> anyhow::Result<()> {
    if LoopFs::skips("a_component_is_backed_up_and_its_writer_told", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    let owned = scene.volume.path().join("data/3");
    let writer = ScriptWriter::install(&scene.instance, "shop", &owned, None)?;
    let made = scene.vss(&["backup", "--component", "shop/data", "--to", &scene.name("backup")?, "--json"])?;
    ensure!(made.is_success(), "{made:?}");
    let document = made.json()?;
    assert_eq!(document["consistency"], "application");
    assert_eq!(
        document["components"],
        serde_json::json!([
        {"writer": "shop", "logical_path": "", "name": "data", "succeeded": true}])
    );
    ensure!(writer.phases().iter().any(|phase| phase == "backup-complete"), "{:?}", writer.phases());
    scene.verified("backup")?;
    let root = scene.restored("backup", "other")?;
    assert_eq!(differences(&owned, &root.join("3"))?, "");
    // Nothing beside it.
    assert_eq!(fs::read_dir(root)?.count(), 1);
    let documents: Vec<PathBuf> = fs::read_dir(scene.at("backup/documents"))?.flatten().map(|one| one.path()).collect();
    assert_eq!(documents.len(), 2, "{documents:?}");
    for document in &documents {
        let checked = scene.vss(&["document", "check", document.to_str().context("UTF-8")?])?;
        ensure!(checked.is_success(), "{checked:?}");
    }
    let said = fs::read_to_string(scene.at("backup/documents/backup-components.xml"))?;
    ensure!(said.contains("backupSucceeded=\"yes\""), "{said}");
    // The writer knows full backups alone: an incremental one takes everything of it, over the full one.
    scene.volume.write("data/3/f3", "changed")?;
    let base = scene.name("backup")?;
    let more = ["--backup-type", "incremental", "--base", &base, "--to", &scene.name("more")?];
    let made = scene.vss(&[&["backup", "--component", "shop"], &more[..]].concat())?;
    ensure!(made.is_success(), "{made:?}");
    assert_eq!(differences(&owned, &scene.restored("more", "later")?.join("3"))?, "");
    let unknown = scene.vss(&["backup", "--component", "shop/gone", "--to", &scene.name("second")?])?;
    fails(&unknown, "VSS_E_OBJECT_NOT_FOUND")?;
    ensure!(!scene.at("second").exists(), "a directory was made for nothing");
    Ok(())
}

#[test]
fn a_component_over_a_symbolic_link_is_refused_before_its_writer_hears_of_a_backup() -> anyhow::Result<()> {
    let name = "a_component_over_a_symbolic_link_is_refused_before_its_writer_hears_of_a_backup";
    if LoopFs::skips(name, &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    let link = scene.volume.path().join("link");
    std::os::unix::fs::symlink("data/3", &link)?;
    let writer = ScriptWriter::install(&scene.instance, "shop", &link, None)?;
    let refused = scene.vss(&["backup", "--component", "shop", "--to", &scene.name("backup")?])?;
    fails(&refused, "E_INVALIDARG")?;
    ensure!(refused.stderr.contains("data/3 in the writer's description"), "{refused:?}");
    ensure!(writer.phases().is_empty() && !scene.at("backup").exists(), "{:?}", writer.phases());
    ensure_no_copies(&scene.volume)
}

#[test]
fn a_component_with_a_mount_that_cannot_be_copied_has_failed() -> anyhow::Result<()> {
    if LoopFs::skips("a_component_with_a_mount_that_cannot_be_copied_has_failed", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    let owned = scene.volume.path().join("data/3");
    let _hot = Mounted::memory(&owned.join("hot"))?;
    fs::write(owned.join("hot/wal"), "in memory")?;
    let _writer = ScriptWriter::install(&scene.instance, "shop", &owned, None)?;
    let made = scene.vss(&["backup", "--component", "shop", "--to", &scene.name("backup")?, "--json"])?;
    fails(&made, "data/3/hot: it is in no copy")?;
    let document: Value = serde_json::from_str(&made.stdout)?;
    assert_eq!(document["components"][0]["succeeded"], false, "{document}");
    let said = fs::read_to_string(scene.at("backup/documents/backup-components.xml"))?;
    ensure!(said.contains("backupSucceeded=\"no\""), "{said}");
    scene.verified("backup")
}

#[test]
fn a_component_that_its_writer_gave_up_has_failed_with_all_its_files_there() -> anyhow::Result<()> {
    if LoopFs::skips("a_component_that_its_writer_gave_up_has_failed_with_all_its_files_there", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    let owned = scene.volume.path().join("data/3");
    let given_up = "printf 'component-failed retryable data\\tcannot hold still\\n'; echo ok";
    let install = |name, deed| ScriptWriter::install(&scene.instance, name, &owned, Some(("freeze", deed)));
    let writers = [install("shop", given_up)?, install("stall", "echo failed retryable cannot hold still")?];
    for (name, writer) in ["shop", "stall"].into_iter().zip(writers) {
        let made =
            scene.vss(&["backup", "--allow-degraded", "--component", name, "--to", &scene.name(name)?, "--json"])?;
        fails(&made, "cannot hold still")?;
        ensure!(writer.phases().iter().any(|phase| phase == "freeze"), "{:?}", writer.phases());
        let document: Value = serde_json::from_str(&made.stdout)?;
        assert_eq!(document["components"][0]["succeeded"], false, "{document}");
        assert_eq!(document["failures"], serde_json::json!([]));
        let said = fs::read_to_string(scene.at(name).join("documents/backup-components.xml"))?;
        ensure!(said.contains("backupSucceeded=\"no\""), "{said}");
        scene.verified(name)?;
        assert_eq!(differences(&owned, &scene.restored(name, &format!("{name}, restored"))?.join("3"))?, "");
    }
    Ok(())
}

#[test]
fn a_backup_builds_on_the_one_before() -> anyhow::Result<()> {
    if LoopFs::skips("a_backup_builds_on_the_one_before", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    ensure!(scene.back_up("full", &[])?.is_success());
    scene.volume.write("data/3/f3", "changed")?;
    fs::remove_file(scene.volume.path().join("data/4/f4"))?;
    let refused = scene.back_up("more", &["--backup-type", "incremental"])?;
    fails(&refused, "E_INVALIDARG")?;
    let base = scene.name("full")?;
    let made = scene.back_up("more", &["--backup-type", "incremental", "--base", &base, "--json"])?;
    ensure!(made.is_success(), "{made:?}");
    let totals = &made.json()?["totals"];
    assert_eq!(totals["bytes"], 7, "{totals}");
    scene.volume.write("data/5/f5", "changed too")?;
    let differential =
        scene.back_up("difference", &["--backup-type", "differential", "--base", &scene.name("more")?])?;
    fails(&differential, "E_INVALIDARG")?;
    let differential = scene.back_up("difference", &["--backup-type", "differential", "--base", &base])?;
    ensure!(differential.is_success(), "{differential:?}");
    scene.verified("difference")?;
    assert_eq!(differences(&scene.data(), &scene.restored("difference", "other")?)?, "");
    Ok(())
}

#[test]
fn a_component_that_failed_is_nothing_to_build_on() -> anyhow::Result<()> {
    if LoopFs::skips("a_component_that_failed_is_nothing_to_build_on", &[Kind::Btrfs]) {
        return Ok(());
    }
    let mut scene = Scene::new()?;
    scene.instance.start()?;
    let data = scene.data();
    let text = format!(
        "name = \"shop\"\nbackup_schema = [\"incremental\"]\n\
         [[components]]\nname = \"orders\"\nfiles = [\
         {{ path = {data:?}, pattern = \"base.db\", backup_type_mask = 0x0101 }}, {{ path = {data:?}, pattern = \"*.log\" }}]\n\
         [[components]]\nname = \"users\"\nfiles = [{{ path = \"{}/3\" }}]\n",
        data.display()
    );
    let writer = Simulated::join(&scene.instance, simulated::read(&text).map_err(anyhow::Error::msg)?)?;
    fs::write(data.join("a.log"), "a row")?;
    let backup = |component: &str, to: &str, more: &[&str]| {
        scene.vss(&[&["backup", "--component", component, "--to", &scene.name(to)?], more].concat())
    };
    // The file that only full backups hold is not there.
    fails(&backup("shop", "full", &[])?, "base.db")?;
    fs::write(data.join("base.db"), "too late")?;
    let told = writer.handle().events().len();
    let full = scene.name("full")?;
    let more = ["--backup-type", "incremental", "--base", &full];
    let refused = backup("shop", "more", &more)?;
    fails(&refused, "Component orders of writer shop failed in the backup that this one builds on")?;
    ensure!(refused.stderr.contains("Make a full backup of it") && !scene.at("more").exists(), "{refused:?}");
    let heard = writer.handle().events().split_off(told);
    ensure!(!heard.contains(&EventKind::PrepareBackup), "{heard:?}");
    let users = backup("shop/users", "users", &more)?;
    ensure!(users.is_success(), "{users:?}");
    // And in that one the other is missing.
    let users = scene.name("users")?;
    let refused = backup("shop/orders", "more", &["--backup-type", "incremental", "--base", &users])?;
    fails(&refused, "Component orders of writer shop is not in the backup that this one builds on")
}

#[test]
fn the_backup_is_not_backed_up() -> anyhow::Result<()> {
    if LoopFs::skips("the_backup_is_not_backed_up", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    let to = scene.volume.path().join("backup");
    let to = to.to_str().context("UTF-8")?;
    let made = scene.vss(&["backup", "--volume", scene.volume.name(), "--to", to])?;
    ensure!(made.is_success() && made.stderr.contains("left out"), "{made:?}");
    let inside = Path::new(to).join("data").join(scene.volume.path().strip_prefix("/")?);
    ensure!(inside.join("data/3/f3").exists() && !inside.join("backup").exists());
    Ok(())
}
