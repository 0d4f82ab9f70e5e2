//! The image of a volume: which file its loop device is attached to, and whether that file can be cloned.
//!
//! The mount table and sysfs are asked first; only a file on XFS or btrfs is opened, and it counts only when it is the very
//! file that the loop device has.

use rustix::fs::{FileType, Mode, OFlags};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};
use vss_linux::{
    loop_device,
    mountinfo::{self, MountEntry},
    reflink,
};
use vss_model::{Volume, VssError};
use vss_provider::{
    failure::failed,
    image_copy::Part,
    outer::{self, OuterName},
    store,
};

/// Bytes of a sector, which sysfs counts in whatever the device has.
const SECTOR: u64 = 512;

/// How long another loop device of an image may take to go that nobody uses any more: programs that look at a new or changed
/// device (udev, blkid) have it open for some milliseconds.
const LETTING_GO: Duration = Duration::from_millis(250);
/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// An image that can be cloned.
#[derive(Debug)]
pub(crate) struct Image {
    /// Its name, as the kernel knows it.
    pub(crate) path: PathBuf,
    /// The file, open for reading.
    pub(crate) file: File,
    /// What of it the volume is.
    pub(crate) part: Part,
    /// Where it lies.
    pub(crate) outer: OuterName,
}

/// Why there is no image that can be cloned.
#[derive(Debug)]
pub(crate) enum Without {
    /// Half a sentence about the volume.
    Reason(String),
    /// It could not be found out.
    Failed(VssError),
}

impl From<String> for Without {
    fn from(reason: String) -> Self {
        Self::Reason(reason)
    }
}

/// The image of this volume.
pub(crate) fn find(volume: &Volume) -> Result<Image, Without> {
    if !matches!(volume.fs_type.as_str(), "ext4" | "xfs") {
        return Err(format!("it is {}, and only images of ext4 and xfs are cloned", volume.fs_type).into());
    }
    let (loop_name, part, path) = loop_of(volume)?;
    if store::holds(&path) {
        return Err("it is a shadow copy itself".to_owned().into());
    }
    let shown = path.display();
    let mounts = mountinfo::mounts().map_err(|error| cannot("The mount table cannot be read", &error))?;
    let entry = mounts.iter().find(|entry| entry.mount_id == volume.mount_id);
    if let Some(what) =
        outer::part_elsewhere(entry, &volume.fs_type, Path::new(&volume.source)).map_err(Without::Failed)?
    {
        return Err(format!("its {what} lies on another device").into());
    }
    let device = Path::new("/dev").join(&loop_name);
    let status = loop_device::status(&device)
        .map_err(|error| cannot(&format!("{} cannot be examined", device.display()), &error))?;
    if status.offset != 0 || status.size_limit != 0 || status.is_encrypted {
        let reason = format!("{} shows only a part of {shown}, or encrypts it", device.display());
        return Err(reason.into());
    }
    let host = outer::covering(&path, &mounts)
        .ok_or_else(|| format!("its image {shown} lies on no mount that is seen here"))?;
    if !matches!(host.fs_type.as_str(), "xfs" | "btrfs") {
        return Err(format!("its image {shown} lies on {}, whose files cannot share blocks", host.fs_type).into());
    }
    let file = open(&path)?;
    let found =
        rustix::fs::fstat(&file).map_err(|error| cannot(&format!("{shown} cannot be examined"), &error.into()))?;
    let is_it = (found.st_dev, found.st_ino) == (status.device, status.inode);
    if !is_it || FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Err(format!("{shown} is not the file any more that {} is attached to", device.display()).into());
    }
    if host.fs_type == "xfs" && !shares_blocks(&file, &path)? {
        return Err(format!("its image {shown} lies on xfs that was made without reflink").into());
    }
    let others = || other_device(&device, &path, (status.device, status.inode), host, &mounts);
    if let Some(other) = unless_it_goes(others, &mounts)? {
        return Err(format!("its image {shown} is attached to {} too", other.display()).into());
    }
    let outer = OuterName {
        fs_type: host.fs_type.clone(),
        uuid: outer::uuid_of(&file, host).map_err(|error| {
            cannot(&format!("The uuid of the {} with {shown} cannot be read", host.fs_type), &error)
        })?,
        device: outer::device_of(host).unwrap_or_default(),
    };
    Ok(Image { path, file, part, outer })
}

/// The loop device under the volume (`loop7`), the part of it, and the image's name.
fn loop_of(volume: &Volume) -> Result<(String, Part, PathBuf), Without> {
    let (major, minor) = (rustix::fs::major(volume.device_number), rustix::fs::minor(volume.device_number));
    let on_none = || Without::Reason("it lies on no loop device".to_owned());
    let mut sysfs = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).map_err(|_| on_none())?;
    let mut part = Part::default();
    if sysfs.join("partition").exists() {
        let number = |name: &str| fs::read_to_string(sysfs.join(name)).ok()?.trim().parse::<u64>().ok();
        let (start, size) = number("start").zip(number("size")).ok_or_else(on_none)?;
        part = Part { offset: start.saturating_mul(SECTOR), size: size.saturating_mul(SECTOR) };
        sysfs.pop();
    }
    let image = loop_device::backing_file(&sysfs).ok_or_else(on_none)?;
    let name = sysfs.file_name().and_then(|name| name.to_str()).ok_or_else(on_none)?;
    Ok((name.to_owned(), part, image))
}

fn open(path: &Path) -> Result<File, Without> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map(File::from).map_err(|error| {
        let shown = path.display();
        if error == rustix::io::Errno::NOENT {
            return Without::Reason(format!("its image {shown} was deleted or moved"));
        }
        cannot(&format!("{shown} cannot be opened"), &error.into())
    })
}

fn shares_blocks(file: &File, path: &Path) -> Result<bool, Without> {
    reflink::xfs_shares_blocks(file)
        .map_err(|error| cannot(&format!("The xfs with {} cannot be examined", path.display()), &error))
}

/// The other loop device of the image that `look` finds, unless it is being let go of: one that ends with its last user is kept
/// for a moment by whoever looks at it.
fn unless_it_goes(
    look: impl Fn() -> Result<Option<PathBuf>, Without>,
    mounts: &[MountEntry],
) -> Result<Option<PathBuf>, Without> {
    let deadline = Instant::now() + LETTING_GO;
    loop {
        let Some(other) = look()? else { return Ok(None) };
        let is_mounted = mounts.iter().any(|entry| outer::device_of(entry).is_some_and(|device| device == other));
        if is_mounted || !loop_device::is_autoclear(&other) || Instant::now() >= deadline {
            return Ok(Some(other));
        }
        thread::sleep(PAUSE);
    }
}

/// Another loop device with the same image: what is written through it is no part of what is held. A file elsewhere is not
/// asked for: it may lie on a server that is dead.
fn other_device(
    ours: &Path,
    path: &Path,
    file: (u64, u64),
    host: &MountEntry,
    mounts: &[MountEntry],
) -> Result<Option<PathBuf>, Without> {
    let attached = loop_device::attached().map_err(|error| cannot("The loop devices cannot be listed", &error))?;
    let is_it = |(device, image): &(PathBuf, PathBuf)| {
        let is_near = || {
            outer::covering(image, mounts).is_some_and(|entry| {
                (entry.major, entry.minor, &entry.source) == (host.major, host.minor, &host.source)
            })
        };
        device != ours && (image == path || (is_near() && loop_device::shows(device, image, file)))
    };
    Ok(attached.into_iter().find(is_it).map(|(device, _)| device))
}

fn cannot(what: &str, error: &io::Error) -> Without {
    Without::Failed(failed(what, error))
}
