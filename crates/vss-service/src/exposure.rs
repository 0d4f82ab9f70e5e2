//! Exposure: the mounts of finished copies, and the hidden mounts that writers mend in PostSnapshot (design 6).
//!
//! A copy is shown read-only under `<runtime>/shadows/<shadow id>/`, or at a directory that the caller names. Services with
//! a mount namespace of their own must see it, so the place is shared: where its parent is not, `<runtime>/shadows` is
//! bind-mounted on itself and made shared with the first exposure and unmounted with the last.
//! Which copies are exposed is read from the kernel's mount table, never remembered beside it. What is remembered of a
//! directory that a caller named is how to tell our mount there from somebody else's ([`Exposure`]): people unmount, and
//! mount other things at the same place.

use crate::environment::Staging;
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Mutex,
};
use vss_linux::mount::{self, Change};
use vss_linux::mountinfo::{self, MountEntry};
use vss_model::{ShadowId, VssCode, VssError};
use vss_provider::MountedTree;

/// A copy shown at a directory that a caller named, as the catalogue keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposure {
    /// The directory.
    #[serde(with = "vss_model::path_text")]
    pub place: PathBuf,
    /// The boot in which it was mounted; in another one it has to be mounted again.
    pub boot_id: String,
    /// The kernel's number of the mount, which it may give to another one later.
    mount_id: u64,
    /// The superblock's device number.
    device: u64,
    /// What the mount shows of its file system.
    #[serde(with = "vss_model::path_text")]
    root: PathBuf,
}

impl Exposure {
    fn is(&self, entry: &MountEntry) -> bool {
        let of_entry = (entry.mount_id, entry.device_number(), &entry.root, &entry.mount_point);
        of_entry == (self.mount_id, self.device, &self.root, &self.place)
    }

    /// True when its mount is what is seen at its place.
    #[must_use]
    pub fn is_seen(&self, mounts: &[MountEntry]) -> bool {
        top_at(mounts, &self.place).is_some_and(|entry| self.is(entry))
    }

    /// Its mount: whoever owns the directories on the way may exchange them while we look.
    fn open(&self) -> io::Result<OwnedFd> {
        let found = open_without_links(&self.place, OFlags::PATH | OFlags::DIRECTORY)?;
        let stat = rustix::fs::statx(&found, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
        if stat.stx_mnt_id == self.mount_id { Ok(found) } else { Err(rustix::io::Errno::STALE.into()) }
    }

    /// True while its mount exists, also below another one.
    #[must_use]
    pub fn is_there(&self, mounts: &[MountEntry]) -> bool {
        mounts.iter().any(|entry| self.is(entry))
    }
}

/// The mounts of one instance.
pub struct Exposures {
    /// `<runtime>/shadows`: root only, since the directories above a volume's mount point, which may keep others from its
    /// files, are not above a copy. Whom root lets see more has a directory named for it.
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
        let made = |name: &str| -> Result<PathBuf, VssError> {
            let (path, only_root) = (runtime_directory.join(name), Mode::from_raw_mode(0o700));
            match rustix::fs::mkdir(&path, only_root) {
                // An earlier life of this instance may have made it for everybody.
                Ok(()) | Err(rustix::io::Errno::EXIST) => rustix::fs::chmod(&path, only_root),
                Err(error) => Err(error),
            }
            .map_err(|error| failed(&format!("Cannot make {}", path.display()), error.into()))?;
            Ok(path)
        };
        Ok(Self { shadows: made("shadows")?, staging: made("staging")?, lock: Mutex::new(()) })
    }

    /// The place of the service's own for this copy.
    #[must_use]
    pub fn own_place(&self, shadow_id: ShadowId) -> PathBuf {
        self.shadows.join(shadow_id.to_string())
    }

    /// Every mount of the machine, as this service sees it.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when the mount table cannot be read.
    pub fn mounts(&self) -> Result<Vec<MountEntry>, VssError> {
        mounts()
    }

    /// Shows a copy read-only at the service's own place, and returns it. May block.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when the kernel refuses.
    pub fn expose(&self, shadow_id: ShadowId, trees: Vec<MountedTree>) -> Result<PathBuf, VssError> {
        let _one = self.lock.lock();
        self.share()?;
        let place = self.own_place(shadow_id);
        make_directory(&place)?;
        let attached = open_directory(&place).and_then(|target| attach_all(trees, &target, &place, true));
        if attached.is_err() {
            // What failed is the error to report; a directory that stays is empty and used again.
            let _left = self.take_away(&place);
        }
        attached.map(|_root| place)
    }

    /// Shows a copy read-only at the directory `at`, in the boot `boot_id`. May block.
    ///
    /// # Errors
    /// `E_INVALIDARG` when `at` is no empty directory, `VSS_E_OBJECT_ALREADY_EXISTS` when something is mounted there,
    /// `VSS_E_UNEXPECTED` when the kernel refuses.
    pub fn expose_at(&self, trees: Vec<MountedTree>, at: &Path, boot_id: &str) -> Result<Exposure, VssError> {
        let _one = self.lock.lock();
        let target = open_target(at)?;
        let attached = attach_all(trees, &target, at, true)?;
        let recorded = mounts().and_then(|mounts| {
            let entry = top_at(&mounts, at).ok_or_else(|| {
                VssError::new(VssCode::Unexpected, format!("The copy is not mounted at {} after all", at.display()))
            })?;
            Ok(Exposure {
                place: at.to_path_buf(),
                boot_id: boot_id.to_owned(),
                mount_id: entry.mount_id,
                device: entry.device_number(),
                root: entry.root.clone(),
            })
        });
        if recorded.is_err() {
            // What failed is the error to report. By what is open: the path may lead elsewhere by now.
            let _left = unmount_opened(&attached);
        }
        recorded
    }

    /// Takes a copy's mount away from the service's own place, with all below it; false when there was none. May block.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when the kernel refuses.
    pub fn unexpose(&self, shadow_id: ShadowId) -> Result<bool, VssError> {
        let _one = self.lock.lock();
        self.take_away(&self.own_place(shadow_id))
    }

    /// Takes a copy's mount away from the directory that a caller named, with all below it; false when somebody has done so
    /// already. What else is mounted there is left alone. May block.
    ///
    /// # Errors
    /// `VSS_E_VOLUME_IN_USE` when another mount lies on top of it, `VSS_E_UNEXPECTED` when the kernel refuses.
    pub fn unexpose_at(&self, exposure: &Exposure) -> Result<bool, VssError> {
        let _one = self.lock.lock();
        let mounts = mounts()?;
        let place = exposure.place.display();
        if !exposure.is_there(&mounts) {
            return Ok(false);
        }
        if !exposure.is_seen(&mounts) {
            return Err(VssError::new(
                VssCode::VolumeInUse,
                format!("Something else is mounted over the copy at {place}"),
            )
            .with_hint(format!("Unmount that first: umount {place}")));
        }
        exposure
            .open()
            .and_then(|mount| unmount_opened(&mount))
            .map_err(|error| failed(&format!("Cannot unmount {place}"), error))
            .map(|()| true)
    }

    fn take_away(&self, place: &Path) -> Result<bool, VssError> {
        let was_mounted = detach(place)?;
        remove_directory(place)?;
        self.unshare_when_empty()?;
        Ok(was_mounted)
    }

    /// Takes away every mount that an earlier life of this instance left behind, but not those of the copies in `keep`.
    /// Returns how many there were.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when the mount table cannot be read or the kernel refuses.
    pub fn clear(&self, keep: &BTreeSet<ShadowId>) -> Result<usize, VssError> {
        let _one = self.lock.lock();
        let kept: BTreeSet<PathBuf> = keep.iter().map(|shadow_id| self.own_place(*shadow_id)).collect();
        let mounted: BTreeSet<PathBuf> = mounts()?.into_iter().map(|entry| entry.mount_point).collect();
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
        attach_all(trees, &open_directory(&place)?, &place, false)?;
        open_directory(&place)
    }

    fn unstage(&self, shadow_id: ShadowId) -> Result<(), VssError> {
        let _one = self.lock.lock();
        let place = self.staging.join(shadow_id.to_string());
        detach(&place)?;
        remove_directory(&place)
    }
}

/// Mounts the trees of a copy over the directory `target`, the root first, and returns the root; all of them or none. `place`
/// is its name in errors.
fn attach_all(trees: Vec<MountedTree>, target: &OwnedFd, place: &Path, read_only: bool) -> Result<OwnedFd, VssError> {
    let attach = |tree: &MountedTree, target: &OwnedFd| {
        // What is not to be read-only is what its provider made of it.
        let change = Change { read_only: read_only.then_some(true), ..Change::SHADOW };
        mount::change(&tree.mount, change, false)
            .map_err(|error| failed("Cannot prepare the mount of a copy", error))?;
        mount::attach(&tree.mount, target).map_err(|error| cannot_mount(place, &tree.path, error))
    };
    let mut trees = trees.into_iter();
    let Some(root) = trees.next() else {
        return Err(VssError::new(VssCode::Unexpected, "The copy has nothing that can be mounted"));
    };
    attach(&root, target)?;
    let nested = trees.try_for_each(|tree| {
        let target = mount::open_beneath(&root.mount, &tree.path, OFlags::PATH | OFlags::DIRECTORY);
        attach(&tree, &target.map_err(|error| cannot_mount(place, &tree.path, error))?)
    });
    if nested.is_err() {
        // By what is open: the path may lead elsewhere by now.
        let _left = unmount_opened(&root.mount);
    }
    nested.map(|()| root.mount)
}

fn cannot_mount(place: &Path, path: &Path, error: io::Error) -> VssError {
    failed(&format!("Cannot mount a copy at {}", place.join(path).display()), error)
}

/// The directory that the caller names, opened: it must be there, be empty, and have nothing mounted on it.
fn open_target(at: &Path) -> Result<OwnedFd, VssError> {
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
    // From here on only what is opened counts, whatever becomes of the path.
    let target =
        open_without_links(at, OFlags::RDONLY | OFlags::DIRECTORY).map_err(|error| wrong(&error.to_string()))?;
    let entries = rustix::fs::Dir::read_from(&target).map_err(|error| wrong(&error.to_string()))?;
    let is_own = |entry: &rustix::fs::DirEntry| entry.file_name() == c"." || entry.file_name() == c"..";
    if entries.flatten().any(|entry| !is_own(&entry)) {
        return Err(wrong("it is not empty"));
    }
    Ok(target)
}

/// Opens an absolute path if no part of it is a symbolic link.
fn open_without_links(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let root = std::fs::File::open("/")?;
    mount::open_beneath(&root, path.strip_prefix("/").unwrap_or(path), flags)
}

/// A directory of the service's own.
fn open_directory(place: &Path) -> Result<OwnedFd, VssError> {
    rustix::fs::open(place, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| failed(&format!("Cannot open {}", place.display()), error.into()))
}

/// Takes the mount whose root is open out of the tree, with all below it.
fn unmount_opened(mount: &OwnedFd) -> io::Result<()> {
    // The dot makes the descriptor's link no last part of the path, which would not be followed.
    mount::unmount_detached(Path::new(&format!("/proc/self/fd/{}/.", mount.as_raw_fd())))
}

/// The mount that `path` lies on, by the longest mount point.
fn holder(path: &Path) -> Result<Option<MountEntry>, VssError> {
    Ok(mounts()?
        .into_iter()
        .filter(|entry| path.starts_with(&entry.mount_point))
        .max_by_key(|entry| (entry.mount_point.components().count(), entry.mount_id)))
}

fn mounts() -> Result<Vec<MountEntry>, VssError> {
    mountinfo::mounts().map_err(|error| failed("Cannot read the mount table", error))
}

/// What is seen at `place`: of the mounts there, the one that no other lies on.
fn top_at<'a>(mounts: &'a [MountEntry], place: &Path) -> Option<&'a MountEntry> {
    let here = || mounts.iter().filter(|entry| entry.mount_point == place);
    here().find(|entry| here().all(|other| other.parent_id != entry.mount_id))
}

/// Detaches whatever is mounted at `place`, layer by layer; false when there was nothing.
fn detach(place: &Path) -> Result<bool, VssError> {
    let mut was_mounted = false;
    loop {
        match mount::unmount_detached(place) {
            Ok(()) => was_mounted = true,
            // Not a mount point, or not there: nothing is left to detach.
            Err(error) if matches!(error.raw_os_error(), Some(code) if code == rustix::io::Errno::INVAL.raw_os_error() || code == rustix::io::Errno::NOENT.raw_os_error()) =>
            {
                return Ok(was_mounted);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn refusal(at: &Path) -> VssError {
        open_target(at).expect_err("refused")
    }

    #[test]
    fn only_an_empty_directory_by_its_own_name_is_a_target() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        let (empty, full) = (base.join("empty"), base.join("full"));
        fs::create_dir(&empty).unwrap();
        fs::create_dir(&full).unwrap();
        fs::write(full.join(".hidden"), "x").unwrap();
        fs::write(base.join("file"), "x").unwrap();
        symlink(&empty, base.join("link")).unwrap();
        symlink(&base, base.join("way")).unwrap();
        open_target(&empty).unwrap();
        let wrong = [
            full,
            base.join("file"),
            base.join("link"),
            base.join("way/empty"),
            base.join("full/../empty"),
            base.join("missing"),
            PathBuf::from("empty"),
            PathBuf::from("/etc"),
        ];
        for at in wrong {
            assert_eq!(refusal(&at).code, VssCode::InvalidArgument, "{}", at.display());
        }
        for at in ["/", "/proc"] {
            assert_eq!(refusal(Path::new(at)).code, VssCode::ObjectAlreadyExists, "{at}");
        }
    }

    /// Mounts a copy of the directory `from` at `at`.
    fn exposed(exposures: &Exposures, from: &Path, at: &Path) -> Exposure {
        let tree = MountedTree { path: PathBuf::new(), mount: mount::clone_tree(from, false).unwrap() };
        exposures.expose_at(vec![tree], at, "this boot").unwrap()
    }

    #[test]
    fn nobody_else_gets_past_the_places_of_the_service() {
        let runtime = tempfile::tempdir().unwrap();
        fs::create_dir(runtime.path().join("shadows")).unwrap();
        Exposures::new(runtime.path()).unwrap();
        for name in ["shadows", "staging"] {
            let mode = fs::metadata(runtime.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o700, "{name}");
        }
    }

    #[test]
    fn a_copy_that_cannot_be_mounted_whole_is_not_mounted() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: a_copy_that_cannot_be_mounted_whole_is_not_mounted: needs root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        for name in ["run", "from", "at"] {
            fs::create_dir(base.join(name)).unwrap();
        }
        let exposures = Exposures::new(&base.join("run")).unwrap();
        let tree = |path: &str| MountedTree {
            path: PathBuf::from(path),
            mount: mount::clone_tree(&base.join("from"), false).unwrap(),
        };
        let at = base.join("at");
        let error = exposures.expose_at(vec![tree(""), tree("missing")], &at, "this boot").unwrap_err();
        assert!(error.message.contains("at/missing"), "{error}");
        assert!(top_at(&mounts().unwrap(), &at).is_none());
        assert_eq!(exposures.expose_at(Vec::new(), &at, "this boot").unwrap_err().code, VssCode::Unexpected);
    }

    #[test]
    fn whoever_exchanges_a_directory_on_the_way_has_nothing_else_unmounted() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: whoever_exchanges_a_directory_on_the_way_has_nothing_else_unmounted: needs root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        for name in ["run", "from", "way", "way/at", "other", "other/at"] {
            fs::create_dir(base.join(name)).unwrap();
        }
        fs::write(base.join("from/file"), "x").unwrap();
        let exposures = Exposures::new(&base.join("run")).unwrap();
        let (at, other) = (base.join("way/at"), base.join("other/at"));
        let exposure = exposed(&exposures, &base.join("from"), &at);
        let stays = exposed(&exposures, &base.join("from"), &other);
        assert!(at.join("file").exists() && exposure.is_seen(&mounts().unwrap()));

        fs::rename(base.join("way"), base.join("gone")).unwrap();
        symlink(base.join("other"), base.join("way")).unwrap();
        assert!(exposure.open().is_err(), "the way leads over a link");
        assert!(!exposures.unexpose_at(&exposure).unwrap(), "its mount is not there any more");
        assert!(stays.is_seen(&mounts().unwrap()), "another mount was taken away");

        fs::remove_file(base.join("way")).unwrap();
        fs::rename(base.join("gone"), base.join("way")).unwrap();
        assert!(exposures.unexpose_at(&exposure).unwrap());
        assert!(!at.join("file").exists());
        assert!(exposures.unexpose_at(&stays).unwrap());
        assert!(!exposures.unexpose_at(&stays).unwrap(), "twice is no harm");
    }
}
