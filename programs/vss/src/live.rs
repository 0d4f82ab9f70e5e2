//! What a session's set is doing, line by line on a terminal: the service's events, each step with its milliseconds. A step
//! that takes long is named before it ends.
//!
//! Nothing here matters to the set: without the events, the steps alone are shown.

use crate::event_text::words;
use crate::output::{printable, say};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};
use vss_api::event::{Event, EventKind};
use vss_model::SessionId;
use vss_requester::{Following, Instance, Management};

/// A step is named when it has not ended by then.
const LONG: Duration = Duration::from_millis(200);
/// The end of a step comes on another connection than the beginning of the next, and may come after it: only one that began
/// so long ago can be the step that has ended.
const BEGUN_BEFORE: Duration = Duration::from_millis(20);
/// How long the last events of a finished set are waited for; they are on their way already.
const LAST: Duration = Duration::from_millis(500);
/// The same for a set that failed, which may never have been begun.
const LAST_OF_FAILED: Duration = Duration::from_millis(100);

/// What the printing thread hears.
enum Heard {
    /// A step begins.
    Begins(String),
    /// An event of the session.
    Happened(Box<Event>),
    /// Nothing more is to be printed; dropped when all is.
    Over(Sender<()>),
}

/// The lines of one session; none is printed any more when it is dropped.
#[derive(Debug)]
pub(crate) struct Live {
    to_printer: Sender<Heard>,
    /// The follower's connection.
    connection: OwnedFd,
}

impl Live {
    /// Follows this session; none when that is not possible.
    pub(crate) fn follow(instance: &Instance, session_id: SessionId, started: Instant) -> Option<Self> {
        let following = Management::connect(instance).and_then(|management| management.follow(None)).ok()?;
        let connection = following.as_fd().try_clone_to_owned().ok()?;
        let (to_printer, heard) = channel();
        let events = to_printer.clone();
        thread::Builder::new()
            .name("vss-events".to_owned())
            .spawn(move || pass(following, session_id, &events))
            .ok()?;
        thread::Builder::new().name("vss-lines".to_owned()).spawn(move || print(&heard, started)).ok()?;
        Some(Self { to_printer, connection })
    }

    /// A step begins.
    pub(crate) fn begins(&self, step: &str) {
        // Without a printer there is nobody to tell.
        let _ = self.to_printer.send(Heard::Begins(step.to_owned()));
    }

    /// Returns when everything about the set is printed, or would have been, and follows no longer.
    pub(crate) fn finish(self, is_made: bool) {
        let (over, printed) = channel();
        if self.to_printer.send(Heard::Over(over)).is_ok() {
            // The sender is dropped then, or the time is over: both are an error here.
            let _ = printed.recv_timeout(if is_made { LAST } else { LAST_OF_FAILED });
        }
        // Wakes the thread that waits for events; fails when the service has ended the connection already.
        let _ = rustix::net::shutdown(&self.connection, rustix::net::Shutdown::Both);
    }
}

fn pass(following: Following, session_id: SessionId, to_printer: &Sender<Heard>) {
    for list in following {
        let Ok(list) = list else { return };
        for event in list.events.into_iter().filter(|event| event.session_id == Some(session_id)) {
            if to_printer.send(Heard::Happened(Box::new(event))).is_err() {
                return;
            }
        }
    }
}

fn print(heard: &Receiver<Heard>, started: Instant) {
    let line = |text: &str| say(&format!("vss: {:7.3} s  {}", started.elapsed().as_secs_f64(), printable(text)));
    let mut pending: Option<(String, Instant)> = None;
    let mut is_made = false;
    let mut over = None;
    while !(is_made && over.is_some()) {
        let left = pending.as_ref().map(|(_, at)| at.saturating_duration_since(Instant::now()));
        let next = match left {
            Some(left) => heard.recv_timeout(left),
            None => heard.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(Heard::Begins(step)) => pending = Some((step, Instant::now() + LONG)),
            Ok(Heard::Happened(event)) => {
                if event.kind == EventKind::Step {
                    pending.take_if(|(_, at)| at.saturating_duration_since(Instant::now()) + BEGUN_BEFORE < LONG);
                }
                is_made |= matches!(event.kind, EventKind::SetFinished | EventKind::SetFailed);
                if is_shown(event.kind) {
                    line(&words(&event));
                }
            }
            Ok(Heard::Over(told)) => over = Some(told),
            Err(RecvTimeoutError::Timeout) => {
                if let Some((step, _)) = pending.take() {
                    line(&format!("{step} ..."));
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// The rest is said by the command itself.
fn is_shown(kind: EventKind) -> bool {
    matches!(kind, EventKind::Step | EventKind::WriterEvent | EventKind::Member | EventKind::ProviderTrouble)
}
