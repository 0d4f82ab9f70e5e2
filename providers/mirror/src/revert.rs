//! Putting a volume back to a copy: blocks in use in the copy that differ on the volume's device are written back.
//!
//! Before the first write a note is made beside what is remembered of the mirror, `mirror/<volume>.revert`, and it is removed
//! when everything is on the disk. While it is there the volume is neither the one nor the other: this provider copies it not,
//! and the same call again ends what was begun. The tracer sees the writes, so the mirror stays right.

use crate::{
    changes::Changes,
    copier::{Origin, Pace, Round, Way},
    kept,
    member::bytes,
    provider::MirrorProvider,
    teller::Teller,
};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Instant,
};
use vss_linux::{
    aio::{self, Queue},
    block_device, fs_uuid, mountinfo,
};
use vss_model::{ShadowId, Volume, VssCode, VssError};
use vss_provider::{
    StoredCopy,
    failure::failed,
    image_copy, outer,
    progress::{Watcher, Work},
    revert::{Revert, Reverted},
};

/// A revert that was begun and not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// The copy that the volume is put back to.
    pub(crate) shadow_id: ShadowId,
    /// The device that is written.
    #[serde(with = "vss_model::path_text")]
    device: PathBuf,
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
            .with_hint(format!("Unmount it and end the revert: vss revert {}", note.shadow_id))),
            None => Ok(()),
        }
    }
}

impl Revert for MirrorProvider {
    fn revert(&self, copy: &StoredCopy, watcher: &dyn Watcher) -> Result<Reverted, VssError> {
        let (volume, shadow_id) = (&copy.volume, copy.shadow_id);
        let key = kept::key(&volume.id);
        let in_progress = |shadow_id: ShadowId| {
            VssError::new(
                VssCode::RevertInProgress,
                format!("{} is being put back to shadow copy {shadow_id}", volume.mount_point.display()),
            )
        };
        let _run =
            self.reverting.begin(&key).ok_or_else(|| in_progress(shadow_id).with_hint("Wait until it is finished"))?;
        let note = self.registry.note(&key)?;
        if let Some(note) = note.as_ref().filter(|note| note.shadow_id != shadow_id) {
            return Err(in_progress(note.shadow_id).with_hint(format!("End that first: vss revert {}", note.shadow_id)));
        }
        let (_place, store) = Self::reach(copy)?;
        let store = store.ok_or_else(|| image_copy::gone(shadow_id))?;
        let image = image_copy::open_finished(&store, shadow_id)?;
        let changes = Changes::load(&store, shadow_id)?.ok_or_else(|| {
            VssError::new(
                VssCode::ProviderVeto,
                format!("Which blocks are in use in shadow copy {shadow_id} is not known any more: its file is damaged or gone"),
            )
            .with_hint("Mount the copy and copy its files")
        })?;
        let (path, device) = open_device(volume, note.as_ref())?;
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
        self.registry.put_note(&key, &Note { shadow_id, device: path.clone() })?;
        let reverted = write_back(&changes, &Image(image), &device, shadow_id, watcher)?;
        device.sync_all().map_err(|error| cannot("written back", &error))?;
        self.registry.remove_note(&key)?;
        Ok(reverted)
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

/// The volume's device when it has another name than before, as disks and loop devices have that were attached again.
fn renamed(volume: &Volume, is_right: impl Fn(&PathBuf) -> bool) -> Result<PathBuf, VssError> {
    let entries = fs::read_dir("/sys/class/block").into_iter().flatten().flatten();
    // A leg of a RAID and a path of a multipath device have the superblock too.
    let is_part = |entry: &fs::DirEntry| {
        fs::read_dir(entry.path().join("holders")).is_ok_and(|mut holders| holders.next().is_some())
    };
    let names = entries.filter(|entry| !is_part(entry)).filter_map(|entry| entry.file_name().into_string().ok());
    let found: Vec<_> = names.map(|name| Path::new("/dev").join(name.replace('!', "/"))).filter(is_right).collect();
    match found.as_slice() {
        [] => Err(VssError::new(
            VssCode::ObjectNotFound,
            format!("The device of {} is not there", volume.mount_point.display()),
        )
        .with_hint("Attach the disk and try again")),
        [device] => Ok(device.clone()),
        [one, other, ..] => Err(VssError::new(
            VssCode::ProviderVeto,
            format!(
                "{} and {} both have the file system of {}, and it is not known which one it is",
                one.display(),
                other.display(),
                volume.mount_point.display()
            ),
        )
        .with_hint("Detach the clone and try again")),
    }
}

/// Opens the volume's device for this alone: a mounted one refuses that.
fn open_device(volume: &Volume, note: Option<&Note>) -> Result<(PathBuf, File), VssError> {
    let mounts = mountinfo::mounts().map_err(|error| failed("The mount table cannot be read", &error))?;
    let by_number = outer::device_node(volume.device_number);
    let by_name = fs::canonicalize(&volume.source).ok();
    // While it is neither the one nor the other its superblock may be so too.
    let noted = note.map(|note| note.device.clone());
    let has_uuid = |device: &Path| {
        let is_noted = note.is_some_and(|note| note.device == device);
        is_noted
            || matches!(fs_uuid::of_device(device, &volume.fs_type), Ok(Some(uuid)) if uuid.to_string() == volume.uuid)
    };
    let is_right = |device: &PathBuf| has_uuid(device) && !outer::is_shadow_copy(device);
    let path = match noted.into_iter().chain(by_number).chain(by_name).find(is_right) {
        Some(path) => path,
        None => renamed(volume, is_right)?,
    };
    if let Some(entry) = mounts.iter().find(|entry| outer::device_of(entry).is_some_and(|device| device == path)) {
        return Err(VssError::new(
            VssCode::ProviderVeto,
            format!("{} is mounted at {}", path.display(), entry.mount_point.display()),
        )
        .with_hint(format!("Unmount it first: umount {}", entry.mount_point.display())));
    }
    let flags = OFlags::RDWR | OFlags::EXCL | OFlags::DIRECT | OFlags::CLOEXEC;
    match rustix::fs::open(&path, flags, Mode::empty()) {
        Ok(device) => Ok((path, File::from(device))),
        Err(Errno::BUSY) => Err(VssError::new(VssCode::ProviderVeto, format!("{} is in use", path.display()))
            .with_hint("Unmount it everywhere, also in other mount namespaces, and stop what uses it")),
        Err(error) => Err(failed(format!("{} cannot be opened", path.display()), &error.into())),
    }
}
