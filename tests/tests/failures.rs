//! Writers that hang, fail or die in each event, providers that fail or hang in each phase, a full volume, a stranger who
//! thaws: the error says who and why, the others are told, nothing stays frozen and nothing is left.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use vss_api::management::SetLimits;
use vss_api::writer::EventKind;
use vss_linux::freeze;
use vss_linux::process::Signal;
use vss_model::{VssCode, VssError};
use vss_provider::fake::Phase;
use vss_tests::instance::{Instance, Outcome, wait_until};
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::traces::{self, BusyVolume, LIMIT};
use vss_tests::turn::creation_turn;
use vss_tests::writers::{ScriptWriter, SocketWriter, check_events};
use vss_writer::fake::{FakeWriter, Misdeed};

/// The limit of each writer from Freeze to Thaw, and to get ready.
const WRITER_LIMIT: Duration = Duration::from_millis(1000);

/// What a writer does instead of answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Fails,
    Hangs,
    Dies,
}

/// The events in which a set can fail by its writer.
const EVENTS: [EventKind; 5] =
    [EventKind::PrepareBackup, EventKind::PrepareSnapshot, EventKind::Freeze, EventKind::Thaw, EventKind::PostSnapshot];

/// A service, a btrfs volume that is written to, and a writer that does everything right.
struct Scene {
    instance: Instance,
    volume: BusyVolume,
    prompt: SocketWriter,
}

impl Scene {
    fn new() -> anyhow::Result<Self> {
        let volume = BusyVolume::new(Kind::Btrfs, 512)?;
        let mut instance = Instance::new()?;
        instance.start()?;
        let wanted =
            SetLimits { writer_prepare_ms: Some(WRITER_LIMIT.as_millis().try_into()?), ..SetLimits::default() };
        instance.management()?.set_limits(wanted)?;
        let prompt = SocketWriter::join(&instance, FakeWriter::new("prompt", volume.path()))?;
        Ok(Self { instance, volume, prompt })
    }

    fn vss(&self, words: &[&str]) -> anyhow::Result<Outcome> {
        let _turn = creation_turn();
        self.instance.vss(words)
    }

    fn volume(&self) -> anyhow::Result<&str> {
        self.volume.path().to_str().context("a path in ASCII")
    }

    /// `vss run`, which has to be refused because of the writer `culprit`.
    fn run_is_refused(&self, culprit: &str, code: VssCode) -> anyhow::Result<()> {
        let outcome = self.vss(&["run", "--volume", self.volume()?, "--", "true"])?;
        let names = outcome.stderr.contains(&format!("Writer {culprit}")) && outcome.stderr.contains(code.name());
        ensure!(outcome.code == Some(125) && names, "expected 125 and {}, got {outcome:?}", code.name());
        ensure!(outcome.took < 2 * LIMIT, "a writer that hangs keeps the requester waiting: {outcome:?}");
        self.is_well()?;
        self.volume.has_no_copies()
    }

    /// `vss create --allow-degraded`, in which the component of `culprit` alone is less consistent.
    fn degrades(&self, culprit: &str) -> anyhow::Result<()> {
        let outcome = self.vss(&["create", "--allow-degraded", "--json", self.volume()?])?;
        let set = outcome.json()?;
        let level = |name: &str| {
            let writer = set["writers"].as_array()?.iter().find(|writer| writer["name"] == name)?;
            writer["components"][0]["consistency"].as_str()
        };
        ensure!(
            level(culprit) == Some("file-system") && level("prompt") == Some("application"),
            "levels {:?} and {:?} in {set}",
            level(culprit),
            level("prompt")
        );
        ensure!(set["consistency"] == "file-system", "the set's level: {set}");
        self.is_well()?;
        self.vss(&["delete", "--all"])?;
        self.volume.has_no_copies()
    }

    /// Nothing is frozen, and the prompt writer was told all.
    fn is_well(&self) -> anyhow::Result<()> {
        self.volume.writes_flow()?;
        let events = || self.prompt.handle().events();
        if !wait_until(LIMIT, || check_events(&events()).is_ok()) {
            check_events(&events()).context("the prompt writer")?;
        }
        ensure!(!self.prompt.handle().is_frozen(), "the prompt writer is frozen: {:?}", events());
        self.prompt.handle().forget();
        Ok(())
    }

    fn socket_culprit(&self, event: EventKind, deed: Deed) -> anyhow::Result<SocketWriter> {
        let writer = FakeWriter::new("culprit", self.volume.path()).with_freeze_timeout(WRITER_LIMIT);
        let misdeed = match deed {
            Deed::Fails => Misdeed::Fail(VssError::new(VssCode::WriterErrorNonRetryable, "its data is broken")),
            // Nobody but itself ends its Thaw.
            Deed::Hangs if event == EventKind::Thaw => Misdeed::Delay(WRITER_LIMIT * 3),
            Deed::Hangs => Misdeed::Hang,
            Deed::Dies => Misdeed::Die,
        };
        writer.handle().misbehave(event, misdeed, 1);
        SocketWriter::join(&self.instance, writer)
    }

    fn script_culprit(&mut self, event: EventKind, deed: Deed) -> anyhow::Result<ScriptWriter> {
        let (phase, misdeed) = script(event, deed);
        let script = ScriptWriter::install(&self.instance, "culprit", self.volume.path(), Some((&phase, misdeed)))?;
        self.instance.start_writers()?;
        Ok(script)
    }
}

/// A script's phase and what it does in it.
fn script(event: EventKind, deed: Deed) -> (String, &'static str) {
    let phase = event.name().chars().fold(String::new(), |mut phase, letter| {
        if letter.is_ascii_uppercase() && !phase.is_empty() {
            phase.push('-');
        }
        phase.push(letter.to_ascii_lowercase());
        phase
    });
    let misdeed = match deed {
        Deed::Fails => "echo failed nonretryable its data is broken",
        Deed::Hangs => "sleep 600",
        Deed::Dies => "kill -9 $$",
    };
    (phase, misdeed)
}

/// The code that the error has to carry.
fn code(event: EventKind, deed: Deed, is_script: bool) -> VssCode {
    match deed {
        Deed::Fails => VssCode::WriterErrorNonRetryable,
        Deed::Dies if is_script => VssCode::WriterErrorNonRetryable,
        Deed::Dies => VssCode::WriterErrorRetryable,
        // vss-writers kills its script and says so; a process that says nothing is given up by the service.
        Deed::Hangs if is_script || matches!(event, EventKind::Freeze | EventKind::Thaw) => VssCode::WriterErrorTimeout,
        Deed::Hangs => VssCode::WriterNotResponding,
    }
}

/// Each event with each deed; hanging in PostSnapshot takes 10 minutes and has a test of its own.
fn cases() -> impl Iterator<Item = (EventKind, Deed)> {
    EVENTS
        .into_iter()
        .flat_map(|event| [Deed::Fails, Deed::Hangs, Deed::Dies].map(|deed| (event, deed)))
        .filter(|case| *case != (EventKind::PostSnapshot, Deed::Hangs))
}

#[test]
fn a_socket_writer_hangs_fails_or_dies() -> anyhow::Result<()> {
    if LoopFs::skips("a_socket_writer_hangs_fails_or_dies", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    for (event, deed) in cases() {
        let started = Instant::now();
        let case = format!("socket writer, {} {deed:?}", event.name());
        let culprit = scene.socket_culprit(event, deed)?;
        scene.run_is_refused("culprit", code(event, deed, false)).with_context(|| case.clone())?;
        drop(culprit);
        scene.is_alone()?;
        let culprit = scene.socket_culprit(event, deed)?;
        scene.degrades("culprit").with_context(|| format!("{case}, degraded"))?;
        drop(culprit);
        scene.is_alone()?;
        println!("{case}: {} ms", started.elapsed().as_millis());
    }
    Ok(())
}

#[test]
fn a_script_writer_hangs_fails_or_dies() -> anyhow::Result<()> {
    if LoopFs::skips("a_script_writer_hangs_fails_or_dies", &[Kind::Btrfs]) {
        return Ok(());
    }
    let mut scene = Scene::new()?;
    for (event, deed) in cases() {
        let started = Instant::now();
        let case = format!("script writer, {} {deed:?}", event.name());
        scene.script_culprit(event, deed)?;
        scene.run_is_refused("culprit", code(event, deed, true)).with_context(|| case.clone())?;
        scene.degrades("culprit").with_context(|| format!("{case}, degraded"))?;
        scene.instance.end_writers()?;
        scene.is_alone()?;
        println!("{case}: {} ms", started.elapsed().as_millis());
    }
    Ok(())
}

impl Scene {
    /// Waits until the prompt writer is the only one.
    fn is_alone(&self) -> anyhow::Result<()> {
        let mut management = self.instance.management()?;
        ensure!(wait_until(LIMIT, || management.writers().is_ok_and(|all| all.len() == 1)), "a writer stays");
        Ok(())
    }
}

#[test]
fn a_writer_that_does_not_identify_itself_takes_no_part() -> anyhow::Result<()> {
    if LoopFs::skips("a_writer_that_does_not_identify_itself_takes_no_part", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    for deed in [Deed::Fails, Deed::Dies] {
        let culprit = scene.socket_culprit(EventKind::Identify, deed)?;
        let wanted = ["run", "--writer", "culprit", "--volume", scene.volume()?, "--", "true"];
        let outcome = scene.vss(&wanted)?;
        let names = outcome.stderr.contains("culprit") && outcome.stderr.contains("VSS_E_OBJECT_NOT_FOUND");
        ensure!(outcome.code == Some(125) && names, "Identify {deed:?}: {outcome:?}");
        drop(culprit);
        scene.is_alone()?;
    }
    // Silence is waited for: 30 s. Nothing is held meanwhile, and nobody else is kept waiting.
    let culprit = scene.socket_culprit(EventKind::Identify, Deed::Hangs)?;
    let turn = creation_turn();
    let slow = scene.instance.start_vss(["run", "--volume", scene.volume()?, "--", "true"])?;
    let is_asked = || culprit.handle().records().iter().any(|record| record.kind == EventKind::Identify);
    ensure!(wait_until(LIMIT, is_asked), "no Identify: {}", slow.stderr()?);
    let other = scene.vss(&["run", "--writer", "prompt", "--volume", scene.volume()?, "--", "true"])?;
    ensure!(other.is_success() && other.took < 2 * LIMIT, "the other session: {other:?}");
    let slow = slow.finish()?;
    drop(turn);
    ensure!(slow.is_success() && slow.took < Duration::from_secs(60), "Identify hangs: {slow:?}");
    println!("Identify hangs: without it after {:?}, another session meanwhile in {:?}", slow.took, other.took);
    drop(culprit);
    scene.is_well()?;
    scene.volume.has_no_copies()
}

#[test]
fn a_writer_that_hangs_outside_the_window_can_be_given_up() -> anyhow::Result<()> {
    if LoopFs::skips("a_writer_that_hangs_outside_the_window_can_be_given_up", &[Kind::Btrfs]) {
        return Ok(());
    }
    // Both have 10 minutes, which nobody who is waiting has to wait for. In the second, the command has succeeded.
    let scene = Scene::new()?;
    for (event, code) in [(EventKind::PostSnapshot, 125), (EventKind::BackupComplete, 0)] {
        let culprit = scene.socket_culprit(event, Deed::Hangs)?;
        let turn = creation_turn();
        let run = scene.instance.start_vss(["run", "--volume", scene.volume()?, "--", "true"])?;
        let is_there = || culprit.handle().events().contains(&event);
        ensure!(wait_until(LIMIT, is_there), "no {}: {}", event.name(), run.stderr()?);
        scene.volume.writes_flow()?;
        let given_up = Instant::now();
        run.signal(Signal::INT)?;
        let outcome = run.finish()?;
        drop(turn);
        ensure!(outcome.code == Some(code), "{}: {outcome:?}", event.name());
        ensure!(given_up.elapsed() < LIMIT, "{}: given up only after {:?}", event.name(), given_up.elapsed());
        println!("{} hangs: given up in {} ms", event.name(), given_up.elapsed().as_millis());
        drop(culprit);
        scene.is_alone()?;
        scene.is_well()?;
        let is_clean = || scene.volume.has_no_copies().is_ok();
        ensure!(wait_until(LIMIT, is_clean), "{}: {:?}", event.name(), scene.volume.has_no_copies());
    }
    Ok(())
}

#[test]
fn a_writer_that_fails_in_backup_complete_is_named() -> anyhow::Result<()> {
    if LoopFs::skips("a_writer_that_fails_in_backup_complete_is_named", &[Kind::Btrfs]) {
        return Ok(());
    }
    let mut scene = Scene::new()?;
    let seen = |scene: &Scene, what: &str, code: VssCode| -> anyhow::Result<()> {
        let outcome = scene.vss(&["run", "--volume", scene.volume()?, "--", "sh", "-c", "exit 7"])?;
        // The command has failed: it is Abort that writers get.
        ensure!(outcome.code == Some(7) && outcome.stderr.lines().count() < 3, "{what}: {outcome:?}");
        let outcome = scene.vss(&["run", "--volume", scene.volume()?, "--", "true"])?;
        let names = outcome.stderr.contains("culprit") && outcome.stderr.contains(code.name());
        ensure!(outcome.is_success() && names, "{what}: expected {} in {outcome:?}", code.name());
        scene.is_well()?;
        scene.volume.has_no_copies()
    };
    for deed in [Deed::Fails, Deed::Dies] {
        let culprit = scene.socket_culprit(EventKind::BackupComplete, deed)?;
        seen(&scene, &format!("socket, {deed:?}"), code(EventKind::BackupComplete, deed, false))?;
        drop(culprit);
        scene.is_alone()?;
        scene.script_culprit(EventKind::BackupComplete, deed)?;
        seen(&scene, &format!("script, {deed:?}"), code(EventKind::BackupComplete, deed, true))?;
        scene.instance.end_writers()?;
        scene.is_alone()?;
    }
    Ok(())
}

/// An instance whose fake provider holds an ext4 volume, and misbehaves as described.
fn with_fake(description: serde_json::Value) -> anyhow::Result<(Instance, serde_json::Value)> {
    let mut instance = Instance::new()?;
    let mut fake = serde_json::json!({"store": traces::fake_store(&instance), "policy": "needs_hold"});
    for (name, value) in description.as_object().into_iter().flatten() {
        fake[name] = value.clone();
    }
    instance.set("VSS_FAKE", fake.to_string());
    instance.start()?;
    Ok((instance, fake))
}

fn run_on(instance: &Instance, volume: &Path) -> anyhow::Result<Outcome> {
    let _turn = creation_turn();
    instance.vss(["run".as_ref(), "--volume".as_ref(), volume.as_os_str(), "--".as_ref(), "true".as_ref()])
}

#[test]
fn a_provider_fails_each_phase() -> anyhow::Result<()> {
    if LoopFs::skips("a_provider_fails_each_phase", &[Kind::Ext4]) {
        return Ok(());
    }
    let volume = BusyVolume::new(Kind::Ext4, 32)?;
    let last = Phase::ALL.iter().position(|phase| *phase == Phase::PostFinal).context("PostFinal is a phase")?;
    // The second code is none that a provider may use.
    let codes = [
        (VssCode::InsufficientStorage, VssCode::InsufficientStorage),
        (VssCode::FlushWritesTimeout, VssCode::UnexpectedProviderError),
    ];
    for (phase, (said, told)) in Phase::ALL[..=last].iter().flat_map(|phase| codes.map(|code| (phase, code))) {
        let started = Instant::now();
        let (mut instance, _) = with_fake(serde_json::json!({"fail": [phase.name(), said.name()]}))?;
        let prompt = SocketWriter::join(&instance, FakeWriter::new("prompt", volume.path()))?;
        let outcome = run_on(&instance, volume.path())?;
        let names = outcome.stderr.contains("fake") && outcome.stderr.contains(told.name());
        ensure!(outcome.code == Some(125) && names, "{}: expected {told}, got {outcome:?}", phase.name());
        volume.writes_flow()?;
        traces::has_no_markers(&instance)?;
        traces::has_no_shadows(&instance)?;
        let events = || prompt.handle().events();
        ensure!(wait_until(LIMIT, || check_events(&events()).is_ok()), "{}: {:?}", phase.name(), events());
        instance.stop()?;
        traces::has_no_processes(&instance)?;
        instance.start()?;
        let recovery = instance.management()?.status()?.recovery;
        ensure!(recovery.is_empty(), "{}: left for the next start: {recovery:?}", phase.name());
        println!("provider fails {} with {said}: {} ms", phase.name(), started.elapsed().as_millis());
    }
    Ok(())
}

#[test]
fn a_provider_hangs_in_commit() -> anyhow::Result<()> {
    if LoopFs::skips("a_provider_hangs_in_commit", &[Kind::Ext4]) {
        return Ok(());
    }
    let volume = BusyVolume::new(Kind::Ext4, 32)?;
    let (mut instance, mut fake) = with_fake(serde_json::json!({"hang": ["commit", 60_000]}))?;
    let prompt = SocketWriter::join(&instance, FakeWriter::new("prompt", volume.path()))?;
    volume.writes_flow()?;
    let outcome = run_on(&instance, volume.path())?;
    let names =
        outcome.stderr.contains("Provider fake in commit") && outcome.stderr.contains("VSS_E_HOLD_WRITES_TIMEOUT");
    ensure!(outcome.code == Some(125) && names, "{outcome:?}");
    ensure!(outcome.took < 2 * LIMIT, "told only after {:?}", outcome.took);
    let stall = volume.writes_flow()?;
    ensure!(stall > Duration::from_secs(9), "the guard has thawed after {stall:?} already");
    println!("commit hangs: thawed after {stall:?}, told after {:?}", outcome.took);
    ensure!(wait_until(LIMIT, || check_events(&prompt.handle().events()).is_ok()), "{:?}", prompt.handle().events());
    // The stuck thread goes with its process; what it may have made is undone by the next start.
    instance.kill()?;
    drop(prompt);
    traces::has_no_processes(&instance)?;
    fake["hang"] = serde_json::Value::Null;
    instance.set("VSS_FAKE", fake.to_string());
    instance.start()?;
    traces::has_no_markers(&instance)?;
    traces::has_no_shadows(&instance)?;
    let outcome = run_on(&instance, volume.path())?;
    ensure!(outcome.is_success(), "the next set: {outcome:?}");
    Ok(())
}

#[test]
fn a_full_volume_is_refused() -> anyhow::Result<()> {
    if LoopFs::skips("a_full_volume_is_refused", &[Kind::Btrfs]) {
        return Ok(());
    }
    let volume = LoopFs::new(Kind::Btrfs, 128)?;
    let mut file = File::create(volume.path().join("filler"))?;
    let block = vec![0xa5; 1 << 20];
    while file.write_all(&block).is_ok() && file.sync_all().is_ok() {}
    let instance = Instance::new()?;
    let outcome = run_on(&instance, volume.path())?;
    ensure!(outcome.code == Some(125) && outcome.stderr.contains("VSS_E_INSUFFICIENT_STORAGE"), "{outcome:?}");
    ensure!(!volume.path().join(".vss").exists(), "the directory .vss is left");
    traces::has_no_processes(&instance)
}

#[test]
fn status_is_answered_in_a_hold_and_a_strangers_thaw_voids_the_set() -> anyhow::Result<()> {
    let name = "status_is_answered_in_a_hold_and_a_strangers_thaw_voids_the_set";
    if LoopFs::skips(name, &[Kind::Ext4]) {
        return Ok(());
    }
    let volume = BusyVolume::new(Kind::Ext4, 32)?;
    let directory = volume.volume().open()?;
    let (instance, _) = with_fake(serde_json::json!({"commit_delay_ms": 7000}))?;
    let mut management = instance.management()?;
    ensure!(!management.status()?.holding, "it says that it holds and does nothing");
    let _turn = creation_turn();
    let words = ["run".as_ref(), "--volume".as_ref(), volume.path().as_os_str(), "--".as_ref(), "true".as_ref()];
    let run = instance.start_vss(words)?;
    ensure!(wait_until(LIMIT, || management.status().is_ok_and(|status| status.holding)), "no hold: {}", run.stderr()?);
    // It says so from the last flush on.
    ensure!(wait_until(LIMIT, || volume.volume().is_frozen()), "nothing is frozen");
    let mut took = Vec::new();
    for _ in 0..10 {
        let asked = Instant::now();
        // A new connection each time: somebody who comes during the hold is answered too.
        let status = instance.management()?.status()?;
        took.push(asked.elapsed());
        ensure!(status.holding && status.creating.is_some(), "in the hold: {status:?}");
        management.shadows()?;
    }
    // Some may have to wait for a processor.
    took.sort();
    println!("status in a hold: {:.1} to {:.1} ms", took[0].as_secs_f64() * 1000.0, took[9].as_secs_f64() * 1000.0);
    // Who waited for the window would wait for seconds.
    ensure!(took[4] < Duration::from_millis(500) && took[9] < Duration::from_secs(2), "status took {took:?}");
    freeze::thaw(&directory)?;
    let outcome = run.finish()?;
    ensure!(outcome.code == Some(125) && outcome.stderr.contains("VSS_E_HOLD_WRITES_TIMEOUT"), "{outcome:?}");
    let culprit = format!("{}: somebody else thawed the file system", volume.path().display());
    ensure!(outcome.stderr.contains(&culprit), "which member, and by whom: {outcome:?}");
    volume.writes_flow()?;
    traces::has_no_markers(&instance)?;
    traces::has_no_shadows(&instance)?;
    drop(directory);
    Ok(())
}
