//! Sets of several kinds of volumes: what a program wrote to one after the other fits together in the copies, each time, and
//! does not when the hold is left out.
//!
//! ```text
//!  outside (XFS, no member, holds the reflink copies)      btrfs, on a disk of its own: cut while the others are held
//!   |- ext4
//!   `- xfs
//!       `- inner (ext4): copied byte by byte to elsewhere, since its image lies on a held volume
//! ```

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use vss_api::event::EventKind;
use vss_api::requester::VolumeQuestion;
use vss_model::{Context, HoldProof, ShadowCopySet, Volume, VssCode, VssError};
use vss_provider::Provider;
use vss_provider::block_copy::BlockCopyProvider;
use vss_provider::conformance::{Subject, assert_conforms};
use vss_requester::{Quiet, Requester};
use vss_tests::chain::{Broken, Chain, Way};
use vss_tests::instance::{Instance, wait_until};
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::scale::rounds;
use vss_tests::turn::creation_turn;

const KINDS: [Kind; 3] = [Kind::Ext4, Kind::Xfs, Kind::Btrfs];
/// The provider's clock is the wall's, which may be corrected a little in a hold.
const WALL_SLACK_US: i64 = 1000;
/// The programs get on between two sets, also on a busy machine.
const PROGRESS: Duration = Duration::from_secs(30);

/// The four volumes, and three programs that write to all of them, each in an order of its own. Inner ones go first.
struct Scene {
    chains: Vec<Chain>,
    instance: Instance,
    inner: LoopFs,
    xfs: LoopFs,
    ext4: LoopFs,
    btrfs: LoopFs,
    outside: LoopFs,
}

/// A set whose copies can be looked at.
struct Made {
    requester: Requester,
    set: ShadowCopySet,
}

impl Scene {
    /// The service does `fault`.
    fn new(fault: Option<&str>) -> anyhow::Result<Self> {
        let outside = LoopFs::new(Kind::Xfs, 1500)?;
        let ext4 = LoopFs::new_in(outside.path(), Kind::Ext4, 64)?;
        let xfs = LoopFs::new_in(outside.path(), Kind::Xfs, 400)?;
        let inner = LoopFs::new_in(xfs.path(), Kind::Ext4, 16)?;
        let btrfs = LoopFs::new(Kind::Btrfs, 256)?;
        let mut instance = Instance::new()?;
        let store = instance.path().join("block-copies");
        fs::create_dir(&store)?;
        instance.set("VSS_BLOCK_COPY", store);
        if let Some(fault) = fault {
            instance.set("VSS_FAULT", fault);
        }
        instance.start()?;
        let volumes = [ext4.path(), xfs.path(), inner.path(), btrfs.path()];
        let chains = vec![
            Chain::start("down", &volumes, &[0, 1, 2, 3], Way::Overwrite)?,
            Chain::start("up", &volumes, &[3, 2, 1, 0], Way::Rename)?,
            Chain::start("across", &volumes, &[2, 0, 3, 1], Way::Overwrite)?,
        ];
        Ok(Self { chains, instance, inner, xfs, ext4, btrfs, outside })
    }

    fn volumes(&self) -> [&Path; 4] {
        [self.ext4.path(), self.xfs.path(), self.inner.path(), self.btrfs.path()]
    }

    /// Every program has got on since `before`.
    fn get_on(&self, before: &[u64]) -> anyhow::Result<()> {
        let has = || self.chains.iter().zip(before).all(|(chain, before)| chain.rounds() > before + 1);
        ensure!(wait_until(PROGRESS, has), "a program does not get on: {before:?}");
        Ok(())
    }

    fn rounds(&self) -> Vec<u64> {
        self.chains.iter().map(Chain::rounds).collect()
    }

    /// Makes a set of the four, the inner one by this provider.
    fn make(&self, for_inner: &str) -> Result<Made, VssError> {
        let _turn = creation_turn();
        let mut requester = Requester::connect(&self.instance.directories())?;
        requester.initialize_for_backup("mixed")?;
        requester.set_context(Context::UntilRebootNoWriters)?;
        requester.start_snapshot_set(&vss_model::CreationOptions::default())?;
        for (volume, provider) in self.volumes().into_iter().zip(["reflink", "reflink", for_inner, "btrfs"]) {
            let question = VolumeQuestion { volume: volume.to_owned(), provider: Some(provider.to_owned()) };
            requester.add_to_snapshot_set(question)?;
        }
        requester.do_snapshot_set(true, &mut Quiet)?;
        let set = requester.snapshot_set()?;
        Ok(Made { requester, set })
    }

    /// Looks at the copies and deletes them; says which programs' files are of no one instant.
    fn judge(&self, made: Made) -> anyhow::Result<Vec<Broken>> {
        let Made { mut requester, set } = made;
        let shown = set.shadows.iter().map(|shadow| requester.expose_snapshot(shadow.id, None));
        let shown = shown.collect::<Result<Vec<_>, _>>()?;
        let broken = self.chains.iter().filter_map(|chain| chain.judge(&shown).err()).collect();
        for shadow in &set.shadows {
            requester.unexpose_snapshot(shadow.id)?;
        }
        drop(requester);
        self.instance.management()?.delete_set(set.set_id)?;
        Ok(broken)
    }

    /// No write failed, and no copy is left.
    fn finish(self) -> anyhow::Result<()> {
        let Self { chains, mut instance, inner, xfs, ext4, btrfs, outside } = self;
        let written: Vec<u64> = chains.into_iter().map(Chain::stop).collect::<Result<_, _>>()?;
        println!("the programs wrote {written:?} rounds");
        ensure!(instance.management()?.shadows()?.is_empty(), "copies are left");
        let stored: Vec<_> = fs::read_dir(instance.path().join("block-copies"))?.flatten().collect();
        ensure!(stored.is_empty(), "{stored:?}");
        for place in [&btrfs, &outside] {
            ensure!(!place.path().join(".vss").exists(), "copies are left at {}", place.path().display());
        }
        instance.stop()?;
        drop((inner, xfs, ext4));
        Ok(())
    }
}

/// Checks that the three were held, the inner one before the outer one, and that all four were cut meanwhile.
fn is_proven(set: &ShadowCopySet) -> anyhow::Result<&HoldProof> {
    let proof = set.proof.as_ref().context("a proof")?;
    let hold = proof.hold.as_ref().context("a hold")?;
    ensure!(set.atomic && proof.all_cut_in_one_hold(), "{proof:?}");
    let levels: Vec<Option<u8>> = proof.members.iter().map(|member| member.level).collect();
    ensure!(levels == [Some(0), Some(1), Some(0), None], "{levels:?}");
    let held: Vec<bool> = proof.members.iter().map(|member| member.held).collect();
    ensure!(held == [true, true, true, false], "{held:?}");
    for member in &proof.members {
        let earliest = hold.frozen_at.after_us(-WALL_SLACK_US);
        let latest = hold.release_at.after_us(WALL_SLACK_US);
        ensure!(earliest <= member.cut_at && member.cut_at <= latest, "{member:?} {hold:?}");
    }
    Ok(proof)
}

#[test]
fn what_belongs_together_is_cut_together() -> anyhow::Result<()> {
    if LoopFs::skips("what_belongs_together_is_cut_together", &KINDS) {
        return Ok(());
    }
    let scene = Scene::new(None)?;
    let (mut held_us, mut broken) = (Vec::new(), Vec::new());
    let sets = rounds(20, 200);
    for _ in 0..sets {
        scene.get_on(&scene.rounds())?;
        let made = scene.make("block-copy")?;
        held_us.push(is_proven(&made.set)?.hold_us());
        broken.extend(scene.judge(made)?);
    }
    held_us.sort_unstable();
    let (half, longest) = (held_us[held_us.len() / 2], held_us.last().context("a hold")?);
    println!("{sets} sets: {} broken; held p50 {half} us, max {longest} us", broken.len());
    ensure!(broken.is_empty(), "{broken:?}");
    scene.finish()
}

#[test]
fn without_the_hold_they_are_torn_apart() -> anyhow::Result<()> {
    if LoopFs::skips("without_the_hold_they_are_torn_apart", &KINDS) {
        return Ok(());
    }
    let scene = Scene::new(Some("hold:skip"))?;
    let (mut torn, mut unreadable) = (0, 0);
    let sets = rounds(5, 30);
    for _ in 0..sets {
        scene.get_on(&scene.rounds())?;
        match scene.make("block-copy") {
            Ok(made) => {
                let hold = made.set.proof.as_ref().context("a proof")?.hold.as_ref();
                ensure!(hold.is_none() && !made.set.atomic, "a hold is told that was not: {:?}", made.set);
                torn += usize::from(!scene.judge(made)?.is_empty());
            }
            // What was copied byte by byte while it changed may be no file system any more.
            Err(error) if error.code == VssCode::ProviderVeto => unreadable += 1,
            Err(error) => return Err(error.into()),
        }
    }
    println!("{sets} sets without a hold: {torn} torn apart, {unreadable} unreadable");
    ensure!(torn > 0, "the programs' files show nothing");
    scene.finish()
}

#[test]
fn a_cut_that_writes_to_a_held_volume_is_refused_before_any_freeze() -> anyhow::Result<()> {
    let name = "a_cut_that_writes_to_a_held_volume_is_refused_before_any_freeze";
    if LoopFs::skips(name, &KINDS) {
        return Ok(());
    }
    let scene = Scene::new(None)?;
    // The image of the inner one lies on the XFS of the set, and so would its clone.
    let Err(error) = scene.make("reflink") else { bail!("the set is made") };
    println!("{error}");
    ensure!(error.code == VssCode::NestedVolumeLimit, "{error:?}");
    for volume in [&scene.inner, &scene.xfs] {
        let path = volume.path().to_str().context("UTF-8")?;
        ensure!(error.to_string().contains(path), "{path}: {error}");
    }
    let events = scene.instance.management()?.events(None)?.events;
    let window = |step: &str| ["flush", "freeze", "flush_in_window", "hold", "commit"].contains(&step);
    let is_frozen = events.iter().find(|event| {
        event.kind == EventKind::Member || (event.kind == EventKind::Step && event.step.as_deref().is_some_and(window))
    });
    ensure!(is_frozen.is_none(), "it went on: {is_frozen:?}");
    scene.get_on(&scene.rounds())?;
    scene.finish()
}

/// Two small volumes for the contract's suite.
struct Devices {
    volumes: [LoopFs; 2],
    store: tempfile::TempDir,
}

impl Subject for Devices {
    fn provider(&self) -> Box<dyn Provider> {
        Box::new(BlockCopyProvider::new(self.store.path().to_path_buf()))
    }

    fn volumes(&self) -> Vec<Volume> {
        let volume = |fs: &LoopFs| vss_service::volumes::resolve(fs.path()).expect("it is mounted").volume;
        self.volumes.iter().map(volume).collect()
    }

    fn leftovers(&self) -> std::io::Result<Vec<String>> {
        fs::read_dir(self.store.path())?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }
}

/// What judges others is judged too.
#[test]
fn the_provider_that_copies_byte_by_byte_conforms() -> anyhow::Result<()> {
    if LoopFs::skips("the_provider_that_copies_byte_by_byte_conforms", &[Kind::Ext4]) {
        return Ok(());
    }
    let volumes = [LoopFs::new(Kind::Ext4, 16)?, LoopFs::new(Kind::Ext4, 32)?];
    assert_conforms(&Devices { volumes, store: tempfile::tempdir()? });
    Ok(())
}
