//! The last part: what is read while writes are held. Everything is made before (threads, memory, lists), so that in the
//! hold nothing is allocated, opened, logged or written.
//!
//! Each thread reads into memory of its own, which is locked. What it read is written to the image afterwards.

use crate::{copier, member::not_ready, source::Source};
use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread::{self, JoinHandle},
};
use vss_linux::{
    aio::{self, Queue},
    pages::Pages,
};
use vss_model::VssError;
use vss_provider::failure::failed;

/// Threads that read one volume in the hold.
const THREADS: u64 = 4;

/// Largest read: small enough that the threads end together.
const PIECE: u64 = 256 << 10;

/// What the threads do.
#[derive(Debug)]
enum Order {
    Wait,
    Read,
    End,
}

/// What is to be read, and how far it is.
#[derive(Debug)]
struct Plan {
    order: Order,
    pieces: Vec<Range<u64>>,
    next: usize,
    running: usize,
    /// The first failure: where, and the kernel's number.
    failure: Option<(u64, i32)>,
    is_full: bool,
}

#[derive(Debug)]
struct Shared {
    source: Arc<Source>,
    /// With it, only what differs from the image is kept.
    compared: Option<File>,
    plan: Mutex<Plan>,
    changed: Condvar,
}

impl Shared {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one thread reads into, and what it read.
struct Part {
    memory: Pages,
    /// For a piece and the image's, where they are compared.
    buffer: Pages,
    /// Where a run of the memory belongs in the image.
    runs: Vec<(u64, Range<usize>)>,
}

impl Part {
    fn new(length: usize, pieces: usize, compares: bool) -> io::Result<Self> {
        let buffer = Pages::new(if compares { 2 * PIECE as usize } else { 0 }, true)?;
        Ok(Self { memory: Pages::new(length, true)?, buffer, runs: filled_once(pieces, (0, 0..0)) })
    }
}

/// An empty list with room for so many, which is touched, so that no page of it is made while writes are held.
fn filled_once<T: Clone>(room: usize, value: T) -> Vec<T> {
    let mut list = vec![value; room];
    list.clear();
    list
}

/// Threads that wait for the hold. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Hold {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<io::Result<Part>>>,
    /// Each says here that it has its memory.
    made: Option<mpsc::Receiver<()>>,
    capacity: u64,
}

impl std::fmt::Debug for Part {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "Part({} runs)", self.runs.len())
    }
}

/// Why the last part was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    /// The list or the memory is too small for it.
    TooMuch,
    /// The device failed at this byte with this number of the kernel.
    Failed(u64, i32),
}

impl Hold {
    /// Threads with memory for `capacity` bytes in `pieces` runs at most, which they make at the same time, while this returns.
    /// With `compared`, an image, what they read is compared with it, and what differs is kept.
    pub(crate) fn new(
        source: &Arc<Source>,
        compared: Option<File>,
        capacity: u64,
        pieces: usize,
    ) -> Result<Self, VssError> {
        let shared = Arc::new(Shared {
            source: Arc::clone(source),
            compared,
            plan: Mutex::new(Plan {
                order: Order::Wait,
                pieces: filled_once(pieces, 0..0),
                next: 0,
                running: 0,
                failure: None,
                is_full: false,
            }),
            changed: Condvar::new(),
        });
        let (made, is_made) = mpsc::channel();
        let mut hold = Self { shared, threads: Vec::new(), made: Some(is_made), capacity };
        // Each could end with a piece that the next does not fit behind.
        let length = usize::try_from(capacity / THREADS + 2 * PIECE).unwrap_or(usize::MAX);
        for _ in 0..THREADS {
            let (shared, made) = (Arc::clone(&hold.shared), made.clone());
            let live = move || {
                let (part, queue) = (Part::new(length, pieces, shared.compared.is_some())?, Queue::default());
                // Sent in vain when nobody waits for it any more.
                let _ = made.send(());
                drop(made);
                Ok(run(&shared, part, queue))
            };
            let started = thread::Builder::new().name("vss-hold".to_owned()).spawn(live);
            hold.threads.push(started.map_err(|error| failed("A thread for the hold cannot be started", &error))?);
        }
        Ok(hold)
    }

    /// Waits until the threads have their memory.
    ///
    /// # Errors
    /// One has none.
    pub(crate) fn made(mut self) -> Result<Self, VssError> {
        if let Some(made) = self.made.take()
            && made.iter().count() < self.threads.len()
        {
            self.end();
            let why = self.threads.drain(..).find_map(|thread| joined(thread).err());
            return Err(why.unwrap_or_else(not_ready));
        }
        Ok(self)
    }

    /// True when so many bytes in so many runs fit.
    pub(crate) fn fits(&self, capacity: u64, pieces: usize) -> bool {
        capacity <= self.capacity && pieces <= self.shared.plan().pieces.capacity()
    }

    /// Bytes that fit.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Lists what is to be read and lets the threads begin. Allocates nothing.
    pub(crate) fn begin(&self, runs: impl Iterator<Item = Range<u64>>) -> Result<(), Unread> {
        let mut plan = self.shared.plan();
        for run in runs {
            let mut start = run.start;
            while start < run.end {
                if plan.pieces.len() == plan.pieces.capacity() {
                    return Err(Unread::TooMuch);
                }
                let end = run.end.min(start + PIECE);
                plan.pieces.push(start..end);
                start = end;
            }
        }
        plan.running = self.threads.len();
        plan.order = Order::Read;
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Waits until everything is read. Allocates nothing.
    pub(crate) fn wait(&self) -> Result<(), Unread> {
        let mut plan = self.shared.plan();
        while plan.running > 0 {
            plan = self.shared.changed.wait(plan).unwrap_or_else(PoisonError::into_inner);
        }
        match plan.failure {
            Some((offset, number)) => Err(Unread::Failed(offset, number)),
            None if plan.is_full => Err(Unread::TooMuch),
            None => Ok(()),
        }
    }

    /// Writes what was read to the image; returns how many bytes.
    ///
    /// # Errors
    /// Of the image's file system.
    pub(crate) fn write_out(mut self, image: &File) -> Result<u64, VssError> {
        self.end();
        let mut queue = Queue::default();
        let mut written = 0;
        for thread in self.threads.drain(..) {
            let part = joined(thread)?;
            let pieces: Vec<_> = part.runs.iter().map(|(offset, run)| (&part.memory[run.clone()], *offset)).collect();
            written += copier::write_all(&mut queue, image, &pieces)?;
        }
        Ok(written)
    }

    fn end(&self) {
        self.shared.plan().order = Order::End;
        self.shared.changed.notify_all();
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.end();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// What a thread that ends has read, or why it had no memory.
fn joined(thread: JoinHandle<io::Result<Part>>) -> Result<Part, VssError> {
    let part = thread.join().map_err(|_| failed("A thread of the hold failed", &io::Error::other("it panicked")))?;
    part.map_err(|error| failed("There is no memory that can be locked for the hold", &error))
}

/// The life of one thread: it waits, reads pieces until none is left, and gives what it kept.
fn run(shared: &Shared, mut part: Part, mut queue: Queue) -> Part {
    let mut filled = 0;
    let mut batch: [Range<u64>; aio::DEPTH] = std::array::from_fn(|_| 0..0);
    let most = if shared.compared.is_some() { 1 } else { aio::DEPTH };
    let mut plan = shared.plan();
    loop {
        match plan.order {
            Order::End => return part,
            Order::Wait => plan = shared.changed.wait(plan).unwrap_or_else(PoisonError::into_inner),
            Order::Read => break,
        }
    }
    while plan.failure.is_none() && !plan.is_full {
        let (first, mut room) = (plan.next, PIECE as usize);
        if shared.compared.is_none() {
            // Memory that is full leaves the rest to the others.
            room = room.min(part.memory.len() - filled);
        }
        while let Some(piece) = plan.pieces.get(plan.next)
            && plan.next - first < most
            && let Some(rest) = room.checked_sub(copier::padded(piece.end - piece.start))
        {
            batch[plan.next - first] = piece.clone();
            room = rest;
            plan.next += 1;
        }
        let batch = &batch[..plan.next - first];
        if batch.is_empty() {
            break;
        }
        drop(plan);
        let kept = match &shared.compared {
            None => read(shared, batch, &mut queue, &mut part, &mut filled).map(|()| true),
            Some(image) => compare(shared, image, &batch[0], &mut part, &mut filled)
                .map_err(|error| aio::Failed { piece: 0, error }),
        };
        plan = shared.plan();
        match kept {
            Ok(true) => {}
            Ok(false) => plan.is_full = true,
            Err(aio::Failed { piece, error }) => {
                plan.failure = plan.failure.or(Some((batch[piece].start, error.raw_os_error().unwrap_or(0))));
            }
        }
    }
    plan.running -= 1;
    if plan.running == 0 && plan.next < plan.pieces.len() {
        plan.is_full = true;
    }
    shared.changed.notify_all();
    drop(plan);
    part
}

/// Reads these pieces at once. They fit.
fn read(
    shared: &Shared,
    batch: &[Range<u64>],
    queue: &mut Queue,
    part: &mut Part,
    filled: &mut usize,
) -> Result<(), aio::Failed> {
    let mut pieces: [(&mut [u8], u64); aio::DEPTH] = std::array::from_fn(|_| Default::default());
    let mut memory = &mut part.memory[*filled..];
    for (place, piece) in pieces.iter_mut().zip(batch) {
        let length = copier::padded(piece.end - piece.start);
        let (own, rest) = memory.split_at_mut(length);
        *place = shared.source.within(own, piece.start);
        memory = rest;
        part.runs.push((piece.start, *filled..*filled + length));
        *filled += length;
    }
    queue.read(&shared.source.device, &mut pieces[..batch.len()])
}

/// Reads a piece and the image's, and keeps what differs; false when that does not fit.
fn compare(shared: &Shared, image: &File, piece: &Range<u64>, part: &mut Part, filled: &mut usize) -> io::Result<bool> {
    let length = copier::padded(piece.end - piece.start);
    let (now, then) = part.buffer.split_at_mut(PIECE as usize);
    let (now, then) = (&mut now[..length], &mut then[..length]);
    shared.source.read(now, piece.start)?;
    image.read_exact_at(then, piece.start)?;
    for run in copier::differing(now, then) {
        let place = *filled..*filled + run.len();
        if place.end > part.memory.len() || part.runs.len() == part.runs.capacity() {
            return Ok(false);
        }
        part.memory[place.clone()].copy_from_slice(&now[run.clone()]);
        part.runs.push((piece.start + run.start as u64, place.clone()));
        *filled = place.end;
    }
    Ok(true)
}
