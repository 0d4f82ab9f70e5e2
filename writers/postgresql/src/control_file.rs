//! `global/pg_control`: whose cluster it is, and a whole copy of it while the server keeps writing it.
//!
//! The server rewrites it in place. Its checksum tells a torn read, as PostgreSQL's own tools notice one (PostgreSQL,
//! `src/include/catalog/pg_control.h`: CRC-32C of everything before it, in the machine's byte order).

use rustix::fs::OFlags;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;
use vss_linux::mount::open_beneath;

/// Size of the file.
pub(crate) const SIZE: usize = 8192;
/// Most bytes that its contents take.
const LARGEST_CONTENTS: usize = 512;
/// Fewest bytes before the checksum: no version of PostgreSQL has less.
const SMALLEST_CONTENTS: usize = 64;
/// How often a torn file is read again.
const TRIES: u32 = 10;

/// Where it is in a data directory.
pub(crate) const PATH: &str = "global/pg_control";

/// The bytes of the file in a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ControlFile(Vec<u8>);

impl ControlFile {
    /// Reads the file below `data`, again while it is torn.
    ///
    /// # Errors
    /// It cannot be read; `InvalidData` when it stays torn, or is none of PostgreSQL's.
    pub(crate) fn read(data: BorrowedFd<'_>) -> io::Result<Self> {
        for _ in 0..TRIES {
            let mut bytes = vec![0; SIZE];
            let file = open_beneath(data, Path::new(PATH), OFlags::RDONLY)?;
            let read = rustix::io::pread(&file, &mut *bytes, 0)?;
            bytes.truncate(read);
            if is_whole(&bytes) {
                return Ok(Self(bytes));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("{PATH} is damaged")))
    }

    /// What tells this cluster from every other one.
    pub(crate) fn system_identifier(&self) -> u64 {
        self.0.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    }

    /// The whole file.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// True when the checksum is somewhere where it fits: where exactly depends on the version.
fn is_whole(bytes: &[u8]) -> bool {
    let contents = bytes.get(..LARGEST_CONTENTS.min(bytes.len())).unwrap_or_default();
    let places = (SMALLEST_CONTENTS..contents.len().saturating_sub(3)).step_by(4);
    places.into_iter().any(|place| {
        let found = contents[place..].first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
        // Everything after the checksum is zero: an early match by chance is none.
        found == Some(crc32c::crc32c(&contents[..place])) && contents[place + 8..].iter().all(|byte| *byte == 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Contents of 296 bytes with their checksum, as PostgreSQL 15 has them.
    fn file() -> Vec<u8> {
        let mut bytes = vec![0; SIZE];
        bytes[..8].copy_from_slice(&0x1234_5678_9abc_def0_u64.to_ne_bytes());
        bytes[8..292].iter_mut().enumerate().for_each(|(index, byte)| *byte = u8::try_from(index % 251).unwrap());
        let sum = crc32c::crc32c(&bytes[..292]);
        bytes[292..296].copy_from_slice(&sum.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_whole_file_is_told_from_a_torn_one() {
        let good = file();
        assert!(is_whole(&good));
        let mut torn = good.clone();
        torn[100] ^= 1;
        assert!(!is_whole(&torn) && !is_whole(&[0; SIZE]) && !is_whole(&good[..200]) && !is_whole(&[]));
    }

    #[test]
    fn names_its_cluster() {
        assert_eq!(ControlFile(file()).system_identifier(), 0x1234_5678_9abc_def0);
    }
}
