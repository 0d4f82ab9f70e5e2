//! Small files of which a power cut leaves the old one or the new one, whole: a checksum, then JSON, written beside the old one
//! and put in its place. On btrfs one that need not last may be short then, which its checksum tells.

use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::AsFd,
};
use vss_linux::write_back::write_back;
use vss_model::VssError;
use vss_provider::failure::failed;

/// Largest file that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// What a file says.
#[derive(Debug)]
pub(crate) enum Found<T> {
    /// This.
    Whole(T),
    /// There is none.
    None,
    /// It is there and is not what was written.
    Damaged,
}

/// Writes `value` as the file `name` of `directory`; `lasting`: when this returns it is on the disk.
pub(crate) fn write(directory: impl AsFd, name: &str, value: &impl Serialize, lasting: bool) -> Result<(), VssError> {
    let text =
        serde_json::to_vec(value).map_err(|error| failed(format!("{name} cannot be written down"), &error.into()))?;
    let mut bytes = format!("{:08x}\n", crc32c::crc32c(&text)).into_bytes();
    bytes.extend(text);
    replace(directory, name, &bytes, lasting).map_err(|error| failed(format!("{name} cannot be written"), &error))
}

/// Puts these bytes in the place of the file `name`; `lasting`: down to the disk.
pub(crate) fn replace(directory: impl AsFd, name: &str, bytes: &[u8], lasting: bool) -> io::Result<()> {
    let new = format!("{name}.new");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(&directory, &new, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(bytes)?;
    // The new name must not come to the disk before the bytes.
    if lasting { file.sync_all() } else { write_back(&file) }?;
    rustix::fs::renameat(&directory, &new, &directory, name)?;
    if lasting {
        rustix::fs::fsync(directory)?;
    }
    Ok(())
}

/// Reads the file `name` of `directory`.
pub(crate) fn read<T: DeserializeOwned>(directory: impl AsFd, name: &str) -> Result<Found<T>, VssError> {
    let cannot = |error: io::Error| failed(format!("{name} cannot be read"), &error);
    let file =
        match rustix::fs::openat(directory, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(Found::None),
            Err(error) => return Err(cannot(error.into())),
        };
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes).map_err(cannot)?;
    Ok(parse(&bytes).map_or(Found::Damaged, Found::Whole))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (sum, text) = bytes.split_at_checked(9)?;
    let sum = std::str::from_utf8(sum).ok()?.strip_suffix('\n')?;
    let is_whole = u32::from_str_radix(sum, 16).ok()? == crc32c::crc32c(text);
    is_whole.then(|| serde_json::from_slice(text).ok())?
}

/// Removes the file `name`; false when there was none.
pub(crate) fn remove(directory: impl AsFd, name: &str) -> Result<bool, VssError> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(failed(format!("{name} cannot be removed"), &error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_was_changed_is_not() {
        let place = tempfile::tempdir().unwrap();
        let directory = File::open(place.path()).unwrap();
        let read = || read::<Vec<u64>>(&directory, "x");
        assert!(matches!(read(), Ok(Found::None)));
        for lasting in [false, true] {
            let value = vec![1_u64, u64::from(lasting)];
            write(&directory, "x", &value, lasting).unwrap();
            assert!(matches!(read(), Ok(Found::Whole(found)) if found == value));
        }
        let mut bytes = std::fs::read(place.path().join("x")).unwrap();
        bytes[10] ^= 1;
        std::fs::write(place.path().join("x"), &bytes).unwrap();
        assert!(matches!(read(), Ok(Found::Damaged)));
        std::fs::write(place.path().join("x"), "short").unwrap();
        assert!(matches!(read(), Ok(Found::Damaged)));
        assert!(remove(&directory, "x").unwrap() && !remove(&directory, "x").unwrap());
    }
}
