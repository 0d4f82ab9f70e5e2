//! One file of a writer in the shadow copy: found by its own path, opened so that nothing leads out of the copy.

use rustix::fs::{AtFlags, Mode, OFlags, unlinkat};
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Component, Path, PathBuf};
use vss_api::writer::EventVolume;
use vss_linux::mount::{create_beneath, open_beneath};
use vss_model::{VssCode, VssError};

/// A path of a volume, inside the copy of that volume. Made by [`crate::Call::in_copy`], in PostSnapshot.
///
/// It is looked up from the copy's directory each time: a symbolic link on the way, also as the last part, is an error
/// (ELOOP), and so is `..`. Nested subvolumes are mounted in the copy and are part of it.
#[derive(Debug, Clone)]
pub struct CopyPath<'a> {
    root: BorrowedFd<'a>,
    relative: PathBuf,
}

impl<'a> CopyPath<'a> {
    /// `relative` has no `..` in it.
    pub(crate) fn new(root: BorrowedFd<'a>, relative: PathBuf) -> Self {
        Self { root, relative }
    }

    /// The directory of the copy that stands for the volume's mount point.
    #[must_use]
    pub fn root(&self) -> BorrowedFd<'a> {
        self.root
    }

    /// The path from there; empty for the mount point itself.
    #[must_use]
    pub fn relative(&self) -> &Path {
        &self.relative
    }

    /// The path `below` this one.
    ///
    /// # Errors
    /// `E_INVALIDARG` when `below` is absolute or has `..`.
    pub fn join(&self, below: impl AsRef<Path>) -> Result<Self, VssError> {
        let below = below.as_ref();
        let plain = plain(below).ok_or_else(|| invalid(below, "is not relative or has .. in it"))?;
        Ok(Self { root: self.root, relative: self.relative.join(plain) })
    }

    /// Opens what is there: for reading with `OFlags::RDONLY`, a directory with `OFlags::DIRECTORY` too.
    ///
    /// # Errors
    /// As openat2(2): ENOENT, ELOOP for a symbolic link, EROFS where the copy is read-only...
    pub fn open(&self, flags: OFlags) -> io::Result<File> {
        open_beneath(self.root, &self.relative, flags).map(File::from)
    }

    /// Makes a new file for writing, with this mode less the umask.
    ///
    /// # Errors
    /// As [`Self::open`]; EEXIST when something is there already.
    pub fn create(&self, mode: Mode) -> io::Result<File> {
        create_beneath(self.root, &self.relative, OFlags::WRONLY, mode).map(File::from)
    }

    /// Removes a file or a symbolic link. True: it was there.
    ///
    /// # Errors
    /// As [`Self::open`] for the directory and unlinkat(2) for the file: EISDIR for a directory.
    pub fn remove_file(&self) -> io::Result<bool> {
        self.remove(AtFlags::empty())
    }

    /// Removes an empty directory. True: it was there.
    ///
    /// # Errors
    /// As [`Self::remove_file`]; ENOTEMPTY.
    pub fn remove_directory(&self) -> io::Result<bool> {
        self.remove(AtFlags::REMOVEDIR)
    }

    fn remove(&self, flags: AtFlags) -> io::Result<bool> {
        let (Some(parent), Some(name)) = (self.relative.parent(), self.relative.file_name()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the root of a copy cannot be removed"));
        };
        let removed = open_beneath(self.root, parent, OFlags::PATH | OFlags::DIRECTORY)
            .and_then(|parent| Ok(unlinkat(&parent, name, flags)?));
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            removed => removed.map(|()| true),
        }
    }
}

/// The volume of the event with the longest mount point that holds `path`, and the path from there.
///
/// # Errors
/// `E_INVALIDARG` for a path that is relative or has `..`; `VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT` when no volume of the
/// set holds it.
pub(crate) fn locate<'a>(volumes: &'a [EventVolume], path: &Path) -> Result<(&'a EventVolume, PathBuf), VssError> {
    let from_root = path.strip_prefix("/").ok().and_then(plain);
    let path = Path::new("/").join(from_root.ok_or_else(|| invalid(path, "is not absolute or has .. in it"))?);
    let volume = volumes
        .iter()
        .filter(|volume| path.starts_with(&volume.volume))
        .max_by_key(|volume| volume.volume.components().count());
    let found = volume.and_then(|volume| Some((volume, path.strip_prefix(&volume.volume).ok()?.to_owned())));
    found.ok_or_else(|| {
        let message = format!("No volume of the shadow copy set holds {}", path.display());
        VssError::new(VssCode::WriterErrorInconsistentSnapshot, message)
            .with_hint("Add the volume that it lies on to the backup")
    })
}

/// The path without `.`; none when it is absolute or has `..`.
fn plain(path: &Path) -> Option<PathBuf> {
    let named = path.components().filter(|part| *part != Component::CurDir);
    named.map(|part| if let Component::Normal(name) = part { Some(name) } else { None }).collect()
}

fn invalid(path: &Path, why: &str) -> VssError {
    VssError::new(VssCode::InvalidArgument, format!("The path \"{}\" {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Call, fake_service};
    use std::fs;
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::Duration;
    use vss_api::writer::{Event, EventKind};

    /// An event with volumes at these places, each with the directory of its index.
    fn event(places: &[&str]) -> Event {
        let mut event = fake_service::event(Path::new("/"), Duration::from_secs(5));
        let volume = event.volumes.remove(0);
        event.volumes = (0u32..)
            .zip(places)
            .map(|(index, place)| EventVolume { volume: place.into(), directory: Some(index), ..volume.clone() })
            .collect();
        event
    }

    fn directories(places: &[&Path]) -> Vec<OwnedFd> {
        places.iter().map(|place| File::open(place).unwrap().into()).collect()
    }

    #[test]
    fn the_longest_mount_point_wins_by_whole_names() {
        let event = event(&["/", "/srv", "/srv/pg"]);
        let located = |path: &str| {
            let (volume, relative) = locate(&event.volumes, Path::new(path)).unwrap();
            (volume.volume.to_str().unwrap().to_owned(), relative)
        };
        assert_eq!(located("/srv/pg/base/1"), ("/srv/pg".to_owned(), PathBuf::from("base/1")));
        assert_eq!(located("/srv/pgwal"), ("/srv".to_owned(), PathBuf::from("pgwal")));
        assert_eq!(located("/srv2/./a//b/"), ("/".to_owned(), PathBuf::from("srv2/a/b")));
        assert_eq!(located("/srv"), ("/srv".to_owned(), PathBuf::new()));
    }

    #[test]
    fn what_no_volume_holds_is_refused_with_the_way_out() {
        let event = event(&["/srv"]);
        let error = locate(&event.volumes, Path::new("/var/lib/x")).unwrap_err();
        assert_eq!(error.code, VssCode::WriterErrorInconsistentSnapshot);
        assert!(error.message.contains("/var/lib/x") && error.hint.contains("Add the volume"), "{error}");
        for path in ["srv/x", "/srv/../etc/passwd", ""] {
            assert_eq!(locate(&event.volumes, Path::new(path)).unwrap_err().code, VssCode::InvalidArgument, "{path}");
        }
    }

    #[test]
    fn files_of_the_copy_are_read_made_and_removed() {
        let copy = tempfile::tempdir().unwrap();
        fs::create_dir(copy.path().join("pg")).unwrap();
        fs::write(copy.path().join("pg/old"), "old").unwrap();
        let (event, directories) = (event(&["/srv"]), directories(&[copy.path()]));
        let call = Call::new(EventKind::PostSnapshot, &event).with_directories(&directories);
        let pg = call.in_copy(Path::new("/srv/pg")).unwrap();
        assert_eq!(pg.relative(), Path::new("pg"));
        assert!(pg.open(OFlags::RDONLY | OFlags::DIRECTORY).unwrap().metadata().unwrap().is_dir());
        let label = pg.join("label").unwrap();
        label.create(Mode::RUSR | Mode::WUSR).unwrap().write_all(b"here").unwrap();
        let made = copy.path().join("pg/label");
        assert_eq!(fs::read_to_string(&made).unwrap(), "here");
        assert_eq!(fs::metadata(&made).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(label.create(Mode::RUSR).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let old = pg.join("old").unwrap();
        assert_eq!(io::read_to_string(old.open(OFlags::RDONLY).unwrap()).unwrap(), "old");
        assert!(old.remove_file().unwrap() && !old.remove_file().unwrap());
        assert!(pg.remove_directory().is_err() && label.remove_file().unwrap() && pg.remove_directory().unwrap());
        assert!(call.in_copy(Path::new("/srv")).unwrap().remove_directory().is_err());
    }

    #[test]
    fn no_link_and_no_dots_lead_out_of_the_copy() {
        let (copy, live) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(live.path().join("file"), "live").unwrap();
        symlink(live.path(), copy.path().join("directory")).unwrap();
        symlink(live.path().join("file"), copy.path().join("file")).unwrap();
        let (event, directories) = (event(&["/srv"]), directories(&[copy.path()]));
        let call = Call::new(EventKind::PostSnapshot, &event).with_directories(&directories);
        for path in ["/srv/file", "/srv/directory/file", "/srv/directory"] {
            let path = call.in_copy(Path::new(path)).unwrap();
            let error = path.open(OFlags::RDONLY).unwrap_err();
            assert_eq!(
                error.raw_os_error(),
                Some(rustix::io::Errno::LOOP.raw_os_error()),
                "{}",
                path.relative().display()
            );
        }
        assert!(call.in_copy(Path::new("/srv/directory/new")).unwrap().create(Mode::RUSR).is_err());
        assert!(call.in_copy(Path::new("/srv/directory/file")).unwrap().remove_file().is_err());
        // The link itself belongs to the copy.
        assert!(call.in_copy(Path::new("/srv/file")).unwrap().remove_file().unwrap());
        assert_eq!(fs::read_to_string(live.path().join("file")).unwrap(), "live");
        assert!(call.in_copy(Path::new("/srv")).unwrap().join("../etc").is_err());
        assert!(call.in_copy(Path::new("/srv")).unwrap().join("/etc").is_err());
    }

    #[test]
    fn a_copy_that_cannot_be_written_to_is_told() {
        let mut event = event(&["/srv"]);
        event.volumes[0].directory = None;
        let error = Call::new(EventKind::PostSnapshot, &event).in_copy(Path::new("/srv/x")).unwrap_err();
        assert_eq!(error.code, VssCode::WriterErrorRecoveryFailed);
        // An index without its descriptor is the service's mistake, not a panic.
        event.volumes[0].directory = Some(7);
        assert!(Call::new(EventKind::PostSnapshot, &event).in_copy(Path::new("/srv/x")).is_err());
    }
}
