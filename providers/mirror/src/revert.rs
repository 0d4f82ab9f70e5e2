//! Putting a volume back to a copy: blocks in use in the copy that differ on the volume's device are written back.
//!
//! Before the first write a note is made beside what is remembered of the mirror, `mirror/<volume>.revert`, and it is removed
//! when everything is on the disk. While it is there the volume is neither the one nor the other: this provider copies it not,
//! and the same call again ends what was begun. The tracer sees the writes, so the mirror stays right.

use crate::{
    changes::Changes,
    copier::{Origin, Pace, Round, Way},
    device::{self, Attachment},
    kept,
    member::bytes,
    provider::MirrorProvider,
    reading,
    teller::Teller,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs::File,
    io,
    sync::{Mutex, PoisonError},
    time::Instant,
};
use vss_linux::{
    aio::{self, Queue},
    block_device,
};
use vss_model::{ShadowId, Volume, VssCode, VssError};
use vss_provider::{
    StoredCopy,
    failure::failed,
    image_copy,
    progress::{Watcher, Work},
    revert::{Left, Revert, Reverted},
};

/// A revert that was begun and not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// The copy that the volume is put back to.
    pub(crate) shadow_id: ShadowId,
    /// The device that is written.
    device: Attachment,
    /// Its [`device::superblock`] before that.
    superblock: [u8; 32],
}

/// The volumes that are put back now, by key.
#[derive(Debug, Default)]
pub(crate) struct Running(Mutex<BTreeSet<String>>);

impl Running {
    fn begin(&self, key: &str) -> Option<Run<'_>> {
        let is_new = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned());
        is_new.then(|| Run { running: self, key: key.to_owned() })
    }
}

/// One of them, until it is dropped.
struct Run<'a> {
    running: &'a Running,
    key: String,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.running.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// The image of a copy, as it is read.
struct Image(File);

impl Origin for Image {
    fn read_all(&self, queue: &mut Queue, pieces: &mut [(&mut [u8], u64)]) -> Result<(), aio::Failed> {
        queue.read(&self.0, pieces)
    }

    fn unreadable(&self, offset: u64, error: &io::Error) -> VssError {
        failed(format!("The image of the shadow copy cannot be read at byte {offset}"), error)
    }
}

impl MirrorProvider {
    /// Refuses while the volume is being put back, or that was broken off.
    ///
    /// # Errors
    /// `VSS_E_REVERT_IN_PROGRESS`.
    pub(crate) fn check_is_not_reverted(&self, volume: &Volume) -> Result<(), VssError> {
        match self.registry.note(&kept::key(&volume.id))? {
            Some(note) => Err(VssError::new(
                VssCode::RevertInProgress,
                format!(
                    "The revert of {} to shadow copy {} is not finished",
                    volume.mount_point.display(),
                    note.shadow_id
                ),
            )
            .with_hint(format!(
                "Unmount it and end the revert: vss revert {0}; or leave it as it is: vss revert {0} --give-up",
                note.shadow_id
            ))),
            None => Ok(()),
        }
    }
}

fn in_progress(volume: &Volume, shadow_id: ShadowId) -> VssError {
    VssError::new(
        VssCode::RevertInProgress,
        format!("{} is being put back to shadow copy {shadow_id}", volume.mount_point.display()),
    )
    .with_hint("Wait until it is finished")
}

impl Revert for MirrorProvider {
    fn revert(&self, copy: &StoredCopy, watcher: &dyn Watcher) -> Result<Reverted, VssError> {
        let (volume, shadow_id) = (&copy.volume, copy.shadow_id);
        let key = kept::key(&volume.id);
        let _run = self.reverting.begin(&key).ok_or_else(|| in_progress(volume, shadow_id))?;
        let note = self.registry.note(&key)?;
        if let Some(note) = note.as_ref().filter(|note| note.shadow_id != shadow_id) {
            let hint =
                format!("End that first: vss revert {0}; or give it up: vss revert {0} --give-up", note.shadow_id);
            return Err(in_progress(volume, note.shadow_id).with_hint(hint));
        }
        let (_place, store) = Self::reach(copy)?;
        let store = store.ok_or_else(|| image_copy::gone(shadow_id))?;
        let image = reading::open(&store, shadow_id)?;
        let changes = Changes::load(&store, shadow_id)?.ok_or_else(|| {
            VssError::new(
                VssCode::ProviderVeto,
                format!("Which blocks are in use in shadow copy {shadow_id} is not known any more: its file is damaged or gone"),
            )
            .with_hint("Mount the copy and copy its files")
        })?;
        let path = device::find(volume, note.as_ref().map(|note| &note.device))?;
        let device = device::claim(&path)?;
        let cannot = |what: &str, error: &io::Error| failed(format!("{} cannot be {what}", path.display()), error);
        let size = block_device::size(&device).map_err(|error| cannot("examined", &error))?;
        if size != changes.about.volume_bytes {
            return Err(VssError::new(
                VssCode::ProviderVeto,
                format!(
                    "{} has {size} bytes, and shadow copy {shadow_id} has {}",
                    path.display(),
                    changes.about.volume_bytes
                ),
            )
            .with_hint("Give the device the size that it had, or mount the copy and copy its files"));
        }
        let noted = || Ok((Attachment::of(&path)?, device::superblock(&File::open(&path)?)?));
        let (attachment, superblock) = noted().map_err(|error| cannot("examined", &error))?;
        self.registry.put_note(&key, &Note { shadow_id, device: attachment, superblock })?;
        let reverted = write_back(&changes, &Image(image), &device, shadow_id, watcher)?;
        device.sync_all().map_err(|error| cannot("written back", &error))?;
        self.registry.remove_note(&key)?;
        Ok(reverted)
    }

    fn left(&self, copy: &StoredCopy) -> Result<Left, VssError> {
        let (volume, shadow_id) = (&copy.volume, copy.shadow_id);
        let note = self.registry.note(&kept::key(&volume.id))?;
        let Some(note) = note.filter(|note| note.shadow_id == shadow_id) else { return Ok(Left::Nothing) };
        let path = device::find(volume, Some(&note.device))?;
        // It says when it was mounted; an XFS says so when it is unmounted, and after a power cut perhaps not.
        if volume.fs_type != "ext4" && !note.device.is_still_there() {
            return Ok(Left::Touched(format!(
                "whether the {} on {} was mounted since cannot be told, because the machine was started anew or the disk \
                 was attached anew",
                volume.fs_type,
                path.display()
            )));
        }
        let (_place, store) = Self::reach(copy)?;
        let image = reading::open(&store.ok_or_else(|| image_copy::gone(shadow_id))?, shadow_id)?;
        let found = || Ok((device::superblock(&File::open(&path)?)?, device::superblock(&image)?));
        let (now, wanted) = found().map_err(|error| failed(format!("{} cannot be read", path.display()), &error))?;
        Ok(if now == note.superblock || now == wanted {
            Left::Untouched
        } else {
            Left::Touched(format!("the {} on {} was mounted or repaired since", volume.fs_type, path.display()))
        })
    }

    fn give_up(&self, copy: &StoredCopy) -> Result<(), VssError> {
        let key = kept::key(&copy.volume.id);
        let _run = self.reverting.begin(&key).ok_or_else(|| in_progress(&copy.volume, copy.shadow_id))?;
        match self.registry.note(&key) {
            Ok(None) => Ok(()),
            Ok(Some(note)) if note.shadow_id != copy.shadow_id => Ok(()),
            // One that is damaged goes too: which copy it is of, the service knows.
            Ok(Some(_)) | Err(_) => self.registry.remove_note(&key),
        }
    }
}

fn write_back(
    changes: &Changes,
    image: &Image,
    device: &File,
    shadow_id: ShadowId,
    watcher: &dyn Watcher,
) -> Result<Reverted, VssError> {
    let (chunk, size) = (changes.about.chunk, changes.about.volume_bytes);
    let (total, began, teller) = (changes.used.count() * chunk, Instant::now(), Teller::new(watcher));
    let step = |done: u64| {
        teller.tell(shadow_id, Work::Reverting, 1, done, total, began.elapsed());
        Ok(())
    };
    // From now on an error leaves the volume half written.
    step(0)?;
    let pace = Pace::new(None);
    let round = Round {
        from: image,
        to: device,
        to_size: size,
        way: Way::Compare,
        pace: &pace,
        steps_back_on: None,
        step: &step,
    };
    let copied = round.run(changes.used.runs().map(|run| bytes(run, chunk, size)))?;
    Ok(Reverted { compared_bytes: copied.read, written_bytes: copied.written })
}
