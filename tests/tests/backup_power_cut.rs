//! Power cuts while a backup is made and while it is put back: what is on the disk then is gone on with and ends right, and
//! nothing that is declared whole is not.
//!
//! The disk is an image on XFS, and a power cut is a clone of it: what the kernel has not written yet is lost, and what it
//! has written is there in its order. Journals are brought to the disk at such moments, by which names and times of files are
//! there whose contents are not.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use vss_linux::process::Signal;
use vss_tests::backups::{Scene, is_marked};
use vss_tests::instance::{Running, wait_until};
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::scale::rounds;
use vss_tests::trees::differences;
use vss_tests::turn::creation_turn;

/// A disk that loses its power, and what it has then.
struct Disk {
    kind: Kind,
    /// Before the one that its image lies on.
    file_system: LoopFs,
    outer: LoopFs,
    cuts: u32,
}

impl Disk {
    fn new(kind: Kind) -> anyhow::Result<Self> {
        let outer = LoopFs::new(Kind::Xfs, 1500)?;
        Ok(Self { kind, file_system: LoopFs::new_in(outer.path(), kind, 400)?, outer, cuts: 0 })
    }

    fn cut_image(&self, cut: u32) -> PathBuf {
        self.outer.path().join(format!("cut {cut}"))
    }

    /// What is left when the power goes now, just after the journal was written.
    fn cut(&mut self) -> anyhow::Result<()> {
        let mut pulse = File::create(self.file_system.path().join("pulse"))?;
        pulse.write_all(b"now")?;
        pulse.sync_all()?;
        let image = File::open(self.file_system.image())?;
        rustix::fs::ioctl_ficlone(File::create(self.cut_image(self.cuts))?, &image)?;
        self.cuts += 1;
        Ok(())
    }

    /// Cuts again and again from the time on when there is this file, until the program has ended. It stands still meanwhile:
    /// however slow a cut is, it is met at its work.
    fn cut_while(&mut self, mut running: Running, file: &Path) -> anyhow::Result<()> {
        let mut has_begun = || file.exists() || running.has_ended();
        ensure!(wait_until(Duration::from_secs(30), &mut has_begun), "it does not begin: {}", running.stderr()?);
        while !running.has_ended() && self.cuts < rounds(8, 60) {
            running.signal(Signal::STOP)?;
            let cut = self.cut();
            running.signal(Signal::CONT)?;
            cut?;
            thread::sleep(Duration::from_millis(10));
        }
        let outcome = running.finish()?;
        ensure!(outcome.is_success(), "{outcome:?}");
        self.cut()
    }

    /// Looks at what each of the cuts has left, the last one of a program that had ended.
    fn each(self, mut look: impl FnMut(&Path, bool) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let Self { kind, file_system, outer, cuts } = self;
        drop(file_system);
        for cut in 0..cuts {
            let left = LoopFs::existing(&outer.path().join(format!("cut {cut}")), kind)?;
            look(left.path(), cut + 1 == cuts).with_context(|| format!("cut {cut} of {cuts}"))?;
            left.check()?;
        }
        Ok(())
    }
}

/// True when nothing is in a directory, or there is none.
fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).map_or(true, |mut names| names.next().is_none())
}

fn a_restoration(kind: Kind) -> anyhow::Result<()> {
    let scene = Scene::new()?;
    ensure!(scene.back_up("full", &[])?.is_success());
    let full = scene.name("full")?;
    let mut disk = Disk::new(kind)?;
    let other = disk.file_system.path().join("other");
    let words = ["restore", "--from", &full, "--files-only", "--to", other.to_str().context("UTF-8")?];
    disk.cut_while(scene.instance.start_vss(words)?, &other)?;
    let mut half = 0;
    disk.each(|left, is_last| {
        let other = left.join("other");
        let restored = scene.data_in(&other)?;
        ensure!(!is_last || !is_marked(&other), "it had ended");
        // Right after it was made it is empty, and says nothing.
        if is_marked(&other) || is_empty(&other) {
            half += u32::from(restored.exists());
            let to = other.to_str().context("UTF-8")?;
            let again = scene.vss(&["restore", "--from", &full, "--files-only", "--to", to])?;
            ensure!(again.is_success() && !is_marked(&other), "{again:?}");
        }
        let differences = differences(&scene.data(), &restored)?;
        ensure!(differences.is_empty(), "{differences}");
        Ok(())
    })?;
    println!("{}: {half} cuts met a restoration that was half done", kind.name());
    ensure!(half > 0, "no cut met a restoration that was half done");
    Ok(())
}

#[test]
fn a_restoration_goes_on_after_a_power_cut() -> anyhow::Result<()> {
    if LoopFs::skips("a_restoration_goes_on_after_a_power_cut", &[Kind::Btrfs, Kind::Xfs, Kind::Ext4]) {
        return Ok(());
    }
    a_restoration(Kind::Ext4)?;
    a_restoration(Kind::Xfs)
}

fn a_backup(kind: Kind) -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let mut disk = Disk::new(kind)?;
    let to = disk.file_system.path().join("backup");
    let turn = creation_turn();
    let words = ["backup", "--volume", scene.volume.name(), "--to", to.to_str().context("UTF-8")?];
    let running = scene.instance.start_vss(words)?;
    disk.cut_while(running, &to.join("journal"))?;
    drop(turn);
    let mut half = 0;
    disk.each(|left, is_last| {
        let backup = left.join("backup");
        let to = backup.to_str().context("UTF-8")?;
        ensure!(!is_last || backup.join("complete").exists(), "it had ended");
        if !backup.join("complete").exists() {
            half += 1;
            let again = scene.vss(&["backup", "--volume", scene.volume.name(), "--to", to])?;
            ensure!(again.is_success(), "{again:?}");
        }
        let verified = scene.vss(&["verify", to])?;
        ensure!(verified.is_success(), "{verified:?}");
        let restored = scene.restored(to, "restored")?;
        let differences = differences(&scene.data(), &restored)?;
        ensure!(differences.is_empty(), "{differences}");
        Ok(fs::remove_dir_all(scene.at("restored"))?)
    })?;
    println!("{}: {half} cuts met a backup that was half done", kind.name());
    ensure!(half > 0, "no cut met a backup that was half done");
    Ok(())
}

#[test]
fn a_backup_goes_on_after_a_power_cut() -> anyhow::Result<()> {
    if LoopFs::skips("a_backup_goes_on_after_a_power_cut", &[Kind::Btrfs, Kind::Xfs, Kind::Ext4]) {
        return Ok(());
    }
    a_backup(Kind::Ext4)?;
    a_backup(Kind::Xfs)
}
