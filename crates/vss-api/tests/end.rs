//! The end of a connection: seen within milliseconds, whatever was going on, and told exactly once.

mod support;

use serde_json::json;
use std::{
    io::Write,
    net::Shutdown,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};
use support::{Door, Raw, Seen, call, quick, unanswered};

/// Who notices it only when he looks takes longer; a busy machine does not, at the median.
const AT_ONCE: Duration = Duration::from_millis(100);

/// How long it takes until the service has noticed, at the median of nine; each time in the situation that `before` makes.
fn latency(name: &str, face: fn(&Door) -> Raw, before: impl Fn(&Door, &mut Raw), end: impl Fn(Raw) -> Option<Raw>) {
    let mut times: Vec<Duration> = (0..9)
        .map(|_| {
            let door = Door::open();
            let mut peer = face(&door);
            before(&door, &mut peer);
            sleep(Duration::from_millis(20));
            assert!(door.seen.try_iter().all(|seen| !matches!(seen, Seen::Disconnected(_))), "{name}: ended too early");
            let begun = Instant::now();
            let kept = end(peer);
            let seen = door.wait_for_end() - begun;
            drop(kept);
            assert!(!door.seen.try_iter().any(|seen| matches!(seen, Seen::Disconnected(_))), "{name}: told twice");
            seen
        })
        .collect();
    times.sort_unstable();
    println!("end seen, {name}: p50 {:?}, worst of 9 {:?}", times[4], times[8]);
    assert!(times[4] < AT_ONCE, "{name}: {times:?}");
}

fn requester(door: &Door) -> Raw {
    Raw::connect(&door.requester)
}

fn close(peer: Raw) -> Option<Raw> {
    drop(peer);
    None
}

fn half_close(peer: Raw) -> Option<Raw> {
    peer.0.shutdown(Shutdown::Write).unwrap();
    Some(peer)
}

#[test]
fn while_nothing_happens() {
    latency("idle", requester, |_, _| {}, close);
    latency("idle, only the writing half shut down", requester, |_, _| {}, half_close);
}

#[test]
fn while_a_call_is_unanswered() {
    let before = |door: &Door, peer: &mut Raw| {
        peer.send(&unanswered());
        door.wait_for_call();
    };
    latency("call unanswered", requester, before, close);
    latency("call unanswered, half", requester, before, half_close);
}

#[test]
fn while_reading_rests_and_data_waits() {
    let before = |door: &Door, peer: &mut Raw| {
        for _ in 0..100 {
            peer.send(&unanswered());
        }
        for _ in 0..32 {
            door.wait_for_call();
        }
        assert!(
            door.seen.recv_timeout(Duration::from_millis(10)).is_err(),
            "reading does not rest at 32 unanswered calls"
        );
    };
    latency("reading rests, calls unread", requester, before, close);
    latency("reading rests, calls unread, half", requester, before, half_close);
}

#[test]
fn in_the_middle_of_a_message() {
    latency("half a message", requester, |_, peer| peer.0.write_all(b"{\"method\":\"org").unwrap(), close);
}

#[test]
fn while_replies_cannot_be_sent() {
    let before = |_: &Door, peer: &mut Raw| {
        for _ in 0..4 {
            peer.send(&call("Requester.IsVolumeSupported", json!({"volume": "/500000"})));
        }
        // Until no more of them goes into the socket.
        let mut unread = 0;
        loop {
            sleep(Duration::from_millis(100));
            let now = rustix::io::ioctl_fionread(&peer.0).unwrap();
            if now > 0 && now == unread {
                break;
            }
            unread = now;
        }
    };
    latency("replies unsent", requester, before, close);
    latency("replies unsent, half", requester, before, half_close);
}

#[test]
fn on_a_writers_line() {
    fn writer(door: &Door) -> Raw {
        let mut peer = Raw::connect(&door.writer);
        peer.ask(&json!({"method": "org.linuxvss.Writer.Register", "upgrade": true, "parameters": {
            "class_id": "b5946137-7b9f-4925-af80-51abd60b20d5", "name": "x"}}));
        peer
    }
    latency("writer idle", writer, |door, _| std::mem::forget(door.lines.recv().unwrap()), close);
    let before = |door: &Door, _: &mut Raw| {
        let line = door.lines.recv().unwrap();
        let session_id = vss_model::SessionId::random();
        let answer = line.identify(vss_api::writer::Identify { session_id, time_left_ms: 1 });
        door.runtime().spawn(async move {
            assert_eq!(answer.await, Err(vss_api::server::LineError::Closed));
            line.closed().await;
        });
    };
    latency("writer in an event", writer, before, close);
    latency("writer in an event, half", writer, before, half_close);
}

#[test]
fn while_a_writer_waits_to_be_let_in() {
    let register = json!({"method": "org.linuxvss.Writer.Register", "upgrade": true, "parameters": {
        "class_id": "b5946137-7b9f-4925-af80-51abd60b20d5", "name": "kept waiting"}});
    latency("writer unregistered", |door| Raw::connect(&door.writer), |_, peer| peer.send(&register), close);
}

#[test]
fn what_was_sent_before_the_end_still_counts() {
    let door = Door::open();
    for _ in 0..50 {
        let mut peer = Raw::connect(&door.requester);
        for _ in 0..5 {
            peer.send(&quick());
        }
        drop(peer);
        let calls = std::iter::from_fn(|| door.seen.recv_timeout(Duration::from_secs(30)).ok())
            .take_while(|seen| !matches!(seen, Seen::Disconnected(_)))
            .filter(|seen| matches!(seen, Seen::Call(_)))
            .count();
        assert_eq!(calls, 5);
    }
}

#[test]
fn after_garbage_behind_a_call_that_is_unanswered() {
    let before = |door: &Door, peer: &mut Raw| {
        peer.send(&unanswered());
        peer.0.write_all(b"garbage\0").unwrap();
        door.wait_for_call();
    };
    latency("garbage behind an unanswered call", requester, before, close);
}

#[test]
fn when_the_peer_is_killed() {
    let door = Door::open();
    let script = "import socket, sys, time\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
                  s.sendall(b'{\"method\":\"org.linuxvss.Requester.StartSnapshotSet\"}\\0')\ntime.sleep(60)";
    let child = Command::new("python3").args(["-c", script]).arg(&door.requester).stdin(Stdio::null()).spawn();
    let Ok(mut child) = child else {
        println!("SKIPPED: when_the_peer_is_killed: there is no python3");
        return;
    };
    door.wait_for_call();
    let begun = Instant::now();
    child.kill().unwrap();
    let seen = door.wait_for_end() - begun;
    child.wait().unwrap();
    println!("end seen, peer killed: {seen:?}");
    // Its end and that of its program are the kernel's.
    assert!(seen < Duration::from_secs(2));
}

#[test]
fn shutdown_ends_every_connection_once() {
    let door = Door::open();
    let mut peers: Vec<Raw> = (0..20).map(|_| Raw::connect(&door.requester)).collect();
    for peer in &mut peers {
        peer.ask(&quick());
    }
    door.shut();
    for _ in 0..20 {
        door.wait_for_end();
    }
    for peer in &mut peers {
        assert_eq!(peer.receive(), None);
    }
    assert!(door.seen.recv_timeout(Duration::from_millis(50)).is_err());
}
