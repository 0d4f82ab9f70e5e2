//! A peer that sends a gigabyte: alone in its process, because memory is counted.

mod support;

use std::{
    io::Write,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};
use support::{Door, Raw, quick};

/// Most memory that this process ever had: `VmHWM`, proc_pid_status(5).
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn a_gigabyte_is_not_kept() {
    let door = Door::open();
    let mut other = Raw::connect(&door.requester);
    other.ask(&quick());
    let before = peak_bytes();
    let path = door.requester.clone();
    let sender = std::thread::spawn(move || {
        let piece = vec![b'x'; 1 << 20];
        let (mut sent, mut connections) = (0_u64, 0);
        while sent < 1 << 30 {
            connections += 1;
            let mut peer = UnixStream::connect(&path).unwrap();
            while peer.write_all(&piece).is_ok() {
                sent += piece.len() as u64;
            }
            sent += piece.len() as u64;
        }
        connections
    });
    let mut times = Vec::new();
    while !sender.is_finished() {
        let begun = Instant::now();
        assert!(other.ask(&quick()).get("error").is_none());
        times.push(begun.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    }
    let grown = peak_bytes() - before;
    let connections = sender.join().unwrap();
    times.sort_unstable();
    let (middle, longest) = (times[times.len() / 2], times[times.len() - 1]);
    println!("1 GiB over {connections} connections: {grown} bytes more; another peer waited at most {longest:?}");
    assert!(grown < 64 << 20, "{grown}");
    assert!(middle < Duration::from_millis(100) && longest < Duration::from_secs(3), "{middle:?}, {longest:?}");
}
