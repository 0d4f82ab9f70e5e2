//! Reading the device and writing the image while applications work: bounded depth, a rate limit, room for others.
//!
//! Pieces of at most 1 MiB are read past the page cache by a few threads and written to the image in the same way, so that
//! nobody's cached pages are pushed out. A thread reads and writes as many small pieces at once as fit into 1 MiB: that is what
//! counts when single blocks were written all over the volume.
//!
//! In the first round, unless it catches up with little, the copier steps back: while the device has requests of others under
//! way, one thread reads. Its own must not be taken for theirs, so a piece is then no larger than what the device takes as one
//! request. Later rounds do not step back, because they have to overtake the writers.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use vss_linux::{
    aio::{self, Queue},
    block_device,
    pages::Pages,
};
use vss_model::{VssCode, VssError};
use vss_provider::failure::failed;

/// Largest read.
pub(crate) const PIECE: u64 = 1 << 20;

/// Reads under way at once: enough for a disk that is asked for single blocks, and 16 MiB of buffers at most.
const DEPTH: usize = 8;

/// How long a reader waits that steps back for others.
const STEP_BACK: Duration = Duration::from_millis(2);

/// The image's last page may be longer than the volume.
const PAGE: u64 = 4096;

/// How the reading is slowed down.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Bytes a second at most.
    pub(crate) max_rate: Option<u64>,
    /// When the next piece may be read.
    next: Mutex<Option<Instant>>,
}

impl Pace {
    pub(crate) fn new(max_rate: Option<u64>) -> Self {
        Self { max_rate, next: Mutex::default() }
    }

    /// Waits until `bytes` more may be read.
    fn wait(&self, bytes: u64) {
        let Some(rate) = self.max_rate else { return };
        let takes = crate::rounds::duration(bytes, Some(rate.max(1))).unwrap_or_default();
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let begin = next.unwrap_or(now).max(now);
        *next = Some(begin + takes);
        drop(next);
        thread::sleep(begin - now);
    }
}

/// What is to be done with the pieces that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// They are written to the image.
    Copy,
    /// They are compared with the image, and written where they differ.
    Compare,
}

/// What is read.
pub(crate) trait Origin: Sync {
    /// Fills each piece of memory from its offset; what lies behind the end is zeroes.
    fn read_all(&self, queue: &mut Queue, pieces: &mut [(&mut [u8], u64)]) -> Result<(), aio::Failed>;

    /// The error of a read that failed.
    fn unreadable(&self, offset: u64, error: &io::Error) -> VssError;
}

/// One round.
pub(crate) struct Round<'a> {
    pub(crate) from: &'a dyn Origin,
    /// What is written to: the image, or the device in a revert.
    pub(crate) to: &'a File,
    /// Its end: nothing is written behind it.
    pub(crate) to_size: u64,
    pub(crate) way: Way,
    pub(crate) pace: &'a Pace,
    /// Others' requests to this device go first.
    pub(crate) steps_back_on: Option<u64>,
    /// Told how many bytes are done; an error ends the round. Called between pieces, from several threads.
    pub(crate) step: &'a (dyn Fn(u64) -> Result<(), VssError> + Sync),
}

/// What a round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Copied {
    /// Bytes that were read from the device.
    pub(crate) read: u64,
    /// Bytes that were written to the image.
    pub(crate) written: u64,
    /// How long it took, without the waiting for the rate limit.
    pub(crate) time: Duration,
}

impl Round<'_> {
    /// Copies these runs of bytes, ascending.
    ///
    /// # Errors
    /// The first; the others' pieces that were begun are ended.
    pub(crate) fn run(&self, runs: impl Iterator<Item = Range<u64>> + Send) -> Result<Copied, VssError> {
        let began = Instant::now();
        let writes_there = self.writes_there();
        let pieces = Mutex::new(Pieces { runs, rest: 0..0, largest: self.largest() });
        let (read, written) = (AtomicU64::new(0), AtomicU64::new(0));
        let (ours, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
        let failure = Mutex::new(None);
        let work = |thread: usize| -> Result<(), VssError> {
            let memory = |error: io::Error| failed("There is no memory for the copier", &error);
            let mut buffer = Pages::new(PIECE as usize, false).map_err(memory)?;
            let mut other = match self.way {
                Way::Compare => Some(Pages::new(PIECE as usize, false).map_err(memory)?),
                Way::Copy => None,
            };
            let mut queue = Queue::default();
            let mut batch = Vec::with_capacity(aio::DEPTH);
            while !is_over.load(Ordering::Acquire) {
                if thread > 0 && self.others(ours.load(Ordering::Relaxed)) {
                    thread::sleep(STEP_BACK);
                    // The first reader goes on until nothing is left.
                    if pieces.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
                        break;
                    }
                    continue;
                }
                pieces.lock().unwrap_or_else(PoisonError::into_inner).fill(&mut batch);
                if batch.is_empty() {
                    break;
                }
                let length = batch.iter().map(|piece| piece.end - piece.start).sum();
                self.pace.wait(length);
                ours.fetch_add(batch.len() as u64, Ordering::Relaxed);
                let result = self.from.read_all(&mut queue, &mut split(&mut buffer, &batch));
                if !writes_there {
                    ours.fetch_sub(batch.len() as u64, Ordering::Relaxed);
                }
                result.map_err(|failed| self.from.unreadable(batch[failed.piece].start, &failed.error))?;
                let mut data: Vec<(&[u8], u64)> = Vec::with_capacity(batch.len());
                for (piece, offset) in split(&mut buffer, &batch) {
                    let there = usize::try_from(self.to_size.saturating_sub(offset)).unwrap_or(usize::MAX);
                    data.push((&piece[..there.min(piece.len())], offset));
                }
                let wrote = match &mut other {
                    None => write_all(&mut queue, self.to, &data),
                    Some(other) => data
                        .iter()
                        .try_fold(0, |sum, (data, offset)| Ok(sum + write_differing(self.to, data, other, *offset)?)),
                };
                if writes_there {
                    ours.fetch_sub(batch.len() as u64, Ordering::Relaxed);
                }
                let wrote = wrote?;
                written.fetch_add(wrote, Ordering::Relaxed);
                (self.step)(read.fetch_add(length, Ordering::Relaxed) + length)?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let (work, failure, is_over) = (&work, &failure, &is_over);
            for thread in 0..DEPTH {
                let run = move || {
                    if let Err(error) = work(thread) {
                        is_over.store(true, Ordering::Release);
                        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
                };
                if let Err(error) = thread::Builder::new().name("vss-copier".to_owned()).spawn_scoped(scope, run) {
                    is_over.store(true, Ordering::Release);
                    let error = failed("A thread of the copier cannot be started", &error);
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    break;
                }
            }
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(Copied { read: read.into_inner(), written: written.into_inner(), time: began.elapsed() }),
        }
    }

    /// The largest piece: where others go first, one request.
    fn largest(&self) -> u64 {
        let request = self.steps_back_on.and_then(|device| block_device::largest_request(device).ok());
        let request = request.unwrap_or(PIECE).clamp(PAGE, PIECE);
        1 << request.ilog2()
    }

    /// True when what is written goes to the device on which others go first: then it is under way there too.
    fn writes_there(&self) -> bool {
        self.steps_back_on.is_some_and(|device| self.to.metadata().is_ok_and(|found| found.dev() == device))
    }

    /// True when the device has requests under way that are not ours.
    fn others(&self, ours: u64) -> bool {
        let Some(device) = self.steps_back_on else { return false };
        block_device::under_way(device).is_ok_and(|all| all.reads + all.writes > ours)
    }
}

/// Runs cut into pieces.
struct Pieces<I> {
    runs: I,
    rest: Range<u64>,
    /// Bytes of a piece at most.
    largest: u64,
}

impl<I: Iterator<Item = Range<u64>>> Pieces<I> {
    fn is_empty(&mut self) -> bool {
        if self.rest.is_empty() {
            self.rest = self.runs.next().unwrap_or(0..0);
        }
        self.rest.is_empty()
    }

    /// Puts the next pieces into `batch`, as many as fit into one buffer and one queue; none at the end.
    fn fill(&mut self, batch: &mut Vec<Range<u64>>) {
        batch.clear();
        let mut room = PIECE;
        while !self.is_empty() && batch.len() < aio::DEPTH {
            let piece = self.rest.start..self.rest.end.min(self.rest.start + self.largest);
            let Some(left) = room.checked_sub(padded(piece.end - piece.start) as u64) else { break };
            room = left;
            self.rest.start = piece.end;
            batch.push(piece);
        }
    }
}

/// A part of the buffer for each piece, with the piece's offset.
fn split<'a>(mut buffer: &'a mut [u8], batch: &[Range<u64>]) -> Vec<(&'a mut [u8], u64)> {
    let part = |piece: &Range<u64>| {
        let (part, rest) = std::mem::take(&mut buffer).split_at_mut(padded(piece.end - piece.start));
        buffer = rest;
        (part, piece.start)
    };
    batch.iter().map(part).collect()
}

/// What a piece of so many bytes takes in memory and in the image.
pub(crate) fn padded(length: u64) -> usize {
    length.next_multiple_of(PAGE) as usize
}

/// Writes every piece to the image; returns how much.
pub(crate) fn write_all(queue: &mut Queue, image: &File, pieces: &[(&[u8], u64)]) -> Result<u64, VssError> {
    queue.write(image, pieces).map_err(|failed| unwritable(pieces[failed.piece].1, &failed.error))?;
    Ok(pieces.iter().map(|(data, _)| data.len() as u64).sum())
}

/// Writes the pages that differ from the image, neighbours together; returns how much. `other` is room for as much.
fn write_differing(image: &File, data: &[u8], other: &mut [u8], offset: u64) -> Result<u64, VssError> {
    let other = &mut other[..data.len()];
    let mut write = || {
        image.read_exact_at(other, offset)?;
        let mut wrote = 0;
        for run in differing(data, other) {
            image.write_all_at(&data[run.clone()], offset + run.start as u64)?;
            wrote += run.len() as u64;
        }
        Ok(wrote)
    };
    write().map_err(|error| unwritable(offset, &error))
}

fn unwritable(offset: u64, error: &io::Error) -> VssError {
    failed(format!("What was read cannot be written at byte {offset}"), error)
}

/// The runs of whole pages in which two pieces differ.
pub(crate) fn differing<'a>(one: &'a [u8], other: &'a [u8]) -> impl Iterator<Item = Range<usize>> + 'a {
    let page = PAGE as usize;
    let mut at = 0;
    let is_same = move |at: usize| {
        let end = (at + page).min(one.len());
        one[at..end] == other[at..end]
    };
    std::iter::from_fn(move || {
        while at < one.len() && is_same(at) {
            at += page;
        }
        let start = at;
        while at < one.len() && !is_same(at) {
            at += page;
        }
        (start < one.len()).then(|| start..at.min(one.len()))
    })
}

/// The refusal of a round that would fill the image's file system.
pub(crate) fn full(place: &std::path::Path) -> VssError {
    VssError::new(
        VssCode::InsufficientStorage,
        format!("{} has no room for the image any more: its floor is reached", place.display()),
    )
    .with_hint("Free space there, or name another directory: --storage DIR")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Begin and end of each piece of each batch.
    fn batches(runs: &[(u64, u64)], largest: u64) -> Vec<Vec<(u64, u64)>> {
        let runs = runs.iter().map(|(start, end)| *start..*end);
        let mut pieces = Pieces { runs, rest: 0..0, largest };
        let mut batch = Vec::new();
        std::iter::from_fn(|| {
            pieces.fill(&mut batch);
            (!batch.is_empty()).then(|| batch.iter().map(|piece| (piece.start, piece.end)).collect())
        })
        .collect()
    }

    #[test]
    fn runs_are_cut_into_pieces_and_small_ones_are_put_together() {
        let runs = [(0, PIECE * 2 + 4096), (PIECE * 3, PIECE * 3 + 8), (PIECE * 4, PIECE * 5 - 4096)];
        let wanted = [
            vec![(0, PIECE)],
            vec![(PIECE, 2 * PIECE)],
            // What is shorter than a page takes one in memory.
            vec![(2 * PIECE, 2 * PIECE + 4096), (3 * PIECE, 3 * PIECE + 8)],
            vec![(4 * PIECE, 5 * PIECE - 4096)],
        ];
        assert_eq!(batches(&runs, PIECE), wanted);
        let blocks: Vec<_> = (0..1000).map(|block| (block * PIECE, block * PIECE + 4096)).collect();
        let cut = batches(&blocks, PIECE);
        assert!(cut.iter().all(|batch| batch.len() <= aio::DEPTH) && cut.len() == 1000_usize.div_ceil(aio::DEPTH));
        assert_eq!(cut.concat(), blocks);
        // Of a device that takes less in one request.
        let half = PIECE / 2;
        let wanted = [vec![(0, half), (half, PIECE)], vec![(PIECE, PIECE + half)]];
        assert_eq!(batches(&[(0, PIECE + half)], half), wanted);
    }

    #[test]
    fn each_piece_has_its_part_of_the_buffer() {
        let mut buffer = vec![0; 4 * 4096];
        let parts = split(&mut buffer, &[8192..16_384, 20_480..20_488]);
        let parts: Vec<_> = parts.into_iter().map(|(part, offset)| (part.len(), offset)).collect();
        assert_eq!(parts, [(8192, 8192), (4096, 20_480)]);
    }

    #[test]
    fn pages_that_differ_are_found_together() {
        let one = vec![0_u8; 5 * 4096];
        let mut other = one.clone();
        for at in [4096, 2 * 4096 + 7, 5 * 4096 - 1] {
            other[at] = 1;
        }
        assert_eq!(differing(&one, &other).collect::<Vec<_>>(), [4096..3 * 4096, 4 * 4096..5 * 4096]);
        assert_eq!(differing(&one, &one).count(), 0);
    }

    #[test]
    fn the_rate_is_kept() {
        let pace = Pace::new(Some(100 << 20));
        let began = Instant::now();
        (0..10).for_each(|_| pace.wait(PIECE));
        let took = began.elapsed();
        assert!((Duration::from_millis(85)..Duration::from_secs(5)).contains(&took), "{took:?}");
    }
}
