//! The file in which a writer names the parts of another file (spec R 3.8). Its contents go into the manifest.

use crate::selection::Selection;
use crate::tree::Tree;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use vss_model::partial_file::{ByteRange, ranges_in_file};
use vss_model::{VssCode, VssError, limits};

/// A larger file has more ranges than are taken: a count, and two numbers for each.
const LARGEST: u64 = 8 + 16 * limits::RANGES as u64;

/// Reads it: the live one, which the writer may have written after the cut, or else the one in the copy.
pub(crate) fn read(path: &Path, selection: &Selection, trees: &[Tree]) -> Result<Vec<ByteRange>, VssError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = match rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => in_copy(path, selection, trees),
        opened => opened.map(File::from),
    };
    let bytes = opened.and_then(contents).map_err(|error| {
        VssError::new(VssCode::InvalidArgument, format!("The ranges file {} cannot be read: {error}", path.display()))
            .with_hint("The writer of the component names it: mend the writer, or leave the component out")
    })?;
    ranges_in_file(&bytes)
}

fn in_copy(path: &Path, selection: &Selection, trees: &[Tree]) -> io::Result<File> {
    let (tree, inner) = selection.place_of(path).ok_or(io::ErrorKind::NotFound)?;
    let (parent, name) = (inner.parent().unwrap_or(&inner), inner.file_name().unwrap_or_default());
    let directory = trees[tree].directory(parent)?;
    Ok(trees[tree].file(directory.as_fd(), name)?.into())
}

fn contents(file: File) -> io::Result<Vec<u8>> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("it has more than {LARGEST} bytes")));
    }
    Ok(bytes)
}
