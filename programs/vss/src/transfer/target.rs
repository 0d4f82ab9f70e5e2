//! What a stream is applied to: an image file, or a device that nobody uses.

use crate::exit::system_error;
use rustix::fs::{FallocateFlags, FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use vss_linux::{block_device, device_use, loop_device};
use vss_model::{VssCode, VssError};

/// Bytes of zeroes that are written at once, where the kernel cannot make them.
const ZEROES: usize = 1 << 20;

/// The target, open for this import alone.
#[derive(Debug)]
pub(crate) struct Target {
    file: File,
    is_device: bool,
    /// Bytes that it has.
    size: u64,
}

impl Target {
    /// True for a device that is there already; a file may be made.
    ///
    /// # Errors
    /// It is neither a file nor a block device, or cannot be looked at.
    pub(crate) fn is_device(path: &Path) -> Result<bool, VssError> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.file_type().is_block_device() => Ok(true),
            Ok(metadata) if metadata.is_file() => Ok(false),
            Ok(_) => {
                let message = format!("{} is neither a file nor a block device", path.display());
                Err(VssError::new(VssCode::InvalidArgument, message).with_hint("Name a file or a block device"))
            }
            Err(error) if error.kind() == ErrorKind::NotFound && !path.starts_with("/dev") => Ok(false),
            Err(error) => Err(system_error(format_args!("{} cannot be used", path.display()), &error)),
        }
    }

    /// Opens it, and makes a file where there is none; keeps everybody else from importing to it, and from mounting a device.
    ///
    /// # Errors
    /// `VSS_E_VOLUME_IN_USE`, naming what uses it; those of open(2).
    pub(crate) fn open(path: &Path, is_device: bool) -> Result<Self, VssError> {
        let failed = |error: io::Error| system_error(format_args!("{} cannot be opened", path.display()), &error);
        let file = if is_device {
            let used = device_use::of_device(path).map_err(failed)?;
            if !used.is_free() {
                return Err(in_use(path, &used.words()));
            }
            device_use::claim(path).map_err(failed)?
        } else {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
            file.map_err(failed)?
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(in_use(path, "another import writes to it")),
            Err(errno) => return Err(failed(errno.into())),
        }
        let size = if is_device { block_device::size(&file) } else { file.metadata().map(|metadata| metadata.len()) };
        let target = Self { file, is_device, size: size.map_err(failed)? };
        if !is_device && let Some(device) = target.shown_by(path).map_err(failed)? {
            return Err(in_use(path, &format!("{} shows it", device.display())));
        }
        Ok(target)
    }

    /// The loop device that shows the file.
    fn shown_by(&self, path: &Path) -> io::Result<Option<std::path::PathBuf>> {
        let metadata = self.file.metadata()?;
        let real = fs::canonicalize(path)?;
        let shows = |(device, backing): &(std::path::PathBuf, std::path::PathBuf)| {
            *backing == real || loop_device::shows(device, backing, (metadata.dev(), metadata.ino()))
        };
        Ok(loop_device::attached()?.into_iter().find(shows).map(|(device, _)| device))
    }

    /// True when nothing is there that could be overwritten.
    pub(crate) fn is_empty(&self) -> bool {
        !self.is_device && self.size == 0
    }

    /// The file's last modification, in seconds and nanoseconds; none of a device, which has no such thing.
    ///
    /// # Errors
    /// Those of stat(2).
    pub(crate) fn modified(&self) -> io::Result<Option<(i64, i64)>> {
        let metadata = self.file.metadata()?;
        Ok((!self.is_device).then(|| (metadata.mtime(), metadata.mtime_nsec())))
    }

    /// Makes room for a volume of this size: a file gets it, all zeroes if it is `fresh`; a device has to have it.
    ///
    /// # Errors
    /// `E_INVALIDARG` when a device is too small, or a file that is not fresh has another size.
    pub(crate) fn fit(&mut self, size: u64, fresh: bool) -> Result<(), VssError> {
        let wrong = |what: &str, hint: &str| {
            let message = format!("The volume has {size} bytes, and {what} has {}", self.size);
            Err(VssError::new(VssCode::InvalidArgument, message).with_hint(hint))
        };
        if self.is_device {
            return if self.size >= size { Ok(()) } else { wrong("the device", "Name a larger one, or a file") };
        }
        if !fresh {
            let hint = "Name the image of the same volume, or import a full stream";
            return if self.size == size { Ok(()) } else { wrong("the image", hint) };
        }
        self.file
            .set_len(0)
            .and_then(|()| self.file.set_len(size))
            .map_err(|error| system_error(format_args!("The image cannot be made {size} bytes large"), &error))?;
        self.size = size;
        Ok(())
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// Those of pread(2).
    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// Those of pwrite(2).
    pub(crate) fn write(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    /// Writes zeroes; a file gets a hole.
    ///
    /// # Errors
    /// Those of fallocate(2) and pwrite(2).
    pub(crate) fn zero(&self, mut offset: u64, mut length: u64) -> io::Result<()> {
        if self.make_hole(offset, length)? {
            return Ok(());
        }
        let zeroes = vec![0; ZEROES];
        while length > 0 {
            let part = usize::try_from(length).map_or(ZEROES, |length| length.min(ZEROES));
            self.file.write_all_at(&zeroes[..part], offset)?;
            offset += part as u64;
            length -= part as u64;
        }
        Ok(())
    }

    /// Gives back the space of what nobody needs, where that is possible.
    ///
    /// # Errors
    /// Those of fallocate(2).
    pub(crate) fn release(&self, offset: u64, length: u64) -> io::Result<()> {
        if !self.is_device {
            self.make_hole(offset, length)?;
        }
        Ok(())
    }

    /// Zeroes without writing them; false where that is not possible. A device zeroes by itself, at least by a loop of the
    /// kernel's, if the place is in whole sectors (fallocate(2) on block devices, since Linux 4.9).
    fn make_hole(&self, offset: u64, length: u64) -> io::Result<bool> {
        let how = if self.is_device { FallocateFlags::ZERO_RANGE } else { FallocateFlags::PUNCH_HOLE };
        match rustix::fs::fallocate(&self.file, how | FallocateFlags::KEEP_SIZE, offset, length) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::INVAL) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Brings everything to disk.
    ///
    /// # Errors
    /// Those of fsync(2).
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

fn in_use(path: &Path, why: &str) -> VssError {
    VssError::new(VssCode::VolumeInUse, format!("{} cannot be overwritten: {why}", path.display()))
        .with_hint("Unmount and detach it first")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_made_once_and_held_by_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        assert!(!Target::is_device(&path).unwrap());
        let mut target = Target::open(&path, false).unwrap();
        assert!(target.is_empty());
        assert_eq!(Target::open(&path, false).unwrap_err().code, VssCode::VolumeInUse);
        target.fit(10_000, true).unwrap();
        target.write(&[7; 10_000], 0).unwrap();
        target.zero(4096, 4096).unwrap();
        target.release(8192, 1808).unwrap();
        target.sync().unwrap();
        let text = fs::read(&path).unwrap();
        assert!(text[..4096] == [7; 4096] && text[4096..] == [0; 5904] && text.len() == 10_000);
        assert!(target.fit(10_001, false).is_err() && target.fit(10_000, false).is_ok());
        assert!(target.modified().unwrap().is_some());
        drop(target);
        assert!(!Target::open(&path, false).unwrap().is_empty());
    }

    #[test]
    fn what_is_neither_file_nor_device_is_refused() {
        for path in ["/dev/null", "/", "/dev/no-such-device"] {
            assert!(Target::is_device(Path::new(path)).is_err(), "{path}");
        }
    }
}
