//! The tracer on real devices: everything that is written is marked, nothing else is, and it outlives its loader.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::fs::{FallocateFlags, fallocate};
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::programs::program;
use vss_tests::scale::rounds;
use vss_tests::tracing::{self, BLOCK, Direct, RawLoop, Traced, changed, fio, lacks, run, target_of};
use vss_trace::{Bitmap, Counters, Pins, TraceError, Tracer};

/// Does `act` to a file system, and checks that every block of its device that differs afterwards was marked; returns how many
/// were marked.
fn all_is_marked(
    fs: &LoopFs,
    traced: &Traced,
    what: &str,
    act: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let device = Direct::open(fs.device())?;
    rustix::fs::syncfs(fs.open()?)?;
    // What the file system itself writes while the device is read (XFS brings its metadata to their places when it likes) may
    // come after its block was read: it has to be among the marks.
    let _ = traced.taken();
    let before = device.read()?;
    act()?;
    rustix::fs::syncfs(fs.open()?)?;
    let after = device.read()?;
    let marked = traced.taken();
    let mut missing = changed(&before, &after);
    let differing = missing.count();
    missing.subtract(&marked);
    println!("{what}: {differing} blocks differ, {} were marked", marked.count());
    ensure!(missing.is_empty(), "{what}: not marked: {:?}", missing.runs().collect::<Vec<_>>());
    ensure!(differing > 0, "{what}: nothing was written");
    Ok(marked.count())
}

fn everything_is_marked(kind: Kind, mib: u64) -> anyhow::Result<()> {
    let fs = LoopFs::new(kind, mib)?;
    let file = fs.path().join("data");
    let traced = Traced::new(fs.device())?;
    ensure!(traced.tracer().chunk_bytes() == BLOCK as u64 && traced.tracer().chunks() == mib << 8);
    all_is_marked(&fs, &traced, "direct", || fio(&file, 16, true, 0.5))?;
    all_is_marked(&fs, &traced, "buffered", || fio(&file, 16, false, 0.5))?;
    // Unmounted, looked at by its checker, mounted again.
    all_is_marked(&fs, &traced, "unmounted and mounted", || {
        fs.check()?;
        Ok(fs::write(fs.path().join("after"), "mounted again")?)
    })?;
    let data = File::options().write(true).open(&file)?;
    all_is_marked(&fs, &traced, "fallocate", || Ok(fallocate(&data, FallocateFlags::empty(), 16 << 20, 4 << 20)?))?;
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    all_is_marked(&fs, &traced, "a hole", || Ok(fallocate(&data, punch, 0, 8 << 20)?))?;
    if !lacks("fstrim", "fstrim") {
        let trimmed = all_is_marked(&fs, &traced, "trimmed", || {
            fs::write(fs.path().join("trimmed"), "before")?;
            run(Command::new("fstrim").arg(fs.path())).map(drop)
        })?;
        ensure!(trimmed > 8 << 8, "{trimmed} blocks marked by a trim of most of the volume");
    }
    let counters = traced.tracer().counters();
    ensure!(counters.distrust(&Counters::default()).is_none(), "{counters:?}");
    ensure!(traced.balance_at_rest() >= 0, "{:?}", traced.tracer().counters());
    Ok(())
}

#[test]
fn everything_that_changes_on_ext4_is_marked() -> anyhow::Result<()> {
    let test = "everything_that_changes_on_ext4_is_marked";
    if tracing::skips(test, &[Kind::Ext4]) || lacks(test, "fio") {
        return Ok(());
    }
    everything_is_marked(Kind::Ext4, 64)
}

#[test]
fn everything_that_changes_on_xfs_is_marked() -> anyhow::Result<()> {
    let test = "everything_that_changes_on_xfs_is_marked";
    if tracing::skips(test, &[Kind::Xfs]) || lacks(test, "fio") {
        return Ok(());
    }
    everything_is_marked(Kind::Xfs, 320)
}

/// The chunks as ranges, for a comparison.
fn ranges(bitmap: &Bitmap) -> Vec<(u64, u64)> {
    bitmap.runs().map(|run| (run.start, run.end)).collect()
}

fn write_at(device: &Path, offset: u64, length: usize) -> anyhow::Result<()> {
    let device = OpenOptions::new().write(true).open(device)?;
    device.write_all_at(&vec![7; length], offset)?;
    Ok(device.sync_all()?)
}

#[test]
fn exactly_what_is_written_discarded_or_zeroed_is_marked() -> anyhow::Result<()> {
    let test = "exactly_what_is_written_discarded_or_zeroed_is_marked";
    if tracing::skips(test, &[]) || lacks(test, "blkdiscard") {
        return Ok(());
    }
    let disk = RawLoop::new(8192, &[])?;
    let traced = Traced::new(disk.path())?;
    let blkdiscard = |options: &[&str], offset: u64, length: u64| {
        let mut command = Command::new("blkdiscard");
        command.args(options).arg("-o").arg(offset.to_string()).arg("-l").arg(length.to_string()).arg(disk.path());
        run(&mut command).map(drop)
    };
    write_at(disk.path(), 3 * 4096, 4096)?;
    ensure!(ranges(&traced.taken()) == [(3, 4)]);
    write_at(disk.path(), 62 * 4096, 4 * 4096)?;
    ensure!(ranges(&traced.taken()) == [(62, 66)]);
    // Half a chunk on either side.
    blkdiscard(&["-z"], 10 * 4096 + 2048, 4096)?;
    ensure!(ranges(&traced.taken()) == [(10, 12)]);
    for options in [&["-z"][..], &[]] {
        // Whole words, and a length that no single write has.
        blkdiscard(options, 1 << 20, 7000 << 20)?;
        let taken = traced.taken();
        ensure!(ranges(&taken) == [(256, 256 + 7000 * 256)], "{options:?}: {:?}", ranges(&taken));
    }
    let tracer = traced.tracer();
    ensure!(tracer.dirty() == 0);
    // Marks put back are there again, with new ones.
    let mut again = Bitmap::new(tracer.chunks());
    again.set(5..6);
    tracer.mark(&again);
    write_at(disk.path(), 0, 4096)?;
    ensure!(tracer.dirty() == 2 && ranges(&traced.taken()) == [(0, 1), (5, 6)]);
    Ok(())
}

#[test]
fn what_was_queued_since_the_last_rest_is_kept() -> anyhow::Result<()> {
    let test = "what_was_queued_since_the_last_rest_is_kept";
    if tracing::skips(test, &[]) {
        return Ok(());
    }
    let disk = RawLoop::new(64, &[])?;
    let traced = Traced::new(disk.path())?;
    let tracer = traced.tracer();
    let queued = || {
        let mut queued = Bitmap::new(tracer.chunks());
        tracer.queued_since_balance(&mut queued);
        ranges(&queued)
    };
    ensure!(tracer.balanced_at().is_none() && queued().is_empty());
    write_at(disk.path(), 17 * 4096, 4096)?;
    ensure!(traced.taken().count() == 1);
    // Taken, and still there; in chunks 16 times as large.
    ensure!(queued() == [(16, 32)], "{:?}", queued());
    let rest = tracer.counters();
    tracer.set_balanced(&rest);
    ensure!(tracer.balanced_at() == Some(rest));
    write_at(disk.path(), 64 * 4096, 4096)?;
    ensure!(queued() == [(16, 32), (64, 80)], "{:?}", queued());
    tracer.forget_older();
    ensure!(queued() == [(64, 80)], "{:?}", queued());
    ensure!(tracer.counters().queued - rest.queued == 8);
    // Another process sees the same.
    let opened = Tracer::open(traced.pins())?.context("it is there")?;
    ensure!(opened.balanced_at() == Some(rest) && opened.counters() == tracer.counters());
    opened.set_balanced(&opened.counters());
    opened.forget_older();
    ensure!(queued().is_empty(), "{:?}", queued());
    Ok(())
}

#[test]
fn a_partition_is_traced_apart_from_its_neighbours() -> anyhow::Result<()> {
    let test = "a_partition_is_traced_apart_from_its_neighbours";
    if tracing::skips(test, &[]) || lacks(test, "addpart") {
        return Ok(());
    }
    // Not at a multiple of a chunk: 2048 + 8 * 1024 + 3.
    let disk = RawLoop::new(32, &[(2048, 8192), (10243, 16385), (26628, 8192)])?;
    let [before, ours, behind] = [disk.partition(1)?, disk.partition(2)?, disk.partition(3)?];
    let target = target_of(&ours)?;
    ensure!((target.start_sector, target.sectors) == (10243, 16385), "{target:?}");
    ensure!(target.disk == target_of(disk.path())?.disk);
    let traced = Traced::new(&ours)?;
    ensure!(traced.tracer().chunks() == 2049);
    write_at(&before, 0, 4 << 20)?;
    write_at(&behind, 0, 4 << 20)?;
    ensure!(traced.taken().is_empty(), "a neighbour's blocks are marked");
    ensure!(traced.tracer().counters().queued == 0);
    write_at(&ours, 512 * 8 * 5, 512)?;
    ensure!(ranges(&traced.taken()) == [(5, 6)]);
    // The whole disk, from the neighbour before into ours, and from ours into the one behind.
    let first = Direct::open(disk.path())?;
    first.fill(10240 / 8, 1)?;
    ensure!(ranges(&traced.taken()) == [(0, 1)]);
    first.fill(26624 / 8, 1)?;
    let taken = ranges(&traced.taken());
    ensure!(taken == [(2047, 2049)], "{taken:?}");
    let counters = traced.tracer().counters();
    // 1, and (page cache) a block of 512 or 4096 bytes at both; clipped at both ends.
    ensure!(traced.balance_at_rest() == 0 && counters.queued < 32, "{counters:?}");
    Ok(())
}

/// A compressed RAM disk, the device without requests that every kernel has. Gone when it is dropped.
struct Zram(u32);

impl Zram {
    fn new(mib: u64) -> anyhow::Result<Self> {
        let number = fs::read_to_string("/sys/class/zram-control/hot_add")?.trim().parse()?;
        let zram = Self(number);
        fs::write(format!("/sys/block/zram{number}/disksize"), format!("{mib}M"))?;
        Ok(zram)
    }

    fn path(&self) -> std::path::PathBuf {
        format!("/dev/zram{}", self.0).into()
    }
}

impl Drop for Zram {
    fn drop(&mut self) {
        let _ = fs::write(format!("/sys/block/zram{}/reset", self.0), "1");
        let _ = fs::write("/sys/class/zram-control/hot_remove", self.0.to_string());
    }
}

#[test]
fn a_device_without_requests_is_traced() -> anyhow::Result<()> {
    let test = "a_device_without_requests_is_traced";
    if tracing::skips(test, &[]) || lacks(test, "fio") {
        return Ok(());
    }
    let _ = Command::new("modprobe").arg("zram").output();
    if !Path::new("/sys/class/zram-control").exists() {
        println!("SKIPPED: {test}: the kernel has no zram");
        return Ok(());
    }
    let disk = Zram::new(64)?;
    let traced = Traced::new(&disk.path())?;
    ensure!(traced.tracer().target().bio_based);
    write_at(&disk.path(), 3 * 4096, 4096)?;
    let taken = ranges(&traced.taken());
    ensure!(taken == [(3, 4)], "{taken:?}");
    let device = Direct::open(&disk.path())?;
    let before = device.read()?;
    fio(&disk.path(), 64, true, 0.5)?;
    let mut missing = changed(&before, &device.read()?);
    let differing = missing.count();
    missing.subtract(&traced.taken());
    ensure!(differing > 0 && missing.is_empty(), "{:?}", ranges(&missing));
    let counters = traced.tracer().counters();
    ensure!(counters.distrust(&Counters::default()).is_none(), "{counters:?}");
    // What was under way at an attach is counted. It may have been nothing each time, on a disk this fast.
    ensure!(traced.balance_at_rest() >= 0, "{counters:?}");
    Ok(())
}

/// The loader as a process of its own.
struct Driver {
    process: Child,
    said: BufReader<ChildStdout>,
}

impl Driver {
    fn start(volume: &str, device: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(program("trace_driver"));
        command.arg(driver_instance()).arg(volume).arg(device).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.stderr(Stdio::null()).spawn()?;
        let said = BufReader::new(process.stdout.take().context("stdout was asked for")?);
        Ok(Self { process, said })
    }

    fn hears(&mut self, word: &str) -> anyhow::Result<()> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        ensure!(line.trim_end() == word, "it says {line:?}");
        Ok(())
    }

    fn kill(mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

fn driver_instance() -> String {
    format!("driver.{}", std::process::id())
}

#[test]
fn a_tracer_goes_on_when_its_loader_is_killed() -> anyhow::Result<()> {
    let test = "a_tracer_goes_on_when_its_loader_is_killed";
    if tracing::skips(test, &[]) {
        return Ok(());
    }
    let disk = RawLoop::new(64, &[])?;
    let mut driver = Driver::start("goes-on", disk.path())?;
    driver.hears("attaching")?;
    driver.hears("attached")?;
    write_at(disk.path(), 0, 4096)?;
    driver.kill()?;
    write_at(disk.path(), 4096, 4096)?;
    let pins = Pins::new(&driver_instance(), "goes-on");
    let traced = Traced::of(Tracer::open(&pins)?.context("it is gone")?, pins.clone());
    write_at(disk.path(), 8192, 4096)?;
    ensure!(ranges(&traced.taken()) == [(0, 3)]);
    ensure!(traced.tracer().target() == target_of(disk.path())?);
    ensure!(Tracer::remove(&pins)?, "there was nothing to remove");
    ensure!(!Tracer::remove(&pins)? && Tracer::open(&pins)?.is_none());
    Ok(())
}

#[test]
fn a_loader_killed_at_any_instant_leaves_a_whole_tracer_or_none() -> anyhow::Result<()> {
    let test = "a_loader_killed_at_any_instant_leaves_a_whole_tracer_or_none";
    if tracing::skips(test, &[]) {
        return Ok(());
    }
    let disk = RawLoop::new(64, &[])?;
    let pins = Pins::new(&driver_instance(), "killed");
    let (mut none, mut half, mut whole) = (0, 0, 0);
    let count = rounds(24, 400);
    // How long an attach takes here and now; most of it is before the first pin.
    let mut took = Duration::ZERO;
    for round in 0..count {
        let mut driver = Driver::start("killed", disk.path())?;
        driver.hears("attaching")?;
        if round == 0 {
            let began = Instant::now();
            driver.hears("attached")?;
            took = began.elapsed();
        } else {
            thread::sleep(took.mul_f64(0.8 + 0.4 * f64::from(round) / f64::from(count)));
        }
        driver.kill()?;
        match Tracer::open(&pins) {
            Ok(None) => none += 1,
            Err(TraceError::Unusable { .. }) => half += 1,
            Err(other) => return Err(other.into()),
            Ok(Some(tracer)) => {
                whole += 1;
                let traced = Traced::of(tracer, pins.clone());
                let _ = traced.taken();
                write_at(disk.path(), 4096 * u64::from(round), 4096)?;
                ensure!(traced.taken().count() == 1, "round {round}: it does not mark");
            }
        }
        Tracer::remove(&pins)?;
        ensure!(!pins.directory().exists());
    }
    println!(
        "an attach took {took:?}; killed in {count} attaches: {none} left nothing, {half} a refused half, {whole} a whole tracer"
    );
    ensure!(whole > 0, "none was attached");
    Ok(())
}

#[test]
fn what_is_not_whole_is_refused_and_removed() -> anyhow::Result<()> {
    let test = "what_is_not_whole_is_refused_and_removed";
    if tracing::skips(test, &[]) {
        return Ok(());
    }
    let disk = RawLoop::new(64, &[])?;
    let target = target_of(disk.path())?;
    let pins = tracing::own_pins();
    let names: Vec<_> = {
        let _traced = Traced::of(Tracer::attach(&pins, &target)?, pins.clone());
        ensure!(matches!(Tracer::attach(&pins, &target), Err(TraceError::Exists(_))));
        let entries = fs::read_dir(pins.directory())?.map(|entry| Ok(entry?.file_name()));
        entries.collect::<anyhow::Result<_>>()?
    };
    ensure!(names.len() == 14, "{names:?}");
    for name in names {
        let traced = Traced::of(Tracer::attach(&pins, &target)?, pins.clone());
        fs::remove_file(pins.directory().join(&name))?;
        let opened = Tracer::open(&pins);
        ensure!(matches!(opened, Err(TraceError::Unusable { .. })), "without {}: {opened:?}", name.display());
        drop(traced);
        ensure!(!pins.directory().exists(), "without {}", name.display());
    }
    Ok(())
}

#[test]
fn each_sector_queued_is_completed() -> anyhow::Result<()> {
    let test = "each_sector_queued_is_completed";
    if tracing::skips(test, &[Kind::Ext4]) || lacks(test, "fio") {
        return Ok(());
    }
    let fs = LoopFs::new(Kind::Ext4, 64)?;
    let file = fs.path().join("data");
    fio(&file, 32, false, 0.2)?;
    rustix::fs::syncfs(fs.open()?)?;
    let (mut exact, mut others, mut lost) = (0, 0, 0);
    let count = rounds(5, 100);
    // More of them where completions are missed.
    while exact + others < count || exact == 0 && others < 5 * count {
        let traced = Traced::new(fs.device())?;
        fio(&file, 32, true, 1.0)?;
        let balance = traced.balance_at_rest();
        let counters = traced.tracer().counters();
        ensure!(counters.queued > 0 && counters.issued >= counters.queued, "{counters:?}");
        ensure!(counters.distrust(&Counters::default()).is_none(), "{counters:?}");
        ensure!(balance >= 0, "{counters:?}");
        if balance == 0 {
            exact += 1;
        } else {
            others += 1;
            lost += balance;
        }
    }
    // A kernel that does not deliver each completion to the programs (see the doc of vss-trace) is found out by this count.
    println!("{exact} loads were traced to the last sector, {others} others lack the completion of {lost} sectors");
    ensure!(exact > 0, "no load was traced to its end");
    Ok(())
}
