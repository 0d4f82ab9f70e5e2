//! The newest events. Bounded in number and in bytes: texts are other people's. Of a session's events of progress there is only
//! the newest one, so that a copy of hours pushes nothing else out.

use std::collections::VecDeque;
use std::sync::Arc;
use vss_api::event::{Event, EventKind};
use vss_api::progress::CopyProgress;

/// Events that are remembered: more than the largest set has (64 volumes, 200 writers).
const EVENTS: usize = 4096;
/// Bytes that they may take, counted roughly.
const BYTES: usize = 2 << 20;

/// The ring. The numbers in it have gaps where an event of progress was replaced.
#[derive(Debug, Default)]
pub(super) struct Ring {
    events: VecDeque<(Arc<Event>, usize)>,
    bytes: usize,
    newest: u64,
    /// The number of the newest event that was pushed out.
    forgotten: u64,
}

/// What a reader gets at once.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// In their order.
    pub(super) events: Vec<Arc<Event>>,
    /// How many before these are forgotten.
    pub(super) lost: u64,
    /// The number of the last event that was looked at: where to read on.
    pub(super) cursor: u64,
}

impl Ring {
    /// Adds an event, puts in its number, and returns that.
    pub(super) fn push(&mut self, mut event: Event) -> u64 {
        self.newest += 1;
        event.seq = self.newest;
        if event.kind == EventKind::Progress {
            self.replace_progress(&event);
        }
        let weight = weight(&event);
        self.bytes += weight;
        self.events.push_back((Arc::new(event), weight));
        while self.events.len() > EVENTS || (self.bytes > BYTES && self.events.len() > 1) {
            if let Some((event, weight)) = self.events.pop_front() {
                self.bytes -= weight;
                self.forgotten = event.seq;
            }
        }
        self.newest
    }

    /// Takes out what the session told before of its progress.
    fn replace_progress(&mut self, news: &Event) {
        let is_older = |(event, _): &(Arc<Event>, usize)| {
            event.kind == EventKind::Progress && event.session_id == news.session_id && event.set_id == news.set_id
        };
        if let Some((_, weight)) = self.events.iter().rposition(is_older).and_then(|place| self.events.remove(place)) {
            self.bytes -= weight;
        }
    }

    /// The number of the newest event.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// At most `most` events with a number above `after` that `uid` may see: root all, others their own and everybody's.
    /// A number that was not reached is one of an earlier service: then all.
    pub(super) fn read(&self, after: u64, uid: u32, most: usize) -> Batch {
        let after = if after > self.newest { 0 } else { after };
        let from = after.max(self.forgotten);
        let mut batch = Batch { events: Vec::new(), lost: from - after, cursor: from };
        let begin = self.events.partition_point(|(event, _)| event.seq <= from);
        for (event, _) in self.events.iter().skip(begin) {
            if uid == 0 || event.uid.is_none_or(|owner| owner == uid) {
                if batch.events.len() == most {
                    break;
                }
                batch.events.push(Arc::clone(event));
            }
            batch.cursor = event.seq;
        }
        batch
    }
}

fn weight(event: &Event) -> usize {
    let texts = [&event.requester, &event.writer, &event.provider, &event.step].into_iter().flatten().map(String::len);
    let paths = [&event.volume, &event.path].into_iter().flatten().map(|path| path.as_os_str().len());
    let failure = event.failure.as_ref().map_or(0, |failure| failure.message.len() + failure.hint.len());
    let copying =
        event.progress.as_ref().map_or(0, |copying| size_of::<CopyProgress>() + copying.volume.as_os_str().len());
    size_of::<Event>()
        + copying
        + texts.chain(paths).sum::<usize>()
        + failure
        + event.recovery.iter().map(String::len).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vss_model::SessionId;

    fn event(uid: Option<u32>) -> Event {
        Event { uid, ..Event::of(EventKind::Step) }
    }

    fn numbers(batch: &Batch) -> Vec<u64> {
        batch.events.iter().map(|event| event.seq).collect()
    }

    #[test]
    fn what_is_forgotten_is_counted_and_reading_goes_on() {
        let mut ring = Ring::default();
        for _ in 0..EVENTS + 10 {
            ring.push(event(None));
        }
        let first = ring.read(0, 7, 3);
        assert_eq!((numbers(&first), first.lost, first.cursor), (vec![11, 12, 13], 10, 13));
        let next = ring.read(first.cursor, 7, usize::MAX);
        assert_eq!((next.events.len(), next.lost, next.cursor), (EVENTS - 3, 0, ring.newest()));
        let nothing = ring.read(next.cursor, 7, 3);
        assert_eq!((nothing.events.len(), nothing.lost, nothing.cursor), (0, 0, ring.newest()));
        assert_eq!(ring.read(ring.newest() + 1, 7, 1).cursor, 11, "of an earlier service");
    }

    #[test]
    fn long_texts_push_others_out_sooner() {
        let mut ring = Ring::default();
        for _ in 0..100 {
            ring.push(Event { recovery: vec!["x".repeat(1 << 20)], ..event(None) });
        }
        assert!(ring.bytes <= BYTES && ring.events.len() <= 4, "{} bytes", ring.bytes);
        ring.push(Event { recovery: vec!["x".repeat(BYTES)], ..event(None) });
        assert_eq!(ring.events.len(), 1, "the newest is always there");
    }

    #[test]
    fn progress_replaces_progress_and_pushes_nothing_out() {
        let mut ring = Ring::default();
        ring.push(event(None));
        let sessions = [Some(SessionId::random()), Some(SessionId::random())];
        for _ in 0..EVENTS {
            for session_id in sessions {
                ring.push(Event { session_id, ..Event::of(EventKind::Progress) });
            }
        }
        let newest = 1 + 2 * EVENTS as u64;
        let all = ring.read(0, 7, 10);
        assert_eq!((numbers(&all), all.lost, all.cursor), (vec![1, newest - 1, newest], 0, newest));
        assert_eq!(numbers(&ring.read(newest - 3, 7, 10)), [newest - 1, newest], "a reader in a gap reads on");
        assert_eq!(ring.bytes, ring.events.iter().map(|(_, weight)| weight).sum::<usize>());
        for _ in 0..EVENTS {
            ring.push(event(None));
        }
        let rest = ring.read(0, 7, 1);
        assert_eq!((numbers(&rest), rest.lost), (vec![newest + 1], newest), "its turn to be forgotten comes too");
    }

    #[test]
    fn others_see_their_own_and_everybodys_and_read_past_the_rest() {
        let mut ring = Ring::default();
        for uid in [Some(0), Some(7), None, Some(8), Some(0)] {
            ring.push(event(uid));
        }
        let own = ring.read(0, 7, 10);
        assert_eq!((numbers(&own), own.cursor), (vec![2, 3], 5));
        assert_eq!(numbers(&ring.read(0, 0, 10)), [1, 2, 3, 4, 5]);
        let one = ring.read(0, 7, 1);
        assert_eq!((numbers(&one), one.cursor), (vec![2], 2));
    }
}
