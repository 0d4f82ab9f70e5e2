//! What making a backup and restoring one do alike to the tree that they write.

use crate::entry::{Entry, Kind};
use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// Lets this process open as many files as it may. Each directory on the way to a file holds one descriptor open on either
/// side, and each backup of a chain a few: what is usually allowed at first (1024) is for a path of 500 names, or 300 backups.
pub(crate) fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Where it fails, a path that is too deep and a chain that is too long are told.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

/// Makes a symbolic link, a pipe, a socket or a device, for its owner alone at first.
pub(crate) fn make_special(directory: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> io::Result<()> {
    let kind = match entry.kind {
        Kind::Symlink => {
            let target = entry.target.as_deref().unwrap_or(Path::new(""));
            return Ok(rustix::fs::symlinkat(target, directory, name)?);
        }
        Kind::Fifo => FileType::Fifo,
        Kind::Socket => FileType::Socket,
        Kind::CharacterDevice => FileType::CharacterDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::File | Kind::Directory => return Err(Errno::INVAL.into()),
    };
    let (major, minor) = entry.device.unwrap_or_default();
    let mode = Mode::RUSR | Mode::WUSR;
    Ok(rustix::fs::mknodat(directory, name, kind, mode, rustix::fs::makedev(major, minor))?)
}

/// Removes what is at this name, a directory with all that is in it; nothing may be there.
pub(crate) fn remove(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => {
            std::fs::remove_dir_all(PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name))
        }
        Err(error) => Err(error.into()),
    }
}
