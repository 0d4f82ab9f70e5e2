//! The contract's calls: what each phase does, mounting and deleting.

use crate::{
    changes,
    creation::Creation,
    kept::{self, Registry},
    member::{House, Member},
    mirror,
    place::{self, Place, PlaceName, Survey, Wishes},
    reading,
    revert::Running,
    source::{self, Source},
    teller::Teller,
};
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, sync::OnceLock, time::Duration};
use vss_model::{CreationOptions, FreezePolicy, ProviderId, SetId, Volume, VssCode, VssError, limits};
use vss_provider::{
    Capabilities, CommittedCopy, CopyKind, Deletion, Forecast, MountedTree, PrepareRequest, Presence, Provider,
    ProviderProperties, ProviderType, StoredCopy, Support,
    blocks::ChangedBlocks,
    current::Current,
    failure::not_writable,
    image_copy::{self, Part},
    progress::{Unwatched, Watcher},
    revert::Revert,
    stage::Stage,
    storage::ShadowStorage,
    store::Store,
};
use vss_trace::{Target, TraceError, Tracer};

/// The provider's id.
const ID: ProviderId = ProviderId::from_u128(0x7d0c_11e4_90b3_4f6e_a8d5_3b62_c17f_e059);

/// The provider's name.
const NAME: &str = "mirror";

/// What can be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorOptions {
    /// The service's state directory: what is remembered of mirrors is kept there, and images where nothing else is named.
    pub state_directory: PathBuf,
    /// The directory for images; none: the state directory, else the volume itself.
    pub storage: Option<PathBuf>,
    /// Bytes that must stay available where images lie; none: [`vss_provider::space::least_free`].
    pub min_free_bytes: Option<u64>,
    /// The longest hold that is begun when the requester has no wish.
    pub max_hold: Duration,
    /// A mirror that was not used for so long is removed.
    pub unused: Duration,
    /// For tests: a directory into which each cut writes what the volume was in the hold, read a second time.
    #[cfg(feature = "fault-injection")]
    pub reference: Option<PathBuf>,
}

impl MirrorOptions {
    /// The defaults of a service with this state directory.
    #[must_use]
    pub fn new(state_directory: PathBuf) -> Self {
        Self {
            state_directory,
            storage: None,
            min_free_bytes: None,
            max_hold: limits::MIRROR_HOLD,
            unused: limits::days(limits::MIRROR_UNUSED_DAYS),
            #[cfg(feature = "fault-injection")]
            reference: None,
        }
    }
}

/// The provider for any mounted ext4 and XFS.
#[derive(Debug)]
pub struct MirrorProvider {
    pub(crate) options: MirrorOptions,
    pub(crate) registry: Registry,
    pub(crate) reverting: Running,
    /// Set when it was found that this kernel and this process can trace, which takes some 10 ms.
    can_trace: OnceLock<()>,
    current: Current<Creation>,
}

/// The provider's own words in a [`StoredCopy`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CopyData {
    /// Of this structure; 1.
    format: u32,
    /// Where the copy lies.
    pub(crate) place: PlaceName,
}

impl CopyData {
    fn text(place: &PlaceName) -> Result<String, VssError> {
        StoredCopy::write_data(&Self { format: 1, place: place.clone() })
    }

    pub(crate) fn of(copy: &StoredCopy) -> Result<Self, VssError> {
        copy.read_data()
    }
}

impl MirrorProvider {
    /// A provider with no set in creation.
    #[must_use]
    pub fn new(options: MirrorOptions) -> Self {
        let registry = Registry::new(&options.state_directory);
        Self {
            options,
            registry,
            reverting: Running::default(),
            can_trace: OnceLock::new(),
            current: Current::new(NAME),
        }
    }

    pub(crate) fn house(&self) -> House {
        House {
            registry: self.registry.clone(),
            instance: self.options.state_directory.to_string_lossy().into_owned(),
            min_free_bytes: self.options.min_free_bytes,
            #[cfg(feature = "fault-injection")]
            reference: self.options.reference.clone(),
        }
    }

    fn check_tracing(&self) -> Result<(), TraceError> {
        if self.can_trace.get().is_none() {
            vss_trace::available()?;
            let _ = self.can_trace.set(());
        }
        Ok(())
    }

    /// Can this volume be taken into a set now, and what do the places for its image have to offer?
    pub(crate) fn admit(&self, volume: &Volume, options: &CreationOptions) -> Result<Survey, VssError> {
        self.check_is_not_reverted(volume)?;
        source::support(volume)?.check(volume)?;
        if !options.full_compare {
            let traceable = self.check_tracing().and_then(|()| Target::of(volume.device_number));
            traceable.map_err(|error| crate::tracer::refused(volume, &error))?;
        }
        let used = Source::open(volume)?.in_use()?;
        let key = kept::key(&volume.id);
        let there = |place: &Place| match Store::open(place) {
            // What is lent has room too; it is refused for another reason.
            Ok(Some(store)) => mirror::used_bytes(&store, &key) + mirror::lent_bytes(&store, &key),
            _ => 0,
        };
        let wishes = Wishes {
            storage: options.storage.as_deref(),
            setting: self.options.storage.as_deref(),
            state_directory: &self.options.state_directory,
        };
        place::survey(volume, used, wishes, self.options.min_free_bytes, there)
    }

    /// The place for the volume's image, when it may be taken.
    pub(crate) fn choose(survey: Survey, volume: &Volume) -> Result<Place, VssError> {
        let place = survey.choose(volume)?;
        if let Some(store) = Store::open(&place)?
            && let Some(shadow_id) = mirror::lent(&store, &kept::key(&volume.id))?
        {
            let why = if place.shares {
                "files on a volume that is copied share blocks only when its XFS was made with rmapbt".to_owned()
            } else {
                format!("files on {} cannot share blocks", place.name.outer.fs_type)
            };
            return Err(VssError::new(
                VssCode::MaximumNumberOfSnapshotsReached,
                format!(
                    "{} has its one shadow copy {shadow_id} on {}: {why}",
                    volume.mount_point.display(),
                    place.name.shown.display(),
                ),
            )
            .with_hint("Delete that one first, or let images lie on XFS or btrfs (--storage DIR)"));
        }
        Ok(place)
    }

    /// True when no set is in creation.
    pub(crate) fn is_idle(&self) -> bool {
        self.current.is_empty()
    }

    /// The place of a copy and the store there.
    pub(crate) fn reach(copy: &StoredCopy) -> Result<(Place, Option<Store>), VssError> {
        let data = CopyData::of(copy)?;
        let place = Place::open(&data.place)?.ok_or_else(|| {
            VssError::new(
                VssCode::ObjectNotFound,
                format!("{} with shadow copy {} is not mounted now", data.place.shown.display(), copy.shadow_id),
            )
            .with_hint("Mount it and try again")
        })?;
        let store = Store::open(&place)?;
        Ok((place, store))
    }
}

impl Provider for MirrorProvider {
    fn properties(&self) -> ProviderProperties {
        ProviderProperties {
            id: ID,
            name: NAME.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            provider_type: ProviderType::Software,
            freeze_policy: FreezePolicy::NeedsHold,
            capabilities: Capabilities { kind: CopyKind::Plex, persistent: true, writable_phase: true },
        }
    }

    fn is_volume_supported(&self, volume: &Volume) -> Result<Support, VssError> {
        self.check_is_not_reverted(volume)?;
        source::support(volume)
    }

    fn writes_to(&self, _volume: &Volume) -> Result<Vec<PathBuf>, VssError> {
        // Commit reads into memory.
        Ok(Vec::new())
    }

    fn forecast(&self, volume: &Volume, options: &CreationOptions) -> Result<Forecast, VssError> {
        self.foresee(volume, options)
    }

    fn begin_prepare(&self, request: &PrepareRequest) -> Result<StoredCopy, VssError> {
        let volume = &request.volume;
        // First, because a set that is forgotten may have the mirror.
        self.current.begin(request.set_id);
        let place = Self::choose(self.admit(volume, &request.options)?, volume)?.name;
        let data = CopyData::text(&place)?;
        self.current.phase(request.set_id, Stage::Preparing, "begin_prepare", |creation, _| {
            let is_in = creation.members.iter().any(|member| member.shadow_id == request.shadow_id);
            if !is_in {
                creation.members.push(Member {
                    shadow_id: request.shadow_id,
                    volume: volume.clone(),
                    options: request.options.clone(),
                    lasting: request.context.is_persistent(),
                    place: place.clone(),
                    key: kept::key(&volume.id),
                    data: data.clone(),
                });
            }
            Ok(request.stored(data))
        })
    }

    fn end_prepare(&self, set_id: SetId, watcher: &dyn Watcher) -> Result<(), VssError> {
        let house = self.house();
        self.current.phase(set_id, Stage::Preparing, "end_prepare", |creation, set| {
            for member in &creation.members {
                self.leave_other_place(&member.key, &member.place)?;
            }
            creation.end_prepare(&house, self.options.max_hold, &Teller::new(watcher), &|| set.check())
        })
    }

    fn pre_commit(&self, set_id: SetId) -> Result<(), VssError> {
        self.current.phase(set_id, Stage::Prepared, "pre_commit", |creation, set| {
            creation.pre_commit(&Teller::new(&Unwatched), &|| set.check())
        })
    }

    fn commit(&self, set_id: SetId) -> Result<(), VssError> {
        self.current.phase(set_id, Stage::PreCommitted, "commit", |creation, _| creation.commit())
    }

    fn post_commit(&self, set_id: SetId) -> Result<Vec<CommittedCopy>, VssError> {
        self.current.phase(set_id, Stage::Committed, "post_commit", |creation, _| creation.post_commit())
    }

    fn pre_final_commit(&self, set_id: SetId) -> Result<(), VssError> {
        self.current.phase(set_id, Stage::Created, "pre_final_commit", |creation, _| creation.pre_final_commit())
    }

    fn post_final_commit(&self, set_id: SetId) -> Result<(), VssError> {
        self.current.finish(set_id, Creation::post_final_commit)
    }

    fn abort(&self, set_id: SetId) -> Result<(), VssError> {
        self.current.abort(set_id)
    }

    fn mount(&self, copy: &StoredCopy, writable: bool) -> Result<Vec<MountedTree>, VssError> {
        let being_mended =
            self.current.look(copy.set_id, |creation| creation.mount(copy.shadow_id, writable)).flatten();
        let mount = match being_mended {
            Some(mounted) => mounted?,
            None if writable => return Err(not_writable(copy.shadow_id)),
            None => {
                let (_place, store) = Self::reach(copy)?;
                let store = store.ok_or_else(|| image_copy::gone(copy.shadow_id))?;
                let file = reading::open(&store, copy.shadow_id)?;
                image_copy::mount_sealed(&file, copy.shadow_id, &copy.volume.fs_type, Part::default())?
            }
        };
        Ok(vec![MountedTree { path: PathBuf::new(), mount }])
    }

    fn delete(&self, copy: &StoredCopy) -> Result<Deletion, VssError> {
        let (place, store) = Self::reach(copy)?;
        Tracer::remove(&self.house().pins(&copy.shadow_id.to_string()))
            .map_err(|error| crate::tracer::refused(&copy.volume, &error))?;
        let Some(store) = store else { return Ok(Deletion::WasGone) };
        image_copy::check_is_not_mounted(&store, copy.shadow_id)?;
        let key = kept::key(&copy.volume.id);
        let deleted = if mirror::lent(&store, &key)? == Some(copy.shadow_id) {
            self.take_back(&place, &store, &key, copy.shadow_id)?
        } else {
            image_copy::delete(&store, copy.shadow_id)?
        };
        changes::prune(&store)?;
        self.remove_never_whole(&key)?;
        store.remove_if_empty(&place)?;
        if !deleted {
            return Ok(Deletion::WasGone);
        }
        // Otherwise a power cut could bring it back, and nobody would know it any more.
        store.commit(&place)?;
        Ok(Deletion::Deleted)
    }

    fn presence(&self, copy: &StoredCopy) -> Result<Presence, VssError> {
        let data = CopyData::of(copy)?;
        if !data.place.is_mounted()? {
            return Ok(Presence::Unreachable);
        }
        let (_place, store) = Self::reach(copy)?;
        let Some(store) = store else { return Ok(Presence::Gone) };
        Ok(if image_copy::open(&store, copy.shadow_id)?.is_some() { Presence::Present } else { Presence::Gone })
    }

    fn storage(&self) -> Option<&dyn ShadowStorage> {
        Some(self)
    }

    fn blocks(&self) -> Option<&dyn ChangedBlocks> {
        Some(self)
    }

    fn revert(&self) -> Option<&dyn Revert> {
        Some(self)
    }
}
