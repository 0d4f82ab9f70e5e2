//! The live files of a file set. Symbolic links are files here, and never followed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use vss_model::{FileSet, FileSpec};

/// The files that the set names now. A directory that is not there has none.
pub(super) fn named(set: &FileSet) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting = vec![set.path.clone()];
    while let Some(directory) = waiting.pop() {
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                if set.recursive {
                    waiting.push(entry.path());
                }
            } else if set.covers(&entry.path()) {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// Deletes what the set names.
pub(super) fn delete(set: &FileSet) -> io::Result<()> {
    named(set)?.iter().try_for_each(fs::remove_file)
}

/// Copies the files of a set with an alternate path to it.
pub(super) fn spit(spec: &FileSpec) -> io::Result<()> {
    let Some(to) = &spec.alternate_path else { return Ok(()) };
    for file in named(&spec.file_set())? {
        let place = to.join(file.strip_prefix(&spec.path).unwrap_or(Path::new("")));
        if let Some(directory) = place.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::copy(&file, place)?;
    }
    Ok(())
}

/// Deletes what was copied to the alternate path.
pub(super) fn wipe(spec: &FileSpec) -> io::Result<()> {
    let Some(to) = &spec.alternate_path else { return Ok(()) };
    delete(&FileSet { path: to.clone(), ..spec.file_set() })
}
