//! A thread that writes to random places of a file, 4 KiB at a time past the page cache, and notes how long each write took.

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use vss_linux::pages::Pages;

const BLOCK: u64 = 4096;

/// It writes, and ends when this is dropped.
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    is_over: AtomicBool,
    /// Since they were taken last; the error ends it.
    times: Mutex<io::Result<Vec<Duration>>>,
}

impl Writer {
    /// Begins to write to `file`, which has at least `bytes`.
    pub(super) fn start(file: &Path, bytes: u64) -> Result<Self> {
        let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(file, flags, Mode::empty())?);
        let mut memory = Pages::new(BLOCK as usize, false)?;
        memory.fill(1);
        let shared = Arc::new(Shared { is_over: AtomicBool::new(false), times: Mutex::new(Ok(Vec::new())) });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name("writer".to_owned()).spawn(move || {
            // Xorshift: any places will do.
            let mut place = 0x9e37_79b9_7f4a_7c15_u64;
            while !theirs.is_over.load(Ordering::Relaxed) {
                place ^= place << 13;
                place ^= place >> 7;
                place ^= place << 17;
                let began = Instant::now();
                let written = file.write_all_at(&memory, place % (bytes / BLOCK) * BLOCK);
                let took = began.elapsed();
                let mut times = theirs.times.lock().unwrap_or_else(PoisonError::into_inner);
                match (written, &mut *times) {
                    (Ok(()), Ok(times)) => times.push(took),
                    (Ok(()), Err(_)) => return,
                    (Err(error), times) => {
                        *times = Err(error);
                        return;
                    }
                }
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// How long each write took since the last call.
    pub(super) fn take(&self) -> Result<Vec<Duration>> {
        let mut times = self.shared.times.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *times, Ok(Vec::new())).context("writing for the measurement")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
