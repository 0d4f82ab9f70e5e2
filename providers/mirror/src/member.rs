//! One volume of a set in creation: its mirror, its tracer, and what of it is still to be read.
//!
//! Nothing that was taken from the tracer is lost: `taken` has all of it until the copy is finished, and whatever ends the
//! creation before puts it back ([`Making::undo`]).

#[cfg(feature = "fault-injection")]
use crate::reference::Reference;
use crate::{
    copier::{Copied, Pace, Round, Way, full},
    fault,
    hold::Hold,
    kept::Registry,
    mirror::Mirror,
    place::{Place, PlaceName},
    rounds,
    source::Source,
    teller::Teller,
    tracer,
    trust::Trust,
    used,
};
use rustix::fs::OFlags;
use std::{
    fs::File,
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant as Clock},
};
use vss_linux::{block_device, fsmap::SpaceMap, mount};
use vss_model::{CreationOptions, Instant, ShadowId, Volume, VssCode, VssError};
use vss_provider::{
    failure::failed,
    image_copy::{self, Writable},
    progress::Work,
    store,
};
use vss_trace::{Bitmap, Counters, Distrust, Pins, Tracer};

/// Largest number of chunks: beyond 8 TiB they become larger than 4 KiB.
const CHUNKS: u64 = 1 << 31;

/// So much is written to the image between two looks at the space.
const LOOK_EVERY: u64 = 64 << 20;

/// So long a moment of rest is looked for.
const SETTLING: Duration = Duration::from_millis(50);
/// So long nothing may happen at such a moment: longer than a write takes from its event to the kernel's count of those under
/// way, shorter than the gaps that 12,500 writes a second leave.
const SETTLED: Duration = Duration::from_micros(300);

/// The first round does not step back for others when it reads so little.
const SHORT: u64 = 256 << 20;

/// Reading less than this says nothing about the rate.
const MEASURABLE: u64 = 2 << 20;

/// A volume that was taken into the set by BeginPrepare.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) shadow_id: ShadowId,
    pub(crate) volume: Volume,
    pub(crate) options: CreationOptions,
    /// The copy must survive a power cut.
    pub(crate) lasting: bool,
    pub(crate) place: PlaceName,
    pub(crate) key: String,
    /// What the catalogue keeps of it.
    pub(crate) data: String,
}

/// What of the provider's own a member needs.
#[derive(Debug, Clone)]
pub(crate) struct House {
    pub(crate) registry: Registry,
    /// The instance's name among tracers.
    pub(crate) instance: String,
    pub(crate) min_free_bytes: Option<u64>,
    #[cfg(feature = "fault-injection")]
    pub(crate) reference: Option<std::path::PathBuf>,
}

impl House {
    /// Where the tracer of a volume, or of a copy that is mended, is pinned.
    pub(crate) fn pins(&self, key: &str) -> Pins {
        Pins::new(&self.instance, key)
    }
}

/// A volume whose copy is being made. What it has is let go in this order.
#[derive(Debug)]
pub(crate) struct Making {
    pub(crate) member: Member,
    pub(crate) house: House,
    pub(crate) hold: Option<Hold>,
    /// A store was on the volume before the cut; the copy must not show it.
    pub(crate) may_show_store: bool,
    pub(crate) writable: Option<Writable>,
    /// Traces what is mended.
    pub(crate) mending: Option<Tracer>,
    pub(crate) mending_unknown: Option<String>,
    /// The copy may have been written to, and what was written is not marked in the tracer of the volume.
    pub(crate) is_mended: bool,
    pub(crate) tracer: Option<Tracer>,
    pub(crate) trust: Trust,
    pub(crate) source: Arc<Source>,
    pub(crate) chunk: u64,
    /// What was taken and is not in the image yet.
    pub(crate) owed: Bitmap,
    /// All that was taken since the cut before.
    pub(crate) taken: Bitmap,
    /// What was free when the file system was asked last, after the last taking.
    pub(crate) free: Bitmap,
    pub(crate) excluded: Bitmap,
    /// What the next reading is.
    pub(crate) todo: Bitmap,
    /// What was taken last.
    pub(crate) fresh: Bitmap,
    /// What was taken since the last moment of rest, and may have been read before a write to it ended that is not traced.
    pub(crate) unsettled: Bitmap,
    /// What was queued since then.
    pub(crate) recent: Bitmap,
    /// Bytes of both that the hold reads in any case, and no round does: there was no moment of rest yet.
    doubtful: u64,
    pub(crate) map: SpaceMap,
    pub(crate) pace: Pace,
    /// Bytes a second of single blocks.
    pub(crate) rate: Option<u64>,
    /// The counts when the first round began, of one that reads everything: what was under way at the attach had ended, or is
    /// known. What was missed before is read after it.
    pub(crate) since: Option<Counters>,
    /// Images of the store on the volume itself, but for the mirror.
    pub(crate) images: Vec<File>,
    pub(crate) cut_at: Option<Instant>,
    #[cfg(feature = "fault-injection")]
    pub(crate) reference: Option<Reference>,
    /// The copy is in the store under its name.
    pub(crate) is_there: bool,
    pub(crate) target: Option<File>,
    pub(crate) mirror: Mirror,
}

impl Making {
    /// Opens and locks everything, and begins to trace.
    pub(crate) fn open(member: &Member, house: &House) -> Result<Self, VssError> {
        let volume = &member.volume;
        let source = Arc::new(Source::open(volume)?);
        let place = Place::open_for(&member.place, volume)?.ok_or_else(|| unreachable(&member.place))?;
        let kept = house.registry.get(&member.key)?;
        let mut mirror = Mirror::open_or_make(place, &member.key, volume, source.size, &house.registry)?;
        let begun = tracer::begin(&mut mirror, member, house, &source, kept.as_ref());
        let (trust, tracer) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                if mirror.state.generation == 0 {
                    // The first reason is the one to be told.
                    let _ = mirror.remove();
                }
                return Err(error);
            }
        };
        let chunk = match &tracer {
            Some(tracer) => tracer.chunk_bytes(),
            None => source.size.div_ceil(CHUNKS).next_power_of_two().max(4096),
        };
        let chunks = source.size.div_ceil(chunk);
        let images = if member.place.is_on(volume) { images(&mirror)? } else { Vec::new() };
        let empty = || Bitmap::new(chunks);
        let mut owed = empty();
        if !trust.is_of_marks() {
            // From here on, so that an end before the first round marks it.
            owed.set(0..chunks);
        }
        Ok(Self {
            member: member.clone(),
            house: house.clone(),
            hold: None,
            may_show_store: true,
            writable: None,
            mending: None,
            mending_unknown: None,
            is_mended: false,
            trust,
            since: None,
            tracer,
            source,
            chunk,
            owed,
            taken: empty(),
            free: empty(),
            excluded: empty(),
            todo: empty(),
            fresh: empty(),
            unsettled: empty(),
            recent: empty(),
            doubtful: 0,
            map: SpaceMap::default(),
            pace: Pace::new(member.options.max_rate),
            rate: mirror.state.later_rate,
            images,
            cut_at: None,
            #[cfg(feature = "fault-injection")]
            reference: None,
            is_there: false,
            target: None,
            mirror,
        })
    }

    /// Makes the file of the copy, where it will share blocks: what would refuse it shall refuse it here.
    pub(crate) fn make_target(&mut self) -> Result<(), VssError> {
        if self.mirror.place.shares {
            self.is_there = true;
            self.target = Some(image_copy::create(&self.mirror.store, self.member.shadow_id, &self.mirror.image)?);
        }
        Ok(())
    }

    /// Looks for a moment at which no write is under way, so that the tracer's counts can be checked: where an end was missed,
    /// what was taken since the moment before is read again. What is taken and not yet read at such a moment is
    /// safe: its writes have ended. Without such a moment all of it is unsettled, and that is done in the hold.
    fn settle(&mut self) {
        if self.find_rest() {
            self.unsettled.clear_all();
        } else {
            self.unsettled.union(&self.fresh);
        }
    }

    fn find_rest(&mut self) -> bool {
        let Some(tracer) = &self.tracer else { return false };
        let is_at_rest = || {
            let device = self.source.device_number;
            let is_quiet = || block_device::under_way(device).is_ok_and(|under_way| under_way.writes == 0);
            let counters = tracer.counters();
            let was_quiet = is_quiet();
            if was_quiet {
                thread::sleep(SETTLED);
            }
            let is_counted = || block_device::counts_under_way(device).is_ok_and(|counts| counts);
            (was_quiet && tracer.counters() == counters && is_quiet() && is_counted()).then_some(counters)
        };
        let deadline = Clock::now() + SETTLING;
        let counters = loop {
            match is_at_rest() {
                Some(counters) => break counters,
                None if Clock::now() >= deadline => return false,
                None => thread::sleep(SETTLED),
            }
        };
        match self.distrust(&counters) {
            None if tracer.balanced_at().is_some() => tracer.set_balanced(&counters),
            // Before the first such moment the counts lack what was under way at the attach, and say nothing.
            None | Some(Distrust::MissedEnds(_)) => self.rebase(&counters),
            // A write that the kernel does not count yet (one that waits for its turn) is as missing as one whose end was not
            // traced: which it is, only the hold tells. Another reason for distrust stays one.
            Some(_) => return false,
        }
        let Some(tracer) = &self.tracer else { return false };
        // What was queued meanwhile must not be dropped with the rest.
        if tracer.counters().queued == counters.queued {
            tracer.forget_older();
        }
        true
    }

    /// What is unsettled is to be read once more, and with that these counts of a moment of rest are the base of the next
    /// balance. No allocation.
    pub(crate) fn rebase(&mut self, counters: &Counters) {
        self.look_back();
        self.owed.union(&self.recent);
        if let Some(tracer) = &self.tracer {
            tracer.set_balanced(counters);
        }
    }

    /// Puts into `recent` what is unsettled. No allocation.
    fn look_back(&mut self) {
        let Some(tracer) = &self.tracer else { return };
        self.recent.clear_all();
        tracer.queued_since_balance(&mut self.recent);
        self.recent.intersect(&self.unsettled);
    }

    /// True when there was no moment of rest yet since the tracer was attached.
    pub(crate) fn has_no_base(&self) -> bool {
        self.tracer.as_ref().is_some_and(|tracer| tracer.balanced_at().is_none())
    }

    /// Takes what was written.
    pub(crate) fn take(&mut self) {
        let Some(tracer) = &self.tracer else { return };
        self.fresh.clear_all();
        tracer.take(&mut self.fresh);
        self.taken.union(&self.fresh);
        self.owed.union(&self.fresh);
    }

    /// Flushes, takes what was written, and asks what is free. From then on `todo` is what a round would read.
    pub(crate) fn gather(&mut self) -> Result<(), VssError> {
        self.source.flush()?;
        if self.tracer.is_some() {
            self.take();
            self.settle();
            // Few blocks, so that few are unsettled while they are read.
            self.take();
            self.unsettled.union(&self.fresh);
        } else {
            // Any of it may have been written.
            self.owed.set(0..self.owed.chunks());
        }
        self.look()
    }

    fn look(&mut self) -> Result<(), VssError> {
        used::free_now(&self.source, &mut self.map, self.chunk, &mut self.free)?;
        self.exclude()?;
        self.todo.clone_from(&self.owed);
        self.todo.subtract(&self.free);
        self.todo.subtract(&self.excluded);
        self.doubtful = 0;
        if self.has_no_base() {
            self.look_back();
            self.recent.subtract(&self.todo);
            self.doubtful = self.recent.count() * self.chunk;
        }
        Ok(())
    }

    fn exclude(&mut self) -> Result<(), VssError> {
        let is_on = self.member.place.is_on(&self.member.volume);
        let images = self.images.iter().chain(is_on.then_some(&self.mirror.image));
        used::excluded(&self.source, images, &mut self.map, self.chunk, &mut self.excluded)
    }

    /// Asks again, after the hold, what was left out of it: a file may have had some of that before the hold already, when a
    /// swap file was ended after the last look, or a file began to share blocks with an image.
    ///
    /// # Errors
    /// Some of what was not read is no block of a swap file or an image any more.
    pub(crate) fn check_left_out(&mut self) -> Result<(), VssError> {
        let mut left_out = self.owed.clone();
        left_out.subtract(&self.todo);
        left_out.intersect(&self.excluded);
        let of_hold = self.excluded.clone();
        self.exclude()?;
        left_out.subtract(&self.excluded);
        self.excluded = of_hold;
        if left_out.is_empty() {
            return Ok(());
        }
        let count = left_out.count();
        Err(VssError::new(
            VssCode::ProviderVeto,
            format!(
                "{count} blocks of {} were left out of the hold as those of a swap file or an image, and may be another \
                 file's now",
                self.member.volume.mount_point.display()
            ),
        )
        .with_hint("Make the set again, and end no swap file and deduplicate nothing on the volume meanwhile"))
    }

    /// Bytes that a round would read now.
    pub(crate) fn dirty(&self) -> u64 {
        self.todo.count() * self.chunk
    }

    /// Bytes that a hold would read now.
    pub(crate) fn left(&self) -> u64 {
        self.dirty() + self.doubtful
    }

    /// How long reading them would hold writes.
    pub(crate) fn hold_time(&self) -> Option<Duration> {
        rounds::duration(self.left(), self.rate)
    }

    /// Why much is left, if a moment of rest is looked for in vain and the administrator can help that.
    pub(crate) fn restless_hint(&self) -> Option<String> {
        let counts = || block_device::counts_under_way(self.source.device_number).unwrap_or(true);
        (self.doubtful > 0 && !counts()).then(|| {
            format!(
                "Let the kernel count the writes under way to the device of {}: echo 1 to queue/iostats of its disk in \
                 /sys/block",
                self.member.volume.mount_point.display()
            )
        })
    }

    /// True when the first round reads little.
    pub(crate) fn is_short(&self) -> bool {
        let marked = self.tracer.as_ref().map(Tracer::dirty);
        self.trust == Trust::Whole && marked.is_some_and(|chunks| chunks * self.chunk <= SHORT)
    }

    /// The first round: everything in use, or what is marked when that is all that the mirror lacks.
    pub(crate) fn first_round(
        &mut self,
        teller: &Teller<'_>,
        stop: &(dyn Fn() -> Result<(), VssError> + Sync),
    ) -> Result<(), VssError> {
        self.gather()?;
        if let Some(tracer) = self.tracer.as_ref().filter(|_| !self.trust.is_of_marks()) {
            self.since = Some(tracer.counters());
        }
        if matches!(self.trust, Trust::New(_)) {
            let runs = self.todo.runs().map(|run| bytes(run, self.chunk, self.source.size));
            self.mirror.reserve(runs, self.house.min_free_bytes, stop)?;
        }
        let (work, way) = match self.trust {
            Trust::New(_) => (Work::Copying, Way::Copy),
            Trust::Compare(_) | Trust::Unfinished(_) => (Work::Comparing, Way::Compare),
            Trust::Whole => (Work::Catching, Way::Copy),
        };
        // Catching up with little is over before others would have gained anything.
        let steps_back = self.trust != Trust::Whole || self.dirty() > SHORT;
        self.copy(1, work, way, steps_back, teller, stop)
    }

    /// True when nothing is traced: every round and the hold compare everything.
    pub(crate) fn is_untraced(&self) -> bool {
        self.tracer.is_none()
    }

    /// A later round.
    pub(crate) fn round(
        &mut self,
        round: u32,
        teller: &Teller<'_>,
        stop: &(dyn Fn() -> Result<(), VssError> + Sync),
    ) -> Result<(), VssError> {
        if self.is_untraced() {
            return self.copy(round, Work::Comparing, Way::Compare, false, teller, stop);
        }
        self.copy(round, Work::Catching, Way::Copy, false, teller, stop)
    }

    fn copy(
        &mut self,
        round: u32,
        work: Work,
        way: Way,
        steps_back: bool,
        teller: &Teller<'_>,
        stop: &(dyn Fn() -> Result<(), VssError> + Sync),
    ) -> Result<(), VssError> {
        let total = self.dirty();
        let place = &self.mirror.place;
        let min_free = self.house.min_free_bytes;
        let looked = AtomicU64::new(0);
        let began = Clock::now();
        let step = |done: u64| {
            stop()?;
            fault::at(if round == 1 { "first_round" } else { "later_round" });
            let before = looked.load(Ordering::Relaxed);
            if done >= before + LOOK_EVERY
                && looked.compare_exchange(before, done, Ordering::Relaxed, Ordering::Relaxed).is_ok()
                && place.room(min_free)? == 0
            {
                return Err(full(&place.name.shown));
            }
            teller.tell(self.member.shadow_id, work, round, done, total, began.elapsed());
            Ok(())
        };
        if total > 0 && place.room(min_free)? == 0 {
            return Err(full(&place.name.shown));
        }
        let job = Round {
            from: &*self.source,
            to: &self.mirror.image,
            to_size: self.source.size.next_multiple_of(4096),
            way,
            pace: &self.pace,
            steps_back_on: steps_back.then_some(self.source.device_number),
            step: &step,
        };
        let (chunk, size) = (self.chunk, self.source.size);
        let runs = self.todo.runs().map(|run| bytes(run, chunk, size));
        let copied = job.run(runs)?;
        fault::at(if round == 1 { "after_first_round" } else { "after_later_round" });
        self.owed.subtract(&self.todo);
        self.measure(copied, round);
        Ok(())
    }

    /// The rate of single blocks is what counts; that of the first round is better than none.
    fn measure(&mut self, copied: Copied, round: u32) {
        let is_slowed = self.pace.max_rate.is_some();
        let Some(rate) = rounds::rate(copied.read, copied.time).filter(|_| copied.read >= MEASURABLE && !is_slowed)
        else {
            return;
        };
        self.rate = Some(rate);
        let known = if round == 1 { &mut self.mirror.state.first_rate } else { &mut self.mirror.state.later_rate };
        *known = Some(rate);
    }
}

/// The images of the store, but for the mirror.
fn images(mirror: &Mirror) -> Result<Vec<File>, VssError> {
    let mut images = Vec::new();
    for (name, kind) in mirror.store.entries()? {
        let is_image = name.to_str().is_some_and(|name| name.ends_with(".image") || name.ends_with(".mirror"));
        if !is_image
            || kind != rustix::fs::FileType::RegularFile
            || name.to_str() == Some(&format!("{}.mirror", mirror.key))
        {
            continue;
        }
        let shown = || format!("{}/{}", store::NAME, name.display());
        let file = mount::open_beneath(&mirror.store, Path::new(&name), OFlags::RDONLY | OFlags::NOFOLLOW);
        images.push(File::from(file.map_err(|error| failed(format!("{} cannot be opened", shown()), &error))?));
    }
    Ok(images)
}

/// The bytes of these chunks; the last chunk ends with the device.
pub(crate) fn bytes(chunks: Range<u64>, chunk: u64, size: u64) -> Range<u64> {
    chunks.start * chunk..(chunks.end * chunk).min(size)
}

fn unreachable(place: &PlaceName) -> VssError {
    VssError::new(
        VssCode::ObjectNotFound,
        format!("{}, where the image lies, is not mounted now", place.shown.display()),
    )
    .with_hint("Mount it and try again")
}

pub(crate) fn not_ready() -> VssError {
    VssError::new(VssCode::BadState, "The cut was not prepared")
}
