//! Mounts by file descriptor: clone, change, attach, detach, and opening paths that cannot lead outside (open_tree(2),
//! mount_setattr(2), move_mount(2), umount2(2), openat2(2)). Linux 5.12 or newer.

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use linux_raw_sys::general as abi;
use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    mount::{FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags},
};

/// Where mount events of a mount go (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// To every peer and back.
    Shared,
    /// From the master only.
    Slave,
    /// Nowhere.
    Private,
}

impl Propagation {
    const fn flag(self) -> libc::c_ulong {
        match self {
            Self::Shared => libc::MS_SHARED,
            Self::Slave => libc::MS_SLAVE,
            Self::Private => libc::MS_PRIVATE,
        }
    }
}

/// What is to change on a mount; the default changes nothing. `None` leaves a property as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// Writes through this mount are refused with EROFS.
    pub read_only: Option<bool>,
    /// Set-user-id bits have no effect.
    pub no_suid: Option<bool>,
    /// Device files cannot be opened.
    pub no_dev: Option<bool>,
    /// Propagation from now on.
    pub propagation: Option<Propagation>,
}

impl Change {
    /// What every mount of a shadow copy is: read-only, nosuid, nodev.
    pub const SHADOW: Self = Self { read_only: Some(true), no_suid: Some(true), no_dev: Some(true), propagation: None };
}

/// A detached copy of the mount that shows `path`, with `path` as its root; with `recursive` also of what is mounted below.
///
/// # Errors
/// As open_tree(2): ENOENT, EPERM without CAP_SYS_ADMIN, EINVAL for a path that lies on a detached mount before Linux 6.15.
pub fn clone_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(rustix::fs::CWD, path, flags)?)
}

/// As [`clone_tree`], of the directory or file that is open as `place`.
///
/// # Errors
/// As open_tree(2).
pub fn clone_tree_at(place: impl AsFd, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(place, c"", flags)?)
}

/// Mounts the file system of type `kind` on the block device `device` without attaching it anywhere: nosuid, nodev, gone when
/// the descriptor, which is an O_PATH one, is closed. `options` are flags of the file system, such as `nouuid`. Where it is
/// mounted already, `read_only` must be as it is there (EBUSY), and the options stay what they are.
///
/// # Errors
/// As mount(2): EINVAL when it is no such file system, EBUSY, ENODEV, EPERM, EUCLEAN when it is damaged.
pub fn mount_device(kind: &str, device: &Path, read_only: bool, options: &[&str]) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, c"source", device)?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    if read_only {
        rustix::mount::fsconfig_set_flag(&context, c"ro")?;
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    for option in options {
        rustix::mount::fsconfig_set_flag(&context, *option)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Makes the whole file system of `mount` read-only, wherever it is mounted, and writes down that it is clean.
///
/// # Errors
/// EBUSY while a file is open for writing.
pub fn make_file_system_read_only(mount: impl AsFd) -> io::Result<()> {
    let context = rustix::mount::fspick(mount, c"", FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC)?;
    rustix::mount::fsconfig_set_flag(&context, c"ro")?;
    Ok(rustix::mount::fsconfig_reconfigure(&context)?)
}

/// Mounts the detached `mount` over what is open as `place` (O_PATH is enough).
///
/// # Errors
/// As move_mount(2): EINVAL when `mount` is attached already, ENOTDIR when one is a directory and the other is not.
pub fn attach(mount: impl AsFd, place: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, c"", place, c"", flags)?)
}

/// Mounts the detached `mount` at `path`, without following a symbolic link at its end.
///
/// # Errors
/// As move_mount(2).
pub fn attach_at(mount: impl AsFd, path: &Path) -> io::Result<()> {
    Ok(rustix::mount::move_mount(mount, c"", rustix::fs::CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Changes the mount whose root is open as `mount`; with `recursive` also every mount below, all or none.
///
/// # Errors
/// As mount_setattr(2): EINVAL when `mount` is not the root of a mount, EBUSY for read-only while a file is open for
/// writing, EPERM.
pub fn change(mount: impl AsFd, change: Change, recursive: bool) -> io::Result<()> {
    let mut attributes = abi::mount_attr { attr_set: 0, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let wanted = [
        (change.read_only, abi::MOUNT_ATTR_RDONLY),
        (change.no_suid, abi::MOUNT_ATTR_NOSUID),
        (change.no_dev, abi::MOUNT_ATTR_NODEV),
    ];
    for (value, bit) in wanted {
        match value {
            Some(true) => attributes.attr_set |= u64::from(bit),
            Some(false) => attributes.attr_clr |= u64::from(bit),
            None => {}
        }
    }
    attributes.propagation = change.propagation.map_or(0, Propagation::flag);
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the descriptor is borrowed for the call; the path is an empty C string; the kernel reads
    // `size_of::<mount_attr>()` bytes of `attributes`, which lives through the call, and writes nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<abi::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Unmounts what is mounted last at `path`; a symbolic link at its end is not followed.
///
/// # Errors
/// As umount2(2): EBUSY while it is used, EINVAL when nothing is mounted there.
pub fn unmount(path: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(path, UnmountFlags::NOFOLLOW)?)
}

/// Takes the mount at `path`, with everything below it, out of the tree at once; it ends when its last user is gone.
///
/// # Errors
/// As umount2(2) with MNT_DETACH.
pub fn unmount_detached(path: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?)
}

/// Gives the calling thread a mount namespace of its own, a copy of the present one, in which every mount is a slave:
/// mounts made outside still appear, mounts made inside stay inside.
///
/// # Errors
/// As unshare(2): EPERM without CAP_SYS_ADMIN, ENOSPC at the limit of namespaces.
pub fn unshare_namespace() -> io::Result<()> {
    // SAFETY: CLONE_NEWNS (which implies CLONE_FS for this thread) changes neither descriptors nor memory.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }?;
    set_propagation(Path::new("/"), Propagation::Slave, true)
}

/// Changes where the mount at `path` (with `recursive`: and those below it) sends its events.
///
/// # Errors
/// As mount(2): EINVAL when `path` is not a mount point.
pub fn set_propagation(path: &Path, propagation: Propagation, recursive: bool) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = propagation.flag() | if recursive { libc::MS_REC } else { 0 };
    // SAFETY: the path is a C string; the kernel ignores source, type and data for a change of propagation (mount(2)).
    let result = unsafe { libc::mount(std::ptr::null(), path.as_ptr(), std::ptr::null(), flags, std::ptr::null()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Bind-mounts the directory `path` on itself and makes that mount shared, so that what is mounted below it appears in
/// every namespace that is a copy of this one. [`unmount`] undoes it.
///
/// # Errors
/// As mount(2); when the second step fails, the first is undone.
pub fn bind_on_itself_shared(path: &Path) -> io::Result<()> {
    rustix::mount::mount_bind(path, path)?;
    set_propagation(path, Propagation::Shared, false).inspect_err(|_| {
        // The error of the first cause is the one to report.
        let _ = unmount(path);
    })
}

/// Opens `path` below `directory`; a symbolic link, `..` above it or an absolute path is an error. Closed on exec.
///
/// # Errors
/// As openat2(2): ELOOP for a symbolic link, EXDEV for a way out, EAGAIN never (it is tried again, 16 times).
pub fn open_beneath(directory: impl AsFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    open_resolved(directory, path, flags, Mode::empty(), BENEATH)
}

/// As [`open_beneath`], and makes a new file with this mode less the umask; one that is there already is EEXIST.
///
/// # Errors
/// As [`open_beneath`], and EEXIST.
pub fn create_beneath(directory: impl AsFd, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    open_resolved(directory, path, flags | OFlags::CREATE | OFlags::EXCL, mode, BENEATH)
}

/// As [`open_beneath`], and never crosses into another mount (EXDEV).
///
/// # Errors
/// As [`open_beneath`].
pub fn open_beneath_same_mount(directory: impl AsFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    open_resolved(directory, path, flags, Mode::empty(), BENEATH | ResolveFlags::NO_XDEV)
}

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

fn open_resolved(
    directory: impl AsFd,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    /// The kernel answers EAGAIN when a rename ran beside the look-up.
    const TRIES: u32 = 16;
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let mut tried = 1;
    loop {
        match rustix::fs::openat2(&directory, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(rustix::io::Errno::AGAIN) if tried < TRIES => tried += 1,
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_leads_outside() {
        let place = std::env::temp_dir().join(format!("vss-linux-beneath-{}", std::process::id()));
        std::fs::create_dir_all(place.join("in/side")).unwrap();
        symlink("side", place.join("in/link")).unwrap();
        let directory = std::fs::File::open(place.join("in")).unwrap();
        let open = |path: &str| open_beneath(&directory, Path::new(path), OFlags::PATH);
        assert!(open("side").is_ok() && open("").is_ok());
        for outside in ["..", "/", "link", "side/../.."] {
            assert!(open(outside).is_err(), "{outside} was opened");
        }
        std::fs::remove_dir_all(&place).unwrap();
    }

    #[test]
    fn a_clone_is_attached_changed_and_unmounted() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: a_clone_is_attached_changed_and_unmounted: needs root");
            return;
        }
        let place = std::env::temp_dir().join(format!("vss-linux-mount-{}", std::process::id()));
        let (from, to) = (place.join("from"), place.join("to"));
        std::fs::create_dir_all(&from).unwrap();
        std::fs::create_dir_all(&to).unwrap();
        std::fs::write(from.join("file"), "x").unwrap();
        // A thread's own namespace: nothing of it is left when the thread ends, whatever happens.
        std::thread::spawn(move || {
            unshare_namespace().unwrap();
            let clone = clone_tree(&from, false).unwrap();
            change(&clone, Change::SHADOW, false).unwrap();
            attach_at(&clone, &to).unwrap();
            assert_eq!(std::fs::read(to.join("file")).unwrap(), b"x");
            assert_eq!(std::fs::write(to.join("new"), "x").unwrap_err().raw_os_error(), Some(libc::EROFS));
            drop(clone);
            unmount(&to).unwrap();
            bind_on_itself_shared(&to).unwrap();
            // /proc/self is the process, which is not in this thread's namespace.
            let text = std::fs::read("/proc/thread-self/mountinfo").unwrap();
            let mounts = crate::mountinfo::parse(&text).unwrap();
            assert!(mounts.iter().any(|entry| entry.mount_point == to && entry.is_shared()));
            unmount(&to).unwrap();
        })
        .join()
        .unwrap();
        std::fs::remove_dir_all(&place).unwrap();
    }
}
