//! One record: what belongs at a place of the volume. And the end, which is shaped like one.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 1 | kind: 1 data, 2 zero, 3 unused, 255 end |
//! | 1 | 1 | 1 when the sum of the base is given, else 0 |
//! | 2 | 2 | zeroes |
//! | 4 | 4 | sum of the base: the first bytes of the BLAKE3 of what the copy before has there; else zeroes |
//! | 8 | 8 | offset in the volume; in the end: how many records came before |
//! | 16 | 8 | length in bytes; in the end: how many bytes of data came before |
//! | 24 | 4 | zeroes |
//! | 28 | 4 | CRC-32C of the 28 bytes before and of what follows |
//! | 32 | n | data: the bytes, as many as the length says; end: BLAKE3 of the stream up to here |

use crate::base::BaseSum;
use crate::error::StreamError;
use crate::header::array;

/// Bytes of a record without its data.
pub const RECORD_BYTES: usize = 32;
/// Most bytes that one data record has.
pub const DATA_BYTES: usize = 1 << 20;
/// Bytes of the end.
pub const END_BYTES: usize = RECORD_BYTES + DIGEST_BYTES;

pub(crate) const DIGEST_BYTES: usize = 32;
const DATA: u8 = 1;
const ZERO: u8 = 2;
const UNUSED: u8 = 3;
const END: u8 = 255;

/// What belongs at a place of the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// These bytes, 1 to [`DATA_BYTES`].
    Data {
        /// Where, in bytes from the beginning of the volume.
        offset: u64,
        /// The bytes.
        data: &'a [u8],
        /// What the copy before has there; none where it has nothing in use.
        base: Option<BaseSum>,
    },
    /// So many zeroes.
    Zero {
        /// Where.
        offset: u64,
        /// How many.
        length: u64,
        /// As in data.
        base: Option<BaseSum>,
    },
    /// The copy before had these bytes in use and this one has not: anything may be there.
    Unused {
        /// Where.
        offset: u64,
        /// How many.
        length: u64,
    },
}

impl Record<'_> {
    /// Where it belongs.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        match self {
            Self::Data { offset, .. } | Self::Zero { offset, .. } | Self::Unused { offset, .. } => *offset,
        }
    }

    /// How many bytes of the volume it is about.
    #[must_use]
    pub const fn length(&self) -> u64 {
        match self {
            Self::Data { data, .. } => data.len() as u64,
            Self::Zero { length, .. } | Self::Unused { length, .. } => *length,
        }
    }

    /// What was there before, where it is known.
    #[must_use]
    pub const fn base(&self) -> Option<BaseSum> {
        match self {
            Self::Data { base, .. } | Self::Zero { base, .. } => *base,
            Self::Unused { .. } => None,
        }
    }
}

/// What a whole stream came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Records.
    pub records: u64,
    /// Bytes of data.
    pub data_bytes: u64,
    /// Bytes of zeroes, which travel as a record.
    pub zero_bytes: u64,
    /// Bytes that are no longer in use.
    pub unused_bytes: u64,
    /// Bytes of the stream itself.
    pub stream_bytes: u64,
    /// BLAKE3 of the stream up to its digest: its name, so to say.
    pub digest: [u8; DIGEST_BYTES],
}

impl Summary {
    /// Takes note of a record.
    pub(crate) fn count(&mut self, record: &Record<'_>) {
        self.records += 1;
        match record {
            Record::Data { data, .. } => self.data_bytes += data.len() as u64,
            Record::Zero { length, .. } => self.zero_bytes += length,
            Record::Unused { length, .. } => self.unused_bytes += length,
        }
    }
}

/// The kind of a record, as it stands in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Data,
    Zero,
    Unused,
    End,
}

/// The first 32 bytes of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) base: Option<BaseSum>,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl Head {
    pub(crate) fn of(record: &Record<'_>) -> Self {
        let kind = match record {
            Record::Data { .. } => Kind::Data,
            Record::Zero { .. } => Kind::Zero,
            Record::Unused { .. } => Kind::Unused,
        };
        Self { kind, base: record.base(), offset: record.offset(), length: record.length() }
    }

    pub(crate) fn end(summary: &Summary) -> Self {
        Self { kind: Kind::End, base: None, offset: summary.records, length: summary.data_bytes }
    }

    /// The bytes, with the checksum of them and of `rest`.
    pub(crate) fn encode(&self, rest: &[u8]) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[0] = match self.kind {
            Kind::Data => DATA,
            Kind::Zero => ZERO,
            Kind::Unused => UNUSED,
            Kind::End => END,
        };
        bytes[1] = u8::from(self.base.is_some());
        bytes[4..8].copy_from_slice(&self.base.map_or([0; 4], |base| base.0));
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.length.to_le_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..28]), rest);
        bytes[28..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the bytes, `at` in the stream; the checksum is looked at by whoever has the rest.
    pub(crate) fn decode(bytes: &[u8; RECORD_BYTES], at: u64) -> Result<Self, StreamError> {
        let kind = match bytes[0] {
            DATA => Kind::Data,
            ZERO => Kind::Zero,
            UNUSED => Kind::Unused,
            END => Kind::End,
            other => return Err(StreamError::nonsense(at, format!("a record of the kind {other}"))),
        };
        let sum = array(bytes, 4);
        let base = match bytes[1] {
            1 if matches!(kind, Kind::Data | Kind::Zero) => Some(BaseSum(sum)),
            0 if sum == [0; 4] => None,
            _ => return Err(StreamError::nonsense(at + 1, "a sum of the base where there can be none")),
        };
        if bytes[2..4] != [0; 2] || bytes[24..28] != [0; 4] {
            return Err(StreamError::nonsense(at + 2, "bytes that are set and mean nothing"));
        }
        let (offset, length) = (u64::from_le_bytes(array(bytes, 8)), u64::from_le_bytes(array(bytes, 16)));
        Ok(Self { kind, base, offset, length })
    }

    /// The checksum that the bytes have.
    pub(crate) fn checksum(bytes: &[u8; RECORD_BYTES]) -> u32 {
        u32::from_le_bytes(array(bytes, 28))
    }
}

/// What a place has to be to follow `from`: ascending, apart, in whole blocks, within the volume.
pub(crate) fn check_place(header: &crate::Header, from: u64, head: &Head) -> Result<(), String> {
    let Head { offset, length, kind, base } = *head;
    let (block, size) = (u64::from(header.block), header.volume_size);
    let end = offset.checked_add(length).filter(|end| *end <= size);
    let Some(end) = end.filter(|_| length > 0) else {
        return Err(format!("{length} bytes at {offset} of a volume of {size} bytes"));
    };
    if offset < from {
        return Err(format!("bytes at {offset}, after the place {from} was reached"));
    }
    if offset % block != 0 || (end % block != 0 && end != size) {
        return Err(format!("{length} bytes at {offset}, which are no whole blocks of {block} bytes"));
    }
    if kind == Kind::Data && length > DATA_BYTES as u64 {
        return Err(format!("{length} bytes of data in one record; {DATA_BYTES} is the most"));
    }
    if header.since.is_none() && (base.is_some() || kind == Kind::Unused) {
        return Err("what the copy before had, in a stream that builds on none".to_owned());
    }
    Ok(())
}
