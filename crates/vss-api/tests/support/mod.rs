//! A service for the tests: a real socket, the real loop, and a handler that does what the call says.
#![allow(dead_code, unreachable_pub)]

use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use vss_api::{
    management, requester,
    server::{Bounds, Call, ConnectionId, Face, Handler, Peer, Replier, WriterLine, WriterReplier, serve},
    writer,
};
use vss_model::{SessionId, VssCode, VssError, WriterInstanceId};

/// What happened at the door.
#[derive(Debug)]
pub enum Seen {
    Connected(Peer),
    Call(Call),
    Disconnected(Instant),
}

pub struct Door {
    pub requester: PathBuf,
    pub writer: PathBuf,
    pub seen: Receiver<Seen>,
    pub lines: Receiver<WriterLine>,
    pub handler: Arc<TestHandler>,
    shutdown: CancellationToken,
    runtime: Option<tokio::runtime::Runtime>,
    _directory: tempfile::TempDir,
}

pub struct TestHandler {
    seen: Mutex<Sender<Seen>>,
    lines: Mutex<Sender<WriterLine>>,
    /// Repliers of the calls that are never answered.
    kept: Mutex<Vec<Replier>>,
    /// Those of writers that are neither let in nor refused.
    kept_writers: Mutex<Vec<WriterReplier>>,
    runtime: tokio::runtime::Handle,
}

impl TestHandler {
    fn see(&self, seen: Seen) {
        let _ = self.seen.lock().unwrap().send(seen);
    }

    pub fn answer_kept(&self) {
        for replier in self.kept.lock().unwrap().drain(..) {
            replier.ok(&vss_api::Empty {});
        }
    }
}

impl Handler for TestHandler {
    fn connected(&self, _connection: ConnectionId, _face: Face, peer: Peer) -> Result<(), VssError> {
        self.see(Seen::Connected(peer));
        Ok(())
    }

    fn call(&self, _connection: ConnectionId, call: Call, replier: Replier) {
        match &call {
            // Answered after a while.
            Call::Requester(requester::Call::Wait(wait)) => {
                let wait = *wait;
                self.runtime.spawn(async move {
                    tokio::time::sleep(Duration::from_millis(wait.timeout_ms)).await;
                    replier.ok(&requester::OperationStarted { operation_id: wait.operation_id });
                });
            }
            // Never answered.
            Call::Requester(requester::Call::StartSnapshotSet(_)) => self.kept.lock().unwrap().push(replier),
            // Given up.
            Call::Requester(requester::Call::AbortBackup) => drop(replier),
            // As long an answer as the path says.
            Call::Requester(requester::Call::IsVolumeSupported(question)) => {
                let bytes = question.volume.to_str().unwrap().trim_start_matches('/').parse().unwrap();
                replier.ok(&requester::VolumeSupport { supported: false, provider: None, reason: "x".repeat(bytes) });
            }
            // As many answers as `after` says, and a last one that says how many.
            Call::Management(management::Call::ListEvents(question)) if replier.wants_more() => {
                let count = question.after.unwrap_or(0);
                let stream = replier.stream().unwrap();
                self.runtime.spawn(async move {
                    let list = |lost| management::EventList { events: Vec::new(), lost };
                    for number in 1..=count {
                        if stream.send(&list(number)).await.is_err() {
                            return;
                        }
                    }
                    stream.last(&list(count + 1)).await;
                });
            }
            Call::Management(management::Call::GetLimits) => {
                replier.error(&VssError::new(VssCode::AccessDenied, "No").with_hint("Ask root"));
            }
            Call::Management(management::Call::ListShadows) => replier.ok(&management::Shadows { shadows: Vec::new() }),
            Call::Requester(requester::Call::InitializeForBackup(_)) => {
                replier.ok(&requester::SessionOpened { session_id: SessionId::random() });
            }
            _ => replier.ok(&vss_api::Empty {}),
        }
        self.see(Seen::Call(call));
    }

    fn register(&self, _connection: ConnectionId, register: writer::Register, replier: WriterReplier) {
        if register.name == "refused" {
            replier.refuse(VssError::new(VssCode::WriterAlreadySubscribed, "There is one"));
            return;
        }
        if register.name == "kept waiting" {
            self.kept_writers.lock().unwrap().push(replier);
            return;
        }
        let line = replier
            .accept(&writer::Registered { instance_id: WriterInstanceId::random(), service: "test 1".to_owned() });
        let _ = self.lines.lock().unwrap().send(line);
    }

    fn disconnected(&self, _connection: ConnectionId) {
        self.see(Seen::Disconnected(Instant::now()));
    }
}

impl Door {
    pub fn open() -> Self {
        Self::with(Bounds::default())
    }

    pub fn with(bounds: Bounds) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (seen_to, seen) = channel();
        let (lines_to, lines) = channel();
        let handler = Arc::new(TestHandler {
            seen: Mutex::new(seen_to),
            lines: Mutex::new(lines_to),
            kept: Mutex::default(),
            kept_writers: Mutex::default(),
            runtime: runtime.handle().clone(),
        });
        let shutdown = CancellationToken::new();
        let sockets = [("requester", Face::Requester), ("writer", Face::Writer)].map(|(name, face)| {
            let path = directory.path().join(name);
            let _entered = runtime.enter();
            let listener = tokio::net::UnixListener::bind(&path).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
            runtime.spawn(serve(listener, face, handler.clone(), bounds, shutdown.clone()));
            path
        });
        let [requester, writer] = sockets;
        Self { requester, writer, seen, lines, handler, shutdown, runtime: Some(runtime), _directory: directory }
    }

    pub fn runtime(&self) -> &tokio::runtime::Runtime {
        self.runtime.as_ref().unwrap()
    }

    pub fn shut(&self) {
        self.shutdown.cancel();
    }

    /// When the next connection ended, and everything else that was seen until then.
    pub fn wait_for_end(&self) -> Instant {
        loop {
            match self.seen.recv_timeout(Duration::from_secs(30)).expect("no connection ended in 30 s") {
                Seen::Disconnected(at) => return at,
                _ => continue,
            }
        }
    }

    pub fn wait_for_call(&self) -> Call {
        loop {
            match self.seen.recv_timeout(Duration::from_secs(30)).expect("no call came in 30 s") {
                Seen::Call(call) => return call,
                _ => continue,
            }
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(2));
        }
    }
}

/// A peer that sends and reads bytes as it likes.
pub struct Raw(pub UnixStream);

impl Raw {
    pub fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self(stream)
    }

    pub fn send(&mut self, message: &Value) {
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.0.write_all(&bytes).unwrap();
    }

    /// The next message; none at the end.
    pub fn receive(&mut self) -> Option<Value> {
        let mut message = Vec::new();
        let mut byte = [0];
        loop {
            match self.0.read(&mut byte) {
                Ok(0) => return None,
                Ok(_) if byte[0] == 0 => return Some(serde_json::from_slice(&message).unwrap()),
                Ok(_) => message.push(byte[0]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no message: {error}"),
            }
        }
    }

    pub fn ask(&mut self, message: &Value) -> Value {
        self.send(message);
        self.receive().expect("the service closed the connection")
    }
}

pub fn call(method: &str, parameters: Value) -> Value {
    json!({"method": format!("org.linuxvss.{method}"), "parameters": parameters})
}

/// A call that is answered at once.
pub fn quick() -> Value {
    call("Management.ListShadows", json!({}))
}

/// A call that is never answered.
pub fn unanswered() -> Value {
    call("Requester.StartSnapshotSet", json!({}))
}

pub fn invalid(parameter: &str) -> Value {
    json!({"error": "org.varlink.service.InvalidParameter", "parameters": {"parameter": parameter}})
}
