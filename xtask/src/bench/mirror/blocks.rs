//! What the machine can do of a second copy at most: as many single blocks read from the volume's device, and as many written
//! to a file at the place, past the page cache and as many at once as the copier has under way. Nothing is asked, noted or held.

use super::scene::{CHANGED_MIB, Scene};
use crate::interrupt::Interrupt;
use anyhow::{Context, Result, anyhow, ensure};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use vss_linux::aio::{self, Queue};
use vss_linux::fiemap;
use vss_linux::pages::Pages;

/// As many as the copier has (`providers/mirror/src/copier.rs`), each with a queue of [`aio::DEPTH`].
const THREADS: usize = 8;
const BLOCK: usize = 4096;
/// Of the file at the place: wide enough that no two blocks touch.
const FILE_MIB: u64 = 512;

/// Where blocks are read and written.
pub(super) struct Blocks {
    device: File,
    from: Vec<u64>,
    file: File,
    to: Vec<u64>,
}

/// How long it took.
pub(super) struct Took {
    /// To read them.
    pub(super) read: Duration,
    /// To write them.
    pub(super) written: Duration,
    /// To do both, as the copier does: a thread writes what it has read, while others read.
    pub(super) copied: Duration,
    /// Until what was written is on disk as well.
    pub(super) on_disk: Duration,
}

impl Blocks {
    /// Blocks all over the file that a second copy reads, and a file for them at the place.
    pub(super) fn make(scene: &Scene, interrupt: &Interrupt) -> Result<Self> {
        let count = (CHANGED_MIB << 20) / BLOCK as u64;
        let mut blocks = Vec::new();
        for piece in fiemap::pieces(File::open(scene.still())?)? {
            let place = piece.physical.context("the file has its own blocks")?;
            blocks.extend(place.step_by(BLOCK));
        }
        let path = scene.storage().path().join("blocks");
        interrupt.output(Scene::fio(&path, FILE_MIB).args(["--rw=write", "--bs=1M", "--ioengine=psync"]))?;
        let of_file: Vec<u64> = (0..FILE_MIB << 20).step_by(BLOCK).collect();
        ensure!(blocks.len() as u64 >= count && of_file.len() as u64 >= 2 * count, "too few blocks");
        let open = |path: &Path, way| rustix::fs::open(path, way | OFlags::DIRECT | OFlags::CLOEXEC, Mode::empty());
        Ok(Self {
            device: open(scene.volume().device(), OFlags::RDONLY)?.into(),
            from: spread(&blocks, count as usize),
            file: open(&path, OFlags::WRONLY)?.into(),
            to: spread(&of_file, count as usize),
        })
    }

    /// Reads, writes, and does both, each when nothing is left to be written.
    pub(super) fn run(&self, settle: impl Fn() -> Result<()>) -> Result<Took> {
        let turn = |reads, writes| -> Result<Duration> {
            settle()?;
            self.turn(reads, writes)
        };
        let (read, written, copied) = (turn(true, false)?, turn(false, true)?, turn(true, true)?);
        let began = Instant::now();
        self.file.sync_data()?;
        Ok(Took { read, written, copied, on_disk: copied + began.elapsed() })
    }

    fn turn(&self, reads: bool, writes: bool) -> Result<Duration> {
        let next = AtomicUsize::new(0);
        let began = Instant::now();
        thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| self.work(&next, reads, writes))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
        })?;
        Ok(began.elapsed())
    }

    fn work(&self, next: &AtomicUsize, reads: bool, writes: bool) -> Result<()> {
        let mut memory = Pages::new(aio::DEPTH * BLOCK, false)?;
        memory.fill(1);
        let mut queue = Queue::default();
        loop {
            let first = next.fetch_add(aio::DEPTH, Ordering::Relaxed);
            let batch = first.min(self.from.len())..(first + aio::DEPTH).min(self.from.len());
            if batch.is_empty() {
                return Ok(());
            }
            if reads {
                let places = self.from[batch.clone()].iter().copied();
                let mut pieces: Vec<_> = memory.chunks_exact_mut(BLOCK).zip(places).collect();
                queue.read(&self.device, &mut pieces).map_err(|failed| failed.error)?;
            }
            if writes {
                let places = self.to[batch].iter().copied();
                let pieces: Vec<_> = memory.chunks_exact(BLOCK).zip(places).collect();
                queue.write(&self.file, &pieces).map_err(|failed| failed.error)?;
            }
        }
    }
}

/// So many of these, ascending, spread over all of them without a pattern.
fn spread(blocks: &[u64], count: usize) -> Vec<u64> {
    let each = blocks.len() / count;
    // A multiplier without a common factor with any small number, so that the place within each part varies.
    (0..count).map(|number| blocks[number * each + number * 7919 % (each - each / 2)]).collect()
}
