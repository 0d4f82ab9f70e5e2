//! What comes after the cut of one volume: the copy is made, mended and sealed, or everything is undone.

use crate::{
    changes::{self, About, Changes},
    fault,
    member::{Making, Member, not_ready},
    reading, tracer,
    trust::Trust,
    used,
};
use rustix::fs::OFlags;
use std::{
    fs::File,
    iter,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::Path,
};
use vss_linux::{
    fsmap::{Owner, SpaceMap},
    mount, reflink,
};
use vss_model::VssError;
use vss_provider::{
    CommittedCopy,
    failure::failed,
    image_copy::{self, Attached, Part, Writable},
};
use vss_trace::{Bitmap, Counters, Target, Tracer};

impl Making {
    /// Writes the last part out and makes the copy.
    pub(crate) fn finish_cut(&mut self) -> Result<CommittedCopy, VssError> {
        self.check_left_out()?;
        let hold = self.hold.take().ok_or_else(not_ready)?;
        #[cfg(feature = "fault-injection")]
        if let (Some(reference), Some(directory)) = (self.reference.take(), &self.house.reference) {
            reference.write(directory, self.member.shadow_id, self.source.size)?;
        }
        fault::at("before_write_out");
        hold.write_out(&self.mirror.image)?;
        fault::at("written_out");
        self.owed.subtract(&self.todo);
        if let Some(tracer) = &self.tracer {
            tracer.forget_older();
            // What was not read: what was written and is free, and what was left out, which a file may need without a write.
            let mut lacked = self.taken.clone();
            lacked.union(&self.excluded);
            self.owed.intersect(&lacked);
            tracer.mark(&self.owed);
        }
        let Member { shadow_id, lasting, .. } = self.member;
        self.mirror.state.generation += 1;
        self.changes().save(&self.mirror.store, shadow_id, lasting)?;
        fault::at("changes_saved");
        // From here on they say that it is not known.
        self.mirror.state.unfinished = None;
        self.is_there = true;
        match &self.target {
            Some(target) => {
                reflink::clone(&self.mirror.image, target).map_err(|error| {
                    failed(format!("The image of shadow copy {shadow_id} cannot be cloned"), &error)
                })?;
                fault::at("shared");
                self.mirror.state.is_clean = self.tracer.is_some();
                self.mirror.save(self.tracer.as_ref(), lasting)?;
            }
            None => {
                self.mirror.lend(self.tracer.as_ref(), shadow_id)?;
                fault::at("lent");
                let name = image_copy::file_name(shadow_id);
                let file = mount::open_beneath(&self.mirror.store, Path::new(&name), OFlags::RDWR | OFlags::NOFOLLOW);
                let file = File::from(file.map_err(|error| failed(format!("{name} cannot be opened"), &error))?);
                // The loop device on which it is mended keeps this lock.
                reading::hold(&file)?;
                self.target = Some(file);
            }
        }
        Ok(CommittedCopy {
            shadow_id,
            cut_at: self.cut_at.ok_or_else(not_ready)?,
            nested: Vec::new(),
            device: None,
            data: self.member.data.clone(),
        })
    }

    fn changes(&self) -> Changes {
        let mut in_use = Bitmap::new(self.owed.chunks());
        in_use.set(0..self.owed.chunks());
        in_use.subtract(&self.free);
        in_use.union(&self.todo);
        in_use.subtract(&self.excluded);
        let unknown = match &self.trust {
            Trust::Whole => None,
            Trust::New(why) => Some(why.clone().unwrap_or_else(|| "there is no copy before it".to_owned())),
            Trust::Compare(why) | Trust::Unfinished(why) => Some(why.clone()),
        };
        Changes {
            about: About {
                format: 1,
                lineage: self.mirror.state.lineage,
                generation: self.mirror.state.generation,
                volume_bytes: self.source.size,
                chunk: self.chunk,
                unknown,
                mended_unknown: Some("the copy was never finished".to_owned()),
            },
            used: in_use,
            written: self.taken.clone(),
            mended: Bitmap::new(self.owed.chunks()),
        }
    }

    /// Lets writers mend the copy from now on. Mounts it if it has to be mended in any case.
    pub(crate) fn begin_mending(&mut self) -> Result<(), VssError> {
        let target = self.target.as_ref().ok_or_else(not_ready)?;
        if self.may_show_store || !image_copy::is_whole(target, &self.member.volume.fs_type, Part::default())? {
            self.open_for_mending()?;
        }
        Ok(())
    }

    /// Mounts the copy writable. What is written to it from here on is traced.
    fn open_for_mending(&mut self) -> Result<(), VssError> {
        let (shadow_id, volume) = (self.member.shadow_id, &self.member.volume);
        if self.mending.take().is_some() {
            // Its marks go with it, at once: what fails from here on leaves nothing behind.
            self.mending_unknown = Some("it was opened in vain before".to_owned());
            tracer::remove(&self.house.pins(&shadow_id.to_string()), volume)?;
        }
        let target = self.target.as_ref().ok_or_else(not_ready)?;
        let attached = Attached::new(target, shadow_id, Part::default())?;
        match self.trace_mending(attached.device()) {
            Ok(tracer) => self.mending = tracer,
            Err(why) => self.mending_unknown = Some(why),
        }
        let below = self.member.place.below_in(volume);
        fault::at("mending");
        self.is_mended = true;
        self.writable = Some(Writable::open(attached, shadow_id, &volume.fs_type, below)?);
        Ok(())
    }

    /// A tracer of the copy's own device; the reason when there is none.
    fn trace_mending(&self, device: &Path) -> Result<Option<Tracer>, String> {
        if self.tracer.is_none() {
            return Err("nothing was traced".to_owned());
        }
        let pins = self.house.pins(&self.member.shadow_id.to_string());
        let number = std::fs::metadata(device).map_err(|error| error.to_string())?.rdev();
        let attach = || {
            Tracer::remove(&pins)?;
            Tracer::attach(&pins, &Target::of(number)?)
        };
        attach().map(Some).map_err(|error| format!("what was mended could not be traced: {error}"))
    }

    /// Ends the writing to the copy for good.
    pub(crate) fn end_mending(&mut self) -> Result<(), VssError> {
        let Member { shadow_id, lasting, .. } = self.member;
        self.writable.as_ref().map_or(Ok(()), Writable::close)?;
        self.writable = None;
        let mut changes = self.changes();
        changes.about.mended_unknown = self.take_mended(&mut changes.mended);
        if changes.about.mended_unknown.is_some() {
            changes.used.union(&self.used_in_copy()?);
        }
        changes.used.union(&changes.mended);
        let is_lent = self.mirror.state.lent.is_some();
        if is_lent && let (Some(tracer), None) = (&self.tracer, &changes.about.mended_unknown) {
            // The mirror itself was mended: it lacks these blocks of the volume, whatever fails from here on.
            tracer.mark(&changes.mended);
            self.is_mended = false;
        }
        let target = self.target.as_ref().ok_or_else(not_ready)?;
        fault::at("mended");
        image_copy::seal(target, lasting)?;
        fault::at("sealed");
        changes.save(&self.mirror.store, shadow_id, lasting)?;
        if is_lent {
            self.mirror.state.is_clean = self.tracer.is_some() && !self.is_mended;
            self.mirror.save(self.tracer.as_ref(), lasting)?;
        }
        changes::prune(&self.mirror.store)?;
        if lasting { self.mirror.commit() } else { Ok(()) }
    }

    /// What is in use in the copy by its own file system, mounted as it always will be; everything when that does not tell.
    fn used_in_copy(&self) -> Result<Bitmap, VssError> {
        let target = self.target.as_ref().ok_or_else(not_ready)?;
        let empty = || Bitmap::new(self.owed.chunks());
        let free = || -> Option<Bitmap> {
            let Member { shadow_id, volume, .. } = &self.member;
            let mounted = image_copy::mount_sealed(target, *shadow_id, &volume.fs_type, Part::default()).ok()?;
            let top = mount::open_beneath(&mounted, Path::new(""), OFlags::RDONLY | OFlags::DIRECTORY).ok()?;
            let mut free = empty();
            SpaceMap::default()
                .each(top, |owner, run| {
                    if owner == Owner::Nobody {
                        free.set(used::inner(&run, self.chunk));
                    }
                })
                .ok()?;
            Some(free)
        };
        let mut used = empty();
        used.set(0..used.chunks());
        if let Some(free) = free() {
            used.subtract(&free);
        }
        // What swap files hold was not copied.
        let mut swapped = empty();
        used::excluded(&self.source, iter::empty(), &mut SpaceMap::default(), self.chunk, &mut swapped)?;
        used.subtract(&swapped);
        Ok(used)
    }

    /// What was mended since the copy was cut; the reason when that is not known.
    fn take_mended(&mut self, mended: &mut Bitmap) -> Option<String> {
        let Some(tracer) = self.mending.take() else { return self.mending_unknown.take() };
        let counters = tracer.counters();
        let pins = self.house.pins(&self.member.shadow_id.to_string());
        let fits = tracer.chunks() == mended.chunks() && tracer.chunk_bytes() == self.chunk;
        if fits {
            tracer.take(mended);
        }
        drop(tracer);
        let removed = Tracer::remove(&pins);
        if let Err(error) = removed {
            return Some(error.to_string());
        }
        if !fits {
            return Some("the copy's device has another size than the volume".to_owned());
        }
        // Nothing was taken before, so each write was marked when it was queued; its completion has not to be seen.
        let distrust = counters.distrust(&Counters::default()).map(|distrust| distrust.to_string());
        self.mending_unknown.take().or(distrust)
    }

    /// Undoes what was made: the copy is deleted, and what was taken from the tracer is marked again.
    pub(crate) fn undo(mut self) -> Result<(), VssError> {
        self.hold = None;
        let may_be_written = self.mirror.state.lent.is_some() && !self.end_writing();
        self.writable = None;
        self.target = None;
        let mut result = Ok(());
        if self.mending.take().is_some() {
            let pins = self.house.pins(&self.member.shadow_id.to_string());
            result = result.and(tracer::remove(&pins, &self.member.volume));
        }
        if self.mirror.state.generation == 0 || may_be_written {
            // It was never whole, and nobody has to wait for its rest; or whoever still has it may change it at any time.
            self.tracer = None;
            let pins = self.house.pins(&self.member.key);
            result = result.and(tracer::remove(&pins, &self.member.volume));
            if self.is_there {
                result = result.and(image_copy::delete(&self.mirror.store, self.member.shadow_id).map(|_| ()));
            }
            return result.and(changes::prune(&self.mirror.store)).and(self.mirror.remove());
        }
        if let Some(tracer) = &self.tracer {
            self.taken.union(&self.owed);
            tracer.mark(&self.taken);
        }
        fault::at("undoing");
        if self.mirror.state.lent.is_some() {
            result = result.and(self.mirror.take_back());
        } else if self.is_there {
            result = result.and(image_copy::delete(&self.mirror.store, self.member.shadow_id).map(|_| ()));
        }
        // What was written to the mirror while it was lent is not marked.
        self.mirror.state.is_clean = self.tracer.is_some() && (self.mirror.place.shares || !self.is_mended);
        result
            .and(self.mirror.save(self.tracer.as_ref(), true))
            .and(changes::prune(&self.mirror.store))
            .and(self.mirror.commit())
    }

    /// Ends all writing to the copy that the mirror was lent to; false when somebody does not let go of it.
    fn end_writing(&mut self) -> bool {
        let is_closed = self.writable.as_ref().is_none_or(|writable| writable.close().is_ok());
        self.writable = None;
        self.target = None;
        is_closed && matches!(reading::is_alone(&self.mirror.image), Ok(true))
    }

    /// One more mount of the copy while it may be mended.
    pub(crate) fn mount(&mut self, writable: bool) -> Result<OwnedFd, VssError> {
        if self.writable.is_none() {
            self.open_for_mending()?;
        }
        self.writable.as_ref().ok_or_else(not_ready)?.mount(writable)
    }
}
