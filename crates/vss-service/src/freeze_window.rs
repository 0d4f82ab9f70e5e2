//! The freeze window's inner part: flush, hold, commit, release, on one thread of its own (design 3).
//!
//! The thread is made for one set and ends with it. While writes are held nothing here logs, opens or waits for anything
//! but the guard and the providers. A thread that is stuck in a provider past the deadline is abandoned, never reused: the
//! guard releases the hold by its own deadline, and the requester gets its error.
//!
//! The rows themselves stand in `sagas/create_set.rs`; how a hold is made and thawed is the guard's (`guard/`).

use crate::hold_trace::{HoldTrace, Times};
use crate::{fault, providers};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant as Clock;
use vss_linux::{clock, process};
use vss_model::{FreezePolicy, SetId, VssCode, VssError, limits};
use vss_provider::Provider;

/// How long the window may take beyond its own limits before its thread is given up.
pub const WINDOW_GRACE: Duration = Duration::from_secs(2);
/// Rows whose times are noted; a set has four.
const ROWS: usize = 8;
/// How often who waits for the window looks where it stands.
const LOOK: Duration = Duration::from_millis(100);

/// What holds the writes of the members that need it: the guard, or a fake in tests.
pub trait Hold: Send {
    /// The process that holds; none for a fake.
    fn pid(&self) -> Option<u32>;

    /// Flushes every member (syncfs), nobody blocked.
    ///
    /// # Errors
    /// `VSS_E_FLUSH_WRITES_TIMEOUT` after `limit`.
    fn flush(&mut self, limit: Duration) -> Result<(), VssError>;

    /// Freezes every member, inner nesting levels first; on an error nothing is frozen.
    ///
    /// # Errors
    /// `VSS_E_VOLUME_IN_USE` for a member that somebody else froze, `VSS_E_FLUSH_WRITES_TIMEOUT`.
    fn hold(&mut self) -> Result<(), VssError>;

    /// Thaws every member, outer levels first; called once for each hold that succeeded.
    ///
    /// # Errors
    /// `VSS_E_HOLD_WRITES_TIMEOUT` when a member was thawed before this call: the hold was not whole, the set is void.
    fn release(&mut self) -> Result<(), VssError>;

    /// What has happened so far. Allocates: not for the time in which writes are held.
    fn trace(&self) -> HoldTrace;
}

/// One provider of the set.
struct Participant {
    name: String,
    provider: Arc<dyn Provider>,
    /// Its commit.
    commit: Option<Times>,
}

/// What the window rows work on.
pub struct Window {
    /// The set.
    pub set_id: SetId,
    /// What holds; none when no member needs a hold.
    pub hold: Option<Box<dyn Hold>>,
    /// The providers of the set: those that need the hold first, so that it is short for them.
    providers: Vec<Participant>,
    /// How many of them have committed.
    committed: usize,
    /// What is said when the deadline has passed; made beforehand, since it may be said in the hold.
    too_late: Option<VssError>,
    /// Nothing more is begun after this instant: the first frozen writer's limit.
    deadline: Option<std::time::Instant>,
    /// The rows that were begun and when (CLOCK_BOOTTIME, ns), as far as there is room.
    rows: Vec<(&'static str, u64)>,
    /// Writes are held.
    held: bool,
    /// Writes were held and are released.
    released: bool,
    /// Where it stands, for who waits for it.
    standing: Arc<Standing>,
    /// Whom an injected fault may end.
    pub victims: fault::Victims,
}

/// Where a window stands, seen from outside without waiting for it.
#[derive(Default)]
struct Standing {
    /// Before the first FIFREEZE.
    held: OnceLock<std::time::Instant>,
    /// Which provider is in commit, counted from 1 in the window's order; 0: none.
    committing: AtomicUsize,
}

impl Window {
    /// A window for these providers.
    #[must_use]
    pub fn new(set_id: SetId, hold: Option<Box<dyn Hold>>, providers: Vec<Arc<dyn Provider>>) -> Self {
        let participant =
            |provider: Arc<dyn Provider>| Participant { name: provider.properties().name, provider, commit: None };
        let mut providers: Vec<_> = providers.into_iter().map(participant).collect();
        providers.sort_by_key(|one| one.provider.properties().freeze_policy == FreezePolicy::MustNotHold);
        Self {
            set_id,
            hold,
            providers,
            committed: 0,
            too_late: Some(too_late()),
            deadline: None,
            rows: Vec::with_capacity(ROWS),
            held: false,
            released: false,
            standing: Arc::default(),
            victims: fault::Victims::default(),
        }
    }

    /// Sets the instant after which no row is begun.
    pub fn set_deadline(&mut self, deadline: Option<std::time::Instant>) {
        self.deadline = deadline;
    }

    /// A row begins.
    ///
    /// # Errors
    /// `VSS_E_WRITERERROR_TIMEOUT` when a writer's limit has passed.
    pub fn entering(&mut self, row: &'static str) -> Result<(), VssError> {
        if self.rows.len() < self.rows.capacity() {
            self.rows.push((row, clock::boottime_ns()));
        }
        fault::at(row, self.victims)?;
        // The hold must be released whatever the time is.
        if row != "release" && self.deadline.is_some_and(|deadline| std::time::Instant::now() >= deadline) {
            return Err(self.too_late.take().unwrap_or_else(too_late));
        }
        Ok(())
    }

    /// Row: flushes once more, at most 5 s, so that the hold is short.
    ///
    /// # Errors
    /// Those of [`Hold::flush`].
    pub fn flush(&mut self) -> Result<(), VssError> {
        self.hold.as_mut().map_or(Ok(()), |hold| hold.flush(limits::FLUSH_IN_WINDOW))
    }

    /// Row: holds writes on every member that needs it.
    ///
    /// # Errors
    /// Those of [`Hold::hold`].
    pub fn begin_hold(&mut self) -> Result<(), VssError> {
        if !self.held
            && !fault::skips("hold")
            && let Some(hold) = self.hold.as_mut()
        {
            self.standing.held.get_or_init(std::time::Instant::now);
            hold.hold()?;
            self.held = true;
        }
        Ok(())
    }

    /// Row: cuts every volume, one provider after another.
    ///
    /// # Errors
    /// What the first failing provider says; [`Self::by_contract`] is for later, since it logs.
    pub fn commit(&mut self) -> Result<(), VssError> {
        while let Some(one) = self.providers.get_mut(self.committed) {
            self.standing.committing.store(self.committed + 1, Ordering::Relaxed);
            let began_ns = clock::boottime_ns();
            one.provider.commit(self.set_id)?;
            one.commit = Some(Times { began_ns, ended_ns: clock::boottime_ns() });
            self.committed += 1;
        }
        self.standing.committing.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// The error of the window after the hold: a provider whose commit failed is kept to its error contract.
    #[must_use]
    pub fn by_contract(&self, error: VssError) -> VssError {
        match self.failed_provider() {
            Some(name) => providers::by_contract(name, error),
            None => error,
        }
    }

    /// The provider whose commit failed; none when none did.
    #[must_use]
    pub fn failed_provider(&self) -> Option<&str> {
        let failed = self.standing.committing.load(Ordering::Relaxed).checked_sub(1)?;
        self.providers.get(failed).map(|one| one.name.as_str())
    }

    /// Row, and the undo of the hold: lets writes go.
    ///
    /// # Errors
    /// Those of [`Hold::release`]: the hold was not whole.
    pub fn release(&mut self) -> Result<(), VssError> {
        if self.held
            && !self.released
            && let Some(hold) = self.hold.as_mut()
        {
            let released = hold.release();
            self.released = true;
            return released;
        }
        Ok(())
    }

    /// True when every member that needs it was held, and then released.
    #[must_use]
    pub fn was_held(&self) -> bool {
        self.held && self.released
    }

    /// The rows that were begun, each with its beginning and its end, of which the last is `ended_ns`.
    pub fn rows(&self, ended_ns: u64) -> impl Iterator<Item = (&'static str, Times)> {
        let ends = self.rows.iter().skip(1).map(|(_, began_ns)| *began_ns).chain([ended_ns]);
        self.rows.iter().zip(ends).map(|((row, began_ns), ended_ns)| (*row, Times { began_ns: *began_ns, ended_ns }))
    }

    /// When this provider cut its volumes; none when it did not.
    #[must_use]
    pub fn commit_of(&self, provider: &str) -> Option<Times> {
        self.providers.iter().find(|one| one.name == provider)?.commit
    }

    /// A window row without an undo.
    ///
    /// # Errors
    /// None.
    pub fn nothing_to_undo(&mut self) -> Result<(), VssError> {
        Ok(())
    }
}

fn too_late() -> VssError {
    VssError::new(VssCode::WriterErrorTimeout, "A frozen writer's limit ended before the cut")
        .with_hint("Raise the writer's limit in vss.toml, or look why the volumes flush so slowly")
}

/// A piece of work for the window thread; gives the window back with its result.
type Job = Box<dyn FnOnce() + Send>;

/// The window thread of one set.
pub struct WindowThread {
    jobs: std::sync::mpsc::Sender<Job>,
}

impl WindowThread {
    /// Makes the thread and touches its stack, which is locked then; nothing else of it is allocated later.
    ///
    /// # Errors
    /// `E_OUTOFMEMORY` when no thread can be made.
    pub fn start() -> Result<Self, VssError> {
        let (jobs, work) = std::sync::mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("freeze-window".to_owned())
            .spawn(move || {
                process::fault_in_stack();
                for job in work {
                    job();
                }
            })
            .map_err(|error| VssError::new(VssCode::OutOfMemory, format!("Cannot make the window thread: {error}")))?;
        Ok(Self { jobs })
    }

    /// Runs `body` on the window thread and waits at most `limit` for it, and not longer than the longest hold from when
    /// it began to hold.
    ///
    /// # Errors
    /// `VSS_E_HOLD_WRITES_TIMEOUT`, naming the provider that is stuck, when it did not come back, and
    /// `VSS_E_UNEXPECTED_PROVIDER_ERROR` when it panicked: the thread and the window with it are lost.
    pub async fn run<T: Send + 'static>(
        &self,
        mut window: Window,
        limit: Duration,
        body: impl FnOnce(&mut Window) -> T + Send + 'static,
    ) -> Result<(Window, T), VssError> {
        let began = Clock::now();
        let standing = Arc::clone(&window.standing);
        let names: Vec<String> = window.providers.iter().map(|one| one.name.clone()).collect();
        let (answer, mut answered) = oneshot::channel();
        let job: Job = Box::new(move || {
            let value = body(&mut window);
            // Nobody waits any more when the thread was abandoned; the window ends here, and the guard with it.
            let _abandoned = answer.send((window, value));
        });
        let lost = || {
            let stuck = standing.committing.load(Ordering::Relaxed).checked_sub(1).and_then(|index| names.get(index));
            let who = stuck.map_or_else(|| "The cut".to_owned(), |name| format!("Provider {name} in commit"));
            VssError::new(VssCode::HoldWritesTimeout, format!("{who} did not end within {:?}", began.elapsed()))
                .with_hint("A provider is stuck; wait 10 minutes and try again, at most 3 times (spec R 2.4)")
        };
        let broke_off = || {
            VssError::new(VssCode::UnexpectedProviderError, "The window thread broke off")
                .with_hint("The service's log says why")
        };
        self.jobs.send(job).map_err(|_| broke_off())?;
        loop {
            let over = standing.held.get().map(|held| Clock::from_std(*held) + limits::HOLD + WINDOW_GRACE);
            let until = over.map_or(began + limit, |over| over.min(began + limit));
            match tokio::time::timeout_at(until.min(Clock::now() + LOOK), &mut answered).await {
                Ok(answer) => return answer.map_err(|_| broke_off()),
                Err(_) if Clock::now() >= until => return Err(lost()),
                Err(_) => {}
            }
        }
    }
}
