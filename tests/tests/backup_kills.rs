//! `vss backup`, `verify` and `restore` killed at any moment and at every kind of step: run again, they end right, what is
//! half done is never taken for done, and nothing else is touched.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use vss_tests::backups::{Scene, is_marked};
use vss_tests::instance::Outcome;
use vss_tests::kills::{Moments, kill_after, kill_at, skips};
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::scale::rounds;
use vss_tests::trees::{differences, inodes};
use vss_tests::turn::creation_turn;
use vss_tests::volume::Mounted;

/// Calls of a restoration that change something, and which of them is the last that is not done. The number of files makes
/// that there are so many.
const STEPS: [(&str, u32); 18] = [
    ("fsync", 1),
    ("fsync", 2),
    ("mkdirat", 1),
    ("mkdirat", 4),
    ("pread64", 40),
    ("pread64", 120),
    ("fchown", 60),
    ("fchmod", 80),
    ("utimensat", 100),
    ("renameat2", 1),
    ("renameat2", 50),
    ("renameat2", 150),
    ("linkat", 1),
    ("symlinkat", 1),
    ("fchownat", 1),
    ("syncfs", 1),
    ("unlinkat", 1),
    ("fsync", 3),
];

/// A full backup, an incremental one upon it, and what must stay as it is while they are put back.
struct Chain {
    scene: Scene,
    from: String,
    before: Vec<String>,
}

impl Chain {
    fn new() -> anyhow::Result<Self> {
        let scene = Scene::new()?;
        ensure!(scene.back_up("full", &[])?.is_success());
        scene.volume.write("data/3/f3", "changed")?;
        fs::remove_file(scene.data().join("4/f4"))?;
        let more = ["--backup-type", "incremental", "--base", &scene.name("full")?];
        ensure!(scene.back_up("more", &more)?.is_success());
        fs::create_dir(scene.at("targets"))?;
        fs::create_dir(scene.at("beside"))?;
        fs::write(scene.at("beside/file"), "somebody's")?;
        let from = scene.name("more")?;
        let mut this = Self { scene, from, before: Vec::new() };
        this.before = this.others()?;
        Ok(this)
    }

    /// All that a restoration must leave alone.
    fn others(&self) -> anyhow::Result<Vec<String>> {
        let others = ["full", "more", "beside"].map(|name| inodes(&self.scene.at(name)));
        Ok(others.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
    }

    fn target(&self, name: &str) -> anyhow::Result<(PathBuf, String)> {
        Ok((self.scene.at("targets").join(name), self.scene.name(&format!("targets/{name}"))?))
    }

    /// What is there is marked, or all of it is there; and nothing else was touched.
    fn is_judged(&self, target: &str) -> anyhow::Result<bool> {
        let (path, _) = self.target(target)?;
        ensure!(self.others()? == self.before, "something else was touched");
        if is_marked(&path) || fs::read_dir(&path).map_or(true, |mut names| names.next().is_none()) {
            return Ok(false);
        }
        let differences = differences(&self.scene.data(), &self.scene.data_in(&path)?)?;
        ensure!(differences.is_empty(), "without a mark, and not whole: {differences}");
        Ok(true)
    }

    fn restore<'a>(&'a self, to: &'a str) -> [&'a str; 6] {
        ["restore", "--from", &self.from, "--files-only", "--to", to]
    }

    fn ends_right(&self, target: &str) -> anyhow::Result<()> {
        let (_, to) = self.target(target)?;
        let outcome = self.scene.vss(&self.restore(&to))?;
        ensure!(outcome.is_success(), "{outcome:?}");
        ensure!(self.is_judged(target)?, "it is marked and whole");
        Ok(())
    }
}

fn was_killed(outcome: &Outcome) -> bool {
    outcome.signal.is_some()
}

#[test]
fn a_backup_killed_at_any_moment_is_run_again_and_ends_right() -> anyhow::Result<()> {
    if LoopFs::skips("a_backup_killed_at_any_moment_is_run_again_and_ends_right", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    let turn = creation_turn();
    let to = scene.name("backup")?;
    let words = ["backup", "--volume", scene.volume.name(), "--to", &to];
    fs::write(scene.data().join("large"), vec![5; 30 << 20])?;
    // How long a whole run takes.
    let whole = scene.instance.vss([&words[..4], &[&scene.name("whole")?]].concat())?;
    ensure!(whole.is_success(), "{whole:?}");
    let (mut killed, mut resumed, mut round) = (0, 0, 0);
    let mut moments = Moments::default();
    // Until one was met at that, too: where that is, is the machine's.
    while killed < rounds(10, 100) || resumed == 0 && killed < rounds(60, 200) {
        let outcome = kill_after(&scene.instance, moments.of(whole.took), &words)?;
        killed += u32::from(was_killed(&outcome));
        resumed += u32::from(scene.at("backup/journal").exists());
        let verified = scene.instance.vss(["verify", &to])?;
        if scene.at("backup/complete").exists() {
            // Declared whole, it is whole, whatever was left to be done.
            ensure!(verified.is_success(), "round {round}: {outcome:?} {verified:?}");
            fs::remove_dir_all(scene.at("backup"))?;
        } else {
            ensure!(verified.code == Some(1) && !verified.stderr.contains("damaged"), "round {round}: {verified:?}");
        }
        // The volume goes on living: what changes is taken anew.
        scene.volume.write(&format!("data/{}/f{round}", round % 7), &format!("changed in round {round}"))?;
        round += 1;
    }
    ensure!(resumed > 0, "no run was killed while it copied");
    let end = scene.instance.vss(words)?;
    ensure!(end.is_success(), "{end:?}");
    drop(turn);
    scene.verified("backup")?;
    assert_eq!(differences(&scene.data(), &scene.restored("backup", "other")?)?, "");
    Ok(())
}

#[test]
fn a_restoration_killed_at_any_moment_is_run_again_and_ends_right() -> anyhow::Result<()> {
    if LoopFs::skips("a_restoration_killed_at_any_moment_is_run_again_and_ends_right", &[Kind::Btrfs]) {
        return Ok(());
    }
    let chain = Chain::new()?;
    let (_, whole) = chain.target("whole")?;
    let took = chain.scene.vss(&chain.restore(&whole))?.took;
    ensure!(chain.is_judged("whole")?, "it is marked and whole");
    let (mut killed, mut half, mut round) = (0, 0, 0);
    let mut moments = Moments::default();
    let (_, to) = chain.target("killed")?;
    // Until one was met at that, too: where that is, is the machine's.
    while killed < rounds(10, 100) || half == 0 && killed < rounds(60, 200) {
        let outcome = kill_after(&chain.scene.instance, moments.of(took), &chain.restore(&to))?;
        killed += u32::from(was_killed(&outcome));
        if chain.is_judged("killed").with_context(|| format!("round {round}: {outcome:?}"))? {
            fs::remove_dir_all(&to)?;
        } else {
            half += u32::from(fs::read_dir(&to).is_ok_and(|names| names.count() > 1));
        }
        round += 1;
    }
    ensure!(half > 0, "no run was killed while it restored");
    chain.ends_right("killed")
}

#[test]
fn a_restoration_killed_at_each_of_its_steps_is_run_again_and_ends_right() -> anyhow::Result<()> {
    let name = "a_restoration_killed_at_each_of_its_steps_is_run_again_and_ends_right";
    if LoopFs::skips(name, &[Kind::Btrfs]) || skips(name) {
        return Ok(());
    }
    let chain = Chain::new()?;
    for (call, number) in STEPS {
        let target = format!("{call} {number}");
        let (path, to) = chain.target(&target)?;
        let outcome = kill_at(&chain.scene.instance, call, number, &chain.restore(&to))?;
        ensure!(was_killed(&outcome), "{target} was not met: {outcome:?}");
        let is_whole = chain.is_judged(&target).with_context(|| target.clone())?;
        // The last step of all comes when the mark is gone.
        ensure!(is_whole == ((call, number) == ("fsync", 3)), "{target}: whole: {is_whole}");
        chain.ends_right(&target).with_context(|| target.clone())?;
        fs::remove_dir_all(path)?;
    }
    Ok(())
}

#[test]
fn a_restoration_over_a_mount_is_marked_until_both_file_systems_are_on_the_disk() -> anyhow::Result<()> {
    let name = "a_restoration_over_a_mount_is_marked_until_both_file_systems_are_on_the_disk";
    if LoopFs::skips(name, &[Kind::Btrfs, Kind::Ext4]) || skips(name) {
        return Ok(());
    }
    let chain = Chain::new()?;
    let (path, to) = chain.target("over a mount")?;
    let other = LoopFs::new(Kind::Ext4, 64)?;
    fs::remove_dir(other.path().join("lost+found"))?;
    let mounted = Mounted::bind(other.path(), &chain.scene.data_in(&path)?.join("3"))?;
    // The second one is not synced yet.
    let outcome = kill_at(&chain.scene.instance, "syncfs", 2, &chain.restore(&to))?;
    ensure!(was_killed(&outcome), "only one file system is synced: {outcome:?}");
    ensure!(is_marked(&path) && other.path().join("f3").exists(), "{outcome:?}");
    chain.ends_right("over a mount")?;
    drop(mounted);
    Ok(())
}

#[test]
fn a_check_that_is_killed_has_touched_nothing() -> anyhow::Result<()> {
    if LoopFs::skips("a_check_that_is_killed_has_touched_nothing", &[Kind::Btrfs]) {
        return Ok(());
    }
    let chain = Chain::new()?;
    let full = chain.scene.name("full")?;
    let took = chain.scene.vss(&["verify", &full])?.took;
    let (mut killed, mut moments) = (0, Moments::default());
    while killed < rounds(10, 100) {
        let outcome = kill_after(&chain.scene.instance, moments.of(took), &["verify", &full])?;
        killed += u32::from(was_killed(&outcome));
        ensure!(chain.others()? == chain.before, "something was touched");
    }
    chain.scene.verified("full")
}
