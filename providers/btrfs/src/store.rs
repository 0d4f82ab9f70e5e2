//! The directory `.vss` at the top level of a file system, where its copies lie.
//!
//! Several sets, and several instances of the service, may use it at once. A set in creation holds it with a shared
//! flock(2); it is removed only by who gets it exclusively, so nobody's directory goes away between opening and cutting.

use crate::{
    failure::{failed, is},
    file_system::FileSystem,
};
use rustix::{
    fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags},
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
use vss_linux::{btrfs, mount};
use vss_model::{ShadowId, VssCode, VssError};

/// Its name at the top level.
pub(crate) const NAME: &str = ".vss";

/// Times that opening is tried again when another set removed the directory meanwhile.
const TRIES: u32 = 100;

/// Subvolumes that somebody made inside a copy while it was writable, and that are deleted with it.
const MOST_STRANGERS: usize = 4096;

/// The open directory.
#[derive(Debug)]
pub(crate) struct Store {
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

impl Store {
    /// Opens the directory, making it if there is none, and holds it until it is dropped.
    pub(crate) fn open_or_make(file_system: &FileSystem) -> Result<Self, VssError> {
        for _ in 0..TRIES {
            match rustix::fs::mkdirat(file_system, NAME, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(cannot("made", error.into())),
            }
            let Some(store) = Self::open(file_system)? else { continue };
            rustix::fs::flock(&store, FlockOperation::LockShared).map_err(|error| cannot("locked", error.into()))?;
            if store.is_still_there(file_system)? {
                return Ok(store);
            }
        }
        Err(cannot("held", io::Error::from(Errno::AGAIN)))
    }

    /// Opens the directory if there is one. Does not hold it.
    pub(crate) fn open(file_system: &FileSystem) -> Result<Option<Self>, VssError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match rustix::fs::openat(file_system, NAME, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(cannot("opened", error.into())),
        };
        let found = rustix::fs::fstat(&directory).map_err(|error| cannot("examined", error.into()))?;
        let is_ours = found.st_uid == 0 && found.st_mode & 0o777 == 0o700 && found.st_ino != btrfs::ROOT_INODE;
        if !is_ours {
            return Err(VssError::new(
                VssCode::ProviderVeto,
                format!("{NAME} at the top level of {} is not the directory of the shadow copies", file_system.uuid()),
            )
            .with_hint("It must be a plain directory of root with mode 0700: rename what is there"));
        }
        Ok(Some(Self { directory }))
    }

    fn is_still_there(&self, file_system: &FileSystem) -> Result<bool, VssError> {
        let examined = |error: Errno| cannot("examined", error.into());
        let ours = rustix::fs::fstat(&self.directory).map_err(examined)?;
        match rustix::fs::statat(file_system, NAME, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => Ok((there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(examined(error)),
        }
    }

    /// Removes the directory if it is empty and no set in creation holds it.
    pub(crate) fn remove_if_empty(self, file_system: &FileSystem) -> Result<(), VssError> {
        match rustix::fs::flock(&self, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(()),
            Err(error) => return Err(cannot("locked", error.into())),
        }
        if !self.is_still_there(file_system)? {
            return Ok(());
        }
        match rustix::fs::unlinkat(file_system, NAME, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => Ok(()),
            Err(error) => Err(cannot("removed", error.into())),
        }
    }

    /// Opens the root of one part of a copy; none when it is not there.
    pub(crate) fn open_part(&self, name: &OsStr) -> Result<Option<OwnedFd>, VssError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match mount::open_beneath(self, Path::new(name), flags) {
            Ok(part) => Ok(Some(part)),
            Err(error) if is(&error, Errno::NOENT) => Ok(None),
            Err(error) => Err(failed(format!("{NAME}/{} cannot be opened", name.display()), &error)),
        }
    }

    /// Deletes everything that belongs to the copy; true when there was anything.
    pub(crate) fn delete_all_of(&self, shadow_id: ShadowId) -> Result<bool, VssError> {
        let prefix = format!("{shadow_id}.");
        let mut deleted = false;
        for (name, kind) in self.entries()? {
            if !name.as_bytes().starts_with(prefix.as_bytes()) {
                continue;
            }
            let gone = if kind == FileType::Directory {
                self.delete_subvolume(&name)
            } else {
                rustix::fs::unlinkat(self, &name, AtFlags::empty()).map_err(io::Error::from)
            };
            match gone {
                Ok(()) => deleted = true,
                Err(error) if is(&error, Errno::NOENT) => {}
                // We are root: the kernel says so while it is being sent, and of the default subvolume.
                Err(error) if is(&error, Errno::PERM) => {
                    return Err(VssError::new(
                        VssCode::ProviderVeto,
                        format!("{NAME}/{} cannot be deleted now: {error}", name.display()),
                    )
                    .with_hint("Wait for the end of a running btrfs send, or set another default subvolume"));
                }
                Err(error) => return Err(failed(format!("{NAME}/{} cannot be deleted", name.display()), &error)),
            }
        }
        Ok(deleted)
    }

    /// Deletes one part; what somebody nested in it while it was writable goes with it.
    fn delete_subvolume(&self, name: &OsStr) -> io::Result<()> {
        match btrfs::destroy(self, name) {
            Err(error) if is(&error, Errno::NOTEMPTY) => {}
            result => return result,
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let root = mount::open_beneath(self, Path::new(name), flags)?;
        btrfs::set_read_only(&root, false)?;
        let strangers = btrfs::nested_subvolumes(&root, btrfs::subvolume_id(&root)?, MOST_STRANGERS, |_| true)?;
        for stranger in strangers.iter().rev() {
            let (Some(parent), Some(name)) = (stranger.path.parent(), stranger.path.file_name()) else { continue };
            let parent = mount::open_beneath(&root, parent, flags)?;
            btrfs::destroy(&parent, name)?;
        }
        btrfs::destroy(self, name)
    }

    /// Name and type of everything in the directory.
    fn entries(&self) -> Result<Vec<(OsString, FileType)>, VssError> {
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

/// Removes the image of `.vss` from a copy of the top level subvolume: in it, the copies that were there are empty
/// directories. `root` is the writable root of the copy.
pub(crate) fn hide_in_copy(root: impl AsFd) -> Result<(), VssError> {
    let hide = |error: Errno| failed(format!("{NAME} cannot be hidden in the shadow copy"), &error.into());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match rustix::fs::openat(&root, NAME, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(hide(error)),
    };
    let image = Store { directory };
    for (name, kind) in image.entries()? {
        let flags = if kind == FileType::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        match rustix::fs::unlinkat(&image, &name, flags) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(hide(error)),
        }
    }
    rustix::fs::unlinkat(&root, NAME, AtFlags::REMOVEDIR).map_err(hide)
}

fn cannot(what: &str, error: io::Error) -> VssError {
    failed(format!("{NAME} at the top level of the file system cannot be {what}"), &error)
}
