//! An image of a file system, and what its own metadata says of it: which of its blocks are written, and which files it has.
//!
//! Blocks that are free, or that were allocated and never written (unwritten extents: XFS and ext4 read them as zeroes), may
//! hold anything. XFS allocates such behind the end of every file that grows. Which they are is what the file system itself
//! says of a copy that it has replayed its log on: its bitmaps, and FIEMAP of every file.

use std::fs::{self, File};
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::{NamedTempFile, TempDir};
use vss_linux::fiemap;
use vss_linux::loop_device::{AttachOptions, LoopDevice};
use vss_trace::Bitmap;

use crate::loopfs::{Kind, unmount_idle};
use crate::tracing::run;

/// What is compared at once.
const CHUNK: u64 = 4096;
/// Read at once.
const PIECE: u64 = 1 << 20;

/// An image file.
#[derive(Debug)]
pub struct Image {
    kind: Kind,
    path: PathBuf,
    /// Gone with it, if it is a copy.
    _copy: Option<NamedTempFile>,
}

/// Where an image is mounted, read-only but for its log, which is replayed. Unmounted when it is dropped.
struct Mounted {
    point: TempDir,
    _device: LoopDevice,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = unmount_idle(self.point.path()) {
            eprintln!("{error:#}");
            let _ = unmount(self.point.path(), UnmountFlags::DETACH);
        }
    }
}

impl Image {
    /// This one.
    #[must_use]
    pub fn of(kind: Kind, path: &Path) -> Self {
        Self { kind, path: path.to_owned(), _copy: None }
    }

    /// A copy of this one, on which the log may be replayed.
    ///
    /// # Errors
    /// There is no space.
    pub fn copy(kind: Kind, path: &Path) -> anyhow::Result<Self> {
        let copy = NamedTempFile::with_prefix("vss-image-")?;
        run(Command::new("cp").arg("--sparse=always").args([path, copy.path()]))?;
        Ok(Self { kind, path: copy.path().to_owned(), _copy: Some(copy) })
    }

    fn mount(&self) -> anyhow::Result<Mounted> {
        let device = LoopDevice::attach(&self.path, AttachOptions { autoclear: true, ..AttachOptions::default() })?;
        let point = TempDir::with_prefix("vss-judged-")?;
        // Beside the file system that it is an image of.
        let options = (self.kind == Kind::Xfs).then_some(c"nouuid");
        mount(device.path(), point.path(), self.kind.name(), MountFlags::RDONLY, options)
            .with_context(|| format!("{} cannot be mounted", self.path.display()))?;
        Ok(Mounted { point, _device: device })
    }

    /// The runs of bytes of a copy in which nothing has to be written: unwritten extents of its files, and what is free when
    /// its log is replayed.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn unwritten(&self) -> anyhow::Result<Vec<Range<u64>>> {
        let mounted = self.mount()?;
        let mut unwritten = Vec::new();
        for file in files(mounted.point.path())? {
            if !file.symlink_metadata()?.is_file() {
                continue;
            }
            let pieces = fiemap::pieces(File::open(file)?)?;
            unwritten.extend(pieces.into_iter().filter(|piece| piece.is_unwritten).filter_map(|piece| piece.physical));
        }
        drop(mounted);
        unwritten.extend(self.free()?);
        Ok(unwritten)
    }

    /// The chunks that its bitmaps call used, wholly or in part, but for those that lie in these runs of bytes.
    ///
    /// # Errors
    /// The file system's tools do not understand it.
    pub fn used_but(&self, unwritten: &[Range<u64>]) -> anyhow::Result<Bitmap> {
        let chunks = self.path.metadata()?.len() / CHUNK;
        let mut used = Bitmap::new(chunks);
        used.set(0..chunks);
        let mut free = self.free()?;
        free.extend_from_slice(unwritten);
        for run in merged(free) {
            let (start, end) = (run.start.div_ceil(CHUNK), run.end / CHUNK);
            used.clear(start..end.max(start));
        }
        Ok(used)
    }

    fn free(&self) -> anyhow::Result<Vec<Range<u64>>> {
        let free = match self.kind {
            Kind::Ext4 => free_on_ext4(&self.path)?,
            Kind::Xfs => free_on_xfs(&self.path)?,
            Kind::Btrfs => bail!("btrfs is not mirrored"),
        };
        ensure!(!free.is_empty(), "nothing is free: the bitmaps were not understood");
        Ok(free)
    }

    /// Checks that two images have the same files with the same contents. Their logs are replayed.
    ///
    /// # Errors
    /// Which files differ; one cannot be mounted.
    pub fn has_the_files_of(&self, other: &Self) -> anyhow::Result<()> {
        let (ours, theirs) = (self.mount()?, other.mount()?);
        let (ours, theirs) = (ours.point.path(), theirs.point.path());
        let beneath = |top: &Path| -> anyhow::Result<Vec<PathBuf>> {
            Ok(files(top)?.iter().map(|file| file.strip_prefix(top).map(Path::to_owned)).collect::<Result<_, _>>()?)
        };
        let all = beneath(ours)?;
        ensure!(all == beneath(theirs)?, "the image has other files than the volume had");
        for file in all {
            ensure!(is_same(&ours.join(&file), &theirs.join(&file))?, "{} is not what it was", file.display());
        }
        Ok(())
    }
}

/// Everything below a directory, sorted, but for the store of images.
fn files(top: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (mut found, mut directories) = (Vec::new(), vec![top.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_name() == ".vss" {
                continue;
            }
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// True when two files are of one kind and have the same contents.
fn is_same(one: &Path, other: &Path) -> anyhow::Result<bool> {
    let (here, there) = (one.symlink_metadata()?, other.symlink_metadata()?);
    if here.file_type() != there.file_type() {
        return Ok(false);
    }
    if here.is_symlink() {
        return Ok(fs::read_link(one)? == fs::read_link(other)?);
    }
    if !here.is_file() {
        return Ok(true);
    }
    let (mut one, mut other) = (File::open(one)?.take(u64::MAX), File::open(other)?.take(u64::MAX));
    let (mut here, mut there) = (Vec::new(), Vec::new());
    loop {
        here.clear();
        there.clear();
        one.set_limit(PIECE);
        other.set_limit(PIECE);
        one.read_to_end(&mut here)?;
        other.read_to_end(&mut there)?;
        if here != there || here.is_empty() {
            return Ok(here == there);
        }
    }
}

/// Ascending, and those that touch made one: a chunk may lie in two of them.
fn merged(mut runs: Vec<Range<u64>>) -> Vec<Range<u64>> {
    runs.sort_by_key(|run| run.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(runs.len());
    for run in runs {
        match merged.last_mut() {
            Some(last) if run.start <= last.end => last.end = last.end.max(run.end),
            _ => merged.push(run),
        }
    }
    merged
}

/// Runs of bytes.
fn free_on_ext4(image: &Path) -> anyhow::Result<Vec<Range<u64>>> {
    let said = run(Command::new("dumpe2fs").arg(image))?;
    let size = said.lines().find_map(|line| line.strip_prefix("Block size:")).context("no size of blocks")?;
    let size: u64 = size.trim().parse()?;
    let mut free = Vec::new();
    for line in said.lines().filter_map(|line| line.strip_prefix("  Free blocks: ")) {
        for run in line.split(", ").filter(|run| !run.is_empty()) {
            let (first, last) = run.split_once('-').unwrap_or((run, run));
            free.push(first.parse::<u64>()? * size..(last.parse::<u64>()? + 1) * size);
        }
    }
    Ok(free)
}

/// Runs of bytes, from the trees of free space of each allocation group.
fn free_on_xfs(image: &Path) -> anyhow::Result<Vec<Range<u64>>> {
    let ask = |commands: &[&str]| {
        let words = commands.iter().flat_map(|command| ["-c", *command]);
        run(Command::new("xfs_db").args(["-r", "-f"]).args(words).arg(image))
    };
    let geometry = ask(&["sb 0", "p agblocks blocksize"])?;
    let number = |name: &str| -> anyhow::Result<u64> {
        let line = geometry.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        Ok(line.with_context(|| format!("no {name} in {geometry}"))?.trim().parse()?)
    };
    let (group, size) = (number("agblocks")?, number("blocksize")?);
    let mut free = Vec::new();
    for line in ask(&["freesp -d"])?.lines() {
        let numbers: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
        // The histogram behind them has more columns, the headings have words.
        if let [number, first, length] = numbers[..] {
            let first = number * group + first;
            free.push(first * size..(first + length) * size);
        }
    }
    Ok(free)
}

/// The chunks among these in which two files differ.
///
/// # Errors
/// One cannot be read, or ends before the other.
pub fn differing(chunks: &Bitmap, one: &Path, other: &Path) -> anyhow::Result<Vec<u64>> {
    let (one, other) = (File::open(one)?, File::open(other)?);
    let end = other.metadata()?.len();
    let (mut here, mut there) = (vec![0; PIECE as usize], vec![0; PIECE as usize]);
    let mut differing = Vec::new();
    for run in chunks.runs() {
        let mut at = run.start * CHUNK;
        while at < (run.end * CHUNK).min(end) {
            let length = PIECE.min(run.end * CHUNK - at).min(end - at) as usize;
            one.read_exact_at(&mut here[..length], at)?;
            other.read_exact_at(&mut there[..length], at)?;
            let pieces = here[..length].chunks(CHUNK as usize).zip(there[..length].chunks(CHUNK as usize));
            differing.extend((at / CHUNK..).zip(pieces).filter(|(_, (one, other))| one != other).map(|(at, _)| at));
            at += length as u64;
        }
    }
    Ok(differing)
}
