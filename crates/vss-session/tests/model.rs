//! Random sequences of events against an independent model: plain flags instead of phases.
//!
//! The model predicts which event is accepted and the code of each refusal. What holds of the effects in every sequence is
//! asserted in [`Witness`], which sees only what goes in and what comes out.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use vss_model::{
    AppLevel, Attributes, BackupState, Component, ComponentKind, ComponentName, Context, Declaration, ProviderId,
    SetId, ShadowId, Usage, VolumeId, VssCode, VssError, WriterClassId, WriterInstanceId, WriterMetadata,
};
use vss_session::{
    Call, ComponentReference, Effect, Event, Failure, Finished, Member, Operation, State, check, permits,
};

const SET: SetId = SetId::from_u128(1);
const CLASS: WriterClassId = WriterClassId::from_u128(2);
const INSTANCE: WriterInstanceId = WriterInstanceId::from_u128(3);
/// Components that the writer has; number `COMPONENTS` is one that it has not.
const COMPONENTS: u8 = 2;

/// How an operation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Succeeds,
    Fails,
    IsCancelled,
}

/// One thing that happens. Small, so that sequences collide with themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// A call without arguments, or with arguments that do not matter.
    Call(Call),
    SetContext(Context),
    AddComponent(u8),
    AddVolume(u8),
    SetBackupSucceeded(u8),
    SetStamp(u8),
    SetOptions(u8),
    Cancel,
    Finish(Operation, End),
    Gone,
}

const OPERATIONS: [Operation; 5] = [
    Operation::GatherWriterMetadata,
    Operation::PrepareForBackup,
    Operation::DoSnapshotSet,
    Operation::GatherWriterStatus,
    Operation::BackupComplete,
];

impl Action {
    /// The way of a backup.
    const ONWARD: [Self; 8] = [
        Self::Call(Call::InitializeForBackup),
        Self::Call(Call::SetBackupState),
        Self::Call(Call::GatherWriterMetadata),
        Self::AddComponent(0),
        Self::Call(Call::StartSnapshotSet),
        Self::Call(Call::PrepareForBackup),
        Self::Call(Call::DoSnapshotSet),
        Self::Call(Call::BackupComplete),
    ];

    fn all() -> Vec<Self> {
        let with_arguments = [
            Call::SetContext,
            Call::AddComponent,
            Call::AddToSnapshotSet,
            Call::SetBackupSucceeded,
            Call::SetBackupOptions,
            Call::SetPreviousBackupStamp,
        ];
        let mut all: Vec<Self> =
            Call::ALL.into_iter().filter(|call| !with_arguments.contains(call)).map(Self::Call).collect();
        all.extend(Context::CREATING.into_iter().chain([Context::All]).map(Self::SetContext));
        all.extend((0..=COMPONENTS).flat_map(|n| {
            [
                Self::AddComponent(n),
                Self::AddVolume(n),
                Self::SetBackupSucceeded(n),
                Self::SetStamp(n),
                Self::SetOptions(n),
            ]
        }));
        for operation in OPERATIONS {
            all.extend([End::Succeeds, End::Fails, End::IsCancelled].map(|end| Self::Finish(operation, end)));
        }
        all.extend([Self::Cancel, Self::Gone]);
        all
    }

    /// None for a query, which is no event.
    fn event(self) -> Option<Event> {
        Some(match self {
            Self::SetContext(context) => Event::SetContext(context, Attributes::empty()),
            Self::AddComponent(n) => Event::AddComponent(component(n)),
            Self::SetBackupSucceeded(n) => Event::SetBackupSucceeded { component: component(n), succeeded: true },
            Self::SetStamp(n) => Event::SetPreviousBackupStamp { component: component(n), stamp: "s".into() },
            Self::SetOptions(n) => Event::SetBackupOptions { component: component(n), options: "o".into() },
            Self::AddVolume(n) => Event::AddToSnapshotSet(Member {
                shadow_id: ShadowId::from_u128(n.into()),
                volume: VolumeId::file_system("ext4", &n.to_string()),
                provider: ProviderId::from_u128(9),
            }),
            Self::Cancel => Event::CancelRequested,
            Self::Gone => Event::RequesterGone,
            Self::Finish(operation, end) => Event::OperationFinished(finished(operation, end)),
            Self::Call(call) => match call {
                Call::InitializeForBackup => Event::InitializeForBackup,
                Call::InitializeForRestore => Event::InitializeForRestore,
                Call::DisableWriterInstances => Event::DisableWriterInstances(vec![INSTANCE]),
                Call::SetBackupState => Event::SetBackupState(BackupState::default()),
                Call::EnableWriterClasses => Event::EnableWriterClasses(vec![CLASS]),
                Call::DisableWriterClasses => Event::DisableWriterClasses(vec![CLASS]),
                Call::GatherWriterMetadata => Event::GatherWriterMetadata,
                Call::StartSnapshotSet => Event::StartSnapshotSet(SET),
                Call::PrepareForBackup => Event::PrepareForBackup,
                Call::DoSnapshotSet => Event::DoSnapshotSet { strict: true },
                Call::GatherWriterStatus => Event::GatherWriterStatus,
                Call::BackupComplete => Event::BackupComplete,
                Call::AbortBackup => Event::AbortBackup,
                _ => return None,
            },
        })
    }
}

fn finished(operation: Operation, end: End) -> Finished {
    let result = match end {
        End::Succeeds => Ok(()),
        End::Fails => Err(VssError::new(VssCode::ProviderVeto, "A provider refused").into()),
        End::IsCancelled => Err(Failure::Cancelled),
    };
    match operation {
        Operation::GatherWriterMetadata => Finished::GatherWriterMetadata(result.map(|()| vec![writer()])),
        Operation::PrepareForBackup => Finished::PrepareForBackup(result),
        Operation::DoSnapshotSet => Finished::DoSnapshotSet(result),
        Operation::GatherWriterStatus => Finished::GatherWriterStatus(result),
        Operation::BackupComplete => Finished::BackupComplete(result),
    }
}

fn component(n: u8) -> ComponentReference {
    let name = ComponentName { logical_path: String::new(), name: format!("component-{n}") };
    ComponentReference { instance_id: INSTANCE, class_id: CLASS, kind: ComponentKind::FileGroup, name }
}

fn writer() -> WriterMetadata {
    let components = (0..COMPONENTS).map(|n| Component::file_group(component(n).name.name).build().unwrap());
    WriterMetadata {
        class_id: CLASS,
        instance_id: INSTANCE,
        name: "writer".into(),
        instance_name: String::new(),
        usage: Usage::default(),
        level: AppLevel::default(),
        components: components.collect(),
        declaration: Declaration::default(),
        other: BTreeMap::new(),
    }
}

/// The model: what has happened, as flags.
#[derive(Debug, Clone, Default)]
struct Flags {
    initialized: bool,
    restore: bool,
    released: bool,
    context: Option<Context>,
    stated: bool,
    gathered: bool,
    components: BTreeSet<u8>,
    started: bool,
    volumes: BTreeSet<u8>,
    told: bool,
    prepared: bool,
    made: bool,
    failed: bool,
    status: bool,
    completed: bool,
    aborted: bool,
    running: Option<Operation>,
    abort_wanted: bool,
    gone: bool,
    /// What the last action must have been answered with.
    answer: Option<VssCode>,
}

impl Flags {
    /// The code of the refusal, none when the action is accepted.
    fn refusal(&self, action: Action) -> Option<VssCode> {
        let bad = |wrong: bool| wrong.then_some(VssCode::BadState);
        let call = match action {
            Action::Cancel | Action::Gone => return None,
            Action::Finish(operation, _) => return (self.running != Some(operation)).then_some(VssCode::Unexpected),
            Action::Call(call) => call,
            Action::SetContext(_) => Call::SetContext,
            Action::AddComponent(_) => Call::AddComponent,
            Action::AddVolume(_) => Call::AddToSnapshotSet,
            Action::SetBackupSucceeded(_) => Call::SetBackupSucceeded,
            Action::SetStamp(_) => Call::SetPreviousBackupStamp,
            Action::SetOptions(_) => Call::SetBackupOptions,
        };
        let begins = matches!(call, Call::InitializeForBackup | Call::InitializeForRestore);
        if self.released || self.initialized == begins {
            return bad(true);
        }
        let of_writers = matches!(
            call,
            Call::EnableWriterClasses
                | Call::DisableWriterClasses
                | Call::DisableWriterInstances
                | Call::GatherWriterMetadata
                | Call::GetWriterMetadata
                | Call::GatherWriterStatus
                | Call::GetWriterStatus
        );
        let of_restore =
            matches!(call, Call::SetRestoreState | Call::SetSelectedForRestore | Call::PreRestore | Call::PostRestore);
        if !begins && !of_writers && !call.is_of_objects() && self.restore != of_restore {
            return bad(true);
        }
        if self.running.is_some() && call != Call::AbortBackup && !call.is_query() {
            return bad(true);
        }
        let late = self.prepared || self.made || self.failed || self.completed || self.aborted;
        let writers = self.context.unwrap_or_default().has_writers();
        // The snapshot is behind us, or there is none to be made.
        let copied = self.made || (self.prepared && !self.started);
        let order = match call {
            _ if call.is_of_objects() || begins => false,
            _ if of_restore => return Some(VssCode::NotImplemented),
            Call::AbortBackup | Call::IsVolumeSupported => false,
            Call::SetContext => {
                late || self.context.is_some() || self.started || self.told || !self.components.is_empty()
            }
            Call::SetBackupState => late,
            Call::EnableWriterClasses | Call::DisableWriterClasses | Call::DisableWriterInstances => {
                self.completed || self.aborted
            }
            Call::GatherWriterMetadata => late || self.gathered,
            Call::GetWriterMetadata => !self.gathered,
            Call::AddComponent | Call::SetBackupOptions | Call::SetPreviousBackupStamp => {
                late || !writers || !self.gathered
            }
            Call::GetWriterComponents => !writers || !self.gathered,
            Call::StartSnapshotSet if !late && self.context == Some(Context::All) => {
                return Some(VssCode::UnsupportedContext);
            }
            Call::StartSnapshotSet => late || self.started,
            Call::AddToSnapshotSet => late || !self.started,
            Call::PrepareForBackup => late || !writers || !self.stated || !self.gathered,
            Call::DoSnapshotSet => {
                let finished = self.made || self.failed || self.completed || self.aborted;
                finished || !self.started || (writers && !(self.gathered && self.prepared))
            }
            Call::GatherWriterStatus => !(self.told || self.restore && self.gathered),
            Call::GetWriterStatus => !self.status,
            Call::GetSnapshotSet => !self.made,
            Call::SetBackupSucceeded | Call::BackupComplete => !writers || !copied || self.completed || self.aborted,
            Call::ImportSnapshots => true,
            _ => unreachable!("{call} is of one of the groups above"),
        };
        bad(order).or(match action {
            Action::AddComponent(n) if n >= COMPONENTS => Some(VssCode::ObjectNotFound),
            Action::AddComponent(n) if self.components.contains(&n) => Some(VssCode::ObjectAlreadyExists),
            Action::AddVolume(n) if self.volumes.contains(&n) => Some(VssCode::ObjectAlreadyExists),
            Action::SetBackupSucceeded(n) | Action::SetStamp(n) | Action::SetOptions(n)
                if !self.components.contains(&n) =>
            {
                Some(VssCode::ObjectNotFound)
            }
            _ => None,
        })
    }

    fn abort(&mut self) {
        let in_progress = self.started || self.prepared;
        if in_progress && !self.completed {
            self.aborted = true;
        }
    }

    fn accept(&mut self, action: Action) {
        match action {
            Action::SetContext(context) => self.context = Some(context),
            Action::AddComponent(n) => drop(self.components.insert(n)),
            Action::AddVolume(n) => drop(self.volumes.insert(n)),
            Action::SetBackupSucceeded(_) | Action::SetStamp(_) | Action::SetOptions(_) | Action::Cancel => {}
            Action::Gone => {
                self.gone = true;
                self.released = self.running.is_none();
            }
            Action::Finish(operation, end) => {
                let succeeded = end == End::Succeeds;
                self.running = None;
                match operation {
                    Operation::GatherWriterMetadata => self.gathered |= succeeded,
                    Operation::PrepareForBackup => self.prepared |= succeeded,
                    Operation::DoSnapshotSet => (self.made, self.failed) = (succeeded, !succeeded),
                    Operation::GatherWriterStatus => self.status |= succeeded,
                    Operation::BackupComplete => self.completed |= succeeded,
                }
                if std::mem::take(&mut self.abort_wanted) && !self.gone {
                    self.abort();
                }
                self.released = self.gone;
            }
            Action::Call(call) => match call {
                Call::InitializeForBackup => self.initialized = true,
                Call::InitializeForRestore => (self.initialized, self.restore) = (true, true),
                Call::SetBackupState => self.stated = true,
                Call::StartSnapshotSet => self.started = true,
                Call::GatherWriterMetadata => self.running = Some(Operation::GatherWriterMetadata),
                Call::PrepareForBackup => {
                    self.told = true;
                    self.running = Some(Operation::PrepareForBackup);
                }
                Call::DoSnapshotSet => self.running = Some(Operation::DoSnapshotSet),
                Call::GatherWriterStatus => self.running = Some(Operation::GatherWriterStatus),
                Call::BackupComplete => self.running = Some(Operation::BackupComplete),
                Call::AbortBackup if self.running.is_some() => self.abort_wanted = true,
                Call::AbortBackup => self.abort(),
                _ => {}
            },
        }
    }
}

struct Model;

impl ReferenceStateMachine for Model {
    type State = Flags;
    type Transition = Action;

    fn init_state() -> BoxedStrategy<Flags> {
        Just(Flags::default()).boxed()
    }

    /// Mostly steps towards a finished backup, so that sequences get far; then what is accepted now; then anything.
    fn transitions(flags: &Flags) -> BoxedStrategy<Action> {
        let accepted = |actions: &[Action]| -> Vec<Action> {
            actions.iter().copied().filter(|action| flags.refusal(*action).is_none()).collect()
        };
        let all = Action::all();
        let mut onward = accepted(&Action::ONWARD);
        onward.extend(flags.running.map(|operation| Action::Finish(operation, End::Succeeds)));
        if onward.is_empty() {
            onward.clone_from(&all);
        }
        prop_oneof![12 => select(onward), 3 => select(accepted(&all)), 5 => select(all)].boxed()
    }

    fn apply(mut flags: Flags, action: &Action) -> Flags {
        flags.answer = flags.refusal(*action);
        if flags.answer.is_none() {
            flags.accept(*action);
        }
        flags
    }
}

/// The session, and what an onlooker has seen of it.
#[derive(Default)]
struct Witness {
    state: State,
    locks_taken: usize,
    locks_released: usize,
    started: usize,
    ended: usize,
    cancels: usize,
    aborts: usize,
    shutdowns: usize,
    deletions: usize,
    told: bool,
    made: bool,
    completed: bool,
    requester_gone: bool,
}

/// How many sequences came how far, so that the test cannot pass by getting nowhere.
static MADE: AtomicUsize = AtomicUsize::new(0);
static COMPLETED: AtomicUsize = AtomicUsize::new(0);
static ABORTED: AtomicUsize = AtomicUsize::new(0);
static GONE_IN_OPERATION: AtomicUsize = AtomicUsize::new(0);

impl Witness {
    fn answer(&mut self, action: Action) -> Result<(), VssError> {
        let Some(event) = action.event() else {
            let Action::Call(query) = action else { unreachable!("only a query is no event") };
            return permits(&self.state, query);
        };
        let before = self.state.clone();
        let expected = check(&before, &event);
        let finished = matches!(event, Event::OperationFinished(_));
        match self.state.apply(event.clone()) {
            Err(refusal) => {
                assert_eq!(Err(&refusal), expected.as_ref(), "check and step differ");
                assert_eq!(self.state, before, "a refusal changed the session");
                assert!(refusal.code != VssCode::BadState || !refusal.hint.is_empty(), "no way out: {refusal}");
                Err(refusal)
            }
            Ok(effects) => {
                assert_eq!(expected, Ok(()), "check and step differ");
                assert!(effects.is_empty() || !before.is_released(), "an effect after the end: {effects:?}");
                let farewell = finished || !self.requester_gone;
                assert!(effects.is_empty() || farewell, "the requester was gone: {effects:?}");
                self.see_event(&event);
                effects.iter().for_each(|effect| self.see_effect(effect, &before));
                Ok(())
            }
        }
    }

    fn see_event(&mut self, event: &Event) {
        match event {
            Event::StartSnapshotSet(_) => self.locks_taken += 1,
            Event::RequesterGone => {
                if self.state.running().is_some() && !self.requester_gone {
                    GONE_IN_OPERATION.fetch_add(1, Relaxed);
                }
                self.requester_gone = true;
            }
            Event::OperationFinished(finished) => {
                self.ended += 1;
                self.cancels = 0;
                self.made |= *finished == Finished::DoSnapshotSet(Ok(()));
                self.completed |= *finished == Finished::BackupComplete(Ok(()));
            }
            _ => {}
        }
    }

    fn see_effect(&mut self, effect: &Effect, before: &State) {
        match effect {
            Effect::IdentifyWriters(_)
            | Effect::CreateSet { .. }
            | Effect::GatherStatus
            | Effect::CompleteBackup
            | Effect::PrepareWriters => {
                self.started += 1;
                self.told |= *effect == Effect::PrepareWriters;
            }
            Effect::CancelOperation(operation) => {
                self.cancels += 1;
                assert_eq!(self.cancels, 1, "an operation is cancelled once");
                assert_eq!(before.running().map(|running| running.operation), Some(*operation));
            }
            Effect::AbortWriters => {
                self.aborts += 1;
                assert!(self.told, "Abort to writers that know of nothing");
                assert!(!self.made, "Abort after PostSnapshot");
                assert!(!self.completed, "Abort after BackupComplete");
            }
            Effect::ForgetSet(set_id) => {
                assert_eq!(*set_id, SET);
                assert!(!self.made && self.locks_taken > self.locks_released, "only an open set is forgotten");
            }
            Effect::ReleaseCreationLock => self.locks_released += 1,
            Effect::ShutdownWriters { set_id } => {
                self.shutdowns += 1;
                assert_eq!(*set_id, self.made.then_some(SET));
            }
            Effect::DeleteAutoRelease(set_id) => {
                self.deletions += 1;
                assert!(self.made && *set_id == SET);
                assert!(before.draft().unwrap().context().is_auto_release());
            }
        }
    }

    fn check(&self) {
        assert!(self.locks_taken <= 1 && self.locks_released <= self.locks_taken, "lock out of balance");
        assert!(self.shutdowns <= 1 && self.deletions <= 1);
        assert_eq!(self.started - self.ended, usize::from(self.state.running().is_some()), "operations out of balance");
        let held = self.locks_taken - self.locks_released;
        match self.state.draft() {
            Some(draft) => assert_eq!(draft.holds_creation_lock(), held == 1),
            None => assert_eq!(held, 0, "the lock outlives the session"),
        }
        if self.state.is_released() {
            assert_eq!(
                self.shutdowns,
                usize::from(self.told),
                "BackupShutdown once to writers that were told anything"
            );
            assert!(!self.told || self.made || self.completed || self.aborts > 0, "writers were left waiting");
            assert_eq!(self.started, self.ended);
        } else {
            assert_eq!(self.shutdowns + self.deletions, 0, "the session goes on");
        }
    }
}

impl StateMachineTest for Witness {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(_: &Flags) -> Self {
        Self::default()
    }

    fn apply(mut witness: Self, flags: &Flags, action: Action) -> Self {
        let answer = witness.answer(action);
        assert_eq!(answer.as_ref().err().map(|error| error.code), flags.answer, "{action:?}: {answer:?}");
        witness
    }

    fn check_invariants(witness: &Self, flags: &Flags) {
        witness.check();
        assert_eq!(witness.state.is_released(), flags.released);
        assert_eq!(witness.state.running().map(|running| running.operation), flags.running);
        for query in Call::ALL.into_iter().filter(|call| call.is_query()) {
            let code = permits(&witness.state, query).err().map(|error| error.code);
            assert_eq!(code, flags.refusal(Action::Call(query)), "{query}");
        }
    }

    /// Every session ends: the requester goes, and the running operation with it.
    fn teardown(mut witness: Self, flags: Flags) {
        MADE.fetch_add(flags.made.into(), Relaxed);
        COMPLETED.fetch_add(flags.completed.into(), Relaxed);
        ABORTED.fetch_add(flags.aborted.into(), Relaxed);
        witness.answer(Action::Gone).unwrap();
        if let Some(running) = witness.state.running() {
            witness.answer(Action::Finish(running.operation, End::IsCancelled)).unwrap();
        }
        witness.check();
        assert!(witness.state.is_released());
        let auto_release = flags.context.unwrap_or_default().is_auto_release();
        assert_eq!(witness.deletions, usize::from(witness.made && auto_release));
    }
}

#[test]
fn random_sessions_follow_the_model() {
    const CASES: u32 = 3000;
    let config = Config { failure_persistence: None, ..Config::with_cases(CASES) };
    let sessions = Model::sequential_strategy(1..80);
    let outcome = TestRunner::new(config.clone()).run(&sessions, |(flags, actions, seen)| {
        Witness::test_sequential(config.clone(), flags, actions, seen);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    let reached = [&MADE, &COMPLETED, &ABORTED, &GONE_IN_OPERATION].map(|counter| counter.load(Relaxed));
    println!("of {CASES} sessions: sets made, backups completed, aborted, requester gone in an operation: {reached:?}");
    assert!(reached.iter().all(|count| *count > 50), "the sequences do not get far enough: {reached:?}");
}
