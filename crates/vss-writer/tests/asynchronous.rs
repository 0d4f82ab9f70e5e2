//! The asynchronous face: handlers that are slow, hang, panic or block their runtime, and the promises that hold all the same.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use vss_api::writer::{Event, EventKind, Identify, Identity, Register};
use vss_model::{Component, VssCode, VssError, WriterClassId, WriterState};
use vss_writer::asynchronous::{Call, Options, Writer, check, run};
use vss_writer::fake_service::{FakeConnection, FakeService, event};
use vss_writer::{Answer, RunError, Stop, Stopper, done};

use EventKind::{Abort, BackupShutdown, Freeze, PostSnapshot, PrepareBackup, PrepareSnapshot, Thaw};

/// What a handler does instead of its work.
#[derive(Debug, Clone, Copy)]
enum Misdeed {
    /// Awaits for ever.
    Hang,
    /// Awaits for this long, then does its work.
    Slow(Duration),
    /// Blocks the thread of the runtime, then does its work.
    Block(Duration),
    /// Blocks the thread of the runtime until [`Handle::release`], then does its work.
    BlockUntilReleased,
    Panic,
}

#[derive(Default)]
struct Shared {
    /// Each event that began, each that ended, and each that was dropped: `Freeze`, `Freeze done`, `Freeze dropped`.
    log: Vec<String>,
    frozen: bool,
    misdeeds: Vec<(EventKind, Misdeed)>,
    released: bool,
}

#[derive(Clone, Default)]
struct Handle(Arc<Mutex<Shared>>);

impl Handle {
    fn log(&self) -> Vec<String> {
        self.0.lock().unwrap().log.clone()
    }

    fn note(&self, what: String) {
        self.0.lock().unwrap().log.push(what);
    }

    fn has(&self, what: &str) -> bool {
        self.log().iter().any(|line| line == what)
    }

    fn is_frozen(&self) -> bool {
        self.0.lock().unwrap().frozen
    }

    fn release(&self) {
        self.0.lock().unwrap().released = true;
    }

    fn misbehave(&self, kind: EventKind, misdeed: Misdeed) {
        self.0.lock().unwrap().misdeeds.push((kind, misdeed));
    }
}

/// Notes how a handler ended.
struct Course {
    handle: Handle,
    name: &'static str,
    end: &'static str,
}

impl Drop for Course {
    fn drop(&mut self) {
        self.handle.note(format!("{} {}", self.name, self.end));
    }
}

struct Fake {
    register: Register,
    handle: Handle,
}

impl Fake {
    fn new(limit: Duration) -> Self {
        let limit = u64::try_from(limit.as_millis()).ok();
        let register = Register { freeze_timeout_ms: limit, ..Register::new(WriterClassId::random(), "fake") };
        Self { register, handle: Handle::default() }
    }

    async fn act(&mut self, call: &Call) -> Answer {
        let kind = call.kind();
        self.handle.note(kind.name().to_owned());
        let mut course = Course { handle: self.handle.clone(), name: kind.name(), end: "dropped" };
        let misdeed = {
            let mut shared = self.handle.0.lock().unwrap();
            let place = shared.misdeeds.iter().position(|(of, _)| *of == kind);
            place.map(|place| shared.misdeeds.remove(place).1)
        };
        match misdeed {
            None => {}
            Some(Misdeed::Hang) => std::future::pending().await,
            Some(Misdeed::Slow(duration)) => tokio::time::sleep(duration).await,
            Some(Misdeed::Block(duration)) => thread::sleep(duration),
            Some(Misdeed::BlockUntilReleased) => {
                until(|| self.handle.0.lock().unwrap().released);
            }
            Some(Misdeed::Panic) => panic!("a mistake in {}", kind.name()),
        }
        let mut shared = self.handle.0.lock().unwrap();
        shared.frozen = kind == Freeze || (shared.frozen && !matches!(kind, Thaw | Abort));
        course.end = "done";
        drop(shared);
        done()
    }
}

impl Writer for Fake {
    fn registration(&self) -> Register {
        self.register.clone()
    }

    async fn identify(&mut self, _: &Identify) -> Result<Identity, VssError> {
        Ok(Identity::of([Component::file_group("data").files_below("/srv").build()?]))
    }

    async fn prepare_backup(&mut self, call: &Call) -> Answer {
        self.act(call).await
    }

    async fn prepare_snapshot(&mut self, call: &Call) -> Answer {
        self.act(call).await
    }

    async fn freeze(&mut self, call: &Call) -> Answer {
        self.act(call).await
    }

    async fn thaw(&mut self, call: &Call) -> Answer {
        self.act(call).await
    }

    async fn post_snapshot(&mut self, call: &Call) -> Answer {
        self.act(call).await?;
        let call = call.clone();
        let mend = move || -> Result<(), VssError> {
            // A volume without a directory has nothing to mend.
            if let Some(volume) = call.event().volumes.iter().find(|volume| volume.directory.is_some()) {
                let label = call.in_copy(&volume.volume.join("label"))?;
                label.create(0o600.into()).and_then(|mut file| file.write_all(b"mended")).unwrap();
            }
            Ok(())
        };
        tokio::task::spawn_blocking(mend).await.unwrap()?;
        done()
    }

    async fn abort(&mut self, call: &Call) -> Answer {
        self.act(call).await
    }

    async fn backup_complete(&mut self, call: &Call) -> Answer {
        self.act(call).await
    }

    async fn backup_shutdown(&mut self, call: &Call) -> Answer {
        self.act(call).await
    }
}

/// Two of them: a runtime with threads of its own, and one that lives on the caller's.
fn runtimes() -> [Runtime; 2] {
    [Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap(), one_thread()]
}

fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

struct Running {
    service: FakeService,
    handle: Handle,
    thread: JoinHandle<Result<(), RunError>>,
    stopper: Stopper,
    _directory: tempfile::TempDir,
}

fn start(runtime: Runtime, limit: Duration) -> Running {
    let directory = tempfile::tempdir().unwrap();
    let service = FakeService::listen(&directory.path().join("writer")).unwrap();
    let (stopper, stop) = Stop::new().unwrap();
    let mut writer = Fake::new(limit);
    let (handle, path) = (writer.handle.clone(), service.path().to_owned());
    let thread = thread::spawn(move || {
        // On a runtime of several threads it is a task of one of them, so it has to be Send.
        let task = runtime.spawn(async move {
            run(&path, &mut writer, Options { stop: Some(stop), reconnect: false, ..Options::default() }).await
        });
        runtime.block_on(task).unwrap()
    });
    Running { service, handle, thread, stopper, _directory: directory }
}

const LONG: Duration = Duration::from_secs(60);

fn session(time_left: Duration) -> Event {
    event(Path::new("/srv"), time_left)
}

fn call_all(connection: &mut FakeConnection, event: &Event, kinds: &[EventKind]) {
    for kind in kinds {
        assert_eq!(connection.call(*kind, event).unwrap().failure(), None, "{}", kind.name());
    }
}

/// Waits until `condition` holds and says how long that took; at most 30 s.
fn until(condition: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(30), "it never happened");
        thread::sleep(Duration::from_millis(1));
    }
    began.elapsed()
}

#[test]
fn an_asynchronous_writer_conforms() {
    for runtime in runtimes() {
        runtime.block_on(check(&mut Fake::new(LONG)));
    }
}

#[test]
#[should_panic(expected = "Thaw after")]
fn the_suite_finds_a_wrong_one() {
    let mut writer = Fake::new(LONG);
    writer.handle.misbehave(Thaw, Misdeed::Panic);
    one_thread().block_on(check(&mut writer));
}

#[test]
fn a_whole_backup_goes_through_and_the_copy_is_mended() {
    for runtime in runtimes() {
        let copy = tempfile::tempdir().unwrap();
        let running = start(runtime, LONG);
        let mut connection = running.service.accept().unwrap();
        assert_eq!(connection.register().unwrap().name, "fake");
        assert_eq!(connection.identify().unwrap().unwrap().components.len(), 1);
        let mut event = session(LONG);
        call_all(&mut connection, &event, &[PrepareBackup, PrepareSnapshot, Freeze]);
        assert!(running.handle.is_frozen());
        call_all(&mut connection, &event, &[Thaw]);
        event.volumes[0].directory = Some(0);
        let directory = std::fs::File::open(copy.path()).unwrap();
        let reply = connection.call_with(PostSnapshot, &event, &[directory.as_fd()]).unwrap();
        assert_eq!(reply.failure(), None);
        assert_eq!(std::fs::read_to_string(copy.path().join("label")).unwrap(), "mended");
        event.volumes[0].directory = None;
        call_all(&mut connection, &event, &[EventKind::BackupComplete, BackupShutdown]);
        drop(connection);
        running.thread.join().unwrap().unwrap();
        assert_eq!(running.handle.log().len(), 14, "{:?}", running.handle.log());
    }
}

#[test]
fn a_freeze_that_hangs_is_dropped_at_its_limit_and_undone() {
    for runtime in runtimes() {
        let running = start(runtime, Duration::from_millis(200));
        let mut connection = running.service.accept().unwrap();
        let event = session(LONG);
        running.handle.misbehave(Freeze, Misdeed::Hang);
        let began = Instant::now();
        let reply = connection.call(Freeze, &event).unwrap();
        assert!((150..5000).contains(&began.elapsed().as_millis()), "answered after {:?}", began.elapsed());
        let failure = reply.failure().unwrap();
        assert_eq!((failure.code, reply.state), (VssCode::WriterErrorTimeout, Some(WriterState::FailedAtFreeze)));
        assert_eq!(running.handle.log(), ["Freeze", "Freeze dropped", "Abort", "Abort done"]);
        // The writer is as good as before.
        call_all(&mut connection, &session(LONG), &[PrepareBackup, PrepareSnapshot, Freeze, Thaw]);
    }
}

#[test]
fn every_other_handler_that_hangs_is_dropped_at_its_deadline() {
    let running = start(one_thread(), LONG);
    let mut connection = running.service.accept().unwrap();
    for kind in [PrepareBackup, PrepareSnapshot, Thaw, PostSnapshot, EventKind::BackupComplete] {
        running.handle.misbehave(kind, Misdeed::Hang);
        let failure = connection.call(kind, &session(Duration::from_millis(50))).unwrap().failure().unwrap();
        assert_eq!(failure.code, VssCode::WriterErrorTimeout, "{failure}");
        until(|| running.handle.has(&format!("{} dropped", kind.name())));
    }
    call_all(&mut connection, &session(LONG), &[PrepareBackup, PrepareSnapshot, Freeze, Thaw]);
}

#[test]
fn a_slow_handler_has_its_time() {
    for runtime in runtimes() {
        let running = start(runtime, LONG);
        let mut connection = running.service.accept().unwrap();
        running.handle.misbehave(PrepareSnapshot, Misdeed::Slow(Duration::from_millis(300)));
        call_all(&mut connection, &session(Duration::from_secs(5)), &[PrepareSnapshot]);
        assert!(running.handle.has("PrepareSnapshot done"));
    }
}

#[test]
fn the_service_killed_in_a_handler_drops_it_and_aborts() {
    for runtime in runtimes() {
        let running = start(runtime, LONG);
        let mut connection = running.service.accept().unwrap();
        let event = session(LONG);
        call_all(&mut connection, &event, &[PrepareBackup, PrepareSnapshot]);
        running.handle.misbehave(Freeze, Misdeed::Hang);
        connection.begin(Freeze, &event, &[]).unwrap();
        until(|| running.handle.has("Freeze"));
        drop(connection);
        let took = until(|| running.handle.has("BackupShutdown done"));
        assert!(took < Duration::from_secs(5), "aborted after {took:?}");
        let log = running.handle.log();
        assert_eq!(log[5..], ["Freeze dropped", "Abort", "Abort done", "BackupShutdown", "BackupShutdown done"]);
        // How it ends without `reconnect` is the loop's to say.
        let _ = running.thread.join().unwrap();
    }
}

#[test]
fn the_service_killed_while_frozen_is_abort_and_shutdown() {
    for runtime in runtimes() {
        let running = start(runtime, LONG);
        let mut connection = running.service.accept().unwrap();
        call_all(&mut connection, &session(LONG), &[PrepareBackup, PrepareSnapshot, Freeze]);
        drop(connection);
        let took = until(|| !running.handle.is_frozen());
        assert!(took < Duration::from_secs(5), "thawed after {took:?}");
        running.thread.join().unwrap().unwrap();
        assert!(running.handle.log().ends_with(&["BackupShutdown done".to_owned()]));
    }
}

#[test]
fn the_freeze_timer_thaws_by_itself() {
    for runtime in runtimes() {
        let running = start(runtime, Duration::from_millis(200));
        let mut connection = running.service.accept().unwrap();
        let event = session(LONG);
        call_all(&mut connection, &event, &[PrepareBackup, PrepareSnapshot, Freeze]);
        let took = until(|| !running.handle.is_frozen());
        assert!((150..5000).contains(&took.as_millis()), "thawed by itself after {took:?}");
        let failure = connection.call(Thaw, &event).unwrap().failure().unwrap();
        assert_eq!(failure.code, VssCode::WriterErrorTimeout);
    }
}

#[test]
fn a_panic_is_a_failure_and_abort_still_comes() {
    for runtime in runtimes() {
        let running = start(runtime, LONG);
        let mut connection = running.service.accept().unwrap();
        let event = session(LONG);
        call_all(&mut connection, &event, &[PrepareBackup, PrepareSnapshot]);
        running.handle.misbehave(Freeze, Misdeed::Panic);
        let failure = connection.call(Freeze, &event).unwrap().failure().unwrap();
        assert_eq!(failure.code, VssCode::WriterErrorNonRetryable);
        assert!(failure.message.contains("a mistake in Freeze"), "{failure}");
        running.handle.misbehave(Abort, Misdeed::Panic);
        assert!(connection.call(Abort, &event).unwrap().failure().is_some());
        call_all(&mut connection, &event, &[Abort, BackupShutdown]);
        call_all(&mut connection, &session(LONG), &[PrepareBackup, PrepareSnapshot, Freeze, Thaw]);
    }
}

#[test]
fn a_runtime_that_is_stuck_misses_its_freeze_and_not_its_abort() {
    let running = start(one_thread(), Duration::from_millis(100));
    let mut connection = running.service.accept().unwrap();
    let event = session(LONG);
    // The runtime is blocked by a handler that the thread has given up.
    running.handle.misbehave(PrepareSnapshot, Misdeed::Block(Duration::from_secs(3)));
    let late = Event { time_left_ms: 50, ..event.clone() };
    let began = Instant::now();
    let failure = connection.call(PrepareSnapshot, &late).unwrap().failure().unwrap();
    assert_eq!(failure.code, VssCode::WriterErrorTimeout);
    assert!(began.elapsed() < Duration::from_secs(2), "the loop was stuck with it: {:?}", began.elapsed());
    assert!(connection.call(Freeze, &event).unwrap().failure().is_some());
    until(|| running.handle.has("Abort done"));
    assert!(!running.handle.has("Freeze"), "a Freeze began after it was given up: {:?}", running.handle.log());
    assert!(!running.handle.is_frozen());
}

#[test]
fn a_freeze_that_blocks_its_runtime_is_aborted_as_soon_as_that_goes_on() {
    let running = start(one_thread(), Duration::from_millis(100));
    let mut connection = running.service.accept().unwrap();
    running.handle.misbehave(Freeze, Misdeed::Block(Duration::from_millis(400)));
    let failure = connection.call(Freeze, &session(LONG)).unwrap().failure().unwrap();
    assert_eq!(failure.code, VssCode::WriterErrorTimeout);
    until(|| running.handle.has("Abort done"));
    assert!(!running.handle.is_frozen());
}

#[test]
fn an_abort_runs_whole_though_nobody_waits_for_it() {
    let running = start(one_thread(), LONG);
    let mut connection = running.service.accept().unwrap();
    let event = session(LONG);
    call_all(&mut connection, &event, &[PrepareBackup, PrepareSnapshot, Freeze]);
    running.handle.misbehave(Abort, Misdeed::Slow(Duration::from_millis(300)));
    let failure = connection.call(Abort, &Event { time_left_ms: 50, ..event }).unwrap().failure().unwrap();
    assert_eq!(failure.code, VssCode::WriterErrorTimeout);
    assert!(running.handle.is_frozen(), "it is under way");
    until(|| running.handle.has("Abort done"));
    assert!(!running.handle.is_frozen());
}

#[test]
fn what_waits_for_a_stuck_runtime_is_bounded_and_abort_has_room() {
    let running = start(one_thread(), LONG);
    let mut connection = running.service.accept().unwrap();
    let event = session(LONG);
    call_all(&mut connection, &event, &[PrepareBackup, PrepareSnapshot, Freeze]);
    running.handle.misbehave(PrepareSnapshot, Misdeed::BlockUntilReleased);
    assert!(connection.call(PrepareSnapshot, &session(Duration::from_millis(100))).unwrap().failure().is_some());
    let hurried = session(Duration::ZERO);
    let codes: Vec<VssCode> =
        (0..300).map(|_| connection.call(PrepareBackup, &hurried).unwrap().failure().unwrap().code).collect();
    assert_eq!(codes[..10], [VssCode::WriterErrorTimeout; 10]);
    assert_eq!(*codes.last().unwrap(), VssCode::WriterErrorOutOfResources);
    assert!(connection.call(Abort, &Event { time_left_ms: 0, ..event }).unwrap().failure().is_some());
    running.handle.release();
    until(|| running.handle.has("Abort done"));
    assert!(!running.handle.is_frozen());
    // What was given up before it began does not begin.
    assert_eq!(running.handle.log().iter().filter(|line| *line == "PrepareBackup").count(), 1);
}

#[test]
fn the_stop_flag_thaws_and_ends() {
    for runtime in runtimes() {
        let running = start(runtime, LONG);
        let mut connection = running.service.accept().unwrap();
        let event = session(LONG);
        call_all(&mut connection, &event, &[PrepareBackup, PrepareSnapshot, Freeze]);
        drop(running.stopper);
        running.thread.join().unwrap().unwrap();
        assert!(!running.handle.is_frozen());
        assert!(running.handle.log().ends_with(&["BackupShutdown done".to_owned()]));
        assert!(connection.call(Thaw, &event).is_err());
    }
}

#[test]
fn a_refusal_is_returned() {
    let running = start(one_thread(), LONG);
    let refusal = VssError::new(VssCode::AccessDenied, "The class belongs to uid 0");
    running.service.refuse(&refusal).unwrap();
    assert!(matches!(running.thread.join().unwrap(), Err(RunError::Refused(error)) if error == refusal));
}

#[test]
fn dropping_the_future_closes_the_connection_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let service = FakeService::listen(&directory.path().join("writer")).unwrap();
    let path = service.path().to_owned();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let thread = thread::spawn(move || {
        one_thread().block_on(async {
            let mut writer = Fake::new(LONG);
            tokio::select! {
                outcome = run(&path, &mut writer, Options::default()) => panic!("{outcome:?}"),
                _ = ended => {}
            }
        });
    });
    let mut connection = service.accept().unwrap();
    call_all(&mut connection, &session(LONG), &[PrepareBackup]);
    end.send(()).unwrap();
    thread.join().unwrap();
    let began = Instant::now();
    // One call may arrive before the thread has seen it; no handler answers that any more.
    while let Ok(reply) = connection.call(Freeze, &session(LONG)) {
        assert!(reply.failure().is_some_and(|failure| failure.message.contains("runtime ended")), "{reply:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
