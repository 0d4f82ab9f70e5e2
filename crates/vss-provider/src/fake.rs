//! A provider for tests: copies nothing, supports every volume, fails or hangs where it is told to.
//!
//! Its "copies" are marker files when it has a store, so that a test sees what a crash left behind; its mounts show the
//! live volume.

mod copying;

pub use copying::FakeCopying;

use crate::{
    Capabilities, CommittedCopy, CopyKind, Deletion, Forecast, MountedTree, PrepareRequest, Presence, Provider,
    ProviderProperties, ProviderType, StoredCopy, Support,
    progress::Watcher,
    stage::{Stage, unknown_set},
    storage::ShadowStorage,
};
use copying::FakeStorage;
use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use vss_linux::mount::{self, Change};
use vss_model::{CreationOptions, FreezePolicy, Instant, ProviderId, SetId, ShadowId, Volume, VssCode, VssError};

macro_rules! phases {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// A call of the contract that a fake can record, fail or hang in. Its text form is the lower-case name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Phase {
            $($(#[$doc])* $variant,)*
        }

        impl Phase {
            /// Every phase, in the order of the calls.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The text form: `begin_prepare`, `commit`...
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

phases! {
    /// [`Provider::begin_prepare`].
    BeginPrepare = "begin_prepare";
    /// [`Provider::end_prepare`].
    EndPrepare = "end_prepare";
    /// [`Provider::pre_commit`].
    PreCommit = "pre_commit";
    /// [`Provider::commit`].
    Commit = "commit";
    /// [`Provider::post_commit`].
    PostCommit = "post_commit";
    /// [`Provider::pre_final_commit`].
    PreFinal = "pre_final";
    /// [`Provider::post_final_commit`].
    PostFinal = "post_final";
    /// [`Provider::abort`].
    Abort = "abort";
    /// [`Provider::mount`].
    Mount = "mount";
    /// [`Provider::delete`].
    Delete = "delete";
}

impl FromStr for Phase {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|phase| phase.name() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|phase| phase.name()).collect();
            format!("\"{text}\" is no phase; the phases are {}", names.join(", "))
        })
    }
}

/// How a fake behaves.
#[derive(Debug, Clone)]
pub struct FakeOptions {
    /// Its name; its id is made from it.
    pub name: String,
    /// What it says it needs.
    pub freeze_policy: FreezePolicy,
    /// A directory for marker files `<shadow-id>`: made in `end_prepare`, deleted by `abort` and `delete`. It is created
    /// when it is missing. Without one, copies live in memory and are gone with the fake.
    pub store: Option<PathBuf>,
    /// Its copies can be written to until they are finished.
    pub writable_phase: bool,
    /// The phase that fails, with this code, each time.
    pub fail: Option<(Phase, VssCode)>,
    /// The phase that takes this long, before it does anything.
    pub hang: Option<(Phase, Duration)>,
    /// How long each `commit` takes.
    pub commit_delay: Duration,
    /// What it does as if it copied blocks; none: nothing.
    pub copying: Option<FakeCopying>,
}

impl Default for FakeOptions {
    /// `fake`, `NeedsHold`, in memory, a writable phase, no failures, no delays.
    fn default() -> Self {
        Self {
            name: "fake".to_owned(),
            freeze_policy: FreezePolicy::NeedsHold,
            store: None,
            writable_phase: true,
            fail: None,
            hang: None,
            commit_delay: Duration::ZERO,
            copying: None,
        }
    }
}

/// The provider that copies nothing.
#[derive(Debug)]
pub struct FakeProvider {
    options: FakeOptions,
    storage: Option<FakeStorage>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    set: Option<FakeSet>,
    /// Copies that exist, when there is no store.
    in_memory: BTreeSet<ShadowId>,
    calls: Vec<(Phase, SetId)>,
}

#[derive(Debug)]
struct FakeSet {
    id: SetId,
    stage: Stage,
    shadows: Vec<ShadowId>,
    /// What was asked for, of each copy.
    requests: Vec<PrepareRequest>,
    cut_at: Option<Instant>,
    /// The error that `commit` is to return, made beforehand because `commit` must not allocate.
    commit_failure: Option<VssError>,
}

impl FakeProvider {
    /// A fake that behaves as told.
    #[must_use]
    pub fn new(options: FakeOptions) -> Self {
        let storage = options.copying.clone().map(FakeStorage::new);
        Self { options, storage, state: Mutex::default() }
    }

    /// What was called so far, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<(Phase, SetId)> {
        self.lock().calls.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panicked elsewhere must still see the calls.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the call, hangs, and fails if it is told to. Does not allocate for `Commit`.
    fn enter(&self, phase: Phase, set_id: SetId) -> Result<(), VssError> {
        {
            let mut state = self.lock();
            if phase != Phase::Commit {
                state.calls.reserve(2);
            }
            state.calls.push((phase, set_id));
        }
        if let Some((hanging, time)) = self.options.hang
            && hanging == phase
        {
            std::thread::sleep(time);
        }
        match self.failure(phase) {
            Some(failure) if phase != Phase::Commit => Err(failure),
            _ => Ok(()),
        }
    }

    fn failure(&self, phase: Phase) -> Option<VssError> {
        let (failing, code) = self.options.fail?;
        (failing == phase)
            .then(|| VssError::new(code, format!("Provider {} was told to fail {}", self.options.name, phase.name())))
    }

    /// Moves the set from one stage to the next and hands it to `act`.
    fn advance<T>(
        &self,
        set_id: SetId,
        from: Stage,
        to: Stage,
        phase: Phase,
        act: impl FnOnce(&mut FakeSet) -> Result<T, VssError>,
    ) -> Result<T, VssError> {
        let mut state = self.lock();
        let set = state.set.as_mut().filter(|set| set.id == set_id).ok_or_else(|| unknown_set(set_id))?;
        set.stage.expect(from, phase.name())?;
        let result = act(set)?;
        set.stage = to;
        Ok(result)
    }

    /// Makes believe to copy the volumes of the set, one after another.
    fn copy(&self, set_id: SetId, watcher: &dyn Watcher) -> Result<(), VssError> {
        let Some(storage) = &self.storage else { return Ok(()) };
        let is_there = || self.lock().set.as_ref().is_some_and(|set| set.id == set_id);
        let requests = self.lock().set.as_ref().filter(|set| set.id == set_id).map(|set| set.requests.clone());
        for request in requests.unwrap_or_default() {
            if !storage.copying().copy(&request, watcher, || !is_there()) {
                return Err(veto(format!("Set {set_id} was aborted meanwhile")));
            }
        }
        Ok(())
    }

    fn marker(&self, shadow_id: ShadowId) -> Option<PathBuf> {
        self.options.store.as_ref().map(|store| store.join(shadow_id.to_string()))
    }

    /// Deletes the copy's marker; true when there was one.
    fn remove(&self, shadow_id: ShadowId) -> Result<bool, VssError> {
        let Some(marker) = self.marker(shadow_id) else {
            return Ok(self.lock().in_memory.remove(&shadow_id));
        };
        match std::fs::remove_file(&marker) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(veto(format!("{} cannot be deleted: {error}", marker.display()))),
        }
    }

    fn exists(&self, shadow_id: ShadowId) -> bool {
        match self.marker(shadow_id) {
            Some(marker) => marker.exists(),
            None => self.lock().in_memory.contains(&shadow_id),
        }
    }
}

fn veto(message: String) -> VssError {
    VssError::new(VssCode::ProviderVeto, message)
}

/// A lasting id for a name: 128-bit FNV-1a (draft-eastlake-fnv-17, section 5).
fn id_of(name: &str) -> ProviderId {
    let hash = name.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    });
    ProviderId::from_u128(hash)
}

impl Provider for FakeProvider {
    fn properties(&self) -> ProviderProperties {
        ProviderProperties {
            id: id_of(&self.options.name),
            name: self.options.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            provider_type: ProviderType::Software,
            freeze_policy: self.options.freeze_policy,
            capabilities: Capabilities {
                kind: CopyKind::RedirectOnWrite,
                persistent: true,
                writable_phase: self.options.writable_phase,
            },
        }
    }

    fn is_volume_supported(&self, _volume: &Volume) -> Result<Support, VssError> {
        Ok(Support::Yes)
    }

    fn writes_to(&self, _volume: &Volume) -> Result<Vec<PathBuf>, VssError> {
        Ok(Vec::new())
    }

    fn forecast(&self, volume: &Volume, options: &CreationOptions) -> Result<Forecast, VssError> {
        if let Some(failure) = self.failure(Phase::BeginPrepare) {
            return Err(failure);
        }
        let copied = self.storage.as_ref().map(|storage| storage.copying().forecast(!storage.has(&volume.id), options));
        Ok(copied.unwrap_or_default())
    }

    fn begin_prepare(&self, request: &PrepareRequest) -> Result<StoredCopy, VssError> {
        self.enter(Phase::BeginPrepare, request.set_id)?;
        let forgotten = {
            let mut state = self.lock();
            state.set.take_if(|set| set.id != request.set_id || set.stage != Stage::Preparing)
        };
        for shadow_id in forgotten.into_iter().flat_map(|set| set.shadows) {
            self.remove(shadow_id)?;
        }
        let mut state = self.lock();
        let set = state.set.get_or_insert_with(|| FakeSet {
            id: request.set_id,
            stage: Stage::Preparing,
            shadows: Vec::new(),
            requests: Vec::new(),
            cut_at: None,
            commit_failure: None,
        });
        if !set.shadows.contains(&request.shadow_id) {
            set.shadows.push(request.shadow_id);
            set.requests.push(request.clone());
        }
        Ok(request.stored("{}".to_owned()))
    }

    fn end_prepare(&self, set_id: SetId, watcher: &dyn Watcher) -> Result<(), VssError> {
        self.enter(Phase::EndPrepare, set_id)?;
        self.copy(set_id, watcher)?;
        let shadows =
            self.advance(set_id, Stage::Preparing, Stage::Prepared, Phase::EndPrepare, |set| Ok(set.shadows.clone()))?;
        for shadow_id in shadows {
            match self.marker(shadow_id) {
                Some(marker) => make_marker(&marker)
                    .map_err(|error| veto(format!("{} cannot be made: {error}", marker.display())))?,
                None => {
                    self.lock().in_memory.insert(shadow_id);
                }
            }
        }
        Ok(())
    }

    fn pre_commit(&self, set_id: SetId) -> Result<(), VssError> {
        self.enter(Phase::PreCommit, set_id)?;
        self.advance(set_id, Stage::Prepared, Stage::PreCommitted, Phase::PreCommit, |set| {
            set.commit_failure = self.failure(Phase::Commit);
            Ok(())
        })
    }

    fn commit(&self, set_id: SetId) -> Result<(), VssError> {
        self.enter(Phase::Commit, set_id)?;
        std::thread::sleep(self.options.commit_delay);
        self.advance(set_id, Stage::PreCommitted, Stage::Committed, Phase::Commit, |set| {
            set.cut_at = Some(Instant::now());
            set.commit_failure.take().map_or(Ok(()), Err)
        })
    }

    fn post_commit(&self, set_id: SetId) -> Result<Vec<CommittedCopy>, VssError> {
        self.enter(Phase::PostCommit, set_id)?;
        self.advance(set_id, Stage::Committed, Stage::Created, Phase::PostCommit, |set| {
            let cut_at = set.cut_at.unwrap_or_else(Instant::now);
            Ok(set
                .shadows
                .iter()
                .map(|shadow_id| CommittedCopy {
                    shadow_id: *shadow_id,
                    cut_at,
                    nested: Vec::new(),
                    device: None,
                    data: "{}".to_owned(),
                })
                .collect())
        })
    }

    fn pre_final_commit(&self, set_id: SetId) -> Result<(), VssError> {
        self.enter(Phase::PreFinal, set_id)?;
        self.advance(set_id, Stage::Created, Stage::Writable, Phase::PreFinal, |_| Ok(()))
    }

    fn post_final_commit(&self, set_id: SetId) -> Result<(), VssError> {
        self.enter(Phase::PostFinal, set_id)?;
        self.advance(set_id, Stage::Writable, Stage::Writable, Phase::PostFinal, |_| Ok(()))?;
        let finished = self.lock().set.take();
        if let Some(storage) = &self.storage {
            for request in finished.into_iter().flat_map(|set| set.requests) {
                storage.keep(&request.volume, &request.options);
            }
        }
        Ok(())
    }

    fn abort(&self, set_id: SetId) -> Result<(), VssError> {
        self.enter(Phase::Abort, set_id)?;
        let aborted = self.lock().set.take_if(|set| set.id == set_id);
        for shadow_id in aborted.into_iter().flat_map(|set| set.shadows) {
            self.remove(shadow_id)?;
        }
        Ok(())
    }

    fn mount(&self, copy: &StoredCopy, writable: bool) -> Result<Vec<MountedTree>, VssError> {
        self.enter(Phase::Mount, copy.set_id)?;
        if !self.exists(copy.shadow_id) {
            return Err(VssError::new(VssCode::ObjectNotFound, format!("There is no shadow copy {}", copy.shadow_id)));
        }
        let is_writable = self.options.writable_phase
            && self.lock().set.as_ref().is_some_and(|set| set.id == copy.set_id && set.stage == Stage::Writable);
        if writable && !is_writable {
            return Err(veto(format!("Shadow copy {} is not writable", copy.shadow_id)));
        }
        let change = Change { read_only: Some(!writable), ..Change::SHADOW };
        let mounted = mount::clone_tree(&copy.volume.mount_point, false)
            .and_then(|tree| mount::change(&tree, change, false).map(|()| tree))
            .map_err(|error| veto(format!("{} cannot be mounted again: {error}", copy.volume.mount_point.display())))?;
        Ok(vec![MountedTree { path: PathBuf::new(), mount: mounted }])
    }

    fn delete(&self, copy: &StoredCopy) -> Result<Deletion, VssError> {
        self.enter(Phase::Delete, copy.set_id)?;
        Ok(if self.remove(copy.shadow_id)? { Deletion::Deleted } else { Deletion::WasGone })
    }

    fn presence(&self, copy: &StoredCopy) -> Result<Presence, VssError> {
        Ok(if self.exists(copy.shadow_id) { Presence::Present } else { Presence::Gone })
    }

    fn storage(&self) -> Option<&dyn ShadowStorage> {
        self.storage.as_ref().map(|storage| storage as &dyn ShadowStorage)
    }
}

fn make_marker(marker: &Path) -> io::Result<()> {
    if let Some(store) = marker.parent() {
        std::fs::create_dir_all(store)?;
    }
    std::fs::write(marker, [])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_read_back() {
        for phase in Phase::ALL {
            assert_eq!(phase.name().parse::<Phase>().unwrap(), *phase);
        }
        assert!("thaw".parse::<Phase>().unwrap_err().contains("commit"));
    }

    #[test]
    fn names_make_different_ids_that_last() {
        assert_eq!(id_of("fake"), id_of("fake"));
        assert_ne!(id_of("fake"), id_of("fake2"));
    }
}
