//! The loop against a fake service over a real socket: what is promised whatever the service does.

use std::path::Path;
use std::sync::Mutex;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use vss_api::writer::{Event, EventKind};
use vss_model::{SessionId, VssCode, VssError, WriterState};
use vss_writer::fake::{FakeHandle, FakeWriter, Misdeed};
use vss_writer::fake_service::{FakeConnection, FakeService, event};
use vss_writer::{Monitor, Notice, Options, RunError, Stop, Stopper, conformance, run};

use EventKind::{Abort, BackupComplete, BackupShutdown, Freeze, PostSnapshot, PrepareBackup, PrepareSnapshot, Thaw};

struct Running {
    service: FakeService,
    handle: FakeHandle,
    thread: JoinHandle<Result<(), RunError>>,
    stopper: Stopper,
    _directory: tempfile::TempDir,
}

fn start(writer: FakeWriter, reconnect: bool) -> Running {
    let directory = tempfile::tempdir().unwrap();
    let service = FakeService::listen(&directory.path().join("writer")).unwrap();
    let (stopper, stop) = Stop::new().unwrap();
    let (handle, path, mut writer) = (writer.handle(), service.path().to_owned(), writer);
    let thread =
        thread::spawn(move || run(&path, &mut writer, &Options { stop: Some(&stop), reconnect, ..Options::default() }));
    Running { service, handle, thread, stopper, _directory: directory }
}

fn writer() -> FakeWriter {
    FakeWriter::new("fake", "/srv")
}

fn session(time_left: Duration) -> Event {
    event(Path::new("/srv"), time_left)
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

fn call_all(connection: &mut FakeConnection, event: &Event, kinds: &[EventKind]) {
    for kind in kinds {
        let reply = connection.call(*kind, event).unwrap();
        assert_eq!(reply.failure(), None, "{}", kind.name());
    }
}

#[test]
fn the_fake_conforms() {
    conformance::check(&mut writer());
}

#[test]
fn a_whole_backup_goes_through_and_directories_arrive() {
    let running = start(writer(), false);
    let mut connection = running.service.accept().unwrap();
    assert_eq!(connection.register().unwrap().name, "fake");
    assert_eq!(connection.identify().unwrap().unwrap().components.len(), 1);
    let mut event = session(Duration::from_secs(5));
    call_all(&mut connection, &event, &[PrepareBackup, PrepareSnapshot, Freeze, Thaw]);
    event.volumes[0].directory = Some(0);
    let directory = std::fs::File::open("/").unwrap();
    let reply = connection.call_with(PostSnapshot, &event, &[std::os::fd::AsFd::as_fd(&directory)]).unwrap();
    assert_eq!(reply.failure(), None);
    event.volumes[0].directory = None;
    call_all(&mut connection, &event, &[BackupComplete, BackupShutdown]);
    drop(connection);
    running.thread.join().unwrap().unwrap();
    assert_eq!(running.handle.events(), conformance::WHOLE);
    let records = running.handle.records();
    assert_eq!(records.iter().find(|record| record.kind == PostSnapshot).unwrap().directories, 1);
}

#[test]
fn a_failure_names_state_code_and_message() {
    let running = start(writer(), false);
    let mut connection = running.service.accept().unwrap();
    let error = VssError::new(VssCode::WriterErrorRetryable, "The lock is taken").with_hint("Wait");
    for kind in [PrepareBackup, PrepareSnapshot, Freeze, Thaw, PostSnapshot, BackupComplete, BackupShutdown] {
        running.handle.misbehave(kind, Misdeed::Fail(error.clone()), 1);
        let event = session(Duration::from_secs(5));
        let reply = connection.call(kind, &event).unwrap();
        assert_eq!(reply.state, Some(kind.state_failed()));
        assert_eq!(reply.failure().unwrap().code, VssCode::WriterErrorRetryable);
        assert_eq!(reply.message, "The lock is taken. Wait");
        connection.call(BackupShutdown, &event).unwrap();
    }
    running.handle.misbehave(EventKind::Identify, Misdeed::Fail(error.clone()), 1);
    assert_eq!(connection.identify().unwrap().unwrap_err(), error);
}

/// What comes at once comes within 100 ms, at the median of nine: some may have to wait for a processor.
fn is_at_once(what: &str, once: impl Fn() -> Duration) {
    let mut times: Vec<Duration> = (0..9).map(|_| once()).collect();
    times.sort_unstable();
    println!("{what}: {times:?}");
    assert!(times[4] < Duration::from_millis(100) && times[8] < Duration::from_secs(5), "{what}: {times:?}");
}

#[test]
fn connection_lost_while_frozen_is_abort_and_shutdown_within_100_ms() {
    is_at_once("thawed", || {
        let running = start(writer(), false);
        let mut connection = running.service.accept().unwrap();
        let event = session(Duration::from_secs(60));
        call_all(&mut connection, &event, &[PrepareBackup, PrepareSnapshot, Freeze]);
        assert!(running.handle.is_frozen());
        drop(connection);
        let took = until(|| !running.handle.is_frozen());
        running.thread.join().unwrap().unwrap();
        assert_eq!(running.handle.events()[3..], [Abort, BackupShutdown]);
        took
    });
}

#[test]
fn connection_lost_in_the_freeze_handler_ends_it() {
    is_at_once("aborted", || {
        let running = start(writer(), false);
        let mut connection = running.service.accept().unwrap();
        let event = session(Duration::from_secs(60));
        call_all(&mut connection, &event, &[PrepareBackup, PrepareSnapshot]);
        running.handle.misbehave(Freeze, Misdeed::Hang, 1);
        connection.begin(Freeze, &event, &[]).unwrap();
        until(|| running.handle.events().contains(&Freeze));
        drop(connection);
        let took = until(|| running.handle.events().ends_with(&[Abort, BackupShutdown]));
        assert!(running.thread.join().unwrap().is_ok());
        took
    });
}

#[test]
fn after_post_snapshot_a_lost_connection_is_shutdown_alone() {
    let running = start(writer(), false);
    let mut connection = running.service.accept().unwrap();
    let event = session(Duration::from_secs(5));
    call_all(&mut connection, &event, &[PrepareBackup, PrepareSnapshot, Freeze, Thaw, PostSnapshot]);
    drop(connection);
    running.thread.join().unwrap().unwrap();
    assert_eq!(running.handle.events()[5..], [BackupShutdown]);
}

#[test]
fn the_freeze_timer_thaws_and_later_answers_say_timeout() {
    let running = start(writer().with_freeze_timeout(Duration::from_millis(200)), false);
    let mut connection = running.service.accept().unwrap();
    let event = session(Duration::from_secs(60));
    call_all(&mut connection, &event, &[PrepareBackup, PrepareSnapshot, Freeze]);
    let took = until(|| !running.handle.is_frozen());
    assert!((150..5000).contains(&took.as_millis()), "thawed by itself after {took:?}");
    for kind in [Thaw, PostSnapshot] {
        let reply = connection.call(kind, &event).unwrap();
        assert_eq!(
            (reply.failure().unwrap().code, reply.state),
            (VssCode::WriterErrorTimeout, Some(kind.state_failed()))
        );
    }
    call_all(&mut connection, &event, &[Abort, BackupShutdown]);
    assert_eq!(running.handle.events()[3..], [Abort, Abort, BackupShutdown]);
    // The next session knows nothing of it.
    let next = Event { session_id: SessionId::random(), ..event };
    call_all(&mut connection, &next, &[PrepareBackup, PrepareSnapshot, Freeze, Thaw]);
}

#[test]
fn an_unknown_method_does_not_stop_the_freeze_timer() {
    let running = start(writer().with_freeze_timeout(Duration::from_millis(200)), false);
    let mut connection = running.service.accept().unwrap();
    let event = session(Duration::from_secs(60));
    call_all(&mut connection, &event, &[PrepareBackup, PrepareSnapshot, Freeze]);
    connection.send(&serde_json::json!({"method": "org.linuxvss.Writer.PreRestore", "parameters": {}}), &[]).unwrap();
    assert_eq!(connection.receive().unwrap()["error"], "org.varlink.service.MethodNotFound");
    let took = until(|| !running.handle.is_frozen());
    assert!(took < Duration::from_secs(5), "thawed by itself after {took:?}");
    connection.send(&serde_json::json!({"method": "org.linuxvss.Writer.Thaw", "parameters": {}}), &[]).unwrap();
    assert_eq!(connection.receive().unwrap()["error"], "org.varlink.service.InvalidParameter");
}

#[test]
fn a_freeze_that_lasts_too_long_is_undone_and_says_timeout() {
    let running = start(writer().with_freeze_timeout(Duration::from_millis(100)), false);
    let mut connection = running.service.accept().unwrap();
    let event = session(Duration::from_secs(60));
    call_all(&mut connection, &event, &[PrepareBackup, PrepareSnapshot]);
    running.handle.misbehave(Freeze, Misdeed::Delay(Duration::from_millis(200)), 1);
    let reply = connection.call(Freeze, &event).unwrap();
    assert_eq!(
        (reply.failure().unwrap().code, reply.state),
        (VssCode::WriterErrorTimeout, Some(WriterState::FailedAtFreeze))
    );
    assert!(!running.handle.is_frozen());
}

#[test]
fn two_sessions_have_two_timers() {
    let running = start(writer(), false);
    let mut connection = running.service.accept().unwrap();
    let (short, long) = (session(Duration::from_millis(500)), session(Duration::from_secs(60)));
    call_all(&mut connection, &long, &[PrepareBackup, PrepareSnapshot, Freeze]);
    call_all(&mut connection, &short, &[PrepareBackup, PrepareSnapshot, Freeze]);
    until(|| running.handle.events().contains(&Abort));
    let aborted = running.handle.records().into_iter().find(|record| record.kind == Abort).unwrap();
    assert_eq!(aborted.session_id, short.session_id);
    call_all(&mut connection, &long, &[Thaw]);
}

#[test]
fn a_writer_that_dies_closes_its_connection_at_once() {
    let running = start(writer(), false);
    let mut connection = running.service.accept().unwrap();
    running.handle.misbehave(Freeze, Misdeed::Die, 1);
    let event = session(Duration::from_secs(60));
    call_all(&mut connection, &event, &[PrepareBackup, PrepareSnapshot]);
    let began = Instant::now();
    assert!(connection.call(Freeze, &event).is_err());
    // Not when the time of its event is over.
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(running.thread.join().is_err());
}

#[test]
fn a_handler_that_panics_leaves_no_other_session_frozen() {
    let running = start(writer(), false);
    let mut connection = running.service.accept().unwrap();
    let (held, dying) = (session(Duration::from_secs(60)), session(Duration::from_secs(60)));
    call_all(&mut connection, &held, &[PrepareBackup, PrepareSnapshot, Freeze]);
    running.handle.misbehave(PrepareBackup, Misdeed::Die, 1);
    assert!(connection.call(PrepareBackup, &dying).is_err());
    assert!(running.thread.join().is_err(), "the panic goes on");
    let of_held = running.handle.records().into_iter().filter(|record| record.session_id == held.session_id);
    let kinds: Vec<_> = of_held.map(|record| record.kind).collect();
    assert_eq!(kinds, [PrepareBackup, PrepareSnapshot, Freeze, Abort, BackupShutdown]);
}

#[test]
fn the_stop_flag_thaws_and_ends() {
    let running = start(writer(), true);
    let mut connection = running.service.accept().unwrap();
    let event = session(Duration::from_secs(60));
    call_all(&mut connection, &event, &[PrepareBackup, PrepareSnapshot, Freeze]);
    drop(running.stopper);
    running.thread.join().unwrap().unwrap();
    assert_eq!(running.handle.events()[3..], [Abort, BackupShutdown]);
    assert!(connection.call(Thaw, &event).is_err());
}

#[test]
fn reconnects_when_the_service_comes_back() {
    let running = start(writer(), true);
    drop(running.service.accept().unwrap());
    let mut connection = running.service.accept().unwrap();
    assert!(connection.identify().unwrap().is_ok());
    drop((running.stopper, connection));
    running.thread.join().unwrap().unwrap();
}

#[test]
fn waits_for_a_service_that_is_not_there_yet() {
    #[derive(Default)]
    struct Told(Mutex<Vec<String>>);
    impl Monitor for Told {
        fn notice(&self, notice: &Notice<'_>) {
            self.0.lock().unwrap().push(format!("{notice:?}"));
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("writer");
    let (stopper, stop) = Stop::new().unwrap();
    let told = Told::default();
    thread::scope(|scope| {
        let thread =
            scope.spawn(|| run(&path, &mut writer(), &Options { stop: Some(&stop), reconnect: true, monitor: &told }));
        until(|| !told.0.lock().unwrap().is_empty());
        let service = FakeService::listen(&path).unwrap();
        let _connection = service.accept().unwrap();
        drop(stopper);
        thread.join().unwrap().unwrap();
    });
    let told = told.0.into_inner().unwrap();
    assert!(told[0].starts_with("Lost") && told[1].starts_with("Registered"), "{told:?}");
}

#[test]
fn waits_until_another_instance_has_ended_and_says_so_once() {
    #[derive(Default)]
    struct Told(Mutex<Vec<String>>);
    impl Monitor for Told {
        fn notice(&self, notice: &Notice<'_>) {
            self.0.lock().unwrap().push(format!("{notice:?}"));
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("writer");
    let service = FakeService::listen(&path).unwrap();
    let (stopper, stop) = Stop::new().unwrap();
    let told = Told::default();
    thread::scope(|scope| {
        let thread =
            scope.spawn(|| run(&path, &mut writer(), &Options { stop: Some(&stop), reconnect: true, monitor: &told }));
        let refusal = VssError::new(VssCode::WriterAlreadySubscribed, "It is registered already, by process 7");
        for _ in 0..3 {
            service.refuse(&refusal).unwrap();
        }
        let _connection = service.accept().unwrap();
        drop(stopper);
        thread.join().unwrap().unwrap();
    });
    let told = told.0.into_inner().unwrap();
    assert!(told[0].starts_with("Waiting") && told[1].starts_with("Registered"), "{told:?}");
}

#[test]
fn without_reconnect_every_refusal_is_the_end() {
    let running = start(writer(), false);
    let refusal = VssError::new(VssCode::WriterAlreadySubscribed, "It is registered already");
    running.service.refuse(&refusal).unwrap();
    assert!(matches!(running.thread.join().unwrap(), Err(RunError::Refused(error)) if error == refusal));
}

#[test]
fn gives_up_at_once_when_refused() {
    let running = start(writer(), true);
    let refusal = VssError::new(VssCode::AccessDenied, "The class belongs to uid 0");
    running.service.refuse(&refusal).unwrap();
    match running.thread.join().unwrap() {
        Err(RunError::Refused(error)) => assert_eq!(error, refusal),
        other => panic!("{other:?}"),
    }
}

#[test]
fn more_sessions_than_the_limit_are_refused_and_the_others_go_on() {
    let running = start(writer(), false);
    let mut connection = running.service.accept().unwrap();
    let first = session(Duration::from_secs(60));
    call_all(&mut connection, &first, &[PrepareBackup]);
    for _ in 1..vss_model::limits::BACKUP_SESSIONS {
        call_all(&mut connection, &session(Duration::from_secs(60)), &[PrepareBackup]);
    }
    let reply = connection.call(PrepareBackup, &session(Duration::from_secs(60))).unwrap();
    assert_eq!(reply.failure().unwrap().code, VssCode::WriterErrorOutOfResources);
    call_all(&mut connection, &first, &[BackupShutdown]);
    call_all(&mut connection, &session(Duration::from_secs(60)), &[PrepareBackup]);
}
