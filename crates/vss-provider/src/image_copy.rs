//! A copy that is an image: the file `.vss/<shadow-id>.image` in a store, writable until it is sealed, and its mounts.
//!
//! It is mounted as ext4 or XFS on a loop device of its own. While writers mend it, it is mounted writable, which replays its
//! log; sealing makes its file system clean, so that every later mount needs no log and writes nothing. A copy that is clean
//! from the hold on ([`is_whole`]) is mounted writable only for a writer.

use crate::{
    failure::{self, failed, is},
    store::{self, Store},
};
use rustix::{
    fs::{IFlags, Mode, OFlags},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};
use vss_linux::{
    ext4,
    loop_device::{AttachOptions, LoopDevice, backing_file_of},
    mount::{self, Change},
    mountinfo,
};
use vss_model::{ShadowId, VssCode, VssError};

/// Which part of the image the volume is: a partition, or all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Part {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How many bytes it has; 0: all of the image.
    pub size: u64,
}

/// The mode of a copy that is finished; before, it is 0600.
const SEALED: Mode = Mode::RUSR;

/// How long a writer may keep files of the copy open after it has said that it is done.
const PATIENCE: Duration = Duration::from_secs(5);

/// The name of a copy in its store.
#[must_use]
pub fn file_name(shadow_id: ShadowId) -> String {
    format!("{shadow_id}.image")
}

/// Makes the empty file of a copy that will share the blocks of `image`. On btrfs it has checksums or none as the image has: only such files share blocks.
///
/// # Errors
/// `VSS_E_PROVIDER_VETO` when it is there already, `VSS_E_INSUFFICIENT_STORAGE`.
pub fn create(store: &Store, shadow_id: ShadowId, image: &File) -> Result<File, VssError> {
    let name = file_name(shadow_id);
    let created = || -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW;
        let file = mount::create_beneath(store, Path::new(&name), flags, Mode::RUSR | Mode::WUSR)?;
        let of_image = rustix::fs::ioctl_getflags(image)?;
        let ours = rustix::fs::ioctl_getflags(&file)?;
        if of_image.contains(IFlags::NOCOW) != ours.contains(IFlags::NOCOW) {
            rustix::fs::ioctl_setflags(&file, (ours & !IFlags::NOCOW) | (of_image & IFlags::NOCOW))?;
        }
        Ok(File::from(file))
    };
    created().map_err(|error| failed(format!("{}/{name} cannot be made", store::NAME), &error))
}

/// Opens a copy for reading; none when it is not there.
///
/// # Errors
/// `VSS_E_PROVIDER_VETO` when it cannot be opened.
pub fn open(store: &Store, shadow_id: ShadowId) -> Result<Option<File>, VssError> {
    let name = file_name(shadow_id);
    match mount::open_beneath(store, Path::new(&name), OFlags::RDONLY | OFlags::NOFOLLOW) {
        Ok(file) => Ok(Some(File::from(file))),
        Err(error) if is(&error, Errno::NOENT) => Ok(None),
        Err(error) => Err(failed(format!("{}/{name} cannot be opened", store::NAME), &error)),
    }
}

/// True for a copy that was finished.
///
/// # Errors
/// `VSS_E_PROVIDER_VETO`.
pub fn is_sealed(file: &File) -> Result<bool, VssError> {
    let found = rustix::fs::fstat(file).map_err(|error| failed("A copy cannot be examined", &error.into()))?;
    Ok(Mode::from_raw_mode(found.st_mode) == SEALED)
}

/// The error for a copy whose file is not there.
#[must_use]
pub fn gone(shadow_id: ShadowId) -> VssError {
    failure::gone(shadow_id, "file")
}

/// Opens a copy for reading, if it was finished.
///
/// # Errors
/// [`gone`]; `VSS_E_PROVIDER_VETO` when it was never finished, or cannot be opened.
pub fn open_finished(store: &Store, shadow_id: ShadowId) -> Result<File, VssError> {
    let file = open(store, shadow_id)?.ok_or_else(|| gone(shadow_id))?;
    if is_sealed(&file)? {
        return Ok(file);
    }
    Err(VssError::new(VssCode::ProviderVeto, format!("Shadow copy {shadow_id} was never finished"))
        .with_hint("Delete it"))
}

/// Refuses when a finished copy is mounted somewhere.
///
/// # Errors
/// `VSS_E_PROVIDER_VETO`, with the place.
pub fn check_is_not_mounted(store: &Store, shadow_id: ShadowId) -> Result<(), VssError> {
    if let Some(file) = open(store, shadow_id)?
        && is_sealed(&file)?
        && let Some(place) = place_of(shadow_id)?
    {
        return Err(VssError::new(
            VssCode::ProviderVeto,
            format!("Shadow copy {shadow_id} is mounted at {}", place.display()),
        )
        .with_hint(format!("Unmount it first: umount {}", place.display())));
    }
    Ok(())
}

/// Deletes the file of a copy; false when there was none.
///
/// # Errors
/// `VSS_E_PROVIDER_VETO`.
pub fn delete(store: &Store, shadow_id: ShadowId) -> Result<bool, VssError> {
    let name = file_name(shadow_id);
    match store.remove_file(name.as_ref()) {
        Ok(()) => Ok(true),
        Err(error) if is(&error, Errno::NOENT) => Ok(false),
        Err(error) => Err(failed(format!("{}/{name} cannot be deleted", store::NAME), &error)),
    }
}

/// Where somebody has mounted the copy, seen from here.
///
/// # Errors
/// `VSS_E_PROVIDER_VETO` when the mount table cannot be read.
pub fn place_of(shadow_id: ShadowId) -> Result<Option<PathBuf>, VssError> {
    let name = file_name(shadow_id);
    let mounts = mountinfo::mounts().map_err(|error| failed("The mount table cannot be read", &error))?;
    let shows_it = |entry: &mountinfo::MountEntry| {
        backing_file_of(entry.major, entry.minor).is_some_and(|image| image.ends_with(&name))
    };
    Ok(mounts.into_iter().find(shows_it).map(|entry| entry.mount_point))
}

/// True when a writable mount would mend nothing in a copy that was just cut: a frozen ext4 has an empty log, unless a file was
/// deleted while it is open. The log of a frozen XFS is never empty.
///
/// # Errors
/// `VSS_E_PROVIDER_VETO` when it cannot be read.
pub fn is_whole(file: &File, fs_type: &str, part: Part) -> Result<bool, VssError> {
    match fs_type {
        "ext4" => ext4::is_whole(file, part.offset).map_err(|error| failed("A copy cannot be read", &error)),
        _ => Ok(false),
    }
}

/// A copy that is mounted writable, and seen by nobody but who is given a mount of it.
#[derive(Debug)]
pub struct Writable {
    fs_type: String,
    /// Ends before the device.
    mounted: OwnedFd,
    device: LoopDevice,
}

/// A copy that is attached and not mounted yet.
#[derive(Debug)]
pub struct Attached(LoopDevice);

impl Attached {
    /// Attaches a copy that was just cut to a writable loop device, which ends with its last user.
    ///
    /// # Errors
    /// `VSS_E_PROVIDER_VETO` when there is no free loop device.
    pub fn new(file: &File, shadow_id: ShadowId, part: Part) -> Result<Self, VssError> {
        attach(file, shadow_id, part, false).map(Self)
    }

    /// Its loop device.
    #[must_use]
    pub fn device(&self) -> &Path {
        self.0.path()
    }
}

impl Writable {
    /// Mounts a copy that was just cut: the log of XFS is replayed, orphans of ext4 are ended. What the copy shows of stores,
    /// at its top and in the directory `store_below` of it, is removed.
    ///
    /// # Errors
    /// `VSS_E_PROVIDER_VETO` when the image is no such file system, or is damaged.
    pub fn open(
        attached: Attached,
        shadow_id: ShadowId,
        fs_type: &str,
        store_below: Option<&Path>,
    ) -> Result<Self, VssError> {
        let Attached(device) = attached;
        let mounted = mount_copy(fs_type, device.path(), false)?;
        // What is at the top may be the store of other copies.
        let top = mount::open_beneath(&mounted, Path::new(""), OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|error| failed(format!("Shadow copy {shadow_id} cannot be opened"), &error))?;
        store::hide_in_copy(&top)?;
        if let Some(below) = store_below {
            match mount::open_beneath(&mounted, below, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(directory) => store::hide_in_copy(&directory)?,
                Err(error) if is(&error, Errno::NOENT) => {}
                Err(error) => {
                    return Err(failed(format!("{} in the copy cannot be opened", below.display()), &error));
                }
            }
        }
        Ok(Self { fs_type: fs_type.to_owned(), mounted, device })
    }

    /// One more mount of it.
    ///
    /// # Errors
    /// `VSS_E_PROVIDER_VETO`.
    pub fn mount(&self, writable: bool) -> Result<OwnedFd, VssError> {
        let mounted = mount_copy(&self.fs_type, self.device.path(), false)?;
        if !writable {
            mount::change(&mounted, Change::SHADOW, false)
                .map_err(|error| failed("The mount of a copy cannot be made read-only", &error))?;
        }
        Ok(mounted)
    }

    /// Ends all writing, wherever somebody still has the copy open. It may be tried again.
    ///
    /// # Errors
    /// `VSS_E_PROVIDER_VETO` when a file of it stays open for writing.
    pub fn close(&self) -> Result<(), VssError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match mount::make_file_system_read_only(&self.mounted) {
                Ok(()) => return Ok(()),
                Err(error) if is(&error, Errno::BUSY) && Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(20));
                }
                Err(error) if is(&error, Errno::BUSY) => {
                    return Err(VssError::new(
                        VssCode::ProviderVeto,
                        format!(
                            "A writer keeps files of the copy on {} open for writing",
                            self.device.path().display()
                        ),
                    )
                    .with_hint("A writer has to close what it opened in PostSnapshot before it answers"));
                }
                Err(error) => return Err(failed("A copy cannot be made read-only", &error)),
            }
        }
    }
}

/// Makes the file read-only for good. A copy that is `lasting` is on the disk when this returns, with the blocks that it shares.
///
/// # Errors
/// `VSS_E_PROVIDER_VETO`, `VSS_E_INSUFFICIENT_STORAGE`.
pub fn seal(file: &File, lasting: bool) -> Result<(), VssError> {
    let sealed = || -> io::Result<()> {
        rustix::fs::fchmod(file, SEALED)?;
        if lasting {
            rustix::fs::fsync(file)?;
        }
        match store::set_immutable(file, true) {
            Err(error) if !is(&error, Errno::NOTTY) && !is(&error, Errno::OPNOTSUPP) => Err(error),
            _ => Ok(()),
        }
    };
    sealed().map_err(|error| failed("A copy cannot be sealed", &error))
}

/// Mounts a sealed copy, on a read-only loop device that ends with the mount.
///
/// # Errors
/// `VSS_E_PROVIDER_VETO` when there is no free loop device, or the image is no such file system.
pub fn mount_sealed(file: &File, shadow_id: ShadowId, fs_type: &str, part: Part) -> Result<OwnedFd, VssError> {
    let device = attach(file, shadow_id, part, true)?;
    mount_copy(fs_type, device.path(), true)
}

fn attach(file: impl AsFd, shadow_id: ShadowId, part: Part, read_only: bool) -> Result<LoopDevice, VssError> {
    let options = AttachOptions { autoclear: true, read_only, offset: part.offset, size_limit: part.size };
    let name = Path::new(store::NAME).join(file_name(shadow_id));
    LoopDevice::attach_file(file, &name, options)
        .map_err(|error| failed(format!("Shadow copy {shadow_id} cannot be attached to a loop device"), &error))
}

/// Read-only without a look at the log: nothing is ever written to a sealed copy, and its log is empty.
fn mount_copy(fs_type: &str, device: &Path, read_only: bool) -> Result<OwnedFd, VssError> {
    let options: &[&str] = match (fs_type, read_only) {
        ("xfs", true) => &["norecovery", "nouuid"],
        ("xfs", false) => &["nouuid"],
        (_, true) => &["noload"],
        (_, false) => &[],
    };
    mount::mount_device(fs_type, device, read_only, options)
        .map_err(|error| failed(format!("The {fs_type} of a copy on {} cannot be mounted", device.display()), &error))
}
