//! Calls and their answers, on real sockets.

mod support;

use serde_json::{Value, json};
use std::{process::Command, time::Instant};
use support::{Door, Raw, Seen, call, invalid, quick};
use vss_api::{client::Client, client::ClientError, management, requester};
use vss_model::{OperationId, VssCode};

fn wait(milliseconds: u64) -> (Value, Value) {
    let id = OperationId::random();
    (call("Requester.Wait", json!({"operation_id": id, "timeout_ms": milliseconds})), json!({"operation_id": id}))
}

#[test]
fn replies_leave_in_the_order_of_the_calls() {
    let door = Door::open();
    let mut peer = Raw::connect(&door.requester);
    let calls: Vec<(Value, Value)> = [1200, 0, 600, 0, 300].into_iter().map(wait).collect();
    let begun = Instant::now();
    for (call, _) in &calls {
        peer.send(call);
    }
    for (_, reply) in &calls {
        assert_eq!(peer.receive().unwrap()["parameters"], *reply);
    }
    assert!(begun.elapsed().as_millis() < 2000, "pipelined calls ran one after another: {:?}", begun.elapsed());
}

#[test]
fn hundreds_of_calls_may_be_sent_before_the_first_answer_is_read() {
    let door = Door::open();
    let mut peer = Raw::connect(&door.requester);
    let calls: Vec<(Value, Value)> = (0..200).map(|_| wait(1)).collect();
    for (call, _) in &calls {
        peer.send(call);
    }
    for (_, reply) in &calls {
        assert_eq!(peer.receive().unwrap()["parameters"], *reply);
    }
}

#[test]
fn mistakes_name_the_field_and_the_connection_goes_on() {
    let door = Door::open();
    let mut peer = Raw::connect(&door.requester);
    let wrong = [
        (call("Requester.DoSnapshotSet", json!({"strict": "yes"})), "strict"),
        (call("Requester.DoSnapshotSet", json!({"quick": true})), "quick"),
        (call("Requester.InitializeForBackup", json!({})), "requester"),
        (json!({"method": "org.linuxvss.Requester.InitializeForBackup"}), "requester"),
        (call("Requester.StartSnapshotSet", json!([])), "parameters"),
        (call("Requester.StartSnapshotSet", json!({"volume": "/"})), "volume"),
        (json!({"parameters": {}}), "method"),
        (json!({"method": "org.linuxvss.Management.ListShadows", "oneway": "no"}), "oneway"),
        (json!({"method": "org.linuxvss.Management.ListShadows", "upgrade": true}), "upgrade"),
    ];
    for (message, field) in wrong {
        assert_eq!(peer.ask(&message), invalid(field), "{message}");
    }
    for good in [
        quick(),
        json!({"method": "org.linuxvss.Management.ListShadows"}),
        json!({"method": "org.linuxvss.Management.ListShadows", "parameters": null}),
        json!({"method": "org.linuxvss.Management.ListShadows", "more": true, "unknown": 1}),
    ] {
        assert_eq!(peer.ask(&good), json!({"parameters": {"shadows": []}}), "{good}");
    }
}

#[test]
fn what_is_not_there_is_said_by_kind() {
    let door = Door::open();
    let mut peer = Raw::connect(&door.requester);
    let error = |name: &str, parameters: Value| json!({"error": format!("org.varlink.service.{name}"), "parameters": parameters});
    let method = "org.linuxvss.Requester.MakeCoffee";
    assert_eq!(peer.ask(&json!({"method": method})), error("MethodNotFound", json!({"method": method})));
    let interface = "org.linuxvss.Kitchen";
    assert_eq!(
        peer.ask(&json!({"method": "org.linuxvss.Kitchen.MakeCoffee"})),
        error("InterfaceNotFound", json!({"interface": interface}))
    );
    assert_eq!(
        peer.ask(&json!({"method": "org.linuxvss.Writer.Register"})),
        error("InterfaceNotFound", json!({"interface": "org.linuxvss.Writer"}))
    );
    let mut writer = Raw::connect(&door.writer);
    let freeze = "org.linuxvss.Writer.Freeze";
    assert_eq!(writer.ask(&json!({"method": freeze})), error("MethodNotImplemented", json!({"method": freeze})));
    let register = json!({"method": "org.linuxvss.Writer.Register", "parameters": {
        "class_id": "b5946137-7b9f-4925-af80-51abd60b20d5", "name": "x"}});
    assert_eq!(writer.ask(&register)["error"], "org.varlink.service.ExpectedUpgrade");
}

#[test]
fn garbage_is_answered_and_ends_the_connection() {
    let door = Door::open();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n\0"[..], b"\0", b"[1,2]\0", b"{\"method\":\0", b"\xff\xfe\0"] {
        let mut peer = Raw::connect(&door.requester);
        std::io::Write::write_all(&mut peer.0, garbage).unwrap();
        assert_eq!(peer.receive().unwrap(), invalid("message"));
        assert_eq!(peer.receive(), None);
    }
}

#[test]
fn oneway_calls_are_done_and_not_answered() {
    let door = Door::open();
    let mut peer = Raw::connect(&door.requester);
    for _ in 0..100 {
        peer.send(&json!({"method": "org.linuxvss.Management.GetStatus", "oneway": true}));
    }
    peer.send(&json!({"method": "org.linuxvss.Management.Nothing", "oneway": true}));
    assert_eq!(peer.ask(&quick()), json!({"parameters": {"shadows": []}}));
    let calls = door.seen.try_iter().filter(|seen| matches!(seen, Seen::Call(_))).count();
    assert_eq!(calls, 101);
}

#[test]
fn the_service_describes_itself() {
    let door = Door::open();
    let mut peer = Raw::connect(&door.requester);
    let info = peer.ask(&json!({"method": "org.varlink.service.GetInfo", "parameters": {}}));
    assert_eq!(
        info["parameters"],
        json!({
            "vendor": "VSS for Linux", "product": "vssd", "version": env!("CARGO_PKG_VERSION"),
            "url": "https://linuxvss.org",
            "interfaces": ["org.linuxvss.Management", "org.linuxvss.Requester", "org.varlink.service"],
        })
    );
    let describe = |interface: &str| json!({"method": "org.varlink.service.GetInterfaceDescription", "parameters": {"interface": interface}});
    for interface in ["org.linuxvss.Management", "org.linuxvss.Requester", "org.varlink.service"] {
        let description = peer.ask(&describe(interface));
        let text = description["parameters"]["description"].as_str().unwrap();
        assert!(text.contains(&format!("interface {interface}\n")), "{text}");
    }
    assert_eq!(peer.ask(&describe("org.linuxvss.Writer"))["error"], "org.varlink.service.InterfaceNotFound");
    assert_eq!(peer.ask(&json!({"method": "org.varlink.service.GetInterfaceDescription"})), invalid("interface"));
    assert_eq!(peer.ask(&json!({"method": "org.varlink.service.Stop"}))["error"], "org.varlink.service.MethodNotFound");
}

#[test]
fn the_blocking_client_reads_results_and_errors() {
    let door = Door::open();
    let mut client = Client::connect(&door.requester).unwrap();
    let shadows: management::Shadows = client.call_management(&management::Call::ListShadows).unwrap();
    assert!(shadows.shadows.is_empty());
    let refused = client.call_management::<management::Limits>(&management::Call::GetLimits).unwrap_err();
    let error = refused.vss().unwrap();
    assert_eq!((error.code, error.message.as_str(), error.hint.as_str()), (VssCode::AccessDenied, "No", "Ask root"));
    let given_up = client.call_requester::<vss_api::Empty>(&requester::Call::AbortBackup).unwrap_err();
    assert_eq!(given_up.vss().unwrap().code, VssCode::Unexpected);
    let unknown = client.call::<vss_api::Empty>("org.linuxvss.Requester.Nothing", &vss_api::Empty {}).unwrap_err();
    assert!(matches!(unknown, ClientError::Varlink { name, .. } if name == "org.varlink.service.MethodNotFound"));
    // An answer that is longer than a message: said, not sent.
    let question = |bytes: usize| {
        requester::Call::IsVolumeSupported(requester::VolumeQuestion {
            volume: format!("/{bytes}").into(),
            provider: None,
        })
    };
    let long: requester::VolumeSupport = client.call_requester(&question(3 << 20)).unwrap();
    assert_eq!(long.reason.len(), 3 << 20);
    let too_long = client.call_requester::<requester::VolumeSupport>(&question(5 << 20)).unwrap_err();
    assert_eq!(too_long.vss().unwrap().code, VssCode::Unexpected);
    client.set_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
    let late = client
        .call_requester::<vss_api::Empty>(&requester::Call::StartSnapshotSet(vss_model::CreationOptions::default()))
        .unwrap_err();
    assert!(matches!(late, ClientError::Io(error) if error.kind() == std::io::ErrorKind::TimedOut));
    assert!(matches!(
        client.call_management::<management::Shadows>(&management::Call::ListShadows),
        Err(ClientError::Protocol(_))
    ));
}

#[test]
fn the_peer_is_who_it_is() {
    let door = Door::open();
    let _client = Client::connect(&door.requester).unwrap();
    let Ok(Seen::Connected(peer)) = door.seen.recv_timeout(std::time::Duration::from_secs(30)) else { panic!() };
    assert_eq!((peer.uid, peer.pid), (rustix::process::getuid().as_raw(), std::process::id()));
    assert!(peer.is_member_of(rustix::process::getgid().as_raw()));
}

#[test]
fn a_peer_in_many_groups_is_known_with_all_of_them() {
    if !rustix::process::getuid().is_root() {
        println!("SKIPPED: a_peer_in_many_groups_is_known_with_all_of_them: needs root");
        return;
    }
    let door = Door::open();
    let script = "import os, socket, sys\nos.setgroups(range(3000, 3500))\ns = socket.socket(socket.AF_UNIX)\n\
                  s.connect(sys.argv[1])\nsys.stdin.read()";
    let mut child = Command::new("python3")
        .args(["-c", script])
        .arg(&door.requester)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let Ok(Seen::Connected(peer)) = door.seen.recv_timeout(std::time::Duration::from_secs(30)) else { panic!() };
    assert_eq!(peer.groups, (3000..3500).collect::<Vec<u32>>());
    assert!(peer.pidfd.is_some() && peer.pid == child.id());
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn thirty_lines_of_python_are_a_client() {
    let door = Door::open();
    let script = r#"
import json, socket, sys
service = socket.socket(socket.AF_UNIX)
service.connect(sys.argv[1])
service.sendall(json.dumps({"method": "org.linuxvss.Management.ListShadows", "parameters": {}}).encode() + b"\0")
reply = b""
while not reply.endswith(b"\0"):
    reply += service.recv(4096)
print(json.loads(reply[:-1])["parameters"]["shadows"])
"#;
    let Ok(output) = Command::new("python3").args(["-c", script]).arg(&door.requester).output() else {
        println!("SKIPPED: thirty_lines_of_python_are_a_client: there is no python3");
        return;
    };
    assert_eq!(String::from_utf8_lossy(&output.stdout), "[]\n", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_small_call_is_answered_quickly() {
    let door = Door::open();
    let mut client = Client::connect(&door.requester).unwrap();
    let mut times: Vec<_> = (0..2000)
        .map(|_| {
            let begun = Instant::now();
            let _: management::Shadows = client.call_management(&management::Call::ListShadows).unwrap();
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("round trip of a small call: p50 {:?}, p99 {:?}", times[1000], times[1980]);
    assert!(times[1000].as_millis() < 50);
}
