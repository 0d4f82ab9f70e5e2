//! A program that keeps writing while something happens to its file system, and says how long it was kept waiting.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// One thread that writes 4 KiB and calls fsync, over and over, round a file of 4 MiB.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    writes: AtomicU64,
    longest_ns: AtomicU64,
}

/// What a [`Load`] has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Writes with fsync done.
    pub writes: u64,
    /// The longest of them.
    pub longest_stall: Duration,
}

impl Load {
    /// Starts writing to a file in `directory`.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn start(directory: &Path) -> std::io::Result<Self> {
        let file = File::create(directory.join("load"))?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let block = [0x5a; 4096];
            while !theirs.stop.load(Ordering::Relaxed) {
                let started = Instant::now();
                let place = theirs.writes.load(Ordering::Relaxed) % 1024 * 4096;
                file.write_all_at(&block, place)?;
                file.sync_data()?;
                let took = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
                theirs.longest_ns.fetch_max(took, Ordering::Relaxed);
                theirs.writes.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        Ok(Self { shared, thread: Some(thread) })
    }

    /// How many writes are done since the start.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.shared.writes.load(Ordering::Relaxed)
    }

    /// What was seen since the last call, or since the start.
    pub fn take(&self) -> Report {
        Report {
            writes: self.shared.writes.load(Ordering::Relaxed),
            longest_stall: Duration::from_nanos(self.shared.longest_ns.swap(0, Ordering::Relaxed)),
        }
    }

    /// Ends the writing, which waits for a thaw if there has to be one.
    ///
    /// # Errors
    /// A write failed.
    pub fn stop(mut self) -> std::io::Result<Report> {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or_else(|_| Err(std::io::Error::other("the writing thread panicked")))?;
        }
        Ok(self.take())
    }
}

impl Drop for Load {
    /// Does not wait: the thread ends with its next write.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}
