//! The coordinator: one task that owns all state of the service (design 4).
//!
//! ```text
//!   door (api/) ------- Action --+                       +--> replies
//!                                v                       |
//!                     select -> action -> apply(action) -+--> jobs (jobs.rs), which come back as actions
//! ```
//!
//! [`Coordinator::apply`] is not async and never blocks: what waits is a job. So status and lists are answered at any time,
//! also while writes are held.
//!
//! What each call means stands in `api/requester.rs`, `api/management.rs` and their neighbours; registration in `api/writer.rs`.

use crate::creation_lock::CreationLock;
use crate::environment::Environment;
use crate::fault;
use crate::jobs::{self, Candidate, Epilogue, OperationOutcome};
use crate::request_queue::RequestQueue;
use crate::reverts::Reverts;
use crate::sagas::create_set::Member;
use crate::sessions::Session;
use crate::writers::{Registry, SessionWriters};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant as Clock;
use vss_api::event::{self, EventKind};
use vss_api::requester::VolumeAdded;
use vss_api::server::{Call, ConnectionId, Face, Peer, Replier, WriterReplier};
use vss_api::{Empty, requester, writer};
use vss_model::{CreationOptions, Instant, VssCode, VssError, WriterClassId, WriterInstanceId, limits};
use vss_session::{Effect, Event};

/// An instance on demand ends when it has been idle for so long.
const IDLE: Duration = Duration::from_millis(200);

/// How long open sessions are given to end when the service is told to stop.
const LAST_GRACE: Duration = Duration::from_secs(20);

/// What can happen.
pub enum Action {
    /// A peer was let in.
    Connected(ConnectionId, Face, Peer),
    /// A call arrived.
    Call(ConnectionId, Call, Replier),
    /// A writer wants to join.
    Register(ConnectionId, writer::Register, WriterReplier),
    /// It is known to whom the writer's class belongs.
    ClassBound {
        /// Its connection.
        connection: ConnectionId,
        /// What it said of itself.
        register: writer::Register,
        /// Where the answer goes.
        replier: WriterReplier,
        /// The uid that the class belongs to.
        owner: Result<u32, VssError>,
    },
    /// A connection ended.
    Disconnected(ConnectionId),
    /// The creation lock was taken for a set with these wishes, or not.
    LockTaken(ConnectionId, Result<(CreationLock, CreationOptions), VssError>, Replier),
    /// A volume and its provider were found, or not.
    VolumeFound(ConnectionId, Result<Box<Candidate>, VssError>, Replier),
    /// A volume was taken into a set, or not.
    VolumeTaken(ConnectionId, Result<Box<(Member, VolumeAdded)>, VssError>, Replier),
    /// An operation ended.
    OperationEnded(ConnectionId, Box<OperationOutcome>),
    /// What follows an abort or a session's end is done.
    EpilogueEnded(ConnectionId, Box<Epilogue>, Option<Replier>),
    /// A job that a session waited for broke off.
    Resumed(ConnectionId),
    /// A check of a peer with this uid is done.
    CheckEnded(u32),
    /// A job that answered by itself is done.
    JobEnded,
    /// The service has said that it is ready: from now on it may be idle.
    Ready,
    /// The service is told to stop.
    Stop,
}

/// One connection of the requester face.
pub(crate) struct Connection {
    pub(crate) peer: Peer,
    pub(crate) session: Option<Session>,
    pub(crate) queue: RequestQueue<(requester::Call, Replier)>,
    /// The peer is gone; the entry stays until its session has ended.
    gone: bool,
}

/// What the coordinator is made of.
pub struct Coordinator {
    pub(crate) environment: Arc<Environment>,
    pub(crate) connections: BTreeMap<ConnectionId, Connection>,
    pub(crate) writer_connections: BTreeMap<ConnectionId, (Peer, Option<WriterInstanceId>)>,
    pub(crate) registry: Registry,
    /// Class ids that `vss.toml` gives to a uid.
    pub(crate) classes: BTreeMap<WriterClassId, u32>,
    pub(crate) backup_sessions: usize,
    pub(crate) writer_prepare: Duration,
    pub(crate) creation_lock: PathBuf,
    pub(crate) state_directory: PathBuf,
    /// The uids of those whose checks are running.
    pub(crate) checks: Vec<u32>,
    /// Room for questions about blocks.
    pub(crate) block_questions: Arc<Semaphore>,
    /// Room for questions about documents.
    pub(crate) document_questions: Arc<Semaphore>,
    pub(crate) reverts: Arc<Reverts>,
    pub(crate) started_at: Instant,
    pub(crate) recovery: Vec<String>,
    actions: mpsc::UnboundedSender<Action>,
    incoming: mpsc::UnboundedReceiver<Action>,
    jobs: usize,
    on_demand: bool,
    ready: bool,
    stopping: bool,
}

/// What a coordinator begins with.
pub struct Beginning {
    /// What every part shares.
    pub environment: Arc<Environment>,
    /// The settings of writers.
    pub writers: crate::config::Writers,
    /// The machine-wide lock file.
    pub creation_lock: PathBuf,
    /// Where the instance keeps its catalogue, and settings of its own if it has any.
    pub state_directory: PathBuf,
    /// What recovery did.
    pub recovery: Vec<String>,
    /// True: end when idle.
    pub on_demand: bool,
}

impl Coordinator {
    /// A coordinator, and where its actions go.
    #[must_use]
    pub fn new(beginning: Beginning) -> (Self, mpsc::UnboundedSender<Action>) {
        // Unbounded, and bounded all the same: a connection has at most 32 unanswered calls, and connections are bounded.
        let (actions, incoming) = mpsc::unbounded_channel();
        let coordinator = Self {
            environment: beginning.environment,
            connections: BTreeMap::new(),
            writer_connections: BTreeMap::new(),
            registry: Registry::new(&beginning.writers),
            classes: beginning.writers.classes,
            backup_sessions: limits::BACKUP_SESSIONS,
            writer_prepare: limits::WRITER_PREPARE,
            creation_lock: beginning.creation_lock,
            state_directory: beginning.state_directory,
            checks: Vec::new(),
            block_questions: Arc::new(Semaphore::new(limits::BLOCK_QUESTIONS)),
            document_questions: Arc::new(Semaphore::new(limits::DOCUMENT_QUESTIONS)),
            reverts: Arc::default(),
            started_at: Instant::now(),
            recovery: beginning.recovery,
            actions: actions.clone(),
            incoming,
            jobs: 0,
            on_demand: beginning.on_demand,
            ready: false,
            stopping: false,
        };
        (coordinator, actions)
    }

    /// Serves until the service is told to stop, or, on demand, until it is idle.
    pub async fn run(mut self) {
        self.resume_reverts();
        let mut idle_since = Clock::now();
        let mut stop_by = None;
        loop {
            let deadline = match stop_by {
                Some(stop_by) => Some(stop_by),
                None if self.on_demand && self.ready && self.is_idle() => Some(idle_since + IDLE),
                None => None,
            };
            let action = tokio::select! {
                action = self.incoming.recv() => action,
                () = sleep_until(deadline) => None,
            };
            let Some(action) = action else { break };
            self.apply(action);
            idle_since = Clock::now();
            if self.stopping {
                if self.is_idle() {
                    break;
                }
                stop_by.get_or_insert_with(|| Clock::now() + LAST_GRACE);
            }
        }
    }

    /// Nobody is connected and nothing is going on. Writers do not count: they wait for requesters.
    fn is_idle(&self) -> bool {
        self.connections.is_empty() && self.jobs == 0
    }

    /// Takes in what happened.
    pub fn apply(&mut self, action: Action) {
        match action {
            // Its calls are answered by their dropped repliers: nothing new may keep us from ending.
            Action::Connected(_, Face::Requester, _) if self.stopping => {}
            Action::Connected(id, Face::Requester, peer) => {
                let connection = Connection { peer, session: None, queue: RequestQueue::default(), gone: false };
                self.connections.insert(id, connection);
            }
            Action::Connected(id, Face::Writer, peer) => {
                self.writer_connections.insert(id, (peer, None));
            }
            Action::Call(id, Call::Requester(call), replier) => self.requester_call(id, call, replier),
            Action::Call(id, Call::Management(call), replier) => self.management_call(id, call, replier),
            Action::Register(id, register, replier) => self.register(id, register, replier),
            Action::ClassBound { connection, register, replier, owner } => {
                self.jobs -= 1;
                self.admit_writer(connection, register, replier, owner);
            }
            Action::Disconnected(id) => self.disconnected(id),
            Action::LockTaken(id, taken, replier) => {
                self.jobs -= 1;
                self.lock_taken(id, taken, replier);
            }
            Action::VolumeFound(id, found, replier) => {
                self.jobs -= 1;
                self.volume_found(id, found, replier);
            }
            Action::VolumeTaken(id, taken, replier) => {
                self.jobs -= 1;
                self.volume_taken(id, taken, replier);
            }
            Action::OperationEnded(id, outcome) => {
                self.jobs -= 1;
                self.operation_ended(id, *outcome);
            }
            Action::EpilogueEnded(id, epilogue, replier) => {
                self.jobs -= 1;
                self.epilogue_ended(id, *epilogue, replier);
            }
            Action::Resumed(id) => {
                self.jobs -= 1;
                self.resume(id);
            }
            Action::CheckEnded(uid) => {
                self.jobs -= 1;
                self.check_ended(uid);
            }
            Action::JobEnded => self.jobs -= 1,
            Action::Ready => self.ready = true,
            Action::Stop => {
                self.stopping = true;
                for id in self.connections.keys().copied().collect::<Vec<_>>() {
                    self.disconnected(id);
                }
            }
        }
    }

    /// Starts work beside the coordinator; `lost` is what happened if the work broke off.
    pub(crate) fn spawn(
        &mut self,
        work: impl Future<Output = Action> + Send + 'static,
        lost: impl FnOnce() -> Action + Send + 'static,
    ) {
        self.jobs += 1;
        let actions = self.actions.clone();
        tokio::spawn(async move {
            let action = tokio::spawn(work).await.unwrap_or_else(|error| {
                tracing::error!(%error, "a job broke off");
                lost()
            });
            // Without a coordinator nobody needs to know.
            drop(actions.send(action));
        });
    }

    /// Starts work that answers its call by itself.
    pub(crate) fn answer(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.spawn(
            async move {
                work.await;
                Action::JobEnded
            },
            || Action::JobEnded,
        );
    }

    /// Calls that look at operations are answered whatever the session is waiting for; the others one after another.
    pub(crate) fn requester_call(&mut self, id: ConnectionId, call: requester::Call, replier: Replier) {
        use requester::Call::{Cancel, QueryStatus, Wait};
        if matches!(call, Wait(_) | QueryStatus(_) | Cancel(_)) {
            return self.perform(id, call, replier);
        }
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if let Some((call, replier)) = connection.queue.admit((call, replier)) {
            self.perform(id, call, replier);
        }
    }

    /// The session of a connection.
    ///
    /// # Errors
    /// `VSS_E_BAD_STATE` before InitializeForBackup.
    pub(crate) fn session(&mut self, id: ConnectionId) -> Result<&mut Session, VssError> {
        self.connections.get_mut(&id).and_then(|connection| connection.session.as_mut()).ok_or_else(|| {
            VssError::new(VssCode::BadState, "There is no session on this connection")
                .with_hint("Call InitializeForBackup first")
        })
    }

    /// Steps a session's machine and carries out what follows.
    ///
    /// # Errors
    /// What the machine refuses.
    pub(crate) fn step(&mut self, id: ConnectionId, event: Event) -> Result<Empty, VssError> {
        let effects = match self.session(id)?.state.apply(event) {
            Err(refusal) if refusal.code == VssCode::BadState && fault::is_off("order") => Vec::new(),
            effects => effects?,
        };
        self.carry_out(id, effects, None);
        Ok(Empty {})
    }

    /// Carries out effects: a new operation is started; what follows an abort or an end becomes one job.
    pub(crate) fn carry_out(&mut self, id: ConnectionId, effects: Vec<Effect>, replier: Option<Replier>) {
        let mut effects: VecDeque<Effect> = effects.into();
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(session) = connection.session.as_mut() else { return };
        while effects.front() == Some(&Effect::ReleaseCreationLock) {
            session.lock = None;
            effects.pop_front();
        }
        if let Some(Effect::CancelOperation(_)) = effects.front() {
            effects.pop_front();
            if let Some(operation) = session.last_operation() {
                operation.cancel();
            }
        }
        let is_over = session.state.is_released();
        match effects.front() {
            None if !is_over => {
                if let Some(replier) = replier {
                    replier.ok(&Empty {});
                }
            }
            Some(effect) if starts_operation(effect) => {
                if let Some(effect) = effects.pop_front() {
                    self.start_operation(id, effect);
                }
            }
            _ => {
                connection.queue.begin();
                let epilogue = Epilogue {
                    writers: session.writers.take().unwrap_or_default(),
                    members: std::mem::take(&mut session.members),
                    lock: session.lock.take(),
                };
                let facts = session.facts();
                let environment = Arc::clone(&self.environment);
                let work = async move {
                    let epilogue = jobs::epilogue(environment, epilogue, facts, effects.into()).await;
                    Action::EpilogueEnded(id, Box::new(epilogue), replier)
                };
                let nothing = || Epilogue { writers: SessionWriters::default(), members: Vec::new(), lock: None };
                self.spawn(work, move || Action::EpilogueEnded(id, Box::new(nothing()), None));
            }
        }
    }

    fn disconnected(&mut self, id: ConnectionId) {
        if let Some((_, instance_id)) = self.writer_connections.remove(&id) {
            if let Some(writer) = instance_id.and_then(|instance_id| self.registry.remove(instance_id)) {
                self.environment.events.tell(writer.event(EventKind::WriterGone));
            }
            return;
        }
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.gone = true;
        connection.queue.clear();
        if !connection.queue.is_busy() {
            self.release(id);
        }
    }

    /// Ends the session of a requester that is gone.
    fn release(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(session) = connection.session.as_mut() else {
            self.connections.remove(&id);
            return;
        };
        // Never refused; and a session that has ended already only waits for its epilogue.
        let effects = session.state.apply(Event::RequesterGone).unwrap_or_default();
        self.carry_out(id, effects, None);
    }

    /// Work outside has come back to its session.
    pub(crate) fn resume(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.queue.end();
        if connection.gone {
            return self.release(id);
        }
        while let Some((call, replier)) = self.connections.get_mut(&id).and_then(|connection| connection.queue.take()) {
            self.perform(id, call, replier);
        }
    }

    fn epilogue_ended(&mut self, id: ConnectionId, epilogue: Epilogue, replier: Option<Replier>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(session) = connection.session.as_mut() else { return };
        if session.state.is_released() {
            let requester = Some(session.requester.clone());
            session.teller.tell(event::Event { requester, ..event::Event::of(EventKind::SessionClosed) });
            self.connections.remove(&id);
            return;
        }
        session.statuses = epilogue.writers.statuses();
        session.writers = Some(epilogue.writers);
        session.members = epilogue.members;
        session.lock = epilogue.lock;
        if let Some(replier) = replier {
            replier.ok(&Empty {});
        }
        self.resume(id);
    }
}

/// True for the effects that are answered by `OperationFinished`.
fn starts_operation(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::IdentifyWriters(_)
            | Effect::PrepareWriters
            | Effect::CreateSet { .. }
            | Effect::GatherStatus
            | Effect::CompleteBackup
    )
}

async fn sleep_until(deadline: Option<Clock>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
