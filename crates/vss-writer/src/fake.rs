//! A writer for tests: remembers what it was called for, and fails, hangs or dies where it is told to.

use crate::{Answer, AnyWriter, Call, done};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use vss_api::writer::{EventKind, Identify, Identity, Register};
use vss_model::{AppLevel, Component, SessionId, VssCode, VssError, WriterClassId};

/// What a [`FakeWriter`] does instead of its work.
#[derive(Debug, Clone)]
pub enum Misdeed {
    /// Fails with this error.
    Fail(VssError),
    /// Does nothing until [`FakeHandle::release`], 10 minutes are over, or, where a writer may be interrupted, the connection
    /// is lost or the writer is stopped.
    Hang,
    /// Works for this long, deaf to everything.
    Delay(Duration),
    /// Dies as a killed process would: its thread unwinds, the connection closes, nothing is thawed.
    Die,
}

/// One event as it reached the fake.
#[derive(Debug, Clone)]
pub struct Record {
    /// Which.
    pub kind: EventKind,
    /// Of which session.
    pub session_id: SessionId,
    /// When its handler began.
    pub at: Instant,
    /// How many descriptors of directories could be opened through it.
    pub directories: usize,
}

#[derive(Debug, Default)]
struct Shared {
    records: Vec<Record>,
    frozen: BTreeSet<SessionId>,
    released: bool,
    misdeeds: BTreeMap<EventKind, (Misdeed, usize)>,
}

/// Watches and steers a [`FakeWriter`] from another thread.
#[derive(Debug, Clone, Default)]
pub struct FakeHandle(Arc<Mutex<Shared>>);

impl FakeHandle {
    /// The events so far, in order.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.lock().records.clone()
    }

    /// The events so far without Identify, in order.
    #[must_use]
    pub fn events(&self) -> Vec<EventKind> {
        self.records().iter().map(|record| record.kind).filter(|kind| *kind != EventKind::Identify).collect()
    }

    /// True from a Freeze that succeeded to the next Thaw or Abort of the same session.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        !self.lock().frozen.is_empty()
    }

    /// In the next `times` events of `kind`, do this instead.
    pub fn misbehave(&self, kind: EventKind, misdeed: Misdeed, times: usize) {
        self.lock().misdeeds.insert(kind, (misdeed, times));
    }

    /// Ends every [`Misdeed::Hang`], now and from now on.
    pub fn release(&self) {
        self.lock().released = true;
    }

    /// Forgets the events so far.
    pub fn forget(&self) {
        self.lock().records.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A writer that owns the directory that it was made with.
#[derive(Debug)]
pub struct FakeWriter {
    register: Register,
    identity: Identity,
    handle: FakeHandle,
}

impl FakeWriter {
    /// A writer named `name` with one component `data`: all files below `directory`. Its class id is random.
    ///
    /// # Panics
    /// `directory` is not absolute.
    #[must_use]
    pub fn new(name: &str, directory: impl Into<std::path::PathBuf>) -> Self {
        let data = Component::file_group("data").files_below(directory).build();
        Self {
            register: Register::new(WriterClassId::random(), name),
            identity: Identity::of([data.expect("an absolute directory")]),
            handle: FakeHandle::default(),
        }
    }

    /// The same writer at another level.
    #[must_use]
    pub fn at_level(mut self, level: AppLevel) -> Self {
        self.register.level = level;
        self
    }

    /// The same writer with its own limit from Freeze to Thaw.
    #[must_use]
    pub fn with_freeze_timeout(mut self, limit: Duration) -> Self {
        self.register.freeze_timeout_ms = u64::try_from(limit.as_millis()).ok();
        self
    }

    /// The same writer with these components.
    #[must_use]
    pub fn with_components(mut self, components: Vec<Component>) -> Self {
        self.identity.components = components;
        self
    }

    /// What watches and steers it.
    #[must_use]
    pub fn handle(&self) -> FakeHandle {
        self.handle.clone()
    }

    fn misdeed(&self, kind: EventKind) -> Option<Misdeed> {
        let mut shared = self.handle.lock();
        let (misdeed, times) = shared.misdeeds.get_mut(&kind)?;
        let misdeed = misdeed.clone();
        *times = times.saturating_sub(1);
        if *times == 0 {
            shared.misdeeds.remove(&kind);
        }
        Some(misdeed)
    }

    fn record(&self, kind: EventKind, session_id: SessionId, directories: usize) {
        self.handle.lock().records.push(Record { kind, session_id, at: Instant::now(), directories });
    }

    /// Waits in small steps; `step` waits until a moment and says whether it was interrupted.
    fn hang(&self, step: impl Fn(Instant) -> bool) {
        let end = Instant::now() + Duration::from_secs(600);
        while Instant::now() < end && !self.handle.lock().released {
            if step(Instant::now() + Duration::from_millis(10)) {
                return;
            }
        }
    }
}

/// Does what the misdeed says; returns when the work may go on.
fn commit(misdeed: Misdeed, hang: impl FnOnce()) -> Result<(), VssError> {
    match misdeed {
        Misdeed::Fail(error) => Err(error),
        Misdeed::Delay(duration) => {
            std::thread::sleep(duration);
            Ok(())
        }
        Misdeed::Hang => {
            hang();
            Err(VssError::new(VssCode::WriterErrorTimeout, "The fake writer hung"))
        }
        // Unwinds without the message of a panic.
        Misdeed::Die => std::panic::resume_unwind(Box::new("the fake writer died")),
    }
}

impl AnyWriter for FakeWriter {
    fn registration(&self) -> Register {
        self.register.clone()
    }

    fn identify(&mut self, identify: &Identify) -> Result<Identity, VssError> {
        self.record(EventKind::Identify, identify.session_id, 0);
        if let Some(misdeed) = self.misdeed(EventKind::Identify) {
            commit(misdeed, || {
                self.hang(|until| {
                    std::thread::sleep(until.saturating_duration_since(Instant::now()));
                    false
                });
            })?;
        }
        Ok(self.identity.clone())
    }

    fn event(&mut self, call: &Call<'_>) -> Answer {
        let kind = call.kind();
        let volumes = &call.event().volumes;
        self.record(
            kind,
            call.event().session_id,
            volumes.iter().filter(|v| call.directory(&v.volume).is_some()).count(),
        );
        if let Some(misdeed) = self.misdeed(kind) {
            commit(misdeed, || self.hang(|until| call.wait_for(None, until).is_err()))?;
        }
        let mut shared = self.handle.lock();
        match kind {
            EventKind::Freeze => shared.frozen.insert(call.event().session_id),
            EventKind::Thaw | EventKind::Abort => shared.frozen.remove(&call.event().session_id),
            _ => false,
        };
        done()
    }
}
