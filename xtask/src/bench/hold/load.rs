//! Programs that write to each member while it is held: one thread a member, each at the same rate.

use anyhow::{Context, Result};
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Each thread writes round a file of so many blocks.
const BLOCKS: u64 = 1024;
const BLOCK: usize = 4096;
/// So many blocks at a time, and then a pause: 200 blocks or 800 KiB a second and member at most, so that 32 of them leave the
/// disk some room.
const AT_A_TIME: u64 = 4;
const PAUSE: Duration = Duration::from_millis(20);

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writing {
    /// Into the page cache.
    Buffered,
    /// With O_DIRECT.
    Direct,
}

impl Writing {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Buffered => "buffered",
            Self::Direct => "direct",
        }
    }
}

/// The running writers. Dropping them lets them end.
#[derive(Debug)]
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<Result<u64>>>,
}

impl Load {
    /// Writes to each of these directories.
    pub(super) fn start(directories: &[&Path], writing: Writing) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut load = Self { stop: Arc::clone(&stop), writers: Vec::new() };
        for directory in directories {
            let (path, stop) = (directory.join("load"), Arc::clone(&stop));
            load.writers.push(thread::Builder::new().spawn(move || write(&path, writing, &stop))?);
        }
        Ok(load)
    }

    /// Ends them; an error of any write is one of the measurement.
    pub(super) fn finish(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers.drain(..) {
            let written = writer.join().ok().context("a writer panicked")??;
            anyhow::ensure!(written > 0, "a writer wrote nothing: the members were not busy");
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn write(path: &PathBuf, writing: Writing, stop: &AtomicBool) -> Result<u64> {
    let flags = if writing == Writing::Direct { OFlags::DIRECT } else { OFlags::empty() };
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).custom_flags(flags.bits().cast_signed());
    let file: File = options.open(path).with_context(|| format!("cannot write {}", path.display()))?;
    // O_DIRECT wants the memory aligned to the device's blocks: somewhere in twice as much there is such a place.
    let memory = vec![0x5a; 2 * BLOCK];
    let block = &memory[memory.as_ptr().align_offset(BLOCK)..][..BLOCK];
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..AT_A_TIME {
            // A step that visits every block before it comes back to the first.
            file.write_all_at(block, written * 389 % BLOCKS * BLOCK as u64)?;
            written += 1;
        }
        thread::sleep(PAUSE);
    }
    Ok(written)
}
