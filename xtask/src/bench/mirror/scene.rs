//! A volume of 4 GiB, nearly full, a place for its images, and a service as it is shipped.

use crate::bench::service::Service;
use crate::house;
use crate::interrupt::Interrupt;
use crate::volume::{Kind, Volume};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vss_model::{CreationOptions, HoldProof, Progress};
use vss_requester::{Backup, BackupRequest, CopyProgress, Lifetime, Monitor, Requester};

const VOLUME_MIB: u64 = 4096;
/// Room for the mirror, and for what dd writes.
const STORAGE_MIB: u64 = 9 << 10;
/// Of the file that is written to while a hold is measured.
pub(super) const HOT_MIB: u64 = 1024;
/// Of the file that is written once, and 1 % of the volume of it again.
pub(super) const STILL_MIB: u64 = 2500;
/// One hundredth of the volume, in MiB.
pub(super) const CHANGED_MIB: u64 = 41;

/// Volumes and service. Dropping it takes all away, but for the tracer, which [`Scene::forget`] removes.
pub(super) struct Scene {
    service: Service,
    volume: Volume,
    storage: Volume,
    _directory: TempDir,
}

/// A copy that was made, and deleted again.
pub(super) struct Made {
    /// From the connection to the finished set.
    pub(super) took: Duration,
    /// What was done in the window.
    pub(super) proof: HoldProof,
    /// What was said last of the first round.
    pub(super) first_round: Option<Progress>,
}

#[derive(Default)]
struct Heard(Option<Progress>);

impl Monitor for Heard {
    fn copying(&mut self, copying: &CopyProgress) {
        if copying.progress.round == 1 {
            self.0 = Some(copying.progress);
        }
    }
}

impl Scene {
    pub(super) fn set_up(programs: &Path, interrupt: &Interrupt) -> Result<Self> {
        let directory = TempDir::with_prefix_in("vss-bench-", house::scratch())?;
        let place = |name: &str| directory.path().join(name);
        let volume = Volume::create_of(Kind::Ext4, &place("volume"), VOLUME_MIB, interrupt)?;
        let storage = Volume::create_of(Kind::Xfs, &place("storage"), STORAGE_MIB, interrupt)?;
        for (name, mib) in [("still", STILL_MIB), ("hot", HOT_MIB)] {
            let mut fio = Self::fio(&volume.path().join(name), mib);
            interrupt.output(fio.args(["--rw=write", "--bs=1M", "--ioengine=psync"]))?;
        }
        volume.settle()?;
        let service = Service::start(programs, directory.path(), interrupt)?;
        Ok(Self { service, volume, storage, _directory: directory })
    }

    /// fio(1) past the page cache on a file of `mib` MiB, without the way of writing.
    pub(super) fn fio(file: &Path, mib: u64) -> Command {
        let mut command = Command::new("fio");
        command.args(["--name=load", "--thread", "--direct=1", "--randrepeat=0"]);
        command.arg(format!("--filename={}", file.display())).arg(format!("--size={mib}M"));
        command
    }

    pub(super) fn volume(&self) -> &Volume {
        &self.volume
    }

    pub(super) fn storage(&self) -> &Volume {
        &self.storage
    }

    /// The file that is written once, and a part of it again.
    pub(super) fn still(&self) -> PathBuf {
        self.volume.path().join("still")
    }

    /// Makes a copy, and deletes it.
    pub(super) fn copy(&self, interrupt: &Interrupt) -> Result<Made> {
        let paths = [self.volume.path().to_owned()];
        let request = BackupRequest {
            provider: Some("mirror".to_owned()),
            options: CreationOptions { storage: Some(self.storage.path().to_owned()), ..CreationOptions::default() },
            ..BackupRequest::of_paths("bench", Lifetime::UntilReboot, &paths)?
        };
        let mut heard = Heard::default();
        let began = Instant::now();
        let requester = Requester::connect(&self.service.instance())?;
        let backup = Backup::create(requester, &request, &mut heard)?;
        let took = began.elapsed();
        let (set_id, proof) = (backup.set().set_id, backup.set().proof.clone());
        drop(backup);
        interrupt.output(&mut self.service.vss(&["delete", "--set", &set_id.to_string()]))?;
        Ok(Made { took, proof: proof.context("the set has no proof")?, first_round: heard.0 })
    }

    /// Removes the mirror: the next copy is a first one.
    pub(super) fn forget(&self, interrupt: &Interrupt) -> Result<()> {
        interrupt.output(&mut self.service.vss(&["storage", "remove", "--all"])).map(drop)
    }

    /// One number of the statistics of the volume's device (Documentation/block/stat.rst): 2 sectors read, 6 sectors written.
    pub(super) fn sectors(&self, column: usize) -> Result<u64> {
        let text = std::fs::read_to_string(self.of_device("stat")?)?;
        Ok(text.split_whitespace().nth(column).context("no such number")?.parse()?)
    }

    /// The file that says how many sectors the device has.
    pub(super) fn size_file(&self) -> Result<PathBuf> {
        self.of_device("size")
    }

    fn of_device(&self, file: &str) -> Result<PathBuf> {
        let name = self.volume.device().file_name().context("a device has a name")?;
        Ok(Path::new("/sys/class/block").join(name).join(file))
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Its tracer would outlive everything.
        let mut remove = self.service.vss(&["storage", "remove", "--all"]);
        if let Err(error) = remove.stdout(std::process::Stdio::null()).status() {
            eprintln!("xtask: {error}");
        }
    }
}
