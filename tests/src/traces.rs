//! What a set leaves behind, and what it must not: copies, markers, mounts, processes, frozen file systems.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use vss_lab::providers::strays;
use vss_provider::store;

use crate::instance::{Instance, wait_until};
use crate::load::Load;
use crate::loopfs::{Kind, LoopFs};

/// Whatever happened, so long after it nothing is frozen.
pub const LIMIT: Duration = Duration::from_secs(10);

/// A volume that a program keeps writing to.
#[derive(Debug)]
pub struct BusyVolume {
    load: Load,
    volume: LoopFs,
    /// The subvolumes that are the test's.
    nested: Vec<String>,
}

impl BusyVolume {
    /// A new volume.
    ///
    /// # Errors
    /// See [`LoopFs::new`].
    pub fn new(kind: Kind, size_mib: u64) -> anyhow::Result<Self> {
        Self::of(LoopFs::new(kind, size_mib)?)
    }

    /// This volume.
    ///
    /// # Errors
    /// The file that is written to cannot be created.
    pub fn of(volume: LoopFs) -> anyhow::Result<Self> {
        let load = Load::start(volume.path())?;
        Ok(Self { load, volume, nested: Vec::new() })
    }

    /// The same volume, of btrfs, with a nested subvolume.
    ///
    /// # Errors
    /// `btrfs subvolume create` fails.
    pub fn with_nested(mut self) -> anyhow::Result<Self> {
        let made = Command::new("btrfs").args(["subvolume", "create"]).arg(self.path().join("nested")).output()?;
        if !made.status.success() {
            bail!("{}", String::from_utf8_lossy(&made.stderr));
        }
        self.nested.push("nested".to_owned());
        Ok(self)
    }

    /// Ends the writing.
    ///
    /// # Errors
    /// A write failed since the start.
    pub fn stop(self) -> anyhow::Result<LoopFs> {
        let path = self.volume.path().display().to_string();
        self.load.stop().with_context(|| format!("a write to {path} failed"))?;
        Ok(self.volume)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.volume.path()
    }

    /// The volume itself.
    #[must_use]
    pub fn volume(&self) -> &LoopFs {
        &self.volume
    }

    /// Waits until a write with fsync that begins now is through, and returns the longest of all since the last call.
    ///
    /// # Errors
    /// It is not through in 10 s, or one took 15 s: 10 s of hold and what a slow disk takes.
    pub fn writes_flow(&self) -> anyhow::Result<Duration> {
        let before = self.load.writes();
        // The first that ends may have begun before.
        if !wait_until(LIMIT, || self.load.writes() >= before + 2) {
            bail!("{} is frozen still after {LIMIT:?}", self.path().display());
        }
        let longest = self.load.take().longest_stall;
        if longest > LIMIT + Duration::from_secs(5) {
            bail!("{}: a write took {longest:?}", self.path().display());
        }
        Ok(longest)
    }

    /// The subvolumes other than the volume itself.
    ///
    /// # Errors
    /// `btrfs subvolume list` fails.
    pub fn subvolumes(&self) -> anyhow::Result<Vec<String>> {
        let listed = Command::new("btrfs").args(["subvolume", "list"]).arg(self.path()).output()?;
        if !listed.status.success() {
            bail!("{}", String::from_utf8_lossy(&listed.stderr));
        }
        let lines = String::from_utf8(listed.stdout)?;
        Ok(lines.lines().filter_map(|line| Some(line.split_once(" path ")?.1.to_owned())).collect())
    }

    /// Checks that a btrfs volume has the test's subvolumes, and nothing of ours.
    ///
    /// # Errors
    /// What is there.
    pub fn has_no_copies(&self) -> anyhow::Result<()> {
        let subvolumes = self.subvolumes()?;
        if subvolumes != self.nested {
            bail!("subvolumes are left: {subvolumes:?}");
        }
        if self.path().join(".vss").exists() {
            bail!("the directory .vss is left");
        }
        Ok(())
    }
}

/// The store of an instance's fake provider, for `VSS_FAKE`.
#[must_use]
pub fn fake_store(instance: &Instance) -> PathBuf {
    instance.path().join("fake-store")
}

/// Checks that the fake provider has no copy.
///
/// # Errors
/// What is there.
pub fn has_no_markers(instance: &Instance) -> anyhow::Result<()> {
    let Ok(entries) = fs::read_dir(fake_store(instance)) else { return Ok(()) };
    let left: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    if left.is_empty() { Ok(()) } else { bail!("the fake provider's copies are left: {left:?}") }
}

/// Checks that nothing is mounted in the instance's directories, and that no copy is listed by a service that runs or is
/// started for it.
///
/// # Errors
/// What is there.
pub fn has_no_shadows(instance: &Instance) -> anyhow::Result<()> {
    let listed = instance.vss(["list", "shadows", "--json"])?.json()?;
    let shadows = listed["shadows"].as_array().context("no list")?;
    if !shadows.is_empty() {
        bail!("shadow copies are left: {shadows:?}");
    }
    let mounts = instance.mounts();
    if mounts.is_empty() { Ok(()) } else { bail!("mounts are left: {mounts:?}") }
}

/// Checks that no copy lies on, and no loop device shows a copy from, a file system on which providers keep copies.
///
/// # Errors
/// What is there.
pub fn has_no_stored_copies(place: &LoopFs) -> anyhow::Result<()> {
    let path = place.path();
    let stored: Vec<_> = match fs::read_dir(path.join(store::NAME)) {
        Ok(entries) => entries.flatten().map(|entry| entry.file_name()).collect(),
        Err(_) => Vec::new(),
    };
    ensure!(!path.join(store::NAME).exists(), "{} is left at {}: {stored:?}", store::NAME, path.display());
    let left = strays(&[path])?;
    ensure!(left.is_empty(), "loop devices of copies are left: {left:?}");
    Ok(())
}

/// Waits until no process of the instance is left.
///
/// # Errors
/// Which are left after 10 s.
pub fn has_no_processes(instance: &Instance) -> anyhow::Result<()> {
    if wait_until(LIMIT, || instance.processes().is_empty()) {
        Ok(())
    } else {
        bail!("processes are left: {:?}", instance.processes())
    }
}
