//! From a copy's image into a stream.

use crate::meter::Meter;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use vss_model::{Extent, VssCode, VssError, extent};
use vss_stream::{BaseSum, DATA_BYTES, Fault, Header, Record, StreamError, Summary, Writer};

/// The image of a copy, and where the volume begins in it.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) file: File,
    pub(crate) offset: u64,
}

impl Image {
    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), VssError> {
        self.file.read_exact_at(buffer, self.offset + offset).map_err(|error| {
            let what = format!("The image of the shadow copy cannot be read at {offset}: {error}");
            VssError::new(VssCode::Unexpected, what).with_hint("Look into dmesg for errors of the disk that it lies on")
        })
    }
}

/// What is sent. See `docs/stream.md`, "What is in a stream".
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Read, and sent where it is not the same in the base.
    send: Vec<Extent>,
    /// In use in the base: only there its image says what the target has.
    in_base: Vec<Extent>,
    /// In use in the base alone.
    unused: Vec<Extent>,
}

impl Plan {
    /// Of a copy by itself, with what is in use in it.
    pub(crate) fn full(used: Vec<Extent>) -> Self {
        Self { send: used, in_base: Vec::new(), unused: Vec::new() }
    }

    /// Since a base: with what is in use in each, and what changed from one to the other; none when that is not known.
    pub(crate) fn since(used: &[Extent], in_base: Vec<Extent>, changed: Option<&[Extent]>) -> Self {
        let send = match changed {
            // What is in use now and was not then has never been sent, whether or not it was written meanwhile.
            Some(changed) => extent::union(&extent::intersection(changed, used), &extent::difference(used, &in_base)),
            None => used.to_vec(),
        };
        Self { send, unused: extent::difference(&in_base, used), in_base }
    }

    /// Bytes that are read of the copy.
    pub(crate) fn bytes(&self) -> u64 {
        extent::total(&self.send)
    }

    /// The parts in their order.
    fn pieces(&self) -> Vec<(Extent, Piece)> {
        let known = extent::intersection(&self.send, &self.in_base).into_iter().map(|one| (one, Piece::InBase));
        let fresh = extent::difference(&self.send, &self.in_base).into_iter().map(|one| (one, Piece::Fresh));
        let unused = self.unused.iter().map(|one| (*one, Piece::Unused));
        let mut pieces: Vec<_> = known.chain(fresh).chain(unused).collect();
        pieces.sort_unstable_by_key(|(one, _)| one.offset);
        pieces
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    InBase,
    Fresh,
    Unused,
}

/// What a block is to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Same,
    Zero,
    Data,
}

/// Writes the stream. `base` is the image of the copy that the header names as its base.
///
/// # Errors
/// An image cannot be read, `out` cannot be written, or the lists of the plan are no lists of whole blocks.
pub(crate) fn send(
    out: impl Write,
    header: Header,
    image: &Image,
    base: Option<&Image>,
    plan: &Plan,
    meter: &mut Meter,
) -> Result<Summary, VssError> {
    let block = header.block as usize;
    let mut writer = Writer::new(out, header).map_err(|error| unwritten(&error))?;
    let (mut wanted, mut found) = (vec![0; DATA_BYTES], vec![0; DATA_BYTES]);
    let mut done = 0;
    for (piece, kind) in plan.pieces() {
        if kind == Piece::Unused {
            let record = Record::Unused { offset: piece.offset, length: piece.length };
            writer.record(&record).map_err(|error| unwritten(&error))?;
            continue;
        }
        let mut offset = piece.offset;
        while offset < piece.end() {
            let length = usize::try_from(piece.end() - offset).map_or(DATA_BYTES, |rest| rest.min(DATA_BYTES));
            let wanted = &mut wanted[..length];
            image.read(wanted, offset)?;
            let before = match base.filter(|_| kind == Piece::InBase) {
                Some(base) => {
                    let found = &mut found[..length];
                    base.read(found, offset)?;
                    Some(&*found)
                }
                None => None,
            };
            for run in runs(wanted, before, block) {
                let sum = before.map(|before| BaseSum::of(&before[run.begin..run.end]));
                let place = offset + run.begin as u64;
                let record = match run.class {
                    Class::Same => continue,
                    Class::Zero => Record::Zero { offset: place, length: (run.end - run.begin) as u64, base: sum },
                    Class::Data => Record::Data { offset: place, data: &wanted[run.begin..run.end], base: sum },
                };
                writer.record(&record).map_err(|error| unwritten(&error))?;
            }
            offset += length as u64;
            done += length as u64;
            meter.show(done);
        }
    }
    let (_, summary) = writer.finish().map_err(|error| unwritten(&error))?;
    Ok(summary)
}

/// Neighbouring blocks of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    begin: usize,
    end: usize,
    class: Class,
}

fn runs(wanted: &[u8], before: Option<&[u8]>, block: usize) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for begin in (0..wanted.len()).step_by(block) {
        let end = wanted.len().min(begin + block);
        let bytes = &wanted[begin..end];
        let class = if before.is_some_and(|before| before[begin..end] == *bytes) {
            Class::Same
        } else if is_zero(bytes) {
            Class::Zero
        } else {
            Class::Data
        };
        match runs.last_mut() {
            Some(last) if last.class == class => last.end = end,
            _ => runs.push(Run { begin, end, class }),
        }
    }
    runs
}

/// Compares the bytes with themselves, one further: as fast as comparing is.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|first| *first == 0)
        && bytes[..bytes.len().saturating_sub(1)] == bytes[1.min(bytes.len())..]
}

fn unwritten(error: &StreamError) -> VssError {
    match &error.fault {
        Fault::Io(cause) if cause.kind() == io::ErrorKind::BrokenPipe => {
            VssError::new(VssCode::Unexpected, format!("Who reads the stream went away after {} bytes", error.at))
                .with_hint("It says why; the stream is torn, and no import takes it for whole")
        }
        Fault::Io(cause) if matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            VssError::new(
                VssCode::InsufficientStorage,
                format!("There is no room for the stream after {} bytes", error.at),
            )
            .with_hint("Write it to a larger file system")
        }
        _ => VssError::new(VssCode::Unexpected, format!("The stream cannot be written: {error}"))
            .with_hint("Look at where it goes, and into dmesg for errors of its disk"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(extents: &[(u64, u64)]) -> Vec<Extent> {
        extents.iter().map(|(offset, length)| Extent { offset: *offset, length: *length }).collect()
    }

    #[test]
    fn what_is_newly_in_use_is_sent_though_nobody_wrote_it() {
        // In use: 0..6 now, 0..4 and 8..10 then; written: 2..3 and 9..12.
        let plan = Plan::since(&list(&[(0, 6)]), list(&[(0, 4), (8, 2)]), Some(&list(&[(2, 1), (9, 3)])));
        assert_eq!(plan.send, list(&[(2, 1), (4, 2)]));
        let pieces = [
            (Extent { offset: 2, length: 1 }, Piece::InBase),
            (Extent { offset: 4, length: 2 }, Piece::Fresh),
            (Extent { offset: 8, length: 2 }, Piece::Unused),
        ];
        assert_eq!(plan.pieces(), pieces);
        let unknown = Plan::since(&list(&[(0, 6)]), list(&[(0, 4), (8, 2)]), None);
        assert_eq!((unknown.send, unknown.unused), (list(&[(0, 6)]), list(&[(8, 2)])));
    }

    #[test]
    fn blocks_are_told_apart() {
        let wanted = [[0; 4], [0; 4], [1; 4], [2; 4], [0; 4]].concat();
        let classes =
            |before| runs(&wanted, before, 4).iter().map(|run| (run.begin, run.end, run.class)).collect::<Vec<_>>();
        assert_eq!(classes(None), [(0, 8, Class::Zero), (8, 16, Class::Data), (16, 20, Class::Zero)]);
        let before = [[0; 4], [9; 4], [1; 4], [1; 4], [0; 4]].concat();
        let told = [
            (0, 4, Class::Same),
            (4, 8, Class::Zero),
            (8, 12, Class::Same),
            (12, 16, Class::Data),
            (16, 20, Class::Same),
        ];
        assert_eq!(classes(Some(&before)), told);
        assert!(is_zero(&[]) && is_zero(&[0]) && is_zero(&[0; 9]));
        assert!(!is_zero(&[1]) && !is_zero(&[0, 0, 1]) && !is_zero(&[1, 0, 0]) && !is_zero(&[3; 5]));
    }
}
