//! Writing an image of the copier back to the device that it was copied from.

use super::{ALIGNMENT, BlockCopyProvider, CHUNK, blocks::BLOCK, size_of};
use crate::{
    StoredCopy,
    failure::{failed, is},
    progress::{Progress, Watcher, Work},
    revert::{Left, Revert, Reverted},
};
use rustix::{fs::OFlags, io::Errno};
use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::{Mutex, PoisonError},
};
use vss_linux::fs_uuid;
use vss_model::{Volume, VolumeId, VssCode, VssError};

/// The volumes that are being reverted.
pub(super) type Reverting = Mutex<Vec<VolumeId>>;

/// One volume among them, until it is dropped.
struct Turn<'a>(&'a Reverting, &'a VolumeId);

impl<'a> Turn<'a> {
    fn take(reverting: &'a Reverting, volume: &'a Volume) -> Result<Self, VssError> {
        let mut running = reverting.lock().unwrap_or_else(PoisonError::into_inner);
        if running.contains(&volume.id) {
            let message = format!("{} is being reverted", volume.mount_point.display());
            return Err(VssError::new(VssCode::RevertInProgress, message));
        }
        running.push(volume.id.clone());
        Ok(Self(reverting, &volume.id))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|id| id != self.1);
    }
}

impl Revert for BlockCopyProvider {
    fn revert(&self, copy: &StoredCopy, watcher: &dyn Watcher) -> Result<Reverted, VssError> {
        let volume = &copy.volume;
        let _turn = Turn::take(&self.reverting, volume)?;
        let (image, size) = self.image(copy)?;
        let device = open(volume)?;
        let device_size = size_of(&device).map_err(|error| failed(format!("{} has no size", volume.source), &error))?;
        if device_size != size {
            let message = format!("{} has {device_size} bytes, and the copy {size}", volume.source);
            return Err(VssError::new(VssCode::ProviderVeto, message));
        }
        let tell = |bytes_done| {
            watcher.progress(Progress {
                shadow_id: copy.shadow_id,
                work: Work::Reverting,
                round: 1,
                bytes_done,
                bytes_total: size,
                copy_rate: None,
                dirty_rate: None,
                hold_ms: None,
                left_ms: None,
            });
        };
        write_back(&image, &device, size, tell)
            .map_err(|error| failed(format!("{} cannot be written", volume.source), &error))
    }

    fn left(&self, _copy: &StoredCopy) -> Result<Left, VssError> {
        // Nothing is noted that would tell; whoever tests with this lets nobody write.
        Ok(Left::Untouched)
    }

    fn give_up(&self, copy: &StoredCopy) -> Result<(), VssError> {
        // Nothing is remembered of one that is over.
        Turn::take(&self.reverting, &copy.volume).map(|_| ())
    }
}

/// The device of the volume, for ourselves alone: the kernel lets nobody mount it meanwhile.
fn open(volume: &Volume) -> Result<File, VssError> {
    let path = Path::new(&volume.source);
    let gone = |what: &str| VssError::new(VssCode::ObjectNotFound, format!("{} {what}", volume.source));
    let uuid = fs_uuid::of_device(path, &volume.fs_type).map_err(|error| gone(&format!("cannot be read: {error}")))?;
    if uuid.is_none_or(|uuid| uuid.to_string() != volume.uuid) {
        return Err(gone(&format!("holds another file system now than {}", volume.id)));
    }
    let flags = (OFlags::DIRECT | OFlags::EXCL).bits().cast_signed();
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).map_err(|error| {
        if is(&error, Errno::BUSY) {
            return VssError::new(VssCode::ProviderVeto, format!("{} is mounted or in use", volume.source));
        }
        if error.kind() == ErrorKind::NotFound { gone("is gone") } else { failed(path.display(), &error) }
    })
}

/// Past the page cache of the device, as the copy was read.
fn write_back(image: &File, device: &File, size: u64, tell: impl Fn(u64)) -> io::Result<Reverted> {
    let (mut wanted, mut found) = (vec![0; CHUNK + ALIGNMENT], vec![0; CHUNK + ALIGNMENT]);
    let begin = |buffer: &[u8]| buffer.as_ptr().align_offset(ALIGNMENT);
    let (wanted_at, found_at) = (begin(&wanted), begin(&found));
    let mut reverted = Reverted { compared_bytes: 0, written_bytes: 0 };
    while reverted.compared_bytes < size {
        let offset = reverted.compared_bytes;
        tell(offset);
        let length = usize::try_from(size - offset).map_or(CHUNK, |rest| rest.min(CHUNK));
        let (wanted, found) = (&mut wanted[wanted_at..][..length], &mut found[found_at..][..length]);
        image.read_exact_at(wanted, offset)?;
        device.read_exact_at(found, offset)?;
        for (number, (wanted, found)) in wanted.chunks(BLOCK).zip(found.chunks(BLOCK)).enumerate() {
            if wanted != found {
                device.write_all_at(wanted, offset + (number * BLOCK) as u64)?;
                reverted.written_bytes += wanted.len() as u64;
            }
        }
        reverted.compared_bytes += length as u64;
    }
    device.sync_all()?;
    tell(size);
    Ok(reverted)
}
