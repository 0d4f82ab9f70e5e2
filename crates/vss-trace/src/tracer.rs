//! One tracer: attached, found again by its pins, read and removed.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use crate::bitmap::Bitmap;
use crate::counters::Counters;
use crate::error::TraceError;
use crate::kernel::{self, SharedWords};
use crate::layout::{self, ABOUT_BYTES, About, Program};
use crate::load::{self, Marks};
use crate::pins::Pins;
use crate::target::Target;

/// A program that runs in the kernel, pinned.
#[derive(Debug)]
struct Pinned {
    program: OwnedFd,
    /// Held so that it stays attached while this is used, also when somebody removes the pins.
    _link: OwnedFd,
}

/// A tracer that is attached. It goes on when this is dropped, until [`Tracer::remove`] or a reboot. Several processes may
/// have the same one open; a chunk is taken by one of them.
#[derive(Debug)]
pub struct Tracer {
    about: About,
    bits: SharedWords,
    recent: [SharedWords; 2],
    counters: SharedWords,
    control: SharedWords,
    pinned: Vec<Pinned>,
}

/// How often the programs of a tracer ran while the kernel counted ([`Tracer::count_runs`]).
#[derive(Debug, Clone, Copy)]
pub struct ProgramRuns {
    /// The tracepoint.
    pub tracepoint: &'static str,
    /// Runs, for writes of the target and for everything else.
    pub count: u64,
    /// Nanoseconds of all of them.
    pub nanoseconds: u64,
}

impl Tracer {
    /// Attaches a tracer and pins it. From then on every write that is queued is marked; those that were under way already are
    /// marked when they end, but for a device without requests, where they count as `unknown`.
    ///
    /// A process that is killed in here leaves a tracer that [`Tracer::open`] refuses, never one that seems whole.
    ///
    /// # Errors
    /// [`TraceError::Exists`]; [`TraceError::Refused`]; see also [`available`](crate::available). Nothing stays then.
    pub fn attach(pins: &Pins, target: &Target) -> Result<Self, TraceError> {
        Self::attach_marking(pins, target, Marks::ALL)
    }

    /// As [`Tracer::attach`], leaving out marks that are needed.
    ///
    /// # Errors
    /// As [`Tracer::attach`].
    #[cfg(feature = "fault-injection")]
    pub fn attach_with(pins: &Pins, target: &Target, marks: Marks) -> Result<Self, TraceError> {
        Self::attach_marking(pins, target, marks)
    }

    fn attach_marking(pins: &Pins, target: &Target, marks: Marks) -> Result<Self, TraceError> {
        let about = About::new(*target, layout::possible_cpus()?);
        // What takes long comes before the first pin.
        let loaded = load::load(&about, marks)?;
        pins.make()?;
        let made = pin(loaded, pins, &about).and_then(|()| Self::open_whole(pins));
        if made.is_err() {
            // What was first is the reason.
            let _ = pins.unlink(layout::ABOUT);
        }
        made
    }

    /// The tracer at `pins`, if there is one.
    ///
    /// # Errors
    /// [`TraceError::Unusable`] when it is half made, of another version, or not attached any more: what it did not mark
    /// nobody knows. No permission.
    pub fn open(pins: &Pins) -> Result<Option<Self>, TraceError> {
        if pins.exist() { Self::open_whole(pins).map(Some) } else { Ok(None) }
    }

    /// Detaches the tracer and removes it, also a half-made one. False when there was nothing.
    ///
    /// # Errors
    /// No permission.
    pub fn remove(pins: &Pins) -> Result<bool, TraceError> {
        // Without this pin the others are no tracer, whatever happens on the way.
        pins.unlink(layout::ABOUT)
    }

    fn open_whole(pins: &Pins) -> Result<Self, TraceError> {
        let unusable = |reason: String| TraceError::Unusable { place: pins.directory().to_owned(), reason };
        let open = |name: &str| {
            kernel::open_pin(&pins.pin(name)).map_err(|error| unusable(format!("its pin {name}: {error}")))
        };
        let mut bytes = [0; ABOUT_BYTES];
        kernel::read_only_value(kernel::fd(&open(layout::ABOUT)?), &mut bytes)
            .map_err(|error| unusable(format!("its description: {error}")))?;
        let about = About::from_bytes(&bytes).ok_or_else(|| unusable("it is of another version".to_owned()))?;
        let share = |name: &str, words: usize| {
            let map = open(name)?;
            SharedWords::new(kernel::fd(&map), words).map_err(|error| unusable(format!("its map {name}: {error}")))
        };
        let mut pinned = Vec::new();
        for Program { pin, link, .. } in layout::programs(about.target.bio_based) {
            let (program, link) = (open(pin)?, open(link)?);
            let runs = kernel::program_runs(kernel::fd(&program));
            let linked = kernel::linked_program(kernel::fd(&link));
            match (runs, linked) {
                (Ok(runs), Ok(linked)) if runs.id == linked => pinned.push(Pinned { program, _link: link }),
                (Ok(_), Ok(_)) => return Err(unusable(format!("{pin} is not what runs"))),
                (Err(error), _) | (_, Err(error)) => return Err(unusable(format!("its pin {pin}: {error}"))),
            }
        }
        Ok(Self {
            about,
            bits: share(layout::BITS, about.words())?,
            recent: [share(layout::RECENT[0], about.recent_words())?, share(layout::RECENT[1], about.recent_words())?],
            counters: share(layout::COUNTERS, about.cpus as usize * layout::COUNT_WORDS)?,
            control: share(layout::CONTROL, layout::CONTROL_WORDS)?,
            pinned,
        })
    }

    /// What is traced.
    #[must_use]
    pub fn target(&self) -> Target {
        self.about.target
    }

    /// Bytes of a chunk: 4096 up to 8 TiB, beyond it the power of two that gives at most 2^31 chunks.
    #[must_use]
    pub fn chunk_bytes(&self) -> u64 {
        512 << self.about.shift
    }

    /// How many chunks there are; the last one may be cut off by the end of the range.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.about.chunks()
    }

    /// Puts every chunk that is marked into `into` and takes its mark away; returns how many. No allocation, no system call:
    /// may be called in a hold. Read the device after this, never before.
    ///
    /// # Panics
    /// `into` is of another size.
    pub fn take(&self, into: &mut Bitmap) -> u64 {
        assert_eq!(into.chunks(), self.chunks(), "a set of another device");
        let mut taken = 0;
        for (index, word) in self.bits.words().iter().enumerate() {
            // A bit that comes between the look and the swap is taken with the others, or next time.
            if word.load(Relaxed) != 0 {
                taken += into.put_word(index, word.swap(0, SeqCst));
            }
        }
        taken
    }

    /// How many chunks are marked now.
    #[must_use]
    pub fn dirty(&self) -> u64 {
        self.bits.words().iter().map(|word| u64::from(word.load(Relaxed).count_ones())).sum()
    }

    /// Marks chunks, in addition: for what was taken and could not be copied.
    ///
    /// # Panics
    /// `bitmap` is of another size.
    pub fn mark(&self, bitmap: &Bitmap) {
        assert_eq!(bitmap.chunks(), self.chunks(), "a set of another device");
        for (shared, word) in self.bits.words().iter().zip(bitmap.words()) {
            if *word != 0 {
                shared.fetch_or(*word, SeqCst);
            }
        }
    }

    /// The counts now. While writes are under way those of different kinds may be some events apart. No allocation; one system
    /// call for each program.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for cpu in self.counters.words().chunks_exact(layout::COUNT_WORDS) {
            let [queued, issued, completed, unknown, hash_full, passthrough, ..] = cpu else { continue };
            sum.queued = sum.queued.wrapping_add(queued.load(Acquire));
            sum.issued = sum.issued.wrapping_add(issued.load(Acquire));
            sum.completed = sum.completed.wrapping_add(completed.load(Acquire));
            sum.unknown = sum.unknown.wrapping_add(unknown.load(Acquire));
            sum.hash_full = sum.hash_full.wrapping_add(hash_full.load(Acquire));
            sum.passthrough = sum.passthrough.wrapping_add(passthrough.load(Acquire));
        }
        for (program, pinned) in layout::programs(self.about.target.bio_based).iter().zip(&self.pinned) {
            // The kernel does not fail here for an open program; if it did, that would be a reason for distrust as well.
            let missed = kernel::program_runs(kernel::fd(&pinned.program)).map_or(u64::MAX / 8, |runs| runs.misses);
            let of_its_kind = if program.ends { &mut sum.missed_ends } else { &mut sum.missed_starts };
            *of_its_kind = of_its_kind.wrapping_add(missed);
        }
        sum
    }

    /// Puts all memory that the calls for a hold touch into RAM and keeps it there: the maps are faulted in and locked.
    ///
    /// # Errors
    /// RLIMIT_MEMLOCK is too low.
    pub fn lock_in_memory(&mut self) -> Result<(), TraceError> {
        let [even, odd] = &mut self.recent;
        for map in [&mut self.bits, even, odd, &mut self.counters, &mut self.control] {
            map.lock().map_err(TraceError::io("locking the tracer's maps in memory"))?;
        }
        Ok(())
    }

    /// Notes that nothing is under way at this moment (in a hold) and that everything queued so far has been copied or is
    /// marked: `at` becomes the base of the next balance, and a new epoch of [`Tracer::queued_since_balance`] begins. No
    /// allocation, no system call. Call [`Tracer::forget_older`] after the hold.
    pub fn set_balanced(&self, at: &Counters) {
        let [epoch, is_balanced, base @ .., _, _] = self.control.words() else { return };
        // A process that is killed in the middle leaves no base rather than a mixed one.
        is_balanced.store(0, SeqCst);
        let Counters { queued, issued, completed, unknown, hash_full, passthrough, missed_starts, missed_ends } = *at;
        let counts = [queued, issued, completed, unknown, hash_full, passthrough, missed_starts, missed_ends];
        for (to, from) in base.iter().zip(counts) {
            to.store(from, Relaxed);
        }
        epoch.fetch_add(1, SeqCst);
        is_balanced.store(1, Release);
    }

    /// The counts of the last [`Tracer::set_balanced`]; none before the first. Until then a balance since zero is short by what
    /// was under way when the tracer was attached.
    #[must_use]
    pub fn balanced_at(&self) -> Option<Counters> {
        let [_, is_balanced, base @ .., _, _] = self.control.words() else { return None };
        if is_balanced.load(Acquire) == 0 {
            return None;
        }
        let mut counts = [0; 8];
        for (to, from) in counts.iter_mut().zip(base) {
            *to = from.load(Relaxed);
        }
        let [queued, issued, completed, unknown, hash_full, passthrough, missed_starts, missed_ends] = counts;
        Some(Counters { queued, issued, completed, unknown, hash_full, passthrough, missed_starts, missed_ends })
    }

    /// Keeps a stamp beside the marks, in the kernel's memory: whoever takes marks writes the same one down with what he made
    /// of them, and sees by it whether what he reads later is the last that he wrote.
    pub fn set_stamp(&self, stamp: u128) {
        let [.., low, high] = self.control.words() else { return };
        // A process that is killed in the middle leaves one that nobody wrote down.
        low.store(stamp as u64, SeqCst);
        high.store((stamp >> 64) as u64, SeqCst);
    }

    /// The last stamp; 0 before the first.
    #[must_use]
    pub fn stamp(&self) -> u128 {
        let [.., low, high] = self.control.words() else { return 0 };
        u128::from(low.load(SeqCst)) | u128::from(high.load(SeqCst)) << 64
    }

    /// Drops what was queued before the last [`Tracer::set_balanced`]. Until this is called it is part of
    /// [`Tracer::queued_since_balance`], which is then larger than it has to be.
    pub fn forget_older(&self) {
        let [epoch, ..] = self.control.words() else { return };
        let older = epoch.load(SeqCst).wrapping_add(1) & 1;
        for word in self.recent[older as usize].words() {
            if word.load(Relaxed) != 0 {
                word.store(0, SeqCst);
            }
        }
    }

    /// Puts everything into `into` that was queued since the last [`Tracer::set_balanced`], taken or not, in larger chunks
    /// (16 chunks each). It is what may be missing when completions were not traced
    /// ([`Distrust::is_of_ends`](crate::Distrust::is_of_ends)). No allocation, no system call.
    ///
    /// # Panics
    /// `into` is of another size.
    pub fn queued_since_balance(&self, into: &mut Bitmap) {
        assert_eq!(into.chunks(), self.chunks(), "a set of another device");
        let ratio = 1 << (self.about.recent_shift() - self.about.shift);
        for recent in &self.recent {
            for (index, word) in recent.words().iter().enumerate() {
                let mut left = word.load(SeqCst);
                while left != 0 {
                    let chunk = (index as u64 * 64 + u64::from(left.trailing_zeros())) * ratio;
                    into.set(chunk..chunk + ratio);
                    left &= left - 1;
                }
            }
        }
    }

    /// Has the kernel count and time the runs of all programs of the machine until what is returned is dropped, which makes
    /// each slower. For measurements.
    ///
    /// # Errors
    /// No permission.
    pub fn count_runs() -> Result<std::fs::File, TraceError> {
        kernel::count_runs().map_err(TraceError::io("counting runs of programs"))
    }

    /// The runs so far that were counted.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn runs(&self) -> Result<Vec<ProgramRuns>, TraceError> {
        let programs = layout::programs(self.about.target.bio_based).iter().zip(&self.pinned);
        let runs = programs.map(|(program, pinned)| {
            let runs = kernel::program_runs(kernel::fd(&pinned.program))
                .map_err(TraceError::io("asking for the runs of a program"))?;
            Ok(ProgramRuns { tracepoint: program.tracepoint, count: runs.count, nanoseconds: runs.nanoseconds })
        });
        runs.collect()
    }
}

/// Pins and attaches; what is pinned last makes it whole.
fn pin(mut loaded: aya::Ebpf, pins: &Pins, about: &About) -> Result<(), TraceError> {
    for map in [layout::BITS, layout::RECENT[0], layout::RECENT[1], layout::COUNTERS, layout::CONTROL] {
        pin_map(&loaded, pins, map)?;
    }
    for program in layout::programs(about.target.bio_based) {
        let what = format!("attaching to {}", program.tracepoint);
        let loaded = load::tracepoint(&mut loaded, program.name)?;
        loaded.pin(pins.pin(program.pin)).map_err(|error| load::refused("pinning a program", &error))?;
        let attached = loaded.attach().map_err(|error| load::refused(&what, &error))?;
        let link: aya::programs::links::FdLink =
            loaded.take_link(attached).map_err(|error| load::refused(&what, &error))?.into();
        link.pin(pins.pin(program.link)).map_err(|error| load::refused("pinning a link", &error))?;
    }
    let map = loaded.map(layout::ABOUT).ok_or_else(|| TraceError::Refused("about is not in the object".to_owned()))?;
    let aya::maps::Map::Array(data) = map else {
        return Err(TraceError::Refused("about is another map".to_owned()));
    };
    kernel::write_only_value(kernel::fd(&data.fd()), &about.to_bytes())
        .map_err(TraceError::io("describing the tracer"))?;
    pin_map(&loaded, pins, layout::ABOUT)
}

fn pin_map(loaded: &aya::Ebpf, pins: &Pins, name: &str) -> Result<(), TraceError> {
    let map = loaded.map(name).ok_or_else(|| TraceError::Refused(format!("{name} is not in the object")))?;
    map.pin(pins.pin(name)).map_err(|error| load::refused("pinning a map", &error))
}
