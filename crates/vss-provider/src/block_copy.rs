//! A provider for tests: copies whole block devices, byte by byte, while they are held.
//!
//! It is the plainest provider that there can be, and true to the contract: what its copies hold is what the device held
//! between the first freeze and the release, and without a hold they are torn. Its cut takes as long as reading the device, so
//! it is good for small ones alone, and no build that is released has it.
//!
//! A copy is the file `<shadow-id>.image` in the store, a directory that must lie on no volume of the set; it is mounted
//! through a loop device of its own. PreFinal mounts it writable, which replays its log. What changed from one copy to another
//! is found by comparing the images; a revert writes back what differs.

mod blocks;
mod revert;

use crate::{
    Capabilities, CommittedCopy, CopyKind, Deletion, Forecast, MountedTree, PrepareRequest, Presence, Provider,
    ProviderProperties, ProviderType, StoredCopy, Support,
    blocks::ChangedBlocks,
    current::{self, Current},
    failure::{failed, not_writable},
    progress::Watcher,
    revert::Revert,
    stage::Stage,
};
use rustix::fs::{FallocateFlags, OFlags};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};
use vss_linux::{
    loop_device::{AttachOptions, LoopDevice},
    mount::{self, Change},
};
use vss_model::{CreationOptions, FreezePolicy, Instant, ProviderId, SetId, ShadowId, Volume, VssCode, VssError};

/// The provider's id.
const ID: ProviderId = ProviderId::from_u128(0x91c4_0e6b_5a2f_4d37_b8f1_6d02_c93a_7e54);
/// The provider's name.
const NAME: &str = "block-copy";
/// A larger device is refused: its cut would take too much of the hold.
const LARGEST: u64 = 64 << 20;
/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;
/// Where the buffer of a direct read has to begin, and how long it has to be: a multiple of this, on every device.
const ALIGNMENT: usize = 4096;

/// The provider that copies byte by byte.
#[derive(Debug)]
pub struct BlockCopyProvider {
    store: PathBuf,
    current: Current<Creation>,
    reverting: revert::Reverting,
}

impl BlockCopyProvider {
    /// A provider whose copies lie in the directory `store`, which is made when it is missing.
    #[must_use]
    pub fn new(store: PathBuf) -> Self {
        Self { store, current: Current::new(NAME), reverting: Default::default() }
    }

    fn file(&self, shadow_id: ShadowId) -> PathBuf {
        self.store.join(format!("{shadow_id}.image"))
    }
}

/// A set that is not finished.
#[derive(Debug)]
struct Creation {
    stage: Stage,
    copies: Vec<Copy>,
    /// For the cut; made beforehand.
    buffer: Vec<u8>,
}

/// One shadow copy in the making.
#[derive(Debug)]
struct Copy {
    shadow_id: ShadowId,
    volume: Volume,
    image: PathBuf,
    /// Device and image, from EndPrepare on.
    open: Option<Open>,
    cut_at: Option<Instant>,
    writable: Option<Writable>,
}

#[derive(Debug)]
struct Open {
    device: File,
    size: u64,
    image: File,
}

/// A copy while writers may mend it. The mount ends before the device.
#[derive(Debug)]
struct Writable {
    mounted: OwnedFd,
    device: LoopDevice,
}

impl current::Creation for Creation {
    fn new() -> Self {
        Self { stage: Stage::Preparing, copies: Vec::new(), buffer: vec![0; CHUNK + ALIGNMENT] }
    }

    fn stage(&self) -> Stage {
        self.stage
    }

    fn undo(self) -> Result<(), VssError> {
        let delete = |copy: Copy| {
            let image = copy.image.clone();
            drop(copy);
            remove(&image).map(drop)
        };
        self.copies.into_iter().map(delete).fold(Ok(()), Result::and)
    }
}

impl Creation {
    fn end_prepare(&mut self, store: &Path) -> Result<(), VssError> {
        fs::create_dir_all(store).map_err(|error| failed(format!("{} cannot be made", store.display()), &error))?;
        for copy in &mut self.copies {
            let opened = open(&copy.volume, &copy.image);
            copy.open =
                Some(opened.map_err(|error| failed(format!("{} cannot be made", copy.image.display()), &error))?);
        }
        self.stage = Stage::Prepared;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), VssError> {
        let begin = self.buffer.as_ptr().align_offset(ALIGNMENT);
        let buffer = &mut self.buffer[begin..][..CHUNK];
        for copy in &mut self.copies {
            if let Some(open) = &copy.open {
                open.copy(buffer)
                    .map_err(|error| failed(format!("{} cannot be copied", copy.volume.source), &error))?;
            }
            copy.cut_at = Some(Instant::now());
        }
        self.stage = Stage::Committed;
        Ok(())
    }

    fn post_commit(&mut self) -> Vec<CommittedCopy> {
        self.stage = Stage::Created;
        let committed = |copy: &Copy| CommittedCopy {
            shadow_id: copy.shadow_id,
            cut_at: copy.cut_at.unwrap_or_else(Instant::now),
            nested: Vec::new(),
            device: None,
            data: "{}".to_owned(),
        };
        self.copies.iter().map(committed).collect()
    }

    fn pre_final_commit(&mut self) -> Result<(), VssError> {
        for copy in &mut self.copies {
            let (device, mounted) = mount_image(&copy.image, &copy.volume.fs_type, false)?;
            copy.writable = Some(Writable { mounted, device });
        }
        self.stage = Stage::Writable;
        Ok(())
    }

    fn post_final_commit(&mut self) -> Result<(), VssError> {
        for writable in self.copies.iter_mut().filter_map(|copy| copy.writable.take()) {
            mount::make_file_system_read_only(&writable.mounted)
                .map_err(|error| failed("A copy cannot be made read-only", &error))?;
        }
        Ok(())
    }
}

impl Open {
    /// Reads past the page cache of the device: what files hold may be newer than what is cached of their blocks there.
    fn copy(&self, buffer: &mut [u8]) -> io::Result<()> {
        let mut offset = 0;
        while offset < self.size {
            let read = self.device.read_at(buffer, offset)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.image.write_all_at(&buffer[..read], offset)?;
            offset += read as u64;
        }
        Ok(())
    }
}

fn open(volume: &Volume, image: &Path) -> io::Result<Open> {
    let direct = OFlags::DIRECT.bits().cast_signed();
    let device = OpenOptions::new().read(true).custom_flags(direct).open(&volume.source)?;
    let size = size_of(&device)?;
    let image = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(image)?;
    rustix::fs::fallocate(&image, FallocateFlags::empty(), 0, size)?;
    Ok(Open { device, size, image })
}

fn size_of(device: &File) -> io::Result<u64> {
    Ok(rustix::fs::seek(device, rustix::fs::SeekFrom::End(0))?)
}

/// The device ends with its mount.
fn mount_image(image: &Path, fs_type: &str, read_only: bool) -> Result<(LoopDevice, OwnedFd), VssError> {
    let options: &[&str] = match (fs_type, read_only) {
        ("xfs", true) => &["norecovery", "nouuid"],
        ("xfs", false) => &["nouuid"],
        (_, true) => &["noload"],
        (_, false) => &[],
    };
    let mounted = || {
        let device =
            LoopDevice::attach(image, AttachOptions { autoclear: true, read_only, ..AttachOptions::default() })?;
        let mounted = mount::mount_device(fs_type, device.path(), read_only, options)?;
        Ok((device, mounted))
    };
    mounted().map_err(|error| failed(format!("{} cannot be mounted", image.display()), &error))
}

/// True when there was one.
fn remove(image: &Path) -> Result<bool, VssError> {
    match fs::remove_file(image) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed(format!("{} cannot be deleted", image.display()), &error)),
    }
}

impl Provider for BlockCopyProvider {
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
        if !matches!(volume.fs_type.as_str(), "ext4" | "xfs") {
            return Ok(Support::No(format!("it is {}, and only ext4 and xfs are copied", volume.fs_type)));
        }
        let size = File::open(&volume.source).and_then(|device| size_of(&device));
        let size = size.map_err(|error| failed(format!("{} cannot be examined", volume.source), &error))?;
        Ok(if size > LARGEST { Support::No(format!("it has more than {LARGEST} bytes")) } else { Support::Yes })
    }

    fn writes_to(&self, _volume: &Volume) -> Result<Vec<PathBuf>, VssError> {
        Ok(vec![self.store.clone()])
    }

    fn forecast(&self, volume: &Volume, _options: &CreationOptions) -> Result<Forecast, VssError> {
        self.admit(volume)?;
        Ok(Forecast::default())
    }

    fn begin_prepare(&self, request: &PrepareRequest) -> Result<StoredCopy, VssError> {
        self.admit(&request.volume)?;
        self.current.begin(request.set_id);
        self.current.phase(request.set_id, Stage::Preparing, "begin_prepare", |creation, _| {
            if creation.copies.iter().all(|copy| copy.shadow_id != request.shadow_id) {
                creation.copies.push(Copy {
                    shadow_id: request.shadow_id,
                    volume: request.volume.clone(),
                    image: self.file(request.shadow_id),
                    open: None,
                    cut_at: None,
                    writable: None,
                });
            }
            Ok(request.stored("{}".to_owned()))
        })
    }

    fn end_prepare(&self, set_id: SetId, _watcher: &dyn Watcher) -> Result<(), VssError> {
        self.current.phase(set_id, Stage::Preparing, "end_prepare", |creation, _| creation.end_prepare(&self.store))
    }

    fn pre_commit(&self, set_id: SetId) -> Result<(), VssError> {
        self.current.phase(set_id, Stage::Prepared, "pre_commit", |creation, _| {
            creation.stage = Stage::PreCommitted;
            Ok(())
        })
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
        let fs_type = &copy.volume.fs_type;
        let being_mended = self.current.look(copy.set_id, |creation| {
            let copy = creation.copies.iter().find(|one| one.shadow_id == copy.shadow_id)?;
            let device = copy.writable.as_ref()?.device.path();
            let mounted = mount::mount_device(fs_type, device, false, if fs_type == "xfs" { &["nouuid"] } else { &[] });
            Some(mounted.and_then(|mount| {
                if !writable {
                    mount::change(&mount, Change::SHADOW, false)?;
                }
                Ok(mount)
            }))
        });
        let mount = match being_mended.flatten() {
            Some(mounted) => mounted.map_err(|error| failed("A copy cannot be mounted once more", &error))?,
            None if writable => return Err(not_writable(copy.shadow_id)),
            None => {
                let image = self.file(copy.shadow_id);
                if !image.exists() {
                    let message = format!("There is no shadow copy {}", copy.shadow_id);
                    return Err(VssError::new(VssCode::ObjectNotFound, message));
                }
                mount_image(&image, fs_type, true)?.1
            }
        };
        Ok(vec![MountedTree { path: PathBuf::new(), mount }])
    }

    fn delete(&self, copy: &StoredCopy) -> Result<Deletion, VssError> {
        Ok(if remove(&self.file(copy.shadow_id))? { Deletion::Deleted } else { Deletion::WasGone })
    }

    fn presence(&self, copy: &StoredCopy) -> Result<Presence, VssError> {
        Ok(if self.file(copy.shadow_id).exists() { Presence::Present } else { Presence::Gone })
    }

    fn blocks(&self) -> Option<&dyn ChangedBlocks> {
        Some(self)
    }

    fn revert(&self) -> Option<&dyn Revert> {
        Some(self)
    }
}

impl BlockCopyProvider {
    /// Refuses what it does not support.
    fn admit(&self, volume: &Volume) -> Result<(), VssError> {
        self.is_volume_supported(volume)?.check(volume)
    }
}
