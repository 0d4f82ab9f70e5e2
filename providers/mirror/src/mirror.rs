//! The running mirror of one volume on disk: the image that is brought up to date, and what is known about it.
//!
//! ```text
//!  <place>/.vss/<volume>.mirror        the image, 0600, sparse
//!               <volume>.state         what it is worth (State)
//!               <shadow-id>.image      a shadow copy: shares the mirror's blocks, or is the mirror itself, lent
//!               <shadow-id>.changes    which blocks changed up to that copy (changes.rs)
//! ```
//!
//! Where files cannot share blocks the one shadow copy *is* the mirror: it is lent, its file has the copy's name, and goes back
//! to its own when the copy is deleted.

use crate::{
    fault,
    identity::Identity,
    kept::{Kept, Registry},
    place::Place,
    reading,
    record::{self, Found},
};
use rustix::{
    fs::{FallocateFlags, FlockOperation, Mode, OFlags},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::MetadataExt,
    panic::resume_unwind,
    path::{Path, PathBuf},
    thread,
};
use uuid::Uuid;
use vss_linux::mount;
use vss_model::{Instant, ShadowId, Volume, VolumeId, VssCode, VssError};
use vss_provider::{
    failure::{failed, is},
    image_copy,
    store::{self, Store},
};
use vss_trace::Tracer;

/// What is known about a mirror; it changes by whole files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Of this structure; 1.
    pub(crate) format: u32,
    pub(crate) volume_id: VolumeId,
    /// Bytes of the volume.
    pub(crate) volume_bytes: u64,
    /// The mirror, from its making on: bitmaps of different mirrors have nothing to do with each other.
    pub(crate) lineage: Uuid,
    /// How many cuts it has had. 0: it was never whole.
    pub(crate) generation: u64,
    /// The tracer whose marks are what it lacks; none: nothing was traced.
    pub(crate) epoch: Option<Uuid>,
    /// The boot in which that tracer runs.
    pub(crate) boot_id: String,
    /// The number of the disk in that boot; another one after it was taken out and put in again.
    pub(crate) disk: Option<u64>,
    /// The number in that boot of the volume's mounting, of a device below which data can be exchanged while it is unmounted.
    pub(crate) mounting: Option<u64>,
    /// False while something is done with it that must not be broken off.
    pub(crate) is_clean: bool,
    /// Why everything was to be compared, from the beginning of a comparison until a copy has come of it: what was written
    /// since the last copy is not known.
    pub(crate) unfinished: Option<String>,
    /// The copy that it is lent to.
    pub(crate) lent: Option<ShadowId>,
    /// The image that all this is about, as it was then.
    pub(crate) image: Option<Identity>,
    /// Bytes a second that its first round read; none when that was too short to tell.
    pub(crate) first_rate: Option<u64>,
    /// Bytes a second that its later rounds read, in single blocks.
    pub(crate) later_rate: Option<u64>,
    /// Changes with each writing.
    pub(crate) stamp: Uuid,
}

/// Runs shorter than this are not worth a call: one write fills them.
const WORTH_RESERVING: u64 = 1 << 20;
/// So much is reserved between two looks at the space.
const RESERVED_AT_ONCE: u64 = 1 << 30;

/// Times that the image is opened again when it went away meanwhile.
const TRIES: u32 = 100;

/// A mirror that is open and that nobody else has. Let go when it is dropped.
#[derive(Debug)]
pub(crate) struct Mirror {
    pub(crate) key: String,
    /// Open for reading and writing past the page cache, where that is possible.
    pub(crate) image: File,
    /// As the image was found.
    pub(crate) found: Identity,
    pub(crate) state: State,
    mount_point: PathBuf,
    registry: Registry,
    pub(crate) store: Store,
    pub(crate) place: Place,
}

/// The file names of a volume's mirror.
pub(crate) fn image_name(key: &str) -> String {
    format!("{key}.mirror")
}

fn state_name(key: &str) -> String {
    format!("{key}.state")
}

/// The state of the mirror with this key in a store.
pub(crate) fn state(store: &Store, key: &str) -> Result<Found<State>, VssError> {
    Ok(match record::read::<State>(store, &state_name(key))? {
        Found::Whole(state) if state.format != 1 => Found::Damaged,
        found => found,
    })
}

/// The copy that the mirror is lent to, when its image is still there.
pub(crate) fn lent(store: &Store, key: &str) -> Result<Option<ShadowId>, VssError> {
    let Found::Whole(State { lent: Some(shadow_id), .. }) = state(store, key)? else { return Ok(None) };
    Ok(image_copy::open(store, shadow_id)?.map(|_| shadow_id))
}

/// Bytes that the image takes on its file system; 0 when there is none.
pub(crate) fn used_bytes(store: &Store, key: &str) -> u64 {
    let open = mount::open_beneath(store, Path::new(&image_name(key)), OFlags::PATH | OFlags::NOFOLLOW);
    open.and_then(|file| File::from(file).metadata()).map_or(0, |found| found.blocks() * 512)
}

/// Bytes that the image takes while it is lent; 0 when it is not.
pub(crate) fn lent_bytes(store: &Store, key: &str) -> u64 {
    let image = || image_copy::open(store, lent(store, key).ok()??).ok()?;
    image().and_then(|file| file.metadata().ok()).map_or(0, |found| found.blocks() * 512)
}

impl Mirror {
    /// Opens the volume's mirror at this place, or makes an empty one, and keeps everybody else from it.
    ///
    /// # Errors
    /// `VSS_E_PROVIDER_VETO` when somebody has it.
    pub(crate) fn open_or_make(
        place: Place,
        key: &str,
        volume: &Volume,
        size: u64,
        registry: &Registry,
    ) -> Result<Self, VssError> {
        let store = Store::open_or_make(&place)?;
        if let Some(shadow_id) = lent(&store, key)? {
            return Err(VssError::new(
                VssCode::ProviderVeto,
                format!("The mirror of {} is shadow copy {shadow_id} itself", volume.mount_point.display()),
            )
            .with_hint("Delete that shadow copy first"));
        }
        let image = open_image(&store, key, true)?.ok_or_else(|| gone(key))?;
        let found = Identity::of(&image)?;
        let state = match state(&store, key)? {
            // What it was lent to is gone.
            Found::Whole(state) => State { lent: None, ..state },
            Found::None | Found::Damaged => State {
                format: 1,
                volume_id: volume.id.clone(),
                volume_bytes: size,
                lineage: Uuid::new_v4(),
                generation: 0,
                epoch: None,
                boot_id: String::new(),
                disk: None,
                mounting: None,
                is_clean: false,
                unfinished: None,
                lent: None,
                image: None,
                first_rate: None,
                later_rate: None,
                stamp: Uuid::new_v4(),
            },
        };
        let length = size.next_multiple_of(4096);
        // Also the length that it has would count as a write.
        if found.bytes() != length {
            image.set_len(length).map_err(|error| failed("The image cannot be given its size", &error))?;
        }
        Ok(Self {
            key: key.to_owned(),
            image,
            found,
            state,
            mount_point: volume.mount_point.clone(),
            registry: registry.clone(),
            store,
            place,
        })
    }

    /// Opens the mirror that is there, if nobody has it.
    ///
    /// # Errors
    /// `VSS_E_PROVIDER_VETO` when somebody has it.
    pub(crate) fn open(place: Place, key: &str, kept: &Kept, registry: &Registry) -> Result<Option<Self>, VssError> {
        let Some(store) = Store::open(&place)? else { return Ok(None) };
        let Some(image) = open_image(&store, key, false)? else { return Ok(None) };
        let Found::Whole(state) = state(&store, key)? else { return Ok(None) };
        Ok(Some(Self {
            key: key.to_owned(),
            found: Identity::of(&image)?,
            image,
            state,
            mount_point: kept.mount_point.clone(),
            registry: registry.clone(),
            store,
            place,
        }))
    }

    /// Writes the state down with a new stamp, and the stamp into the registry; `lasting`: down to the disk. Both at the same
    /// time, mostly on two disks: when only one of them comes about, their stamps differ, and the mirror is not trusted. What
    /// is written to the image after this was written by somebody else. The tracer whose marks are what it lacks is told of the
    /// stamp at last: no disk that is put back to an older state has that with it.
    pub(crate) fn save(&mut self, tracer: Option<&Tracer>, lasting: bool) -> Result<(), VssError> {
        self.state.image = Some(Identity::of(&self.image)?);
        self.state.stamp = Uuid::new_v4();
        let kept = Kept {
            format: 1,
            volume_id: self.state.volume_id.clone(),
            mount_point: self.mount_point.clone(),
            place: self.place.name.clone(),
            stamp: self.state.stamp,
            last_used: Instant::now(),
        };
        let put = || self.registry.put(&self.key, &kept, lasting);
        thread::scope(|scope| {
            let putting = thread::Builder::new().name("vss-registry".to_owned()).spawn_scoped(scope, put);
            let saved = record::write(&self.store, &state_name(&self.key), &self.state, lasting);
            fault::at("state_saved");
            let put = match putting {
                Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
                Err(_) => put(),
            };
            saved.and(put)
        })?;
        if let Some(tracer) = tracer {
            tracer.set_stamp(self.state.stamp.as_u128());
        }
        Ok(())
    }

    /// Has blocks found for these runs of bytes of the image before they are written. Several writers then write at once also
    /// where finding them is done under the file's lock (ext4), and neighbours lie together whatever the order in which they
    /// are written. Where there is no room, or the file system cannot do it, the rest is left to the writing.
    ///
    /// # Errors
    /// Those of `stop`, and of the look at the space.
    pub(crate) fn reserve(
        &self,
        runs: impl Iterator<Item = Range<u64>>,
        min_free: Option<u64>,
        stop: &dyn Fn() -> Result<(), VssError>,
    ) -> Result<(), VssError> {
        // On btrfs it would keep the image from being compressed.
        if !matches!(self.place.name.outer.fs_type.as_str(), "ext4" | "xfs") {
            return Ok(());
        }
        for run in runs.filter(|run| run.end - run.start >= WORTH_RESERVING) {
            let mut start = run.start;
            while start < run.end {
                stop()?;
                let length = (run.end - start).min(RESERVED_AT_ONCE);
                if self.place.room(min_free)? <= length
                    || rustix::fs::fallocate(&self.image, FallocateFlags::KEEP_SIZE, start, length).is_err()
                {
                    return Ok(());
                }
                start += length;
            }
        }
        Ok(())
    }

    /// Gives the image the name of a copy: it is lent, and others may read it.
    pub(crate) fn lend(&mut self, tracer: Option<&Tracer>, shadow_id: ShadowId) -> Result<(), VssError> {
        self.state.lent = Some(shadow_id);
        self.save(tracer, true)?;
        fault::at("lending");
        rename(&self.store, &image_name(&self.key), &image_copy::file_name(shadow_id))?;
        reading::hold(&self.image).map(|_| ())
    }

    /// Gives the image its own name again.
    pub(crate) fn take_back(&mut self) -> Result<(), VssError> {
        if let Some(shadow_id) = self.state.lent {
            take_back(&self.store, &self.key, shadow_id, &self.image)?;
            self.state.lent = None;
        }
        Ok(())
    }

    /// Removes it with everything that is known about it. A copy that it is lent to stays.
    pub(crate) fn remove(self) -> Result<(), VssError> {
        let (key, registry) = (self.key.clone(), self.registry.clone());
        self.remove_files()?;
        registry.remove(&key)
    }

    /// Removes its files alone.
    pub(crate) fn remove_files(self) -> Result<(), VssError> {
        let Self { key, image, store, place, .. } = self;
        // Only then it is let go: who opens it before has to see that it is gone.
        remove(&store, &key)?;
        drop(image);
        store.remove_if_empty(&place)?;
        store.commit(&place)
    }

    /// Brings to the disk which files are in its store.
    pub(crate) fn commit(&self) -> Result<(), VssError> {
        self.store.commit(&self.place)
    }
}

/// Removes the files of a mirror.
pub(crate) fn remove(store: &Store, key: &str) -> Result<bool, VssError> {
    let was_there = record::remove(store, &image_name(key))?;
    record::remove(store, &format!("{}.new", state_name(key)))?;
    Ok(record::remove(store, &state_name(key))? || was_there)
}

/// Gives the open image of a copy the name of the mirror that it was.
pub(crate) fn take_back(store: &Store, key: &str, shadow_id: ShadowId, image: &File) -> Result<(), VssError> {
    let unsealed = || -> io::Result<()> {
        match store::set_immutable(image, false) {
            Err(error) if !is(&error, Errno::NOTTY) && !is(&error, Errno::OPNOTSUPP) => return Err(error),
            _ => {}
        }
        Ok(rustix::fs::fchmod(image, Mode::RUSR | Mode::WUSR)?)
    };
    unsealed().map_err(|error| failed(format!("Shadow copy {shadow_id} cannot be unsealed"), &error))?;
    fault::at("taking_back");
    rename(store, &image_copy::file_name(shadow_id), &image_name(key))
}

fn rename(store: &Store, from: &str, to: &str) -> Result<(), VssError> {
    rustix::fs::renameat(store, from, store, to)
        .and_then(|()| rustix::fs::fsync(store))
        .map_err(|error| failed(format!("{from} cannot be renamed"), &error.into()))
}

/// Opens the image past the page cache, or without that where its file system does not have it, and locks it.
fn open_image(store: &Store, key: &str, make: bool) -> Result<Option<File>, VssError> {
    let name = image_name(key);
    let cannot = |error: io::Error| failed(format!("{}/{name} cannot be opened", store::NAME), &error);
    let mut flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::DIRECT;
    if make {
        flags |= OFlags::CREATE;
    }
    let open = |flags| rustix::fs::openat(store, &name, flags, Mode::RUSR | Mode::WUSR).map(File::from);
    for _ in 0..TRIES {
        let opened = match open(flags) {
            Err(Errno::INVAL) => open(flags & !OFlags::DIRECT),
            result => result,
        };
        let image = match opened {
            Ok(image) => image,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(cannot(error.into())),
        };
        match rustix::fs::flock(&image, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(VssError::new(
                    VssCode::ProviderVeto,
                    format!("The mirror {key} is in use: a set is being made with it"),
                )
                .with_hint("Wait until that set is finished"));
            }
            Err(error) => return Err(cannot(error.into())),
        }
        // Between the two it may have been removed, or its name given to what was lent.
        let ours = Identity::of(&image)?;
        if Identity::at(store, &name)?.is_some_and(|there| there.is_of_same(&ours)) {
            return Ok(Some(image));
        }
    }
    Err(gone(key))
}

fn gone(key: &str) -> VssError {
    VssError::new(VssCode::ProviderVeto, format!("The mirror {key} went away while it was opened"))
        .with_hint("Try again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn who_opens_an_image_while_it_is_removed_never_has_one_that_is_gone() {
        let place = tempfile::tempdir().unwrap();
        let directory = File::open(place.path()).unwrap();
        for round in 0..300 {
            let begin = Barrier::new(2);
            let store = Store::open_or_make(&directory).unwrap();
            drop(open_image(&store, "x", true).unwrap());
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    begin.wait();
                    if let Ok(Some(image)) = open_image(&store, "x", false) {
                        remove(&store, "x").unwrap();
                        drop(image);
                    }
                });
                begin.wait();
                for _ in 0..20 {
                    // The other has it.
                    let Ok(opened) = open_image(&store, "x", true) else { continue };
                    let image = opened.unwrap();
                    let ours = Identity::of(&image).unwrap();
                    let there = Identity::at(&store, &image_name("x")).unwrap();
                    assert!(there.is_some_and(|there| there.is_of_same(&ours)), "round {round}");
                }
            });
        }
    }
}
