//! Reading small files in places that others write: what a process names its directory may be anything.

use rustix::fs::{Mode, OFlags};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::Path;

/// More than any server or its tools write into one of these files, in bytes.
const MOST: u64 = 64 << 10;

/// The contents of the regular file at `path`, at most [`MOST`] bytes of it, and what it is. Neither follows a link at its end
/// nor waits for the other end of a pipe.
///
/// # Errors
/// It is not there or cannot be read; `InvalidInput` when it is no regular file.
pub(crate) fn read(path: &Path) -> io::Result<(Vec<u8>, Metadata)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is no regular file", path.display())));
    }
    let mut contents = Vec::new();
    file.take(MOST).read_to_end(&mut contents)?;
    Ok((contents, metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_never_ends_or_never_begins_is_not_read() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        fs::write(path("file"), "15\n").unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), Mode::from_raw_mode(0o600)).unwrap();
        symlink("/dev/zero", path("link")).unwrap();
        fs::write(path("long"), vec![b'1'; 1 << 20]).unwrap();
        assert_eq!(read(&path("file")).unwrap().0, b"15\n");
        assert_eq!(read(&path("long")).unwrap().0.len(), 64 << 10);
        for name in ["pipe", "link", "missing"] {
            assert!(read(&path(name)).is_err(), "{name}");
        }
        assert!(read(Path::new("/dev/zero")).is_err());
    }
}
