//! How `vss run` ends: its exit statuses, what is left, and what it says when there is no copy.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tempfile::TempDir;
use vss_linux::process::Signal;
use vss_tests::gate::Gate;
use vss_tests::instance::{Instance, Outcome, Running, wait_until};
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::programs::program;
use vss_tests::turn::creation_turn;
use vss_tests::volume::Mounted;
use vss_tests::writers::ScriptWriter;

use super::{NOBODY, Scene, ends_with};

/// What nobody waits for is tidied up within this time.
const TIDY: Duration = Duration::from_secs(30);

#[test]
fn nothing_is_left_however_it_ends() -> anyhow::Result<()> {
    if LoopFs::skips("nothing_is_left_however_it_ends", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    scene.volume.make_subvolume("nested")?;
    let options = ["--volume", scene.volume.name()];
    ends_with(&scene.run(&options, &["false"])?, 1)?;
    scene.is_over().context("after a command that failed")?;
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let gate = Gate::new()?;
        let run = scene.start(&options, &gate, "exit 9")?;
        run.signal(signal)?;
        ends_with(&run.finish()?, code)?;
        scene.is_over().with_context(|| format!("after {signal:?}"))?;
    }
    // A signal that the command knows what to do with.
    let gate = Gate::new()?;
    let script = format!("trap 'exit 5' USR1; {}", gate.shell());
    let turn = creation_turn();
    let run = scene.instance.start_vss([&["run"], &options[..], &["--", "sh", "-c", &script]].concat())?;
    gate.reached_by(&run)?;
    drop(turn);
    run.signal(Signal::USR1)?;
    ends_with(&run.finish()?, 5)?;
    scene.is_over().context("after SIGUSR1")?;
    // Nobody is left to tidy up but the service.
    let gate = Gate::new()?;
    let run = scene.start(&options, &gate, "exit 9")?;
    ensure!(scene.volume.copies()?.len() == 2, "no copies: {:?}", scene.volume.copies());
    run.signal(Signal::KILL)?;
    let killed = Instant::now();
    ensure!(run.finish()?.signal == Some(9), "not killed");
    ensure!(wait_until(TIDY, || scene.volume.is_clean().is_ok()), "{:?}", scene.volume.is_clean());
    println!("tidied up {:?} after SIGKILL of vss", killed.elapsed());
    scene.is_over().context("after SIGKILL")
}

#[test]
fn exit_statuses_are_the_commands_own() -> anyhow::Result<()> {
    if LoopFs::skips("exit_statuses_are_the_commands_own", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    for (command, code) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 3"], 3),
        (&["sh", "-c", "exit 200"], 200),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["sh", "-c", "kill -15 $$"], 143),
        (&["/etc/passwd"], 126),
        (&["/"], 126),
        (&["no-such-program-of-ours"], 127),
        (&["/no/such/program"], 127),
    ] {
        let outcome = scene.run_on_volume(command)?;
        ends_with(&outcome, code).with_context(|| format!("{command:?}"))?;
        ensure!(outcome.stderr.contains(command[0]) == [126, 127].contains(&code), "{command:?}: {outcome:?}");
        scene.volume.is_clean()?;
    }
    scene.is_over()
}

#[test]
fn wrong_usage_is_2() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    for line in [
        "",
        "run",
        "run -- true",
        "run --volume / true",
        "run --volume /",
        "run --volume / --require nothing -- true",
        "run --volume / --frobnicate -- true",
        "create",
        "delete",
        "list",
        "list everything",
        "show x",
        "expose x /mnt",
    ] {
        let outcome = instance.vss(line.split_whitespace())?;
        ensure!(outcome.code == Some(2) && !outcome.stderr.is_empty(), "vss {line}: {outcome:?}");
    }
    ensure!(instance.processes().is_empty(), "a service was started: {:?}", instance.processes());
    let help = instance.vss(["run", "--help"])?;
    ensure!(help.is_success() && help.stdout.contains("Examples:"), "{help:?}");
    Ok(())
}

#[test]
fn without_a_copy_the_command_is_not_run() -> anyhow::Result<()> {
    if LoopFs::skips("without_a_copy_the_command_is_not_run", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    let volume = &scene.volume;
    let gate = Gate::new()?;
    let flag = gate.path().join("it-ran");
    let touch = ["touch", flag.to_str().context("a path in UTF-8")?];
    let memory = Mounted::memory(&gate.path().join("memory"))?;
    let missing = format!("{}/missing", volume.name());
    let mut cases: Vec<(&str, Outcome, Vec<&str>)> = Vec::new();
    for (what, options, words) in [
        ("tmpfs", &["--volume", memory.name()][..], vec!["VSS_E_VOLUME_NOT_SUPPORTED", memory.name()]),
        ("one of two", &["--volume", volume.name(), "--volume", memory.name()], vec!["VSS_E_VOLUME_NOT_SUPPORTED"]),
        ("a missing path", &["--volume", &missing], vec!["VSS_E_OBJECT_NOT_FOUND", &missing]),
        (
            "a missing --live",
            &["--volume", volume.name(), "--live", &missing],
            vec!["VSS_E_OBJECT_NOT_FOUND", &missing],
        ),
        (
            "no such writer",
            &["--volume", volume.name(), "--writer", "oracle"],
            vec!["VSS_E_OBJECT_NOT_FOUND", "oracle"],
        ),
        (
            "no such provider",
            &["--volume", volume.name(), "--provider", "zip"],
            vec!["VSS_E_PROVIDER_NOT_REGISTERED", "zip"],
        ),
        ("no sudo", &["--volume", volume.name(), "--as-caller"], vec!["E_INVALIDARG", "sudo"]),
        (
            "too much is required",
            &["--volume", volume.name(), "--require", "application"],
            vec!["VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT", volume.name()],
        ),
    ] {
        cases.push((what, scene.run(options, &touch)?, words));
    }
    cases.push(("no root", run_as_nobody(&scene, &touch)?, vec!["E_ACCESSDENIED", "sudo"]));
    let misdeed = Some(("freeze", "echo failed nonretryable its data is broken"));
    let script = ScriptWriter::install(&scene.instance, "broken", volume.path(), misdeed)?;
    let words = vec!["VSS_E_WRITERERROR_NONRETRYABLE", "broken", "its data is broken"];
    // Its settings are read when the service starts.
    scene.is_over()?;
    cases.push(("a writer fails", scene.run_on_volume(&touch)?, words));
    ensure!(script.phases().iter().any(|phase| phase == "abort"), "the script was not told: {:?}", script.phases());
    for (what, outcome, words) in cases {
        ends_with(&outcome, 125).with_context(|| what.to_owned())?;
        let is_said = outcome.stderr.starts_with("vss: ") && words.iter().all(|word| outcome.stderr.contains(word));
        ensure!(is_said, "{what}: expected {words:?} in {outcome:?}");
        println!("{what}: {}", outcome.stderr.trim_end());
    }
    ensure!(!flag.exists(), "a command was run without a copy");
    scene.is_over()
}

/// `vss run` without root, from a copy of the program that everybody can reach.
fn run_as_nobody(scene: &Scene, command: &[&str]) -> anyhow::Result<Outcome> {
    let place = TempDir::new()?;
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755))?;
    // By another process: one that another thread forks meanwhile must not have the program open for writing.
    let copied = Command::new("cp").arg(program("vss")).arg(place.path()).status()?;
    ensure!(copied.success(), "cp failed");
    let mut vss = Command::new(place.path().join("vss"));
    vss.arg("run").args(scene.instance.arguments()).args(["--volume", "/", "--"]).args(command);
    Running::start({
        vss.uid(NOBODY).gid(NOBODY).current_dir("/").stdin(Stdio::null());
        vss
    })?
    .finish()
}
