//! Which blocks of a volume are in use, in chunks: everything but what the file system calls free, swap files and the images
//! themselves.
//!
//! **Why free chunks need not be read, also in the hold.** A chunk is left out when the file system called it free *after*
//! the chunk's bit was taken. Whoever allocates it later writes to it later, and that write sets the bit again; what is
//! allocated and never written is read as zeroes by the file system, whatever lies there. So a bit that was taken before the
//! question may wait, and a bit that appears after it is read, without another question.
//!
//! **Why chunks of images need not be read.** No file needs them but images, as long as no other shares them. Whoever
//! deduplicates (FIDEDUPERANGE) or copies an image (`cp --reflink`) makes a file share them, and nothing is written then that
//! could be marked. So what an image shares is left out only where the file system names images as its owners and nobody
//! else, and what was left out stays marked. Where it names none (XFS without rmapbt) what is shared is read, and copies on the
//! volume itself share nothing (`place.rs`).

use crate::source::Source;
use std::{fs::File, ops::Range};
use vss_linux::{
    fiemap,
    fsmap::{self, Owner, SpaceMap},
    swaps,
};
use vss_model::VssError;
use vss_provider::failure::failed;
use vss_trace::Bitmap;

/// The chunks that lie wholly in these bytes.
pub(crate) fn inner(bytes: &Range<u64>, chunk: u64) -> Range<u64> {
    bytes.start.div_ceil(chunk)..bytes.end / chunk
}

/// The chunks that have any of these bytes.
fn outer(bytes: &Range<u64>, chunk: u64) -> Range<u64> {
    bytes.start / chunk..bytes.end.div_ceil(chunk)
}

/// Puts into `free` the chunks that are wholly free now. Allocates nothing; works while the volume is frozen.
pub(crate) fn free_now(source: &Source, map: &mut SpaceMap, chunk: u64, free: &mut Bitmap) -> Result<(), VssError> {
    free.clear_all();
    source.owners(map, |owner, run| {
        if owner == Owner::Nobody {
            free.set(inner(&run, chunk));
        }
    })
}

/// The chunks of files whose blocks are not copied: those of swap files, to which the kernel writes also while the volume is
/// frozen, and those of `images` on the volume itself.
pub(crate) fn excluded<'a>(
    source: &Source,
    images: impl Iterator<Item = &'a File>,
    map: &mut SpaceMap,
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
            for piece in fiemap::pieces(&file).map_err(|error| cannot(&error))? {
                set(excluded, piece.physical, chunk);
            }
        }
    }
    let cannot = |error: &std::io::Error| failed("The place of an image cannot be examined", error);
    let mut owners = Vec::new();
    let mut shared = None;
    for image in images {
        owners.push(rustix::fs::fstat(image).map_err(|error| cannot(&error.into()))?.st_ino);
        for piece in fiemap::pieces(image).map_err(|error| cannot(&error))? {
            let chunks = match piece.is_shared {
                true => shared.get_or_insert_with(|| Bitmap::new(excluded.chunks())),
                false => &mut *excluded,
            };
            set(chunks, piece.physical, chunk);
        }
    }
    let Some(mut shared) = shared else { return Ok(()) };
    // Images that were just deleted are nobody's.
    fsmap::end_deletions(&source.directory).map_err(|error| cannot(&error))?;
    source.owners(map, |owner, run| {
        let is_needed = match owner {
            Owner::Nobody => false,
            Owner::File(inode) => !owners.contains(&inode),
            Owner::Other => true,
        };
        if is_needed {
            shared.clear(outer(&run, chunk));
        }
    })?;
    excluded.union(&shared);
    Ok(())
}

fn set(chunks: &mut Bitmap, bytes: Option<Range<u64>>, chunk: u64) {
    if let Some(bytes) = bytes {
        chunks.set(inner(&bytes, chunk));
    }
}
