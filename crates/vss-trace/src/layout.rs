//! The maps of the programs: their names and the layout of their values, which is that of `bpf/trace.bpf.c`.

use crate::error::TraceError;
use crate::target::Target;

/// Written chunks, one bit each.
pub(crate) const BITS: &str = "bits";
/// What was queued in even and odd epochs, one bit for each larger chunk.
pub(crate) const RECENT: [&str; 2] = ["recent_even", "recent_odd"];
/// One [`CpuCounts`] for each CPU.
pub(crate) const COUNTERS: &str = "counters";
/// One [`Control`].
pub(crate) const CONTROL: &str = "control";
/// One [`About`]. Pinned last: where it is, everything is.
pub(crate) const ABOUT: &str = "about";
/// Bios under way, of devices without requests.
pub(crate) const IN_FLIGHT: &str = "in_flight";
/// Bios that can be under way at once, of a device without requests.
pub(crate) const IN_FLIGHT_BIOS: u32 = 32768;

/// A program, the tracepoint that it is attached to, and where both are pinned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) tracepoint: &'static str,
    pub(crate) pin: &'static str,
    pub(crate) link: &'static str,
    /// Its events are ends of writes.
    pub(crate) ends: bool,
}

const BIO_COMPLETE: Program = Program {
    name: "on_bio_complete",
    tracepoint: "block_bio_complete",
    pin: "bio_complete_program",
    link: "bio_complete_link",
    ends: true,
};
const RQ_COMPLETE: Program = Program {
    name: "on_rq_complete",
    tracepoint: "block_rq_complete",
    pin: "rq_complete_program",
    link: "rq_complete_link",
    ends: true,
};
const RQ_ISSUE: Program = Program {
    name: "on_rq_issue",
    tracepoint: "block_rq_issue",
    pin: "rq_issue_program",
    link: "rq_issue_link",
    ends: false,
};
const BIO_QUEUE: Program = Program {
    name: "on_bio_queue",
    tracepoint: "block_bio_queue",
    pin: "bio_queue_program",
    link: "bio_queue_link",
    ends: false,
};

/// The programs for a target, in the order in which they are attached: completions first, queue last, so that no write whose
/// beginning is seen ends unseen.
pub(crate) fn programs(bio_based: bool) -> &'static [Program] {
    if bio_based { &[BIO_COMPLETE, BIO_QUEUE] } else { &[BIO_COMPLETE, RQ_COMPLETE, RQ_ISSUE, BIO_QUEUE] }
}

/// struct counts: eight words, a cache line.
pub(crate) const COUNT_WORDS: usize = 8;
/// struct control: the epoch, whether the base is one, the eight counters of the base, and the two halves of the stamp.
pub(crate) const CONTROL_WORDS: usize = 12;
/// struct about.
pub(crate) const ABOUT_WORDS: usize = 16;
/// Bytes of struct about.
pub(crate) const ABOUT_BYTES: usize = ABOUT_WORDS * 8;

/// "VSStrace".
const MAGIC: u64 = u64::from_be_bytes(*b"VSStrace");
/// Goes up with every change of the programs or of the maps' layout: a tracer of another version is not used.
const VERSION: u64 = 3;

/// Up to 2^31 chunks of 4 KiB, 8 TiB, the bits are 32 MiB a TiB; beyond, chunks grow so that there are no more.
const MAX_CHUNKS: u64 = 1 << 31;
/// Sectors of 4 KiB, as a power of two.
const SMALLEST_SHIFT: u32 = 3;
/// A chunk of the recent marks is 16 chunks: 64 KiB up to 8 TiB, so that both of them are 4 MiB a TiB.
const RECENT_SHIFT: u32 = 4;

/// What is traced, and in which chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) target: Target,
    /// Sectors of a chunk, as a power of two.
    pub(crate) shift: u32,
    /// How many CPUs have counts.
    pub(crate) cpus: u32,
}

impl About {
    pub(crate) fn new(target: Target, cpus: u32) -> Self {
        let mut shift = SMALLEST_SHIFT;
        while target.sectors.div_ceil(1 << shift) > MAX_CHUNKS {
            shift += 1;
        }
        Self { target, shift, cpus }
    }

    pub(crate) fn chunks(&self) -> u64 {
        self.target.sectors.div_ceil(1 << self.shift)
    }

    /// Words of the bits.
    pub(crate) fn words(&self) -> usize {
        self.chunks().div_ceil(64) as usize
    }

    /// Sectors of a chunk of the recent marks, as a power of two.
    pub(crate) fn recent_shift(&self) -> u32 {
        self.shift + RECENT_SHIFT
    }

    /// Words of the recent marks.
    pub(crate) fn recent_words(&self) -> usize {
        self.target.sectors.div_ceil(1 << self.recent_shift()).div_ceil(64) as usize
    }

    pub(crate) fn to_bytes(self) -> [u8; ABOUT_BYTES] {
        let Target { disk, start_sector, sectors, bio_based } = self.target;
        let known = [
            MAGIC,
            VERSION,
            u64::from(disk.0),
            u64::from(disk.1),
            start_sector,
            sectors,
            u64::from(bio_based),
            u64::from(self.shift),
            u64::from(self.cpus),
        ];
        let mut bytes = [0; ABOUT_BYTES];
        for (to, from) in bytes.chunks_exact_mut(8).zip(known) {
            to.copy_from_slice(&from.to_ne_bytes());
        }
        bytes
    }

    /// Reads what [`About::to_bytes`] wrote. None when it is of another version, or no such thing.
    pub(crate) fn from_bytes(bytes: &[u8; ABOUT_BYTES]) -> Option<Self> {
        let mut words = [0; ABOUT_WORDS];
        for (to, from) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *to = u64::from_ne_bytes(from.try_into().ok()?);
        }
        let [MAGIC, VERSION, major, minor, start_sector, sectors, bio_based, _, cpus, ..] = words else { return None };
        let disk = (u32::try_from(major).ok()?, u32::try_from(minor).ok()?);
        let target = Target { disk, start_sector, sectors, bio_based: bio_based != 0 };
        let about = Self::new(target, u32::try_from(cpus).ok()?);
        (about.to_bytes() == *bytes && sectors > 0 && cpus > 0).then_some(about)
    }
}

/// The highest number of a CPU that this kernel can ever have, plus one.
///
/// # Errors
/// sysfs is not mounted.
pub(crate) fn possible_cpus() -> Result<u32, TraceError> {
    const LIST: &str = "/sys/devices/system/cpu/possible";
    let text = std::fs::read_to_string(LIST).map_err(TraceError::io(format!("reading {LIST}")))?;
    let last = text.trim_end().rsplit(['-', ',']).next().and_then(|last| last.parse::<u32>().ok());
    last.map(|last| last + 1).ok_or_else(|| TraceError::Unavailable(format!("{LIST} holds no CPU numbers")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(sectors: u64) -> About {
        About::new(Target { disk: (7, 1), start_sector: 2048, sectors, bio_based: false }, 2)
    }

    #[test]
    fn chunks_grow_beyond_eight_tebibytes() {
        let tebi = 1 << 31;
        assert_eq!((about(1).shift, about(1).chunks(), about(1).words()), (3, 1, 1));
        assert_eq!((about(8 * tebi).shift, about(8 * tebi).chunks()), (3, 1 << 31));
        assert_eq!(about(8 * tebi + 1).shift, 4);
        assert_eq!((about(100 * tebi).shift, about(100 * tebi).chunks()), (7, 100 << 24));
        assert_eq!(about(tebi).words() * 8, 32 << 20);
        assert_eq!(about(tebi).recent_words() * 8, 2 << 20);
    }

    #[test]
    fn what_was_written_is_read_again_and_nothing_else() {
        let bytes = about(12345).to_bytes();
        assert_eq!(About::from_bytes(&bytes), Some(about(12345)));
        for byte in 0..9 * 8 {
            let mut other = bytes;
            other[byte] ^= 0x40;
            assert_ne!(About::from_bytes(&other), Some(about(12345)));
        }
        assert_eq!(About::from_bytes(&[0; ABOUT_BYTES]), None);
    }
}
