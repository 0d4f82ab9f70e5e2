//! The directory `.vss` at the top of a file system, where copies lie that share its blocks.
//!
//! It is a plain directory of root, mode 0700, in the root directory of the file system (on btrfs: of subvolume 5), reached
//! through a mount that is attached nowhere; it comes with the first copy and goes with the last. At the top and not beside
//! what is copied, because there it is in the way of nobody: no other subvolume shows it, and one look finds every leftover
//! of a file system. Everything in it is named `<shadow-id>.` and more, so providers may share it.
//!
//! Several sets, and several instances of the service, may use it at once. A set in creation holds it with a shared
//! flock(2); it is removed only by who gets it exclusively, so nobody's directory goes away between opening and cutting.

use crate::failure::failed;
use rustix::{
    fs::{AtFlags, Dir, FileType, FlockOperation, IFlags, Mode, OFlags},
    io::Errno,
};
use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};
use vss_linux::btrfs;
use vss_model::{ShadowId, Volume, VssCode, VssError};

/// Its name at the top of the file system.
pub const NAME: &str = ".vss";

/// Times that opening or removing is tried again when another set came between.
const TRIES: u32 = 100;

/// The open directory.
#[derive(Debug)]
pub struct Store {
    directory: OwnedFd,
}

impl AsFd for Store {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl Drop for Store {
    /// Closing alone would not do: a process that is being started beside us has the descriptor too, until its exec.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&*self, FlockOperation::Unlock);
    }
}

/// True for a path that names a copy in a store, wherever the file system's top is mounted: `.vss/<shadow-id>.<more>`, with
/// what lies below it.
#[must_use]
pub fn holds(path: &Path) -> bool {
    let is_copy = |name: &OsStr| {
        let id = name.to_str().and_then(|name| name.split_once('.')).map(|(id, _)| id.parse::<ShadowId>());
        matches!(id, Some(Ok(_)))
    };
    path.ancestors().any(|path| {
        path.file_name().is_some_and(is_copy)
            && path.parent().and_then(Path::file_name).is_some_and(|parent| parent == NAME)
    })
}

/// False when the directory is not at the top of this volume's file system; true also when the volume's mount does not show
/// the top.
#[must_use]
pub fn may_be_on(volume: &Volume) -> bool {
    let is_missing = || {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = rustix::fs::open(&volume.mount_point, flags, Mode::empty())?;
        let is_it = rustix::fs::fstat(&top)?.st_dev == volume.device_number;
        let found = rustix::fs::statat(&top, NAME, AtFlags::SYMLINK_NOFOLLOW);
        Ok::<_, Errno>(is_it && found.is_err_and(|error| error == Errno::NOENT))
    };
    volume.root != Path::new("/") || !is_missing().unwrap_or(false)
}

impl Store {
    /// Opens the directory in the root directory `top`, making it if there is none, and holds it until it is dropped.
    ///
    /// # Errors
    /// As [`Store::open`], `VSS_E_INSUFFICIENT_STORAGE`.
    pub fn open_or_make(top: impl AsFd) -> Result<Self, VssError> {
        let top = top.as_fd();
        for _ in 0..TRIES {
            match rustix::fs::mkdirat(top, NAME, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(cannot("made", error.into())),
            }
            let Some(store) = Self::open(top)? else { continue };
            rustix::fs::flock(&store, FlockOperation::LockShared).map_err(|error| cannot("locked", error.into()))?;
            if store.is_still_there(top)? {
                return Ok(store);
            }
        }
        Err(cannot("held", io::Error::from(Errno::AGAIN)))
    }

    /// Opens the directory if there is one. Does not hold it.
    ///
    /// # Errors
    /// `VSS_E_PROVIDER_VETO` when something else has its name, or the kernel refuses.
    pub fn open(top: impl AsFd) -> Result<Option<Self>, VssError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match rustix::fs::openat(top, NAME, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(cannot("opened", error.into())),
        };
        let found = rustix::fs::fstat(&directory).map_err(|error| cannot("examined", error.into()))?;
        // A subvolume would be a nested one of every volume around it.
        let is_subvolume = found.st_ino == btrfs::ROOT_INODE && btrfs::uuid(&directory).is_ok();
        if found.st_uid != 0 || found.st_mode & 0o777 != 0o700 || is_subvolume {
            return Err(VssError::new(
                VssCode::ProviderVeto,
                format!("{NAME} at the top of the file system is not the directory of the shadow copies"),
            )
            .with_hint("It must be a plain directory of root with mode 0700: rename what is there"));
        }
        Ok(Some(Self { directory }))
    }

    fn is_still_there(&self, top: BorrowedFd<'_>) -> Result<bool, VssError> {
        let examined = |error: Errno| cannot("examined", error.into());
        let ours = rustix::fs::fstat(&self.directory).map_err(examined)?;
        match rustix::fs::statat(top, NAME, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => Ok((there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(examined(error)),
        }
    }

    /// Removes the directory from `top` if it is empty and no set in creation holds it. Nothing can be made in it any more then.
    ///
    /// # Errors
    /// `VSS_E_PROVIDER_VETO` when the kernel refuses.
    pub fn remove_if_empty(&self, top: impl AsFd) -> Result<(), VssError> {
        let top = top.as_fd();
        for _ in 0..TRIES {
            match rustix::fs::flock(self, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(()),
                Err(error) => return Err(cannot("locked", error.into())),
            }
            if !self.is_still_there(top)? {
                return Ok(());
            }
            match rustix::fs::unlinkat(top, NAME, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::NOTEMPTY) => {}
                Err(error) => return Err(cannot("removed", error.into())),
            }
            // Whoever deleted the last copy meanwhile found the directory held by us, and left it to us.
            rustix::fs::flock(self, FlockOperation::Unlock).map_err(|error| cannot("unlocked", error.into()))?;
            if !self.entries()?.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Brings to the disk which files are in the directory, and whether it is in `top`; on btrfs every change of subvolumes too.
    ///
    /// # Errors
    /// `VSS_E_PROVIDER_VETO`, `VSS_E_INSUFFICIENT_STORAGE`.
    pub fn commit(&self, top: impl AsFd) -> Result<(), VssError> {
        let done = if btrfs::uuid(self).is_ok() {
            btrfs::commit_transaction(self)
        } else {
            // Each directory by itself: nothing says that one is written down with the other.
            rustix::fs::fsync(self).and_then(|()| rustix::fs::fsync(top)).map_err(io::Error::from)
        };
        done.map_err(|error| cannot("written to disk", error))
    }

    /// Deletes a file, also one that was sealed as immutable.
    ///
    /// # Errors
    /// As unlinkat(2).
    pub fn remove_file(&self, name: &OsStr) -> io::Result<()> {
        match rustix::fs::unlinkat(self, name, AtFlags::empty()) {
            Err(Errno::PERM) => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                set_immutable(rustix::fs::openat(self, name, flags, Mode::empty())?, false)?;
                Ok(rustix::fs::unlinkat(self, name, AtFlags::empty())?)
            }
            result => Ok(result?),
        }
    }

    /// Name and type of everything in the directory.
    ///
    /// # Errors
    /// `VSS_E_PROVIDER_VETO` when it cannot be read.
    pub fn entries(&self) -> Result<Vec<(OsString, FileType)>, VssError> {
        let read = |error: Errno| cannot("read", error.into());
        let mut entries = Vec::new();
        for entry in Dir::read_from(self).map_err(read)? {
            let entry = entry.map_err(read)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                entries.push((name.to_owned(), entry.file_type()));
            }
        }
        Ok(entries)
    }
}

/// Makes a file immutable (chattr(1) +i), or mutable again.
///
/// # Errors
/// `ENOTTY` or `EOPNOTSUPP` on a file system without the attribute.
pub fn set_immutable(file: impl AsFd, immutable: bool) -> io::Result<()> {
    let mut flags = rustix::fs::ioctl_getflags(&file)?;
    flags.set(IFlags::IMMUTABLE, immutable);
    Ok(rustix::fs::ioctl_setflags(&file, flags)?)
}

/// Removes the image of `.vss` from a copy of a whole file system, whose writable root is `root`: nobody looks for copies in
/// copies. (In a btrfs snapshot the subvolumes in it are empty directories.)
///
/// # Errors
/// `VSS_E_PROVIDER_VETO` when the kernel refuses.
pub fn hide_in_copy(root: impl AsFd) -> Result<(), VssError> {
    let hide = |error: io::Error| failed(format!("{NAME} cannot be hidden in the shadow copy"), &error);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match rustix::fs::openat(&root, NAME, flags, Mode::empty()) {
        Ok(directory) => directory,
        // Somebody's file of this name is nothing of ours.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(error) => return Err(hide(error.into())),
    };
    let image = Store { directory };
    for (name, kind) in image.entries()? {
        let removed = if kind == FileType::Directory {
            rustix::fs::unlinkat(&image, &name, AtFlags::REMOVEDIR).map_err(io::Error::from)
        } else {
            image.remove_file(&name)
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(hide(error)),
            _ => {}
        }
    }
    rustix::fs::unlinkat(&root, NAME, AtFlags::REMOVEDIR).map_err(|error| hide(error.into()))
}

fn cannot(what: &str, error: io::Error) -> VssError {
    failed(format!("{NAME} at the top of the file system cannot be {what}"), &error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_that_delete_the_last_copies_at_once_one_removes_the_directory() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: of_two_that_delete_the_last_copies_at_once_one_removes_the_directory: needs root");
            return;
        }
        let place = std::env::temp_dir().join(format!("vss-store-{}", std::process::id()));
        std::fs::create_dir(&place).unwrap();
        let top = std::fs::File::open(&place).unwrap();
        for round in 0..300 {
            drop(Store::open_or_make(&top).unwrap());
            let begin = std::sync::Barrier::new(2);
            std::thread::scope(|scope| {
                for name in ["one", "other"] {
                    std::fs::write(place.join(NAME).join(name), "").unwrap();
                    let (begin, top) = (&begin, &top);
                    scope.spawn(move || {
                        let store = Store::open(top).unwrap().unwrap();
                        begin.wait();
                        store.remove_file(name.as_ref()).unwrap();
                        store.remove_if_empty(top).unwrap();
                    });
                }
            });
            assert!(!place.join(NAME).exists(), "left in round {round}");
        }
        std::fs::remove_dir(&place).unwrap();
    }

    #[test]
    fn a_copy_is_known_by_its_name_and_its_place() {
        let id = "056299bf-f98d-4555-983b-faf7772b220e";
        for copy in [format!("/.vss/{id}.image"), format!("/mnt/x/.vss/{id}.0/dir/file"), format!(".vss/{id}.0")] {
            assert!(holds(Path::new(&copy)), "{copy}");
        }
        for other in [format!("/{id}.image"), format!("/.vss/{id}"), "/.vss/x.image".to_owned(), "/.vss".to_owned()] {
            assert!(!holds(Path::new(&other)), "{other}");
        }
    }
}
