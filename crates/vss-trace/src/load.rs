//! Bringing the programs into the kernel with aya. What comes back is not attached to anything yet.

use std::error::Error;

use aya::programs::BtfTracePoint;
use aya::{Btf, Ebpf, EbpfLoader};

use crate::error::TraceError;
use crate::layout::{self, About};

/// The compiled programs, at an address that an ELF file may be read at.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!("bpf/trace.bpf.o"));

/// Where writes are marked. All of them, but for the tests that show what each is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "fault-injection"), expect(unreachable_pub, reason = "part of the interface of the tests"))]
pub struct Marks {
    /// When they are handed to the device.
    pub queue: bool,
    /// When they are given to the driver.
    pub issue: bool,
    /// When they are completed.
    pub completion: bool,
}

impl Marks {
    /// Everywhere.
    pub(crate) const ALL: Self = Self { queue: true, issue: true, completion: true };

    fn bits(self) -> u32 {
        u32::from(self.queue) | u32::from(self.issue) << 1 | u32::from(self.completion) << 2
    }
}

/// Makes the maps and loads the programs for `about`.
///
/// # Errors
/// [`TraceError::Unavailable`] without BTF; [`TraceError::Refused`] by the kernel.
pub(crate) fn load(about: &About, marks: Marks) -> Result<Ebpf, TraceError> {
    let btf = Btf::from_sys_fs().map_err(|error| {
        TraceError::Unavailable(format!("the kernel's types cannot be read from /sys/kernel/btf/vmlinux: {error}"))
    })?;
    let target = about.target;
    let entries = |words: usize| {
        u32::try_from(words).map_err(|_| TraceError::Refused(format!("a map of {words} words is too large")))
    };
    let (words, recent_words) = (entries(about.words())?, entries(about.recent_words())?);
    let bio_based = u32::from(target.bio_based);
    let (recent_shift, marks) = (about.recent_shift(), marks.bits());
    let mut loader = EbpfLoader::new();
    loader
        .btf(Some(&btf))
        .map_max_entries(layout::BITS, words)
        .map_max_entries(layout::COUNTERS, about.cpus)
        .map_max_entries(layout::IN_FLIGHT, if target.bio_based { layout::IN_FLIGHT_BIOS } else { 1 })
        .override_global("cfg_major", &target.disk.0, true)
        .override_global("cfg_minor", &target.disk.1, true)
        .override_global("cfg_start", &target.start_sector, true)
        .override_global("cfg_sectors", &target.sectors, true)
        .override_global("cfg_shift", &about.shift, true)
        .override_global("cfg_recent_shift", &recent_shift, true)
        .override_global("cfg_bio_based", &bio_based, true)
        .override_global("cfg_marks", &marks, true);
    for map in layout::RECENT {
        loader.map_max_entries(map, recent_words);
    }
    let mut loaded = loader.load(&OBJECT.0).map_err(|error| refused("making the maps", &error))?;
    for program in layout::programs(target.bio_based) {
        let what = format!("the program for {}", program.tracepoint);
        tracepoint(&mut loaded, program.name)?
            .load(program.tracepoint, &btf)
            .map_err(|error| refused(&what, &error))?;
    }
    Ok(loaded)
}

/// One of the programs.
pub(crate) fn tracepoint<'a>(loaded: &'a mut Ebpf, name: &str) -> Result<&'a mut BtfTracePoint, TraceError> {
    let program = loaded.program_mut(name).and_then(|program| program.try_into().ok());
    program.ok_or_else(|| TraceError::Refused(format!("{name} is not in the object")))
}

/// An error of aya in one line: what the verifier says is at its end.
pub(crate) fn refused(what: &str, error: &dyn Error) -> TraceError {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(below) = source {
        text = format!("{text}: {below}");
        source = below.source();
    }
    let last = text.lines().rev().take(3).collect::<Vec<_>>();
    let mut lines: Vec<&str> = text.lines().take(1).chain(last.into_iter().rev()).collect();
    lines.dedup();
    TraceError::Refused(format!("{what}: {}", lines.join("; ")))
}
