//! Many sets in a row under load: what the service and its providers use afterwards is what they used before.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use vss_api::requester::VolumeQuestion;
use vss_model::{Context, SetId};
use vss_requester::{Quiet, Requester};
use vss_tests::instance::{Instance, wait_until};
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::scale::rounds;
use vss_tests::traces::{self, BusyVolume, LIMIT};
use vss_tests::turn::creation_turn;
use vss_tests::writers::SocketWriter;
use vss_writer::fake::FakeWriter;

/// Threads of the service that wait for work end after 10 s without any.
const SETTLE: Duration = Duration::from_secs(30);
/// The service remembers its newest events, at most 4,096 and 2 MiB of texts; the rest is for the allocator.
const GROWTH_KIB: u64 = 8 << 10;
/// So many sets have more events than are remembered: from then on there is nothing more to remember.
const REMEMBERED_SETS: u32 = 150;
/// From then on; a leak of 8 KiB a set in 150 sets would be more.
const LATE_GROWTH_KIB: u64 = 1 << 10;

/// What a service uses.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Usage {
    /// What its descriptors are, without numbers that differ each time.
    descriptors: Vec<String>,
    threads: usize,
    /// Memory that no file backs.
    memory_kib: u64,
    /// The files in the runtime and the state directory.
    files: BTreeSet<PathBuf>,
    mounts: Vec<PathBuf>,
    processes: Vec<String>,
}

impl Usage {
    fn of(instance: &Instance) -> anyhow::Result<Self> {
        let process = PathBuf::from(format!("/proc/{}", instance.service_pid().context("vssd is gone")?));
        let kind = |link: PathBuf| {
            let text = link.to_string_lossy().into_owned();
            // A socket has a number of its own.
            text.split_once(":[").map_or(text.clone(), |(kind, _)| kind.to_owned())
        };
        // One may be closed while we look.
        let links = fs::read_dir(process.join("fd"))?.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        let mut descriptors: Vec<String> = links.map(kind).collect();
        descriptors.sort();
        let status = fs::read_to_string(process.join("status"))?;
        let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().split(' ').next());
        let mut files = BTreeSet::new();
        for directory in [instance.runtime_dir(), instance.state_dir()] {
            list(&directory, &mut files)?;
        }
        let mut processes: Vec<String> = instance.processes().into_iter().map(|process| process.name).collect();
        processes.sort();
        Ok(Self {
            descriptors,
            threads: fs::read_dir(process.join("task"))?.count(),
            memory_kib: memory.context("RssAnon")?.parse()?,
            files,
            mounts: instance.mounts(),
            processes,
        })
    }

    /// Everything but memory, of which a little more is no leak.
    fn is_within(&self, before: &Self) -> bool {
        self.threads <= before.threads
            && (&self.descriptors, &self.files, &self.mounts, &self.processes)
                == (&before.descriptors, &before.files, &before.mounts, &before.processes)
    }
}

fn list(directory: &Path, files: &mut BTreeSet<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory)?.flatten() {
        files.insert(entry.path());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), files)?;
        }
    }
    Ok(())
}

/// The service, and volumes of each kind of provider. Inner ones go first.
struct Scene {
    instance: Instance,
    ext4: BusyVolume,
    xfs: BusyVolume,
    btrfs: BusyVolume,
    outside: LoopFs,
}

impl Scene {
    fn new() -> anyhow::Result<Self> {
        let outside = LoopFs::new(Kind::Xfs, 1200)?;
        let ext4 = BusyVolume::of(LoopFs::new_in(outside.path(), Kind::Ext4, 32)?)?;
        let xfs = BusyVolume::of(LoopFs::new_in(outside.path(), Kind::Xfs, 320)?)?;
        let btrfs = BusyVolume::new(Kind::Btrfs, 256)?.with_nested()?;
        let mut instance = Instance::new()?;
        instance.start()?;
        Ok(Self { instance, ext4, xfs, btrfs, outside })
    }

    fn volumes(&self) -> [&BusyVolume; 3] {
        [&self.ext4, &self.xfs, &self.btrfs]
    }

    /// A session with all volumes in its set.
    fn session(&self, context: Context) -> anyhow::Result<Requester> {
        let mut requester = Requester::connect(&self.instance.directories())?;
        requester.initialize_for_backup("leaks")?;
        requester.set_context(context)?;
        requester.start_snapshot_set(&vss_model::CreationOptions::default())?;
        for volume in self.volumes() {
            requester.add_to_snapshot_set(VolumeQuestion { volume: volume.path().to_owned(), provider: None })?;
        }
        Ok(requester)
    }

    /// Makes the set and shows every copy of it.
    fn show(requester: &mut Requester) -> anyhow::Result<SetId> {
        requester.do_snapshot_set(true, &mut Quiet)?;
        let set = requester.snapshot_set()?;
        ensure!(set.shadows.len() == 3, "{set:?}");
        for shadow in &set.shadows {
            let shown = requester.expose_snapshot(shadow.id, None)?;
            ensure!(shown.join("load").exists(), "{} has no files", shown.display());
        }
        Ok(set.set_id)
    }

    /// One set, made and ended in one of the ways that there are.
    fn set(&self, number: u32) -> anyhow::Result<()> {
        let _turn = creation_turn();
        match number % 4 {
            // As people do, with the writer.
            0 => {
                let volumes = self.volumes().map(|volume| ["--volume".as_ref(), volume.path().as_os_str()]);
                let words = std::iter::once("run".as_ref()).chain(volumes.into_iter().flatten());
                let outcome = self.instance.vss(words.chain(["--".as_ref(), "true".as_ref()]))?;
                ensure!(outcome.is_success(), "{outcome:?}");
            }
            // Copies that stay until they are deleted.
            1 => {
                let mut requester = self.session(Context::UntilRebootNoWriters)?;
                let set_id = Self::show(&mut requester)?;
                drop(requester);
                let is_left = || {
                    self.instance
                        .management()
                        .is_ok_and(|mut management| management.status().is_ok_and(|status| status.sessions.is_empty()))
                };
                ensure!(wait_until(LIMIT, is_left), "the session stays");
                self.instance.management()?.delete_set(set_id)?;
            }
            // A program that breaks off while its copies are shown.
            2 => drop(Self::show(&mut self.session(Context::FileShareBackup)?)?),
            // One that breaks off before there is a set, and one that makes it after all.
            _ => {
                drop(self.session(Context::FileShareBackup)?);
                self.is_idle()?;
                let mut requester = self.session(Context::FileShareBackup)?;
                requester.do_snapshot_set(true, &mut Quiet)?;
            }
        }
        self.is_idle()
    }

    /// Nothing is under way, and there is no copy.
    fn is_idle(&self) -> anyhow::Result<()> {
        let mut management = self.instance.management()?;
        let mut status = management.status()?;
        let is_idle = wait_until(LIMIT, || {
            let Ok(now) = management.status() else { return false };
            status = now;
            status.sessions.is_empty() && status.creating.is_none() && status.shadows == 0
        });
        ensure!(is_idle, "the service is not idle: {status:?}");
        Ok(())
    }

    /// What is used as soon as it `is_settled`, which the threads that wait for work delay; or after all that time.
    fn settled(&self, is_settled: impl Fn(&Usage) -> bool) -> anyhow::Result<Usage> {
        let mut now = Usage::of(&self.instance)?;
        wait_until(SETTLE, || {
            if let Ok(usage) = Usage::of(&self.instance) {
                now = usage;
            }
            is_settled(&now)
        });
        Ok(now)
    }

    fn stores_are_empty(&self) -> anyhow::Result<()> {
        self.btrfs.has_no_copies()?;
        traces::has_no_stored_copies(self.btrfs.volume())?;
        traces::has_no_stored_copies(&self.outside)
    }
}

#[test]
fn many_sets_leave_nothing_behind() -> anyhow::Result<()> {
    if LoopFs::skips("many_sets_leave_nothing_behind", &[Kind::Ext4, Kind::Xfs, Kind::Btrfs]) {
        return Ok(());
    }
    let mut scene = Scene::new()?;
    let writer = SocketWriter::join(&scene.instance, FakeWriter::new("shop", scene.ext4.path()))?;
    let fresh = Usage::of(&scene.instance)?;
    // One of each way: from then on nothing is done for the first time.
    (0..4).try_for_each(|number| scene.set(number))?;
    let before = scene.settled(|usage| usage.threads <= fresh.threads)?;
    scene.stores_are_empty()?;

    let sets = rounds(30, 300);
    let started = Instant::now();
    let mut memory = vec![before.memory_kib];
    for number in 1..=sets {
        scene.set(number).with_context(|| format!("set {number}"))?;
        if number % (sets / 6) == 0 {
            memory.push(Usage::of(&scene.instance)?.memory_kib);
        }
    }
    let took = started.elapsed();
    let after = scene.settled(|usage| usage.is_within(&before))?;
    println!(
        "{sets} sets in {:.0} s: descriptors {} -> {}, threads {} -> {}, memory {memory:?} -> {} KiB",
        took.as_secs_f64(),
        before.descriptors.len(),
        after.descriptors.len(),
        before.threads,
        after.threads,
        after.memory_kib
    );
    ensure!(after.is_within(&before), "before: {before:#?}\nafter: {after:#?}");
    ensure!(after.memory_kib <= before.memory_kib + GROWTH_KIB, "memory grows");
    let late = memory.iter().zip((0..).step_by(usize::try_from(sets / 6)?)).find(|(_, done)| *done >= REMEMBERED_SETS);
    if let Some((late, _)) = late {
        ensure!(after.memory_kib <= late + LATE_GROWTH_KIB, "memory grows and grows");
    }
    scene.stores_are_empty()?;
    drop(writer);

    // The catalogue has nothing for the next start.
    scene.instance.stop()?;
    traces::has_no_processes(&scene.instance)?;
    scene.instance.start()?;
    let recovery = scene.instance.management()?.status()?.recovery;
    ensure!(recovery.is_empty(), "something was left for this start: {recovery:?}");
    scene.is_idle()?;
    scene.instance.stop()?;
    let Scene { ext4, xfs, btrfs, outside, .. } = scene;
    for volume in [ext4, xfs, btrfs] {
        volume.stop()?.check()?;
    }
    outside.check()
}
