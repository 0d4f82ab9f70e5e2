//! One set in creation: what is open for it, what was cut, and how it is undone.

use crate::{
    cost,
    image::{self, Without},
};
use rustix::io::Errno;
use std::{fs::File, os::fd::OwnedFd};
use vss_linux::{fiemap, reflink};
use vss_model::{Instant, ShadowId, Volume, VssCode, VssError};
use vss_provider::{
    CommittedCopy, current,
    failure::{failed, is, not_supported},
    image_copy::{self, Attached, Part, Writable},
    outer::{self, Outer},
    space,
    stage::Stage,
    store::{self, Store},
};

/// A volume that was taken into the set by BeginPrepare.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) shadow_id: ShadowId,
    pub(crate) volume: Volume,
    /// The copy must survive a power cut.
    pub(crate) lasting: bool,
    /// What the catalogue keeps of it.
    pub(crate) data: String,
}

/// The copies of the set that lie on one outer file system. The store is let go before the file system.
#[derive(Debug)]
struct Place {
    copies: Vec<Copy>,
    store: Store,
    outer: Outer,
}

/// One shadow copy in the making.
#[derive(Debug)]
struct Copy {
    shadow_id: ShadowId,
    volume: Volume,
    part: Part,
    lasting: bool,
    /// The live image.
    source: File,
    /// The file in the store.
    target: File,
    /// Set by the cut.
    cut_at: Option<Instant>,
    /// A store was on the volume before the cut; the copy must not show it.
    may_show_store: bool,
    /// While it is mended.
    writable: Option<Writable>,
}

/// A set that is not finished.
#[derive(Debug)]
pub(crate) struct Creation {
    stage: Stage,
    pub(crate) members: Vec<Member>,
    places: Vec<Place>,
}

impl current::Creation for Creation {
    fn new() -> Self {
        Self { stage: Stage::Preparing, members: Vec::new(), places: Vec::new() }
    }

    fn stage(&self) -> Stage {
        self.stage
    }

    fn undo(self) -> Result<(), VssError> {
        self.places.into_iter().map(Place::undo).fold(Ok(()), Result::and)
    }
}

impl Creation {
    /// Makes and opens everything that the cut needs. `stop` is asked between the steps.
    pub(crate) fn end_prepare(
        &mut self,
        wanted: Option<u64>,
        stop: impl Fn() -> Result<(), VssError>,
    ) -> Result<(), VssError> {
        let mut extents = 0;
        for member in &self.members {
            stop()?;
            let image = image::find(&member.volume).map_err(|without| refusal(&member.volume, without))?;
            let known = self.places.iter().position(|place| place.outer.name() == &image.outer);
            let at = known.unwrap_or(self.places.len());
            if known.is_none() {
                let outer = Outer::open(&image.outer)?.ok_or_else(|| not_mounted(&member.volume))?;
                space::check_fd(&outer, &image.path, wanted)?;
                self.places.push(Place { store: Store::open_or_make(&outer)?, outer, copies: Vec::new() });
            }
            let place = &mut self.places[at];
            // Known to the undoing as soon as it is there.
            place.copies.push(Copy {
                shadow_id: member.shadow_id,
                volume: member.volume.clone(),
                part: image.part,
                lasting: member.lasting,
                target: image_copy::create(&place.store, member.shadow_id, &image.file)?,
                source: image.file,
                cut_at: None,
                may_show_store: true,
                writable: None,
            });
            if let Some(copy) = place.copies.last() {
                copy.try_out()?;
                stop()?;
                copy.flush()?;
                extents += u64::from(extents_of(&copy.source)?);
            }
        }
        cost::check(extents)?;
        self.stage = Stage::Prepared;
        Ok(())
    }

    /// Writes back what was written since EndPrepare, so that the cut has little to wait for.
    pub(crate) fn pre_commit(&mut self) -> Result<(), VssError> {
        for copy in self.copies_mut() {
            copy.flush()?;
            // None appears from here to the cut: no other set is made meanwhile.
            copy.may_show_store = store::may_be_on(&copy.volume);
        }
        self.stage = Stage::PreCommitted;
        Ok(())
    }

    /// Cuts every volume of the set. Allocates nothing unless it fails.
    pub(crate) fn commit(&mut self) -> Result<(), VssError> {
        for copy in self.copies_mut() {
            if let Err(error) = reflink::clone(&copy.source, &copy.target) {
                return Err(failed(format!("The image of shadow copy {} cannot be cloned", copy.shadow_id), &error));
            }
            copy.cut_at = Some(Instant::now());
        }
        self.stage = Stage::Committed;
        Ok(())
    }

    /// What was cut and when, in the order in which the volumes were added.
    pub(crate) fn post_commit(&mut self) -> Vec<CommittedCopy> {
        let committed = self.members.iter().filter_map(|member| {
            let copy = self.copies().find(|copy| copy.shadow_id == member.shadow_id)?;
            Some(CommittedCopy {
                shadow_id: member.shadow_id,
                cut_at: copy.cut_at?,
                nested: Vec::new(),
                device: None,
                data: member.data.clone(),
            })
        });
        let committed = committed.collect();
        self.stage = Stage::Created;
        committed
    }

    /// Lets writers mend the copies from now on. Mounts those that have to be mended in any case.
    pub(crate) fn pre_final_commit(&mut self) -> Result<(), VssError> {
        for copy in self.copies_mut() {
            if copy.may_show_store || !image_copy::is_whole(&copy.target, &copy.volume.fs_type, copy.part)? {
                copy.writable()?;
            }
        }
        self.stage = Stage::Writable;
        Ok(())
    }

    /// Makes the copies read-only for good.
    pub(crate) fn post_final_commit(&mut self) -> Result<(), VssError> {
        for place in &mut self.places {
            for copy in &mut place.copies {
                copy.writable.as_ref().map_or(Ok(()), Writable::close)?;
                copy.writable = None;
                image_copy::seal(&copy.target, copy.lasting)?;
            }
            if place.copies.iter().any(|copy| copy.lasting) {
                place.store.commit(&place.outer)?;
            }
        }
        Ok(())
    }

    /// A mount of a copy that writers may mend now; none when there is no such copy, or not now.
    pub(crate) fn mount(&mut self, shadow_id: ShadowId, writable: bool) -> Option<Result<OwnedFd, VssError>> {
        let is_now = self.stage == Stage::Writable;
        let copy = self.copies_mut().find(|copy| copy.shadow_id == shadow_id).filter(|_| is_now)?;
        Some(copy.writable().and_then(|mended| mended.mount(writable)))
    }

    fn copies(&self) -> impl Iterator<Item = &Copy> {
        self.places.iter().flat_map(|place| &place.copies)
    }

    fn copies_mut(&mut self) -> impl Iterator<Item = &mut Copy> {
        self.places.iter_mut().flat_map(|place| &mut place.copies)
    }
}

impl Place {
    fn undo(self) -> Result<(), VssError> {
        let Self { copies, store, outer } = self;
        let mut result = Ok(());
        let mut is_changed = false;
        for copy in copies {
            let shadow_id = copy.shadow_id;
            // Unmounted and detached first, as far as nobody else has it open.
            drop(copy);
            match image_copy::delete(&store, shadow_id) {
                Ok(deleted) => is_changed |= deleted,
                Err(error) => result = result.and(Err(error)),
            }
        }
        result = result.and(store.remove_if_empty(&outer));
        if is_changed {
            result = result.and(store.commit(&outer));
        }
        result
    }
}

impl Copy {
    /// Shares one block now: whatever would refuse the cut shall refuse it here, where nobody waits.
    fn try_out(&self) -> Result<(), VssError> {
        let cannot = |error: &std::io::Error| {
            let what = format!("The image of shadow copy {} cannot be cloned", self.shadow_id);
            if outer::cannot_share(error) {
                return VssError::new(
                    VssCode::VolumeNotSupported,
                    format!("{what}: its file system cannot share blocks"),
                );
            }
            let hint = match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::XDEV) => "Linux 5.18 or newer is needed",
                Some(Errno::TXTBSY) => "It is in use as swap space: swapoff",
                _ => return failed(what, error),
            };
            VssError::new(VssCode::ProviderVeto, format!("{what}: {error}")).with_hint(hint)
        };
        let block = rustix::fs::fstatvfs(&self.target).map_err(|error| cannot(&error.into()))?.f_bsize;
        reflink::clone_beginning(&self.source, &self.target, block).map_err(|error| cannot(&error))
    }

    /// The copy mounted writable; it is mounted by the first who needs that.
    fn writable(&mut self) -> Result<&Writable, VssError> {
        let mounted = match self.writable.take() {
            Some(mounted) => mounted,
            None => {
                let attached = Attached::new(&self.target, self.shadow_id, self.part)?;
                Writable::open(attached, self.shadow_id, &self.volume.fs_type, None)?
            }
        };
        Ok(self.writable.insert(mounted))
    }

    fn flush(&self) -> Result<(), VssError> {
        rustix::fs::fdatasync(&self.source).map_err(|error| {
            failed(format!("The image of shadow copy {} cannot be written back", self.shadow_id), &error.into())
        })
    }
}

/// In how many pieces an image lies.
pub(crate) fn extents_of(image: &File) -> Result<u32, VssError> {
    match fiemap::count(image) {
        // A file system that does not tell cannot be foreseen either.
        Err(error) if is(&error, Errno::OPNOTSUPP) => Ok(0),
        extents => extents.map_err(|error| failed("The pieces of the image cannot be counted", &error)),
    }
}

/// The refusal of a volume whose image cannot be cloned.
pub(crate) fn refusal(volume: &Volume, without: Without) -> VssError {
    match without {
        Without::Reason(reason) => not_supported(volume, &reason),
        Without::Failed(error) => error,
    }
}

fn not_mounted(volume: &Volume) -> VssError {
    VssError::new(
        VssCode::ProviderVeto,
        format!("The file system with the image of {} is not mounted any more", volume.mount_point.display()),
    )
    .with_hint("Mount it again")
}
