//! btrfs by ioctl: subvolumes, snapshots, the uuid, and detached mounts (btrfs-ioctl(2)). Root only.
//!
//! Subvolumes are found by id in the tree of roots (BTRFS_IOC_TREE_SEARCH) and by inode number (BTRFS_IOC_INO_LOOKUP), so
//! any descriptor of the file system will do, and nothing that is mounted over a path can hide one.

use std::{
    ffi::{OsStr, OsString},
    io, mem,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use linux_raw_sys::{btrfs as abi, ioctl as numbers};
use rustix::{
    io::Errno,
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags},
};

use crate::fs_uuid::FsUuid;

/// The subvolume that every file system begins with; every other lies in it, directly or not.
pub const TOP_LEVEL: u64 = abi::BTRFS_FS_TREE_OBJECTID as u64;

/// The inode number of the root of every subvolume.
pub const ROOT_INODE: u64 = abi::BTRFS_FIRST_FREE_OBJECTID as u64;

/// The inode number of the empty directory that stands for a nested subvolume in a snapshot of its parent
/// (`BTRFS_EMPTY_SUBVOL_DIR_OBJECTID`, include/uapi/linux/btrfs_tree.h).
pub const EMPTY_SUBVOLUME_INODE: u64 = 2;

/// Subvolumes within subvolumes that are followed upwards; the kernel has no limit, a path has (PATH_MAX / 2).
const DEEPEST: usize = 2048;

/// A subvolume below another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nested {
    /// Its id.
    pub id: u64,
    /// Its place, relative to the subvolume that was asked about.
    pub path: PathBuf,
}

/// The uuid of the file system that `file` lies on.
///
/// # Errors
/// `ENOTTY` when it is not btrfs.
pub fn uuid(file: impl AsFd) -> io::Result<FsUuid> {
    // SAFETY: btrfs_ioctl_fs_info_args is integers and arrays of integers, for which all-zero is a value.
    let mut info: abi::btrfs_ioctl_fs_info_args = unsafe { mem::zeroed() };
    // SAFETY: BTRFS_IOC_FS_INFO reads and writes one btrfs_ioctl_fs_info_args.
    unsafe { call(file, numbers::BTRFS_IOC_FS_INFO, &mut info) }?;
    Ok(FsUuid(info.fsid))
}

/// The id of the subvolume that `file` lies in.
///
/// # Errors
/// `ENOTTY` when it is not on btrfs.
pub fn subvolume_id(file: impl AsFd) -> io::Result<u64> {
    Ok(lookup(file, 0, ROOT_INODE)?.0)
}

/// Where subvolume `id` lies, relative to the top level subvolume; empty for the top level itself.
///
/// # Errors
/// `ENOENT` when there is no such subvolume.
pub fn subvolume_path(file: impl AsFd, id: u64) -> io::Result<PathBuf> {
    let file = file.as_fd();
    let mut path = PathBuf::new();
    let mut at = id;
    for _ in 0..DEEPEST {
        if at == TOP_LEVEL {
            return Ok(path);
        }
        let mut place = None;
        search_roots(file, at, abi::BTRFS_ROOT_BACKREF_KEY, |parent, reference| {
            place = Some((parent, reference.directory, reference.name.to_owned()));
            false
        })?;
        let (parent, directory, name) = place.ok_or(Errno::NOENT)?;
        let here = lookup(file, parent, directory)?.1.join(name);
        path = if path.as_os_str().is_empty() { here } else { here.join(path) };
        at = parent;
    }
    Err(Errno::LOOP.into())
}

/// The subvolumes below subvolume `id` that are `wanted` by their path, also those below them; outer before inner. At most
/// `limit` and one more, which tells that there are too many. One that vanishes meanwhile is left out.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN, `ENOTTY` when `file` is not on btrfs.
pub fn nested_subvolumes(
    file: impl AsFd,
    id: u64,
    limit: usize,
    wanted: impl Fn(&Path) -> bool,
) -> io::Result<Vec<Nested>> {
    let file = file.as_fd();
    let mut found: Vec<Nested> = Vec::new();
    let mut next = 0;
    let mut parent = Nested { id, path: PathBuf::new() };
    loop {
        // Many subvolumes of one parent tend to lie in one directory of it.
        let mut last: Option<(u64, PathBuf)> = None;
        let mut failure = None;
        search_roots(file, parent.id, abi::BTRFS_ROOT_REF_KEY, |child, reference| {
            let directory = match last.take().filter(|(inode, _)| *inode == reference.directory) {
                Some((_, path)) => Ok(path),
                None => lookup(file, parent.id, reference.directory).map(|(_, path)| parent.path.join(path)),
            };
            match directory {
                Ok(directory) => {
                    let path = directory.join(reference.name);
                    last = Some((reference.directory, directory));
                    if wanted(&path) {
                        found.push(Nested { id: child, path });
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => failure = Some(error),
            }
            failure.is_none() && found.len() <= limit
        })?;
        if let Some(error) = failure {
            return Err(error);
        }
        if found.len() > limit {
            return Ok(found);
        }
        let Some(entry) = found.get(next) else { return Ok(found) };
        parent = entry.clone();
        next += 1;
    }
}

/// Makes a writable snapshot `name` in the directory `destination` of the subvolume whose root is open as `source`. When it
/// returns, the snapshot is on disk (the transaction is committed). Allocates nothing.
///
/// # Errors
/// `ENOENT` when the subvolume or the directory was deleted meanwhile, `ETXTBSY` while a swap file in it is in use,
/// `EEXIST`, `ENOSPC`, `EROFS`, `EXDEV` for two file systems. Blocks while the file system is frozen.
pub fn snapshot(source: impl AsFd, destination: impl AsFd, name: &OsStr) -> io::Result<()> {
    let mut arguments = named(name)?;
    arguments.fd = i64::from(source.as_fd().as_raw_fd());
    // SAFETY: BTRFS_IOC_SNAP_CREATE_V2 reads one btrfs_ioctl_vol_args_v2; without BTRFS_SUBVOL_QGROUP_INHERIT in its flags
    // it follows no pointer in it.
    unsafe { call(destination, numbers::BTRFS_IOC_SNAP_CREATE_V2, &mut arguments) }
}

/// Deletes the subvolume `name` in `directory`. When it returns the subvolume is out of every list; its blocks are freed
/// later. Lasting only after the next transaction: see [`commit_transaction`].
///
/// # Errors
/// `ENOENT`, `ENOTDIR` or `EINVAL` when it is no subvolume, `ENOTEMPTY` while another subvolume lies in it, `EPERM` when it
/// is the default subvolume or is being sent.
pub fn destroy(directory: impl AsFd, name: &OsStr) -> io::Result<()> {
    let mut arguments = named(name)?;
    // SAFETY: BTRFS_IOC_SNAP_DESTROY_V2 reads one btrfs_ioctl_vol_args_v2; with flags 0 it takes the name.
    unsafe { call(directory, numbers::BTRFS_IOC_SNAP_DESTROY_V2, &mut arguments) }
}

/// Makes the subvolume whose root is open as `subvolume` read-only, or writable again.
///
/// # Errors
/// `EROFS` on a read-only mount, `EINVAL` when it is not the root of a subvolume.
pub fn set_read_only(subvolume: impl AsFd, read_only: bool) -> io::Result<()> {
    let mut flags = if read_only { u64::from(abi::BTRFS_SUBVOL_RDONLY) } else { 0 };
    // SAFETY: BTRFS_IOC_SUBVOL_SETFLAGS reads one u64.
    unsafe { call(subvolume, numbers::BTRFS_IOC_SUBVOL_SETFLAGS, &mut flags) }
}

/// True when the subvolume whose root is open as `subvolume` is read-only.
///
/// # Errors
/// `EINVAL` when it is not the root of a subvolume.
pub fn is_read_only(subvolume: impl AsFd) -> io::Result<bool> {
    let mut flags = 0_u64;
    // SAFETY: BTRFS_IOC_SUBVOL_GETFLAGS writes one u64.
    unsafe { call(subvolume, numbers::BTRFS_IOC_SUBVOL_GETFLAGS, &mut flags) }?;
    Ok(flags & u64::from(abi::BTRFS_SUBVOL_RDONLY) != 0)
}

/// Commits the running transaction and waits for it: every change of subvolumes so far is on disk.
///
/// # Errors
/// `EIO`, `EROFS` after an abort of the file system.
pub fn commit_transaction(file: impl AsFd) -> io::Result<()> {
    let file = file.as_fd();
    let mut transaction = 0_u64;
    // SAFETY: BTRFS_IOC_START_SYNC writes one u64.
    unsafe { call(file, numbers::BTRFS_IOC_START_SYNC, &mut transaction) }?;
    // SAFETY: BTRFS_IOC_WAIT_SYNC reads one u64.
    unsafe { call(file, numbers::BTRFS_IOC_WAIT_SYNC, &mut transaction) }
}

/// How a detached mount is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// As usual. Makes a file system writable that is mounted read-only everywhere.
    ReadWrite,
    /// Nobody writes through it. On a file system that is mounted nowhere else, the log that a crash left is replayed.
    ReadOnly,
}

/// Mounts subvolume `subvolume` of the file system on `devices` without attaching it anywhere: nosuid, nodev, gone when the
/// descriptor, which is an O_PATH one, is closed. Works while the file system is mounted elsewhere too; one device is then enough.
///
/// # Errors
/// `ENOENT` when there is no such subvolume, `EINVAL` when it is not btrfs, `ENODEV`, `EBUSY`, `EPERM`.
pub fn mount_detached(devices: &[PathBuf], subvolume: u64, access: Access) -> io::Result<OwnedFd> {
    let (first, others) = devices.split_first().ok_or(Errno::NODEV)?;
    let context = rustix::mount::fsopen(c"btrfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, c"source", first)?;
    for device in others {
        rustix::mount::fsconfig_set_string(&context, c"device", device)?;
    }
    rustix::mount::fsconfig_set_string(&context, c"subvolid", subvolume.to_string())?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    if access == Access::ReadOnly {
        rustix::mount::fsconfig_set_flag(&context, c"ro")?;
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    rustix::mount::fsconfig_create(&context)?;
    Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// One reference between a subvolume and its parent (`struct btrfs_root_ref`).
struct RootReference<'a> {
    /// Inode number of the directory, in the parent, that the subvolume lies in.
    directory: u64,
    /// Its name there.
    name: &'a OsStr,
}

/// Calls `visit` with the other end of each reference of kind `kind` at subvolume `id`, until it returns false.
fn search_roots(
    file: impl AsFd,
    id: u64,
    kind: u32,
    mut visit: impl FnMut(u64, RootReference<'_>) -> bool,
) -> io::Result<()> {
    const HEADER: usize = size_of::<abi::btrfs_ioctl_search_header>();
    // SAFETY: btrfs_ioctl_search_args is integers and arrays of integers, for which all-zero is a value.
    let mut arguments: abi::btrfs_ioctl_search_args = unsafe { mem::zeroed() };
    arguments.key.tree_id = u64::from(abi::BTRFS_ROOT_TREE_OBJECTID);
    (arguments.key.min_objectid, arguments.key.max_objectid) = (id, id);
    (arguments.key.min_type, arguments.key.max_type) = (kind, kind);
    arguments.key.max_offset = u64::MAX;
    arguments.key.max_transid = u64::MAX;
    loop {
        arguments.key.nr_items = u32::MAX;
        // SAFETY: BTRFS_IOC_TREE_SEARCH reads and writes one btrfs_ioctl_search_args.
        unsafe { call(&file, numbers::BTRFS_IOC_TREE_SEARCH, &mut arguments) }?;
        if arguments.key.nr_items == 0 {
            return Ok(());
        }
        let bytes = arguments.buf.map(|byte| byte as u8);
        let mut rest = bytes.as_slice();
        let mut last = 0;
        for _ in 0..arguments.key.nr_items {
            let header = rest.get(..HEADER).ok_or(Errno::IO)?;
            // transid, objectid, offset: u64 each; type, len: u32 each, in the machine's byte order.
            let other = u64::from_ne_bytes(field(header, 16)?);
            let length = u32::from_ne_bytes(field(header, 28)?) as usize;
            let item = rest.get(HEADER..HEADER + length).ok_or(Errno::IO)?;
            rest = &rest[HEADER + length..];
            // On disk: directory, sequence: le64; length of the name: le16; the name.
            let name_length = usize::from(u16::from_le_bytes(field(item, 16)?));
            let name = item.get(18..18 + name_length).ok_or(Errno::IO)?;
            let directory = u64::from_le_bytes(field(item, 0)?);
            if !visit(other, RootReference { directory, name: OsStr::from_bytes(name) }) {
                return Ok(());
            }
            last = other;
        }
        let Some(after) = last.checked_add(1) else { return Ok(()) };
        arguments.key.min_offset = after;
    }
}

fn field<const LENGTH: usize>(bytes: &[u8], at: usize) -> io::Result<[u8; LENGTH]> {
    let found = bytes.get(at..at + LENGTH).and_then(|found| found.try_into().ok());
    found.ok_or_else(|| Errno::IO.into())
}

/// The subvolume (`tree`, or for 0 the one of `file`) and the path of directory `inode` in it, relative to its root.
fn lookup(file: impl AsFd, tree: u64, inode: u64) -> io::Result<(u64, PathBuf)> {
    // SAFETY: btrfs_ioctl_ino_lookup_args is integers and arrays of integers, for which all-zero is a value.
    let mut arguments: abi::btrfs_ioctl_ino_lookup_args = unsafe { mem::zeroed() };
    (arguments.treeid, arguments.objectid) = (tree, inode);
    // SAFETY: BTRFS_IOC_INO_LOOKUP reads and writes one btrfs_ioctl_ino_lookup_args.
    unsafe { call(file, numbers::BTRFS_IOC_INO_LOOKUP, &mut arguments) }?;
    let mut path: Vec<u8> = arguments.name.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0).collect();
    // The kernel ends a directory's path with a slash.
    while path.last() == Some(&b'/') {
        path.pop();
    }
    Ok((arguments.treeid, PathBuf::from(OsString::from_vec(path))))
}

/// Arguments that carry a file name without a directory part.
fn named(name: &OsStr) -> io::Result<abi::btrfs_ioctl_vol_args_v2> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() > abi::BTRFS_VOL_NAME_MAX as usize || Path::new(name).file_name() != Some(name) {
        return Err(Errno::INVAL.into());
    }
    // SAFETY: btrfs_ioctl_vol_args_v2 is integers, unions of integers and one pointer, for which all-zero is a value.
    let mut arguments: abi::btrfs_ioctl_vol_args_v2 = unsafe { mem::zeroed() };
    // SAFETY: every bit pattern is a value of each member of this union, and it was just zeroed.
    let to = unsafe { &mut arguments.__bindgen_anon_2.name };
    for (to, from) in to.iter_mut().zip(bytes) {
        *to = *from as std::ffi::c_char;
    }
    Ok(arguments)
}

/// ioctl(2) with a pointer to `argument`.
///
/// # Safety
/// The kernel must read and write at most one `T` for `number`, any bytes that it writes must be a `T`, and it must not
/// follow a pointer in it.
unsafe fn call<T>(file: impl AsFd, number: u32, argument: &mut T) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed for the call; the rest is promised by the caller.
    let result = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), number as libc::Ioctl, std::ptr::from_mut(argument)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_system_is_no_btrfs() {
        let file = std::fs::File::open("/proc").unwrap();
        assert!(uuid(&file).is_err() && subvolume_id(&file).is_err());
    }

    #[test]
    fn only_plain_names_are_names() {
        for name in ["", "a/b", "..", ".", &"x".repeat(256)] {
            assert!(named(OsStr::new(name)).is_err(), "{name:?} was taken");
        }
        assert!(named(OsStr::new("a b")).is_ok());
    }
}
