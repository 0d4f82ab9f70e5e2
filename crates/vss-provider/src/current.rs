//! The one set that a provider has in creation: who may work on it, and how it is undone while a phase runs.
//!
//! What a creation is, is the provider's own ([`Creation`]); here is only who holds it. `abort` may come from another thread
//! at any time: it waits a little for a phase that is running, and otherwise leaves the undoing to that phase's thread.

use crate::stage::{Stage, unknown_set};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use vss_model::{SetId, VssCode, VssError};

/// How long `abort` waits for a phase that is running before it leaves the undoing to that phase's thread.
const ABORT_PATIENCE: Duration = Duration::from_secs(5);

/// A set that is not finished, as its provider keeps it.
pub trait Creation: Send {
    /// A set with no volume.
    fn new() -> Self;

    /// What was done last.
    fn stage(&self) -> Stage;

    /// Deletes whatever was made. Goes on after a failure and returns the first.
    ///
    /// # Errors
    /// What is left is deleted later, by its record.
    fn undo(self) -> Result<(), VssError>;
}

/// The place of the set in creation; empty between sets.
#[derive(Debug)]
pub struct Current<C> {
    /// The provider's name, for errors.
    name: &'static str,
    set: Mutex<Option<Arc<CurrentSet<C>>>>,
}

/// The set in creation.
#[derive(Debug)]
pub struct CurrentSet<C> {
    id: SetId,
    /// Set by `abort`; a running phase looks at it between its steps, and undoes the set if it finds it at its end.
    aborted: AtomicBool,
    /// None when it was undone or finished.
    creation: Mutex<Option<C>>,
}

impl<C: Creation> Current<C> {
    /// An empty place, of the provider with this name.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, set: Mutex::default() }
    }

    fn set(&self) -> MutexGuard<'_, Option<Arc<CurrentSet<C>>>> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, set_id: SetId) -> Option<Arc<CurrentSet<C>>> {
        self.set().as_ref().filter(|set| set.id == set_id).map(Arc::clone)
    }

    /// True when no set is in creation.
    pub fn is_empty(&self) -> bool {
        self.set().is_none()
    }

    /// Begins this set, unless it is in preparation already. An earlier one is undone: spec P 2.6.
    pub fn begin(&self, set_id: SetId) {
        let earlier = {
            let mut current = self.set();
            let is_preparing = |creation: &C| creation.stage() == Stage::Preparing;
            let is_same = |set: &Arc<CurrentSet<C>>| set.id == set_id && set.lock().as_ref().is_some_and(is_preparing);
            if current.as_ref().is_some_and(is_same) {
                None
            } else {
                current.replace(Arc::new(CurrentSet {
                    id: set_id,
                    aborted: AtomicBool::new(false),
                    creation: Mutex::new(Some(C::new())),
                }))
            }
        };
        if let Some(earlier) = earlier {
            // Its record is still in the catalogue: what cannot be undone now is deleted from there.
            let _ = self.undo_set(&earlier);
        }
    }

    /// Runs one phase: the set must be this one and at this stage. Allocates nothing unless it fails.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND` for an unknown set, `VSS_E_BAD_STATE` for another stage, `VSS_E_PROVIDER_VETO` when the set was
    /// aborted meanwhile, and what `act` says.
    pub fn phase<T>(
        &self,
        set_id: SetId,
        wanted: Stage,
        call: &str,
        act: impl FnOnce(&mut C, &CurrentSet<C>) -> Result<T, VssError>,
    ) -> Result<T, VssError> {
        let set = self.of(set_id).ok_or_else(|| unknown_set(set_id))?;
        let mut creation = set.lock();
        let running = creation.as_mut().ok_or_else(|| unknown_set(set_id))?;
        running.stage().expect(wanted, call)?;
        let result = set.check().and_then(|()| act(running, &set));
        if set.aborted.load(Ordering::Acquire) {
            undo(creation.take())?;
            return result.and_then(|_| Err(set.was_aborted()));
        }
        result
    }

    /// Runs the last phase; with that the set is finished, and everything that was open for it is closed.
    ///
    /// # Errors
    /// As [`Self::phase`].
    pub fn finish(&self, set_id: SetId, act: impl FnOnce(&mut C) -> Result<(), VssError>) -> Result<(), VssError> {
        self.phase(set_id, Stage::Writable, "post_final_commit", |creation, _| act(creation))?;
        self.set().take_if(|set| set.id == set_id);
        Ok(())
    }

    /// Ends a set that is not finished, if it is this one. Waits for a phase that is running, but not for ever.
    ///
    /// # Errors
    /// What could not be undone; `VSS_E_PROVIDER_VETO` when a phase does not return, which then undoes the set itself.
    pub fn abort(&self, set_id: SetId) -> Result<(), VssError> {
        let set = self.set().take_if(|set| set.id == set_id);
        set.map_or(Ok(()), |set| self.undo_set(&set))
    }

    /// What `look` finds in the set, if it is in creation. Waits for a phase that is running.
    pub fn look<T>(&self, set_id: SetId, look: impl FnOnce(&mut C) -> T) -> Option<T> {
        let set = self.of(set_id)?;
        let mut creation = set.lock();
        let found = creation.as_mut().map(look);
        if set.aborted.load(Ordering::Acquire) {
            // Nobody is there any more who could be told what cannot be undone.
            let _ = undo(creation.take());
        }
        found
    }

    fn undo_set(&self, set: &CurrentSet<C>) -> Result<(), VssError> {
        set.aborted.store(true, Ordering::Release);
        let deadline = Instant::now() + ABORT_PATIENCE;
        loop {
            match set.creation.try_lock() {
                Ok(mut creation) => return undo(creation.take()),
                Err(TryLockError::Poisoned(creation)) => return undo(creation.into_inner().take()),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
                Err(TryLockError::WouldBlock) => {
                    return Err(VssError::new(
                        VssCode::ProviderVeto,
                        format!(
                            "A {} call of set {} does not return; its copies are deleted when it does",
                            self.name, set.id
                        ),
                    )
                    .with_hint("A frozen file system blocks it: look with fsfreeze --unfreeze at who froze it"));
                }
            }
        }
    }
}

impl<C> CurrentSet<C> {
    fn lock(&self) -> MutexGuard<'_, Option<C>> {
        self.creation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asked by a phase between its steps.
    ///
    /// # Errors
    /// `VSS_E_PROVIDER_VETO` when the set was aborted meanwhile.
    pub fn check(&self) -> Result<(), VssError> {
        if self.aborted.load(Ordering::Acquire) { Err(self.was_aborted()) } else { Ok(()) }
    }

    fn was_aborted(&self) -> VssError {
        VssError::new(VssCode::ProviderVeto, format!("Set {} was aborted meanwhile", self.id))
    }
}

fn undo<C: Creation>(creation: Option<C>) -> Result<(), VssError> {
    creation.map_or(Ok(()), Creation::undo)
}
