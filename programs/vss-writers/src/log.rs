//! Lines for standard error that are held back while a writer is frozen.
//!
//! Standard error may be journald, which blocks its senders as soon as the volume of /var/log is frozen. So nothing is
//! printed from a writer's Freeze to its Thaw, and never by a writer's own thread.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Write};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use vss_api::writer::EventKind;
use vss_writer::Notice;

/// Lines held back, and lines on their way to be printed; more are counted, not kept.
const LINES: usize = 1000;

/// Collects lines and has them printed outside every freeze.
pub(crate) struct Log {
    state: Mutex<State>,
    printer: Mutex<Option<thread::JoinHandle<()>>>,
}

struct State {
    /// The writers, by number, that are frozen or on their way to it.
    frozen: BTreeSet<usize>,
    held: VecDeque<String>,
    lost: usize,
    sender: Option<SyncSender<String>>,
}

impl Log {
    /// Starts the thread that prints.
    pub(crate) fn start() -> io::Result<Self> {
        let (sender, receiver) = sync_channel::<String>(LINES);
        let printer = thread::Builder::new().name("log".into()).spawn(move || {
            for line in receiver {
                // Nobody reads it: then it is not needed either.
                let _ = writeln!(io::stderr(), "{line}");
            }
        })?;
        let state = State { frozen: BTreeSet::new(), held: VecDeque::new(), lost: 0, sender: Some(sender) };
        Ok(Self { state: Mutex::new(state), printer: Mutex::new(Some(printer)) })
    }

    /// Notes what happened to writer number `index`.
    pub(crate) fn note(&self, index: usize, name: &str, notice: &Notice<'_>) {
        let mut state = self.lock();
        match notice {
            Notice::Began { kind: EventKind::Freeze } => {
                state.frozen.insert(index);
            }
            Notice::Handled { kind: EventKind::Thaw | EventKind::Abort | EventKind::BackupShutdown, .. } => {
                state.frozen.remove(&index);
            }
            _ => {}
        }
        if let Some(text) = sentence(notice) {
            state.hold(format!("{name}: {text}"));
        }
        state.release();
    }

    /// Notes a line.
    pub(crate) fn line(&self, line: String) {
        let mut state = self.lock();
        state.hold(line);
        state.release();
    }

    /// Prints what is held back, whoever is frozen, and ends the printing.
    pub(crate) fn finish(&self) {
        let mut state = self.lock();
        state.frozen.clear();
        state.release();
        state.sender = None;
        drop(state);
        let printer = self.printer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(printer) = printer {
            let _ = printer.join();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn hold(&mut self, line: String) {
        if self.held.len() < LINES { self.held.push_back(line) } else { self.lost += 1 }
    }

    /// Hands the lines to the printer, if nobody is frozen and as far as it has room: it may be blocked itself.
    fn release(&mut self) {
        if !self.frozen.is_empty() {
            return;
        }
        let Some(sender) = &self.sender else { return };
        if self.lost > 0 && sender.try_send(format!("{} lines were lost", self.lost)).is_ok() {
            self.lost = 0;
        }
        while let Some(line) = self.held.pop_front() {
            if let Err(std::sync::mpsc::TrySendError::Full(line)) = sender.try_send(line) {
                self.held.push_front(line);
                return;
            }
        }
    }
}

/// What a notice says to a person; none for what nobody needs to read.
fn sentence(notice: &Notice<'_>) -> Option<String> {
    match notice {
        Notice::Registered { instance_id, service } => Some(format!("registered with {service} as {instance_id}")),
        Notice::Lost { why } => Some(format!("no connection with the service: {why}; trying again")),
        Notice::Waiting { why } => Some(format!("the service refuses the writer for now: {why}; trying again")),
        Notice::ByItself { kind, why } => Some(format!("{} by itself: {why}", kind.name())),
        Notice::Handled { kind, failure: Some(error), took } => {
            Some(format!("{} failed after {} ms: {error}", kind.name(), took.as_millis()))
        }
        Notice::Handled { kind: kind @ (EventKind::Freeze | EventKind::Thaw), failure: None, took } => {
            Some(format!("{} done in {} ms", kind.name(), took.as_millis()))
        }
        _ => None,
    }
}
