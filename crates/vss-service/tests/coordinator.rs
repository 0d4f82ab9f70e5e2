//! The coordinator driven by its actions alone: no socket, a fake provider, a real catalogue. What belongs here is what
//! depends on the order in which calls, jobs and ends of connections come.

use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;
use vss_api::requester::OperationState;
use vss_api::server::{Call, ConnectionId, Face, Peer, PendingReply, Replier};
use vss_model::{FreezePolicy, SetId, Volume, VssCode, VssError, limits};
use vss_provider::Provider;
use vss_provider::fake::{FakeOptions, FakeProvider, Phase};
use vss_service::catalogue::Catalogue;
use vss_service::config::Writers;
use vss_service::coordinator::{Action, Beginning, Coordinator};
use vss_service::environment::{Environment, HoldMaker};
use vss_service::exposure::Exposures;
use vss_service::freeze_window::Hold;
use vss_service::inbox_writers::InboxWriters;
use vss_service::providers::{Providers, Target};

/// Longest wait for anything here.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a provider hangs where a test wants something to happen meanwhile.
const HANG: Duration = Duration::from_millis(1500);

/// The fake must not be held.
struct NoHolds;

impl HoldMaker for NoHolds {
    fn judge(&self, _: &[Volume], _: &[Volume], _: &[Target]) -> Result<(), VssError> {
        Ok(())
    }

    fn prepare(&self, _: SetId, _: &[Volume], _: &[Volume], _: &[Target]) -> Result<Box<dyn Hold>, VssError> {
        Err(VssError::new(VssCode::Unexpected, "nothing is to be held"))
    }
}

/// A running coordinator.
struct Bench {
    actions: UnboundedSender<Action>,
    environment: Arc<Environment>,
    provider: Arc<FakeProvider>,
    directory: TempDir,
    run: JoinHandle<()>,
}

/// One connection of a requester.
#[derive(Clone)]
struct Client {
    id: ConnectionId,
    actions: UnboundedSender<Action>,
    volume: PathBuf,
}

impl Bench {
    fn new(hang: Option<Phase>) -> Self {
        Self::start(hang, false)
    }

    fn start(hang: Option<Phase>, on_demand: bool) -> Self {
        let directory = TempDir::new().unwrap();
        let provider = Arc::new(FakeProvider::new(FakeOptions {
            freeze_policy: FreezePolicy::MustNotHold,
            store: Some(directory.path().join("store")),
            hang: hang.map(|phase| (phase, HANG)),
            ..FakeOptions::default()
        }));
        let registered: Arc<dyn Provider> = provider.clone();
        let exposures = Arc::new(Exposures::new(directory.path()).unwrap());
        let environment = Arc::new(Environment {
            catalogue: Catalogue::open(directory.path()).unwrap(),
            providers: Providers::new(vec![registered]),
            staging: exposures.clone(),
            exposures,
            holds: Arc::new(NoHolds),
            changes: tokio::sync::Mutex::new(()),
            forecasts: tokio::sync::Semaphore::new(limits::FORECASTS),
            events: Arc::default(),
            inbox_writers: InboxWriters::default(),
            boot_id: "this boot".to_owned(),
        });
        let (coordinator, actions) = Coordinator::new(Beginning {
            environment: Arc::clone(&environment),
            writers: Writers::default(),
            creation_lock: directory.path().join("creation.lock"),
            state_directory: directory.path().to_owned(),
            recovery: Vec::new(),
            on_demand,
        });
        Self { actions, environment, provider, directory, run: tokio::spawn(coordinator.run()) }
    }

    fn connect(&self, uid: u32, pid: u32) -> Client {
        let id = ConnectionId::next();
        let peer = Peer { uid, gid: uid, groups: Vec::new(), pid, pidfd: None };
        self.actions.send(Action::Connected(id, Face::Requester, peer)).unwrap();
        Client { id, actions: self.actions.clone(), volume: self.directory.path().to_owned() }
    }

    /// The copies that exist.
    fn copies(&self) -> usize {
        std::fs::read_dir(self.directory.path().join("store")).map_or(0, Iterator::count)
    }

    fn calls(&self, phase: Phase) -> usize {
        self.provider.calls().iter().filter(|(called, _)| *called == phase).count()
    }

    async fn reaches(&self, phase: Phase) {
        until(|| self.calls(phase) > 0).await;
    }

    /// No copy, no record, and the lock can be taken.
    async fn nothing_is_left(&self) {
        let other = self.connect(0, 99);
        other.open("file_share_backup").await;
        let began = Instant::now();
        while let Err(error) = other.call("StartSnapshotSet", json!({})).await {
            assert_eq!(error.code, VssCode::SnapshotSetInProgress, "{error}");
            assert!(began.elapsed() < LIMIT, "the lock is left");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        other.leave();
        until(|| self.copies() == 0 && self.environment.catalogue.sets().is_empty()).await;
        assert!(self.environment.catalogue.pending().unwrap().is_empty(), "an intent is left");
    }

    async fn ends(&mut self) -> Duration {
        let began = Instant::now();
        tokio::time::timeout(LIMIT, &mut self.run).await.expect("the coordinator does not end").unwrap();
        began.elapsed()
    }
}

async fn until(condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < LIMIT, "it does not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl Client {
    /// Sends a call; its answer may be waited for later.
    fn send(&self, interface: &str, method: &str, parameters: Value) -> PendingReply {
        let mut message = json!({"method": format!("org.linuxvss.{interface}.{method}")});
        if !parameters.is_null() {
            message["parameters"] = parameters;
        }
        let call = if interface == "Management" {
            Call::Management(serde_json::from_value(message).unwrap())
        } else {
            Call::Requester(serde_json::from_value(message).unwrap())
        };
        let (replier, reply) = Replier::detached("org.linuxvss.Requester");
        self.actions.send(Action::Call(self.id, call, replier)).unwrap();
        reply
    }

    async fn call(&self, method: &str, parameters: Value) -> Result<Value, VssError> {
        answer(self.send("Requester", method, parameters)).await
    }

    async fn manage(&self, method: &str, parameters: Value) -> Result<Value, VssError> {
        answer(self.send("Management", method, parameters)).await
    }

    async fn open(&self, context: &str) {
        self.call("InitializeForBackup", json!({"requester": "test"})).await.unwrap();
        self.call("SetContext", json!({"context": context})).await.unwrap();
    }

    async fn add(&self) -> Result<Value, VssError> {
        self.call("AddToSnapshotSet", json!({"volume": self.volume})).await
    }

    /// Opens a session and begins to make a set of one volume; the id of the operation.
    async fn begin_set(&self, context: &str) -> Value {
        self.open(context).await;
        self.call("StartSnapshotSet", json!({})).await.unwrap();
        self.add().await.unwrap();
        self.call("DoSnapshotSet", json!({"strict": true})).await.unwrap()["operation_id"].clone()
    }

    /// Makes a set and returns its record.
    async fn make_set(&self, context: &str) -> Value {
        let operation = self.begin_set(context).await;
        assert_eq!(self.wait(&operation).await, OperationState::Finished);
        self.call("GetSnapshotSet", Value::Null).await.unwrap()["set"].clone()
    }

    async fn wait(&self, operation: &Value) -> OperationState {
        loop {
            let status = self.call("Wait", json!({"operation_id": operation, "timeout_ms": 5000})).await.unwrap();
            let state = serde_json::from_value(status["state"].clone()).unwrap();
            if state != OperationState::Pending {
                return state;
            }
        }
    }

    fn leave(&self) {
        self.actions.send(Action::Disconnected(self.id)).unwrap();
    }
}

async fn answer(reply: PendingReply) -> Result<Value, VssError> {
    tokio::time::timeout(LIMIT, reply.wait()).await.expect("no answer")
}

fn code(result: Result<Value, VssError>) -> VssCode {
    result.expect_err("an error").code
}

#[tokio::test]
async fn a_volume_that_is_refused_is_not_told_to_its_provider() {
    let bench = Bench::new(None);
    let client = bench.connect(0, 1);
    client.open("file_share_backup").await;
    client.call("StartSnapshotSet", json!({})).await.unwrap();
    client.add().await.unwrap();
    assert_eq!(code(client.add().await), VssCode::ObjectAlreadyExists);
    assert_eq!(
        bench.calls(Phase::BeginPrepare),
        1,
        "the provider would copy the volume twice, and one copy is nobody's"
    );
    let operation = client.call("DoSnapshotSet", json!({})).await.unwrap()["operation_id"].clone();
    assert_eq!(client.wait(&operation).await, OperationState::Finished);
    assert_eq!(bench.copies(), 1);
    client.leave();
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn an_abort_waits_for_the_volume_that_is_being_added_and_goes_before_what_came_later() {
    let bench = Bench::new(Some(Phase::BeginPrepare));
    let client = bench.connect(0, 1);
    client.open("file_share_backup").await;
    client.call("StartSnapshotSet", json!({})).await.unwrap();
    let add = client.send("Requester", "AddToSnapshotSet", json!({"volume": client.volume}));
    let abort = client.send("Requester", "AbortBackup", Value::Null);
    let make = client.send("Requester", "DoSnapshotSet", json!({}));
    answer(add).await.unwrap();
    answer(abort).await.unwrap();
    assert_eq!(code(answer(make).await), VssCode::BadState);
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn an_abort_of_all_sets_undoes_the_volume_that_is_being_added_too() {
    let bench = Bench::new(Some(Phase::BeginPrepare));
    let (client, root) = (bench.connect(1000, 1), bench.connect(0, 2));
    client.open("file_share_backup").await;
    client.call("StartSnapshotSet", json!({})).await.unwrap();
    let add = client.send("Requester", "AddToSnapshotSet", json!({"volume": client.volume}));
    bench.reaches(Phase::BeginPrepare).await;
    let aborted = root.manage("AbortAllSnapshotsInProgress", Value::Null).await.unwrap();
    assert_eq!(aborted["sets"].as_array().map(Vec::len), Some(1), "{aborted}");
    answer(add).await.unwrap();
    bench.reaches(Phase::Abort).await;
    assert_eq!(code(client.call("DoSnapshotSet", json!({})).await), VssCode::BadState);
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn an_abort_stops_the_set_that_is_being_made() {
    let bench = Bench::new(Some(Phase::EndPrepare));
    let client = bench.connect(0, 1);
    let operation = client.begin_set("nas_rollback").await;
    bench.reaches(Phase::EndPrepare).await;
    let began = Instant::now();
    client.call("AbortBackup", Value::Null).await.unwrap();
    client.call("AbortBackup", Value::Null).await.unwrap();
    assert!(began.elapsed() < HANG, "AbortBackup is answered at once");
    assert_eq!(code(client.call("DoSnapshotSet", json!({})).await), VssCode::BadState);
    assert_eq!(client.wait(&operation).await, OperationState::Cancelled);
    bench.nothing_is_left().await;
    assert_eq!(code(client.call("GetSnapshotSet", Value::Null).await), VssCode::BadState);
}

#[tokio::test]
async fn a_requester_that_goes_at_any_time_leaves_nothing() {
    for phase in [Phase::BeginPrepare, Phase::EndPrepare, Phase::PreCommit, Phase::Commit, Phase::PostFinal] {
        let bench = Bench::new(Some(phase));
        let client = bench.connect(0, 1);
        client.open("file_share_backup").await;
        client.call("StartSnapshotSet", json!({})).await.unwrap();
        let add = client.send("Requester", "AddToSnapshotSet", json!({"volume": client.volume}));
        if phase != Phase::BeginPrepare {
            answer(add).await.unwrap();
            client.call("DoSnapshotSet", json!({})).await.unwrap();
        }
        bench.reaches(phase).await;
        client.leave();
        bench.nothing_is_left().await;
    }
}

#[tokio::test]
async fn the_status_is_answered_while_a_set_is_made_and_shows_each_user_its_own_sessions() {
    let bench = Bench::new(Some(Phase::Commit));
    let (client, stranger) = (bench.connect(1000, 1), bench.connect(1001, 2));
    let operation = client.begin_set("file_share_backup").await;
    bench.reaches(Phase::Commit).await;
    let began = Instant::now();
    let seen = |status: Value| status["sessions"].as_array().unwrap().len();
    assert_eq!(seen(bench.connect(0, 3).manage("GetStatus", Value::Null).await.unwrap()), 1);
    assert_eq!(seen(stranger.manage("GetStatus", Value::Null).await.unwrap()), 0);
    let question = json!({"operation_id": operation});
    assert_eq!(code(stranger.call("QueryStatus", question.clone()).await), VssCode::ObjectNotFound);
    assert_eq!(code(stranger.call("Cancel", question).await), VssCode::ObjectNotFound);
    assert!(began.elapsed() < HANG, "nobody waits for the window");
    assert_eq!(client.wait(&operation).await, OperationState::Finished);
}

#[tokio::test]
async fn a_second_creation_is_refused_until_the_first_has_ended() {
    let bench = Bench::new(None);
    let (first, second) = (bench.connect(0, 1), bench.connect(0, 2));
    for client in [&first, &second] {
        client.open("file_share_backup").await;
    }
    first.call("StartSnapshotSet", json!({})).await.unwrap();
    let error = second.call("StartSnapshotSet", json!({})).await.unwrap_err();
    assert_eq!(error.code, VssCode::SnapshotSetInProgress);
    assert!(error.message.contains("process 1"), "{error}");
    first.call("AbortBackup", Value::Null).await.unwrap();
    second.call("StartSnapshotSet", json!({})).await.unwrap();
}

#[tokio::test]
async fn a_copy_that_a_live_session_reads_is_deleted_by_nobody_else() {
    let bench = Bench::new(None);
    let (client, other) = (bench.connect(0, 1), bench.connect(0, 2));
    let leased = client.make_set("file_share_backup").await;
    let keeper = bench.connect(0, 3);
    keeper.make_set("nas_rollback").await;
    assert_eq!(bench.copies(), 2);
    let by_set = json!({"shadow_ids": [], "set_id": leased["set_id"], "all": false});
    assert_eq!(code(other.manage("DeleteShadows", by_set.clone()).await), VssCode::VolumeInUse);
    let deleted = other.manage("DeleteShadows", json!({"all": true})).await.unwrap();
    assert_eq!(deleted["shadow_ids"].as_array().unwrap().len(), 1, "the persistent one");
    bench.connect(0, 1).manage("DeleteShadows", by_set).await.unwrap();
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn two_who_delete_everything_both_succeed() {
    let bench = Bench::new(Some(Phase::Delete));
    for pid in 1..=3 {
        let client = bench.connect(0, pid);
        client.make_set("nas_rollback").await;
        client.leave();
    }
    let [one, other] = [bench.connect(0, 8), bench.connect(0, 9)]
        .map(|client| client.send("Management", "DeleteShadows", json!({"all": true})));
    let deleted = |done: Value| done["shadow_ids"].as_array().unwrap().len();
    assert_eq!(deleted(answer(one).await.unwrap()) + deleted(answer(other).await.unwrap()), 3);
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn a_set_without_volumes_is_shown_to_its_session_and_kept_nowhere() {
    let bench = Bench::new(None);
    let client = bench.connect(0, 1);
    client.open("nas_rollback").await;
    client.call("StartSnapshotSet", json!({})).await.unwrap();
    let operation = client.call("DoSnapshotSet", json!({})).await.unwrap()["operation_id"].clone();
    assert_eq!(client.wait(&operation).await, OperationState::Finished);
    let set = client.call("GetSnapshotSet", Value::Null).await.unwrap();
    assert_eq!(set["set"]["shadows"], json!([]));
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn one_user_cannot_use_up_the_sessions() {
    let bench = Bench::new(None);
    for pid in 1..=16 {
        bench.connect(1000, pid).open("file_share_backup").await;
    }
    let refused = bench.connect(1000, 17).call("InitializeForBackup", json!({"requester": "test"})).await;
    assert_eq!(code(refused), VssCode::OutOfMemory);
    bench.connect(1001, 18).open("file_share_backup").await;
    for pid in 19..=40 {
        bench.connect(0, pid).open("file_share_backup").await;
    }
}

#[tokio::test]
async fn a_stop_undoes_the_set_that_is_being_made_and_lets_nobody_in() {
    let mut bench = Bench::new(Some(Phase::EndPrepare));
    let client = bench.connect(0, 1);
    client.begin_set("nas_rollback").await;
    bench.reaches(Phase::EndPrepare).await;
    bench.actions.send(Action::Stop).unwrap();
    let late = bench.connect(0, 2);
    assert_eq!(code(late.manage("GetStatus", Value::Null).await), VssCode::Unexpected);
    assert!(bench.ends().await < Duration::from_secs(15), "somebody who stays keeps it from ending");
    let catalogue = &bench.environment.catalogue;
    assert!(catalogue.pending().unwrap().is_empty() && catalogue.sets().is_empty() && bench.copies() == 0);
}

#[tokio::test]
async fn an_instance_on_demand_is_not_idle_before_it_has_said_that_it_is_ready() {
    let mut bench = Bench::start(None, true);
    tokio::time::sleep(HANG).await;
    assert!(!bench.run.is_finished(), "it ended before anybody could know that it runs");
    bench.actions.send(Action::Ready).unwrap();
    assert!(bench.ends().await < Duration::from_secs(5));
}
