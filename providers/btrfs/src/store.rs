//! What is in the directory of copies ([`vss_provider::store`]): the parts of each copy, as subvolumes.

use rustix::{
    fs::{FileType, OFlags},
    io::Errno,
};
use std::{
    ffi::OsStr,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
};
use vss_linux::{btrfs, mount};
use vss_model::{ShadowId, VssCode, VssError};
use vss_provider::{
    failure::{failed, is},
    store::{NAME, Store},
};

/// Subvolumes that somebody made inside a copy while it was writable, and that are deleted with it.
const MOST_STRANGERS: usize = 4096;

/// The parts of copies in a store.
pub(crate) trait Parts {
    /// Opens the root of one part of a copy; none when it is not there.
    fn open_part(&self, name: &OsStr) -> Result<Option<OwnedFd>, VssError>;

    /// Deletes everything that belongs to the copy; true when there was anything.
    fn delete_all_of(&self, shadow_id: ShadowId) -> Result<bool, VssError>;
}

impl Parts for Store {
    fn open_part(&self, name: &OsStr) -> Result<Option<OwnedFd>, VssError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match mount::open_beneath(self, Path::new(name), flags) {
            Ok(part) => Ok(Some(part)),
            Err(error) if is(&error, Errno::NOENT) => Ok(None),
            Err(error) => Err(failed(format!("{NAME}/{} cannot be opened", name.display()), &error)),
        }
    }

    fn delete_all_of(&self, shadow_id: ShadowId) -> Result<bool, VssError> {
        let prefix = format!("{shadow_id}.");
        let mut deleted = false;
        for (name, kind) in self.entries()? {
            if !name.as_bytes().starts_with(prefix.as_bytes()) {
                continue;
            }
            let gone =
                if kind == FileType::Directory { delete_subvolume(self, &name) } else { self.remove_file(&name) };
            match gone {
                Ok(()) => deleted = true,
                Err(error) if is(&error, Errno::NOENT) => {}
                // We are root: the kernel says so while it is being sent, and of the default subvolume.
                Err(error) if is(&error, Errno::PERM) => {
                    return Err(VssError::new(
                        VssCode::ProviderVeto,
                        format!("{NAME}/{} cannot be deleted now: {error}", name.display()),
                    )
                    .with_hint("Wait for the end of a running btrfs send, or set another default subvolume"));
                }
                Err(error) => return Err(failed(format!("{NAME}/{} cannot be deleted", name.display()), &error)),
            }
        }
        Ok(deleted)
    }
}

/// Deletes one part; what somebody nested in it while it was writable goes with it.
fn delete_subvolume(store: &Store, name: &OsStr) -> io::Result<()> {
    match btrfs::destroy(store, name) {
        Err(error) if is(&error, Errno::NOTEMPTY) => {}
        result => return result,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let root = mount::open_beneath(store, Path::new(name), flags)?;
    btrfs::set_read_only(&root, false)?;
    let strangers = btrfs::nested_subvolumes(&root, btrfs::subvolume_id(&root)?, MOST_STRANGERS, |_| true)?;
    for stranger in strangers.iter().rev() {
        let (Some(parent), Some(name)) = (stranger.path.parent(), stranger.path.file_name()) else { continue };
        let parent = mount::open_beneath(&root, parent, flags)?;
        btrfs::destroy(&parent, name)?;
    }
    btrfs::destroy(store, name)
}
