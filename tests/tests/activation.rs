//! vssd under a service manager: sockets made by somebody else (sd_listen_fds(3)) and readiness told (sd_notify(3)).
//!
//! `systemd-socket-activate` stands in for systemd, which makes the same two sockets and starts vssd with the first
//! connection.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vss_api::client::Client;
use vss_api::management::{Call, Status};
use vss_tests::programs::program;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn the_first_connection_starts_the_service_and_it_says_when_it_is_ready() {
    let directory = TempDir::new().unwrap();
    let runtime = directory.path().join("run");
    std::fs::create_dir(&runtime).unwrap();
    let notify = directory.path().join("notify");
    let told = UnixDatagram::bind(&notify).unwrap();
    told.set_read_timeout(Some(LIMIT)).unwrap();
    let (requester, writer) = (runtime.join("requester"), runtime.join("writer"));
    let activator = Command::new("systemd-socket-activate")
        .arg("--listen")
        .arg(&requester)
        .arg("--listen")
        .arg(&writer)
        .arg("--fdname=requester:writer")
        .arg(format!("--setenv=NOTIFY_SOCKET={}", notify.display()))
        .arg(program("vssd"))
        .arg("--runtime-dir")
        .arg(&runtime)
        .arg("--state-dir")
        .arg(directory.path().join("state"))
        .stderr(Stdio::null())
        .spawn();
    let mut activator = match activator {
        Ok(activator) => activator,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("SKIPPED: activation: systemd-socket-activate is not installed");
            return;
        }
        Err(error) => panic!("{error}"),
    };

    let deadline = Instant::now() + LIMIT;
    let mut client = loop {
        match Client::connect(&requester) {
            Ok(client) => break client,
            Err(error) => assert!(Instant::now() < deadline, "the socket is not there: {error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    // The connection that started the service is served by it.
    let status: Status = client.call_management(&Call::GetStatus).unwrap();
    assert_eq!(status.pid, activator.id(), "the activator becomes vssd");
    let mut message = [0; 256];
    let length = told.recv(&mut message).unwrap();
    assert_eq!(std::str::from_utf8(&message[..length]).unwrap().trim(), "READY=1");

    let pid = rustix::process::Pid::from_child(&activator);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(activator.wait().unwrap().success(), "SIGTERM is a regular end");
    assert!(requester.exists(), "the sockets are the service manager's; they stay");
}
