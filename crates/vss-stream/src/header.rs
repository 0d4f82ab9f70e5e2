//! The header: which copy the stream is of.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | magic, [`MAGIC`] |
//! | 8 | 2 | version of the format, [`VERSION`] |
//! | 10 | 2 | flags: bit 0, incremental; every other bit is 0 |
//! | 12 | 4 | bytes of the header, its checksum included, at most [`LONGEST_HEADER`] |
//! | 16 | 16 | the set's id |
//! | 32 | 16 | the shadow copy's id |
//! | 48 | 16 | the id of the copy that it builds on; zeroes when it builds on none |
//! | 64 | 8 | bytes of the volume, 1 to 2^63 - 1 |
//! | 72 | 4 | bytes of a block, a power of two, 512 to 1 MiB |
//! | 76 | 4 | zeroes |
//! | 80 | 3 × (1 + n) | volume id, file system type, time of the cut: a length and so many bytes of UTF-8 |
//! | ... | 4 | CRC-32C of all bytes before |
//!
//! Numbers are little-endian, ids most significant byte first.

use crate::error::{Fault, StreamError};
use vss_model::{Instant, SetId, ShadowId};

/// The first bytes of every stream. Not ASCII, and with line ends in it, so that a transfer that changes bytes shows at once.
pub const MAGIC: [u8; 8] = *b"\x89VSS\r\n\x1a\n";
/// The version of the format that this release writes and reads.
pub const VERSION: u16 = 1;
/// Bytes of the longest header that is read.
pub const LONGEST_HEADER: usize = 1024;

/// Bytes before the texts.
pub(crate) const FIXED_BYTES: usize = 80;
const CHECKSUM_BYTES: usize = 4;
const INCREMENTAL: u16 = 1;
/// An offset has to fit in the kernel's signed `loff_t`.
const LARGEST_VOLUME: u64 = i64::MAX as u64;
const BLOCKS: std::ops::RangeInclusive<u32> = 512..=1 << 20;

/// Which copy the stream is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The set that the copy belongs to.
    pub set_id: SetId,
    /// The copy.
    pub shadow_id: ShadowId,
    /// The copy that has to be there before; none for a stream that stands by itself.
    pub since: Option<ShadowId>,
    /// Bytes of the volume.
    pub volume_size: u64,
    /// Bytes of one block.
    pub block: u32,
    /// The lasting name of the volume, at most 255 bytes.
    pub volume_id: String,
    /// The file system type, at most 255 bytes.
    pub fs_type: String,
    /// When the copy was cut.
    pub cut_at: Instant,
}

impl Header {
    /// Its bytes.
    ///
    /// # Errors
    /// [`Fault::Nonsense`] for what cannot be read back.
    pub fn encode(&self) -> Result<Vec<u8>, StreamError> {
        self.check().map_err(|what| StreamError::nonsense(0, what))?;
        let mut bytes = Vec::with_capacity(256);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(if self.since.is_some() { INCREMENTAL } else { 0 }.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.set_id.as_bytes());
        bytes.extend(self.shadow_id.as_bytes());
        bytes.extend(self.since.map_or([0; 16], |since| *since.as_bytes()));
        bytes.extend(self.volume_size.to_le_bytes());
        bytes.extend(self.block.to_le_bytes());
        bytes.extend([0; 4]);
        for text in [&self.volume_id, &self.fs_type, &self.cut_at.to_string()] {
            let length = u8::try_from(text.len())
                .map_err(|_| StreamError::nonsense(0, format!("a name of {} bytes; 255 is the most", text.len())))?;
            bytes.push(length);
            bytes.extend(text.as_bytes());
        }
        // 80 + 3 * 256 + 4 at most.
        let length = (bytes.len() + CHECKSUM_BYTES) as u32;
        bytes[12..16].copy_from_slice(&length.to_le_bytes());
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        Ok(bytes)
    }

    /// How long the header is that begins with these bytes.
    ///
    /// # Errors
    /// It is no stream, one of another version, or longer than any.
    pub(crate) fn length(fixed: &[u8; FIXED_BYTES]) -> Result<usize, StreamError> {
        if fixed[..8] != MAGIC {
            return Err(StreamError::at(0, Fault::NoStream));
        }
        let version = u16::from_le_bytes([fixed[8], fixed[9]]);
        if version != VERSION {
            return Err(StreamError::at(8, Fault::Version(version)));
        }
        let length = u32::from_le_bytes(array(fixed, 12)) as usize;
        if !(FIXED_BYTES + 3 + CHECKSUM_BYTES..=LONGEST_HEADER).contains(&length) {
            return Err(StreamError::nonsense(12, format!("a header of {length} bytes")));
        }
        Ok(length)
    }

    /// Reads a whole header.
    ///
    /// # Errors
    /// Its checksum is wrong, or it says what cannot be.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StreamError> {
        let (body, checksum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
        let (wanted, found) = (u32::from_le_bytes(array(checksum, 0)), crc32c::crc32c(body));
        if wanted != found {
            return Err(StreamError::at(body.len() as u64, Fault::Checksum { wanted, found }));
        }
        let flags = u16::from_le_bytes(array(body, 10));
        if flags & !INCREMENTAL != 0 {
            return Err(StreamError::nonsense(10, format!("flags {flags:#06x}")));
        }
        if body[76..80] != [0; 4] {
            return Err(StreamError::nonsense(76, "bytes that are set and mean nothing"));
        }
        let mut texts = Texts { body, at: FIXED_BYTES };
        let (volume_id, fs_type) = (texts.next()?.to_owned(), texts.next()?.to_owned());
        let cut = texts.at as u64;
        let cut_at = texts.next()?.parse().map_err(|error| StreamError::nonsense(cut, format!("{error}")))?;
        if texts.at != body.len() {
            return Err(StreamError::nonsense(texts.at as u64, "a header with something behind its texts"));
        }
        let since = ShadowId::from_u128(u128::from_be_bytes(array(body, 48)));
        let header = Self {
            set_id: SetId::from_u128(u128::from_be_bytes(array(body, 16))),
            shadow_id: ShadowId::from_u128(u128::from_be_bytes(array(body, 32))),
            since: (flags & INCREMENTAL != 0).then_some(since),
            volume_size: u64::from_le_bytes(array(body, 64)),
            block: u32::from_le_bytes(array(body, 72)),
            volume_id,
            fs_type,
            cut_at,
        };
        if header.since.is_none() && body[48..64] != [0; 16] {
            return Err(StreamError::nonsense(48, "a copy to build on, in a stream that builds on none"));
        }
        header.check().map_err(|what| StreamError::nonsense(64, what))?;
        Ok(header)
    }

    fn check(&self) -> Result<(), String> {
        if !(1..=LARGEST_VOLUME).contains(&self.volume_size) {
            return Err(format!("a volume of {} bytes", self.volume_size));
        }
        if !self.block.is_power_of_two() || !BLOCKS.contains(&self.block) {
            return Err(format!("blocks of {} bytes", self.block));
        }
        if self.since == Some(self.shadow_id) {
            return Err("a copy that builds on itself".to_owned());
        }
        Ok(())
    }
}

struct Texts<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Texts<'a> {
    fn next(&mut self) -> Result<&'a str, StreamError> {
        let begin = self.at;
        let text = self.body.get(begin).and_then(|length| self.body.get(begin + 1..begin + 1 + usize::from(*length)));
        let text = text.ok_or_else(|| StreamError::nonsense(begin as u64, "a text that is longer than the header"))?;
        self.at = begin + 1 + text.len();
        std::str::from_utf8(text).map_err(|_| StreamError::nonsense(begin as u64, "a text that is no UTF-8"))
    }
}

/// The bytes at a place that the caller knows to be there.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut found = [0; N];
    found.copy_from_slice(&bytes[at..at + N]);
    found
}
