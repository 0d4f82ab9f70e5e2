//! Writers: registering, events with file descriptors, answers in order.

mod support;

use serde_json::{Value, json};
use std::{
    fs::File,
    io::{Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    time::{Duration, Instant},
};
use support::{Door, Raw, quick};
use vss_api::{
    client::{Client, WriterEvents},
    server::{LineError, WriterLine},
    writer::{Event, EventCall, EventReply, Identify, Identity, Register},
};
use vss_model::{Attributes, BackupState, Context, SessionId, VssCode, VssError, WriterClassId, WriterState};

fn register(name: &str) -> Register {
    Register::new(WriterClassId::random(), name)
}

fn event() -> Event {
    Event {
        session_id: SessionId::random(),
        set_id: None,
        context: Context::Backup,
        attributes: Attributes::empty(),
        backup_state: BackupState::default(),
        components: Vec::new(),
        volumes: Vec::new(),
        time_left_ms: 1000,
    }
}

fn identify() -> Identify {
    Identify { session_id: SessionId::random(), time_left_ms: 1000 }
}

/// A registered writer and the service's line to it.
fn writer(door: &Door) -> (WriterEvents, WriterLine) {
    let (registered, events) = Client::connect(&door.writer).unwrap().register(register("test")).unwrap();
    assert_eq!(registered.service, "test 1");
    (events, door.lines.recv().unwrap())
}

fn raw_writer(door: &Door) -> (Raw, WriterLine) {
    let mut peer = Raw::connect(&door.writer);
    let reply = peer.ask(&json!({"method": "org.linuxvss.Writer.Register", "upgrade": true, "parameters": {
        "class_id": WriterClassId::random(), "name": "raw"}}));
    assert!(reply.get("error").is_none(), "{reply}");
    (peer, door.lines.recv().unwrap())
}

fn pipe_with(text: &str) -> OwnedFd {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(text.as_bytes()).unwrap();
    reader.into()
}

fn read(fd: OwnedFd) -> String {
    let mut text = String::new();
    File::from(fd).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn events_are_called_and_answered_on_the_turned_line() {
    let door = Door::open();
    let (mut events, line) = writer(&door);
    let writer = std::thread::spawn(move || {
        let identify = events.next_event().unwrap().unwrap();
        assert!(matches!(identify.call, EventCall::Identify(_)));
        events.reply(&Identity::default()).unwrap();
        let freeze = events.next_event().unwrap().unwrap();
        assert!(matches!(freeze.call, EventCall::Freeze(_)));
        events.reply(&EventReply { state: Some(WriterState::WaitingForThaw), ..EventReply::default() }).unwrap();
        events.next_event().unwrap().unwrap();
        events.refuse(&VssError::new(VssCode::WriterErrorTimeout, "Too slow")).unwrap();
        assert!(events.next_event().unwrap().is_none(), "the line was closed");
    });
    door.runtime().block_on(async {
        assert_eq!(line.identify(identify()).await, Ok(Identity::default()));
        let reply = line.event(&EventCall::Freeze(event()), Vec::new()).await.unwrap();
        assert_eq!(reply.state, Some(WriterState::WaitingForThaw));
        let refused = line.event(&EventCall::Thaw(event()), Vec::new()).await.unwrap_err();
        assert!(matches!(&refused, LineError::Refused(error) if error.code == VssCode::WriterErrorTimeout));
        assert!(!line.is_closed());
        line.close();
        line.closed().await;
        assert_eq!(line.identify(identify()).await, Err(LineError::Closed));
    });
    writer.join().unwrap();
    door.wait_for_end();
}

#[test]
fn a_writer_may_send_null_for_what_it_leaves_out() {
    let door = Door::open();
    let (mut peer, line) = raw_writer(&door);
    let writer = std::thread::spawn(move || {
        peer.receive().unwrap();
        let files = json!([{"path": "/srv", "pattern": null, "recursive": null, "alternate_path": null}]);
        let component = json!({"type": null, "logical_path": null, "name": "data", "caption": null, "selectable": null,
            "files": files});
        peer.send(&json!({"error": null, "parameters": {"components": [component]}}));
        peer.receive().unwrap();
        peer.send(&json!({"parameters": {"state": null, "code": null, "message": null, "components": null}}));
        peer
    });
    door.runtime().block_on(async {
        let identity = line.identify(identify()).await.unwrap();
        assert_eq!(identity.components[0].files[0].pattern, "*");
        assert_eq!(line.event(&EventCall::Thaw(event()), Vec::new()).await, Ok(EventReply::default()));
    });
    writer.join().unwrap();
}

#[test]
fn a_refused_writer_may_try_again() {
    let door = Door::open();
    let mut peer = Raw::connect(&door.writer);
    let call = |name: &str| {
        json!({"method": "org.linuxvss.Writer.Register", "upgrade": true, "parameters": {
            "class_id": WriterClassId::random(), "name": name}})
    };
    let refused = peer.ask(&call("refused"));
    assert_eq!(refused["error"], "org.linuxvss.Writer.VssError");
    assert_eq!(refused["parameters"]["name"], "VSS_E_WRITER_ALREADY_SUBSCRIBED");
    assert_eq!(refused["parameters"]["code"], 0x8004_231Au32);
    assert_eq!(peer.ask(&call("good"))["parameters"]["service"], "test 1");
}

#[test]
fn directories_come_with_their_own_event() {
    let door = Door::open();
    let (mut events, line) = writer(&door);
    // All are under way before the writer reads the first: each fd must still find its event.
    let answers: Vec<_> = (0..30)
        .map(|number| {
            let count = number % 3;
            let fds = (0..count).map(|fd| pipe_with(&format!("{number}.{fd}"))).collect();
            line.call(&EventCall::PostSnapshot(Event { time_left_ms: number, ..event() }), fds)
        })
        .collect();
    std::thread::sleep(Duration::from_millis(50));
    for number in 0..30 {
        let incoming = events.next_event().unwrap().unwrap();
        let EventCall::PostSnapshot(event) = incoming.call else { panic!() };
        assert_eq!(event.time_left_ms, number);
        let texts: Vec<String> = incoming.fds.into_iter().map(read).collect();
        let expected: Vec<String> = (0..number % 3).map(|fd| format!("{number}.{fd}")).collect();
        assert_eq!(texts, expected);
        events.reply(&json!({"number": number})).unwrap();
    }
    door.runtime().block_on(async {
        for (number, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.await.unwrap().get(), format!("{{\"number\":{number}}}"));
        }
    });
}

#[test]
fn the_answer_to_a_call_that_nobody_waits_for_is_not_given_to_the_next() {
    let door = Door::open();
    let (mut events, line) = writer(&door);
    door.runtime().block_on(async {
        let late = line.call(&EventCall::Freeze(event()), Vec::new());
        assert!(tokio::time::timeout(Duration::from_millis(20), late).await.is_err());
        let thaw = line.call(&EventCall::Thaw(event()), Vec::new());
        tokio::task::spawn_blocking(move || {
            for answer in ["late", "in time"] {
                events.next_event().unwrap().unwrap();
                events.reply(&json!({ "message": answer })).unwrap();
            }
            events
        });
        assert_eq!(thaw.await.unwrap().get(), r#"{"message":"in time"}"#);
    });
}

#[test]
fn more_calls_than_64_are_refused_until_answers_come() {
    let door = Door::open();
    let (mut events, line) = writer(&door);
    for _ in 0..64 {
        drop(line.call(&EventCall::Thaw(event()), Vec::new()));
    }
    assert_eq!(door.runtime().block_on(line.identify(identify())), Err(LineError::Busy));
    std::thread::spawn(move || {
        while let Ok(Some(_)) = events.next_event() {
            events.reply(&json!({"free": true})).unwrap();
        }
    });
    // The answers may still be on their way.
    let deadline = Instant::now() + Duration::from_secs(30);
    let answer = loop {
        match door.runtime().block_on(line.call(&EventCall::Thaw(event()), Vec::new())) {
            Err(LineError::Busy) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            answer => break answer,
        }
    };
    assert_eq!(answer.unwrap().get(), r#"{"free":true}"#);
}

#[test]
fn a_writer_that_breaks_the_contract_loses_its_line() {
    let door = Door::open();
    let bad: [(&[u8], bool); 5] = [
        (b"{}\0", false),
        (b"hello\0", true),
        (b"{\"method\":\"org.linuxvss.Requester.StartSnapshotSet\"}\0", true),
        (b"{\"parameters\":{},\"continues\":true}\0", true),
        (b"[]\0", true),
    ];
    for (answer, asked) in bad {
        let (mut peer, line) = raw_writer(&door);
        let waiting = asked.then(|| line.identify(identify()));
        peer.0.write_all(answer).unwrap();
        door.runtime().block_on(async {
            if let Some(waiting) = waiting {
                assert!(matches!(waiting.await, Err(LineError::Unreadable(_))), "{answer:?}");
            }
            tokio::time::timeout(Duration::from_secs(30), line.closed()).await.expect("the line stayed open");
        });
    }
    // An answer of the wrong shape is a failed call, no broken line.
    let (mut peer, line) = raw_writer(&door);
    let waiting = line.identify(identify());
    peer.send(&json!({"parameters": {"components": 5}}));
    let strange = line.call(&EventCall::Thaw(event()), Vec::new());
    peer.send(&json!({"error": "com.example.Sorry", "parameters": {"why": "tired"}}));
    door.runtime().block_on(async {
        assert!(matches!(waiting.await, Err(LineError::Unreadable(_))));
        let Err(LineError::Refused(error)) = strange.await else { panic!() };
        assert_eq!(error.code, VssCode::WriterErrorNonRetryable);
        assert!(error.message.contains("com.example.Sorry"));
        assert!(!line.is_closed());
    });
}

#[test]
fn a_writer_with_an_endless_answer_is_dropped_at_the_bound() {
    let door = Door::open();
    let (mut peer, line) = raw_writer(&door);
    let waiting = line.identify(identify());
    let sender = std::thread::spawn(move || {
        let piece = [b'x'; 1 << 16];
        let mut sent = 0;
        while sent < 64 << 20 && peer.0.write_all(&piece).is_ok() {
            sent += piece.len();
        }
        sent
    });
    let answer = door.runtime().block_on(waiting);
    assert!(matches!(answer, Err(LineError::Unreadable(_))), "{answer:?}");
    assert!(sender.join().unwrap() < 6 << 20);
}

#[test]
fn an_event_of_a_later_release_is_answered_and_passed_over() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let writer = std::thread::spawn(move || {
        let mut events = WriterEvents::from_stream(theirs);
        let known = events.next_event().unwrap().unwrap();
        events.reply(&json!({})).unwrap();
        known
    });
    let mut service = Raw(ours);
    let unknown = json!({"method": "org.linuxvss.Writer.PreRestore", "parameters": {}});
    assert_eq!(service.ask(&unknown)["error"], "org.varlink.service.MethodNotFound");
    let broken = json!({"method": "org.linuxvss.Writer.Thaw", "parameters": {"session_id": 7}});
    assert_eq!(service.ask(&broken)["parameters"], json!({"parameter": "session_id"}));
    let known = json!({"method": "org.linuxvss.Writer.Identify", "parameters": {
        "session_id": SessionId::random(), "time_left_ms": 1, "added_later": true}});
    assert_eq!(service.ask(&known), json!({"parameters": {}}));
    assert!(matches!(writer.join().unwrap().call, EventCall::Identify(_)));
}

#[test]
fn the_last_line_dropped_ends_the_connection() {
    let door = Door::open();
    let (mut events, line) = writer(&door);
    let other = line.clone();
    drop(line);
    assert!(!other.is_closed());
    drop(other);
    assert!(events.next_event().unwrap().is_none());
}

#[test]
fn one_event_is_answered_quickly() {
    let door = Door::open();
    let (mut events, line) = writer(&door);
    std::thread::spawn(move || {
        while let Ok(Some(_)) = events.next_event() {
            events.reply(&json!({})).unwrap();
        }
    });
    let mut times: Vec<Duration> = door.runtime().block_on(async {
        let mut times = Vec::new();
        for _ in 0..1000 {
            let begun = Instant::now();
            line.event(&EventCall::Thaw(event()), Vec::new()).await.unwrap();
            times.push(begun.elapsed());
        }
        times
    });
    times.sort_unstable();
    println!("round trip of an event: p50 {:?}, p99 {:?}", times[500], times[990]);
    let _: Value = Raw::connect(&door.requester).ask(&quick());
}
