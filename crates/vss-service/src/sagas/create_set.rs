//! DoSnapshotSet: makes one shadow copy set (spec P 1.3, design 3).
//!
//! | row | who | what | undone by |
//! |---|---|---|---|
//! | prepare_hold | guard | started if a member needs a hold | guard ended |
//! | record_intent | catalogue | what may be left behind, on disk | forgotten once all is undone |
//! | end_prepare | providers | slow work ends; may take hours, and is broken off by a wish to stop | abort: copies deleted |
//! | prepare_snapshot | writers | checkpoint, dump | Abort to each that is not past PostSnapshot |
//! | flush | members | syncfs, as long as it takes | - |
//! | freeze | writers | FRONT_END, BACK_END, SYSTEM with a barrier | (Abort above) |
//! | pre_commit | providers | ready to cut | (abort above) |
//! | flush_in_window, hold, commit, release | window thread | the point in time | release |
//! | post_commit | providers | writes flow again | (abort above) |
//! | thaw | writers | SYSTEM, BACK_END, FRONT_END | - |
//! | pre_final | providers | copies become writable | (abort above) |
//! | post_snapshot | writers | mend the copies; what they exclude is deleted | staging unmounted |
//! | post_final | providers | copies become read-only | (abort above) |
//! | record | catalogue | the documents, then the finished set in place of the intent | - |
//!
//! What the rows of the window may not do stands in `freeze_window.rs`.

use super::end_prepare::end_prepare;
use super::hold::{end_hold, flush, prepare_hold};
use super::post_snapshot::{post_snapshot, unstage};
use super::proof::{Clocks, read_clocks};
use super::recording::{forget_intent, record, record_intent};
use super::{Act, Context, Row, StepFuture, nothing_to_undo, run_window_rows};
use crate::environment::Environment;
use crate::freeze_window::{WINDOW_GRACE, Window, WindowThread};
use crate::hold_trace::Times;
use crate::operation::{Operation, cancelled};
use crate::providers::by_contract;
use crate::writers::{EventFacts, SessionWriters};
use crate::{blocking, fault};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use vss_api::writer::EventKind;
use vss_model::time::milliseconds;
use vss_model::{AppLevel, SetId, ShadowCopySet, ShadowId, Volume, VolumeId, VssCode, VssError, limits};
use vss_provider::{CommittedCopy, Provider, StoredCopy};

/// One volume of the set.
#[derive(Clone)]
pub struct Member {
    /// The copy to be.
    pub shadow_id: ShadowId,
    /// The volume.
    pub volume: Volume,
    /// Who makes the copy.
    pub provider: Arc<dyn Provider>,
    /// What the provider said in begin_prepare.
    pub stored: StoredCopy,
}

/// Who asks for the set.
#[derive(Debug, Clone)]
pub struct Requester {
    /// Its uid, the owner of the copies.
    pub uid: u32,
    /// Its process id.
    pub pid: u32,
    /// Its own words.
    pub name: String,
}

/// What is to be made, and for whom.
#[derive(Clone)]
pub struct Plan {
    /// The set.
    pub set_id: SetId,
    /// Its volumes, in the order in which they were added.
    pub members: Vec<Member>,
    /// What events say.
    pub facts: EventFacts,
    /// True: a failed writer fails the set.
    pub strict: bool,
    /// Who asks.
    pub requester: Requester,
}

/// What the saga works on.
pub struct CreateSet {
    /// What every part shares.
    pub environment: Arc<Environment>,
    /// Where progress is shown.
    pub operation: Operation,
    /// What is to be made.
    pub plan: Plan,
    /// The writers of the session.
    pub writers: SessionWriters,
    /// Mount points and volumes, for the level of components.
    pub mounts: Vec<(PathBuf, VolumeId)>,
    pub(super) window: Option<Window>,
    pub(super) thread: Option<WindowThread>,
    /// A thread was left to itself: what it may still make is found by the record.
    pub(super) thread_lost: bool,
    /// The flush of a set without a guard.
    pub(super) flush: Option<Times>,
    /// Both clocks after the window.
    pub(super) clocks: Option<Clocks>,
    pub(super) phases_done: BTreeSet<(&'static str, String)>,
    pub(super) aborted: bool,
    pub(super) committed: BTreeMap<ShadowId, CommittedCopy>,
    pub(super) staged: Vec<ShadowId>,
    froze_at: Option<tokio::time::Instant>,
    pub(super) freeze_ms: u64,
    pub(super) set: Option<ShadowCopySet>,
}

/// The table.
pub static TABLE: &[Row<CreateSet>] = &[
    Row { name: "prepare_hold", says: "getting ready", act: Act::Conductor { run: prepare_hold, undo: end_hold } },
    Row {
        name: "record_intent",
        says: "getting ready",
        act: Act::Conductor { run: record_intent, undo: forget_intent },
    },
    Row {
        name: "end_prepare",
        says: "preparing the volumes",
        act: Act::Conductor { run: end_prepare, undo: abort_providers },
    },
    Row {
        name: "prepare_snapshot",
        says: "getting writers ready",
        act: Act::Conductor { run: prepare_snapshot, undo: abort_writers },
    },
    Row { name: "flush", says: "flushing the volumes", act: Act::Conductor { run: flush, undo: nothing_to_undo } },
    Row { name: "freeze", says: "freezing", act: Act::Conductor { run: freeze, undo: nothing_to_undo } },
    Row { name: "pre_commit", says: "about to cut", act: Act::Conductor { run: pre_commit, undo: nothing_to_undo } },
    Row {
        name: "flush_in_window",
        says: "flushing once more",
        act: Act::Window { run: Window::flush, undo: Window::nothing_to_undo },
    },
    Row { name: "hold", says: "holding writes", act: Act::Window { run: Window::begin_hold, undo: Window::release } },
    Row { name: "commit", says: "cutting", act: Act::Window { run: Window::commit, undo: Window::nothing_to_undo } },
    Row { name: "release", says: "releasing writes", act: Act::Window { run: Window::release, undo: Window::release } },
    Row {
        name: "post_commit",
        says: "copies are cut",
        act: Act::Conductor { run: post_commit, undo: nothing_to_undo },
    },
    Row { name: "thaw", says: "thawing", act: Act::Conductor { run: thaw, undo: nothing_to_undo } },
    Row {
        name: "pre_final",
        says: "opening the copies",
        act: Act::Conductor { run: pre_final, undo: nothing_to_undo },
    },
    Row {
        name: "post_snapshot",
        says: "mending the copies",
        act: Act::Conductor { run: post_snapshot, undo: unstage },
    },
    Row {
        name: "post_final",
        says: "sealing the copies",
        act: Act::Conductor { run: post_final, undo: nothing_to_undo },
    },
    Row { name: "record", says: "recording the set", act: Act::Conductor { run: record, undo: nothing_to_undo } },
];

impl CreateSet {
    /// A set that is about to be made.
    #[must_use]
    pub fn new(
        environment: Arc<Environment>,
        operation: Operation,
        plan: Plan,
        writers: SessionWriters,
        mounts: Vec<(PathBuf, VolumeId)>,
    ) -> Self {
        Self {
            environment,
            operation,
            plan,
            writers,
            mounts,
            window: None,
            thread: None,
            thread_lost: false,
            flush: None,
            clocks: None,
            phases_done: BTreeSet::new(),
            aborted: false,
            committed: BTreeMap::new(),
            staged: Vec::new(),
            froze_at: None,
            freeze_ms: 0,
            set: None,
        }
    }

    /// The finished set; none before the last row.
    #[must_use]
    pub fn set(&self) -> Option<&ShadowCopySet> {
        self.set.as_ref()
    }

    /// The providers of the set, each once, in the order in which their volumes were added.
    pub(super) fn providers(&self) -> Vec<(String, Arc<dyn Provider>)> {
        let mut providers: Vec<(String, Arc<dyn Provider>)> = Vec::new();
        for member in &self.plan.members {
            let name = member.provider.properties().name;
            if providers.iter().all(|(other, _)| *other != name) {
                providers.push((name, Arc::clone(&member.provider)));
            }
        }
        providers
    }

    /// Calls one phase of every provider that has not done it yet.
    async fn phase(
        &mut self,
        phase: &'static str,
        limit: Duration,
        call: fn(&dyn Provider, SetId) -> Result<(), VssError>,
    ) -> Result<(), VssError> {
        for (name, provider) in self.providers() {
            if self.phases_done.contains(&(phase, name.clone())) {
                continue;
            }
            let set_id = self.plan.set_id;
            // Not broken off by a wish to stop: the phase goes on whether we wait or not, and its abort must come after it.
            blocking::run(&format!("Provider {name} in {phase}"), limit, move || call(&*provider, set_id))
                .await
                .map_err(|error| self.trouble(&name, phase, error))?;
            self.phases_done.insert((phase, name));
        }
        Ok(())
    }

    /// What the provider finds a member's copy by: what it said when it was cut, or before.
    pub(super) fn stored(&self, member: &Member) -> StoredCopy {
        let data = self.committed.get(&member.shadow_id).map(|copy| copy.data.clone());
        StoredCopy { data: data.unwrap_or_else(|| member.stored.data.clone()), ..member.stored.clone() }
    }

    /// In the strict policy the failure of an involved writer fails the set.
    pub(super) fn judge_writers(&self) -> Result<(), VssError> {
        match self.writers.first_failure() {
            Some(failure) if self.plan.strict && !fault::is_off("strict") => Err(failure),
            _ => Ok(()),
        }
    }

    /// What a provider's failure is to others; it is told too.
    pub(super) fn trouble(&self, provider: &str, phase: &str, error: VssError) -> VssError {
        let error = by_contract(provider, error);
        self.plan.facts.teller.provider_trouble(self.plan.set_id, provider, phase, &error);
        error
    }

    fn victims(&self) -> fault::Victims {
        fault::Victims {
            guard: self.window.as_ref().and_then(|window| window.hold.as_ref()).and_then(|hold| hold.pid()),
            requester: Some(self.plan.requester.pid),
            writer: self.writers.involved().next().map(|writer| writer.writer.pid),
        }
    }
}

impl Context for CreateSet {
    type Window = Window;

    fn entering(&mut self, row: &'static Row<Self>) -> Result<(), VssError> {
        let tells_writers = ["prepare_snapshot", "freeze", "thaw", "post_snapshot"].contains(&row.name);
        let names: Vec<&str> = if tells_writers {
            self.writers.involved().map(|writer| writer.metadata.name.as_str()).collect()
        } else {
            Vec::new()
        };
        let says = if names.is_empty() { row.says.to_owned() } else { format!("{}: {}", row.says, names.join(", ")) };
        self.operation.step(says);
        fault::at(row.name, self.victims())?;
        if self.operation.is_cancelled() { Err(cancelled()) } else { Ok(()) }
    }

    fn left(&mut self, row: &'static Row<Self>, took: Duration, result: &Result<(), VssError>) {
        self.plan.facts.teller.step(self.plan.set_id, row.name, took, result.as_ref().err());
    }

    fn window<'a>(&'a mut self, rows: &'static [Row<Self>]) -> StepFuture<'a> {
        Box::pin(async move {
            let gone = || VssError::new(VssCode::Unexpected, "The window of the set is gone");
            let mut window = self.window.take().ok_or_else(gone)?;
            let thread = self.thread.as_ref().ok_or_else(gone)?;
            window.victims =
                fault::Victims { guard: window.hold.as_ref().and_then(|hold| hold.pid()), ..self.victims() };
            let deadline = self.writers.freeze_deadline();
            window.set_deadline(deadline.map(tokio::time::Instant::into_std));
            self.operation.step("cutting the copies");
            self.operation.set_holding(window.hold.is_some());
            let limit = limits::FLUSH_IN_WINDOW + limits::HOLD + WINDOW_GRACE;
            let limit = deadline.map_or(limit, |deadline| {
                limit.min(deadline.saturating_duration_since(tokio::time::Instant::now()) + WINDOW_GRACE)
            });
            let began = tokio::time::Instant::now();
            let cut = thread.run(window, limit, |window| run_window_rows(rows, window, Window::entering)).await;
            self.operation.set_holding(false);
            let clocks = read_clocks();
            self.clocks = Some(clocks);
            match cut {
                Ok((window, result)) => {
                    let result = result.map_err(|error| window.by_contract(error));
                    self.window = Some(window);
                    self.tell_window(clocks, result.as_ref().err());
                    result
                }
                Err(lost) => {
                    self.thread_lost = true;
                    self.plan.facts.teller.step(self.plan.set_id, "window", began.elapsed(), Some(&lost));
                    Err(lost)
                }
            }
        })
    }
}

fn abort_providers(saga: &mut CreateSet) -> StepFuture<'_> {
    Box::pin(async {
        let mut first = None;
        for (name, provider) in saga.providers() {
            let set_id = saga.plan.set_id;
            let work = move || provider.abort(set_id);
            let done = blocking::run(&format!("Provider {name} in abort"), limits::PROVIDER_IN_WINDOW, work).await;
            if let Err(error) = done {
                first.get_or_insert(saga.trouble(&name, "abort", error));
            }
        }
        // A provider ignores abort once it has finished the set (spec P 2.6), so each copy is deleted by its record too.
        for member in &saga.plan.members {
            let stored = saga.stored(member);
            let (name, provider) = (member.provider.properties().name, Arc::clone(&member.provider));
            let work = move || provider.delete(&stored);
            let done = blocking::run(&format!("Provider {name} in delete"), limits::PROVIDER_IN_WINDOW, work).await;
            if let Err(error) = done {
                first.get_or_insert(saga.trouble(&name, "delete", error));
            }
        }
        saga.aborted = first.is_none();
        first.map_or(Ok(()), Err)
    })
}

fn prepare_snapshot(saga: &mut CreateSet) -> StepFuture<'_> {
    Box::pin(async {
        saga.judge_writers()?;
        let told = saga.writers.tell(EventKind::PrepareSnapshot, &saga.plan.facts);
        saga.operation.unless_cancelled(told).await?;
        saga.judge_writers()
    })
}

fn abort_writers(saga: &mut CreateSet) -> StepFuture<'_> {
    Box::pin(async {
        saga.writers.abort_snapshot(&saga.plan.facts).await;
        Ok(())
    })
}

fn freeze(saga: &mut CreateSet) -> StepFuture<'_> {
    Box::pin(async {
        if saga.writers.involved().next().is_some() {
            saga.froze_at.get_or_insert_with(tokio::time::Instant::now);
        }
        let mut order = AppLevel::FREEZE_ORDER;
        if fault::is_off("levels") {
            order.reverse();
        }
        for level in order {
            saga.operation.unless_cancelled(saga.writers.freeze(level, &saga.plan.facts)).await?;
            saga.judge_writers()?;
            saga.writers.abort_failed(&saga.plan.facts).await;
        }
        Ok(())
    })
}

fn pre_commit(saga: &mut CreateSet) -> StepFuture<'_> {
    // Not beyond the first limit of the frozen writers. When that has passed already, the window says so by its name.
    let left = |deadline: tokio::time::Instant| deadline.saturating_duration_since(tokio::time::Instant::now());
    let limit = saga.writers.freeze_deadline().map_or(limits::PROVIDER_IN_WINDOW, left);
    let limit = limit.clamp(WINDOW_GRACE, limits::PROVIDER_IN_WINDOW);
    Box::pin(saga.phase("pre_commit", limit, |provider, set_id| provider.pre_commit(set_id)))
}

fn post_commit(saga: &mut CreateSet) -> StepFuture<'_> {
    Box::pin(async {
        for (name, provider) in saga.providers() {
            if saga.phases_done.contains(&("post_commit", name.clone())) {
                continue;
            }
            let set_id = saga.plan.set_id;
            let work = move || provider.post_commit(set_id);
            let copies = blocking::run(&format!("Provider {name} in post_commit"), limits::PROVIDER_IN_WINDOW, work)
                .await
                .map_err(|error| saga.trouble(&name, "post_commit", error))?;
            saga.committed.extend(copies.into_iter().map(|copy| (copy.shadow_id, copy)));
            saga.phases_done.insert(("post_commit", name));
        }
        match saga.plan.members.iter().find(|member| !saga.committed.contains_key(&member.shadow_id)) {
            Some(member) => Err(VssError::new(
                VssCode::UnexpectedProviderError,
                format!("Its provider does not say what became of {}", member.volume.mount_point.display()),
            )),
            None => Ok(()),
        }
    })
}

fn thaw(saga: &mut CreateSet) -> StepFuture<'_> {
    Box::pin(async {
        for level in AppLevel::FREEZE_ORDER.into_iter().rev() {
            // Not broken off by a wish to stop: it is what the wish would lead to.
            saga.writers.thaw(level, &saga.plan.facts).await;
        }
        if let Some(froze_at) = saga.froze_at.take() {
            saga.freeze_ms = milliseconds(froze_at.elapsed());
        }
        saga.judge_writers()?;
        saga.writers.abort_failed(&saga.plan.facts).await;
        Ok(())
    })
}

fn pre_final(saga: &mut CreateSet) -> StepFuture<'_> {
    Box::pin(saga.phase("pre_final", limits::PROVIDER_OUTSIDE, |provider, set_id| provider.pre_final_commit(set_id)))
}

fn post_final(saga: &mut CreateSet) -> StepFuture<'_> {
    Box::pin(saga.phase("post_final", limits::PROVIDER_OUTSIDE, |provider, set_id| provider.post_final_commit(set_id)))
}
