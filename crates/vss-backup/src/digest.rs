//! Checksums of file contents.
//!
//! A file without a block of nothing but zeros has its plain BLAKE3, which `b3sum` computes too. In any other file such
//! blocks are left out, whether they are holes or zeros on disk, and where they were is part of the checksum: a file with a
//! hole of a petabyte is checked in no time, and a checksum says nothing of how the file lies on its disk.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// The size of a block, in bytes; the last one of a file may be shorter and is never left out.
pub const BLOCK: u64 = 1 << 20;

/// A checksum, as text `blake3:` or, with blocks left out, `blake3-holes:` and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    holes: bool,
    hash: blake3::Hash,
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", if self.holes { "blake3-holes" } else { "blake3" }, self.hash.to_hex())
    }
}

/// The text is no checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidDigest;

impl fmt::Display for InvalidDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no checksum of the form blake3:HEX or blake3-holes:HEX")
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let (kind, hex) = text.split_once(':').ok_or(InvalidDigest)?;
        let holes = match kind {
            "blake3" => false,
            "blake3-holes" => true,
            _ => return Err(InvalidDigest),
        };
        Ok(Self { holes, hash: blake3::Hash::from_hex(hex).map_err(|_| InvalidDigest)? })
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Computes the checksum of a file that is read block by block, from its beginning.
#[derive(Debug, Default)]
pub struct Digester {
    data: blake3::Hasher,
    /// Runs of blocks that were left out: the number of the first and how many, 8 bytes each, little-endian.
    holes: blake3::Hasher,
    /// The run that is not in `holes` yet.
    run: Option<(u64, u64)>,
    any: bool,
    position: u64,
}

impl Digester {
    /// Takes the next block: [`BLOCK`] bytes, or less at the end of the file.
    pub fn block(&mut self, bytes: &[u8]) {
        if bytes.len() as u64 == BLOCK && is_zero(bytes) {
            self.skip(1);
        } else {
            self.data.update(bytes);
            self.position += bytes.len() as u64;
        }
    }

    /// Takes the next `blocks` whole blocks, all zeros.
    pub fn skip(&mut self, blocks: u64) {
        let at = self.position / BLOCK;
        match &mut self.run {
            Some((from, count)) if *from + *count == at => *count += blocks,
            _ => {
                self.end_run();
                self.run = Some((at, blocks));
            }
        }
        self.position += blocks * BLOCK;
    }

    fn end_run(&mut self) {
        if let Some((from, count)) = self.run.take() {
            self.any = true;
            self.holes.update(&from.to_le_bytes()).update(&count.to_le_bytes());
        }
    }

    /// The checksum of what was taken: with blocks left out, that of the size in 8 bytes, of the checksum of the runs and of
    /// the checksum of the rest.
    #[must_use]
    pub fn finish(mut self) -> Digest {
        self.end_run();
        let hash = if self.any {
            let mut all = blake3::Hasher::new();
            all.update(&self.position.to_le_bytes());
            all.update(self.holes.finalize().as_bytes()).update(self.data.finalize().as_bytes());
            all.finalize()
        } else {
            self.data.finalize()
        };
        Digest { holes: self.any, hash }
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

/// The checksum of bytes in memory, without regard to zeros.
#[must_use]
pub fn plain(bytes: &[u8]) -> Digest {
    Digest { holes: false, hash: blake3::hash(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = BLOCK as usize;

    fn of(bytes: &[u8]) -> Digest {
        let mut digester = Digester::default();
        bytes.chunks(SIZE).for_each(|block| digester.block(block));
        digester.finish()
    }

    #[test]
    fn without_blocks_of_zeros_it_is_plain_blake3() {
        for bytes in [Vec::new(), b"abc".to_vec(), vec![0; 100], vec![7; 3 * SIZE + 5]] {
            assert_eq!(of(&bytes), plain(&bytes));
            assert_eq!(of(&bytes).to_string().parse(), Ok(of(&bytes)));
        }
    }

    #[test]
    fn holes_and_zeros_are_the_same_and_their_places_count() {
        let mut bytes = vec![0; 4 * SIZE + 9];
        bytes[2 * SIZE + 1] = 1;
        let mut digester = Digester::default();
        digester.skip(2);
        digester.block(&bytes[2 * SIZE..3 * SIZE]);
        digester.block(&bytes[3 * SIZE..4 * SIZE]);
        digester.block(&bytes[4 * SIZE..]);
        let digest = digester.finish();
        assert_eq!(digest, of(&bytes));
        assert!(digest.to_string().starts_with("blake3-holes:"));
        let mut moved = bytes.clone();
        moved.rotate_right(SIZE);
        assert_ne!(of(&moved), digest);
        assert_ne!(of(&bytes[..4 * SIZE]), digest);
        assert_eq!(digest.to_string().parse(), Ok(digest));
    }

    #[test]
    fn no_checksum_is_refused() {
        for text in ["", "blake3", "blake3:00", "md5:00", &format!("blake3:{}", "g".repeat(64))] {
            assert_eq!(text.parse::<Digest>(), Err(InvalidDigest), "{text}");
        }
    }
}
