//! The images of the copier as blocks: what differs is found by comparing.

use super::{BlockCopyProvider, CHUNK, size_of};
use crate::{
    StoredCopy,
    blocks::{ChangedBlocks, Changes, Extent, Image},
    failure::failed,
};
use std::{
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
};
use vss_model::{VssCode, VssError, extent};

/// Bytes that are compared as one.
pub(super) const BLOCK: usize = 4096;

impl BlockCopyProvider {
    /// The image of a copy and its size.
    pub(super) fn image(&self, copy: &StoredCopy) -> Result<(File, u64), VssError> {
        let path = self.file(copy.shadow_id);
        File::open(&path).and_then(|file| size_of(&file).map(|size| (file, size))).map_err(|error| {
            if error.kind() == ErrorKind::NotFound {
                return VssError::new(VssCode::ObjectNotFound, format!("There is no shadow copy {}", copy.shadow_id));
            }
            failed(format!("{} cannot be opened", path.display()), &error)
        })
    }
}

impl ChangedBlocks for BlockCopyProvider {
    fn changed(&self, copy: &StoredCopy, since: Option<&StoredCopy>) -> Result<Changes, VssError> {
        let (later, size) = self.image(copy)?;
        let Some(since) = since else {
            return Ok(Changes::Known(vec![Extent { offset: 0, length: size }]));
        };
        let (earlier, earlier_size) = self.image(since)?;
        if since.volume.id != copy.volume.id {
            let message = format!("{} and {} are copies of two volumes", since.shadow_id, copy.shadow_id);
            return Err(VssError::new(VssCode::InvalidArgument, message));
        }
        let compared = || -> io::Result<Changes> {
            if earlier.metadata()?.modified()? > later.metadata()?.modified()? {
                return Err(ErrorKind::InvalidInput.into());
            }
            if earlier_size != size {
                return Ok(Changes::Unknown("the volume had another size".to_owned()));
            }
            compare(&earlier, &later, size).map(Changes::Known)
        };
        compared().map_err(|error| match error.kind() {
            ErrorKind::InvalidInput => {
                let message = format!("Shadow copy {} is not earlier than {}", since.shadow_id, copy.shadow_id);
                VssError::new(VssCode::InvalidArgument, message)
            }
            _ => failed("Two images cannot be compared", &error),
        })
    }

    fn open(&self, copy: &StoredCopy) -> Result<Image, VssError> {
        let (file, size) = self.image(copy)?;
        Ok(Image { file, offset: 0, size, block: BLOCK as u64 })
    }
}

/// The blocks that differ.
fn compare(earlier: &File, later: &File, size: u64) -> io::Result<Vec<Extent>> {
    let (mut one, mut other) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut changed = Vec::new();
    let mut offset = 0;
    while offset < size {
        let length = usize::try_from(size - offset).map_or(CHUNK, |rest| rest.min(CHUNK));
        earlier.read_exact_at(&mut one[..length], offset)?;
        later.read_exact_at(&mut other[..length], offset)?;
        let blocks = one[..length].chunks(BLOCK).zip(other[..length].chunks(BLOCK));
        for (number, (one, other)) in blocks.enumerate() {
            if one != other {
                changed.push(Extent { offset: offset + (number * BLOCK) as u64, length: one.len() as u64 });
            }
        }
        offset += length as u64;
    }
    Ok(extent::normal(changed))
}
