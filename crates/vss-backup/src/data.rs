//! The contents of files: read once, with their checksum, holes as holes.

use crate::digest::{BLOCK, Digest, Digester};
use crate::entry::Range;
use crate::progress::{Progress, Quiet};
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Which side failed: a file that cannot be read fails its component, a target that cannot be written ends the run.
#[derive(Debug)]
pub(crate) enum CopyError {
    Source(io::Error),
    Target(io::Error),
    /// The caller wished to stop.
    Stopped,
}

/// One piece of a file.
enum Piece<'a> {
    /// Whole blocks without data.
    Hole { blocks: u64 },
    /// One block with data in some of it.
    Block { offset: u64, bytes: &'a [u8], data: &'a [Range] },
}

/// Reads a file of this size block by block.
fn pieces<E: From<CopyError>>(
    file: &File,
    size: u64,
    buffer: &mut Vec<u8>,
    mut take: impl FnMut(Piece<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let source = |error| E::from(CopyError::Source(error));
    let mut offset = 0;
    let mut data = Vec::new();
    while offset < size {
        let begins = seek_data(file, offset, size).map_err(source)?;
        let blocks = (begins - offset) / BLOCK;
        // What is left of the last block is read: it is never left out.
        if blocks > 0 {
            take(Piece::Hole { blocks })?;
            offset += blocks * BLOCK;
            continue;
        }
        let length = BLOCK.min(size - offset);
        buffer.resize(usize::try_from(length).unwrap_or(usize::MAX), 0);
        file.read_exact_at(buffer, offset).map_err(source)?;
        data.clear();
        let (mut at, end) = (begins, offset + length);
        while at < end {
            let until = seek_hole(file, at, size).map_err(source)?.min(end).max(at + 1);
            data.push(Range { offset: at, length: until - at });
            at = seek_data(file, until, size).map_err(source)?;
        }
        take(Piece::Block { offset, bytes: buffer, data: &data })?;
        offset = end;
    }
    Ok(())
}

/// The next place with data from `offset` on, or the size.
fn seek_data(file: &File, offset: u64, size: u64) -> io::Result<u64> {
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(at) => Ok(at.min(size)),
        Err(Errno::NXIO) => Ok(size),
        // A file system that does not tell.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(offset),
        Err(error) => Err(error.into()),
    }
}

/// The next hole from `offset` on, or the size.
fn seek_hole(file: &File, offset: u64, size: u64) -> io::Result<u64> {
    match rustix::fs::seek(file, SeekFrom::Hole(offset)) {
        Ok(at) => Ok(at.min(size)),
        Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => Ok(size),
        Err(error) => Err(error.into()),
    }
}

/// So many bytes were dealt with.
fn count(progress: &mut dyn Progress, bytes: u64) -> Result<(), CopyError> {
    progress.bytes(bytes);
    if progress.stop() { Err(CopyError::Stopped) } else { Ok(()) }
}

/// Copies files, and remembers which shorter ways the two file systems have.
#[derive(Debug)]
pub(crate) struct Copier {
    buffer: Vec<u8>,
    /// Blocks can be shared.
    shares: bool,
    /// The kernel copies by itself.
    copies: bool,
}

impl Default for Copier {
    fn default() -> Self {
        Self { buffer: Vec::new(), shares: true, copies: true }
    }
}

impl Copier {
    /// Copies the first `size` bytes of `source` into the new, empty file `target`, and returns their checksum.
    pub(crate) fn copy(
        &mut self,
        source: &File,
        target: &File,
        size: u64,
        progress: &mut dyn Progress,
    ) -> Result<Digest, CopyError> {
        if self.shares && size > 0 {
            match rustix::fs::ioctl_ficlone(target, source) {
                Ok(()) => {
                    // All of it is shared, also what lies behind the bytes that are asked for.
                    target.set_len(size).map_err(CopyError::Target)?;
                    return self.digest(source, size, progress);
                }
                Err(Errno::NOSPC | Errno::DQUOT) => return Err(CopyError::Target(Errno::NOSPC.into())),
                Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS) => self.shares = false,
                // This file alone: no checksums, a swap file.
                Err(_) => {}
            }
        }
        target.set_len(size).map_err(CopyError::Target)?;
        let mut digester = Digester::default();
        let copies = &mut self.copies;
        pieces(source, size, &mut self.buffer, |piece| {
            let bytes = match piece {
                Piece::Hole { blocks } => {
                    digester.skip(blocks);
                    blocks.saturating_mul(BLOCK)
                }
                Piece::Block { offset, bytes, data } => {
                    digester.block(bytes);
                    for range in data {
                        write_range(source, target, offset, bytes, *range, copies)?;
                    }
                    bytes.len() as u64
                }
            };
            count(progress, bytes)
        })?;
        Ok(digester.finish())
    }

    /// The checksum of the first `size` bytes.
    pub(crate) fn digest(&mut self, file: &File, size: u64, progress: &mut dyn Progress) -> Result<Digest, CopyError> {
        let mut digester = Digester::default();
        pieces(file, size, &mut self.buffer, |piece| {
            let bytes = match piece {
                Piece::Hole { blocks } => {
                    digester.skip(blocks);
                    blocks.saturating_mul(BLOCK)
                }
                Piece::Block { bytes, .. } => {
                    digester.block(bytes);
                    bytes.len() as u64
                }
            };
            count(progress, bytes)
        })?;
        Ok(digester.finish())
    }

    /// Copies ranges of `source`, one behind the other, into the new, empty file `target`: their size and checksum.
    pub(crate) fn gather(
        &mut self,
        source: &File,
        target: &File,
        ranges: &[Range],
        progress: &mut dyn Progress,
    ) -> Result<(u64, Digest), CopyError> {
        let mut at = 0;
        for range in ranges {
            self.move_range(source, range.offset, target, at, range.length, progress)?;
            at += range.length;
        }
        let digest = self.digest(target, at, &mut Quiet).map_err(|error| match error {
            CopyError::Source(error) => CopyError::Target(error),
            other => other,
        })?;
        Ok((at, digest))
    }

    /// Copies `length` bytes from one place to another.
    pub(crate) fn move_range(
        &mut self,
        source: &File,
        from: u64,
        target: &File,
        to: u64,
        length: u64,
        progress: &mut dyn Progress,
    ) -> Result<(), CopyError> {
        let mut done = 0;
        while done < length {
            let count = BLOCK.min(length - done);
            self.buffer.resize(usize::try_from(count).unwrap_or(usize::MAX), 0);
            source.read_exact_at(&mut self.buffer, from + done).map_err(CopyError::Source)?;
            target.write_all_at(&self.buffer, to + done).map_err(CopyError::Target)?;
            done += count;
            self::count(progress, count)?;
        }
        Ok(())
    }
}

/// Writes one range of a block that was read: the kernel copies it where it can, which spares a way through memory.
fn write_range(
    source: &File,
    target: &File,
    offset: u64,
    bytes: &[u8],
    range: Range,
    copies: &mut bool,
) -> Result<(), CopyError> {
    let mut done = 0;
    while *copies && done < range.length {
        let (mut from, mut to) = (range.offset + done, range.offset + done);
        let rest = usize::try_from(range.length - done).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), rest) {
            Ok(count) if count > 0 => done += count as u64,
            Err(Errno::NOSPC | Errno::DQUOT) => return Err(CopyError::Target(Errno::NOSPC.into())),
            Err(Errno::INTR) => {}
            Ok(_) | Err(_) => *copies = false,
        }
    }
    let part = |at: u64| usize::try_from(at - offset).unwrap_or(usize::MAX);
    let rest = &bytes[part(range.offset + done)..part(range.offset + range.length)];
    target.write_all_at(rest, range.offset + done).map_err(CopyError::Target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::plain;
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    fn file() -> File {
        tempfile::tempfile().unwrap()
    }

    #[test]
    fn holes_stay_holes_and_a_huge_one_takes_no_time() {
        let source = file();
        source.set_len(1 << 43).unwrap();
        source.write_all_at(b"middle", (1 << 42) + 5).unwrap();
        source.write_all_at(b"end", (1 << 43) - 3).unwrap();
        let target = file();
        let digest = Copier::default().copy(&source, &target, 1 << 43, &mut Quiet).unwrap();
        assert_eq!(target.metadata().unwrap().len(), 1 << 43);
        assert!(target.metadata().unwrap().blocks() <= 64, "{}", target.metadata().unwrap().blocks());
        assert_eq!(Copier::default().digest(&target, 1 << 43, &mut Quiet).unwrap(), digest);
        let mut read = [0; 6];
        target.read_exact_at(&mut read, (1 << 42) + 5).unwrap();
        assert_eq!(&read, b"middle");
    }

    #[test]
    fn without_the_shorter_ways_the_result_is_the_same() {
        let mut source = file();
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        source.write_all(&bytes).unwrap();
        for copies in [true, false] {
            let target = file();
            let mut copier = Copier { copies, shares: false, ..Copier::default() };
            let digest = copier.copy(&source, &target, bytes.len() as u64, &mut Quiet).unwrap();
            assert_eq!(digest, plain(&bytes));
            let mut read = vec![0; bytes.len()];
            target.read_exact_at(&mut read, 0).unwrap();
            assert_eq!(read, bytes);
        }
    }

    #[test]
    fn ranges_lie_one_behind_the_other_and_a_short_file_is_an_error_of_the_source() {
        let mut source = file();
        source.write_all(b"0123456789").unwrap();
        let target = file();
        let ranges = [Range { offset: 7, length: 2 }, Range { offset: 0, length: 3 }];
        let (size, digest) = Copier::default().gather(&source, &target, &ranges, &mut Quiet).unwrap();
        assert_eq!((size, digest), (5, plain(b"78012")));
        let beyond = [Range { offset: 8, length: 5 }];
        let failed = Copier::default().gather(&source, &file(), &beyond, &mut Quiet);
        assert!(matches!(failed, Err(CopyError::Source(_))));
        assert!(matches!(Copier::default().digest(&source, 11, &mut Quiet), Err(CopyError::Source(_))));
    }
}
