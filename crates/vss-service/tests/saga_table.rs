//! The generic tests of a saga table, over the real table of DoSnapshotSet: every row fails in turn, every row is done
//! twice, every undo is done twice. The parties are fakes; the catalogue is real.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use vss_api::writer::{Event, EventKind, EventReply, Identify, Identity, Register};
use vss_model::*;
use vss_provider::fake::{FakeCopying, FakeOptions, FakeProvider, Phase};
use vss_provider::{MountedTree, PrepareRequest, Provider};
use vss_service::catalogue::Catalogue;
use vss_service::environment::{Environment, HoldMaker, Staging};
use vss_service::events::Teller;
use vss_service::exposure::Exposures;
use vss_service::freeze_window::Hold;
use vss_service::hold_trace::HoldTrace;
use vss_service::inbox_writers::InboxWriters;
use vss_service::operation::Operation;
use vss_service::providers::{Providers, Target};
use vss_service::sagas::create_set::{CreateSet, Member, Plan, Requester, TABLE};
use vss_service::sagas::{self, Act, Row};
use vss_service::writers::port::PortFuture;
use vss_service::writers::{EventFacts, PortError, RegisteredWriter, SessionWriters, WriterPort, identify};

/// What the fakes did, in order.
type Diary = Arc<Mutex<Vec<String>>>;

/// How far the writer of the table lets things go.
#[derive(Default, Clone, Copy)]
struct Wishes {
    hold_fails: Option<&'static str>,
    writer_fails: Option<EventKind>,
    writer_panics: Option<EventKind>,
    provider_fails: Option<Phase>,
    staging_fails: bool,
    copies_for: Option<Duration>,
}

struct FakeHold {
    diary: Diary,
    frozen: bool,
    fails: Option<&'static str>,
}

impl FakeHold {
    fn act(&self, what: &'static str) -> Result<(), VssError> {
        self.diary.lock().unwrap().push(what.to_owned());
        if self.fails == Some(what) { Err(VssError::new(VssCode::HoldWritesTimeout, what)) } else { Ok(()) }
    }
}

impl Hold for FakeHold {
    fn pid(&self) -> Option<u32> {
        None
    }

    fn flush(&mut self, _limit: Duration) -> Result<(), VssError> {
        self.act("flush")
    }

    fn hold(&mut self) -> Result<(), VssError> {
        self.act("hold")?;
        self.frozen = true;
        Ok(())
    }

    fn release(&mut self) -> Result<(), VssError> {
        assert!(self.frozen, "released what was not held");
        self.frozen = false;
        self.act("release")
    }

    fn trace(&self) -> HoldTrace {
        HoldTrace::new([Some(0)].into_iter())
    }
}

impl Drop for FakeHold {
    fn drop(&mut self) {
        assert!(!self.frozen || std::thread::panicking(), "left frozen");
    }
}

struct FakeHolds(Diary, Option<&'static str>);

impl HoldMaker for FakeHolds {
    fn judge(&self, _: &[Volume], _: &[Volume], _: &[Target]) -> Result<(), VssError> {
        match self.1 {
            Some("judge") => Err(VssError::new(VssCode::HoldWritesTimeout, "judge")),
            _ => Ok(()),
        }
    }

    fn prepare(&self, _: SetId, held: &[Volume], _: &[Volume], _: &[Target]) -> Result<Box<dyn Hold>, VssError> {
        assert!(!held.is_empty());
        Ok(Box::new(FakeHold { diary: Arc::clone(&self.0), frozen: false, fails: self.1 }))
    }
}

struct FakeStaging(Diary, bool);

impl Staging for FakeStaging {
    fn stage(&self, _shadow: ShadowId, _trees: Vec<MountedTree>) -> Result<OwnedFd, VssError> {
        self.0.lock().unwrap().push("stage".to_owned());
        if self.1 {
            return Err(VssError::new(VssCode::Unexpected, "no staging"));
        }
        Ok(std::fs::File::open("/").unwrap().into())
    }

    fn unstage(&self, _shadow: ShadowId) -> Result<(), VssError> {
        self.0.lock().unwrap().push("unstage".to_owned());
        Ok(())
    }
}

struct FakePort(Diary, Wishes);

impl WriterPort for FakePort {
    fn identify(&self, _question: Identify) -> PortFuture<Identity> {
        let component =
            serde_json::json!({"components": [{"name": "data", "files": [{"path": "/", "recursive": true}]}]});
        Box::pin(async move { Ok(serde_json::from_value(component).unwrap()) })
    }

    fn event(&self, kind: EventKind, _event: Event, _directories: Vec<OwnedFd>) -> PortFuture<EventReply> {
        self.0.lock().unwrap().push(kind.name().to_owned());
        assert!(self.1.writer_panics != Some(kind), "it was asked to panic");
        let fails = self.1.writer_fails == Some(kind);
        Box::pin(async move {
            if fails {
                return Err(PortError::Refused(VssError::new(VssCode::WriterErrorRetryable, "it was asked to fail")));
            }
            Ok(EventReply::default())
        })
    }

    fn close(&self) {}
}

/// A saga over fakes, and what to look at afterwards.
struct Stage {
    saga: CreateSet,
    environment: Arc<Environment>,
    diary: Diary,
    store: PathBuf,
    _directory: TempDir,
}

async fn stage(wishes: Wishes) -> Stage {
    let directory = TempDir::new().unwrap();
    let diary = Diary::default();
    let store = directory.path().join("store");
    let provider: Arc<dyn Provider> = Arc::new(FakeProvider::new(FakeOptions {
        store: Some(store.clone()),
        fail: wishes.provider_fails.map(|phase| (phase, VssCode::ProviderVeto)),
        copying: wishes.copies_for.map(|time| FakeCopying {
            bytes: 1 << 30,
            time,
            place: store.clone(),
            keep: Duration::MAX,
        }),
        ..FakeOptions::default()
    }));
    let environment = Arc::new(Environment {
        catalogue: Catalogue::open(directory.path()).unwrap(),
        providers: Providers::new(vec![Arc::clone(&provider)]),
        exposures: Arc::new(Exposures::new(directory.path()).unwrap()),
        holds: Arc::new(FakeHolds(Arc::clone(&diary), wishes.hold_fails)),
        staging: Arc::new(FakeStaging(Arc::clone(&diary), wishes.staging_fails)),
        changes: tokio::sync::Mutex::new(()),
        forecasts: tokio::sync::Semaphore::new(limits::FORECASTS),
        events: Arc::default(),
        inbox_writers: InboxWriters::default(),
        boot_id: "this boot".to_owned(),
    });
    let volume = vss_service::volumes::resolve(directory.path()).unwrap().volume;
    let (set_id, shadow_id) = (SetId::random(), ShadowId::random());
    let request = PrepareRequest {
        set_id,
        shadow_id,
        volume: volume.clone(),
        context: Context::Backup,
        options: vss_model::CreationOptions::default(),
    };
    let stored = provider.begin_prepare(&request).unwrap();
    let register: Register =
        serde_json::from_value(serde_json::json!({"class_id": WriterClassId::random(), "name": "fake"})).unwrap();
    let writer = Arc::new(RegisteredWriter {
        instance_id: WriterInstanceId::random(),
        register,
        uid: 0,
        pid: 1,
        port: Arc::new(FakePort(Arc::clone(&diary), wishes)),
    });
    let asked = identify(SessionId::random(), vec![(writer, Duration::from_secs(60))]).await;
    let mut writers = SessionWriters::new(asked, Duration::from_secs(60));
    let mounts = vec![(volume.mount_point.clone(), volume.id.clone())];
    let table: Vec<_> = mounts.iter().map(|(path, id)| (path.as_path(), id)).collect();
    writers.involve_by_volume(std::slice::from_ref(&volume.id), &table);
    let facts = EventFacts {
        session_id: SessionId::random(),
        set_id: Some(set_id),
        context: Context::Backup,
        attributes: Attributes::empty(),
        backup_state: BackupState::default(),
        teller: Teller::default(),
        volumes: vec![serde_json::from_value(serde_json::json!({
            "volume": volume.mount_point, "volume_id": volume.id, "shadow_id": shadow_id, "provider": "fake", "cut_group": 0,
        }))
        .unwrap()],
    };
    let plan = Plan {
        set_id,
        members: vec![Member { shadow_id, volume, provider, stored }],
        facts,
        strict: true,
        requester: Requester { uid: 0, pid: 1, name: "test".to_owned() },
    };
    let saga = CreateSet::new(Arc::clone(&environment), Operation::new(), plan, writers, mounts);
    Stage { saga, environment, diary, store, _directory: directory }
}

impl Stage {
    fn diary(&self) -> Vec<String> {
        self.diary.lock().unwrap().clone()
    }

    fn count(&self, what: &str) -> usize {
        self.diary().iter().filter(|entry| *entry == what).count()
    }

    fn copies(&self) -> usize {
        std::fs::read_dir(&self.store).map_or(0, Iterator::count)
    }

    /// What must be true after a saga that failed, wherever it failed.
    fn nothing_is_left(&self, case: &str) {
        assert_eq!(
            self.count("hold"),
            self.count("release") + usize::from(case == "hold"),
            "{case}: held and not released"
        );
        assert_eq!(self.copies(), 0, "{case}: a copy is left");
        assert!(self.environment.catalogue.pending().unwrap().is_empty(), "{case}: an intent is left");
        assert!(self.environment.catalogue.sets().is_empty(), "{case}: a set is left");
        let told = self.count("PrepareSnapshot") > 0;
        let finished = self.count("PostSnapshot") > 0;
        let aborted = self.count("Abort") > 0;
        assert_eq!(
            aborted,
            told && !finished,
            "{case}: Abort goes to writers between PrepareSnapshot and PostSnapshot: {:?}",
            self.diary()
        );
        assert!(self.count("stage") <= self.count("unstage"), "{case}: a staging mount is left");
        if let (Some(release), Some(abort)) = (self.position("release"), self.position("Abort")) {
            assert!(release < abort, "{case}: writes are released before writers are told");
        }
    }

    fn position(&self, what: &str) -> Option<usize> {
        self.diary().iter().position(|entry| entry == what)
    }
}

#[tokio::test]
async fn all_rows_make_a_set() {
    let mut stage = stage(Wishes::default()).await;
    sagas::run(TABLE, &mut stage.saga).await.unwrap();
    let set = stage.saga.set().unwrap().clone();
    assert_eq!((set.consistency, set.atomic, set.shadows.len()), (Consistency::Application, true, 1));
    assert_eq!(set.writers[0].state, WriterState::WaitingForBackupComplete);
    let wanted =
        ["PrepareSnapshot", "flush", "Freeze", "flush", "hold", "release", "Thaw", "stage", "PostSnapshot", "unstage"];
    assert_eq!(stage.diary(), wanted);
    assert_eq!(stage.copies(), 1);
    assert_eq!(stage.environment.catalogue.sets().len(), 1);
    assert!(stage.environment.catalogue.pending().unwrap().is_empty());
}

/// omicron's `actions_succeed_idempotently`: every row twice in a row makes the same set.
#[tokio::test]
async fn every_row_done_twice_is_done_once() {
    let doubled: &'static [Row<CreateSet>] = TABLE.iter().flat_map(|row| [*row, *row]).collect::<Vec<_>>().leak();
    let mut stage = stage(Wishes::default()).await;
    sagas::run(doubled, &mut stage.saga).await.unwrap();
    for event in ["PrepareSnapshot", "Freeze", "hold", "release", "Thaw", "PostSnapshot"] {
        assert_eq!(stage.count(event), 1, "{event}: {:?}", stage.diary());
    }
    assert_eq!(stage.copies(), 1);
    assert_eq!(stage.environment.catalogue.sets().len(), 1);
}

#[tokio::test]
async fn a_wish_to_stop_reaches_a_provider_that_copies_at_once() {
    let mut stage = stage(Wishes { copies_for: Some(Duration::from_secs(3600)), ..Wishes::default() }).await;
    let operation = stage.saga.operation.clone();
    let began = std::time::Instant::now();
    let stop = async {
        let mut status = operation.watch();
        status.wait_for(|status| status.copying.is_some()).await.unwrap();
        operation.cancel();
    };
    let (made, ()) = tokio::join!(sagas::run(TABLE, &mut stage.saga), stop);
    let failure = made.unwrap_err();
    assert_eq!((failure.row, failure.cause.code), ("end_prepare", VssCode::BadState));
    assert!(failure.undo_failures.is_empty(), "{failure:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    assert_eq!(operation.status().copying, None);
    stage.nothing_is_left("a wish to stop");
}

/// omicron's `action_failure_can_unwind` and `..._unwind_idempotently`: after each number of rows all is undone, twice.
#[tokio::test]
async fn after_every_row_all_can_be_undone_twice() {
    let conductor_rows = TABLE.iter().enumerate().filter(|(_, row)| matches!(row.act, Act::Conductor { .. }));
    let mut cases = 0;
    // Rows of the window are never left half done; `every_party_may_fail_at_every_row` fails inside them.
    for (failing, row) in conductor_rows {
        let mut stage = stage(Wishes::default()).await;
        sagas::run(&TABLE[..failing], &mut stage.saga).await.unwrap();
        for _ in 0..2 {
            let failures = sagas::undo(&TABLE[..=failing], &mut stage.saga).await;
            assert!(failures.is_empty(), "{}: {failures:?}", row.name);
        }
        stage.nothing_is_left(row.name);
        cases += 1;
    }
    assert_eq!(cases, TABLE.len() - 4, "four rows are the window's");
}

#[tokio::test]
async fn every_party_may_fail_at_every_row() {
    let hold = |what| Wishes { hold_fails: Some(what), ..Wishes::default() };
    let writer = |kind| Wishes { writer_fails: Some(kind), ..Wishes::default() };
    let provider = |phase| Wishes { provider_fails: Some(phase), ..Wishes::default() };
    let cases: BTreeMap<&str, Wishes> = [
        ("mounts that came while copying", hold("judge")),
        ("flush", hold("flush")),
        ("hold", hold("hold")),
        ("release", hold("release")),
        ("prepare_snapshot", writer(EventKind::PrepareSnapshot)),
        ("freeze", writer(EventKind::Freeze)),
        ("thaw", writer(EventKind::Thaw)),
        ("post_snapshot", writer(EventKind::PostSnapshot)),
        ("end_prepare", provider(Phase::EndPrepare)),
        ("pre_commit", provider(Phase::PreCommit)),
        ("commit", provider(Phase::Commit)),
        ("post_commit", provider(Phase::PostCommit)),
        ("pre_final", provider(Phase::PreFinal)),
        ("post_final", provider(Phase::PostFinal)),
        ("staging", Wishes { staging_fails: true, ..Wishes::default() }),
    ]
    .into();
    for (case, wishes) in cases {
        let mut stage = stage(wishes).await;
        let failure = sagas::run(TABLE, &mut stage.saga).await.unwrap_err();
        assert!(failure.undo_failures.is_empty(), "{case}: {failure:?}");
        stage.nothing_is_left(case);
        let wanted = match (wishes.writer_fails, wishes.provider_fails, wishes.hold_fails) {
            (Some(_), _, _) => VssCode::WriterErrorRetryable,
            (_, Some(_), _) => VssCode::ProviderVeto,
            (_, _, Some(_)) => VssCode::HoldWritesTimeout,
            _ => VssCode::Unexpected,
        };
        assert_eq!(failure.cause.code, wanted, "{case}");
    }
}

#[tokio::test]
async fn a_wish_to_stop_is_taken_at_the_next_row() {
    let mut stage = stage(Wishes::default()).await;
    sagas::run(&TABLE[..5], &mut stage.saga).await.unwrap();
    stage.saga.operation.cancel();
    let failure = sagas::run(&TABLE[5..], &mut stage.saga).await.unwrap_err();
    assert_eq!(failure.row, "freeze");
    assert!(sagas::undo(&TABLE[..5], &mut stage.saga).await.is_empty());
    stage.nothing_is_left("stopped");
}

#[tokio::test]
async fn a_row_that_panics_is_undone_like_one_that_fails() {
    for kind in [EventKind::PrepareSnapshot, EventKind::Freeze, EventKind::Thaw, EventKind::PostSnapshot] {
        let mut stage = stage(Wishes { writer_panics: Some(kind), ..Wishes::default() }).await;
        let failure = sagas::run(TABLE, &mut stage.saga).await.unwrap_err();
        assert_eq!(failure.cause.code, VssCode::Unexpected);
        assert!(failure.undo_failures.is_empty(), "{failure:?}");
        assert_eq!((stage.copies(), stage.count("Abort")), (0, 1), "{kind:?}");
        assert_eq!(stage.count("hold"), stage.count("release"), "{kind:?}");
        assert!(stage.environment.catalogue.pending().unwrap().is_empty(), "{kind:?}: an intent is left");
    }
}
