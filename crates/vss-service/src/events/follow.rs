//! Answering `ListEvents`: once, or as long as the caller follows.

use super::{Events, Place};
use serde::Serialize;
use std::sync::Arc;
use vss_api::MESSAGE_BYTES;
use vss_api::event::Event;
use vss_api::management::ListEvents;
use vss_api::server::{Replier, ReplyStream};

/// Events in one message of a follower.
const BATCH: usize = 64;

/// Longest list in one message, in bytes; the rest is for what stands around it.
const LONGEST: usize = MESSAGE_BYTES - 1024;

/// The reply, without copying the events.
#[derive(Serialize)]
struct EventList<'a> {
    events: Vec<&'a Event>,
    lost: u64,
}

impl Events {
    /// Answers the call of a peer with this uid, in a task of its own: thousands of events take their time to be written
    /// down. That of a follower ends with its connection or with the service.
    pub fn answer(self: &Arc<Self>, uid: u32, question: ListEvents, replier: Replier) {
        if !replier.wants_more() {
            let events = Arc::clone(self);
            tokio::spawn(async move { events.answer_once(uid, question, replier) });
            return;
        }
        let place = match self.admit(uid) {
            Ok(place) => place,
            Err(error) => return replier.error(&error),
        };
        let after = question.after.unwrap_or_else(|| self.ring().newest());
        if let Some(stream) = replier.stream() {
            tokio::spawn(follow(place, after, stream));
        }
    }

    fn answer_once(&self, uid: u32, question: ListEvents, replier: Replier) {
        let batch = self.ring().read(question.after.unwrap_or(0), uid, usize::MAX);
        let mut list = EventList { events: batch.events.iter().map(Arc::as_ref).collect(), lost: batch.lost };
        // JSON may need six bytes for one of a text: what does not fit into a message is the oldest.
        while serde_json::to_vec(&list).map_or(0, |json| json.len()) > LONGEST && !list.events.is_empty() {
            let rest = list.events.split_off(list.events.len().div_ceil(2));
            list.lost += list.events.len() as u64;
            list.events = rest;
        }
        replier.ok(&list);
    }
}

async fn follow(place: Place, after: u64, stream: ReplyStream) {
    let events = &place.events;
    let mut newest = events.newest.subscribe();
    let mut closed = events.closed.subscribe();
    let mut cursor = after;
    // The first answer comes at once: then the caller knows that it misses nothing from now on.
    let mut owes_answer = true;
    loop {
        // Before the ring is read: what is told afterwards is news.
        newest.mark_unchanged();
        let is_closed = *closed.borrow_and_update();
        let batch = events.ring().read(cursor, place.uid, BATCH);
        cursor = batch.cursor;
        if owes_answer || batch.lost > 0 || !batch.events.is_empty() {
            owes_answer = false;
            let list = EventList { events: batch.events.iter().map(Arc::as_ref).collect(), lost: batch.lost };
            if stream.send(&list).await.is_err() {
                return;
            }
            continue;
        }
        if is_closed {
            return stream.last(&EventList { events: Vec::new(), lost: 0 }).await;
        }
        tokio::select! {
            _ = newest.changed() => {}
            _ = closed.changed() => {}
            () = stream.closed() => return,
        }
    }
}
