//! The limits of the house, reached: 64 volumes in a set, 200 writers, 64 sessions, one creation at a time on the machine.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use vss_api::client::{Client, ClientError};
use vss_api::requester::{Call, InitializeForBackup, SessionOpened};
use vss_model::{AppLevel, VssCode, VssError, limits};
use vss_requester::Requester;
use vss_tests::instance::{Instance, Outcome, wait_until};
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::traces;
use vss_tests::turn::creation_turn;
use vss_tests::volume::Volume;
use vss_tests::writers::{SocketWriter, check_events};
use vss_writer::fake::FakeWriter;

/// What is answered at once is answered within this time, on a busy machine too.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Makes volumes, a few at a time.
fn volumes(count: usize) -> anyhow::Result<Vec<Volume>> {
    const THREADS: usize = 5;
    let make =
        |thread: usize| (thread..count).step_by(THREADS).map(|_| Volume::new()).collect::<anyhow::Result<Vec<_>>>();
    let made = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || make(thread))).collect();
        let joined = threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?);
        joined.collect::<anyhow::Result<Vec<_>>>()
    })?;
    Ok(made.into_iter().flatten().collect())
}

/// Unmounting takes its time, too.
fn drop_all(volumes: Vec<Volume>) {
    thread::scope(|scope| volumes.into_iter().for_each(|volume| drop(scope.spawn(move || drop(volume)))));
}

#[test]
fn sixty_four_volumes_in_a_set() -> anyhow::Result<()> {
    let test = "sixty_four_volumes_in_a_set";
    if LoopFs::skips(test, &[Kind::Btrfs]) {
        return Ok(());
    }
    let began = Instant::now();
    let volumes = volumes(limits::VOLUMES_PER_SET + 1)?;
    println!("{} volumes made in {:?}", volumes.len(), began.elapsed());
    let instance = Instance::new()?;
    let names: Vec<&str> = volumes.iter().map(Volume::name).collect();
    for volume in &volumes {
        volume.write("file", "old")?;
    }
    let _turn = creation_turn();
    let set = instance.vss([&["create", "--json"], &names[..64]].concat())?;
    println!("create: {:?}", set.took);
    let set = set.json()?;
    let shadows = set["shadows"].as_array().context("a list")?;
    let made: Vec<_> = shadows.iter().filter_map(|shadow| shadow["volume"].as_str()).collect();
    ensure!(made == names[..64] && set["atomic"] == false && set["consistency"] == "file-system", "{set}");
    for volume in &volumes[..64] {
        ensure!(volume.copies()?.len() == 1, "{}: {:?}", volume.name(), volume.copies());
    }
    let deleted = instance.vss(["delete", "--all"])?;
    ensure!(deleted.is_success() && deleted.stdout.lines().count() == 64, "{deleted:?}");
    println!("delete: {:?}", deleted.took);

    // The command sees all of them at their places.
    let options = names[..64].iter().flat_map(|name| ["--volume", name]);
    let script = "for v; do test ! -w \"$v\" && cat \"$v/file\"; done";
    let words: Vec<&str> = ["run"]
        .into_iter()
        .chain(options)
        .chain(["--", "sh", "-c", script, "sh"])
        .chain(names[..64].iter().copied())
        .collect();
    let run = instance.vss(&words)?;
    println!("run: {:?}", run.took);
    ensure!(run.is_success() && run.stdout == "old".repeat(64), "{run:?}");

    for words in [vec!["create"], vec!["run"]] {
        let is_run = words[0] == "run";
        let flag = |name| if is_run { vec!["--volume", name] } else { vec![name] };
        let tail: &[&str] = if is_run { &["--", "true"] } else { &[] };
        let words: Vec<&str> =
            words.iter().copied().chain(names.iter().flat_map(|name| flag(name))).chain(tail.iter().copied()).collect();
        let refused = instance.vss(&words)?;
        let code = if is_run { 125 } else { 1 };
        let is_said =
            refused.stderr.contains("VSS_E_MAXIMUM_NUMBER_OF_VOLUMES_REACHED") && refused.stderr.contains("64");
        ensure!(refused.code == Some(code) && is_said, "{refused:?}");
        println!("{}: {}", words[0], refused.stderr.trim_end());
    }
    traces::has_no_shadows(&instance)?;
    for volume in &volumes {
        volume.is_clean()?;
    }
    traces::has_no_processes(&instance)?;
    drop_all(volumes);
    Ok(())
}

#[test]
fn two_hundred_writers() -> anyhow::Result<()> {
    if LoopFs::skips("two_hundred_writers", &[Kind::Btrfs]) {
        return Ok(());
    }
    const WRITERS: usize = 200;
    let volume = Volume::new()?;
    let mut instance = Instance::new()?;
    instance.start()?;
    let levels = [AppLevel::FrontEnd, AppLevel::BackEnd, AppLevel::System];
    let began = Instant::now();
    let writers = (0..WRITERS)
        .map(|number| {
            let writer = FakeWriter::new(&format!("writer {number}"), volume.path());
            SocketWriter::join(&instance, writer.at_level(levels[number % levels.len()]))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    println!("{WRITERS} writers joined in {:?}", began.elapsed());
    let listed = instance.vss(["list", "writers", "--json"])?.json()?;
    ensure!(listed["writers"].as_array().is_some_and(|writers| writers.len() == WRITERS), "{listed}");
    let turn = creation_turn();
    let created = instance.vss(["create", "--json", volume.name()])?;
    println!("create: {:?}", created.took);
    let set = created.json()?;
    let records = set["writers"].as_array().context("a list")?;
    ensure!(records.len() == WRITERS && set["consistency"] == "application", "{} writers: {set}", records.len());
    ensure!(records.iter().all(|writer| writer["state"] == "WAITING_FOR_BACKUP_COMPLETE"), "{set}");
    println!("frozen {} ms", set["freeze_ms"]);
    let run = instance.vss(["run", "--volume", volume.name(), "--", "true"])?;
    ensure!(run.is_success(), "{run:?}");
    drop(turn);
    for writer in &writers {
        let events = || writer.handle().events();
        wait_until(Duration::from_secs(30), || check_events(&events()).is_ok());
        check_events(&events())?;
        ensure!(!writer.handle().is_frozen(), "frozen still: {:?}", events());
    }
    // They leave as they have come.
    drop(writers);
    let mut management = instance.management()?;
    let is_empty = || management.status().is_ok_and(|status| status.writers == 0);
    ensure!(wait_until(Duration::from_secs(30), is_empty), "writers stay registered");
    instance.vss(["delete", "--all"])?;
    volume.is_clean()?;
    instance.stop()
}

fn open_session(instance: &Instance) -> anyhow::Result<(Client, Result<SessionOpened, ClientError>)> {
    let mut client = Client::connect(instance.requester_socket())?;
    let call = Call::InitializeForBackup(InitializeForBackup { requester: "limits".to_owned() });
    let opened = client.call_requester(&call);
    Ok((client, opened))
}

#[test]
fn sixty_four_sessions() -> anyhow::Result<()> {
    if LoopFs::skips("sixty_four_sessions", &[Kind::Btrfs]) {
        return Ok(());
    }
    let volume = Volume::new()?;
    let mut instance = Instance::new()?;
    instance.start()?;
    let mut sessions = Vec::new();
    for number in 0..limits::BACKUP_SESSIONS {
        let (client, opened) = open_session(&instance)?;
        ensure!(opened.is_ok(), "session {number}: {opened:?}");
        sessions.push(client);
    }
    let (_one_more, refused) = open_session(&instance)?;
    let error = refused.err().context("a session too many")?;
    let error = error.vss().context("an error of ours")?;
    ensure!(error.code == VssCode::OutOfMemory && error.message.contains("64"), "{error}");
    println!("{error}");
    let run = instance.vss(["run", "--volume", volume.name(), "--", "true"])?;
    ensure!(run.code == Some(125) && run.stderr.contains("E_OUTOFMEMORY"), "{run:?}");
    let listed = instance.vss(["list", "shadows", "--json"])?;
    ensure!(listed.is_success(), "what needs no session is refused too: {listed:?}");
    ensure!(instance.management()?.status()?.sessions.len() == 64, "not all are listed");
    // A place that is given back is a place.
    sessions.pop();
    let let_in = || open_session(&instance).is_ok_and(|(_client, opened)| opened.is_ok());
    ensure!(wait_until(Duration::from_secs(30), let_in), "nobody is let in again");
    drop(sessions);
    let are_closed = || {
        let status = instance.management().and_then(|mut management| Ok(management.status()?));
        status.is_ok_and(|status| status.sessions.is_empty())
    };
    ensure!(wait_until(Duration::from_secs(30), are_closed), "sessions whose requesters are gone stay");
    let _turn = creation_turn();
    let run = instance.vss(["run", "--volume", volume.name(), "--", "true"])?;
    ensure!(run.is_success(), "{run:?}");
    instance.stop()
}

/// A session of another requester that is creating a set, until it is dropped.
fn begun(instance: &Instance) -> Result<Requester, VssError> {
    let mut requester = Requester::connect(&instance.directories())?;
    requester.initialize_for_backup("the other backup")?;
    requester.set_context(vss_model::Context::FileShareBackup)?;
    requester.start_snapshot_set(&vss_model::CreationOptions::default())?;
    Ok(requester)
}

/// Takes turns with the requester that is creating a set in `other`.
fn one_at_a_time(instance: &Instance, other: &Instance, volume: &Volume) -> anyhow::Result<()> {
    let holder = begun(other)?;
    // On the wire: at once.
    let asked = Instant::now();
    let error = begun(instance).err().context("two sets at once")?;
    ensure!(error.code == VssCode::SnapshotSetInProgress && asked.elapsed() < AT_ONCE, "{error} {:?}", asked.elapsed());
    let who = format!("the other backup (process {})", std::process::id());
    ensure!(error.message.contains(&who), "who it is is not said: {error}");
    // The command line: at once, after a while, or when the other one is done.
    let create = |wait: &str| instance.start_vss(["create", "--wait", wait, volume.name()]);
    let refused = |outcome: &Outcome| {
        let is_said = outcome.stderr.contains("VSS_E_SNAPSHOT_SET_IN_PROGRESS") && outcome.stderr.contains(&who);
        outcome.code == Some(1) && is_said
    };
    let outcome = create("0")?.finish()?;
    ensure!(refused(&outcome) && outcome.took < AT_ONCE, "--wait 0: {outcome:?}");
    let outcome = create("1")?.finish()?;
    let waited = outcome.took > Duration::from_secs(1) && outcome.took < Duration::from_secs(1) + AT_ONCE;
    ensure!(refused(&outcome) && waited, "--wait 1: {outcome:?}");
    let run = instance.vss(["run", "--wait", "0", "--volume", volume.name(), "--", "true"])?;
    ensure!(run.code == Some(125) && run.stderr.contains("VSS_E_SNAPSHOT_SET_IN_PROGRESS"), "{run:?}");
    let run = instance.start_vss(["run", "--wait", "30", "--volume", volume.name(), "--", "true"])?;
    let is_waiting = || run.stderr().is_ok_and(|said| said.contains(&who));
    ensure!(wait_until(Duration::from_secs(20), is_waiting), "it does not say whom it waits for: {}", run.stderr()?);
    drop(holder);
    let given_back = Instant::now();
    let outcome = run.finish()?;
    ensure!(outcome.is_success() && given_back.elapsed() < AT_ONCE, "{outcome:?}");
    println!("its turn came, and it was done {:?} later", given_back.elapsed());
    volume.is_clean()
}

#[test]
fn one_creation_at_a_time_in_an_instance() -> anyhow::Result<()> {
    if LoopFs::skips("one_creation_at_a_time_in_an_instance", &[Kind::Btrfs]) {
        return Ok(());
    }
    let volume = Volume::new()?;
    let mut instance = Instance::new()?;
    instance.start()?;
    let _turn = creation_turn();
    one_at_a_time(&instance, &instance, &volume)?;
    instance.stop()
}

#[test]
fn one_creation_at_a_time_on_the_machine() -> anyhow::Result<()> {
    if LoopFs::skips("one_creation_at_a_time_on_the_machine", &[Kind::Btrfs]) {
        return Ok(());
    }
    let volume = Volume::new()?;
    let (mut instance, mut other) = (Instance::new()?, Instance::new()?);
    instance.start()?;
    other.start()?;
    let _turn = creation_turn();
    one_at_a_time(&instance, &other, &volume)?;
    // The lock of a service that is killed is free.
    let holder = begun(&other)?;
    other.kill()?;
    let run = instance.vss(["run", "--wait", "0", "--volume", volume.name(), "--", "true"])?;
    ensure!(run.is_success(), "{run:?}");
    drop(holder);
    instance.stop()
}
