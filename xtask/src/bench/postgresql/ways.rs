//! The ways to cut a cluster's volume under load, on one stage.

use crate::bench::service::Service;
use crate::house;
use crate::interrupt::Interrupt;
use crate::volume::Volume;
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::fs::Permissions;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use vss_lab::postgresql::Cluster;
use vss_lab::postgresql::load::{self, Load, Log};

/// Size of the volume; its file is sparse.
const VOLUME_GIB: u64 = 8;
/// pgbench's scale: a million accounts, 150 MB.
const SCALE: u32 = 10;
/// Clients of pgbench.
const CLIENTS: u32 = 8;
/// The load runs for so long before the first cut.
const WARM_UP: Duration = Duration::from_secs(10);
/// No checkpoint but those that a way asks for.
const SETTINGS: [(&str, &str); 3] =
    [("max_wal_size", "16GB"), ("checkpoint_timeout", "1h"), ("shared_buffers", "256MB")];
/// The snapshot of every way but ours.
const SNAPSHOT: &str = "snapshot";

/// A way to make a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Way {
    /// None is made.
    None,
    /// `btrfs subvolume snapshot`, and nothing else.
    Snapshot,
    /// `CHECKPOINT`, then that: what any way costs at least that asks for one.
    Checkpoint,
    /// As in many a script: `pg_backup_start`, that, `pg_backup_stop`.
    Script,
    /// `vss create` with the PostgreSQL writer.
    VssCreate,
}

impl Way {
    /// All of them.
    pub(super) const ALL: [Self; 5] = [Self::None, Self::Snapshot, Self::Checkpoint, Self::Script, Self::VssCreate];

    /// For people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "no snapshot",
            Self::Snapshot => "bare snapshot",
            Self::Checkpoint => "CHECKPOINT, snapshot",
            Self::Script => "pg_backup_start script",
            Self::VssCreate => "vss create",
        }
    }
}

/// What a cut has left on the volume.
#[derive(Debug)]
pub(super) enum Left {
    Nothing,
    Snapshot,
    /// A set, by its id.
    Set(String),
}

/// A cluster under load on a volume, and a service with its writers.
#[derive(Debug)]
pub(super) struct Bench {
    load: Load,
    service: Service,
    cluster: Cluster,
    volume: Volume,
    directory: TempDir,
}

impl Bench {
    pub(super) fn set_up(programs: &Path, interrupt: &Interrupt) -> Result<Self> {
        let directory = TempDir::with_prefix_in("vss-bench-", house::scratch())?;
        // A server does not run as root.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
        let volume = Volume::create(&directory.path().join("volume"), VOLUME_GIB, interrupt)?;
        let mut cluster = Cluster::create(&volume.path().join("postgresql"), &SETTINGS)?;
        cluster.start()?;
        load::prepare(&cluster, SCALE, None)?;
        volume.settle()?;
        let mut service = Service::start(programs, directory.path(), interrupt)?;
        service.start_writers(interrupt)?;
        let load = Load::start(&cluster, CLIENTS)?;
        interrupt.sleep(WARM_UP)?;
        Ok(Self { load, service, cluster, volume, directory })
    }

    /// Makes a cut.
    pub(super) fn cut(&self, way: Way, interrupt: &Interrupt) -> Result<Left> {
        match way {
            Way::None => return Ok(Left::Nothing),
            Way::Snapshot => self.snapshot(interrupt)?,
            Way::Checkpoint => {
                self.cluster.sql("postgres", "CHECKPOINT")?;
                self.snapshot(interrupt)?;
            }
            Way::Script => {
                let mut session = self.cluster.session("postgres")?;
                session.ask("SELECT pg_backup_start('bench', fast => true)")?;
                self.snapshot(interrupt)?;
                let label = session.ask("SELECT labelfile FROM pg_backup_stop(wait_for_archive => false)")?;
                ensure!(label.contains("START WAL LOCATION"), "no backup_label: {label}");
            }
            Way::VssCreate => {
                let set = self.service.create(self.volume.path(), interrupt)?;
                ensure!(set["consistency"] == "application", "the writer was not asked: {set}");
                return Ok(Left::Set(set["set_id"].as_str().context("vss create says no set_id")?.to_owned()));
            }
        }
        Ok(Left::Snapshot)
    }

    fn snapshot(&self, interrupt: &Interrupt) -> Result<()> {
        let (volume, target) = (self.volume.path(), self.volume.path().join(SNAPSHOT));
        let mut command = Command::new("btrfs");
        interrupt.output(command.args(["subvolume", "snapshot", "-r"]).args([volume, &target])).map(drop)
    }

    /// Removes what a cut has left, for good: what is deleted in the background is not to disturb the next.
    pub(super) fn remove(&self, left: Left, interrupt: &Interrupt) -> Result<()> {
        match left {
            Left::Nothing => return Ok(()),
            Left::Snapshot => {
                let target = self.volume.path().join(SNAPSHOT);
                interrupt.output(Command::new("btrfs").args(["subvolume", "delete"]).arg(target))?;
            }
            Left::Set(id) => drop(interrupt.output(&mut self.service.vss(&["delete", "--set", &id]))?),
        }
        Ok(vss_linux::btrfs::commit_transaction(File::open(self.volume.path())?)?)
    }

    /// Ends everything, and returns what pgbench was told.
    pub(super) fn tear_down(self) -> Result<Log> {
        let Self { load, mut service, cluster, volume, directory } = self;
        let log = load.finish()?;
        service.end()?;
        drop(cluster);
        drop(volume);
        directory.close()?;
        Ok(log)
    }
}
