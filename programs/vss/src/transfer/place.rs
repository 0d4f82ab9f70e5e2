//! The last step of writing a file whole: from the name under which it was written to its own, for good.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Brings `file` to disk and renames it from `beside` to `place`. When this returns no power cut takes it away.
///
/// # Errors
/// Those of fsync(2) and rename(2).
pub(crate) fn put_in_place(file: &File, beside: &Path, place: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(beside, place)?;
    let directory = place.parent().filter(|directory| !directory.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}
