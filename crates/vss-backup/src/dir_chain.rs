//! The directories on the way to a path, held open: paths come in order, so most of the way is open already, and no path is
//! too long.

use rustix::fs::{Mode, OFlags};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory and the open directories down to the one that was last asked for.
#[derive(Debug)]
pub(crate) struct DirChain {
    root: OwnedFd,
    open: Vec<(OsString, OwnedFd)>,
    /// True: what is missing is made, for root alone until its attributes are set.
    make: bool,
}

impl DirChain {
    pub(crate) fn new(root: OwnedFd, make: bool) -> Self {
        Self { root, open: Vec::new(), make }
    }

    /// The directory at `path`, which is absolute here: from the root of the chain.
    ///
    /// # Errors
    /// Those of openat(2) and mkdirat(2); `ELOOP` or `ENOTDIR` for a symbolic link on the way.
    pub(crate) fn directory(&mut self, path: &Path) -> io::Result<BorrowedFd<'_>> {
        let mut depth = 0;
        for part in path.components() {
            let name = match part {
                Component::Normal(name) => name,
                Component::RootDir | Component::CurDir => continue,
                Component::ParentDir | Component::Prefix(_) => return Err(rustix::io::Errno::INVAL.into()),
            };
            if self.open.get(depth).is_none_or(|(open, _)| open != name) {
                self.open.truncate(depth);
                let next = self.step(name)?;
                self.open.push((name.to_owned(), next));
            }
            depth += 1;
        }
        self.open.truncate(depth);
        Ok(self.last())
    }

    /// Closes the directories below the root.
    pub(crate) fn close(&mut self) {
        self.open.clear();
    }

    #[cfg(test)]
    pub(crate) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    fn last(&self) -> BorrowedFd<'_> {
        self.open.last().map_or(self.root.as_fd(), |(_, last)| last.as_fd())
    }

    fn step(&self, name: &OsStr) -> io::Result<OwnedFd> {
        let parent = self.last();
        match rustix::fs::openat(parent, name, FLAGS, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) if self.make => {
                rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
                Ok(rustix::fs::openat(parent, name, FLAGS, Mode::empty())?)
            }
            opened => Ok(opened?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_beyond_the_longest_path_is_made_and_found() {
        let place = tempfile::tempdir().unwrap();
        let root = || rustix::fs::open(place.path(), FLAGS, Mode::empty()).unwrap();
        let deep: std::path::PathBuf = std::iter::repeat_n("d".repeat(250), 20).collect();
        DirChain::new(root(), true).directory(&deep).unwrap();
        let mut found = DirChain::new(root(), false);
        let inode = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).unwrap().st_ino;
        let deepest = inode(found.directory(&deep).unwrap());
        assert_ne!(inode(found.directory(deep.parent().unwrap()).unwrap()), deepest);
        assert_eq!(inode(found.directory(&deep).unwrap()), deepest);
        assert_eq!(found.directory(Path::new("/no")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_symbolic_link_on_the_way_is_no_way() {
        let place = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", place.path().join("link")).unwrap();
        let root = rustix::fs::open(place.path(), FLAGS, Mode::empty()).unwrap();
        assert!(DirChain::new(root, true).directory(Path::new("/link/etc")).is_err());
    }
}
