//! What a fake does when it is to look like a provider that copies blocks: it takes its time, tells how far it is, heeds abort,
//! and keeps something for each volume.

use crate::{
    CopyForecast, Deletion, Forecast, PlaceForecast, PrepareRequest, progress::Watcher, storage::ShadowStorage,
};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant as Clock},
};
use vss_model::{CreationOptions, Instant, Progress, Storage, Volume, VolumeId, VssError, Work};

/// Time between two looks at the clock and at abort.
const PAUSE: Duration = Duration::from_millis(10);

/// What is told of a copying without wishes: bytes a second that are read, that are written by applications, and milliseconds.
const COPY_RATE: u64 = 310 << 20;
const DIRTY_RATE: u64 = 22 << 20;
const HOLD_MS: u64 = 80;

/// The copying that a fake makes believe.
#[derive(Debug, Clone)]
pub struct FakeCopying {
    /// Bytes of each volume.
    pub bytes: u64,
    /// How long each volume takes in `end_prepare`; half of it is the first round.
    pub time: Duration,
    /// Where images lie when the requester names no place.
    pub place: PathBuf,
    /// Storage that was not used for so long is removed when it is tended.
    pub keep: Duration,
}

impl FakeCopying {
    /// What `forecast` says.
    pub(super) fn forecast(&self, is_first: bool, options: &CreationOptions) -> Forecast {
        let storage = options.storage.clone().unwrap_or_else(|| self.place.clone());
        let copying = CopyForecast {
            work: if is_first { Work::Comparing } else { Work::Catching },
            full_compare: is_first.then(|| "nothing was traced yet".to_owned()),
            places: vec![PlaceForecast {
                storage: storage.clone(),
                bytes_needed: self.bytes,
                bytes_available: 2 * self.bytes,
            }],
            storage: Some(storage),
            rounds: Some(2),
            bytes_to_read: self.bytes,
            copy_rate: Some(options.max_rate.unwrap_or(COPY_RATE)),
            dirty_rate: Some(DIRTY_RATE),
            read_ms: Some(milliseconds(self.time)),
        };
        let hold_ms = Some(options.max_hold_ms.unwrap_or(HOLD_MS));
        Forecast { copying: Some(copying), hold_ms, ..Forecast::default() }
    }

    /// Copies one volume, unless `is_aborted`; false when it was.
    pub(super) fn copy(&self, request: &PrepareRequest, watcher: &dyn Watcher, is_aborted: impl Fn() -> bool) -> bool {
        let began = Clock::now();
        let half = (self.time / 2).max(Duration::from_nanos(1));
        loop {
            let passed = began.elapsed().min(self.time);
            let (round, work, of_round) =
                if passed < half { (1, Work::Copying, passed) } else { (2, Work::Catching, passed - half) };
            let share = (of_round.as_secs_f64() / half.as_secs_f64()).min(1.0);
            watcher.progress(Progress {
                shadow_id: request.shadow_id,
                work,
                round,
                bytes_done: part(self.bytes, share),
                bytes_total: self.bytes,
                copy_rate: Some(request.options.max_rate.unwrap_or(COPY_RATE)),
                dirty_rate: Some(DIRTY_RATE),
                hold_ms: Some(request.options.max_hold_ms.unwrap_or(HOLD_MS)),
                left_ms: Some(milliseconds(self.time - passed)),
            });
            if is_aborted() {
                return false;
            }
            if passed == self.time {
                return true;
            }
            thread::sleep(PAUSE);
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a size that nobody counts on"
)]
fn part(bytes: u64, share: f64) -> u64 {
    (bytes as f64 * share) as u64
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What a fake keeps, in memory.
#[derive(Debug)]
pub(super) struct FakeStorage {
    copying: FakeCopying,
    kept: Mutex<BTreeMap<VolumeId, Storage>>,
}

impl FakeStorage {
    pub(super) fn new(copying: FakeCopying) -> Self {
        Self { copying, kept: Mutex::default() }
    }

    pub(super) fn copying(&self) -> &FakeCopying {
        &self.copying
    }

    pub(super) fn has(&self, volume_id: &VolumeId) -> bool {
        self.kept().contains_key(volume_id)
    }

    /// A copy of this volume is finished.
    pub(super) fn keep(&self, volume: &Volume, options: &CreationOptions) {
        let place = options.storage.clone().unwrap_or_else(|| self.copying.place.clone());
        let storage = Storage {
            volume_id: volume.id.clone(),
            volume: volume.mount_point.clone(),
            place,
            used_bytes: self.copying.bytes,
            volume_bytes: self.copying.bytes,
            shadows: 1,
            last_used: Instant::now(),
            full_compare: None,
        };
        self.kept().insert(volume.id.clone(), storage);
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, BTreeMap<VolumeId, Storage>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ShadowStorage for FakeStorage {
    fn list(&self) -> Result<Vec<Storage>, VssError> {
        Ok(self.kept().values().cloned().collect())
    }

    fn remove(&self, volume_id: &VolumeId) -> Result<Deletion, VssError> {
        Ok(if self.kept().remove(volume_id).is_some() { Deletion::Deleted } else { Deletion::WasGone })
    }

    fn tend(&self) -> Result<Vec<Storage>, VssError> {
        let keep = i64::try_from(self.copying.keep.as_micros()).unwrap_or(i64::MAX);
        let is_old = |storage: &Storage| storage.last_used.after_us(keep) <= Instant::now();
        let mut kept = self.kept();
        let old: Vec<Storage> = kept.values().filter(|storage| is_old(storage)).cloned().collect();
        for storage in &old {
            kept.remove(&storage.volume_id);
        }
        Ok(old)
    }
}
