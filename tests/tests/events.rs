//! `vss events` and `ListEvents`: what followers hear of a set, of each other's slowness, and of other people.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use vss_api::client::Client;
use vss_api::event::{Event, EventKind};
use vss_api::management::{EventList, ListEvents};
use vss_api::requester::{Call, InitializeForBackup, SessionOpened};
use vss_linux::process::Signal;
use vss_model::{GuardAnswer, VssCode};
use vss_requester::Following;
use vss_tests::instance::{Instance, wait_until};
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::traces::{self, BusyVolume};
use vss_tests::turn::creation_turn;
use vss_tests::writers::SocketWriter;
use vss_writer::fake::FakeWriter;

/// An event that has happened is heard so soon.
const SOON: Duration = Duration::from_secs(30);

/// A follower that has had its first, empty list: it misses nothing from now on.
fn follow(instance: &Instance, after: Option<u64>) -> anyhow::Result<Following> {
    let mut following = instance.management()?.follow(after)?;
    following.set_timeout(Some(SOON))?;
    if after.is_none() {
        let first = following.next().context("a first list")??;
        ensure!(first.events.is_empty() && first.lost == 0, "{first:?}");
    }
    Ok(following)
}

/// All that a follower hears up to the first event of this kind.
fn until(following: &mut Following, last: EventKind) -> anyhow::Result<Vec<Event>> {
    let mut heard = Vec::new();
    for list in following {
        let list = list.with_context(|| format!("no {}: {heard:?}", last.name()))?;
        ensure!(list.lost == 0, "{list:?}");
        heard.extend(list.events);
        if heard.iter().any(|event| event.kind == last) {
            return Ok(heard);
        }
    }
    bail!("the end came before {}: {heard:?}", last.name())
}

/// One session that is opened and closed: two events.
fn open_and_close(instance: &Instance) -> anyhow::Result<()> {
    let mut client = Client::connect(instance.requester_socket())?;
    let call = Call::InitializeForBackup(InitializeForBackup { requester: "events".to_owned() });
    client.call_requester::<SessionOpened>(&call)?;
    Ok(())
}

fn with_fake(more: &Value) -> anyhow::Result<Instance> {
    let mut instance = Instance::new()?;
    let mut fake = json!({"store": traces::fake_store(&instance), "policy": "needs_hold"});
    fake.as_object_mut().context("an object")?.extend(more.as_object().context("an object")?.clone());
    instance.set("VSS_FAKE", fake.to_string());
    instance.start()?;
    Ok(instance)
}

fn steps(heard: &[Event]) -> Vec<&str> {
    heard.iter().filter(|event| event.kind == EventKind::Step).filter_map(|event| event.step.as_deref()).collect()
}

#[test]
fn a_follower_hears_a_whole_set_in_order() -> anyhow::Result<()> {
    if LoopFs::skips("a_follower_hears_a_whole_set_in_order", &[Kind::Ext4]) {
        return Ok(());
    }
    let volume = BusyVolume::new(Kind::Ext4, 32)?;
    let mut instance = with_fake(&json!({}))?;
    let mut following = follow(&instance, None)?;
    let writer = SocketWriter::join(&instance, FakeWriter::new("shop", volume.path()))?;
    let turn = creation_turn();
    let path = volume.path().to_str().context("a path in UTF-8")?;
    let set = instance.vss(["create", "--json", path])?.json()?;
    drop(turn);
    let set_id = set["set_id"].as_str().context("a set")?.to_owned();
    let heard = until(&mut following, EventKind::SessionClosed)?;
    let numbers: Vec<u64> = heard.iter().map(|event| event.seq).collect();
    ensure!(numbers.windows(2).all(|two| two[1] == two[0] + 1), "{numbers:?}");
    ensure!(heard.iter().all(|event| event.at.is_some()), "{heard:?}");

    let of_set: Vec<&Event> =
        heard.iter().filter(|event| event.set_id.is_some_and(|id| id.to_string() == set_id)).collect();
    ensure!(of_set.iter().all(|event| event.uid == Some(0) && event.session_id.is_some()), "{of_set:?}");
    let rows = [
        "prepare_hold",
        "record_intent",
        "end_prepare",
        "prepare_snapshot",
        "flush",
        "freeze",
        "pre_commit",
        "flush_in_window",
        "hold",
        "commit",
        "release",
        "post_commit",
        "thaw",
        "pre_final",
        "post_snapshot",
        "post_final",
        "record",
    ];
    ensure!(steps(&heard) == rows, "{:?}", steps(&heard));
    let writer_events: Vec<&str> = heard
        .iter()
        .filter(|event| event.kind == EventKind::WriterEvent && event.writer.as_deref() == Some("shop"))
        .filter_map(|event| event.step.as_deref())
        .collect();
    let told = [
        "Identify",
        "PrepareBackup",
        "PrepareSnapshot",
        "Freeze",
        "Thaw",
        "PostSnapshot",
        "BackupComplete",
        "BackupShutdown",
    ];
    ensure!(writer_events == told, "{writer_events:?}");
    let place = |kind: EventKind, step: Option<&str>| {
        heard.iter().position(|event| event.kind == kind && (step.is_none() || event.step.as_deref() == step))
    };
    let order = [
        place(EventKind::WriterRegistered, None),
        place(EventKind::SessionOpened, None),
        place(EventKind::SetBegun, None),
        place(EventKind::WriterEvent, Some("Freeze")),
        place(EventKind::Step, Some("freeze")),
        place(EventKind::Step, Some("release")),
        place(EventKind::Member, None),
        place(EventKind::WriterEvent, Some("Thaw")),
        place(EventKind::SetFinished, None),
        place(EventKind::SessionClosed, None),
    ];
    ensure!(order.iter().all(Option::is_some) && order.is_sorted(), "{order:?}");
    let member = heard.iter().find_map(|event| event.member.as_ref()).context("a member")?;
    let (Some(freeze), Some(commit), Some(thaw)) = (member.freeze, member.commit, member.thaw) else {
        bail!("{member:?}")
    };
    ensure!(freeze.until_us() <= commit.from_us && commit.until_us() <= thaw.from_us, "{member:?}");
    ensure!(member.answers.ends_with(&[GuardAnswer::Frozen, GuardAnswer::Thawed]), "{member:?}");
    let finished = of_set.iter().find(|event| event.kind == EventKind::SetFinished).context("an end")?;
    ensure!(finished.hold_us.is_some_and(|us| us > 0) && finished.consistency.is_some(), "{finished:?}");

    // What follows: the copy is shown, taken away, deleted; the writer leaves; the service ends.
    let id = set["shadows"][0]["id"].as_str().context("a copy")?;
    let place = instance.path().join("place");
    std::fs::create_dir(&place)?;
    let place = place.to_str().context("a path in UTF-8")?;
    for words in [["expose", id, place].as_slice(), &["delete", id]] {
        let outcome = instance.vss(words)?;
        ensure!(outcome.is_success(), "{words:?}: {outcome:?}");
    }
    drop(writer);
    let heard = until(&mut following, EventKind::WriterGone)?;
    let kinds: Vec<EventKind> = heard
        .iter()
        .map(|event| event.kind)
        .filter(|kind| !matches!(kind, EventKind::SessionOpened | EventKind::SessionClosed))
        .collect();
    use EventKind::{CopyDeleted, CopyExposed, CopyUnexposed, WriterGone};
    ensure!(kinds == [CopyExposed, CopyUnexposed, CopyDeleted, WriterGone], "{kinds:?}");
    // Those who do not follow get the same from memory, from the first event on.
    let recent = instance.management()?.events(None)?;
    ensure!(recent.lost == 0 && recent.events[0].kind == EventKind::ServiceStarted, "{recent:?}");
    ensure!(recent.events.windows(2).all(|two| two[1].seq == two[0].seq + 1), "{recent:?}");
    ensure!(heard.iter().all(|event| recent.events.contains(event)), "{recent:?}");
    instance.stop()?;
    until(&mut following, EventKind::ServiceStopped)?;
    ensure!(following.all(|list| list.is_ok_and(|list| list.events.is_empty())), "an end without an error");
    Ok(())
}

#[test]
fn failures_say_who_and_where() -> anyhow::Result<()> {
    if LoopFs::skips("failures_say_who_and_where", &[Kind::Ext4]) {
        return Ok(());
    }
    let volume = LoopFs::new(Kind::Ext4, 32)?;
    let instance = with_fake(&json!({"fail": ["commit", "VSS_E_PROVIDER_VETO"]}))?;
    let mut following = follow(&instance, None)?;
    let _turn = creation_turn();
    let outcome = instance.vss(["create".as_ref(), volume.path().as_os_str()])?;
    ensure!(outcome.code == Some(1), "{outcome:?}");
    let heard = until(&mut following, EventKind::SetFailed)?;
    let codes: Vec<_> = heard
        .iter()
        .filter_map(|event| Some((event.kind, event.step.as_deref(), event.failure.as_ref()?.code)))
        .collect();
    use EventKind::{ProviderTrouble, SetFailed, Step};
    let veto = VssCode::ProviderVeto;
    let wanted = [(Step, Some("commit"), veto), (ProviderTrouble, Some("commit"), veto), (SetFailed, None, veto)];
    ensure!(codes == wanted, "{codes:?}");
    // It was held all the same, and let go.
    let member = heard.iter().find_map(|event| event.member.as_ref()).context("a member")?;
    ensure!(member.freeze.is_some() && member.commit.is_none() && member.thaw.is_some(), "{member:?}");
    Ok(())
}

#[test]
fn a_slow_follower_is_told_what_it_missed() -> anyhow::Result<()> {
    if LoopFs::skips("a_slow_follower_is_told_what_it_missed", &[]) {
        return Ok(());
    }
    const SESSIONS: u64 = 5000;
    let mut instance = Instance::new()?;
    instance.start()?;
    let mut slow = follow(&instance, None)?;
    let first = instance.management()?.events(None)?.events.last().context("an event")?.seq;
    let slowest = (0..SESSIONS).try_fold(Duration::ZERO, |slowest, _| {
        let began = Instant::now();
        open_and_close(&instance).map(|()| slowest.max(began.elapsed()))
    })?;
    println!("{SESSIONS} sessions beside a follower that does not read; the slowest took {slowest:?}");
    let last = first + 2 * SESSIONS;
    let newest = || instance.management().and_then(|mut management| Ok(management.events(Some(last - 1))?.events));
    ensure!(wait_until(SOON, || newest().is_ok_and(|events| events.iter().any(|event| event.seq == last))), "{last}");
    let (mut heard, mut lost, mut next) = (0, 0, first + 1);
    for list in &mut slow {
        let list = list?;
        lost += list.lost;
        next += list.lost;
        for event in list.events {
            ensure!(event.seq == next, "{} instead of {next}", event.seq);
            next += 1;
            heard += 1;
        }
        if next > last {
            break;
        }
    }
    println!("heard {heard}, lost {lost}");
    ensure!(heard + lost == 2 * SESSIONS && lost > 0 && heard >= 4096, "{heard} and {lost}");
    // The same is told to who asks for more than is remembered.
    let recent = instance.management()?.events(Some(first))?;
    ensure!(recent.lost > 0 && recent.events.len() == 4096, "{} and {}", recent.lost, recent.events.len());
    instance.stop()
}

#[test]
fn a_hundred_follow_and_one_too_many_is_refused() -> anyhow::Result<()> {
    if LoopFs::skips("a_hundred_follow_and_one_too_many_is_refused", &[]) {
        return Ok(());
    }
    let mut instance = Instance::new()?;
    instance.start()?;
    let mut followers = (0..128).map(|_| follow(&instance, None)).collect::<anyhow::Result<Vec<_>>>()?;
    let refused = instance.management()?.follow(None)?.next().context("an answer")?;
    ensure!(refused.as_ref().is_err_and(|error| error.code == VssCode::OutOfMemory), "{refused:?}");
    let began = Instant::now();
    open_and_close(&instance)?;
    for following in &mut followers {
        let heard = until(following, EventKind::SessionClosed)?;
        ensure!(heard.len() == 2, "{heard:?}");
    }
    println!("{} followers have heard of a session after {:?}", followers.len(), began.elapsed());
    followers.pop();
    let again = || {
        instance.management().is_ok_and(|management| {
            management.follow(None).is_ok_and(|mut following| following.next().is_some_and(|list| list.is_ok()))
        })
    };
    ensure!(wait_until(SOON, again), "a place that is left is not given to another");
    instance.stop()
}

#[test]
fn a_follower_of_a_service_on_demand_keeps_it_and_its_death_ends_it() -> anyhow::Result<()> {
    let test = "a_follower_of_a_service_on_demand_keeps_it_and_its_death_ends_it";
    if LoopFs::skips(test, &[]) {
        return Ok(());
    }
    let instance = Instance::new()?;
    let mut command = instance.command("vss");
    command.args(instance.arguments()).args(["events", "--follow", "--json"]).stdout(Stdio::piped());
    let mut follower = Ended(command.spawn()?);
    let said = BufReader::new(follower.0.stdout.take().context("it was asked for")?);
    let (tell, lines) = mpsc::channel();
    thread::spawn(move || said.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
    ensure!(wait_until(SOON, || instance.management().is_ok()), "it starts no service");
    // Long beyond the time after which an idle one ends; then another command's events are heard, or, where it follows only
    // now, those of the next one.
    thread::sleep(Duration::from_secs(1));
    let mut kinds: Vec<String> = Vec::new();
    let deadline = Instant::now() + SOON;
    while !kinds.ends_with(&["session_opened", "session_closed"].map(str::to_owned)) {
        ensure!(Instant::now() < deadline, "{kinds:?}");
        open_and_close(&instance)?;
        while let Ok(line) = lines.recv_timeout(Duration::from_millis(300)) {
            let event: Value = serde_json::from_str(&line)?;
            ensure!(event["seq"].is_u64() && event["at"].is_string(), "{event}");
            kinds.push(event["kind"].as_str().context("a kind")?.to_owned());
        }
    }
    let shown = instance.vss(["events"])?;
    ensure!(shown.stdout.contains("service_started") && shown.stdout.contains("session_opened"), "{shown:?}");
    vss_linux::process::PidFd::open(follower.0.id())?.signal(Signal::KILL)?;
    follower.0.wait()?;
    traces::has_no_processes(&instance)
}

/// Killed and waited for when it is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Becomes user `uid`, calls with `more`, opens a session of its own once it follows, and prints each reply, in nothing but Python's standard library.
const PYTHON_FOLLOWER: &str = "
import json, os, socket, sys
path, uid = sys.argv[1:]
os.setgroups([]); os.setgid(int(uid)); os.setuid(int(uid))
line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
line.connect(path)
def call(line, method, **rest):
    line.sendall(json.dumps({'method': 'org.linuxvss.' + method, **rest}).encode() + b'\\0')
call(line, 'Management.ListEvents', more=True)
rest, opened = b'', False
while True:
    part = line.recv(65536)
    if not part:
        break
    *messages, rest = (rest + part).split(b'\\0')
    for message in messages:
        print(json.dumps(json.loads(message)), flush=True)
        if not opened:
            opened = True
            own = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            own.connect(path)
            call(own, 'Requester.InitializeForBackup', parameters={'requester': 'by-python'})
            own.recv(65536)
            own.close()
";

#[test]
fn others_hear_their_own_alone() -> anyhow::Result<()> {
    let test = "others_hear_their_own_alone";
    if LoopFs::skips(test, &[]) {
        return Ok(());
    }
    let mut instance = Instance::new()?;
    instance.settings("[requesters]\nuids = [7]")?;
    instance.start()?;
    let mut command = Command::new("python3");
    command.args(["-c", PYTHON_FOLLOWER]).arg(instance.requester_socket()).arg("7").stdout(Stdio::piped());
    let Ok(spawned) = command.spawn() else {
        println!("SKIPPED: {test}: needs python3");
        return Ok(());
    };
    let mut follower = Ended(spawned);
    let mut lines = BufReader::new(follower.0.stdout.take().context("it was asked for")?).lines();
    let mut next = || -> anyhow::Result<Value> { Ok(serde_json::from_str(&lines.next().context("a line")??)?) };
    let first = next()?;
    ensure!(first == json!({"parameters": {"events": [], "lost": 0}, "continues": true}), "{first}");
    open_and_close(&instance)?;
    let mut heard: Vec<Value> = Vec::new();
    while heard.len() < 2 {
        heard.extend(next()?["parameters"]["events"].as_array().context("a list")?.iter().cloned());
    }
    instance.stop()?;
    heard.extend(next()?["parameters"]["events"].as_array().context("a list")?.iter().cloned());
    // Root's session was nothing for it; that the service ends is everybody's.
    let kinds: Vec<&str> = heard.iter().filter_map(|event| event["kind"].as_str()).collect();
    ensure!(kinds == ["session_opened", "session_closed", "service_stopped"], "{heard:?}");
    ensure!(heard[0]["requester"] == "by-python" && heard[0]["uid"] == 7, "{heard:?}");
    let last = next()?;
    ensure!(last == json!({"parameters": {"events": [], "lost": 0}}), "{last}");
    Ok(())
}

#[test]
fn without_following_there_is_one_answer() -> anyhow::Result<()> {
    if LoopFs::skips("without_following_there_is_one_answer", &[]) {
        return Ok(());
    }
    let mut instance = Instance::new()?;
    instance.start()?;
    let mut client = Client::connect(instance.requester_socket())?;
    let call = vss_api::management::Call::ListEvents(ListEvents { after: Some(u64::from(u32::MAX)) });
    // A number of another life of the service.
    let list: EventList = client.call_management(&call)?;
    ensure!(list.events.len() == 1 && list.events[0].kind == EventKind::ServiceStarted, "{list:?}");
    let list: EventList =
        client.call_management(&vss_api::management::Call::ListEvents(ListEvents { after: Some(1) }))?;
    ensure!(list.events.is_empty() && list.lost == 0, "{list:?}");
    instance.stop()
}
