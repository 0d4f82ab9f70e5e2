//! A volume that the mirror provider copies, programs that write to it, and the judgement of an image: block for block the
//! volume at the instant of the hold, over all that is written in it by its own account (`image.rs`), and file for file.
//!
//! What the volume was in the hold is read a second time by the provider itself (`VSS_MIRROR_REFERENCE`). An image is judged
//! before its log is replayed: the service is stopped right before that.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, kill_process_group};
use serde_json::Value;
use tempfile::TempDir;
use vss_lab::postgresql::{Cluster, load};
use vss_linux::child::bind_to_parent;
use vss_linux::process::{PidFd, Signal};
use vss_linux::{fiemap, freeze};

use crate::image::{self, Image};
use crate::instance::{Instance, wait_until};
use crate::loopfs::{Kind, LoopFs};
use crate::tracing::{RawLoop, run};
use crate::turn::creation_turn;

/// So long may a mirror take until it is cut, on a busy machine.
const LIMIT: Duration = Duration::from_secs(80);
/// A load that is forgotten ends.
const LONGEST_LOAD: u32 = 900;

/// Where images lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// On another file system.
    Other(Kind),
    /// On the volume that is copied.
    Itself,
}

/// A mounted file system.
#[derive(Debug)]
pub struct Volume {
    kind: Kind,
    holder: Holder,
}

#[derive(Debug)]
enum Holder {
    Whole(LoopFs),
    Device { node: PathBuf, point: TempDir, _disk: Option<RawLoop> },
}

impl Volume {
    /// On a loop device.
    ///
    /// # Errors
    /// As [`RawLoop::new`].
    pub fn whole(kind: Kind, mib: u64) -> anyhow::Result<Self> {
        let disk = RawLoop::new(mib, &[])?;
        Self::made(kind, disk.path().to_owned(), Some(disk))
    }

    /// This one.
    #[must_use]
    pub fn of(kind: Kind, file_system: LoopFs) -> Self {
        Self { kind, holder: Holder::Whole(file_system) }
    }

    /// On a partition that neither begins nor ends with a block of 4 KiB of its disk.
    ///
    /// # Errors
    /// As [`RawLoop::new`].
    pub fn partition(kind: Kind, mib: u32) -> anyhow::Result<Self> {
        let disk = RawLoop::new(u64::from(mib) + 8, &[(2051, mib * 2048 - 3)])?;
        let node = disk.partition(1)?;
        Self::made(kind, node, Some(disk))
    }

    /// On a block device, whatever is on it.
    ///
    /// # Errors
    /// It cannot be made or mounted.
    pub fn on(kind: Kind, node: &Path) -> anyhow::Result<Self> {
        Self::made(kind, node.to_owned(), None)
    }

    fn made(kind: Kind, node: PathBuf, disk: Option<RawLoop>) -> anyhow::Result<Self> {
        let force = if kind == Kind::Ext4 { "-F" } else { "-f" };
        run(Command::new(format!("mkfs.{}", kind.name())).args(["-q", force]).arg(&node))?;
        let point = TempDir::with_prefix("vss-mirrored-")?;
        fs::set_permissions(point.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        mount(&node, point.path(), kind.name(), MountFlags::empty(), None)?;
        Ok(Self { kind, holder: Holder::Device { node, point, _disk: disk } })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        match &self.holder {
            Holder::Whole(whole) => whole.path(),
            Holder::Device { point, .. } => point.path(),
        }
    }

    /// Its block device.
    #[must_use]
    pub fn device(&self) -> &Path {
        match &self.holder {
            Holder::Whole(whole) => whole.device(),
            Holder::Device { node, .. } => node,
        }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if let Holder::Device { point, .. } = &self.holder {
            let _ = File::open(point.path()).map(freeze::thaw);
            let _ = unmount(point.path(), UnmountFlags::DETACH);
        }
    }
}

/// Programs that write to a volume. Dropping it ends them.
#[derive(Debug)]
pub struct Loads {
    children: Vec<Child>,
    pgbench: Option<load::Load>,
    cluster: Option<Cluster>,
}

impl Loads {
    /// fio(1) at random, through the page cache, past it, and mapped; stress-ng(1) `--hdd`; pgbench(1), when `pgbench`. The
    /// files of fio have `mib` MiB together.
    ///
    /// # Errors
    /// One of the programs is not there or fails.
    pub fn start(directory: &Path, mib: u64, pgbench: bool) -> anyhow::Result<Self> {
        let mut loads = Self { children: Vec::new(), pgbench: None, cluster: None };
        let files: [(&str, &[&str]); 3] = [
            ("random", &["--bs=4k", "--ioengine=psync", "--rate=6m"]),
            ("direct", &["--bsrange=4k-64k", "--direct=1", "--ioengine=libaio", "--iodepth=8", "--rate=8m"]),
            ("mapped", &["--bs=4k", "--ioengine=mmap", "--rate=3m"]),
        ];
        for (name, options) in files {
            let mut fio = Command::new("fio");
            fio.args(["--thread", "--name=load", "--rw=randwrite", "--randrepeat=0", "--time_based"]).args(options);
            fio.arg(format!("--runtime={LONGEST_LOAD}")).arg(format!("--size={}k", mib * 1024 / 3));
            fio.arg(format!("--filename={}", directory.join(name).display()));
            loads.spawn(&mut fio)?;
        }
        let stress = directory.join("stress");
        fs::create_dir(&stress)?;
        let mut hdd = Command::new("stress-ng");
        hdd.args(["--quiet", "--hdd", "1", "--hdd-bytes", "4m", "--timeout"]).arg(format!("{LONGEST_LOAD}s"));
        loads.spawn(hdd.arg("--temp-path").arg(stress))?;
        if pgbench {
            let mut cluster = Cluster::create(&directory.join("data"), &load::SETTINGS)?;
            cluster.start()?;
            load::prepare(&cluster, 1, None)?;
            loads.pgbench = Some(load::Load::start(&cluster, 2)?);
            loads.cluster = Some(cluster);
        }
        Ok(loads)
    }

    /// One of direct writes of single blocks, each once, to a file of so many MiB that is written through before.
    ///
    /// # Errors
    /// fio is not there or fails.
    pub fn direct_once(file: &Path, mib: u64) -> anyhow::Result<Self> {
        let mut loads = Self { children: Vec::new(), pgbench: None, cluster: None };
        let mut fio = Command::new("fio");
        fio.args(["--thread", "--name=load", "--rw=randwrite", "--randrepeat=0", "--bs=4k", "--direct=1"]);
        fio.args(["--ioengine=libaio", "--iodepth=16", "--fallocate=none"]);
        loads.spawn(fio.arg(format!("--size={mib}m")).arg(format!("--filename={}", file.display())))?;
        Ok(loads)
    }

    /// One of buffered writes of single blocks at random, so many MiB a second, to a file of so many MiB.
    ///
    /// # Errors
    /// fio is not there or fails.
    pub fn buffered(file: &Path, mib: u64, rate: u64) -> anyhow::Result<Self> {
        let mut loads = Self { children: Vec::new(), pgbench: None, cluster: None };
        let mut fio = Command::new("fio");
        fio.args(["--thread", "--name=load", "--rw=randwrite", "--randrepeat=0", "--bs=4k", "--ioengine=psync"]);
        fio.arg("--time_based").arg(format!("--runtime={LONGEST_LOAD}")).arg(format!("--rate={rate}m"));
        loads.spawn(fio.arg(format!("--size={mib}m")).arg(format!("--filename={}", file.display())))?;
        Ok(loads)
    }

    fn spawn(&mut self, command: &mut Command) -> anyhow::Result<()> {
        // A group of its own: some have children.
        bind_to_parent(command, Signal::TERM);
        let command = command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.children.push(command.spawn().with_context(|| format!("{command:?}"))?);
        Ok(())
    }

    /// Checks that all of them still write.
    ///
    /// # Errors
    /// One has ended.
    pub fn are_running(&mut self) -> anyhow::Result<()> {
        for child in &mut self.children {
            if let Some(status) = child.try_wait()? {
                bail!("a load has ended: {status}");
            }
        }
        ensure!(self.pgbench.as_ref().is_none_or(load::Load::is_running), "pgbench has ended");
        Ok(())
    }

    /// Ends them; the database has to be whole.
    ///
    /// # Errors
    /// A transaction has failed.
    pub fn finish(mut self) -> anyhow::Result<()> {
        self.are_running()?;
        self.pgbench.take().map_or(Ok(()), |pgbench| pgbench.finish().map(drop))
    }
}

impl Drop for Loads {
    fn drop(&mut self) {
        for child in &mut self.children {
            if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                // Fails when it has ended.
                let _ = kill_process_group(group, rustix::process::Signal::KILL);
            }
            let _ = child.wait();
        }
    }
}

/// A service whose mirrors of one volume are judged.
#[derive(Debug)]
pub struct Scene {
    /// The service.
    pub instance: Instance,
    /// More words for `vss create`.
    pub wishes: Vec<&'static str>,
    volume: Volume,
    storage: Option<LoopFs>,
}

/// A mirror that was judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// Chunks of the image that are written.
    pub written: u64,
    /// Those of them that are not what they were in the hold.
    pub wrong: Vec<u64>,
    /// How long writes were held, in milliseconds.
    pub hold_ms: u64,
}

impl Scene {
    /// A volume, and a place for its images.
    ///
    /// # Errors
    /// As [`LoopFs::new`].
    pub fn new(volume: Volume, storage: Storage) -> anyhow::Result<Self> {
        let mut instance = Instance::new()?;
        let storage = match storage {
            Storage::Other(kind) => Some(LoopFs::new(kind, 1200)?),
            Storage::Itself => None,
        };
        let place = storage.as_ref().map_or(volume.path(), LoopFs::path);
        // Holds may be long: the machine may be busy with other tests.
        instance.settings(&format!(
            "[providers.mirror]\nstorage = {place:?}\nmin_free_bytes = 1048576\nmax_hold_ms = 8000\n"
        ))?;
        let references = instance.path().join("references");
        fs::create_dir(&references)?;
        instance.set("VSS_MIRROR_REFERENCE", references);
        Ok(Self { instance, wishes: Vec::new(), volume, storage })
    }

    /// The volume.
    #[must_use]
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// Where its images lie.
    #[must_use]
    pub fn place(&self) -> &Path {
        self.storage.as_ref().map_or(self.volume.path(), LoopFs::path)
    }

    /// What lies in the store, sorted; none: there is no store.
    #[must_use]
    pub fn stored(&self) -> Option<Vec<String>> {
        let entries = fs::read_dir(self.place().join(".vss")).ok()?;
        let mut names: Vec<_> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        Some(names)
    }

    /// The words of `vss` that make a shadow copy of the volume.
    ///
    /// # Panics
    /// The directory for temporary files is not UTF-8.
    #[must_use]
    pub fn create(&self) -> Vec<&str> {
        let volume = self.volume.path().to_str().expect("a path in UTF-8");
        [&["create", "--json", "--provider", "mirror", volume], &self.wishes[..]].concat()
    }

    /// Makes a mirror, judges it, lets the file system's checker look at it when its log is replayed, and deletes it. The
    /// service is started before and stopped after, unless it runs.
    ///
    /// # Errors
    /// It is not made; the checker finds something.
    pub fn judged(&mut self) -> anyhow::Result<Judged> {
        self.instance.set("VSS_FAULT", "pre_final:stop-service");
        if self.instance.service_pid().is_none() {
            self.instance.start()?;
        }
        let pid = self.instance.service_pid().context("vssd does not run")?;
        let turn = creation_turn();
        // One of a creation that was broken off.
        for stale in fs::read_dir(self.instance.path().join("references"))? {
            fs::remove_file(stale?.path())?;
        }
        let mut create = self.instance.start_vss(self.create())?;
        let mut has_ended = false;
        let is_decided = wait_until(LIMIT, || {
            has_ended = create.has_ended();
            has_ended || is_stopped(pid)
        });
        let stopped = Stopped(pid);
        if has_ended || !is_decided {
            drop(stopped);
            bail!("no mirror: {:?}\n{}", create.finish(), self.instance.log());
        }
        let judged = self.judge();
        drop(stopped);
        let set = create.finish()?.json()?;
        drop(turn);
        let (written, wrong) = judged?;
        let id = set["shadows"][0]["id"].as_str().context("an id")?;
        self.check_image(&self.place().join(format!(".vss/{id}.image")))?;
        let deleted = self.instance.vss(["delete", id])?;
        ensure!(deleted.is_success(), "not deleted: {deleted:?}");
        let hold_ms = set["hold_ms"].as_u64().context("it was not held")?;
        Ok(Judged { written, wrong, hold_ms })
    }

    /// Compares the one image that was cut now with what the volume was in the hold.
    fn judge(&self) -> anyhow::Result<(u64, Vec<u64>)> {
        let references = self.instance.path().join("references");
        let found = fs::read_dir(&references)?.next().context("no reference was written")??.path();
        let name = found.file_stem().context("a name")?.to_string_lossy().into_owned();
        let image = self.place().join(format!(".vss/{name}.image"));
        let copy = Image::copy(self.volume.kind, &image)?;
        let mut unwritten = copy.unwritten();
        if let (None, Ok(unwritten)) = (&self.storage, &mut unwritten) {
            // What images lie in is not in an image.
            for file in self.stored().unwrap_or_default() {
                let pieces = fiemap::pieces(File::open(self.place().join(".vss").join(file))?)?;
                unwritten.extend(pieces.into_iter().filter_map(|piece| piece.physical));
            }
        }
        let reference = Image::of(self.volume.kind, &found);
        // One that is too damaged to be opened has blocks that differ.
        let written = Image::of(self.volume.kind, &image).used_but(unwritten.as_deref().unwrap_or_default())?;
        ensure!(written.count() > 500, "only {} chunks are written", written.count());
        let wrong = image::differing(&written, &image, &found)?;
        if wrong.is_empty() {
            unwritten?;
            copy.has_the_files_of(&reference)?;
        }
        fs::remove_file(&found)?;
        Ok((written.count(), wrong))
    }

    /// Its log is empty, or the service has replayed it.
    fn check_image(&self, image: &Path) -> anyhow::Result<()> {
        match self.volume.kind {
            Kind::Ext4 => run(Command::new("e2fsck").arg("-fn").arg(image)).map(drop),
            Kind::Xfs => run(Command::new("xfs_repair").args(["-n", "-f"]).arg(image)).map(drop),
            Kind::Btrfs => bail!("btrfs is not mirrored"),
        }
    }

    /// Lets the service remove what it keeps, and checks that nothing is left anywhere.
    ///
    /// # Errors
    /// What is left.
    pub fn end(&mut self) -> anyhow::Result<()> {
        if self.instance.service_pid().is_none() {
            self.instance.start()?;
        }
        let removed = self.instance.vss(["storage", "remove", "--all"])?;
        ensure!(removed.is_success(), "not removed: {removed:?}");
        ensure!(self.stored().is_none(), "files are left: {:?}", self.stored());
        let left = self.instance.tracers();
        ensure!(left.is_empty(), "tracers are left: {left:?}");
        let kept: Value = self.instance.vss(["storage", "list", "--json"])?.json()?;
        ensure!(kept["storage"].as_array().is_some_and(Vec::is_empty), "{kept}");
        Ok(())
    }
}

/// A service that is stopped goes on when this is dropped.
struct Stopped(u32);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = PidFd::open(self.0).and_then(|process| process.signal(Signal::CONT));
    }
}

fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}
