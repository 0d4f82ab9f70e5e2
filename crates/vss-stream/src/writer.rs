//! Writing a stream.

use crate::error::StreamError;
use crate::record::{END_BYTES, Head, check_place};
use crate::{Header, Record, Summary};
use blake3::Hasher;
use std::io::Write;

/// Writes a stream, record by record in ascending order. One that is dropped before [`Writer::finish`] is torn, and every
/// reader will say so.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    header: Header,
    digest: Hasher,
    /// Where the next record may begin, in the volume.
    from: u64,
    summary: Summary,
}

impl<W: Write> Writer<W> {
    /// Begins a stream.
    ///
    /// # Errors
    /// `out` cannot be written; a header that could not be read back.
    pub fn new(out: W, header: Header) -> Result<Self, StreamError> {
        let bytes = header.encode()?;
        let mut writer = Self { out, header, digest: Hasher::new(), from: 0, summary: Summary::default() };
        writer.put(&bytes)?;
        Ok(writer)
    }

    /// Writes one record.
    ///
    /// # Errors
    /// `out` cannot be written; a record that is not where or what the next one can be.
    pub fn record(&mut self, record: &Record<'_>) -> Result<(), StreamError> {
        let head = Head::of(record);
        check_place(&self.header, self.from, &head)
            .map_err(|what| StreamError::nonsense(self.summary.stream_bytes, what))?;
        let data: &[u8] = if let Record::Data { data, .. } = record { data } else { &[] };
        let bytes = head.encode(data);
        self.put(&bytes)?;
        self.put(data)?;
        self.from = record.offset() + record.length();
        self.summary.count(record);
        Ok(())
    }

    /// What was written so far.
    #[must_use]
    pub fn so_far(&self) -> &Summary {
        &self.summary
    }

    /// Writes the end. The caller still has to bring `out` to disk where that matters.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn finish(mut self) -> Result<(W, Summary), StreamError> {
        // The head's checksum covers the digest, and the digest covers all but the head: neither needs the other.
        let digest = *self.digest.finalize().as_bytes();
        let mut end = [0; END_BYTES];
        end[..32].copy_from_slice(&Head::end(&self.summary).encode(&digest));
        end[32..].copy_from_slice(&digest);
        self.put(&end)?;
        self.out.flush().map_err(|error| StreamError::at(self.summary.stream_bytes, error))?;
        self.summary.digest = digest;
        Ok((self.out, self.summary))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        self.out.write_all(bytes).map_err(|error| StreamError::at(self.summary.stream_bytes, error))?;
        self.digest.update(bytes);
        self.summary.stream_bytes += bytes.len() as u64;
        Ok(())
    }
}
