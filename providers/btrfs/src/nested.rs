//! Subvolumes nested in a volume: which there are, and where each belongs in the copy.

use crate::file_system::FileSystem;
use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read, Write},
    os::{fd::AsFd, unix::ffi::OsStringExt},
    path::{Path, PathBuf},
};
use vss_linux::{
    btrfs::{self, Nested},
    mount,
};
use vss_model::{ShadowId, VssCode, VssError, limits};
use vss_provider::{
    failure::{failed, is},
    store::{self, Store},
};

/// Most bytes of a list of places: each has at most PATH_MAX bytes, and JSON writes a byte with at most four characters.
const MOST_BYTES: u64 = limits::NESTED_SUBVOLUMES as u64 * (4096 * 4 + 64);

/// The subvolumes below subvolume `id`, outer before inner, without the shadow copies themselves.
pub(crate) fn list(file_system: &FileSystem, id: u64) -> Result<Vec<Nested>, VssError> {
    let is_copy = |path: &Path| id == btrfs::TOP_LEVEL && path.starts_with(store::NAME);
    let nested = btrfs::nested_subvolumes(file_system, id, limits::NESTED_SUBVOLUMES, |path| !is_copy(path))
        .map_err(|error| failed(format!("The subvolumes nested in subvolume {id} cannot be listed"), &error))?;
    if nested.len() > limits::NESTED_SUBVOLUMES {
        return Err(VssError::new(
            VssCode::ProviderVeto,
            format!("Subvolume {id} has more than {} subvolumes nested in it", limits::NESTED_SUBVOLUMES),
        )
        .with_hint("Delete some, or mount one of the inner subvolumes and copy that"));
    }
    Ok(nested)
}

/// Where one part of a copy belongs, as the file of places has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The number in the part's name.
    pub(crate) index: usize,
    /// Bytes of the path, relative to the root of the copy: a file name need not be UTF-8.
    path: Vec<u8>,
}

impl Place {
    /// Part `index` belongs at `path`.
    pub(crate) fn new(index: usize, path: PathBuf) -> Self {
        Self { index, path: path.into_os_string().into_vec() }
    }

    /// The path, relative to the root of the copy.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(OsString::from_vec(self.path.clone()))
    }
}

/// Writes the places of the nested parts beside the copy; `lasting`: down to the disk.
pub(crate) fn write_places(
    store: &Store,
    shadow_id: ShadowId,
    places: &[Place],
    lasting: bool,
) -> Result<(), VssError> {
    let name = file_name(shadow_id);
    let written = || -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(store, &name, flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all(&serde_json::to_vec(places)?)?;
        if lasting { file.sync_all() } else { Ok(()) }
    };
    written().map_err(|error| failed(format!("{}/{name} cannot be written", store::NAME), &error))
}

/// Reads the places of the nested parts of a copy; none listed when it has no nested parts.
pub(crate) fn read_places(store: &Store, shadow_id: ShadowId) -> Result<Vec<Place>, VssError> {
    let name = file_name(shadow_id);
    let read = || -> io::Result<Vec<Place>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut text = Vec::new();
        let file = File::from(rustix::fs::openat(store, &name, flags, Mode::empty())?);
        file.take(MOST_BYTES).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    };
    match read() {
        Err(error) if is(&error, Errno::NOENT) => Ok(Vec::new()),
        result => result.map_err(|error| failed(format!("{}/{name} cannot be read", store::NAME), &error)),
    }
}

/// True when `place`, relative to the writable copy `outer`, is the empty directory that stands for a subvolume there.
pub(crate) fn has_place(outer: impl AsFd, place: &Path) -> bool {
    let stands_for_one = |place: &rustix::fs::Stat| place.st_ino == btrfs::EMPTY_SUBVOLUME_INODE;
    mount::open_beneath(outer, place, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW)
        .and_then(|place| Ok(rustix::fs::statat(place, c"", AtFlags::EMPTY_PATH)?))
        .is_ok_and(|place| stands_for_one(&place))
}

fn file_name(shadow_id: ShadowId) -> String {
    format!("{shadow_id}.nested")
}
