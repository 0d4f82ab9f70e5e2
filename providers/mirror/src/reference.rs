//! For tests: what the volume was in the hold, read a second time, whole, by another way than the copy's.
//!
//! It is kept in memory, because nothing is written in a hold, and written out afterwards as the sparse file
//! `<shadow-id>.reference`: what is a hole in it was free.

use crate::{copier::Origin, member::bytes, source::Source, used};
use std::{fs::File, os::unix::fs::FileExt, path::Path};
use vss_linux::{fsmap::SpaceMap, pages::Pages};
use vss_model::{ShadowId, VssError};
use vss_provider::failure::failed;
use vss_trace::Bitmap;

/// Largest read.
const PIECE: u64 = 1 << 20;

/// Everything in use, by place.
#[derive(Debug)]
pub(crate) struct Reference(Vec<(u64, Pages)>);

impl Reference {
    /// Reads it. In the hold.
    pub(crate) fn read(source: &Source, map: &mut SpaceMap, chunk: u64, chunks: u64) -> Result<Self, VssError> {
        let (mut in_use, mut free) = (Bitmap::new(chunks), Bitmap::new(chunks));
        in_use.set(0..chunks);
        used::free_now(source, map, chunk, &mut free)?;
        in_use.subtract(&free);
        let mut read = Vec::new();
        for run in in_use.runs() {
            let mut run = bytes(run, chunk, source.size);
            while run.start < run.end {
                let length = (run.end - run.start).min(PIECE);
                let mut pages = Pages::new(length as usize, false)
                    .map_err(|error| failed("There is no memory for the reference", &error))?;
                source.read(&mut pages, run.start).map_err(|error| source.unreadable(run.start, &error))?;
                read.push((run.start, pages));
                run.start += length;
            }
        }
        Ok(Self(read))
    }

    /// Writes it into `directory`. After the hold.
    pub(crate) fn write(&self, directory: &Path, shadow_id: ShadowId, size: u64) -> Result<(), VssError> {
        let path = directory.join(format!("{shadow_id}.reference"));
        let written = || -> std::io::Result<()> {
            let file = File::create(&path)?;
            file.set_len(size.next_multiple_of(4096))?;
            self.0.iter().try_for_each(|(offset, pages)| file.write_all_at(pages, *offset))
        };
        written().map_err(|error| failed(format!("{} cannot be written", path.display()), &error))
    }
}
