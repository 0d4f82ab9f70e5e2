//! The cut of one volume: what is made for it before, what is read in the hold, and why it may not be trusted.

#[cfg(feature = "fault-injection")]
use crate::reference::Reference;
use crate::{
    copier::Origin,
    fault,
    hold::{Hold, Unread},
    member::{Making, Member, bytes, not_ready},
    rounds, used,
};
use std::time::Duration;
use vss_linux::block_device;
use vss_model::{Instant, VssCode, VssError};
use vss_provider::{failure::failed, store};
use vss_trace::{Counters, Distrust, Tracer};

/// Memory for what a program may begin to write between the last look and the hold, where so much can be read in time: 10 ms
/// of several GB/s. No more, as every page takes time to be made.
const BURST: u64 = 64 << 20;
/// Least memory for the last part: four times what is held for in any case.
const LEAST_PART: u64 = 4 * rounds::LITTLE;
/// Most memory for the last part of one volume.
const MOST_PART: u64 = 256 << 20;
/// Most pieces of the last part.
const MOST_PIECES: usize = 1 << 17;

impl Making {
    /// Begins to make everything that the hold needs, unless it is there.
    pub(crate) fn make_ready(&mut self, longest: Duration) -> Result<(), VssError> {
        // None appears between PreCommit and the cut: no other set is made meanwhile.
        let Member { volume, place, .. } = &self.member;
        self.may_show_store = place.is_on(volume) || store::may_be_on(volume);
        // Four times what is left, and where no moment of rest was found what is unsettled: if a completion was not traced, it
        // is read again.
        let foreseen = 4 * self.dirty().max(rounds::LITTLE) + self.unsettled.count() * self.chunk;
        let (compared, capacity, pieces) = if self.tracer.is_some() {
            let in_time = self
                .rate
                .map_or(BURST, |rate| u64::try_from(u128::from(rate) * longest.as_millis() / 1000).unwrap_or(u64::MAX));
            let in_use = (self.free.chunks() - self.free.count()) * self.chunk;
            let capacity = foreseen.max(in_time.min(BURST)).min(in_use).clamp(LEAST_PART, MOST_PART);
            let pieces = usize::try_from(capacity / self.chunk).unwrap_or(MOST_PIECES).clamp(1024, MOST_PIECES);
            (None, capacity, pieces)
        } else {
            let image = self.mirror.image.try_clone().map_err(|error| failed("The image cannot be opened", &error))?;
            let pieces =
                self.todo.runs().count() * 2 + usize::try_from(self.dirty() >> 18).unwrap_or(MOST_PIECES) + 1024;
            (Some(image), LEAST_PART * 4, pieces)
        };
        let least = pieces.min(4 * self.todo.runs().count() + self.unsettled.runs().count() + 512);
        // Making it takes a while, which EndPrepare has and PreCommit has not.
        if self.hold.as_ref().is_none_or(|hold| !hold.fits(capacity.min(foreseen), least)) {
            self.hold = None;
            self.hold = Some(Hold::new(&self.source, compared, capacity, pieces)?);
        }
        Ok(())
    }

    /// Waits until all of it is made.
    pub(crate) fn wait_until_ready(&mut self) -> Result<(), VssError> {
        self.hold = self.hold.take().map(Hold::made).transpose()?;
        Ok(())
    }

    /// Begins to read the last part. In the hold: allocates nothing unless it fails.
    pub(crate) fn begin_cut(&mut self) -> Result<(), VssError> {
        let size = block_device::size(&self.source.device)
            .map_err(|error| failed("The size of the device cannot be read in the hold", &error))?;
        if size != self.source.size {
            return Err(self.failed_in_hold("its device changed its size".to_owned(), "Make the set again"));
        }
        if let Some(counters) = self.tracer.as_ref().map(Tracer::counters) {
            self.take();
            let distrust = self.distrust(&counters);
            if let Some(distrust) = distrust.filter(|distrust| !distrust.is_of_ends()) {
                return Err(self.distrusted(distrust));
            }
            // Counts without a base are less by what was under way at the attach, and hide as many sectors that they lack.
            if distrust.is_some() || self.has_no_base() {
                // If that is too much now, it is marked again, and the next set begins with it.
                self.rebase(&counters);
            }
            self.todo.clone_from(&self.owed);
            self.todo.subtract(&self.free);
            // What was written after the question is in use, whatever the answer was.
            self.todo.union(&self.fresh);
            self.todo.subtract(&self.excluded);
        } else {
            used::free_now(&self.source, &mut self.map, self.chunk, &mut self.free)?;
            self.todo.set(0..self.todo.chunks());
            self.todo.subtract(&self.free);
            self.todo.subtract(&self.excluded);
        }
        let hold = self.hold.as_ref().ok_or_else(not_ready)?;
        if self.tracer.is_some() && self.todo.count() * self.chunk > hold.capacity() {
            // Discards mark what is free; only now it is worth the question.
            used::free_now(&self.source, &mut self.map, self.chunk, &mut self.free)?;
            self.todo.subtract(&self.free);
            if self.todo.count() * self.chunk > hold.capacity() {
                return Err(self.too_much());
            }
        }
        let (chunk, size) = (self.chunk, self.source.size);
        fault::at("taken_in_hold");
        hold.begin(self.todo.runs().map(|run| bytes(run, chunk, size))).map_err(|unread| self.unread(unread))
    }

    /// Waits for the reading, and looks whether anything was written meanwhile. In the hold.
    pub(crate) fn end_cut(&mut self) -> Result<(), VssError> {
        let hold = self.hold.as_ref().ok_or_else(not_ready)?;
        hold.wait().map_err(|unread| self.unread(unread))?;
        #[cfg(feature = "fault-injection")]
        if self.house.reference.is_some() {
            let chunks = self.todo.chunks();
            self.reference = Some(Reference::read(&self.source, &mut self.map, self.chunk, chunks)?);
        }
        if let Some(tracer) = &self.tracer {
            let counters = tracer.counters();
            // Late ones are taken for the copy after this, and no part of what was written up to this one.
            self.fresh.clear_all();
            tracer.take(&mut self.fresh);
            tracer.mark(&self.fresh);
            self.fresh.subtract(&self.excluded);
            if !self.fresh.is_empty() {
                let count = self.fresh.count();
                return Err(self.failed_in_hold(
                    format!("{count} blocks were written while it was held"),
                    "Something writes to the device past the file system: a program on the device itself, or swap space",
                ));
            }
            if let Some(distrust) = self.distrust(&counters).filter(|distrust| !distrust.is_of_ends()) {
                return Err(self.distrusted(distrust));
            }
            tracer.set_balanced(&counters);
        }
        fault::at("read_in_hold");
        self.cut_at = Some(Instant::now());
        Ok(())
    }

    fn unread(&self, unread: Unread) -> VssError {
        match unread {
            Unread::TooMuch => self.too_much(),
            Unread::Failed(offset, number) => {
                self.source.unreadable(offset, &std::io::Error::from_raw_os_error(number))
            }
        }
    }

    fn too_much(&self) -> VssError {
        self.failed_in_hold(
            format!(
                "{} MiB were to be read in the hold, more than four times what was foreseen",
                (self.todo.count() * self.chunk) >> 20
            ),
            "Try again when less is written to the volume, or allow a longer hold (--max-hold)",
        )
    }

    /// Why the marks up to these counts, of a moment at which no write is under way, may lack something.
    pub(crate) fn distrust(&self, counters: &Counters) -> Option<Distrust> {
        match (self.tracer.as_ref()?.balanced_at(), &self.since) {
            (Some(base), _) => counters.distrust_at_rest(&base),
            (None, None) => None,
            (None, Some(since)) => {
                // Of a write that was under way at the attach no more than its end can be seen: one that was missed may be
                // of anything. The balance lacks all of them, and says nothing.
                let missed = counters.missed_ends.wrapping_sub(since.missed_ends);
                counters.distrust(since).or((missed > 0).then_some(Distrust::Missed(missed)))
            }
        }
    }

    fn distrusted(&self, distrust: Distrust) -> VssError {
        self.failed_in_hold(distrust.to_string(), "Make the set again: everything is compared then")
    }

    fn failed_in_hold(&self, why: String, hint: &str) -> VssError {
        VssError::new(
            VssCode::ProviderVeto,
            format!("The mirror of {} cannot be trusted: {why}", self.member.volume.mount_point.display()),
        )
        .with_hint(hint)
    }
}
