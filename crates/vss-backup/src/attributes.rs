//! Reading and setting what belongs to an inode beside its contents.

use crate::entry::{Attributes, Kind, Time, Version};
use rustix::fs::{
    AtFlags, Gid, IFlags, Mode, OFlags, Statx, StatxFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, statx,
};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Most bytes of extended attributes of one inode that are kept; Linux allows more on XFS alone.
const XATTRS: usize = 4 << 20;
/// The flags that are kept.
const FLAGS: IFlags =
    IFlags::IMMUTABLE.union(IFlags::APPEND).union(IFlags::NODUMP).union(IFlags::NOATIME).union(IFlags::NOCOW);
/// Those that keep others from changing the inode, us included.
const LOCKS: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);

/// An inode: an open file or directory, or anything else by its directory and name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Inode<'a> {
    Open(BorrowedFd<'a>),
    Named(BorrowedFd<'a>, &'a OsStr),
}

/// What stat says of an inode.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stat {
    pub(crate) kind: Kind,
    pub(crate) size: u64,
    pub(crate) links: u32,
    pub(crate) device: (u32, u32),
    pub(crate) special: (u32, u32),
    pub(crate) mode: u32,
    uid: u32,
    gid: u32,
    pub(crate) modified: Time,
    accessed: Time,
    pub(crate) version: Version,
}

impl Stat {
    /// # Errors
    /// Those of statx(2).
    pub(crate) fn of(inode: Inode<'_>) -> io::Result<Self> {
        let stat = match inode {
            Inode::Open(fd) => statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?,
            Inode::Named(directory, name) => {
                let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
                statx(directory, name, flags, StatxFlags::BASIC_STATS)?
            }
        };
        Ok(Self::from(&stat))
    }

    /// Numbers that no other inode of the machine has.
    pub(crate) fn identity(&self) -> (u32, u32, u64) {
        (self.device.0, self.device.1, self.version.inode)
    }
}

impl From<&Statx> for Stat {
    fn from(stat: &Statx) -> Self {
        let time = |time: rustix::fs::StatxTimestamp| Time(time.tv_sec, time.tv_nsec);
        let kind = match rustix::fs::FileType::from_raw_mode(stat.stx_mode.into()) {
            rustix::fs::FileType::Directory => Kind::Directory,
            rustix::fs::FileType::Symlink => Kind::Symlink,
            rustix::fs::FileType::Fifo => Kind::Fifo,
            rustix::fs::FileType::Socket => Kind::Socket,
            rustix::fs::FileType::CharacterDevice => Kind::CharacterDevice,
            rustix::fs::FileType::BlockDevice => Kind::BlockDevice,
            _ => Kind::File,
        };
        Self {
            kind,
            size: stat.stx_size,
            links: stat.stx_nlink,
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            special: (stat.stx_rdev_major, stat.stx_rdev_minor),
            mode: u32::from(stat.stx_mode) & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            modified: time(stat.stx_mtime),
            accessed: time(stat.stx_atime),
            version: Version { inode: stat.stx_ino, changed: time(stat.stx_ctime) },
        }
    }
}

/// Reads the attributes.
///
/// # Errors
/// Those of listxattr(2) and getxattr(2); `E2BIG` for more than 4 MiB of extended attributes.
pub(crate) fn read(inode: Inode<'_>, stat: &Stat) -> io::Result<Attributes> {
    let flags = match inode {
        // A file system without flags has none.
        Inode::Open(fd) => rustix::fs::ioctl_getflags(fd).map_or(0, |flags| (flags & FLAGS).bits()),
        Inode::Named(..) => 0,
    };
    Ok(Attributes {
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        modified: stat.modified,
        accessed: stat.accessed,
        xattrs: xattrs(inode)?,
        flags,
    })
}

/// A path that leads to the inode itself, whatever was put in its place meanwhile.
fn by_descriptor(directory: BorrowedFd<'_>, name: &OsStr) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name)
}

fn xattrs(inode: Inode<'_>) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
    let mut xattrs = BTreeMap::new();
    let mut all = 0;
    for name in xattr_names(inode)? {
        let value = grown(|buffer| match inode {
            Inode::Open(fd) => rustix::fs::fgetxattr(fd, name.as_os_str(), buffer),
            Inode::Named(directory, file) => {
                rustix::fs::lgetxattr(by_descriptor(directory, file), name.as_os_str(), buffer)
            }
        });
        match value {
            Ok(value) => {
                all += name.len() + value.len();
                if all > XATTRS {
                    return Err(Errno::TOOBIG.into());
                }
                xattrs.insert(name, value);
            }
            // Gone, or listed by a file system that does not give it.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(xattrs)
}

fn xattr_names(inode: Inode<'_>) -> io::Result<Vec<OsString>> {
    let list = grown(|buffer| match inode {
        Inode::Open(fd) => rustix::fs::flistxattr(fd, buffer),
        Inode::Named(directory, name) => rustix::fs::llistxattr(by_descriptor(directory, name), buffer),
    });
    let list = match list {
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        list => list?,
    };
    let names = list.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| OsString::from_vec(name.to_vec())).collect())
}

/// Calls again with a larger buffer until it is large enough; the kernel gives at most 64 KiB.
fn grown(mut call: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut size = 256;
    loop {
        let mut buffer = vec![0; size];
        match call(&mut buffer) {
            Err(Errno::RANGE) if size < 64 << 10 => size *= 16,
            done => {
                buffer.truncate(done?);
                return Ok(buffer);
            }
        }
    }
}

/// What a file system did not take; the backup goes on, and its manifest has it nevertheless.
#[derive(Debug, Default)]
pub(crate) struct Losses(BTreeSet<String>);

impl Losses {
    /// More kinds of losses than that are not told one by one.
    const MOST: usize = 16;

    fn note(&mut self, what: String) {
        if self.0.len() < Self::MOST {
            self.0.insert(what);
        }
    }

    /// Each kind once.
    pub(crate) fn into_lines(self) -> Vec<String> {
        self.0.into_iter().collect()
    }
}

/// True for the errors by which a file system, or the kernel, says that it has no such attribute.
fn is_refusal(error: Errno) -> bool {
    matches!(error, Errno::OPNOTSUPP | Errno::PERM | Errno::INVAL | Errno::NOTTY | Errno::ACCESS)
}

/// Sets the attributes of a new inode of this kind, in an order in which none undoes another: a change of owner takes
/// capabilities and set-user-ID away, an ACL changes the mode. The flags that lock it are not set ([`lock`]).
///
/// # Errors
/// Those of the system calls but refusals, which are noted.
pub(crate) fn apply(inode: Inode<'_>, kind: Kind, attributes: &Attributes, losses: &mut Losses) -> io::Result<()> {
    let noted = |losses: &mut Losses, what: &dyn Fn() -> String, result: Result<(), Errno>| match result {
        Err(error) if is_refusal(error) => {
            losses.note(what());
            Ok(())
        }
        result => result,
    };
    let (uid, gid) = (Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)));
    let owned = match inode {
        Inode::Open(fd) => rustix::fs::fchown(fd, uid, gid),
        Inode::Named(directory, name) => chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW),
    };
    noted(losses, &|| "owners".to_owned(), owned)?;
    let present = xattr_names(inode)?;
    for name in present.iter().filter(|name| !attributes.xattrs.contains_key(*name)) {
        // Inherited from the directory: default ACLs. A label of SELinux cannot be taken away.
        let _ = match inode {
            Inode::Open(fd) => rustix::fs::fremovexattr(fd, name.as_os_str()),
            Inode::Named(directory, file) => rustix::fs::lremovexattr(by_descriptor(directory, file), name.as_os_str()),
        };
    }
    for (name, value) in &attributes.xattrs {
        let set = match inode {
            Inode::Open(fd) => rustix::fs::fsetxattr(fd, name.as_os_str(), value, XattrFlags::empty()),
            Inode::Named(directory, file) => {
                rustix::fs::lsetxattr(by_descriptor(directory, file), name.as_os_str(), value, XattrFlags::empty())
            }
        };
        // A small file system says ENOSPC for a value that no block of it can hold.
        let set =
            set.map_err(|error| if matches!(error, Errno::NOSPC | Errno::TOOBIG) { Errno::OPNOTSUPP } else { error });
        noted(losses, &|| format!("extended attributes {}", name.to_string_lossy()), set)?;
    }
    let mode = Mode::from_raw_mode(attributes.mode);
    let moded = match inode {
        _ if kind == Kind::Symlink => Ok(()),
        Inode::Open(fd) => rustix::fs::fchmod(fd, mode),
        Inode::Named(directory, name) => {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let itself = rustix::fs::openat(directory, name, flags, Mode::empty())?;
            rustix::fs::chmod(format!("/proc/self/fd/{}", itself.as_raw_fd()), mode)
        }
    };
    noted(losses, &|| "modes".to_owned(), moded)?;
    if let Inode::Open(fd) = inode {
        let wanted = IFlags::from_bits_retain(attributes.flags).difference(LOCKS | IFlags::NOCOW);
        noted(losses, &|| "the flags of chattr".to_owned(), add_flags(fd, wanted))?;
    }
    set_times(inode, attributes)
}

/// Sets the times.
///
/// # Errors
/// Those of utimensat(2).
pub(crate) fn set_times(inode: Inode<'_>, attributes: &Attributes) -> io::Result<()> {
    let spec = |time: Time| Timespec { tv_sec: time.0, tv_nsec: time.1.into() };
    let times = Timestamps { last_access: spec(attributes.accessed), last_modification: spec(attributes.modified) };
    match inode {
        Inode::Open(fd) => rustix::fs::futimens(fd, &times)?,
        Inode::Named(directory, name) => rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)?,
    }
    Ok(())
}

/// Turns copy on write off for a new, empty file, where it was off.
pub(crate) fn prepare(file: impl AsFd, attributes: &Attributes) {
    if attributes.flags & IFlags::NOCOW.bits() != 0 {
        // It changes nothing of the contents; most file systems have no such flag.
        let _ = add_flags(file.as_fd(), IFlags::NOCOW);
    }
}

/// True when the attributes have flags that keep the inode from being changed.
pub(crate) fn is_locked(attributes: &Attributes) -> bool {
    attributes.flags & LOCKS.bits() != 0
}

/// Sets those flags, last of all.
///
/// # Errors
/// Those of `FS_IOC_SETFLAGS` but refusals, which are noted.
pub(crate) fn lock(file: impl AsFd, attributes: &Attributes, losses: &mut Losses) -> io::Result<()> {
    match add_flags(file.as_fd(), IFlags::from_bits_retain(attributes.flags) & LOCKS) {
        Err(error) if is_refusal(error) => losses.note("the flags of chattr".to_owned()),
        done => done?,
    }
    Ok(())
}

fn add_flags(fd: BorrowedFd<'_>, flags: IFlags) -> Result<(), Errno> {
    if flags.is_empty() {
        return Ok(());
    }
    rustix::fs::ioctl_setflags(fd, rustix::fs::ioctl_getflags(fd)? | flags)
}

/// True when the path is a name of this directory alone.
pub(crate) fn is_name(name: &OsStr) -> bool {
    !name.is_empty() && !name.as_bytes().contains(&b'/') && !matches!(name.as_bytes(), b"." | b"..")
}
