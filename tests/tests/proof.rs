//! The proof that is kept with a set: its numbers are in order, every member's, and `vss show` tells them.

use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::json;
use vss_api::requester::VolumeQuestion;
use vss_model::{Context, GuardAnswer, HoldProof, Instant, MemberProof, ShadowCopySet, VssError};
use vss_requester::{Quiet, Requester};
use vss_tests::instance::Instance;
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::traces::{self, BusyVolume};
use vss_tests::turn::creation_turn;

/// The provider's own clock is the wall's: it may be corrected a little between its word and ours.
const WALL_SLACK_US: i64 = 1000;

/// A service whose fake provider holds what it copies, and takes 3 ms for a cut.
fn with_fake() -> anyhow::Result<Instance> {
    let mut instance = Instance::new()?;
    let fake = json!({"store": traces::fake_store(&instance), "policy": "needs_hold", "commit_delay_ms": 3});
    instance.set("VSS_FAKE", fake.to_string());
    instance.start()?;
    Ok(instance)
}

/// Makes a set of these volumes by these providers that stays until it is deleted.
fn set_of(instance: &Instance, volumes: &[(&Path, &str)]) -> Result<ShadowCopySet, VssError> {
    let mut requester = Requester::connect(&instance.directories())?;
    requester.initialize_for_backup("proof")?;
    requester.set_context(Context::UntilRebootNoWriters)?;
    requester.start_snapshot_set(&vss_model::CreationOptions::default())?;
    for (volume, provider) in volumes {
        let question = VolumeQuestion { volume: (*volume).to_owned(), provider: Some((*provider).to_owned()) };
        requester.add_to_snapshot_set(question)?;
    }
    requester.do_snapshot_set(true, &mut Quiet)?;
    requester.snapshot_set()
}

fn signed(us: u64) -> anyhow::Result<i64> {
    Ok(i64::try_from(us)?)
}

/// Checks one member against the hold.
fn member_is_in_order(proof: &HoldProof, member: &MemberProof, shadow_cut_at: Instant) -> anyhow::Result<()> {
    let hold = proof.hold.as_ref().context("a hold")?;
    let (frozen, release, thawed) = (signed(hold.frozen_us)?, signed(hold.release_us)?, signed(hold.thawed_us)?);
    ensure!(frozen <= member.commit.from_us && member.commit.until_us() <= release, "cut outside: {member:?} {hold:?}");
    ensure!(member.cut_at == shadow_cut_at, "{member:?}");
    let earliest = hold.frozen_at.after_us(-WALL_SLACK_US);
    let latest = hold.release_at.after_us(WALL_SLACK_US);
    ensure!(earliest <= member.cut_at && member.cut_at <= latest, "{member:?} {hold:?}");
    if member.held {
        let (freeze, thaw) = (member.freeze.context("a freeze")?, member.thaw.context("a thaw")?);
        ensure!(0 <= freeze.from_us && freeze.until_us() <= frozen, "{member:?} {hold:?}");
        ensure!(release <= thaw.from_us && thaw.until_us() <= thawed, "{member:?} {hold:?}");
        use GuardAnswer::{Frozen, Synced, Thawed};
        ensure!(member.answers == [Synced, Synced, Frozen, Thawed], "{member:?}");
    } else {
        ensure!(member.freeze.is_none() && member.thaw.is_none() && member.level.is_none(), "{member:?}");
        ensure!(member.answers == [GuardAnswer::Synced; 2], "{member:?}");
    }
    Ok(())
}

/// Checks that everything came in its order.
fn is_in_order(set: &ShadowCopySet) -> anyhow::Result<&HoldProof> {
    let proof = set.proof.as_ref().context("a proof")?;
    let hold = proof.hold.as_ref().context("a hold")?;
    ensure!(0 < hold.frozen_us && hold.frozen_us <= hold.release_us && hold.release_us <= hold.thawed_us, "{hold:?}");
    ensure!(proof.began_at < hold.frozen_at && hold.frozen_at <= hold.release_at && hold.release_at <= hold.thawed_at);
    let (flush, again) = (proof.flush.context("a flush")?, proof.flush_in_window.context("a second flush")?);
    ensure!(flush.until_us() <= again.from_us && again.until_us() <= 0 && flush.took_us > 0, "{flush:?} {again:?}");
    ensure!(proof.began_boottime_us > 0 && hold.expedited_restored, "{proof:?}");
    ensure!(hold.expedited_us <= hold.release_us, "the switch was on for longer than the freeze: {hold:?}");
    ensure!(proof.members.len() == set.shadows.len(), "{proof:?}");
    for (member, shadow) in proof.members.iter().zip(&set.shadows) {
        ensure!((member.shadow_id, &member.volume) == (shadow.id, &shadow.volume), "{member:?}");
        member_is_in_order(proof, member, shadow.cut_at)?;
    }
    ensure!(proof.all_cut_in_one_hold() && set.atomic, "{set:?}");
    ensure!(set.hold_ms == hold.thawed_us.div_ceil(1000), "{} ms, {hold:?}", set.hold_ms);
    Ok(proof)
}

#[test]
fn a_mixed_set_keeps_its_proof() -> anyhow::Result<()> {
    if LoopFs::skips("a_mixed_set_keeps_its_proof", &[Kind::Ext4, Kind::Xfs, Kind::Btrfs]) {
        return Ok(());
    }
    let ext4 = BusyVolume::new(Kind::Ext4, 32)?;
    let btrfs = LoopFs::new(Kind::Btrfs, 128)?;
    let xfs = BusyVolume::new(Kind::Xfs, 320)?;
    let mut instance = with_fake()?;
    let _turn = creation_turn();
    // The one that is not held stands between the others: each must find its own answers.
    let set = set_of(&instance, &[(ext4.path(), "fake"), (btrfs.path(), "btrfs"), (xfs.path(), "fake")])?;
    let proof = is_in_order(&set)?.clone();
    let held: Vec<(bool, Option<u8>)> = proof.members.iter().map(|member| (member.held, member.level)).collect();
    ensure!(held == [(true, Some(0)), (false, None), (true, Some(0))], "{held:?}");
    let writable = std::fs::OpenOptions::new().write(true).open("/sys/kernel/rcu_expedited").is_ok();
    let hold = proof.hold.as_ref().context("a hold")?;
    println!("held {} us, rcu_expedited {} for {} us", hold.thawed_us, hold.expedited, hold.expedited_us);
    ensure!(!hold.expedited || writable, "{hold:?}");

    let id = set.set_id.to_string();
    let shown = instance.vss(["show", &id])?;
    println!("{}", shown.stdout);
    for part in
        ["first freeze begins", "all are frozen", "release is asked for", "flush once more", "level 0", "not held"]
    {
        ensure!(shown.stdout.contains(part), "{part}: {}", shown.stdout);
    }
    let document = instance.vss(["show", &id, "--json"])?.json()?;
    ensure!(serde_json::from_value::<HoldProof>(document["proof"].clone())? == proof, "{document}");

    // It is kept, also when a copy of the set is deleted, over a restart of the service.
    instance.vss(["delete", &set.shadows[0].id.to_string()])?;
    instance.stop()?;
    instance.start()?;
    let kept = instance.management()?.set(set.set_id)?;
    ensure!(kept.proof == Some(proof) && kept.shadows.len() == 2, "{kept:?}");
    instance.vss(["delete", "--all"])?;
    traces::has_no_markers(&instance)
}

#[test]
fn nested_volumes_are_proven_level_by_level() -> anyhow::Result<()> {
    if LoopFs::skips("nested_volumes_are_proven_level_by_level", &[Kind::Ext4, Kind::Xfs]) {
        return Ok(());
    }
    let outer = LoopFs::new(Kind::Xfs, 400)?;
    {
        let inner = BusyVolume::of(LoopFs::new_in(outer.path(), Kind::Ext4, 32)?)?;
        let instance = with_fake()?;
        let _turn = creation_turn();
        let set = set_of(&instance, &[(outer.path(), "fake"), (inner.path(), "fake")])?;
        let [outer, inner] = &is_in_order(&set)?.members[..] else { anyhow::bail!("two members: {set:?}") };
        ensure!((outer.level, inner.level) == (Some(1), Some(0)), "{set:?}");
        let (Some(first), Some(then)) = (inner.freeze, outer.freeze) else { anyhow::bail!("{set:?}") };
        ensure!(first.until_us() <= then.from_us, "the inner level is frozen first: {first:?} {then:?}");
        let (Some(first), Some(then)) = (outer.thaw, inner.thaw) else { anyhow::bail!("{set:?}") };
        ensure!(first.from_us <= then.from_us, "the outer level is thawed first: {first:?} {then:?}");
        instance.vss(["delete", "--all"])?;
    }
    Ok(())
}

#[test]
fn without_a_hold_the_cuts_are_proven() -> anyhow::Result<()> {
    if LoopFs::skips("without_a_hold_the_cuts_are_proven", &[Kind::Btrfs]) {
        return Ok(());
    }
    let btrfs = LoopFs::new(Kind::Btrfs, 128)?;
    let mut instance = Instance::new()?;
    instance.start()?;
    let _turn = creation_turn();
    let set = set_of(&instance, &[(btrfs.path(), "btrfs")])?;
    let proof = set.proof.as_ref().context("a proof")?;
    ensure!(proof.hold.is_none() && proof.flush.is_some() && proof.flush_in_window.is_none(), "{proof:?}");
    let [member] = &proof.members[..] else { anyhow::bail!("one member: {proof:?}") };
    ensure!(!member.held && member.answers.is_empty() && member.commit.from_us == 0, "{member:?}");
    let (from, until) = (proof.began_at, proof.began_at.after_us(member.commit.until_us()));
    let cut = member.cut_at;
    ensure!(from.after_us(-WALL_SLACK_US) <= cut && cut <= until.after_us(WALL_SLACK_US), "{proof:?}");
    ensure!(set.hold_ms == 0 && set.atomic, "{set:?}");
    instance.vss(["delete", "--all"])?;
    Ok(())
}
