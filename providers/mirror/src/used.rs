//! Which blocks of a volume are in use, in chunks: everything but what the file system calls free, swap files and the image
//! itself.
//!
//! **Why free chunks need not be read, also in the hold.** A chunk is left out when the file system called it free *after*
//! the chunk's bit was taken. Whoever allocates it later writes to it later, and that write sets the bit again; what is
//! allocated and never written is read as zeroes by the file system, whatever lies there. So a bit that was taken before the
//! question may wait, and a bit that appears after it is read, without another question.

use crate::source::Source;
use std::{fs::File, ops::Range};
use vss_linux::{fiemap, fsmap::FreeSpace, swaps};
use vss_model::VssError;
use vss_provider::failure::failed;
use vss_trace::Bitmap;

/// The chunks that lie wholly in these bytes.
pub(crate) fn inner(bytes: &Range<u64>, chunk: u64) -> Range<u64> {
    bytes.start.div_ceil(chunk)..bytes.end / chunk
}

/// Puts into `free` the chunks that are wholly free now. Allocates nothing; works while the volume is frozen.
pub(crate) fn free_now(source: &Source, map: &mut FreeSpace, chunk: u64, free: &mut Bitmap) -> Result<(), VssError> {
    free.clear_all();
    source.free(map, |run| free.set(inner(&run, chunk)))
}

/// The chunks of files whose blocks are not copied: those of swap files, to which the kernel writes also while the volume is
/// frozen, and those of `images` on the volume itself.
pub(crate) fn excluded<'a>(
    source: &Source,
    images: impl Iterator<Item = &'a File>,
    chunk: u64,
    excluded: &mut Bitmap,
) -> Result<(), VssError> {
    excluded.clear_all();
    let areas = swaps::swaps().unwrap_or_default();
    for area in areas.iter().filter(|area| area.is_file && area.path.starts_with(&source.mount_point)) {
        let cannot =
            |error: &std::io::Error| failed(format!("The swap file {} cannot be examined", area.path.display()), error);
        let file = File::open(&area.path).map_err(|error| cannot(&error))?;
        let found = rustix::fs::fstat(&file).map_err(|error| cannot(&error.into()))?;
        if found.st_dev == source.device_number {
            add(&file, chunk, excluded).map_err(|error| cannot(&error))?;
        }
    }
    for image in images {
        add(image, chunk, excluded).map_err(|error| failed("The place of the image cannot be examined", &error))?;
    }
    Ok(())
}

fn add(file: &File, chunk: u64, excluded: &mut Bitmap) -> std::io::Result<()> {
    for piece in fiemap::pieces(file)? {
        // A chunk that it shares with others is copied.
        if let Some(physical) = piece.physical {
            excluded.set(inner(&physical, chunk));
        }
    }
    Ok(())
}
