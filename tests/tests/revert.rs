//! Volumes that are put back to a copy: whole, broken off and gone on with, and refused where they are in use.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::fs::OFlags;
use vss_tests::blocks::{Copied, are_equal, name};
use vss_tests::instance::{Instance, wait_until};
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::scale::rounds;
use vss_tests::tracing;
use vss_tests::turn::creation_turn;
use vss_tests::volume::Volume;

/// A revert of 48 MiB goes on by itself and ends in so long.
const LIMIT: Duration = Duration::from_secs(30);

/// A volume with one copy, most of which was written over since.
fn changed() -> anyhow::Result<(Copied, String)> {
    let copied = Copied::new()?;
    copied.fill("old", 20)?;
    let id = copied.copy()?;
    for number in 0..20 {
        fs::remove_file(copied.volume.path().join(format!("old-{number}")))?;
    }
    copied.fill("new", 25)?;
    Ok((copied, id))
}

/// Past what is cached of the device.
fn device_is(copied: &Copied, id: &str) -> anyhow::Result<()> {
    rustix::fs::syncfs(fs::File::open(copied.volume.image())?)?;
    are_equal(copied.volume.image(), &copied.image(id))
}

#[test]
fn a_volume_becomes_what_it_was_and_its_newer_copies_stay() -> anyhow::Result<()> {
    if LoopFs::skips("a_volume_becomes_what_it_was_and_its_newer_copies_stay", &[Kind::Ext4]) {
        return Ok(());
    }
    let (copied, id) = changed()?;
    let newer = copied.copy()?;
    let place = name(copied.volume.path())?.to_owned();
    copied.fails(&["revert", &id, "--yes"], &["VSS_E_VOLUME_IN_USE", &format!("mounted at {place}"), "umount"])?;
    ensure!(copied.volume.path().join("new-0").exists());
    copied.volume.unmount()?;
    copied.fails(&["revert", &id], &["E_INVALIDARG", "--yes"])?;
    copied.fails(&["revert", &id, "--give-up"], &["VSS_E_OBJECT_NOT_FOUND"])?;

    // Somebody who is not seen in the mount table.
    let exclusive = OFlags::EXCL.bits().cast_signed();
    let claim = OpenOptions::new().read(true).custom_flags(exclusive).open(copied.volume.device())?;
    copied.fails(&["revert", &id, "--yes"], &["VSS_E_VOLUME_IN_USE"])?;
    drop(claim);

    let said = copied.done(&["revert", &id, "--yes"])?;
    ensure!(said.contains("were written back"), "{said}");
    device_is(&copied, &id)?;
    copied.volume.mount()?;
    ensure!(copied.volume.path().join("old-19").exists() && !copied.volume.path().join("new-0").exists());
    let shown = copied.place("shown");
    fs::create_dir(&shown)?;
    copied.done(&["expose", &newer, name(&shown)?])?;
    ensure!(shown.join("new-24").exists(), "the newer copy is lost");
    copied.done(&["unexpose", name(&shown)?])?;
    copied.volume.check()?;

    // And forward again.
    copied.volume.unmount()?;
    copied.done(&["revert", &newer, "--yes"])?;
    device_is(&copied, &newer)?;
    copied.volume.mount()?;
    ensure!(copied.volume.path().join("new-24").exists());
    copied.done(&["delete", "--all"])?;
    Ok(())
}

#[test]
fn a_revert_that_is_killed_goes_on_at_the_next_start() -> anyhow::Result<()> {
    if LoopFs::skips("a_revert_that_is_killed_goes_on_at_the_next_start", &[Kind::Ext4]) {
        return Ok(());
    }
    let (mut copied, id) = changed()?;
    let latest = copied.copy()?;
    copied.volume.unmount()?;
    let (mut half, mut round) = (0, 0);
    let count = rounds(8, 100);
    // The later chunks of a revert of some 100 ms too; sooner where it is faster.
    let mut span_us = 150_000;
    // Until one was killed half way.
    while round < count || half == 0 && round < 5 * count {
        let (from, to) = if round % 2 == 0 { (&latest, &id) } else { (&id, &latest) };
        // One chunk after the other.
        let delay_us = u64::from(round % count) * span_us / u64::from(count);
        copied.instance.set("VSS_FAULT", format!("revert:kill-service+{delay_us}"));
        copied.start()?;
        let broken = copied.vss(&["revert", to, "--yes"])?;
        copied.instance.kill()?;
        let is_begun = are_equal(copied.volume.image(), &copied.image(from)).is_err();
        let is_ended = device_is(&copied, to).is_ok();
        half += u32::from(is_begun && !is_ended);
        if is_ended {
            span_us = 1000.max(span_us * 3 / 4);
        }
        ensure!(broken.is_success() || broken.stderr.contains("goes on"), "{broken:?}");
        copied.instance.unset("VSS_FAULT");
        copied.start()?;
        let is_over = wait_until(LIMIT, || device_is(&copied, to).is_ok());
        ensure!(is_over, "round {round}, killed after {delay_us} us: not the copy\n{}", copied.instance.log());
        // The same command once more ends in the same, whatever was left to do.
        let again = || copied.vss(&["revert", to, "--yes"]);
        ensure!(wait_until(LIMIT, || again().is_ok_and(|again| again.is_success())), "{:?}", again()?);
        copied.instance.stop()?;
        round += 1;
    }
    println!("{half} of {round} reverts were killed half way");
    ensure!(half > 0, "no revert was killed half way");
    copied.volume.mount()?;
    copied.volume.check()
}

#[test]
fn what_is_half_reverted_is_kept_from_harm() -> anyhow::Result<()> {
    if LoopFs::skips("what_is_half_reverted_is_kept_from_harm", &[Kind::Ext4]) {
        return Ok(());
    }
    let (mut copied, id) = changed()?;
    let other = copied.copy()?;
    copied.volume.unmount()?;
    copied.instance.set("VSS_FAULT", "revert:kill-service");
    copied.start()?;
    ensure!(!copied.vss(&["revert", &id, "--yes"])?.is_success());
    copied.instance.kill()?;
    copied.instance.unset("VSS_FAULT");

    // It cannot go on: the volume is mounted again, as after a reboot.
    copied.volume.mount()?;
    copied.start()?;
    let said = || copied.instance.log().contains("a revert cannot go on");
    ensure!(wait_until(LIMIT, said), "{}", copied.instance.log());
    copied.fails(&["delete", &id], &["VSS_E_REVERT_IN_PROGRESS", &format!("vss revert {id}")])?;
    copied.fails(&["revert", &other, "--yes"], &["VSS_E_REVERT_IN_PROGRESS"])?;
    {
        let _turn = creation_turn();
        let words = ["create", name(copied.volume.path())?, "--provider", "block-copy"];
        copied.fails(&words, &["VSS_E_REVERT_IN_PROGRESS"])?;
    }
    copied.fails(&["revert", &id, "--yes"], &["VSS_E_VOLUME_IN_USE", "mounted at"])?;
    copied.volume.unmount()?;
    copied.done(&["revert", &id, "--yes"])?;
    device_is(&copied, &id)?;
    copied.done(&["delete", &other])?;

    // The same once more, given up.
    copied.instance.stop()?;
    copied.instance.set("VSS_FAULT", "revert:kill-service");
    copied.start()?;
    ensure!(!copied.vss(&["revert", &id, "--yes"])?.is_success());
    copied.instance.kill()?;
    copied.instance.unset("VSS_FAULT");
    copied.volume.mount()?;
    copied.start()?;
    ensure!(wait_until(LIMIT, || copied.instance.log().matches("a revert cannot go on").count() == 2));
    let said = copied.done(&["revert", &id, "--give-up"])?;
    ensure!(said.contains("given up"), "{said}");
    copied.done(&["delete", &id])?;
    copied.instance.stop()?;
    copied.volume.check()
}

#[test]
fn what_cannot_be_reverted_is_refused_with_a_way_out() -> anyhow::Result<()> {
    if LoopFs::skips("what_cannot_be_reverted_is_refused_with_a_way_out", &[Kind::Ext4, Kind::Btrfs]) {
        return Ok(());
    }
    let copied = Copied::new()?;
    let passing = copied.copy_with(&[])?;
    copied.volume.unmount()?;
    copied.fails(&["revert", &passing, "--yes"], &["VSS_E_UNSUPPORTED_CONTEXT", "--persistent"])?;
    copied.fails(&["revert", "b5946137-7b9f-4925-af80-51abd60b20d5", "--yes"], &["VSS_E_OBJECT_NOT_FOUND"])?;
    copied.volume.mount()?;

    let btrfs = Volume::new()?;
    let made = {
        let _turn = creation_turn();
        copied.vss(&["create", btrfs.name(), "--persistent", "--json"])?.json()?
    };
    let id = made["shadows"][0]["id"].as_str().context("an id")?;
    copied.fails(&["revert", id, "--yes"], &["E_NOTIMPL", "vss expose"])?;
    let stream = copied.place("stream");
    copied.fails(&["export", id, "-o", name(&stream)?], &["VSS_E_NOT_SUPPORTED"])?;
    ensure!(!stream.exists() && !Path::new(&format!("{}.part", stream.display())).exists());
    copied.fails(&["diff", id, &passing, "--blocks"], &["E_INVALIDARG"])?;
    copied.done(&["delete", "--all"])?;
    Ok(())
}

/// An ext4 of which the mirror has a persistent copy.
struct Mirrored {
    instance: Instance,
    volume: LoopFs,
    _storage: LoopFs,
    id: String,
}

impl Mirrored {
    fn new() -> anyhow::Result<Self> {
        let (volume, storage) = (LoopFs::new(Kind::Ext4, 64)?, LoopFs::new(Kind::Xfs, 600)?);
        let mut instance = Instance::new()?;
        instance.settings(&format!(
            "[providers.mirror]\nstorage = {:?}\nmin_free_bytes = 1048576\nmax_hold_ms = 8000\n",
            storage.path()
        ))?;
        fs::write(volume.path().join("file"), "old")?;
        instance.start()?;
        let id = Self::copy(&instance, &volume)?;
        instance.stop()?;
        Ok(Self { instance, volume, _storage: storage, id })
    }

    fn copy(instance: &Instance, volume: &LoopFs) -> anyhow::Result<String> {
        let _turn = creation_turn();
        let words = ["create", name(volume.path())?, "--provider", "mirror", "--persistent", "--json"];
        Ok(instance.vss(words)?.json()?["shadows"][0]["id"].as_str().context("an id")?.to_owned())
    }

    /// Lets a revert be killed when it has begun, and then `act` be done with the mounted volume. Whatever that is, the volume
    /// is not mounted when the service starts again.
    fn break_off(&mut self, act: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
        fs::write(self.volume.path().join("file"), "new")?;
        self.volume.unmount()?;
        self.instance.set("VSS_FAULT", "revert:kill-service");
        self.instance.start()?;
        ensure!(!self.instance.vss(["revert", &self.id, "--yes"])?.is_success());
        self.instance.kill()?;
        self.instance.unset("VSS_FAULT");
        self.volume.mount()?;
        act(self.volume.path())?;
        self.volume.unmount()?;
        self.instance.start()
    }

    fn done(&self, words: &[&str]) -> anyhow::Result<()> {
        let outcome = self.instance.vss(words)?;
        ensure!(outcome.is_success(), "vss {words:?}: {outcome:?}");
        Ok(())
    }
}

#[test]
fn a_volume_that_was_used_since_its_revert_broke_off_is_put_back_only_when_asked() -> anyhow::Result<()> {
    let test = "a_volume_that_was_used_since_its_revert_broke_off_is_put_back_only_when_asked";
    if tracing::skips(test, &[Kind::Ext4, Kind::Xfs]) {
        return Ok(());
    }
    let mut mirrored = Mirrored::new()?;
    for (count, way) in ["revert", "give up"].into_iter().enumerate() {
        mirrored.break_off(|top| Ok(fs::write(top.join("precious"), "")?))?;
        let said = || mirrored.instance.log().matches("does not go on by itself").count() > count;
        ensure!(wait_until(LIMIT, said), "{}", mirrored.instance.log());
        mirrored.volume.mount()?;
        ensure!(mirrored.volume.path().join("precious").exists(), "it was put back unasked");
        let refused = {
            let _turn = creation_turn();
            mirrored.instance.vss(["create", name(mirrored.volume.path())?, "--provider", "mirror"])?
        };
        ensure!(refused.stderr.contains("VSS_E_REVERT_IN_PROGRESS"), "{refused:?}");
        mirrored.volume.unmount()?;
        if way == "revert" {
            mirrored.done(&["revert", &mirrored.id, "--yes"])?;
            mirrored.volume.mount()?;
            ensure!(fs::read_to_string(mirrored.volume.path().join("file"))? == "old");
            ensure!(!mirrored.volume.path().join("precious").exists());
        } else {
            mirrored.done(&["revert", &mirrored.id, "--give-up"])?;
            mirrored.volume.mount()?;
            // Nothing is in the way of copies any more.
            let next = Mirrored::copy(&mirrored.instance, &mirrored.volume)?;
            mirrored.done(&["delete", &next])?;
        }
        mirrored.instance.stop()?;
    }
    mirrored.volume.check()
}
