//! The format against its enemies: what is written comes back, and nothing else is taken.

use proptest::prelude::*;
use vss_model::{SetId, ShadowId};
use vss_stream::{BaseSum, DATA_BYTES, Fault, Header, LONGEST_HEADER, Reader, Record, StreamError, Summary, Writer};

const BLOCK: u64 = 4096;
const SIZE: u64 = 40 * BLOCK + 512;

fn header(since: Option<u128>) -> Header {
    Header {
        set_id: SetId::from_u128(0x5e7),
        shadow_id: ShadowId::from_u128(0xb),
        since: since.map(ShadowId::from_u128),
        volume_size: SIZE,
        block: BLOCK as u32,
        volume_id: "ext4:9f1c3f7e-2b1d-4a77-8d0e-6f8f0f2f6a11".to_owned(),
        fs_type: "ext4".to_owned(),
        cut_at: "2026-11-24T09:30:00.123456Z".parse().unwrap(),
    }
}

/// A record that owns its data.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owned {
    Data(u64, Vec<u8>, Option<[u8; 4]>),
    Zero(u64, u64, Option<[u8; 4]>),
    Unused(u64, u64),
}

impl Owned {
    fn as_record(&self) -> Record<'_> {
        match self {
            Self::Data(offset, data, base) => Record::Data { offset: *offset, data, base: base.map(BaseSum) },
            Self::Zero(offset, length, base) => {
                Record::Zero { offset: *offset, length: *length, base: base.map(BaseSum) }
            }
            Self::Unused(offset, length) => Record::Unused { offset: *offset, length: *length },
        }
    }

    fn of(record: Record<'_>) -> Self {
        match record {
            Record::Data { offset, data, base } => Self::Data(offset, data.to_vec(), base.map(|base| base.0)),
            Record::Zero { offset, length, base } => Self::Zero(offset, length, base.map(|base| base.0)),
            Record::Unused { offset, length } => Self::Unused(offset, length),
        }
    }
}

fn write(header: Header, records: &[Owned]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), header).unwrap();
    for record in records {
        writer.record(&record.as_record()).unwrap();
    }
    writer.finish().unwrap().0
}

fn read(bytes: &[u8]) -> Result<(Header, Vec<Owned>, Summary), StreamError> {
    let mut reader = Reader::new(bytes)?;
    let mut records = Vec::new();
    while let Some(record) = reader.next_record()? {
        records.push(Owned::of(record));
    }
    Ok((reader.header().clone(), records, *reader.summary()))
}

fn sample() -> Vec<Owned> {
    vec![
        Owned::Data(0, vec![7; 4096], Some([0; 4])),
        Owned::Zero(2 * BLOCK, 3 * BLOCK, None),
        Owned::Unused(5 * BLOCK, BLOCK),
        Owned::Data(40 * BLOCK, b"end".repeat(171)[..512].to_vec(), None),
    ]
}

/// Any list of records that the header allows: lengths in blocks and kinds, with gaps before.
fn records() -> impl Strategy<Value = Vec<Owned>> {
    let one = (0..3_u64, 1..4_u64, 0..3, any::<u8>(), any::<Option<[u8; 4]>>());
    prop::collection::vec(one, 0..12).prop_map(|list| {
        let mut from = 0;
        let mut records = Vec::new();
        for (gap, blocks, kind, byte, base) in list {
            let offset = from + gap * BLOCK;
            let end = (offset + blocks * BLOCK).min(SIZE);
            if offset >= SIZE {
                break;
            }
            from = end;
            records.push(match kind {
                0 => Owned::Data(offset, vec![byte; (end - offset) as usize], base),
                1 => Owned::Zero(offset, end - offset, base),
                _ => Owned::Unused(offset, end - offset),
            });
        }
        records
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_comes_back(records in records()) {
        let (found, list, summary) = read(&write(header(Some(0xa)), &records)).unwrap();
        prop_assert_eq!(found, header(Some(0xa)));
        prop_assert_eq!(summary.records, records.len() as u64);
        prop_assert_eq!(list, records);
    }

    #[test]
    fn any_bytes_are_refused_and_never_a_reason_to_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(read(&bytes).is_err());
        let mut behind = header(None).encode().unwrap();
        behind.extend(bytes);
        prop_assert!(read(&behind).is_err());
    }
}

#[test]
fn a_stream_cut_off_anywhere_is_torn() {
    let whole = write(header(Some(0xa)), &sample());
    for length in 0..whole.len() {
        let error = read(&whole[..length]).unwrap_err();
        assert!(matches!(error.fault, Fault::Torn), "cut at {length}: {error}");
        assert_eq!(error.at, length as u64);
    }
    assert!(read(&whole).is_ok());
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    let whole = write(header(Some(0xa)), &sample());
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            assert!(read(&bytes).is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn records_left_out_or_repeated_are_found_though_each_is_whole() {
    let records = [Owned::Zero(0, BLOCK, None), Owned::Zero(BLOCK, BLOCK, None)];
    let whole = write(header(None), &records);
    let begin = header(None).encode().unwrap().len();
    let mut without = whole.clone();
    without.drain(begin..begin + 32);
    let error = read(&without).unwrap_err();
    assert!(matches!(error.fault, Fault::Nonsense(_)), "{error}");
    // As many records and as many bytes, but of two streams.
    let mut mixed = write(header(None), &[Owned::Zero(0, 2 * BLOCK, None), Owned::Zero(2 * BLOCK, BLOCK, None)]);
    mixed[begin..begin + 32].copy_from_slice(&whole[begin..begin + 32]);
    let error = read(&mixed).unwrap_err();
    assert!(matches!(error.fault, Fault::Digest), "{error}");
    let mut twice = whole.clone();
    twice.extend(&whole);
    let error = read(&twice).unwrap_err();
    assert!(matches!(error.fault, Fault::Trailing) && error.at == whole.len() as u64, "{error}");
}

/// A whole stream whose first record's head was changed and given the right checksum again.
fn forged(change: impl Fn(&mut [u8])) -> StreamError {
    let mut bytes = write(header(None), &[Owned::Zero(0, BLOCK, None)]);
    let begin = header(None).encode().unwrap().len();
    change(&mut bytes[begin..begin + 28]);
    let checksum = crc(&bytes[begin..begin + 28]);
    bytes[begin + 28..begin + 32].copy_from_slice(&checksum.to_le_bytes());
    read(&bytes).unwrap_err()
}

/// CRC-32C by its definition, so that the test does not believe the code's own.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |mut crc, byte| {
        crc ^= u32::from(*byte);
        (0..8).for_each(|_| crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 });
        crc
    })
}

#[test]
fn lengths_beyond_their_bounds_are_not_believed() {
    let place = |offset: u64, length: u64, kind: u8| {
        forged(move |head| {
            head[0] = kind;
            head[8..16].copy_from_slice(&offset.to_le_bytes());
            head[16..24].copy_from_slice(&length.to_le_bytes());
        })
    };
    let too_long = [
        place(0, u64::MAX, 1),
        place(0, DATA_BYTES as u64 + BLOCK, 1),
        place(u64::MAX - 4095, BLOCK, 2),
        place(40 * BLOCK, BLOCK, 2),
        place(0, 0, 2),
        place(512, BLOCK, 2),
        place(0, 512, 2),
        place(0, BLOCK, 3),
        place(0, BLOCK, 9),
    ];
    for error in too_long {
        assert!(matches!(error.fault, Fault::Nonsense(_)), "{error}");
    }
    let base_in_full = forged(|head| head[1] = 1);
    assert!(matches!(base_in_full.fault, Fault::Nonsense(_)), "{base_in_full}");
    let reserved = forged(|head| head[26] = 1);
    assert!(matches!(reserved.fault, Fault::Nonsense(_)), "{reserved}");
}

#[test]
fn a_header_is_read_before_its_length_is_believed() {
    let mut bytes = header(None).encode().unwrap();
    bytes[12..16].copy_from_slice(&(LONGEST_HEADER as u32 + 1).to_le_bytes());
    let error = read(&bytes).unwrap_err();
    assert!(matches!(error.fault, Fault::Nonsense(_)) && error.at == 12, "{error}");
    let mut later = header(None).encode().unwrap();
    later[8] = 2;
    let error = read(&later).unwrap_err();
    assert_eq!(error.to_string(), "the stream cannot be used: at byte 8, it has format 2, and this release reads 1");
    let error = read(b"VSSTREAMand more").unwrap_err();
    assert!(matches!(error.fault, Fault::NoStream), "{error}");
}

#[test]
fn a_writer_writes_nothing_that_a_reader_would_refuse() {
    let mut writer = Writer::new(Vec::new(), header(None)).unwrap();
    let ok = Record::Zero { offset: BLOCK, length: BLOCK, base: None };
    writer.record(&ok).unwrap();
    for record in [
        ok,
        Record::Data { offset: 2 * BLOCK, data: &[], base: None },
        Record::Zero { offset: 2 * BLOCK, length: BLOCK, base: Some(BaseSum([1; 4])) },
        Record::Unused { offset: 2 * BLOCK, length: BLOCK },
        Record::Zero { offset: 40 * BLOCK, length: BLOCK, base: None },
    ] {
        assert!(writer.record(&record).is_err(), "{record:?}");
    }
    let (bytes, written) = writer.finish().unwrap();
    assert_eq!(read(&bytes).unwrap().2, written);
    assert_eq!(written.stream_bytes, bytes.len() as u64);
    for wrong in [
        Header { volume_size: 0, ..header(None) },
        Header { block: 3000, ..header(None) },
        Header { since: Some(ShadowId::from_u128(0xb)), ..header(None) },
        Header { fs_type: "x".repeat(256), ..header(None) },
    ] {
        assert!(Writer::new(Vec::new(), wrong).is_err());
    }
}

#[test]
fn a_change_that_a_crc_does_not_see_is_seen() {
    // As a superblock is: something, and at its end the CRC of what is before.
    let block = |text: u8| {
        let mut block = [vec![0; 1024], vec![text; 1020]].concat();
        block.extend((!crc(&block[1024..])).to_le_bytes());
        block
    };
    let (one, other) = (block(1), block(2));
    assert_eq!(crc(&one), crc(&other), "then a CRC would do");
    assert_ne!(BaseSum::of(&one), BaseSum::of(&other));
}

/// The bytes that `docs/stream.md` shows: the format of version 1 does not change.
#[test]
fn the_bytes_of_version_1_are_these() {
    let sample =
        [Owned::Zero(0, BLOCK, Some(BaseSum::of(&[0; 4096]).0)), Owned::Data(40 * BLOCK, vec![0x41; 512], None)];
    let bytes = write(header(Some(0xa)), &sample);
    let text: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(bytes.len(), 159 + 32 + 32 + 512 + 64);
    let manual = include_str!("../../../docs/stream.md");
    for part in [0..159, 159..191, 191..223, 735..799] {
        for line in text[part].chunks(16) {
            assert!(manual.contains(&line.join(" ")), "docs/stream.md does not show {}", line.join(" "));
        }
    }
}
