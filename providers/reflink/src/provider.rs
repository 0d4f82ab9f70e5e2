//! The contract's calls: what each phase does, mounting and deleting.

use crate::{
    cost,
    creation::{Creation, Member, extents_of, refusal},
    image::{self, Image, Without},
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use vss_model::{CreationOptions, FreezePolicy, ProviderId, SetId, Volume, VssCode, VssError};
use vss_provider::{
    Capabilities, CommittedCopy, CopyKind, Deletion, Forecast, MountedTree, PrepareRequest, Presence, Provider,
    ProviderProperties, ProviderType, StoredCopy, Support,
    current::Current,
    failure::not_writable,
    image_copy::{self, Part},
    outer::{self, Outer, OuterName},
    progress::Watcher,
    space,
    stage::Stage,
    store::Store,
};

/// The provider's id.
const ID: ProviderId = ProviderId::from_u128(0x2f3b_9a55_7c1e_4a0b_8d26_5e9f_41c7_03ad);

/// The provider's name.
const NAME: &str = "reflink";

/// What can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReflinkOptions {
    /// Bytes that must be available on an outer file system for a copy to be made on it; none: [`space::least_free`].
    pub min_free_bytes: Option<u64>,
}

/// The provider for ext4 and XFS in image files.
#[derive(Debug)]
pub struct ReflinkProvider {
    options: ReflinkOptions,
    current: Current<Creation>,
}

/// The provider's own words in a [`StoredCopy`].
#[derive(Debug, Serialize, Deserialize)]
struct CopyData {
    /// Of this structure; 1.
    format: u32,
    /// Where the copy lies.
    outer: OuterName,
    /// What of it the volume is.
    part: Part,
}

impl CopyData {
    fn text(image: &Image) -> Result<String, VssError> {
        StoredCopy::write_data(&Self { format: 1, outer: image.outer.clone(), part: image.part })
    }
}

impl ReflinkProvider {
    /// A provider with no set in creation.
    #[must_use]
    pub fn new(options: ReflinkOptions) -> Self {
        Self { options, current: Current::new(NAME) }
    }

    /// Can this volume be taken into a set now?
    fn admit(&self, volume: &Volume) -> Result<Image, VssError> {
        let image = image::find(volume).map_err(|without| refusal(volume, without))?;
        outer::check_is_writable(&image.outer)?;
        space::check_path(&image.path, self.options.min_free_bytes)?;
        Ok(image)
    }

    /// The outer file system of a copy and the store there, for reading.
    fn reach(copy: &StoredCopy, data: &CopyData) -> Result<(Outer, Option<Store>), VssError> {
        let outer = Outer::open(&data.outer)?.ok_or_else(|| unreachable(copy, &data.outer))?;
        let store = Store::open(&outer)?;
        Ok((outer, store))
    }
}

fn unreachable(copy: &StoredCopy, outer: &OuterName) -> VssError {
    VssError::new(
        VssCode::ObjectNotFound,
        format!("The {} {} with shadow copy {} is not mounted now", outer.fs_type, outer.uuid, copy.shadow_id),
    )
    .with_hint("Mount it and try again")
}

impl Provider for ReflinkProvider {
    fn properties(&self) -> ProviderProperties {
        ProviderProperties {
            id: ID,
            name: NAME.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            provider_type: ProviderType::Software,
            freeze_policy: FreezePolicy::NeedsHold,
            capabilities: Capabilities { kind: CopyKind::RedirectOnWrite, persistent: true, writable_phase: true },
        }
    }

    fn is_volume_supported(&self, volume: &Volume) -> Result<Support, VssError> {
        match image::find(volume) {
            Ok(_) => Ok(Support::Yes),
            Err(Without::Reason(reason)) => Ok(Support::No(reason)),
            Err(Without::Failed(error)) => Err(error),
        }
    }

    fn writes_to(&self, volume: &Volume) -> Result<Vec<PathBuf>, VssError> {
        let image = image::find(volume).map_err(|without| refusal(volume, without))?;
        Ok(vec![image.path])
    }

    fn forecast(&self, volume: &Volume, _options: &CreationOptions) -> Result<Forecast, VssError> {
        let image = self.admit(volume)?;
        let extents = u64::from(extents_of(&image.file)?);
        cost::check(extents)?;
        let hold_ms = cost::forecast(extents).as_millis().try_into().ok();
        Ok(Forecast { hold_ms, ..Forecast::default() })
    }

    fn begin_prepare(&self, request: &PrepareRequest) -> Result<StoredCopy, VssError> {
        let volume = &request.volume;
        let data = CopyData::text(&self.admit(volume)?)?;
        self.current.begin(request.set_id);
        self.current.phase(request.set_id, Stage::Preparing, "begin_prepare", |creation, _| {
            let is_in = creation.members.iter().any(|member| member.shadow_id == request.shadow_id);
            if !is_in {
                creation.members.push(Member {
                    shadow_id: request.shadow_id,
                    volume: volume.clone(),
                    lasting: request.context.is_persistent(),
                    data: data.clone(),
                });
            }
            Ok(request.stored(data))
        })
    }

    fn end_prepare(&self, set_id: SetId, _watcher: &dyn Watcher) -> Result<(), VssError> {
        self.current.phase(set_id, Stage::Preparing, "end_prepare", |creation, set| {
            creation.end_prepare(self.options.min_free_bytes, || set.check())
        })
    }

    fn pre_commit(&self, set_id: SetId) -> Result<(), VssError> {
        self.current.phase(set_id, Stage::Prepared, "pre_commit", |creation, _| creation.pre_commit())
    }

    fn commit(&self, set_id: SetId) -> Result<(), VssError> {
        self.current.phase(set_id, Stage::PreCommitted, "commit", |creation, _| creation.commit())
    }

    fn post_commit(&self, set_id: SetId) -> Result<Vec<CommittedCopy>, VssError> {
        self.current.phase(set_id, Stage::Committed, "post_commit", |creation, _| Ok(creation.post_commit()))
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
                let data: CopyData = copy.read_data()?;
                let (_outer, store) = Self::reach(copy, &data)?;
                let store = store.ok_or_else(|| image_copy::gone(copy.shadow_id))?;
                let file = image_copy::open_finished(&store, copy.shadow_id)?;
                image_copy::mount_sealed(&file, copy.shadow_id, &copy.volume.fs_type, data.part)?
            }
        };
        Ok(vec![MountedTree { path: PathBuf::new(), mount }])
    }

    fn delete(&self, copy: &StoredCopy) -> Result<Deletion, VssError> {
        let data: CopyData = copy.read_data()?;
        let (outer, store) = Self::reach(copy, &data)?;
        let Some(store) = store else { return Ok(Deletion::WasGone) };
        image_copy::check_is_not_mounted(&store, copy.shadow_id)?;
        let deleted = image_copy::delete(&store, copy.shadow_id)?;
        store.remove_if_empty(&outer)?;
        if !deleted {
            return Ok(Deletion::WasGone);
        }
        // Otherwise a power cut could bring it back, and nobody would know it any more.
        store.commit(&outer)?;
        Ok(Deletion::Deleted)
    }

    fn presence(&self, copy: &StoredCopy) -> Result<Presence, VssError> {
        let data: CopyData = copy.read_data()?;
        if !outer::is_mounted(&data.outer)? {
            return Ok(Presence::Unreachable);
        }
        let (_outer, store) = Self::reach(copy, &data)?;
        let Some(store) = store else { return Ok(Presence::Gone) };
        Ok(if image_copy::open(&store, copy.shadow_id)?.is_some() { Presence::Present } else { Presence::Gone })
    }
}
