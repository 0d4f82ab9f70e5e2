//! Peers that ask for too much, and the others beside them.

mod support;

use rustix::{
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use serde_json::json;
use std::{
    fs::File,
    io::{IoSlice, Read, Write},
    mem::MaybeUninit,
    os::{fd::AsFd, unix::net::UnixStream},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};
use support::{Door, Raw, call, invalid, quick, unanswered};
use vss_api::server::Bounds;

/// A second peer is served meanwhile: it never waits for the first, which has 5 s. The longest time that it waited.
fn served_meanwhile<T>(path: &Path, work: impl FnOnce() -> T) -> (T, Duration) {
    let mut other = Raw::connect(path);
    other.ask(&quick());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut times = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let begun = Instant::now();
                assert_eq!(other.ask(&quick()), json!({"parameters": {"shadows": []}}));
                times.push(begun.elapsed());
                sleep(Duration::from_millis(5));
            }
            times
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        let mut times = asking.join().unwrap();
        times.sort_unstable();
        let (middle, longest) = (times[times.len() / 2], times[times.len() - 1]);
        assert!(middle < Duration::from_millis(100) && longest < Duration::from_secs(3), "{middle:?}, {longest:?}");
        (result, longest)
    })
}

#[test]
fn a_message_of_5_mib_is_refused() {
    let door = Door::open();
    let mut peer = Raw::connect(&door.requester);
    let long = format!("{{\"method\":\"{}\"}}\0", "m".repeat(5 << 20));
    let sent = peer.0.write_all(long.as_bytes());
    assert!(sent.is_err(), "all of it was read");
    assert_eq!(peer.receive(), Some(invalid("message")));
    assert_eq!(peer.receive(), None);
    // One of just under 4 MiB is read.
    let mut peer = Raw::connect(&door.requester);
    let error = peer.ask(&call(&"m".repeat((4 << 20) - 100), json!({})));
    assert_eq!(error["error"], "org.varlink.service.InterfaceNotFound");
    assert!(error.to_string().len() < 1000, "the error is as long as the question");
}

#[test]
fn a_peer_that_never_reads_is_dropped_after_5_seconds() {
    let door = Door::open();
    let (dropped, longest) = served_meanwhile(&door.requester, || {
        let mut peer = Raw::connect(&door.requester);
        let begun = Instant::now();
        for _ in 0..30 {
            peer.send(&call("Requester.IsVolumeSupported", json!({"volume": "/300000"})));
        }
        door.wait_for_end();
        begun.elapsed()
    });
    println!("dropped after {dropped:?}; another peer waited at most {longest:?}");
    assert!((5..15).contains(&dropped.as_secs()), "{dropped:?}");
}

#[test]
fn ten_thousand_connections() {
    const ALL: usize = 10_000;
    let wanted = ALL as u64 + 2000;
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|maximum| maximum < wanted) {
        println!("SKIPPED: ten_thousand_connections: at most {:?} open files are allowed", limit.maximum);
        return;
    }
    if limit.current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }).unwrap();
    }
    let door = Door::open();
    let ((mut peers, took), longest) = served_meanwhile(&door.requester, || {
        let begun = Instant::now();
        let peers: Vec<Raw> = (0..ALL).map(|_| Raw::connect(&door.requester)).collect();
        (peers, begun.elapsed())
    });
    let refusal = |peer: &mut Raw| {
        let mut line = [0; 4096];
        peer.0.set_nonblocking(true).unwrap();
        let Ok(length @ 1..) = peer.0.read(&mut line) else { return false };
        let text = String::from_utf8_lossy(&line[..length]);
        assert!(text.contains("org.linuxvss.Requester.VssError") && text.contains("E_OUTOFMEMORY"), "{text}");
        true
    };
    let mut refused = 0;
    let deadline = Instant::now() + Duration::from_secs(60);
    // As root; another uid may have fewer.
    while refused < ALL - 1024 && Instant::now() < deadline {
        peers.retain_mut(|peer| {
            let gone = refusal(peer);
            refused += usize::from(gone);
            !gone
        });
    }
    println!("{ALL} connections in {took:?}, {refused} refused; another peer waited at most {longest:?}");
    assert!(refused >= ALL - 1024, "{refused}");
    drop(peers);
    let begun = Instant::now();
    loop {
        let mut peer = Raw::connect(&door.requester);
        let answer = peer.ask(&quick());
        if answer.get("parameters").is_some_and(|parameters| parameters.get("shadows").is_some()) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "nobody is let in again: {answer}");
    }
}

#[test]
fn one_user_has_128_connections_and_root_more() {
    if !rustix::process::getuid().is_root() {
        println!("SKIPPED: one_user_has_128_connections_and_root_more: needs root");
        return;
    }
    let door = Door::open();
    let script = "import os, socket, sys\nos.setgid(65534)\nos.setuid(65534)\nopen_ = []\nrefused = 0\n\
                  for i in range(200):\n    s = socket.socket(socket.AF_UNIX)\n    s.connect(sys.argv[1])\n    \
                  open_.append(s)\n    s.settimeout(30)\n    try:\n        \
                  s.sendall(b'{\"method\":\"org.linuxvss.Management.ListShadows\"}\\0')\n    except OSError:\n        pass\n    \
                  refused += b'VssError' in s.recv(4096)\nprint(refused, flush=True)\nsys.stdin.read()";
    let child = Command::new("python3")
        .args(["-c", script])
        .arg(&door.requester)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        println!("SKIPPED: one_user_has_128_connections_and_root_more: there is no python3");
        return;
    };
    let mut refused = [0; 3];
    child.stdout.take().unwrap().read_exact(&mut refused).unwrap();
    assert_eq!(&refused[..2], b"72");
    let mut ours: Vec<Raw> = (0..200).map(|_| Raw::connect(&door.requester)).collect();
    for peer in &mut ours {
        assert_eq!(peer.ask(&quick()), json!({"parameters": {"shadows": []}}));
    }
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn file_descriptors_of_a_requester_are_closed() {
    let door = Door::open();
    let mut peer = Raw::connect(&door.requester);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let fds = [writer.as_fd(); 100];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(100))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let bytes = b"{\"method\":\"org.linuxvss.Management.ListShadows\"}\0";
    rustix::net::sendmsg(&peer.0, &[IoSlice::new(bytes)], &mut control, SendFlags::empty()).unwrap();
    drop(writer);
    assert_eq!(peer.receive(), Some(json!({"parameters": {"shadows": []}})));
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_message_has_to_end_and_a_silent_peer_has_to_go_only_when_there_is_a_crowd() {
    let door = Door::with(Bounds {
        connections: 8,
        connections_per_uid: 8,
        message_time: Duration::from_millis(300),
        ..Bounds::default()
    });
    let mut slow = Raw::connect(&door.requester);
    slow.0.write_all(b"{\"meth").unwrap();
    let mut silent = Raw::connect(&door.requester);
    let begun = Instant::now();
    assert_eq!(slow.receive(), None);
    assert!(begun.elapsed() > Duration::from_millis(250));
    sleep(Duration::from_millis(400));
    assert!(silent.ask(&quick()).get("error").is_none(), "closed while there was room");
    // A lease may be silent for as long as it likes; a stranger may not, while more than half is in use.
    let mut strangers: Vec<Raw> = (0..4).map(|_| Raw::connect(&door.requester)).collect();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !strangers.iter_mut().any(|stranger| {
        stranger.0.set_nonblocking(true).unwrap();
        matches!(stranger.0.read(&mut [0]), Ok(0))
    }) {
        assert!(Instant::now() < deadline, "every stranger may stay");
        sleep(Duration::from_millis(10));
    }
    assert!(silent.ask(&quick()).get("error").is_none(), "a lease was closed");
}

#[test]
fn long_messages_of_one_user_do_not_stop_short_ones() {
    let door = Door::with(Bounds { message_time: Duration::from_secs(1), ..Bounds::default() });
    let piece = vec![b'x'; 150 << 10];
    let mut senders: Vec<Raw> = (0..20)
        .map(|_| {
            let sender = Raw::connect(&door.requester);
            sender.0.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
            sender
        })
        .collect();
    let begun = Instant::now();
    for sender in &mut senders {
        sender.0.write_all(&piece).unwrap();
    }
    assert!(Raw::connect(&door.requester).ask(&quick()).get("error").is_none());
    for sender in &mut senders {
        assert_eq!(sender.receive(), None);
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[test]
fn a_handler_that_panics_costs_its_own_connection_only() {
    let door = Door::open();
    let mut peer = Raw::connect(&door.requester);
    peer.send(&call("Requester.IsVolumeSupported", json!({"volume": "/not a number"})));
    let last = peer.receive();
    assert!(last.is_none_or(|last| last["parameters"]["name"] == "VSS_E_UNEXPECTED"));
    door.wait_for_end();
    assert!(Raw::connect(&door.requester).ask(&quick()).get("error").is_none());
}

/// Runs in a process of its own: the limit of open files is one for all threads.
#[test]
fn accept_survives_the_lack_of_file_descriptors() {
    const ALONE: &str = "VSS_TEST_ALONE";
    const NAME: &str = "accept_survives_the_lack_of_file_descriptors";
    if std::env::var_os(ALONE).is_none() {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env(ALONE, "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(200), maximum: limit.maximum }).unwrap();
    let door = Door::open();
    let mut before = Raw::connect(&door.requester);
    before.ask(&quick());
    let waiting = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None).unwrap();
    let mut fillers = Vec::new();
    while let Ok(filler) = File::open("/dev/null") {
        fillers.push(filler);
    }
    rustix::net::connect(&waiting, &rustix::net::SocketAddrUnix::new(&door.requester).unwrap()).unwrap();
    let mut waiting = Raw(UnixStream::from(waiting));
    waiting.send(&quick());
    sleep(Duration::from_millis(300));
    assert!(before.ask(&quick()).get("error").is_none(), "others are not served");
    drop(fillers);
    let begun = Instant::now();
    assert_eq!(waiting.receive(), Some(json!({"parameters": {"shadows": []}})));
    println!("accepted {:?} after there were file descriptors again", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn kept_calls_can_still_be_answered() {
    let door = Door::open();
    let mut peer = Raw::connect(&door.requester);
    peer.send(&unanswered());
    peer.send(&quick());
    door.wait_for_call();
    door.wait_for_call();
    door.handler.answer_kept();
    assert_eq!(peer.receive(), Some(json!({"parameters": {}})));
    assert_eq!(peer.receive(), Some(json!({"parameters": {"shadows": []}})));
}
