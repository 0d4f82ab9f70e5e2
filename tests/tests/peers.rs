//! Peers that nobody would invite: one that never reads, one that sends 1 GiB, 10,000 connections, users without the right.
//! Meanwhile others are served, and a set is made. And a peer that has nothing but Python's standard library.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use vss_requester::Management;
use vss_tests::instance::{Instance, wait_until};
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::turn::creation_turn;
use vss_tests::volume::Volume;

/// Whoever asks is answered within this time, whatever others do: most of the time...
const SERVED: Duration = Duration::from_secs(1);
/// ...and always. A peer that does not read is dropped after 5 s (`vss-api`): a service that waited for it would take longer.
const SERVED_AT_LAST: Duration = Duration::from_secs(4);
/// What has to happen happens within this time.
const LIMIT: Duration = Duration::from_secs(30);
/// The service needs less memory than this, whatever it is sent. In KiB.
const MEMORY_KIB: u64 = 256 << 10;
/// Connections that one peer tries to have.
const CONNECTIONS: usize = 10_000;
/// More connections than one command needs.
const ROOM: usize = 8;
/// A user who may do nothing.
const NOBODY: u32 = 65534;

/// A running instance and a volume.
struct Scene {
    instance: Instance,
    volume: Volume,
}

impl Scene {
    fn new(settings: &str) -> anyhow::Result<Self> {
        let volume = Volume::new()?;
        volume.write("file", "old")?;
        let mut instance = Instance::new()?;
        instance.settings(settings)?;
        instance.start()?;
        Ok(Self { instance, volume })
    }

    /// While a peer does `mischief`, asks for the status and the shadow copies over and over on a connection of old and,
    /// unless `is_full`, on new ones, and makes and deletes a set. Says how long the slowest answer took.
    fn serves_others<T: Send>(
        &self,
        is_full: bool,
        mischief: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        let mut old = self.instance.management()?;
        let turn = creation_turn();
        let (is_over, is_served) = (AtomicBool::new(false), AtomicBool::new(false));
        let result = thread::scope(|scope| {
            let mischief = scope.spawn(|| {
                let result = mischief();
                is_over.store(true, Ordering::Relaxed);
                result
            });
            let asking = scope.spawn(|| -> anyhow::Result<Vec<Duration>> {
                let mut rounds = Vec::new();
                while !is_over.load(Ordering::Relaxed) || !is_served.load(Ordering::Relaxed) {
                    let asked = Instant::now();
                    if is_full {
                        ask(&mut old)?;
                    } else {
                        ask(&mut old).and_then(|()| ask(&mut self.instance.management()?))?;
                    }
                    rounds.push(asked.elapsed());
                    thread::sleep(Duration::from_millis(5));
                }
                rounds.sort();
                Ok(rounds)
            });
            let making = scope.spawn(|| -> anyhow::Result<()> {
                let began = Instant::now();
                let made = if is_full { Ok(()) } else { self.makes_a_set() };
                is_served.store(true, Ordering::Relaxed);
                if !is_full {
                    println!("a set made and deleted in {:?}", began.elapsed());
                }
                made
            });
            let panicked = |_| anyhow::anyhow!("a thread panicked");
            let rounds = asking.join().map_err(panicked)??;
            making.join().map_err(panicked)??;
            let (middle, longest) = (rounds[rounds.len() / 2], *rounds.last().context("a round")?);
            println!("{} rounds of questions, {middle:?}, the slowest {longest:?}", rounds.len());
            ensure!(middle < SERVED && longest < SERVED_AT_LAST, "answers took {middle:?} and {longest:?}");
            mischief.join().map_err(panicked)?
        });
        drop(turn);
        result
    }

    fn makes_a_set(&self) -> anyhow::Result<()> {
        for words in [&["run", "--volume", self.volume.name(), "--", "true"][..], &["list", "shadows"]] {
            let outcome = self.instance.vss(words)?;
            ensure!(outcome.is_success(), "{words:?}: {outcome:?}");
        }
        Ok(())
    }

    /// All is as before: the service has let everybody go, used little memory, and can be ended.
    fn ends_well(mut self) -> anyhow::Result<()> {
        let turn = creation_turn();
        // The places of peers that are gone are free again, one after the other.
        let has_room = || (0..ROOM).map(|_| self.instance.management()).collect::<Result<Vec<_>, _>>().is_ok();
        ensure!(wait_until(LIMIT, has_room), "the places of those who are gone are not free");
        self.makes_a_set()?;
        drop(turn);
        let pid = self.instance.service_pid().context("the service has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let peak =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        let peak: u64 = peak.context("no VmHWM")?;
        println!("peak memory {} MiB", peak >> 10);
        ensure!(peak < MEMORY_KIB, "the service needed {peak} KiB");
        self.volume.is_clean()?;
        self.instance.stop()
    }
}

fn ask(management: &mut Management) -> anyhow::Result<()> {
    management.status()?;
    management.shadows()?;
    Ok(())
}

/// One message, with its NUL.
fn message(method: &str, parameters: &Value) -> Vec<u8> {
    let mut message = json!({"method": method, "parameters": parameters}).to_string().into_bytes();
    message.push(0);
    message
}

/// The next message of the peer; none when the connection has ended.
fn receive(reader: &mut impl BufRead) -> anyhow::Result<Option<Value>> {
    let mut bytes = Vec::new();
    match reader.read_until(0, &mut bytes) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
        result => result?,
    };
    match bytes.pop() {
        None => Ok(None),
        Some(0) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Some(_) => bail!("the connection ended in the middle of a message"),
    }
}

#[test]
fn a_peer_that_never_reads() -> anyhow::Result<()> {
    if LoopFs::skips("a_peer_that_never_reads", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new("")?;
    let dropped = scene.serves_others(false, || {
        let began = Instant::now();
        let mut peer = UnixStream::connect(scene.instance.requester_socket())?;
        // A reader would have taken a byte in time.
        peer.set_write_timeout(Some(Duration::from_secs(20)))?;
        let question = message("org.linuxvss.Management.ListVolumes", &json!({}));
        loop {
            match peer.write_all(&question) {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => break,
                Err(error) => bail!("it is not dropped: {error} after {:?}", began.elapsed()),
            }
        }
        Ok(began.elapsed())
    })?;
    println!("dropped after {dropped:?}");
    ensure!(dropped < LIMIT, "dropped only after {dropped:?}");
    scene.ends_well()
}

/// Sends `most` bytes made of `part`; returns how many got through before the peer hung up.
fn send(socket: &Path, part: &[u8], most: usize) -> anyhow::Result<(usize, Option<Value>)> {
    let mut peer = UnixStream::connect(socket)?;
    peer.set_write_timeout(Some(Duration::from_secs(20)))?;
    peer.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut sent = 0;
    while sent < most {
        match peer.write(part) {
            Ok(count) => sent += count,
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => break,
            Err(error) => return Err(error).with_context(|| format!("after {sent} bytes")),
        }
    }
    let answer = receive(&mut BufReader::new(peer))?;
    Ok((sent, answer))
}

#[test]
fn a_peer_that_sends_1_gib() -> anyhow::Result<()> {
    if LoopFs::skips("a_peer_that_sends_1_gib", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new("")?;
    let part = vec![b'x'; 1 << 20];
    for socket in [scene.instance.requester_socket(), scene.instance.writer_socket()] {
        let (sent, answer) = scene.serves_others(false, || send(&socket, &part, 1 << 30))?;
        println!("hung up after {} MiB of one message: {}", sent >> 20, answer.clone().unwrap_or_default());
        ensure!(sent < 8 << 20, "{sent} bytes of one message were taken");
        let error = answer.context("no answer")?;
        ensure!(error["error"] == "org.varlink.service.InvalidParameter", "{error}");
    }
    // The longest message that may be sent is answered.
    let longest = message(&"m".repeat((4 << 20) - 100), &json!({}));
    let (_, answer) =
        scene.serves_others(false, || send(&scene.instance.requester_socket(), &longest, longest.len()))?;
    ensure!(answer.context("no answer")?["error"] == "org.varlink.service.InterfaceNotFound", "4 MiB are refused");
    let longer = message(&"m".repeat(4 << 20), &json!({}));
    let (_, answer) = send(&scene.instance.requester_socket(), &longer, longer.len())?;
    ensure!(
        answer.context("no answer")?["error"] == "org.varlink.service.InvalidParameter",
        "more than 4 MiB are taken"
    );

    // 1 GiB in messages that are refused one by one, and whose answers are read.
    let refused = message("org.linuxvss.Nothing.AtAll", &json!({"filler": "x".repeat(1 << 20)}));
    let answers = scene.serves_others(false, || {
        let mut peer = UnixStream::connect(scene.instance.requester_socket())?;
        let mut reader = BufReader::new(peer.try_clone()?);
        let mut answers = 0;
        for _ in 0..1024 {
            peer.write_all(&refused)?;
            answers += usize::from(receive(&mut reader)?.is_some_and(|answer| answer["error"].is_string()));
        }
        Ok(answers)
    })?;
    ensure!(answers == 1024, "{answers} answers to 1024 messages");
    scene.ends_well()
}

/// Raises the number of files that this process may open; false when it cannot be so many.
fn may_open(files: u64) -> anyhow::Result<bool> {
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|maximum| maximum < files) {
        return Ok(false);
    }
    if limit.current.is_some_and(|current| current < files) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum: limit.maximum })?;
    }
    Ok(true)
}

#[test]
fn ten_thousand_connections_of_a_user() -> anyhow::Result<()> {
    let test = "ten_thousand_connections_of_a_user";
    if LoopFs::skips(test, &[Kind::Btrfs]) {
        return Ok(());
    }
    if !may_open(CONNECTIONS as u64 + 2000)? {
        println!("SKIPPED: {test}: so many files cannot be opened");
        return Ok(());
    }
    let scene = Scene::new(&format!("[requesters]\nuids = [{NOBODY}]"))?;
    let script = "\
import os, socket, sys, time
os.setgid(65534); os.setuid(65534)
peers, refused = [], 0
for _ in range(int(sys.argv[2])):
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(sys.argv[1])
    peers.append(peer)
end = time.monotonic() + 60
while refused < len(peers) - 128 and time.monotonic() < end:
    for peer in peers:
        try:
            refused += b'E_OUTOFMEMORY' in peer.recv(4096, socket.MSG_DONTWAIT)
        except (BlockingIOError, ConnectionResetError):
            pass
print(refused, flush=True)
sys.stdin.read()
";
    let spawned = Command::new("python3")
        .args(["-c", script])
        .arg(scene.instance.requester_socket())
        .arg(CONNECTIONS.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut python) = spawned.map(Killed) else {
        println!("SKIPPED: {test}: needs python3");
        return Ok(());
    };
    let refused = scene.serves_others(false, || {
        let mut line = String::new();
        BufReader::new(python.0.stdout.take().context("it was asked for")?).read_line(&mut line)?;
        // All that were let in are open still.
        thread::sleep(Duration::from_secs(2));
        Ok(line.trim().parse::<usize>()?)
    })?;
    println!("{refused} of {CONNECTIONS} refused");
    ensure!(refused >= CONNECTIONS - 128, "{refused} refused");
    drop(python);
    scene.ends_well()
}

/// A process that is killed at the end of its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Fails when it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn ten_thousand_connections_of_root() -> anyhow::Result<()> {
    let test = "ten_thousand_connections_of_root";
    if LoopFs::skips(test, &[Kind::Btrfs]) {
        return Ok(());
    }
    if !may_open(CONNECTIONS as u64 + 2000)? {
        println!("SKIPPED: {test}: so many files cannot be opened");
        return Ok(());
    }
    let scene = Scene::new("")?;
    for socket in [scene.instance.writer_socket(), scene.instance.requester_socket()] {
        let is_full = socket == scene.instance.requester_socket();
        let peers = scene.serves_others(is_full, || {
            let peers = (0..CONNECTIONS).map(|_| UnixStream::connect(&socket)).collect::<std::io::Result<Vec<_>>>()?;
            thread::sleep(Duration::from_secs(2));
            Ok(peers)
        })?;
        if is_full {
            // The last place, which the questions had; who has one keeps it, and is served.
            let mut last = None;
            let has_a_place = || {
                last = Management::connect(&scene.instance.directories()).ok();
                last.is_some()
            };
            ensure!(wait_until(LIMIT, has_a_place), "a place that was given back is not free");
            let began = Instant::now();
            let refused = scene.instance.vss(["list", "shadows"])?;
            ensure!(refused.code == Some(1) && refused.stderr.contains("E_OUTOFMEMORY"), "{refused:?}");
            println!("{}", refused.stderr.trim_end());
            // Whoever has said nothing for 30 s has to make room.
            let is_let_in = || scene.instance.vss(["list", "shadows"]).is_ok_and(|listed| listed.is_success());
            ensure!(wait_until(2 * LIMIT, is_let_in), "nobody is let in any more");
            println!("let in {:?} later", began.elapsed());
            ask(&mut last.context("a connection")?)?;
        }
        drop(peers);
    }
    scene.ends_well()
}

/// Speaks to a socket as another user, with Python's standard library: prints each answer to the messages that it is
/// given, and stays connected until its input ends.
const PYTHON_PEER: &str = "\
import json, os, socket, sys
path, uid, *calls = sys.argv[1:]
os.setgroups([]); os.setgid(int(uid)); os.setuid(int(uid))
line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
line.settimeout(20)
line.connect(path)
stream = line.makefile('rb')
for call in calls:
    try:
        line.sendall(call.encode() + b'\\0')
    except (BrokenPipeError, ConnectionResetError):
        pass  # it may have said why before
    answer = b''.join(iter(lambda: stream.read(1) or b'\\0', b'\\0'))
    print(json.dumps(json.loads(answer or b'null')), flush=True)
sys.stdin.read()
";

/// A connected Python peer.
struct PythonPeer {
    process: Killed,
    answers: Vec<Value>,
}

impl PythonPeer {
    /// Asks as user `uid`; none where there is no Python.
    fn ask(socket: &Path, uid: u32, calls: &[Value]) -> anyhow::Result<Option<Self>> {
        let mut command = Command::new("python3");
        command.args(["-c", PYTHON_PEER]).arg(socket).arg(uid.to_string()).args(calls.iter().map(Value::to_string));
        let Ok(mut process) = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map(Killed) else {
            return Ok(None);
        };
        let mut lines = BufReader::new(process.0.stdout.take().context("it was asked for")?).lines();
        let mut answers = Vec::new();
        for call in calls {
            let line = lines.next().with_context(|| format!("no answer to {call}"))??;
            answers.push(serde_json::from_str(&line)?);
        }
        Ok(Some(Self { process, answers }))
    }

    /// The code of the error that the first call was answered with.
    fn error(&self) -> Option<&str> {
        self.answers[0]["parameters"]["name"].as_str()
    }

    /// Closes the connection.
    fn leave(mut self) -> anyhow::Result<()> {
        drop(self.process.0.stdin.take());
        self.process.0.wait()?;
        Ok(())
    }
}

fn register(class_id: &str, instance_name: &str) -> Value {
    let parameters = json!({"class_id": class_id, "name": "by-python", "instance_name": instance_name});
    json!({"method": "org.linuxvss.Writer.Register", "upgrade": true, "parameters": parameters})
}

#[test]
fn users_without_the_right() -> anyhow::Result<()> {
    let test = "users_without_the_right";
    if LoopFs::skips(test, &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new("")?;
    let (requester, writer) = (scene.instance.requester_socket(), scene.instance.writer_socket());
    let list = json!({"method": "org.linuxvss.Management.ListShadows"});
    let Some(peer) = PythonPeer::ask(&requester, NOBODY, slice::from_ref(&list))? else {
        println!("SKIPPED: {test}: needs python3");
        return Ok(());
    };
    ensure!(peer.error() == Some("E_ACCESSDENIED"), "{:?}", peer.answers);
    println!("{}", peer.answers[0]);
    let ask = |socket: &Path, uid, call: &Value| -> anyhow::Result<PythonPeer> {
        PythonPeer::ask(socket, uid, slice::from_ref(call))?.context("python3 is gone")
    };
    // A system account may register a writer, and no more.
    ensure!(ask(&requester, 1, &list)?.error() == Some("E_ACCESSDENIED"), "uid 1 may ask");
    let class_id = "6f1c3f6e-3c7b-4c0a-9d3e-2f6a1b5c7d90";
    ensure!(ask(&writer, NOBODY, &register(class_id, ""))?.error() == Some("E_ACCESSDENIED"), "uid 65534 may register");
    let first = ask(&writer, 1, &register(class_id, ""))?;
    ensure!(first.answers[0]["parameters"]["instance_id"].is_string(), "{:?}", first.answers);
    // The class is its now: another user's is refused, its own second instance is not, except under the same name.
    let stranger = || ask(&writer, 2, &register(class_id, "second"));
    ensure!(stranger()?.error() == Some("E_ACCESSDENIED"), "{:?}", stranger()?.answers);
    println!("{}", stranger()?.answers[0]);
    let twin = ask(&writer, 1, &register(class_id, ""))?;
    ensure!(twin.error() == Some("VSS_E_WRITER_ALREADY_SUBSCRIBED"), "{:?}", twin.answers);
    let second = ask(&writer, 1, &register(class_id, "second"))?;
    ensure!(second.error().is_none(), "{:?}", second.answers);
    ensure!(scene.instance.management()?.writers()?.len() == 2, "{:?}", scene.instance.management()?.writers());
    for peer in [first, second] {
        peer.leave()?;
    }
    let mut management = scene.instance.management()?;
    let is_empty = || management.writers().is_ok_and(|writers| writers.is_empty());
    ensure!(wait_until(LIMIT, is_empty), "they stay registered");
    // Also when it is gone, and after a restart.
    ensure!(stranger()?.error() == Some("E_ACCESSDENIED"), "{:?}", stranger()?.answers);
    let Scene { mut instance, volume: _volume } = scene;
    instance.stop()?;
    instance.start()?;
    let stranger = ask(&writer, 2, &register(class_id, "second"))?;
    ensure!(stranger.error() == Some("E_ACCESSDENIED"), "{:?}", stranger.answers);
    // What they may do is the administrator's to say.
    instance.settings(&format!(
        "uids = [{NOBODY}]\n[writers.classes]\n\"{class_id}\" = {NOBODY}\n[requesters]\nuids = [{NOBODY}]"
    ))?;
    instance.stop()?;
    instance.start()?;
    ensure!(ask(&writer, 1, &register(class_id, ""))?.error() == Some("E_ACCESSDENIED"), "vss.toml says another uid");
    ensure!(ask(&writer, NOBODY, &register(class_id, ""))?.error().is_none(), "vss.toml names this uid");
    let listed = ask(&requester, NOBODY, &list)?;
    ensure!(listed.answers[0]["parameters"] == json!({"shadows": []}), "{:?}", listed.answers);
    instance.stop()
}

#[test]
fn a_user_sees_and_deletes_no_copy_but_its_own() -> anyhow::Result<()> {
    let test = "a_user_sees_and_deletes_no_copy_but_its_own";
    if LoopFs::skips(test, &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new(&format!("[requesters]\nuids = [{NOBODY}]"))?;
    let turn = creation_turn();
    let set = scene.instance.vss(["create", "--json", scene.volume.name()])?.json()?;
    drop(turn);
    let id = &set["shadows"][0]["id"];
    let management = |method: &str, parameters| json!({"method": format!("org.linuxvss.Management.{method}"), "parameters": parameters});
    let calls = [
        management("ListShadows", json!({})),
        management("GetSet", json!({"shadow_id": id})),
        management("DeleteShadows", json!({"shadow_ids": [id]})),
        management("DeleteShadows", json!({"set_id": set["set_id"]})),
        management("DeleteShadows", json!({"all": true})),
        management("SetLimits", json!({"backup_sessions": 1})),
        json!({"method": "org.linuxvss.Requester.ExposeSnapshot", "parameters": {"shadow_id": id}}),
        json!({"method": "org.linuxvss.Requester.UnexposeSnapshot", "parameters": {"shadow_id": id}}),
    ];
    let Some(peer) = PythonPeer::ask(&scene.instance.requester_socket(), NOBODY, &calls)? else {
        println!("SKIPPED: {test}: needs python3");
        return Ok(());
    };
    ensure!(peer.answers[0]["parameters"] == json!({"shadows": []}), "{}", peer.answers[0]);
    ensure!(peer.answers[4]["parameters"] == json!({"shadow_ids": []}), "{}", peer.answers[4]);
    for index in [1, 2, 3, 5, 6, 7] {
        let answer = &peer.answers[index];
        ensure!(answer["parameters"]["name"] == "E_ACCESSDENIED", "{}: {answer}", calls[index]);
    }
    ensure!(scene.volume.copies()?.len() == 1, "the copy is gone");
    let deleted = scene.instance.vss(["delete", "--all"])?;
    ensure!(deleted.is_success(), "{deleted:?}");
    scene.ends_well()
}

#[test]
fn a_peer_in_python_finds_its_way() -> anyhow::Result<()> {
    let test = "a_peer_in_python_finds_its_way";
    if LoopFs::skips(test, &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new("")?;
    let turn = creation_turn();
    let set = scene.instance.vss(["create", "--json", scene.volume.name()])?.json()?;
    drop(turn);
    let describe = |name: &str| json!({"method": "org.varlink.service.GetInterfaceDescription", "parameters": {"interface": name}});
    let interfaces = ["org.linuxvss.Requester", "org.linuxvss.Management"];
    let calls = [
        json!({"method": "org.varlink.service.GetInfo"}),
        describe(interfaces[0]),
        describe(interfaces[1]),
        json!({"method": "org.linuxvss.Management.ListShadows"}),
        json!({"method": "org.linuxvss.Management.GetStatus", "parameters": {}}),
        json!({"method": "org.linuxvss.Management.NoSuchMethod"}),
        json!({"method": "org.linuxvss.Management.GetSet", "parameters": {"set_id": 7}}),
    ];
    let Some(peer) = PythonPeer::ask(&scene.instance.requester_socket(), 0, &calls)? else {
        println!("SKIPPED: {test}: needs python3");
        return Ok(());
    };
    let [info, requester, management, shadows, status, no_method, wrong] = &peer.answers[..] else {
        bail!("{} answers", peer.answers.len());
    };
    println!("{info}");
    let named = info["parameters"]["interfaces"].as_array().context("a list")?;
    ensure!(interfaces.iter().all(|name| named.contains(&json!(name))), "{info}");
    ensure!(info["parameters"]["product"].is_string() && info["parameters"]["version"].is_string(), "{info}");
    for (description, method) in [(requester, "method DoSnapshotSet("), (management, "method ListShadows(")] {
        let text = description["parameters"]["description"].as_str().context("a description")?;
        ensure!(text.contains(method) && text.contains("error VssError") && text.contains('#'), "{text}");
    }
    ensure!(shadows["parameters"]["shadows"][0]["id"] == set["shadows"][0]["id"], "{shadows}");
    ensure!(status["parameters"]["shadows"] == 1, "{status}");
    ensure!(no_method["error"] == "org.varlink.service.MethodNotFound", "{no_method}");
    ensure!(wrong["error"] == "org.varlink.service.InvalidParameter", "{wrong}");
    let writer = PythonPeer::ask(&scene.instance.writer_socket(), 0, &[describe("org.linuxvss.Writer")])?;
    let writer = writer.context("python3 is gone")?;
    let text = writer.answers[0]["parameters"]["description"].as_str().context("a description")?;
    ensure!(text.contains("method Freeze(") && text.contains("method Register("), "{text}");
    scene.instance.vss(["delete", "--all"])?;
    scene.ends_well()
}
