//! Tracers of a test's own, and what they are compared with: the device itself, read past every cache.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::fs::OFlags;
use vss_trace::{Bitmap, Pins, Target, Tracer};

use crate::loopfs::{Kind, LoopFs};

/// What is read from and written to a device at once.
pub const BLOCK: usize = 4096;

/// True (and says so) when a test that traces file systems of these kinds cannot run here.
#[must_use]
pub fn skips(test: &str, kinds: &[Kind]) -> bool {
    if LoopFs::skips(test, kinds) {
        return true;
    }
    let missing = vss_trace::available().err();
    if let Some(why) = &missing {
        println!("SKIPPED: {test}: {why}");
    }
    missing.is_some()
}

/// True (and says so) when a program is not there.
#[must_use]
pub fn lacks(test: &str, program: &str) -> bool {
    let is_there = Command::new(program).arg("--version").output().is_ok();
    if !is_there {
        println!("SKIPPED: {test}: needs {program}");
    }
    !is_there
}

/// Pins that no other test has.
#[must_use]
pub fn own_pins() -> Pins {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let volume = NUMBER.fetch_add(1, Ordering::Relaxed).to_string();
    Pins::new(&format!("test.{}", std::process::id()), &volume)
}

/// What to trace of the block device with this node.
///
/// # Errors
/// As [`Target::of`]; there is no such node.
pub fn target_of(device: &Path) -> anyhow::Result<Target> {
    Ok(Target::of(device.metadata().with_context(|| device.display().to_string())?.rdev())?)
}

/// A tracer that is removed when it is dropped.
#[derive(Debug)]
pub struct Traced {
    tracer: Tracer,
    pins: Pins,
}

impl Traced {
    /// Attaches one to a block device.
    ///
    /// # Errors
    /// As [`Tracer::attach`].
    pub fn new(device: &Path) -> anyhow::Result<Self> {
        let pins = own_pins();
        let tracer = Tracer::attach(&pins, &target_of(device)?)?;
        Ok(Self { tracer, pins })
    }

    /// Takes over one that is there.
    #[must_use]
    pub fn of(tracer: Tracer, pins: Pins) -> Self {
        Self { tracer, pins }
    }

    /// The tracer.
    #[must_use]
    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// Where it is pinned.
    #[must_use]
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Takes all that is marked.
    #[must_use]
    pub fn taken(&self) -> Bitmap {
        let mut taken = Bitmap::new(self.tracer.chunks());
        self.tracer.take(&mut taken);
        taken
    }

    /// Sectors that were queued and not completed since the attach, when nothing is under way any more: waits until the count
    /// has not moved for 200 ms, at most 10 s.
    #[must_use]
    pub fn balance_at_rest(&self) -> i64 {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let before = self.tracer.counters();
            thread::sleep(Duration::from_millis(200));
            let now = self.tracer.counters();
            if before == now || Instant::now() > deadline {
                return now.balance(&vss_trace::Counters::default());
            }
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        if let Err(error) = Tracer::remove(&self.pins) {
            eprintln!("{error}");
        }
    }
}

/// A block device, open past the page cache.
#[derive(Debug)]
pub struct Direct {
    device: File,
    bytes: u64,
}

impl Direct {
    /// Opens it for reading and writing.
    ///
    /// # Errors
    /// No such device.
    pub fn open(device: &Path) -> anyhow::Result<Self> {
        let bytes = target_of(device)?.bytes();
        let flags = OFlags::DIRECT.bits().cast_signed();
        let device = OpenOptions::new().read(true).write(true).custom_flags(flags).open(device)?;
        Ok(Self { device, bytes })
    }

    /// Everything on it.
    ///
    /// # Errors
    /// EIO.
    pub fn read(&self) -> anyhow::Result<Vec<u8>> {
        let mut content = Vec::with_capacity(self.bytes as usize);
        let mut buffer = Aligned::new(256 * BLOCK);
        while (content.len() as u64) < self.bytes {
            let length = (self.bytes - content.len() as u64).min(256 * BLOCK as u64) as usize;
            let bytes = &mut buffer.bytes()[..length];
            self.device.read_exact_at(bytes, content.len() as u64)?;
            content.extend_from_slice(bytes);
        }
        Ok(content)
    }

    /// Reads the chunks of `chunks` (4 KiB each) into their places of `content`.
    ///
    /// # Errors
    /// EIO.
    pub fn read_chunks(&self, chunks: &Bitmap, content: &mut [u8]) -> anyhow::Result<()> {
        let mut buffer = Aligned::new(BLOCK);
        for chunk in chunks.runs().flatten() {
            let at = chunk as usize * BLOCK;
            self.device.read_exact_at(buffer.bytes(), at as u64)?;
            content[at..at + BLOCK].copy_from_slice(buffer.bytes());
        }
        Ok(())
    }

    /// Fills one block with `fill`.
    ///
    /// # Errors
    /// EIO.
    pub fn fill(&self, block: u64, fill: u8) -> anyhow::Result<()> {
        let mut buffer = Aligned::new(BLOCK);
        buffer.bytes().fill(fill);
        Ok(self.device.write_all_at(buffer.bytes(), block * BLOCK as u64)?)
    }
}

/// Memory at an address that O_DIRECT takes.
#[derive(Debug)]
struct Aligned {
    memory: Vec<u8>,
    length: usize,
}

impl Aligned {
    fn new(length: usize) -> Self {
        Self { memory: vec![0; length + BLOCK], length }
    }

    fn bytes(&mut self) -> &mut [u8] {
        let start = self.memory.as_ptr().align_offset(BLOCK);
        &mut self.memory[start..start + self.length]
    }
}

/// The blocks of 4 KiB in which two contents of one device differ.
#[must_use]
pub fn changed(before: &[u8], after: &[u8]) -> Bitmap {
    let blocks = before.chunks(BLOCK).zip(after.chunks(BLOCK));
    let mut changed = Bitmap::new(before.len().div_ceil(BLOCK) as u64);
    for (block, (one, other)) in (0..).zip(blocks) {
        if one != other {
            changed.set(block..block + 1);
        }
    }
    changed
}

/// Runs a program that has to succeed.
///
/// # Errors
/// It does not, with what it said.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let done = command.output().with_context(|| format!("{command:?}"))?;
    if !done.status.success() {
        bail!("{command:?}: {}: {}", done.status, String::from_utf8_lossy(&done.stderr));
    }
    Ok(String::from_utf8_lossy(&done.stdout).trim_end().to_owned())
}

/// fio(1), writing blocks of 4 to 128 KiB at random to a file of `mib` MiB (or a device) for this time.
///
/// # Errors
/// It fails.
pub fn fio(file: &Path, mib: u64, direct: bool, seconds: f32) -> anyhow::Result<()> {
    let mut command = fio_command(file, mib, direct, seconds);
    run(&mut command).map(drop)
}

/// The command of [`fio`].
#[must_use]
pub fn fio_command(file: &Path, mib: u64, direct: bool, seconds: f32) -> Command {
    let mut command = Command::new("fio");
    command.args(["--name=load", "--rw=randwrite", "--bsrange=4k-128k", "--randrepeat=0", "--time_based"]);
    command.args(["--ioengine=libaio", "--iodepth=16", "--fsync=64"]);
    command.arg(format!("--direct={}", u8::from(direct))).arg(format!("--size={mib}M"));
    command.arg(format!("--runtime={}ms", (seconds * 1000.0) as u64));
    let mut name = std::ffi::OsString::from("--filename=");
    name.push(file);
    command.arg(name);
    command
}

/// Lets a loop device read and write its image past the page cache, so that a write that is under way cannot be read there.
///
/// # Errors
/// The image's file system cannot do that.
pub fn set_direct(device: &Path) -> anyhow::Result<()> {
    run(Command::new("losetup").arg("--direct-io=on").arg(device)).map(drop)
}

/// A loop device of the test's own, made by losetup(8), with nothing on it. Detached when it is dropped.
#[derive(Debug)]
pub struct RawLoop {
    path: PathBuf,
    partitions: u32,
    /// Gone with it, unless it is somebody else's.
    image: Option<tempfile::NamedTempFile>,
}

impl RawLoop {
    /// One of `mib` MiB, with partitions: first sector and sectors of each.
    ///
    /// # Errors
    /// No root, no loop devices, no addpart.
    pub fn new(mib: u64, partitions: &[(u32, u32)]) -> anyhow::Result<Self> {
        let image = tempfile::NamedTempFile::with_prefix("vss-rawloop-")?;
        image.as_file().set_len(mib << 20)?;
        let mut disk = Self::on(image.path())?;
        disk.image = Some(image);
        for (number, (start, sectors)) in (1..).zip(partitions) {
            // Told to the kernel, not written down: it need not know any kind of partition table.
            let numbers = [number, *start, *sectors].map(|number| number.to_string());
            run(Command::new("addpart").arg(&disk.path).args(numbers))?;
            disk.partitions = number;
        }
        Ok(disk)
    }

    /// One on an image that is there already.
    ///
    /// # Errors
    /// As [`RawLoop::new`].
    pub fn on(image: &Path) -> anyhow::Result<Self> {
        let path = run(Command::new("losetup").args(["-f", "--show"]).arg(image))?;
        ensure!(path.starts_with("/dev/loop"), "{path}");
        Ok(Self { path: path.into(), partitions: 0, image: None })
    }

    /// The whole disk.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A partition.
    ///
    /// # Errors
    /// Its node does not appear within 30 s.
    pub fn partition(&self, number: u32) -> anyhow::Result<PathBuf> {
        let mut name = self.path.clone().into_os_string();
        name.push(format!("p{number}"));
        let path = PathBuf::from(name);
        ensure!(crate::instance::wait_until(Duration::from_secs(30), || path.exists()), "no {}", path.display());
        Ok(path)
    }
}

impl Drop for RawLoop {
    fn drop(&mut self) {
        for number in 1..=self.partitions {
            let _ = Command::new("delpart").arg(&self.path).arg(number.to_string()).output();
        }
        let _ = Command::new("losetup").arg("-d").arg(&self.path).output();
    }
}
