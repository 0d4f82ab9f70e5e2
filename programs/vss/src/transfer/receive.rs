//! From a stream into an image file or a device.

use super::Target;
use crate::exit::system_error;
use crate::meter::Meter;
use std::io::{self, Read};
use vss_model::Bytes;
use vss_model::{VssCode, VssError};
use vss_stream::{BaseHasher, BaseSum, DATA_BYTES, Fault, Reader, Record, StreamError, Summary};

/// Reads a stream to its end.
///
/// # Errors
/// `E_INVALIDARG`: it is torn, damaged, or none.
pub(crate) fn verify<R: Read>(mut reader: Reader<R>, meter: &mut Meter) -> Result<Summary, VssError> {
    while reader.next_record().map_err(|error| unreadable(&error))?.is_some() {
        meter.show(reader.summary().stream_bytes);
    }
    Ok(*reader.summary())
}

/// Applies a stream to its end, and brings it to disk. `check`: what the base had in use is looked at before it is replaced.
/// `fresh`: there are zeroes where nothing was written yet.
///
/// # Errors
/// `E_INVALIDARG`: it is torn or damaged, or the target is not its base; the target cannot be written. What was applied
/// before stays.
pub(crate) fn apply<R: Read>(
    mut reader: Reader<R>,
    target: &Target,
    check: bool,
    fresh: bool,
    meter: &mut Meter,
) -> Result<Summary, VssError> {
    let mut buffer = vec![0; if check { DATA_BYTES } else { 0 }];
    let mut done = 0;
    while let Some(record) = reader.next_record().map_err(|error| unreadable(&error))? {
        if let Some(wanted) = record.base().filter(|_| check)
            && sum(target, &record, &mut buffer).map_err(|error| unwritten(&record, &error))? != wanted
        {
            let message = format!("At {} it is not what the stream builds on: it was written to", record.offset());
            return Err(VssError::new(VssCode::InvalidArgument, message)
                .with_hint("Export the copy without --since, and import that"));
        }
        let written = match record {
            Record::Data { offset, data, .. } => target.write(data, offset),
            Record::Zero { .. } if fresh => Ok(()),
            Record::Zero { offset, length, .. } => target.zero(offset, length),
            Record::Unused { offset, length } => target.release(offset, length),
        };
        written.map_err(|error| unwritten(&record, &error))?;
        done += record.length();
        meter.show(done);
    }
    target.sync().map_err(|error| system_error("The blocks cannot be brought to disk", &error))?;
    Ok(*reader.summary())
}

/// What the target has at the place of the record.
fn sum(target: &Target, record: &Record<'_>, buffer: &mut [u8]) -> io::Result<BaseSum> {
    let (mut offset, mut left) = (record.offset(), record.length());
    let mut hasher = BaseHasher::default();
    while left > 0 {
        let part = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        target.read(&mut buffer[..part], offset)?;
        hasher.update(&buffer[..part]);
        offset += part as u64;
        left -= part as u64;
    }
    Ok(hasher.finish())
}

/// What a stream had in it.
pub(crate) fn in_words(summary: &Summary) -> String {
    let Summary { data_bytes, zero_bytes, unused_bytes, stream_bytes, digest, .. } = summary;
    let mut words = format!("{} of data", Bytes(*data_bytes));
    for (bytes, what) in [(zero_bytes, "of zeroes"), (unused_bytes, "no longer in use")] {
        if *bytes > 0 {
            words.push_str(&format!(", {} {what}", Bytes(*bytes)));
        }
    }
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{words}; {stream_bytes} bytes, BLAKE3 {digest}")
}

/// An error of a stream for a person.
pub(crate) fn unreadable(error: &StreamError) -> VssError {
    let (code, hint) = match &error.fault {
        Fault::Torn => (VssCode::InvalidArgument, "Transfer it again; the same import run again ends what was begun"),
        Fault::Checksum { .. } | Fault::Digest => (VssCode::InvalidArgument, "Transfer or export it again"),
        Fault::NoStream => (VssCode::InvalidArgument, "Name what `vss export` has written"),
        Fault::Version(_) => (VssCode::InvalidArgument, "Use a release of vss that knows it"),
        Fault::Io(_) => (VssCode::Unexpected, ""),
        _ => (VssCode::InvalidArgument, "Export it again"),
    };
    let text = error.to_string();
    let message = text.get(..1).map_or(text.clone(), |first| first.to_uppercase() + &text[1..]);
    VssError::new(code, message).with_hint(hint)
}

fn unwritten(record: &Record<'_>, error: &io::Error) -> VssError {
    let what = format!("{} bytes at {} cannot be written", record.length(), record.offset());
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return VssError::new(VssCode::InsufficientStorage, format!("{what}: {error}"))
            .with_hint("Make room and run the same import again");
    }
    system_error(what, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use vss_model::{Instant, SetId, ShadowId};
    use vss_stream::{Header, Writer};

    const BLOCK: usize = 4096;

    fn stream(records: &[Record<'_>], since: Option<u128>) -> Vec<u8> {
        let header = Header {
            set_id: SetId::from_u128(1),
            shadow_id: ShadowId::from_u128(2),
            since: since.map(ShadowId::from_u128),
            volume_size: 4 * BLOCK as u64,
            block: BLOCK as u32,
            volume_id: "ext4:u".to_owned(),
            fs_type: "ext4".to_owned(),
            cut_at: Instant::now(),
        };
        let mut writer = Writer::new(Vec::new(), header).unwrap();
        records.iter().for_each(|record| writer.record(record).unwrap());
        writer.finish().unwrap().0
    }

    fn apply_to(text: &[u8], stream: &[u8]) -> (Result<Summary, VssError>, Vec<u8>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        let target = Target::open(file.path(), false).unwrap();
        let reader = Reader::new(stream).unwrap();
        let done = apply(reader, &target, true, false, &mut Meter::new("applying", None));
        (done, std::fs::read(file.path()).unwrap())
    }

    #[test]
    fn a_block_that_the_base_has_not_is_not_replaced() {
        let before = [1_u8; 4 * BLOCK];
        let base = Some(BaseSum::of(&before[..BLOCK]));
        let new = [2; BLOCK];
        let records = [
            Record::Data { offset: 0, data: &new, base },
            Record::Zero { offset: BLOCK as u64, length: BLOCK as u64, base },
            Record::Unused { offset: 2 * BLOCK as u64, length: BLOCK as u64 },
            Record::Data { offset: 3 * BLOCK as u64, data: &new, base: None },
        ];
        let stream = stream(&records, Some(1));
        let (done, after) = apply_to(&before, &stream);
        assert_eq!(done.unwrap().records, 4);
        assert_eq!(after, [[2; BLOCK], [0; BLOCK], [0; BLOCK], [2; BLOCK]].concat());
        let mut changed = before;
        changed[BLOCK + 7] = 9;
        let (done, after) = apply_to(&changed, &stream);
        let error = done.unwrap_err();
        assert!(error.code == VssCode::InvalidArgument && error.message.contains("At 4096"), "{error}");
        assert_eq!(after[BLOCK..], changed[BLOCK..]);
    }

    #[test]
    fn a_torn_stream_is_named_at_its_end() {
        let data = [5; BLOCK];
        let whole = stream(&[Record::Data { offset: 0, data: &data, base: None }], None);
        let torn = &whole[..whole.len() - 70];
        let error = verify(Reader::new(torn).unwrap(), &mut Meter::new("reading", None)).unwrap_err();
        let at = whole.len() - 70;
        assert!(
            error.message.starts_with(&format!("The stream cannot be used: at byte {at}, it ends here")),
            "{error}"
        );
        let summary = verify(Reader::new(&whole[..]).unwrap(), &mut Meter::new("reading", None)).unwrap();
        assert!(in_words(&summary).starts_with("4.0 KiB of data; "), "{}", in_words(&summary));
    }
}
