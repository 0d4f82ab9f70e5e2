//! What a provider tells while it copies the volumes of a set, passed on: to the operation's status at once, to followers of
//! the events once a second, and to whoever waits for the provider as a sign of life.

use crate::events::Teller;
use crate::operation::Operation;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use vss_api::event::{Event, EventKind};
use vss_api::progress::CopyProgress;
use vss_model::{Progress, SetId, ShadowId};
use vss_provider::progress::Watcher;

/// Time between two looks at the operation that differ only in numbers.
const SHOWN_EVERY: Duration = Duration::from_millis(200);
/// Time between two events.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Hears of one provider's work on one set.
#[derive(Debug)]
pub struct SetWatcher {
    operation: Operation,
    teller: Teller,
    set_id: SetId,
    provider: String,
    /// The mount points of the copies to be.
    volumes: BTreeMap<ShadowId, PathBuf>,
    heard: Mutex<Heard>,
    /// Counts what was news.
    moved: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Heard {
    /// The last news.
    last: Option<Progress>,
    shown_at: Option<Instant>,
    told_at: Option<Instant>,
    /// Nobody waits for the provider any more: what a thread that was left to itself says is of no interest.
    closed: bool,
}

impl SetWatcher {
    /// For a provider that makes the copies `volumes` of a set.
    #[must_use]
    pub fn new(
        operation: Operation,
        teller: Teller,
        set_id: SetId,
        provider: String,
        volumes: BTreeMap<ShadowId, PathBuf>,
    ) -> Self {
        let (heard, moved) = (Mutex::default(), watch::Sender::new(0));
        Self { operation, teller, set_id, provider, volumes, heard, moved }
    }

    /// Changes whenever something has moved: another volume, another round, more bytes.
    #[must_use]
    pub fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// Nobody waits any more: from now on nothing is passed on.
    pub fn close(&self) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
    }
}

impl Watcher for SetWatcher {
    fn progress(&self, progress: Progress) {
        // A copy that is not in the set is nobody's.
        let Some(volume) = self.volumes.get(&progress.shadow_id) else { return };
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.closed {
            return;
        }
        let round = |progress: &Progress| (progress.shadow_id, progress.work, progress.round);
        let is_new_round = heard.last.as_ref().is_none_or(|last| round(last) != round(&progress));
        let has_moved = is_new_round || heard.last.is_some_and(|last| last.bytes_done != progress.bytes_done);
        heard.last = Some(progress);
        if has_moved {
            self.moved.send_modify(|count| *count += 1);
        }
        let now = Instant::now();
        let is_due = |at: Option<Instant>, every| at.is_none_or(|at| now.duration_since(at) >= every);
        let (shown, told) = (is_new_round || is_due(heard.shown_at, SHOWN_EVERY), is_due(heard.told_at, TOLD_EVERY));
        if !shown && !told {
            return;
        }
        let copying = CopyProgress { volume: volume.clone(), progress };
        // Both under the lock: they neither wait nor come back here, and older news must not overtake newer ones.
        if told {
            heard.told_at = Some(now);
            self.teller.tell(Event {
                set_id: Some(self.set_id),
                provider: Some(self.provider.clone()),
                progress: Some(Box::new(copying.clone())),
                ..Event::of(EventKind::Progress)
            });
        }
        if shown {
            heard.shown_at = Some(now);
            self.operation.copying(copying);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vss_model::Work;

    fn watcher(shadow_id: ShadowId) -> SetWatcher {
        let volumes = BTreeMap::from([(shadow_id, "/srv".into())]);
        SetWatcher::new(Operation::new(), Teller::default(), SetId::random(), "fake".to_owned(), volumes)
    }

    fn progress(shadow_id: ShadowId, round: u32, bytes_done: u64) -> Progress {
        Progress {
            shadow_id,
            work: Work::Copying,
            round,
            bytes_done,
            bytes_total: 1 << 20,
            copy_rate: None,
            dirty_rate: None,
            hold_ms: None,
            left_ms: None,
        }
    }

    #[test]
    fn only_what_moves_is_a_sign_of_life() {
        let shadow_id = ShadowId::random();
        let watcher = watcher(shadow_id);
        let moved = watcher.moved();
        for (round, bytes_done, count) in [(1, 0, 1), (1, 0, 1), (1, 7, 2), (2, 7, 3), (2, 7, 3)] {
            watcher.progress(progress(shadow_id, round, bytes_done));
            assert_eq!(*moved.borrow(), count, "round {round}, {bytes_done} bytes");
        }
        watcher.progress(progress(ShadowId::random(), 9, 9));
        assert_eq!(*moved.borrow(), 3, "of another set");
    }

    #[test]
    fn a_new_round_is_shown_at_once_and_numbers_alone_now_and_then() {
        let shadow_id = ShadowId::random();
        let watcher = watcher(shadow_id);
        let shown = || watcher.operation.status().copying.map(|copying| copying.progress);
        watcher.progress(progress(shadow_id, 1, 0));
        watcher.progress(progress(shadow_id, 1, 7));
        assert_eq!(shown().unwrap().bytes_done, 0);
        std::thread::sleep(SHOWN_EVERY);
        watcher.progress(progress(shadow_id, 1, 8));
        assert_eq!(shown().unwrap().bytes_done, 8);
        watcher.progress(progress(shadow_id, 2, 0));
        assert_eq!(shown().unwrap().round, 2);
        assert_eq!(watcher.operation.status().step, "copying /srv: round 2, 0 B of 1.0 MiB");

        watcher.operation.step("getting writers ready");
        assert_eq!(shown(), None, "the next step says nothing of it");
        watcher.close();
        watcher.progress(progress(shadow_id, 3, 0));
        assert_eq!(watcher.operation.status().step, "getting writers ready", "a lost thread is not heard");
    }
}
