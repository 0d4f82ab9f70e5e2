//! Copies of a PostgreSQL cluster under pgbench's load: from shadow copies every one is good, from plain copies it is luck.
//! Every copy is judged by a second server, by the sums of TPC-B.

use anyhow::{Context, ensure};
use tempfile::TempDir;
use vss_lab::postgresql::{Cluster, copies, load};
use vss_tests::instance::{Instance, creation_turn};
use vss_tests::postgresql::{Copy, Trial, copy_tree, directory_for_copies, load_turn, skips};
use vss_tests::scale::rounds;
use vss_tests::traces;
use vss_tests::volume::Volume;

/// Size of the volumes, in MiB; their images are sparse.
const SIZE: u64 = 4096;

/// What the output calls the copies.
const SHADOW_COPY: &str = "shadow copy";
/// The level that a set of this cluster has to have.
const LEVEL: &str = "file-system";

/// A cluster on one volume, and an instance of the service on demand.
struct Scene {
    instance: Instance,
    cluster: Cluster,
    copies: TempDir,
    volume: Volume,
}

impl Scene {
    fn new() -> anyhow::Result<Self> {
        let volume = Volume::of_size(SIZE)?;
        let mut cluster = Cluster::create(&volume.path().join("data"), &load::SETTINGS)?;
        cluster.start()?;
        Ok(Self { instance: Instance::new()?, cluster, copies: directory_for_copies()?, volume })
    }

    /// By `vss create` and `vss expose`, as for a copy that stays.
    fn by_create(&self) -> anyhow::Result<Copy> {
        let set = {
            let _turn = creation_turn();
            self.instance.vss(["create", "--json", "--require", LEVEL, self.volume.name()])?.json()?
        };
        ensure!(set["consistency"] == LEVEL, "{set}");
        let shadow = set["shadows"][0]["id"].as_str().context("an id")?;
        let shown = self.instance.path().join("shown");
        std::fs::create_dir(&shown)?;
        self.does(&["expose", shadow, &shown.to_string_lossy()])?;
        let data = self.copies.path().join("data");
        copy_tree(&shown.join("data"), &data)?;
        self.does(&["unexpose", shadow])?;
        std::fs::remove_dir(shown)?;
        self.does(&["delete", shadow])?;
        Ok(Copy { data, moved: Vec::new(), has_lock: true })
    }

    /// By `vss run`, with a program that knows nothing of copies.
    fn by_run(&self) -> anyhow::Result<Copy> {
        let data = self.copies.path().join("data");
        let (from, to) = (self.cluster.data().to_string_lossy(), data.to_string_lossy());
        let _turn = creation_turn();
        self.does(&["run", "--require", LEVEL, "--volume", self.volume.name(), "--", "cp", "-a", &from, &to])?;
        Ok(Copy { data, moved: Vec::new(), has_lock: true })
    }

    fn does(&self, words: &[&str]) -> anyhow::Result<()> {
        let outcome = self.instance.vss(words)?;
        ensure!(outcome.is_success(), "{words:?}: {outcome:?}");
        Ok(())
    }

    fn is_over(&self) -> anyhow::Result<()> {
        traces::has_no_shadows(&self.instance)?;
        self.volume.is_clean()?;
        traces::has_no_processes(&self.instance)
    }
}

#[test]
fn every_set_of_a_cluster_under_load_is_good() -> anyhow::Result<()> {
    if skips("every_set_of_a_cluster_under_load_is_good") {
        return Ok(());
    }
    let _turn = load_turn();
    let scene = Scene::new()?;
    let mut trial = Trial::start(&scene.cluster, None)?;
    for round in 0..rounds(10, 50) {
        // In turn, so that both ways are shown.
        trial.round(SHADOW_COPY, || if round % 2 == 0 { scene.by_create() } else { scene.by_run() })?;
    }
    ensure!(trial.finish()?[SHADOW_COPY].is_flawless());
    scene.is_over()
}

#[test]
fn a_slowed_copy_of_live_files_is_broken() -> anyhow::Result<()> {
    if skips("a_slowed_copy_of_live_files_is_broken") {
        return Ok(());
    }
    let _turn = load_turn();
    let scene = Scene::new()?;
    let target = scene.copies.path().join("data");
    let (slowed, plain) = ("slowed copy of live files", "cp -a of live files");
    let mut trial = Trial::start(&scene.cluster, None)?;
    let copied = || Copy { data: target.clone(), moved: Vec::new(), has_lock: true };
    for _ in 0..rounds(2, 10) {
        trial.round(slowed, || copies::slowed(&scene.cluster, &target).map(|_took| copied()))?;
        trial.round(plain, || copies::plain(&scene.cluster, &target).map(|_took| copied()))?;
    }
    let counts = trial.finish()?;
    // A quick copy may be good by luck; one that a checkpoint passes cannot be good each time.
    ensure!(counts[slowed].broken > 0, "{counts:?}");
    Ok(())
}
