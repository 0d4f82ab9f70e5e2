//! The contract's calls: which set is in creation, what each phase does, mounting and deleting.

use crate::{
    creation::{Creation, Member, no_device, part_name},
    file_system::{self, FileSystem},
    nested,
    store::Parts,
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use vss_linux::{
    btrfs::{self, Access},
    mountinfo,
};
use vss_model::{CreationOptions, FreezePolicy, ProviderId, SetId, Volume, VssCode, VssError};
use vss_provider::{
    Capabilities, CommittedCopy, CopyKind, Deletion, Forecast, MountedTree, PrepareRequest, Presence, Provider,
    ProviderProperties, ProviderType, StoredCopy, Support,
    current::{Creation as _, Current},
    failure::{self, failed, not_writable},
    progress::Watcher,
    space,
    stage::Stage,
    store::{self, Store},
};

/// The provider's id.
const ID: ProviderId = ProviderId::from_u128(0x6f6a_3d0c_1f54_4c5e_9a35_0d1e_5b7c_b7f5);

/// The provider's name.
const NAME: &str = "btrfs";

/// What can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BtrfsOptions {
    /// Bytes that must be available on a file system for a copy to be made on it; none: [`space::least_free`].
    pub min_free_bytes: Option<u64>,
}

/// The provider for btrfs subvolumes.
#[derive(Debug)]
pub struct BtrfsProvider {
    options: BtrfsOptions,
    current: Current<Creation>,
}

/// The provider's own words in a [`StoredCopy`].
#[derive(Debug, Serialize, Deserialize)]
struct CopyData {
    /// Of this structure; 1.
    format: u32,
    /// The devices that the file system was on.
    devices: Vec<PathBuf>,
}

impl CopyData {
    fn text(devices: Vec<PathBuf>) -> String {
        // Only paths that are not UTF-8 cannot be written; without them the devices are found by uuid.
        serde_json::to_string(&Self { format: 1, devices })
            .unwrap_or_else(|_| r#"{"format":1,"devices":[]}"#.to_owned())
    }

    /// The devices that a copy's file system was on when the copy was made.
    fn devices_of(copy: &StoredCopy) -> Vec<PathBuf> {
        let mut devices = serde_json::from_str(&copy.data).map_or_else(|_| Vec::new(), |data: Self| data.devices);
        devices.push(PathBuf::from(&copy.volume.source));
        devices
    }
}

impl BtrfsProvider {
    /// A provider with no set in creation.
    #[must_use]
    pub fn new(options: BtrfsOptions) -> Self {
        Self { options, current: Current::new(NAME) }
    }

    /// Can this volume be taken into a set now? Its devices, by the kernel's word.
    fn admit(&self, volume: &Volume) -> Result<Vec<PathBuf>, VssError> {
        self.is_volume_supported(volume)?.check(volume)?;
        let devices = file_system::mounted_devices(&volume.uuid);
        file_system::check_is_writable(&volume.uuid, &devices)?;
        space::check_path(&volume.mount_point, self.options.min_free_bytes)?;
        Ok(devices)
    }

    /// The file system of a copy; none when it cannot be reached.
    fn reach(copy: &StoredCopy, access: Access) -> Result<Option<FileSystem>, VssError> {
        FileSystem::open(&copy.volume.uuid, &CopyData::devices_of(copy), access)
    }

    fn is_writable_now(&self, copy: &StoredCopy) -> bool {
        self.current.look(copy.set_id, |creation| creation.stage() == Stage::Writable).unwrap_or(false)
    }
}

fn unreachable(copy: &StoredCopy) -> VssError {
    VssError::new(
        VssCode::ObjectNotFound,
        format!("The btrfs file system {} of shadow copy {} cannot be reached now", copy.volume.uuid, copy.shadow_id),
    )
    .with_hint("Attach its disk and try again")
}

fn gone(copy: &StoredCopy) -> VssError {
    failure::gone(copy.shadow_id, "subvolume")
}

impl Provider for BtrfsProvider {
    fn properties(&self) -> ProviderProperties {
        ProviderProperties {
            id: ID,
            name: NAME.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            provider_type: ProviderType::Software,
            freeze_policy: FreezePolicy::MustNotHold,
            capabilities: Capabilities { kind: CopyKind::RedirectOnWrite, persistent: true, writable_phase: true },
        }
    }

    fn is_volume_supported(&self, volume: &Volume) -> Result<Support, VssError> {
        if volume.fs_type != "btrfs" || volume.subvolume.is_none() || volume.uuid.is_empty() {
            return Ok(Support::No(format!("it is {}, and only btrfs has btrfs snapshots", volume.fs_type)));
        }
        let mounts = mountinfo::mounts().map_err(|error| failed("The mount table cannot be read", &error))?;
        let shown = mounts.iter().find(|entry| entry.mount_id == volume.mount_id).map(|entry| &entry.root);
        if shown.is_some_and(|root| root.strip_prefix("/").is_ok_and(|root| root.starts_with(store::NAME))) {
            return Ok(Support::No("it is a shadow copy itself".to_owned()));
        }
        Ok(Support::Yes)
    }

    fn writes_to(&self, volume: &Volume) -> Result<Vec<PathBuf>, VssError> {
        // The snapshot is written to the volume's own file system.
        Ok(vec![volume.mount_point.clone()])
    }

    fn forecast(&self, volume: &Volume, _options: &CreationOptions) -> Result<Forecast, VssError> {
        let devices = self.admit(volume)?;
        let subvolume = volume.subvolume.unwrap_or(btrfs::TOP_LEVEL);
        // By the same way that EndPrepare takes, but read-only.
        let file_system =
            FileSystem::open(&volume.uuid, &devices, Access::ReadOnly)?.ok_or_else(|| no_device(volume))?;
        let nested = nested::list(&file_system, subvolume)?;
        let nested = nested.into_iter().map(|nested| nested.path).collect();
        Ok(Forecast { nested, hold_ms: Some(0), ..Forecast::default() })
    }

    fn begin_prepare(&self, request: &PrepareRequest) -> Result<StoredCopy, VssError> {
        let volume = &request.volume;
        let devices = self.admit(volume)?;
        self.current.begin(request.set_id);
        self.current.phase(request.set_id, Stage::Preparing, "begin_prepare", |creation, _| {
            let is_in = creation.members.iter().any(|member| member.shadow_id == request.shadow_id);
            if let (false, Some(subvolume)) = (is_in, volume.subvolume) {
                creation.members.push(Member {
                    shadow_id: request.shadow_id,
                    volume: volume.clone(),
                    subvolume,
                    lasting: request.context.is_persistent(),
                });
            }
            Ok(request.stored(CopyData::text(devices)))
        })
    }

    fn end_prepare(&self, set_id: SetId, _watcher: &dyn Watcher) -> Result<(), VssError> {
        self.current.phase(set_id, Stage::Preparing, "end_prepare", |creation, set| {
            creation.end_prepare(self.options.min_free_bytes, || set.check())
        })
    }

    fn pre_commit(&self, set_id: SetId) -> Result<(), VssError> {
        self.current.phase(set_id, Stage::Prepared, "pre_commit", |creation, set| creation.pre_commit(|| set.check()))
    }

    fn commit(&self, set_id: SetId) -> Result<(), VssError> {
        self.current.phase(set_id, Stage::PreCommitted, "commit", |creation, _| creation.commit())
    }

    fn post_commit(&self, set_id: SetId) -> Result<Vec<CommittedCopy>, VssError> {
        self.current.phase(set_id, Stage::Committed, "post_commit", |creation, _| {
            Ok(creation.post_commit(|file_system| CopyData::text(file_system::mounted_devices(file_system.uuid()))))
        })
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
        if writable && !self.is_writable_now(copy) {
            return Err(not_writable(copy.shadow_id));
        }
        let access = if writable { Access::ReadWrite } else { Access::ReadOnly };
        let file_system = Self::reach(copy, access)?.ok_or_else(|| unreachable(copy))?;
        let store = Store::open(&file_system)?.ok_or_else(|| gone(copy))?;
        let mount = |index, path| -> Result<MountedTree, VssError> {
            let part = store.open_part(&part_name(copy.shadow_id, index))?.ok_or_else(|| gone(copy))?;
            let subvolume = btrfs::subvolume_id(&part)
                .map_err(|error| failed(format!("Shadow copy {} cannot be examined", copy.shadow_id), &error))?;
            Ok(MountedTree { path, mount: file_system.mount_subvolume(subvolume, access)? })
        };
        let mut trees = vec![mount(0, PathBuf::new())?];
        for place in nested::read_places(&store, copy.shadow_id)? {
            trees.push(mount(place.index, place.path())?);
        }
        Ok(trees)
    }

    fn delete(&self, copy: &StoredCopy) -> Result<Deletion, VssError> {
        let file_system = Self::reach(copy, Access::ReadWrite)?.ok_or_else(|| unreachable(copy))?;
        let Some(store) = Store::open(&file_system)? else { return Ok(Deletion::WasGone) };
        let deleted = store.delete_all_of(copy.shadow_id)?;
        store.remove_if_empty(&file_system)?;
        if !deleted {
            return Ok(Deletion::WasGone);
        }
        // Otherwise a power cut could bring it back, and nobody would know it any more.
        file_system.commit()?;
        Ok(Deletion::Deleted)
    }

    fn presence(&self, copy: &StoredCopy) -> Result<Presence, VssError> {
        // Whoever asks wants nothing mounted: that would replay a log, and meet the mounting of the machine's start.
        if !file_system::is_mounted(&copy.volume.uuid) {
            return Ok(Presence::Unreachable);
        }
        let Some(file_system) = Self::reach(copy, Access::ReadOnly)? else { return Ok(Presence::Unreachable) };
        let Some(store) = Store::open(&file_system)? else { return Ok(Presence::Gone) };
        let root = store.open_part(&part_name(copy.shadow_id, 0))?;
        Ok(if root.is_some() { Presence::Present } else { Presence::Gone })
    }
}
