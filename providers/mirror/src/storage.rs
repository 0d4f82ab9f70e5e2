//! What is kept for copies to come: the running mirrors, and their end.

use crate::{
    changes,
    identity::Identity,
    kept::{self, Kept},
    mirror::{self, Mirror, State},
    place::{Place, PlaceName},
    provider::MirrorProvider,
    reading,
    record::Found,
    trust::{Facts, Trust},
};
use std::{fs, io};
use vss_model::{Instant, ShadowId, VolumeId, VssCode, VssError};
use vss_provider::{
    Deletion,
    failure::failed,
    image_copy,
    storage::{ShadowStorage, Storage},
    store::Store,
};
use vss_trace::{TraceError, Tracer};

/// A mirror as it lies at its place.
struct Lying {
    place: Place,
    store: Store,
    state: State,
    lent: Option<ShadowId>,
}

impl MirrorProvider {
    /// What lies at the place of a mirror; none when it is not reachable, or the mirror is gone.
    fn lying(key: &str, kept: &Kept) -> Result<Option<Lying>, VssError> {
        let Some(place) = Place::open(&kept.place)? else { return Ok(None) };
        let Some(store) = Store::open(&place)? else { return Ok(None) };
        let Found::Whole(state) = mirror::state(&store, key)? else { return Ok(None) };
        let lent = mirror::lent(&store, key)?;
        Ok(Some(Lying { place, store, state, lent }))
    }

    fn describe(&self, key: &str, kept: &Kept) -> Result<Storage, VssError> {
        let mut described = Storage {
            volume_id: kept.volume_id.clone(),
            volume: kept.mount_point.clone(),
            place: kept.place.shown.clone(),
            used_bytes: 0,
            volume_bytes: 0,
            shadows: 0,
            last_used: kept.last_used,
            full_compare: None,
        };
        let Some(found) = Self::lying(key, kept)? else {
            described.full_compare = Some("its place cannot be reached now, or the mirror is gone".to_owned());
            return Ok(described);
        };
        described.used_bytes = mirror::used_bytes(&found.store, key);
        described.volume_bytes = found.state.volume_bytes;
        for (shadow_id, about) in changes::all(&found.store)? {
            let is_ours = about.lineage == found.state.lineage;
            described.shadows += u64::from(is_ours && image_copy::open(&found.store, shadow_id)?.is_some());
        }
        let image = Identity::of_mirror(&found.store, key, found.lent)?;
        let pins = self.house().pins(key);
        let (facts, _tracer) =
            Facts::of(&found.state, image.as_ref(), Some(kept), None, found.state.volume_bytes, &pins);
        described.full_compare = match facts.judge() {
            Trust::Compare(why) | Trust::Unfinished(why) => Some(why),
            Trust::New(why) => why,
            Trust::Whole => None,
        };
        Ok(described)
    }

    /// Ends a copy that the mirror was lent to; false when it was not there. The mirror has its image again, if it is still
    /// the volume's and nobody reads the copy. Otherwise the mirror ends too, and who reads keeps what he reads.
    pub(crate) fn take_back(
        &self,
        place: &Place,
        store: &Store,
        key: &str,
        shadow_id: ShadowId,
    ) -> Result<bool, VssError> {
        let Some(image) = image_copy::open(store, shadow_id)? else { return Ok(false) };
        let kept = self.registry.get(key)?.filter(|kept| kept.place == place.name);
        if kept.is_some() && reading::is_alone(&image)? {
            // A copy that was never finished was perhaps written to; then the state is not clean.
            mirror::take_back(store, key, shadow_id, &image)?;
            reading::let_go(&image)?;
            return Ok(true);
        }
        // First, so that nobody takes what is left for a mirror whose image is there.
        mirror::remove(store, key)?;
        image_copy::delete(store, shadow_id)?;
        if let Some(kept) = kept {
            self.remove_mirror(key, &kept)?;
        }
        Ok(true)
    }

    /// Removes the mirror of a volume whose first copy was broken off.
    pub(crate) fn remove_never_whole(&self, key: &str) -> Result<(), VssError> {
        let Some(kept) = self.registry.get(key)? else { return Ok(()) };
        match Self::lying(key, &kept)? {
            Some(found) if found.state.generation == 0 => self.remove_mirror(key, &kept),
            _ => Ok(()),
        }
    }

    /// Removes the volume's mirror when it lies elsewhere than where the next one is wanted. A copy that it is lent to stays.
    pub(crate) fn leave_other_place(&self, key: &str, wanted: &PlaceName) -> Result<(), VssError> {
        match self.registry.get(key)? {
            Some(kept) if kept.place != *wanted => self.remove_mirror(key, &kept),
            _ => Ok(()),
        }
    }

    /// Removes a mirror with its tracer, and forgets it. One whose place is not mounted is left behind.
    fn remove_mirror(&self, key: &str, kept: &Kept) -> Result<(), VssError> {
        let is_there = kept.place.is_mounted()?;
        let mirror = match Place::open(&kept.place)? {
            Some(place) => Mirror::open(place, key, kept, &self.registry)?,
            None => None,
        };
        Tracer::remove(&self.house().pins(key)).map_err(|error| not_removed(&error))?;
        match mirror {
            Some(mirror) => mirror.remove(),
            None if is_there => self.registry.remove(key),
            None => self.registry.leave(key, kept),
        }
    }

    /// Removes a mirror that was left behind, if its place is there again; what it was then, else none.
    fn remove_left(&self, key: &str, left: &Kept) -> Result<Option<Storage>, VssError> {
        if !left.place.is_mounted()? {
            return Ok(None);
        }
        let described = self.describe(key, left)?;
        let mirror = match Place::open(&left.place)? {
            Some(place) => Mirror::open(place, key, left, &self.registry)?,
            None => None,
        };
        // Asked only now that nobody else has it: it may have become the volume's mirror again.
        let is_taken = self.registry.get(key)?.is_some_and(|kept| kept.place == left.place);
        if let Some(mirror) = mirror.filter(|_| !is_taken) {
            mirror.remove_files()?;
        }
        self.registry.forget(key, left)?;
        Ok((!is_taken).then_some(described))
    }

    /// Why a mirror is not kept any longer, if so.
    fn has_ended(&self, key: &str, kept: &Kept) -> Result<bool, VssError> {
        let Some(found) = Self::lying(key, kept)? else {
            // It may come back with its disk.
            return Ok(Place::open(&kept.place)?.is_some());
        };
        if found.lent.is_some() {
            return Ok(false);
        }
        let unused = i64::try_from(self.options.unused.as_micros()).unwrap_or(i64::MAX);
        let is_unused = kept.last_used.after_us(unused) <= Instant::now();
        Ok(found.state.generation == 0 || is_unused || found.place.room(self.options.min_free_bytes)? == 0)
    }

    /// Removes tracers of nobody: of mirrors that are gone, and of copies that were being mended.
    fn remove_strays(&self) -> Result<(), VssError> {
        let kept = self.registry.all()?;
        let pins = self.house().pins("x");
        let Some(directory) = pins.directory().parent() else { return Ok(()) };
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(format!("{} cannot be read", directory.display()), &error)),
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let is_known = kept.iter().any(|(key, _)| self.house().pins(key).directory().file_name() == Some(&name));
            // Keys of volumes and ids of copies are pinned under their own names.
            if let Some(name) = name.to_str().filter(|_| !is_known && self.is_idle()) {
                Tracer::remove(&self.house().pins(name)).map_err(|error| not_removed(&error))?;
            }
        }
        Ok(())
    }
}

impl ShadowStorage for MirrorProvider {
    fn list(&self) -> Result<Vec<Storage>, VssError> {
        let mut all = Vec::new();
        for (key, kept) in self.registry.all()? {
            all.push(self.describe(&key, &kept)?);
        }
        for (key, left) in self.registry.left()? {
            let why = "this one was left behind, and is removed when its place is there again";
            all.push(Storage { full_compare: Some(why.to_owned()), ..self.describe(&key, &left)? });
        }
        Ok(all)
    }

    fn remove(&self, volume_id: &VolumeId) -> Result<Deletion, VssError> {
        let key = kept::key(volume_id);
        let mut deletion = Deletion::WasGone;
        for (_, left) in self.registry.left()?.iter().filter(|(other, _)| *other == key) {
            if self.remove_left(&key, left)?.is_some() {
                deletion = Deletion::Deleted;
            }
        }
        let Some(kept) = self.registry.get(&key)? else { return Ok(deletion) };
        if let Some(Lying { lent: Some(shadow_id), .. }) = Self::lying(&key, &kept)? {
            return Err(VssError::new(
                VssCode::ProviderVeto,
                format!("The mirror of {} is shadow copy {shadow_id} itself", kept.mount_point.display()),
            )
            .with_hint("Delete that shadow copy first"));
        }
        self.remove_mirror(&key, &kept)?;
        Ok(Deletion::Deleted)
    }

    fn tend(&self) -> Result<Vec<Storage>, VssError> {
        let mut removed = Vec::new();
        let mut result = Ok(());
        for (key, kept) in self.registry.all()? {
            let end = || -> Result<Option<Storage>, VssError> {
                if !self.has_ended(&key, &kept)? {
                    return Ok(None);
                }
                let described = self.describe(&key, &kept)?;
                self.remove_mirror(&key, &kept)?;
                Ok(Some(described))
            };
            match end() {
                Ok(ended) => removed.extend(ended),
                Err(error) => result = result.and(Err(error)),
            }
        }
        for (key, left) in self.registry.left()? {
            match self.remove_left(&key, &left) {
                Ok(ended) => removed.extend(ended),
                Err(error) => result = result.and(Err(error)),
            }
        }
        result.and(self.remove_strays()).map(|()| removed)
    }
}

fn not_removed(error: &TraceError) -> VssError {
    VssError::new(VssCode::ProviderVeto, format!("The tracer of a mirror cannot be removed: {error}"))
}
