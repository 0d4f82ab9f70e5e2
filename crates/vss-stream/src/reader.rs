//! Reading a stream: nothing is given out before its checksum was right.

use crate::error::{Fault, StreamError};
use crate::header::FIXED_BYTES;
use crate::record::{DATA_BYTES, DIGEST_BYTES, Head, Kind, RECORD_BYTES, check_place};
use crate::{Header, Record, Summary};
use blake3::Hasher;
use std::io::{self, Read};

/// Reads a stream. Holds one record at a time, [`DATA_BYTES`] at most.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    header: Header,
    digest: Hasher,
    from: u64,
    data: Vec<u8>,
    summary: Summary,
    is_over: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// `input` cannot be read, or does not begin with a header of this version that is whole.
    pub fn new(mut input: R) -> Result<Self, StreamError> {
        let mut bytes = vec![0; FIXED_BYTES];
        read(&mut input, 0, &mut bytes[..8])?;
        if bytes[..8] != crate::MAGIC {
            return Err(StreamError::at(0, Fault::NoStream));
        }
        read(&mut input, 8, &mut bytes[8..])?;
        let length = Header::length(&crate::header::array(&bytes, 0))?;
        bytes.resize(length, 0);
        read(&mut input, FIXED_BYTES as u64, &mut bytes[FIXED_BYTES..])?;
        let header = Header::decode(&bytes)?;
        let mut digest = Hasher::new();
        digest.update(&bytes);
        let summary = Summary { stream_bytes: bytes.len() as u64, ..Summary::default() };
        Ok(Self { input, header, digest, from: 0, data: Vec::new(), summary, is_over: false })
    }

    /// Which copy it is of.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What was read so far; after the end, what the whole stream came to.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// The next record; none at the end, which has been found to be the right one then.
    ///
    /// # Errors
    /// `input` cannot be read; it is torn, damaged, or no writer's. What was given out before was whole, but the stream is
    /// not: only at its end it is known to be complete.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, StreamError> {
        if self.is_over {
            return Ok(None);
        }
        let at = self.summary.stream_bytes;
        let mut bytes = [0; RECORD_BYTES];
        read(&mut self.input, at, &mut bytes)?;
        let head = match Head::decode(&bytes, at) {
            Ok(head) => head,
            Err(error) => return Err(damaged_before(&bytes, at).unwrap_or(error)),
        };
        if head.kind == Kind::End {
            return self.end(&bytes, head, at).map(|()| None);
        }
        if let Err(what) = check_place(&self.header, self.from, &head) {
            return Err(damaged_before(&bytes, at).unwrap_or_else(|| StreamError::nonsense(at, what)));
        }
        // At most DATA_BYTES: the place was checked.
        let wanted = if head.kind == Kind::Data { usize::try_from(head.length).unwrap_or(DATA_BYTES) } else { 0 };
        self.data.resize(wanted, 0);
        read(&mut self.input, at + RECORD_BYTES as u64, &mut self.data)?;
        check_sum(&bytes, &self.data, at)?;
        self.digest.update(&bytes);
        self.digest.update(&self.data);
        self.summary.stream_bytes = at + (RECORD_BYTES + wanted) as u64;
        self.from = head.offset + head.length;
        let Head { offset, length, base, .. } = head;
        let record = match head.kind {
            Kind::Data => Record::Data { offset, data: &self.data, base },
            Kind::Zero => Record::Zero { offset, length, base },
            Kind::Unused | Kind::End => Record::Unused { offset, length },
        };
        self.summary.count(&record);
        Ok(Some(record))
    }

    /// Checks the end, and that nothing follows it.
    fn end(&mut self, bytes: &[u8; RECORD_BYTES], head: Head, at: u64) -> Result<(), StreamError> {
        let mut digest = [0; DIGEST_BYTES];
        read(&mut self.input, at + RECORD_BYTES as u64, &mut digest)?;
        check_sum(bytes, &digest, at)?;
        if (head.offset, head.length) != (self.summary.records, self.summary.data_bytes) {
            let (records, data) = (head.offset, head.length);
            return Err(StreamError::nonsense(at, format!("an end after {records} records with {data} bytes of data")));
        }
        if self.digest.finalize() != digest {
            return Err(StreamError::at(at, Fault::Digest));
        }
        self.summary.stream_bytes = at + (RECORD_BYTES + DIGEST_BYTES) as u64;
        self.summary.digest = digest;
        match read(&mut self.input, self.summary.stream_bytes, &mut [0]) {
            Err(StreamError { fault: Fault::Torn, .. }) => {}
            Ok(()) => return Err(StreamError::at(self.summary.stream_bytes, Fault::Trailing)),
            Err(error) => return Err(error),
        }
        self.is_over = true;
        Ok(())
    }
}

/// A record without data says by its checksum whether it was written like that: then damage is called damage.
fn damaged_before(bytes: &[u8; RECORD_BYTES], at: u64) -> Option<StreamError> {
    check_sum(bytes, &[], at).err()
}

fn check_sum(bytes: &[u8; RECORD_BYTES], rest: &[u8], at: u64) -> Result<(), StreamError> {
    let wanted = Head::checksum(bytes);
    let found = crc32c::crc32c_append(crc32c::crc32c(&bytes[..28]), rest);
    if wanted == found { Ok(()) } else { Err(StreamError::at(at, Fault::Checksum { wanted, found })) }
}

/// Fills `buffer`, or says where the stream ends.
fn read(input: &mut impl Read, mut at: u64, mut buffer: &mut [u8]) -> Result<(), StreamError> {
    while !buffer.is_empty() {
        match input.read(buffer) {
            Ok(0) => return Err(StreamError::at(at, Fault::Torn)),
            Ok(count) => {
                at += count as u64;
                buffer = &mut buffer[count..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(StreamError::at(at, error)),
        }
    }
    Ok(())
}
