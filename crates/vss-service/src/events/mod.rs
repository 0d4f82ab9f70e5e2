//! What the service tells those who follow it: a ring of the newest events in memory, and a cursor for each follower.
//!
//! ```text
//!   coordinator, jobs, saga --- tell ---> ring (newest 4096) <--- read --- one task a follower ---> ReplyStream
//! ```
//!
//! Telling never waits: it puts the event into the ring and wakes the followers. A follower's task reads at its peer's pace;
//! what the ring has forgotten by then is counted and told. So a slow follower costs one message, and a thousand events one
//! ring. Nothing here runs on the window thread: what happens in a hold is told after the release.
//!
//! Who may see an event stands in `ring.rs`.

mod follow;
mod ring;
mod teller;

pub use teller::Teller;

use ring::Ring;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use vss_api::event::{Event, EventKind};
use vss_model::{Instant, VssCode, VssError};

/// Followers at once.
const FOLLOWERS: usize = 128;
/// Followers of all users but root: the rest is kept for the administrator.
const FOLLOWERS_OF_USERS: usize = 64;
/// Followers of one uid other than root.
const FOLLOWERS_PER_UID: usize = 16;
/// Longest text in an event, in characters: a writer may say much about its failure.
const TEXT_CHARS: usize = 1024;
/// Lines of recovery in the first event; `GetStatus` has them all.
const RECOVERY_LINES: usize = 64;

/// The events of one service.
#[derive(Debug)]
pub struct Events {
    ring: Mutex<Ring>,
    /// The number of the newest event; how followers are woken.
    newest: watch::Sender<u64>,
    /// The service has told its last event.
    closed: watch::Sender<bool>,
    followers: Mutex<HashMap<u32, usize>>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            ring: Mutex::default(),
            newest: watch::Sender::new(0),
            closed: watch::Sender::new(false),
            followers: Mutex::default(),
        }
    }
}

impl Events {
    /// Tells an event; its number and its time are put in here. Never waits.
    pub fn tell(&self, mut event: Event) {
        shorten(&mut event);
        let mut ring = self.ring();
        event.at = Some(Instant::now());
        let seq = ring.push(event);
        // Under the lock, so that the number never goes back.
        self.newest.send_replace(seq);
    }

    /// The first event.
    pub fn started(&self, recovery: &[String]) {
        let recovery = recovery.iter().take(RECOVERY_LINES).cloned().collect();
        self.tell(Event { recovery, ..Event::of(EventKind::ServiceStarted) });
    }

    /// The last event: followers get what is left, and then their end.
    pub fn stopped(&self) {
        self.tell(Event::of(EventKind::ServiceStopped));
        self.closed.send_replace(true);
    }

    /// Waits until every follower has its end, at most `limit`.
    pub async fn drained(&self, limit: Duration) {
        let mut newest = self.newest.subscribe();
        // The number of followers is no news of its own: the last of them wakes us by the same way.
        let nobody = newest.wait_for(|_| self.followers().is_empty());
        drop(tokio::time::timeout(limit, nobody).await);
    }

    /// A place among the followers; given back when it is dropped.
    ///
    /// # Errors
    /// `E_OUTOFMEMORY` when there are too many of this uid, or in all.
    fn admit(self: &Arc<Self>, uid: u32) -> Result<Place, VssError> {
        let mut followers = self.followers();
        let all: usize = followers.values().sum();
        let of_root = followers.get(&0).copied().unwrap_or(0);
        let of_uid = followers.get(&uid).copied().unwrap_or(0);
        let of_users = all - of_root;
        if all >= FOLLOWERS || (uid != 0 && (of_users >= FOLLOWERS_OF_USERS || of_uid >= FOLLOWERS_PER_UID)) {
            return Err(VssError::new(
                VssCode::OutOfMemory,
                format!("{all} follow the events already, {of_uid} of them of uid {uid}"),
            )
            .with_hint("End one of them, or ask for the recent events without following"));
        }
        followers.insert(uid, of_uid + 1);
        Ok(Place { events: Arc::clone(self), uid })
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn followers(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One follower's place.
#[derive(Debug)]
struct Place {
    events: Arc<Events>,
    uid: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        {
            let mut followers = self.events.followers();
            if let Some(count) = followers.get_mut(&self.uid) {
                *count -= 1;
                if *count == 0 {
                    followers.remove(&self.uid);
                }
            }
        }
        // For who waits for the last one to leave; to followers it is no news.
        self.events.newest.send_modify(|_| ());
    }
}

fn shorten(event: &mut Event) {
    let Event { requester, writer, provider, step, failure, recovery, .. } = event;
    let words = [requester, writer, provider, step].into_iter().flatten();
    let failure = failure.iter_mut().flat_map(|failure| [&mut failure.message, &mut failure.hint]);
    for text in words.chain(failure).chain(recovery) {
        if let Some((end, _)) = text.char_indices().nth(TEXT_CHARS) {
            text.truncate(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_too_many_is_refused_and_root_is_not_locked_out() {
        let events = Arc::new(Events::default());
        let mut places: Vec<Place> = (0..FOLLOWERS_PER_UID).map(|_| events.admit(1000).unwrap()).collect();
        assert_eq!(events.admit(1000).unwrap_err().code, VssCode::OutOfMemory);
        for uid in 1001.. {
            let Ok(place) = events.admit(uid) else { break };
            places.push(place);
        }
        assert_eq!(places.len(), FOLLOWERS_OF_USERS);
        places.extend((FOLLOWERS_OF_USERS..FOLLOWERS).map(|_| events.admit(0).unwrap()));
        assert!(events.admit(0).is_err());
        drop(places);
        assert!(events.followers().is_empty());
    }

    #[tokio::test]
    async fn who_waits_for_the_last_follower_is_woken_by_it() {
        let events = Arc::new(Events::default());
        let place = events.admit(0).unwrap();
        let begun = std::time::Instant::now();
        let leaves = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(place);
        };
        tokio::join!(events.drained(Duration::from_secs(20)), leaves);
        assert!(begun.elapsed() < Duration::from_secs(10));
        let _stays = events.admit(0).unwrap();
        events.drained(Duration::from_millis(10)).await;
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let events = Events::default();
        let failure = VssError::new(VssCode::Unexpected, "\u{e4}".repeat(5000)).with_hint("x".repeat(5000));
        events.tell(Event { failure: Some(failure), ..Event::of(EventKind::SetFailed) });
        let batch = events.ring().read(0, 0, 10);
        let failure = batch.events[0].failure.as_ref().unwrap();
        assert_eq!((failure.message.chars().count(), failure.hint.len()), (TEXT_CHARS, TEXT_CHARS));
    }
}
