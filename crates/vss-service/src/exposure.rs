//! Exposure: the mounts of finished copies, and the hidden mounts that writers mend in PostSnapshot (design 6).
//!
//! A copy is shown read-only under `<runtime>/shadows/<shadow id>/`, or at a directory that the caller names. Services with
//! a mount namespace of their own must see it, so the place is shared: where its parent is not, `<runtime>/shadows` is
//! bind-mounted on itself and made shared with the first exposure and unmounted with the last.
//! Which copies are exposed is read from the kernel's mount table, never remembered beside it.

use crate::environment::Staging;
use rustix::fs::{Mode, OFlags};
use std::{
    collections::BTreeSet,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Mutex,
};
use vss_linux::mount::{self, Change};
use vss_linux::mountinfo;
use vss_model::{ShadowId, VssCode, VssError};
use vss_provider::MountedTree;

/// The mounts of one instance.
pub struct Exposures {
    /// `<runtime>/shadows`: what everybody may see.
    shadows: PathBuf,
    /// `<runtime>/staging`: root only, for writers in PostSnapshot through descriptors.
    staging: PathBuf,
    /// One change of mounts at a time.
    lock: Mutex<()>,
}

impl Exposures {
    /// The exposures below this runtime directory; makes its two directories.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when they cannot be made.
    pub fn new(runtime_directory: &Path) -> Result<Self, VssError> {
        let made = |name: &str, mode: u32| -> Result<PathBuf, VssError> {
            let path = runtime_directory.join(name);
            match rustix::fs::mkdir(&path, Mode::from_raw_mode(mode)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(path),
                Err(error) => Err(failed(&format!("Cannot make {}", path.display()), error.into())),
            }
        };
        Ok(Self { shadows: made("shadows", 0o755)?, staging: made("staging", 0o700)?, lock: Mutex::new(()) })
    }

    /// The place of the service's own for this copy.
    #[must_use]
    pub fn own_place(&self, shadow_id: ShadowId) -> PathBuf {
        self.shadows.join(shadow_id.to_string())
    }

    /// Every mount point of the machine, as this service sees it.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when the mount table cannot be read.
    pub fn mounted(&self) -> Result<BTreeSet<PathBuf>, VssError> {
        Ok(mounts()?.into_iter().map(|entry| entry.mount_point).collect())
    }

    /// Shows a copy read-only at `at`, or at the service's own place. May block.
    ///
    /// # Errors
    /// `E_INVALIDARG` when `at` is no empty directory, `VSS_E_OBJECT_ALREADY_EXISTS` when something is mounted there,
    /// `VSS_E_UNEXPECTED` when the kernel refuses.
    pub fn expose(&self, shadow_id: ShadowId, trees: Vec<MountedTree>, at: Option<&Path>) -> Result<PathBuf, VssError> {
        let _one = self.lock.lock();
        let place = match at {
            Some(at) => {
                check_target(at)?;
                at.to_path_buf()
            }
            None => {
                self.share()?;
                let place = self.own_place(shadow_id);
                make_directory(&place)?;
                place
            }
        };
        let attached = attach_all(trees, &place, true);
        if attached.is_err() {
            // What failed is the error to report; a directory that stays is empty and used again.
            let _left = self.take_away(&place);
        }
        attached.map(|()| place)
    }

    /// Takes a copy's mount away, with all below it; no harm when there is none. May block.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when the kernel refuses.
    pub fn unexpose(&self, place: &Path) -> Result<(), VssError> {
        let _one = self.lock.lock();
        self.take_away(place)
    }

    fn take_away(&self, place: &Path) -> Result<(), VssError> {
        detach(place)?;
        if place.starts_with(&self.shadows) {
            remove_directory(place)?;
            self.unshare_when_empty()?;
        }
        Ok(())
    }

    /// Takes away every mount that an earlier life of this instance left behind, but not those of the copies in `keep`.
    /// Returns how many there were.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when the mount table cannot be read or the kernel refuses.
    pub fn clear(&self, keep: &BTreeSet<ShadowId>) -> Result<usize, VssError> {
        let _one = self.lock.lock();
        let kept: BTreeSet<PathBuf> = keep.iter().map(|shadow_id| self.own_place(*shadow_id)).collect();
        let mounted = self.mounted()?;
        let mut cleared = 0;
        for base in [&self.shadows, &self.staging] {
            let entries =
                std::fs::read_dir(base).map_err(|error| failed(&format!("Cannot read {}", base.display()), error))?;
            let places: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            for place in places.into_iter().filter(|place| !kept.contains(place)) {
                cleared += usize::from(mounted.contains(&place));
                detach(&place)?;
                remove_directory(&place)?;
            }
        }
        self.unshare_when_empty()?;
        Ok(cleared)
    }

    /// Makes `shadows` a place whose mounts every namespace sees.
    fn share(&self) -> Result<(), VssError> {
        if holder(&self.shadows)?.is_some_and(|entry| entry.is_shared()) {
            return Ok(());
        }
        mount::bind_on_itself_shared(&self.shadows)
            .map_err(|error| failed(&format!("Cannot share {}", self.shadows.display()), error))
    }

    /// Undoes [`Self::share`] with the last exposure.
    fn unshare_when_empty(&self) -> Result<(), VssError> {
        let mounts = mounts()?;
        let used = mounts.iter().any(|entry| entry.mount_point.parent() == Some(&self.shadows));
        if !used && mounts.iter().any(|entry| entry.mount_point == self.shadows) {
            mount::unmount_detached(&self.shadows)
                .map_err(|error| failed(&format!("Cannot unmount {}", self.shadows.display()), error))?;
        }
        Ok(())
    }
}

impl Staging for Exposures {
    fn stage(&self, shadow_id: ShadowId, trees: Vec<MountedTree>) -> Result<OwnedFd, VssError> {
        let _one = self.lock.lock();
        let place = self.staging.join(shadow_id.to_string());
        make_directory(&place)?;
        attach_all(trees, &place, false)?;
        rustix::fs::open(&place, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| failed(&format!("Cannot open {}", place.display()), error.into()))
    }

    fn unstage(&self, shadow_id: ShadowId) -> Result<(), VssError> {
        let _one = self.lock.lock();
        let place = self.staging.join(shadow_id.to_string());
        detach(&place)?;
        remove_directory(&place)
    }
}

/// Mounts the trees of a copy at `place`, the root first.
fn attach_all(trees: Vec<MountedTree>, place: &Path, read_only: bool) -> Result<(), VssError> {
    for tree in trees {
        let change = if read_only { Change::SHADOW } else { Change { read_only: Some(false), ..Change::SHADOW } };
        mount::change(&tree.mount, change, false)
            .map_err(|error| failed("Cannot prepare the mount of a copy", error))?;
        let target = if tree.path.as_os_str().is_empty() {
            rustix::fs::open(place, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|error| failed(&format!("Cannot open {}", place.display()), error.into()))?
        } else {
            let root = rustix::fs::open(place, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|error| failed(&format!("Cannot open {}", place.display()), error.into()))?;
            mount::open_beneath(root, &tree.path, OFlags::PATH | OFlags::DIRECTORY)
                .map_err(|error| failed(&format!("Cannot open {} in a copy", tree.path.display()), error))?
        };
        mount::attach(&tree.mount, &target)
            .map_err(|error| failed(&format!("Cannot mount a copy at {}", place.join(&tree.path).display()), error))?;
    }
    Ok(())
}

/// A directory that the caller names must be there, be empty, and have nothing mounted on it.
fn check_target(at: &Path) -> Result<(), VssError> {
    let wrong = |why: &str| {
        VssError::new(VssCode::InvalidArgument, format!("Cannot expose at {}: {why}", at.display()))
            .with_hint("Name an empty directory by its full path")
    };
    if !at.is_absolute() || std::fs::canonicalize(at).map_err(|error| wrong(&error.to_string()))? != at {
        return Err(wrong("the path is not absolute, or leads over a symbolic link"));
    }
    if mounts()?.iter().any(|entry| entry.mount_point == at) {
        return Err(VssError::new(
            VssCode::ObjectAlreadyExists,
            format!("Something is mounted at {} already", at.display()),
        )
        .with_hint("Name an empty directory where nothing is mounted"));
    }
    let mut entries = std::fs::read_dir(at).map_err(|error| wrong(&error.to_string()))?;
    if entries.next().is_some() {
        return Err(wrong("it is not empty"));
    }
    Ok(())
}

/// The mount that `path` lies on, by the longest mount point.
fn holder(path: &Path) -> Result<Option<mountinfo::MountEntry>, VssError> {
    Ok(mounts()?
        .into_iter()
        .filter(|entry| path.starts_with(&entry.mount_point))
        .max_by_key(|entry| (entry.mount_point.components().count(), entry.mount_id)))
}

fn mounts() -> Result<Vec<mountinfo::MountEntry>, VssError> {
    mountinfo::mounts().map_err(|error| failed("Cannot read the mount table", error))
}

/// Detaches whatever is mounted at `place`, layer by layer.
fn detach(place: &Path) -> Result<(), VssError> {
    loop {
        match mount::unmount_detached(place) {
            Ok(()) => {}
            // Not a mount point, or not there: nothing is left to detach.
            Err(error) if matches!(error.raw_os_error(), Some(code) if code == rustix::io::Errno::INVAL.raw_os_error() || code == rustix::io::Errno::NOENT.raw_os_error()) =>
            {
                return Ok(());
            }
            Err(error) => return Err(failed(&format!("Cannot unmount {}", place.display()), error)),
        }
    }
}

fn make_directory(place: &Path) -> Result<(), VssError> {
    match rustix::fs::mkdir(place, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(failed(&format!("Cannot make {}", place.display()), error.into())),
    }
}

fn remove_directory(place: &Path) -> Result<(), VssError> {
    match rustix::fs::rmdir(place) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(failed(&format!("Cannot remove {}", place.display()), error.into())),
    }
}

fn failed(what: &str, error: std::io::Error) -> VssError {
    VssError::new(VssCode::Unexpected, format!("{what}: {error}"))
}
