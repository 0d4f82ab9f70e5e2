//! Copies of a PostgreSQL cluster under pgbench's load: from shadow copies every one is good, from plain copies it is luck.
//! Every copy is judged by a second server, by the sums of TPC-B.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use tempfile::TempDir;
use vss_lab::postgresql::{Cluster, copies, load};
use vss_tests::instance::{Instance, Outcome, wait_until};
use vss_tests::postgresql::{Copy, Trial, copy_tree, directory_for_copies, load_turn, skips};
use vss_tests::scale::rounds;
use vss_tests::traces;
use vss_tests::turn::creation_turn;
use vss_tests::volume::Volume;

/// Size of the volumes, in MiB; their images are sparse.
const SIZE: u64 = 4096;
/// What has to happen happens within this time.
const LIMIT: Duration = Duration::from_secs(10);
/// What the output calls the copies.
const SHADOW_COPY: &str = "shadow copy";
/// By this name the writer's session would be found in the server.
const APPLICATION: &str = "vss";

/// An instance of the service on demand, the volume of a cluster, and a place for copies.
struct Scene {
    instance: Instance,
    copies: TempDir,
    volume: Volume,
}

impl Scene {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            instance: Instance::with_postgresql()?,
            copies: directory_for_copies()?,
            volume: Volume::of_size(SIZE)?,
        })
    }

    /// Where the cluster is.
    fn data(&self) -> PathBuf {
        self.volume.path().join("data")
    }

    /// A running cluster on the volume.
    fn cluster(&self) -> anyhow::Result<Cluster> {
        let mut cluster = Cluster::create(&self.data(), &load::SETTINGS)?;
        cluster.start()?;
        Ok(cluster)
    }

    fn vss(&self, words: &[&str]) -> anyhow::Result<Outcome> {
        self.instance.vss(words)
    }

    fn does(&self, words: &[&str]) -> anyhow::Result<()> {
        let outcome = self.vss(words)?;
        ensure!(outcome.is_success(), "{words:?}: {outcome:?}");
        Ok(())
    }

    /// By `vss create` and `vss expose`, as for a copy that stays.
    fn by_create(&self) -> anyhow::Result<Copy> {
        let set = {
            let _turn = creation_turn();
            self.vss(&["create", "--json", self.volume.name()])?.json()?
        };
        ensure!(set["consistency"] == "application" && set["atomic"] == true, "{set}");
        ensure!(set["writers"][0]["name"] == "postgresql", "{set}");
        let shadow = set["shadows"][0]["id"].as_str().context("an id")?;
        let shown = self.instance.path().join("shown");
        fs::create_dir(&shown)?;
        self.does(&["expose", shadow, &shown.to_string_lossy()])?;
        let data = self.copies.path().join("data");
        copy_tree(&shown.join("data"), &data)?;
        self.does(&["unexpose", shadow])?;
        fs::remove_dir(shown)?;
        self.does(&["delete", shadow])?;
        Ok(Copy { data, moved: Vec::new(), has_lock: false })
    }

    /// By `vss run` with a program that knows nothing of copies: these directories of these volumes, the data directory first.
    fn by_run(&self, volumes: &[&Volume], directories: &[&Path]) -> anyhow::Result<Copy> {
        let to = self.copies.path().to_string_lossy();
        let from = directories.iter().map(|directory| directory.to_string_lossy()).collect::<Vec<_>>();
        let mut words = vec!["run", "--require", "application"];
        words.extend(volumes.iter().flat_map(|volume| ["--volume", volume.name()]));
        words.extend(["--", "cp", "-a"]);
        words.extend(from.iter().map(|from| &**from));
        words.push(&to);
        let _turn = creation_turn();
        self.does(&words)?;
        let now = |directory: &Path| self.copies.path().join(directory.file_name().unwrap_or_default());
        let moved = directories[1..].iter().map(|directory| (directory.to_path_buf(), now(directory))).collect();
        Ok(Copy { data: now(directories[0]), moved, has_lock: false })
    }

    fn is_over(&self, clusters: &[&Cluster]) -> anyhow::Result<()> {
        for cluster in clusters {
            nothing_is_held(cluster)?;
        }
        traces::has_no_shadows(&self.instance)?;
        ensure!(self.volume.copies()?.is_empty(), "copies are left");
        traces::has_no_processes(&self.instance)
    }
}

/// No session of the writer, and with that no backup mode; nothing that would keep the log.
fn nothing_is_held(cluster: &Cluster) -> anyhow::Result<()> {
    // A session of the server outlives its client by moments.
    wait_until(LIMIT, || cluster.sessions_named(APPLICATION).is_ok_and(|sessions| sessions == 0));
    let sessions = cluster.sessions_named(APPLICATION)?;
    let slots = cluster.sql("postgres", "SELECT count(*) FROM pg_replication_slots")?;
    ensure!(sessions == 0 && slots == "0", "{sessions} sessions and {slots} slots are left");
    Ok(())
}

/// Checks how the cluster was made ready: the copy has `backup_label`, or has not.
fn in_backup_mode(copy: Copy, expected: bool) -> anyhow::Result<Copy> {
    ensure!(copy.data.join("backup_label").exists() == expected, "backup mode: expected {expected}");
    ensure!(!copy.data.join("postmaster.pid").exists(), "the lock of the live server is in the copy");
    Ok(copy)
}

#[test]
fn every_copy_of_a_cluster_under_load_is_good() -> anyhow::Result<()> {
    if skips("every_copy_of_a_cluster_under_load_is_good") {
        return Ok(());
    }
    let _turn = load_turn();
    let scene = Scene::new()?;
    let cluster = scene.cluster()?;
    let mut trial = Trial::start(&cluster, None)?;
    for round in 0..rounds(10, 50) {
        // In turn, so that both ways are shown.
        let copy =
            || if round % 2 == 0 { scene.by_create() } else { scene.by_run(&[&scene.volume], &[cluster.data()]) };
        trial.round(SHADOW_COPY, || in_backup_mode(copy()?, false))?;
    }
    ensure!(trial.finish()?[SHADOW_COPY].is_flawless());
    scene.is_over(&[&cluster])
}

#[test]
fn a_slowed_copy_of_live_files_is_broken() -> anyhow::Result<()> {
    if skips("a_slowed_copy_of_live_files_is_broken") {
        return Ok(());
    }
    let _turn = load_turn();
    let scene = Scene::new()?;
    let cluster = scene.cluster()?;
    let target = scene.copies.path().join("data");
    let (slowed, plain) = ("slowed copy of live files", "cp -a of live files");
    let mut trial = Trial::start(&cluster, None)?;
    let copied = || Copy { data: target.clone(), moved: Vec::new(), has_lock: true };
    for _ in 0..rounds(2, 10) {
        trial.round(slowed, || copies::slowed(&cluster, &target).map(|_took| copied()))?;
        trial.round(plain, || copies::plain(&cluster, &target).map(|_took| copied()))?;
    }
    let counts = trial.finish()?;
    // A quick copy may be good by luck; one that a checkpoint passes cannot be good each time.
    ensure!(counts[slowed].broken > 0, "{counts:?}");
    Ok(())
}

#[test]
fn files_on_several_volumes_are_copied_in_backup_mode() -> anyhow::Result<()> {
    if skips("files_on_several_volumes_are_copied_in_backup_mode") {
        return Ok(());
    }
    let _turn = load_turn();
    let scene = Scene::new()?;
    let other = Volume::of_size(SIZE)?;
    scene.volume.make_subvolume("log")?;
    let (wal, space) = (scene.volume.path().join("log/wal"), other.path().join("space"));
    let mut cluster = Cluster::create_with_wal(&scene.data(), &wal, &load::SETTINGS)?;
    cluster.start()?;
    cluster.create_tablespace("space", &space)?;
    let mut trial = Trial::start(&cluster, Some("space"))?;

    let incomplete = {
        let _turn = creation_turn();
        scene.vss(&["run", "--volume", scene.volume.name(), "--", "true"])?
    };
    let names = ["VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT", other.name()];
    ensure!(
        incomplete.code == Some(125) && names.iter().all(|name| incomplete.stderr.contains(name)),
        "a set without the tablespace: {incomplete:?}"
    );

    let (volumes, directories) = ([&scene.volume, &other], [cluster.data(), &wal, &space]);
    for _ in 0..rounds(4, 20) {
        trial.round(SHADOW_COPY, || in_backup_mode(scene.by_run(&volumes, &directories)?, true))?;
        nothing_is_held(&cluster)?;
    }
    ensure!(trial.finish()?[SHADOW_COPY].is_flawless());
    other.is_clean()?;
    scene.is_over(&[&cluster])
}

#[test]
fn copies_of_a_standby_are_good() -> anyhow::Result<()> {
    if skips("copies_of_a_standby_are_good") {
        return Ok(());
    }
    let _turn = load_turn();
    let scene = Scene::new()?;
    let primary = scene.copies.path().join("primary");
    let mut primary = Cluster::create(&primary, &load::SETTINGS)?;
    primary.start()?;
    // One whose files are of one instant, and one that needs backup mode.
    let mut standby = primary.standby(&scene.data(), None)?;
    standby.start()?;
    let other = Volume::of_size(SIZE)?;
    other.make_subvolume("log")?;
    let (other_data, wal) = (other.path().join("other-data"), other.path().join("log/wal"));
    let mut other_standby = primary.standby(&other_data, Some(&wal))?;
    other_standby.start()?;
    primary.wait_for_standbys()?;
    let mut trial = Trial::start(&primary, None)?;
    for _ in 0..rounds(2, 10) {
        trial.round("standby", || in_backup_mode(scene.by_run(&[&scene.volume], &[standby.data()])?, false))?;
        trial.round("standby in backup mode", || {
            in_backup_mode(scene.by_run(&[&other], &[other_standby.data(), &wal])?, true)
        })?;
    }
    let counts = trial.finish()?;
    ensure!(counts.values().all(vss_tests::postgresql::Count::is_flawless), "{counts:?}");
    scene.is_over(&[&primary, &standby, &other_standby])
}
