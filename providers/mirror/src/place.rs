//! Where images lie: a directory on a mounted ext4, XFS or btrfs, and which of several is taken.
//!
//! In the directory is a store ([`vss_provider::store`]), `.vss`. A place is found again by its file system's uuid, wherever
//! that is mounted then.
//!
//! The requester's wish and the settings name one place each, and then it is that one or none. Without either it is the
//! state directory, else the top of the volume itself: the first with room.

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};
use vss_linux::{mount, mountinfo, reflink, statfs};
use vss_model::{Volume, VssCode, VssError};
use vss_provider::{
    failure::failed,
    outer::{self, Outer, OuterName},
    space,
};

const MIB: u64 = 1 << 20;

/// Begins the name of a file system that is known by its statfs(2) id alone, and so reached by the path only.
const BY_ID: &str = "fsid:";

/// The name of the file system that `file` lies on by its statfs(2) id.
fn fsid(file: &File) -> std::io::Result<String> {
    Ok(format!("{BY_ID}{:016x}", rustix::fs::fstatvfs(file)?.f_fsid))
}

/// What a place is found by. Equal are two names of one place: also when its device is called otherwise meanwhile, or it was
/// reached by another path.
#[derive(Debug, Clone, Eq, Serialize, Deserialize)]
pub(crate) struct PlaceName {
    /// Its file system.
    pub(crate) outer: OuterName,
    /// The directory, from the top of the file system; empty for the top itself.
    #[serde(with = "vss_model::path_text")]
    below: PathBuf,
    /// The directory as it was named, for people.
    #[serde(with = "vss_model::path_text")]
    pub(crate) shown: PathBuf,
}

impl PartialEq for PlaceName {
    fn eq(&self, other: &Self) -> bool {
        fn known(name: &PlaceName) -> (&str, &str, &Path) {
            (&name.outer.fs_type, &name.outer.uuid, &name.below)
        }
        known(self) == known(other) && (!self.is_by_path() || self.shown == other.shown)
    }
}

impl PlaceName {
    fn is_by_path(&self) -> bool {
        self.outer.uuid.starts_with(BY_ID)
    }

    /// The place that this directory is.
    ///
    /// # Errors
    /// `VSS_E_PROVIDER_VETO` when it is no directory on ext4, XFS or btrfs that can be written to.
    pub(crate) fn of_directory(directory: &Path) -> Result<Self, VssError> {
        let shown = directory.display();
        let cannot = |error: &std::io::Error| failed(format!("{shown} cannot be used for images"), error);
        let refused = |why: String, hint: &str| {
            Err(VssError::new(VssCode::ProviderVeto, format!("{shown} cannot be used for images: {why}"))
                .with_hint(hint))
        };
        let path = fs::canonicalize(directory).map_err(|error| cannot(&error))?;
        let file = File::open(&path).map_err(|error| cannot(&error))?;
        let found = file.metadata().map_err(|error| cannot(&error))?;
        if !found.is_dir() {
            return refused("it is no directory".to_owned(), "Name a directory");
        }
        let mounts = mountinfo::mounts().map_err(|error| failed("The mount table cannot be read", &error))?;
        let Some(host) = outer::covering(&path, &mounts) else {
            return refused("it lies on no mount that is seen here".to_owned(), "Name another directory");
        };
        // On btrfs each subvolume has a number of its own.
        let is_it = host.fs_type == "btrfs" || host.device_number() == found.dev();
        if !matches!(host.fs_type.as_str(), "ext4" | "xfs" | "btrfs") || !is_it {
            return refused(
                format!("it lies on {}", host.fs_type),
                "Name a directory on XFS or btrfs (each copy then shares blocks with the mirror) or on ext4",
            );
        }
        if host.is_file_system_read_only() {
            return refused("its file system is read-only".to_owned(), "Mount it writable, or name another directory");
        }
        let inside = path.strip_prefix(&host.mount_point).unwrap_or(Path::new(""));
        let below = host.root.strip_prefix("/").unwrap_or(&host.root).join(inside);
        // A device that must not be read (in some containers and virtual machines) tells no uuid.
        let uuid = outer::uuid_of(&file, host).or_else(|_| fsid(&file)).map_err(|error| cannot(&error))?;
        let device = outer::device_of(host).unwrap_or_default();
        let outer = OuterName { fs_type: host.fs_type.clone(), uuid, device };
        Ok(Self { outer, below, shown: path })
    }

    /// The top of the volume itself.
    fn of_volume(volume: &Volume) -> Self {
        let device = outer::device_node(volume.device_number).unwrap_or_default();
        let outer = OuterName { fs_type: volume.fs_type.clone(), uuid: volume.uuid.clone(), device };
        Self { outer, below: PathBuf::new(), shown: volume.mount_point.clone() }
    }

    /// True when its file system is mounted.
    pub(crate) fn is_mounted(&self) -> Result<bool, VssError> {
        if self.is_by_path() {
            return Ok(Place::open(self)?.is_some());
        }
        outer::is_mounted(&self.outer)
    }

    /// True when it lies on the volume itself.
    pub(crate) fn is_on(&self, volume: &Volume) -> bool {
        (self.outer.uuid == volume.uuid || self.is_by_path())
            && outer::device_node(volume.device_number).is_some_and(|device| device == self.outer.device)
    }

    /// Where the store is in a copy of `volume`, when it is not at its top.
    pub(crate) fn below_in(&self, volume: &Volume) -> Option<&Path> {
        (self.is_on(volume) && !self.below.as_os_str().is_empty()).then_some(&*self.below)
    }
}

/// A place that is open.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) name: PlaceName,
    directory: File,
    /// Files there can share blocks.
    pub(crate) shares: bool,
    /// Its mount, which ends with this; none for a place that is reached by its path.
    _outer: Option<Outer>,
}

impl AsFd for Place {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl Place {
    /// Opens it; none when its file system is not mounted, or the directory is gone.
    pub(crate) fn open(name: &PlaceName) -> Result<Option<Self>, VssError> {
        let (outer, opened) = if name.is_by_path() {
            let is_it = |file: &File| fsid(file).is_ok_and(|id| id == name.outer.uuid);
            let opened = File::open(&name.shown);
            if opened.as_ref().is_ok_and(|file| !is_it(file)) {
                return Ok(None);
            }
            (None, opened)
        } else {
            let Some(outer) = Outer::open(&name.outer)? else { return Ok(None) };
            let opened = mount::open_beneath(&outer, &name.below, OFlags::RDONLY | OFlags::DIRECTORY);
            (Some(outer), opened.map(File::from))
        };
        let directory = match opened {
            Ok(directory) => directory,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(format!("{} cannot be opened", name.shown.display()), &error)),
        };
        let shares = match name.outer.fs_type.as_str() {
            "btrfs" => true,
            "xfs" => reflink::xfs_shares_blocks(&directory)
                .map_err(|error| failed(format!("{} cannot be examined", name.shown.display()), &error))?,
            _ => false,
        };
        Ok(Some(Self { name: name.clone(), directory, shares, _outer: outer }))
    }

    /// As [`Place::open`], for the image of this volume. On the volume itself images share blocks only where the file system
    /// tells whose its blocks are: otherwise nobody knew which of them a file needs that shares them, too (`used.rs`).
    pub(crate) fn open_for(name: &PlaceName, volume: &Volume) -> Result<Option<Self>, VssError> {
        let Some(mut place) = Self::open(name)? else { return Ok(None) };
        if place.shares && name.is_on(volume) {
            place.shares = reflink::xfs_tells_owners(&place)
                .map_err(|error| failed(format!("{} cannot be examined", name.shown.display()), &error))?;
        }
        Ok(Some(place))
    }

    /// Bytes available above the floor.
    pub(crate) fn room(&self, min_free: Option<u64>) -> Result<u64, VssError> {
        let space = statfs::of_fd(self).map_err(|error| {
            failed(format!("The free space of {} cannot be read", self.name.shown.display()), &error)
        })?;
        Ok(space.available.saturating_sub(min_free.unwrap_or_else(|| space::least_free(space.total))))
    }
}

/// Who may say where images lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wishes<'a> {
    /// The requester's.
    pub(crate) storage: Option<&'a Path>,
    /// The settings'.
    pub(crate) setting: Option<&'a Path>,
    /// What is taken when there are none.
    pub(crate) state_directory: &'a Path,
}

/// What a place has to offer.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) place: Place,
    /// Bytes that will be written there beyond what is there.
    pub(crate) needed: u64,
    /// Bytes available there above the floor.
    pub(crate) room: u64,
}

/// Every place that may be taken, in the order of choice: what it has to offer, or why it is none.
#[derive(Debug)]
pub(crate) struct Survey(Vec<Result<Offer, String>>);

/// Looks at every place for the image of a volume with `used` bytes in use and 10 % more; `there` says how many bytes of it lie
/// at a place already.
///
/// # Errors
/// Why the place that somebody named is none.
pub(crate) fn survey(
    volume: &Volume,
    used: u64,
    wishes: Wishes<'_>,
    min_free: Option<u64>,
    there: impl Fn(&Place) -> u64,
) -> Result<Survey, VssError> {
    let named = wishes.storage.or(wishes.setting);
    let candidates = match named {
        Some(directory) => vec![PlaceName::of_directory(directory)],
        None => vec![PlaceName::of_directory(wishes.state_directory), Ok(PlaceName::of_volume(volume))],
    };
    let offer = |candidate: Result<PlaceName, VssError>| -> Result<_, VssError> {
        let name = candidate?;
        let Some(place) = Place::open(&name)? else {
            return Ok(Err(format!("{} is not reachable", name.shown.display())));
        };
        let already = there(&place);
        let on_itself = if place.name.is_on(volume) { already } else { 0 };
        let used = used.saturating_sub(on_itself);
        let needed = (used + used / 10).saturating_sub(already);
        let room = place.room(min_free)?;
        Ok(Ok(Offer { place, needed, room }))
    };
    let answer = |candidate| match offer(candidate) {
        // The wish of somebody is answered as it is.
        Err(error) if named.is_some() => Err(error),
        Err(error) => Ok(Err(error.message)),
        Ok(offer) => Ok(offer),
    };
    candidates.into_iter().map(answer).collect::<Result<_, _>>().map(Survey)
}

impl Survey {
    /// What the places have to offer.
    pub(crate) fn offers(&self) -> impl Iterator<Item = &Offer> {
        self.0.iter().flatten()
    }

    /// The first place with room.
    ///
    /// # Errors
    /// `VSS_E_INSUFFICIENT_STORAGE`, with the bytes missing at each; `VSS_E_PROVIDER_VETO` when there is no such place.
    pub(crate) fn choose(self, volume: &Volume) -> Result<Place, VssError> {
        let mut without = Vec::new();
        let mut is_full = false;
        for found in self.0 {
            match found {
                Ok(offer) if offer.needed <= offer.room => return Ok(offer.place),
                Ok(Offer { place, needed, room }) => {
                    is_full = true;
                    without.push(format!(
                        "{} lacks {} MiB ({} MiB are needed, {} MiB are available above the floor)",
                        place.name.shown.display(),
                        (needed - room).div_ceil(MIB),
                        needed.div_ceil(MIB),
                        room / MIB
                    ));
                }
                Err(why) => without.push(why),
            }
        }
        let code = if is_full { VssCode::InsufficientStorage } else { VssCode::ProviderVeto };
        Err(VssError::new(
            code,
            format!("There is no place for the image of {}: {}", volume.mount_point.display(), without.join("; ")),
        )
        .with_hint("Free space there, or name a directory with room: --storage DIR, or storage of [providers.mirror]"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(uuid: &str, device: &str, below: &str, shown: &str) -> PlaceName {
        let outer = OuterName { fs_type: "xfs".to_owned(), uuid: uuid.to_owned(), device: device.into() };
        PlaceName { outer, below: below.into(), shown: shown.into() }
    }

    #[test]
    fn a_place_is_the_same_under_another_name_of_its_device_and_at_another_mount_point() {
        let place = name("u", "/dev/sdb1", "images", "/mnt/images");
        assert_eq!(place, name("u", "/dev/sdc1", "images", "/media/images"));
        assert_ne!(place, name("v", "/dev/sdb1", "images", "/mnt/images"));
        assert_ne!(place, name("u", "/dev/sdb1", "", "/mnt/images"));
        // One that tells no uuid is known by its path.
        let place = name("fsid:1", "/dev/sdb1", "images", "/mnt/images");
        assert_eq!(place, name("fsid:1", "/dev/sdc1", "images", "/mnt/images"));
        assert_ne!(place, name("fsid:1", "/dev/sdb1", "images", "/media/images"));
    }
}
