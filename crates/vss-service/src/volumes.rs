//! Volumes of this machine: which one holds a path, which could be members of a set, what is mounted where.
//!
//! A volume is what one mount shows: a superblock for ext4 and XFS, one subvolume for btrfs (design 5). The mount table of
//! the kernel decides; a file system is opened only when it is of a type that can be a member, never an autofs, network or
//! FUSE mount, which could block for ever.

use crate::fault;
use crate::mount_graph::{Mounts, REMOTE_TYPES};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxFlags};
use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};
use vss_linux::{
    btrfs,
    fs_uuid::{self, FsUuid},
    loop_device,
    mountinfo::{self, MountEntry},
};
use vss_model::{Volume, VolumeId, VssCode, VssError};
use vss_provider::store;

/// Types of local file systems on block devices that keep what is written; only these are opened for their uuid.
const MEMBER_TYPES: [&str; 10] = ["bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "jfs", "vfat", "xfs"];

/// FUSE file systems whose data are on another machine.
const REMOTE_FUSE_TYPES: [&str; 6] =
    ["fuse.ceph", "fuse.cephfs", "fuse.curlftpfs", "fuse.glusterfs", "fuse.rclone", "fuse.sshfs"];

/// A path and the volume that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The volume, as it is mounted at the path.
    pub volume: Volume,
    /// The path inside the volume, relative to the volume's root; empty for the root itself.
    pub inner: PathBuf,
    /// The path without symbolic links.
    pub path: PathBuf,
}

/// Finds the volume that holds `path`.
///
/// On btrfs it is the subvolume that the mount shows, also for a path in a subvolume nested in it: nested subvolumes are
/// copied with their parent.
///
/// # Errors
/// `E_INVALIDARG` for a path that is not absolute, `VSS_E_OBJECT_NOT_FOUND` for one that does not exist or lies on a mount that this process does not see,
/// `VSS_E_VOLUME_NOT_LOCAL` for a file system of another machine, `E_ACCESSDENIED`, `VSS_E_UNEXPECTED`.
pub fn resolve(path: &Path) -> Result<Located, VssError> {
    if !path.is_absolute() {
        let message = format!("{} is not an absolute path", path.display());
        return Err(VssError::new(VssCode::InvalidArgument, message).with_hint("Name it from / on"));
    }
    let mounts = mounts()?;
    // First by the words alone: a dead server must not be asked whether the path exists.
    if let Some(entry) = mounts.holder(path) {
        check_is_local(path, entry)?;
    }
    let canonical = fs::canonicalize(path).map_err(|error| not_found(path, &error))?;
    let place = open_path(&canonical).map_err(|error| not_found(path, &error))?;
    let mount_id = mount_id(&place).map_err(|error| unexpected(&canonical, &error))?;
    let entry = mounts.by_id(mount_id).ok_or_else(|| {
        VssError::new(
            VssCode::ObjectNotFound,
            format!("{} lies on a mount that is not in this mount namespace", canonical.display()),
        )
    })?;
    check_is_local(&canonical, entry)?;
    let volume = describe(entry, &mut UuidCache::default())
        .map_err(|error| unexpected(&entry.mount_point, &error))?
        .ok_or_else(|| hidden(&canonical, entry))?;
    let below = canonical.strip_prefix(&entry.mount_point).map_err(|_| hidden(&canonical, entry))?;
    let top = volume.root.strip_prefix("/").unwrap_or(&volume.root);
    // Joining with an empty path would leave a slash at the end.
    let inner = if below.as_os_str().is_empty() { top.to_owned() } else { top.join(below) };
    Ok(Located { volume, inner, path: canonical })
}

/// Has this volume its lasting name alone? A clone of a file system, mounted beside it, has the same uuid: then the name means
/// two volumes, and a copy of one could be taken for one of the other. May block.
///
/// # Errors
/// `VSS_E_VOLUME_NOT_SUPPORTED` naming both devices and how one gets a uuid of its own; `VSS_E_UNEXPECTED` when the mount table
/// cannot be read.
pub fn check_is_alone(volume: &Volume) -> Result<(), VssError> {
    // The kernel itself takes two btrfs devices with one uuid for one file system; a volume without a uuid has a name of its own.
    if volume.uuid.is_empty() || volume.fs_type == "btrfs" {
        return Ok(());
    }
    let mut cache = UuidCache::default();
    let mounts = mounts()?;
    let is_like_it = |entry: &&MountEntry| {
        entry.fs_type == volume.fs_type && entry.device_number() != volume.device_number && mounts.is_reachable(entry)
    };
    let twin = mounts
        .entries()
        .iter()
        .filter(is_like_it)
        .filter_map(|entry| describe(entry, &mut cache).ok().flatten())
        .find(|other| other.id == volume.id);
    let Some(twin) = twin else { return Ok(()) };
    let way_out = match volume.fs_type.as_str() {
        "ext2" | "ext3" | "ext4" => "`tune2fs -U random DEVICE`",
        "xfs" => "`xfs_admin -U generate DEVICE`",
        _ => "the tools of its file system",
    };
    let named = |volume: &Volume| format!("{} ({})", volume.mount_point.display(), volume.source);
    Err(VssError::new(
        VssCode::VolumeNotSupported,
        format!(
            "{} and {} have the same uuid {}, so their copies could not be told apart",
            named(volume),
            named(&twin),
            volume.uuid
        ),
    )
    .with_hint(format!("Unmount the clone, or give it a uuid of its own when it is unmounted: {way_out}")))
}

/// Every local volume that could be a member of a set, once, at the mount that shows most of it; shadow copies are left out.
///
/// # Errors
/// `VSS_E_UNEXPECTED` when the mount table cannot be read. A volume that cannot be examined is left out.
pub fn list() -> Result<Vec<Volume>, VssError> {
    let mut cache = UuidCache::default();
    let mut volumes: BTreeMap<VolumeId, Volume> = BTreeMap::new();
    let mounts = mounts()?;
    let is_candidate =
        |entry: &&MountEntry| is_member_type(entry) && !is_shadow_copy(entry) && mounts.is_reachable(entry);
    for entry in mounts.entries().iter().filter(is_candidate) {
        let Ok(Some(volume)) = describe(entry, &mut cache) else { continue };
        let shows_more = volumes
            .get(&volume.id)
            .is_none_or(|known| volume.root.components().count() < known.root.components().count());
        if shows_more {
            volumes.insert(volume.id.clone(), volume);
        }
    }
    let mut volumes: Vec<Volume> = volumes.into_values().collect();
    volumes.sort_by(|one, other| one.mount_point.cmp(&other.mount_point));
    Ok(volumes)
}

/// Every mount point with the volume that it shows, in the order of mounting, so that of two at one place the last one is
/// the visible one; for [`vss_model::involvement`]. Has every mount, also those that can be no member: what lies on a tmpfs
/// does not lie on the volume below it.
///
/// # Errors
/// `VSS_E_UNEXPECTED` when the mount table cannot be read.
pub fn mount_table() -> Result<Vec<(PathBuf, VolumeId)>, VssError> {
    let mut cache = UuidCache::default();
    let mounts = mounts()?;
    Ok(mounts
        .entries()
        .iter()
        .map(|entry| {
            let is_asked = is_member_type(entry) && mounts.is_reachable(entry);
            let volume = if is_asked { describe(entry, &mut cache).ok().flatten() } else { None };
            let id = volume.map_or_else(|| nameless(entry), |volume| volume.id);
            (entry.mount_point.clone(), id)
        })
        .collect())
}

/// Can images lie in this directory, as far as it can be told before a volume is known? Looks at it without mounting an
/// automount point; a directory on another machine is not asked. May block.
///
/// # Errors
/// `VSS_E_OBJECT_NOT_FOUND`, `E_INVALIDARG` for what is no directory, `VSS_E_VOLUME_NOT_LOCAL`.
pub fn check_storage(directory: &Path) -> Result<(), VssError> {
    let way_out = "Name a directory on a local disk, with room for the used bytes of the volumes";
    if let Some(entry) = mounts()?.holder(directory) {
        check_is_local(directory, entry).map_err(|error| error.with_hint(way_out))?;
    }
    let status = rustix::fs::statat(rustix::fs::CWD, directory, AtFlags::NO_AUTOMOUNT)
        .map_err(|error| not_found(directory, &error.into()))?;
    if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
        return Ok(());
    }
    let message = format!("{} is no directory, so no image can lie in it", directory.display());
    Err(VssError::new(VssCode::InvalidArgument, message).with_hint(way_out))
}

fn mounts() -> Result<Mounts, VssError> {
    mountinfo::mounts()
        .map(Mounts::new)
        .map_err(|error| VssError::new(VssCode::Unexpected, format!("The mount table cannot be read: {error}")))
}

fn is_member_type(entry: &MountEntry) -> bool {
    MEMBER_TYPES.contains(&entry.fs_type.as_str())
}

/// True for the mount of a shadow copy: a copy of a copy is nothing that anybody asks for, and its file system has the name
/// of the live one. A subvolume in a store, or a file in a store that a loop device shows.
fn is_shadow_copy(entry: &MountEntry) -> bool {
    if entry.fs_type == "btrfs" && store::holds(&entry.root) {
        return true;
    }
    loop_device::backing_file_of(entry.major, entry.minor).is_some_and(|image| store::holds(&image))
}

fn check_is_local(path: &Path, entry: &MountEntry) -> Result<(), VssError> {
    let fs_type = entry.fs_type.as_str();
    let is_remote = REMOTE_TYPES.contains(&fs_type) || REMOTE_FUSE_TYPES.contains(&fs_type);
    if is_remote && !fault::is_off("remote") {
        return Err(VssError::new(
            VssCode::VolumeNotLocal,
            format!("{} lies on {} ({fs_type}), a volume of another machine", path.display(), entry.source),
        )
        .with_hint("Make the shadow copy on the machine that holds the volume"));
    }
    Ok(())
}

/// Uuids found so far, by the device number of the superblock; none for a file system that has no uuid.
#[derive(Default)]
struct UuidCache(BTreeMap<u64, Option<FsUuid>>);

/// What the mount shows; none when something else is mounted over it, or the subvolume was deleted.
fn describe(entry: &MountEntry, cache: &mut UuidCache) -> io::Result<Option<Volume>> {
    let mut volume = Volume {
        id: nameless(entry),
        mount_point: entry.mount_point.clone(),
        fs_type: entry.fs_type.clone(),
        source: if entry.source.starts_with('/') { entry.source.clone() } else { String::new() },
        uuid: String::new(),
        subvolume: None,
        root: entry.root.clone(),
        device_number: entry.device_number(),
        mount_id: entry.mount_id,
    };
    if !is_member_type(entry) {
        return Ok(Some(volume));
    }
    let place = open_path(&entry.mount_point)?;
    if mount_id(&place)? != entry.mount_id {
        return Ok(None);
    }
    volume.device_number = rustix::fs::fstat(&place)?.st_dev;
    let uuid = match cache.0.get(&entry.device_number()) {
        Some(uuid) => *uuid,
        None => {
            let uuid = uuid_of(&place, entry)?;
            cache.0.insert(entry.device_number(), uuid);
            uuid
        }
    };
    // A copy of a file system has its uuid too, and is not the volume of that name.
    if let Some(uuid) = uuid.filter(|_| entry.fs_type == "btrfs" || !is_shadow_copy(entry)) {
        volume.uuid = uuid.to_string();
        volume.id = VolumeId::file_system(&entry.fs_type, &volume.uuid);
    }
    if entry.fs_type == "btrfs" {
        let Some((subvolume, root)) = subvolume_of(entry) else { return Ok(None) };
        volume.id = VolumeId::subvolume(&volume.uuid, subvolume);
        volume.subvolume = Some(subvolume);
        volume.root = root;
    }
    Ok(Some(volume))
}

/// The subvolume that a btrfs mount shows and the path of the mount's root in it; none when it was deleted.
///
/// Both are in the mount's own options (fs/btrfs/super.c, `btrfs_show_options`): they are those of the mount's root, also
/// of a bind mount.
fn subvolume_of(entry: &MountEntry) -> Option<(u64, PathBuf)> {
    let subvolume = entry.super_option("subvolid")?.parse().ok()?;
    let inside = entry.root.strip_prefix(entry.super_option("subvol")?).ok()?;
    Some((subvolume, Path::new("/").join(inside)))
}

/// The kernel's word for the uuid (btrfs by its own ioctl, others by FS_IOC_GETFSUUID), else that of the superblock on the
/// source device: ext4 answers since Linux 6.0, XFS since 6.9.
fn uuid_of(place: &OwnedFd, entry: &MountEntry) -> io::Result<Option<FsUuid>> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(place)?.st_mode);
    // A bind mount may show a socket, a pipe or a device: opening one of those would do more than look.
    if matches!(kind, FileType::Directory | FileType::RegularFile) {
        let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(place));
        let opened = rustix::fs::open(again, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
        if entry.fs_type == "btrfs" {
            return btrfs::uuid(&opened).map(Some);
        }
        if let Ok(uuid) = fs_uuid::of_fd(&opened) {
            return Ok(uuid);
        }
    }
    // Without the device (a container, /dev/root) the volume has no lasting name, and goes on under its device number.
    Ok(fs_uuid::of_device(Path::new(&entry.source), &entry.fs_type).unwrap_or(None))
}

/// The name of a volume without a uuid: its device number, which lasts as long as the mount does.
fn nameless(entry: &MountEntry) -> VolumeId {
    VolumeId::file_system(&entry.fs_type, &format!("{}:{}", entry.major, entry.minor))
}

/// Opens `path` without any effect on what it is, and without mounting an automount point.
fn open_path(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

fn mount_id(place: &OwnedFd) -> io::Result<u64> {
    Ok(rustix::fs::statx(place, c"", AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT, StatxFlags::MNT_ID)?.stx_mnt_id)
}

fn not_found(path: &Path, error: &io::Error) -> VssError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            VssError::new(VssCode::AccessDenied, format!("{} cannot be opened: {error}", path.display()))
                .with_hint("Run it as root")
        }
        _ => VssError::new(VssCode::ObjectNotFound, format!("{} cannot be found: {error}", path.display()))
            .with_hint("Name a file or directory that exists"),
    }
}

fn unexpected(path: &Path, error: &io::Error) -> VssError {
    VssError::new(VssCode::Unexpected, format!("The volume at {} cannot be examined: {error}", path.display()))
}

fn hidden(path: &Path, entry: &MountEntry) -> VssError {
    VssError::new(
        VssCode::ObjectNotFound,
        format!("{} lies on a mount that is hidden or deleted ({})", path.display(), entry.mount_point.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(line: &str) -> MountEntry {
        mountinfo::parse(line.as_bytes()).unwrap().remove(0)
    }

    #[test]
    fn a_bind_mount_of_a_directory_shows_a_part_of_its_subvolume() {
        let bind = entry("9 1 0:40 /vol/dir/sub /m rw - btrfs /dev/loop0 rw,subvolid=257,subvol=/vol");
        assert_eq!(subvolume_of(&bind), Some((257, "/dir/sub".into())));
        let whole = entry("9 1 0:40 /vol /m rw - btrfs /dev/loop0 rw,subvolid=257,subvol=/vol");
        assert_eq!(subvolume_of(&whole), Some((257, "/".into())));
        let top = entry("9 1 0:40 / /m rw - btrfs /dev/loop0 rw,subvolid=5,subvol=/");
        assert_eq!(subvolume_of(&top), Some((5, "/".into())));
        let gone = entry("9 1 0:40 /vol//deleted /m rw - btrfs /dev/loop0 rw,subvolid=257");
        assert_eq!(subvolume_of(&gone), None);
    }

    #[test]
    fn a_path_on_another_machine_is_refused_by_its_words() {
        let nfs = entry("9 1 0:40 / /mnt/nfs rw - nfs4 server:/export rw,vers=4.2");
        assert_eq!(check_is_local(Path::new("/mnt/nfs/x"), &nfs).unwrap_err().code, VssCode::VolumeNotLocal);
    }

    #[test]
    fn a_missing_path_is_not_found() {
        assert_eq!(resolve(Path::new("/there/is/no/such")).unwrap_err().code, VssCode::ObjectNotFound);
        assert_eq!(resolve(Path::new("proc")).unwrap_err().code, VssCode::InvalidArgument);
    }

    #[test]
    fn a_path_on_proc_has_a_volume_that_nobody_copies() {
        let located = resolve(Path::new("/proc/self")).unwrap();
        assert_eq!(located.volume.fs_type, "proc");
        assert_eq!(located.volume.uuid, "");
        assert_eq!(Path::new("/proc").join(&located.inner), located.path);
    }

    #[test]
    fn the_table_has_every_mount_and_agrees_with_the_list() {
        let table = mount_table().unwrap();
        assert!(table.iter().any(|(mount_point, _)| mount_point == Path::new("/proc")));
        let ids: std::collections::BTreeSet<_> = table.iter().map(|(_, id)| id.clone()).collect();
        for volume in list().unwrap() {
            assert!(ids.contains(&volume.id), "{} is not in the table", volume.id);
        }
    }
}
