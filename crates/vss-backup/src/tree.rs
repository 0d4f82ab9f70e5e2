//! A tree that is read and never left: no symbolic link is followed, and no mount is entered that was not there before.

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx};
use std::collections::BTreeSet;
use std::ffi::{CStr, OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};
use vss_linux::mountinfo;

const INSIDE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// A pipe without a writer is opened at once; its type is looked at afterwards.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
/// So many bytes of names are read from a directory at once.
const LISTING: usize = 32 << 10;

/// A directory and what is below it.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    /// The mounts that belong to it: a copy shows nested copies as mounts of their own.
    mounts: BTreeSet<u64>,
}

impl Tree {
    /// The tree at this directory, with the mounts that are below it now.
    ///
    /// # Errors
    /// Those of open(2); the mount table cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let root = rustix::fs::open(path, DIRECTORY.difference(OFlags::NOFOLLOW), Mode::empty())?;
        let place = path.canonicalize()?;
        let all = mountinfo::mounts()?;
        let below = all.iter().filter(|mount| mount.mount_point.starts_with(&place) && mount.mount_point != place);
        Ok(Self { root, mounts: below.map(|mount| mount.mount_id).collect() })
    }

    /// The directory `inner` of it, relative to its root.
    ///
    /// # Errors
    /// Those of openat2(2): `ELOOP` where a symbolic link is on the way, `ENOTDIR`, `ENOENT`.
    pub(crate) fn directory(&self, inner: &Path) -> io::Result<OwnedFd> {
        let mut at = self.root.as_fd().try_clone_to_owned()?;
        for part in inner.components() {
            match part {
                Component::Normal(name) => at = self.child(at.as_fd(), name)?,
                Component::CurDir | Component::RootDir => {}
                Component::ParentDir | Component::Prefix(_) => return Err(rustix::io::Errno::XDEV.into()),
            }
        }
        Ok(at)
    }

    /// A directory of a directory of this tree.
    ///
    /// # Errors
    /// As [`Self::directory`]; `EXDEV` for a mount that does not belong to it.
    pub(crate) fn child(&self, parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
        self.open_at(parent, name, DIRECTORY)
    }

    /// A file of a directory of this tree, to be read.
    ///
    /// # Errors
    /// As [`Self::child`].
    pub(crate) fn file(&self, parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
        match self.open_at(parent, name, FILE | OFlags::NOATIME) {
            // Not the owner.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error()) => {
                self.open_at(parent, name, FILE)
            }
            opened => opened,
        }
    }

    fn open_at(&self, parent: BorrowedFd<'_>, name: &OsStr, flags: OFlags) -> io::Result<OwnedFd> {
        match openat2(parent, name, flags, Mode::empty(), INSIDE | ResolveFlags::NO_XDEV) {
            Err(rustix::io::Errno::XDEV) => {
                let opened = openat2(parent, name, flags, Mode::empty(), INSIDE)?;
                let stat = statx(&opened, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
                if self.mounts.contains(&stat.stx_mnt_id) { Ok(opened) } else { Err(rustix::io::Errno::XDEV.into()) }
            }
            opened => Ok(opened?),
        }
    }
}

/// The names in a directory, sorted by their bytes.
///
/// # Errors
/// Those of getdents(2).
pub(crate) fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    rustix::fs::seek(directory, rustix::fs::SeekFrom::Start(0))?;
    let mut buffer = vec![MaybeUninit::uninit(); LISTING];
    let mut listing = rustix::fs::RawDir::new(directory, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = listing.next() {
        let entry = entry?;
        if !is_dots(entry.file_name()) {
            names.push(OsStr::from_bytes(entry.file_name().to_bytes()).to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn symbolic_links_and_parents_lead_nowhere() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("tree/a/b")).unwrap();
        fs::create_dir(place.path().join("outside")).unwrap();
        std::os::unix::fs::symlink("../outside", place.path().join("tree/link")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", place.path().join("tree/file")).unwrap();
        let tree = Tree::open(&place.path().join("tree")).unwrap();
        assert!(tree.directory(Path::new("a/b")).is_ok());
        assert!(tree.directory(Path::new("")).is_ok());
        for outside in ["link", "..", "a/../..", "a/../../outside"] {
            assert!(tree.directory(Path::new(outside)).is_err(), "{outside}");
        }
        let root = tree.directory(Path::new("")).unwrap();
        assert!(tree.file(root.as_fd(), OsStr::new("file")).is_err());
        assert_eq!(names(root.as_fd()).unwrap(), ["a", "file", "link"]);
    }

    #[test]
    fn a_mount_that_came_later_is_not_entered() {
        let tree = Tree { root: rustix::fs::open("/", DIRECTORY, Mode::empty()).unwrap(), mounts: BTreeSet::new() };
        assert_eq!(tree.directory(Path::new("proc")).unwrap_err().raw_os_error(), Some(18));
        assert!(Tree::open(Path::new("/")).unwrap().directory(Path::new("proc")).is_ok());
    }
}
