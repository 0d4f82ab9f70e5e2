//! The states of a session and the step from one to the next. Which call is allowed where stands in [`order`](crate::order).
//!
//! ```text
//!  Created
//!     | InitializeForBackup
//!     v
//!  Drafting      SetContext, SetBackupState, EnableWriterClasses, (GatherWriterMetadata), AddComponent,
//!     |  |       StartSnapshotSet: the creation lock is held from here, AddToSnapshotSet
//!     |  |
//!     |  | (PrepareForBackup), contexts with writers        fails: Abort to writers, back to Drafting
//!     |  v
//!     |  Prepared ---- no set was begun --------------------------------+
//!     |  |                                                              |
//!     +--+ (DoSnapshotSet): the lock is given back                      |
//!        |                                                              |
//!        +-- succeeds --> SnapshotDone ------ contexts with writers ----+
//!        |                                                              |
//!        +-- fails -----> SnapshotFailed      SetBackupSucceeded, (BackupComplete)
//!                                                                       |
//!                                                         succeeds      v
//!                                                                   Completed
//!
//!  AbortBackup    Drafting with a set, Prepared, SnapshotDone, SnapshotFailed --> Aborted
//!                 elsewhere of no effect
//!  RequesterGone  every state --> Released
//! ```
//!
//! A restore begins with InitializeForRestore and stays in Drafting; what it has besides the calls about writers and finished
//! copies comes with the restore.
//!
//! Both ends give up what is under way: Abort to writers (in Prepared and SnapshotFailed; after SnapshotDone they are past
//! PostSnapshot and get none), the open set forgotten, the creation lock given back. RequesterGone then sends BackupShutdown
//! to the writers that were told anything, and deletes the finished set of an auto-release context.
//!
//! Names in parentheses are asynchronous: the phase stays and [`Session::running`] says what runs, until
//! [`OperationFinished`](Event::OperationFinished). Meanwhile only queries, AbortBackup, a cancel and the requester's end are
//! accepted. AbortBackup and the end cancel the operation at once, and have their own effects when the operation has really
//! ended: so the creation lock is never given back under a set that is still being made, and an operation that succeeded all
//! the same is seen as such.

use crate::{Chosen, Draft, Effect, Event, Finished, Kind, Operation, Progress, SnapshotSet, check};
use vss_model::VssError;

/// Where a session stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum State {
    /// Opened; only InitializeForBackup or InitializeForRestore can follow.
    #[default]
    Created,
    /// Begun.
    Open(Box<Session>),
    /// Ended. Nothing follows any more.
    Released,
}

/// A session that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Session {
    kind: Kind,
    draft: Draft,
    phase: Phase,
    running: Option<Running>,
}

/// How far a backup has come; a restore stays at the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// The requester says what it wants.
    #[default]
    Drafting,
    /// PrepareForBackup has succeeded.
    Prepared,
    /// DoSnapshotSet has succeeded: the set is made.
    SnapshotDone,
    /// DoSnapshotSet has failed: nothing of the set is left.
    SnapshotFailed,
    /// BackupComplete has succeeded.
    Completed,
    /// AbortBackup has taken effect.
    Aborted,
}

/// The operation that runs, and what follows its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// What runs.
    pub operation: Operation,
    /// What follows.
    pub ending: Ending,
}

/// What follows the end of the running operation. The stronger wish wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// The next call.
    Plain,
    /// The next call; the operation was asked to stop.
    Cancelled,
    /// AbortBackup; the operation was asked to stop.
    Abort,
    /// The session's end; the operation was asked to stop.
    Release,
}

impl State {
    /// Takes the step in place.
    ///
    /// # Errors
    /// As [`step`]; the state is then as it was.
    pub fn apply(&mut self, event: Event) -> Result<Vec<Effect>, VssError> {
        let (next, answer) = step(std::mem::take(self), event);
        *self = next;
        answer
    }

    /// The session; none before it begins and after its end.
    #[must_use]
    pub fn session(&self) -> Option<&Session> {
        match self {
            Self::Open(session) => Some(session),
            Self::Created | Self::Released => None,
        }
    }

    /// What the session has gathered; none before it begins and after its end.
    #[must_use]
    pub fn draft(&self) -> Option<&Draft> {
        self.session().map(Session::draft)
    }

    /// The operation that runs.
    #[must_use]
    pub fn running(&self) -> Option<Running> {
        self.session().and_then(Session::running)
    }

    /// True when the session is over and nothing of it is left to do.
    #[must_use]
    pub const fn is_released(&self) -> bool {
        matches!(self, Self::Released)
    }
}

/// One step: the next state, and what has to be done; or the refusal, with the state as it was.
///
/// The refusal is `VSS_E_BAD_STATE` for a call out of sequence, and for wrong data `E_INVALIDARG`,
/// `VSS_E_OBJECT_NOT_FOUND`, `VSS_E_OBJECT_ALREADY_EXISTS` or `VSS_E_MAXIMUM_NUMBER_OF_VOLUMES_REACHED` (spec R 1.8);
/// `VSS_E_UNEXPECTED` when the end of an operation is reported that does not run. RequesterGone and CancelRequested are never
/// refused.
pub fn step(state: State, event: Event) -> (State, Result<Vec<Effect>, VssError>) {
    if let Err(refusal) = check(&state, &event) {
        return (state, Err(refusal));
    }
    let (next, effects) = match (state, event) {
        (State::Created, Event::InitializeForBackup) => (State::Open(Box::default()), Vec::new()),
        (State::Created, Event::InitializeForRestore) => {
            (State::Open(Box::new(Session { kind: Kind::Restore, ..Session::default() })), Vec::new())
        }
        (State::Created, Event::RequesterGone) => (State::Released, Vec::new()),
        (State::Open(session), event) => session.step(event),
        (state @ (State::Created | State::Released), _) => (state, Vec::new()),
    };
    (next, Ok(effects))
}

impl Session {
    /// What it is for.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// What the session has gathered.
    #[must_use]
    pub const fn draft(&self) -> &Draft {
        &self.draft
    }

    /// How far it has come; while an operation runs, how far it was before.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// The operation that runs.
    #[must_use]
    pub const fn running(&self) -> Option<Running> {
        self.running
    }

    /// A step that `check` has allowed.
    fn step(mut self: Box<Self>, event: Event) -> (State, Vec<Effect>) {
        let effects = match event {
            Event::OperationFinished(finished) => {
                let ending = self.running.take().map_or(Ending::Plain, |running| running.ending);
                let mut effects = self.finish(finished);
                match ending {
                    Ending::Plain | Ending::Cancelled => effects,
                    Ending::Abort => {
                        effects.extend(self.abort());
                        effects
                    }
                    Ending::Release => {
                        effects.extend(self.release());
                        return (State::Released, effects);
                    }
                }
            }
            Event::RequesterGone if self.running.is_none() => return (State::Released, self.release()),
            Event::RequesterGone => self.stop(Ending::Release),
            Event::CancelRequested => self.stop(Ending::Cancelled),
            Event::AbortBackup if self.is_over() => Vec::new(),
            Event::AbortBackup if self.running.is_some() => self.stop(Ending::Abort),
            Event::AbortBackup => self.abort(),
            Event::GatherWriterMetadata => {
                self.begin(Operation::GatherWriterMetadata, Effect::IdentifyWriters(self.draft.filter.clone()))
            }
            Event::PrepareForBackup => {
                self.draft.writers_told = true;
                self.begin(Operation::PrepareForBackup, Effect::PrepareWriters)
            }
            Event::DoSnapshotSet { strict } => match self.draft.set().map(SnapshotSet::id) {
                Some(set_id) => self.begin(Operation::DoSnapshotSet, Effect::CreateSet { set_id, strict }),
                None => Vec::new(),
            },
            Event::GatherWriterStatus => self.begin(Operation::GatherWriterStatus, Effect::GatherStatus),
            Event::BackupComplete => self.begin(Operation::BackupComplete, Effect::CompleteBackup),
            note => {
                self.draft.note(note);
                Vec::new()
            }
        };
        (State::Open(self), effects)
    }

    /// An operation starts.
    fn begin(&mut self, operation: Operation, effect: Effect) -> Vec<Effect> {
        self.running = Some(Running { operation, ending: Ending::Plain });
        vec![effect]
    }

    /// The running operation is asked to stop, once; the stronger wish for what follows is kept.
    fn stop(&mut self, ending: Ending) -> Vec<Effect> {
        let Some(running) = &mut self.running else { return Vec::new() };
        let first = running.ending == Ending::Plain;
        running.ending = running.ending.max(ending);
        if first { vec![Effect::CancelOperation(running.operation)] } else { Vec::new() }
    }

    /// The running operation has ended.
    fn finish(&mut self, finished: Finished) -> Vec<Effect> {
        match finished {
            Finished::GatherWriterMetadata(Ok(writers)) => self.draft.writers = Some(writers),
            Finished::GatherWriterStatus(Ok(())) => self.draft.status_gathered = true,
            // A repeat is allowed; nothing is in progress that was not before.
            Finished::GatherWriterMetadata(Err(_))
            | Finished::GatherWriterStatus(Err(_))
            | Finished::BackupComplete(Err(_)) => {}
            Finished::PrepareForBackup(Ok(())) => self.phase = Phase::Prepared,
            // The requester need not abort (spec R 1.6), so we do: a writer may have begun long work.
            Finished::PrepareForBackup(Err(_)) => return vec![Effect::AbortWriters],
            Finished::DoSnapshotSet(result) => {
                let (phase, progress) = match result {
                    Ok(()) => (Phase::SnapshotDone, Progress::Made),
                    Err(_) => (Phase::SnapshotFailed, Progress::Undone),
                };
                self.phase = phase;
                if let Some(set) = &mut self.draft.set {
                    set.progress = progress;
                }
                return vec![Effect::ReleaseCreationLock];
            }
            Finished::BackupComplete(Ok(())) => self.phase = Phase::Completed,
        }
        Vec::new()
    }

    /// AbortBackup, with no operation running. Of no effect when nothing is in progress (spec R 1.6).
    fn abort(&mut self) -> Vec<Effect> {
        let in_progress = match self.phase {
            Phase::Drafting => self.draft.holds_creation_lock(),
            Phase::Prepared | Phase::SnapshotDone | Phase::SnapshotFailed => true,
            Phase::Completed | Phase::Aborted => false,
        };
        if !in_progress {
            return Vec::new();
        }
        let effects = self.give_up();
        self.phase = Phase::Aborted;
        effects
    }

    /// The session's end, with no operation running.
    fn release(mut self) -> Vec<Effect> {
        let mut effects = self.give_up();
        let made = self.draft.made_set();
        if self.draft.writers_told {
            effects.push(Effect::ShutdownWriters { set_id: made });
        }
        if let Some(set_id) = made
            && self.draft.context().is_auto_release()
        {
            effects.push(Effect::DeleteAutoRelease(set_id));
        }
        effects
    }

    /// What is under way is undone: writers that wait for the set get Abort, an open set is forgotten.
    fn give_up(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        // After a failed DoSnapshotSet nobody knows which writers had their Abort, and a second does no harm (spec R 1.6).
        // After a successful one they are past PostSnapshot and get none (spec R 2.2).
        if self.draft.writers_told && matches!(self.phase, Phase::Prepared | Phase::SnapshotFailed) {
            effects.push(Effect::AbortWriters);
        }
        if let Some(set) = &mut self.draft.set
            && set.progress == Progress::Open
        {
            set.progress = Progress::Undone;
            effects.extend([Effect::ForgetSet(set.id()), Effect::ReleaseCreationLock]);
        }
        effects
    }

    /// True when the backup has its end: completed or aborted.
    pub(crate) const fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Completed | Phase::Aborted)
    }
}

impl Draft {
    /// Takes in what a synchronous call says.
    fn note(&mut self, event: Event) {
        match event {
            Event::SetContext(context, attributes) => {
                self.context = Some(context);
                self.attributes = attributes;
            }
            Event::SetBackupState(state) => self.backup_state = Some(state),
            // Once the writers were asked, the filter is of no use any more (spec R 1.3, row 5).
            Event::EnableWriterClasses(classes) if self.writers.is_none() => self.filter.enable(classes),
            Event::DisableWriterClasses(classes) if self.writers.is_none() => self.filter.disable(classes),
            Event::DisableWriterInstances(instances) if self.writers.is_none() => {
                self.filter.disable_instances(instances);
            }
            Event::AddComponent(component) => {
                self.components.insert(component, Chosen::default());
            }
            Event::SetBackupOptions { component, options } => {
                self.components.entry(component).or_default().backup_options = options;
            }
            Event::SetPreviousBackupStamp { component, stamp } => {
                self.components.entry(component).or_default().previous_backup_stamp = stamp;
            }
            Event::SetBackupSucceeded { component, succeeded } => {
                self.components.entry(component).or_default().succeeded = Some(succeeded);
            }
            Event::StartSnapshotSet(set_id) => self.set = Some(SnapshotSet::new(set_id)),
            Event::AddToSnapshotSet(member) => {
                if let Some(set) = &mut self.set {
                    set.add(member);
                }
            }
            _ => {}
        }
    }
}
