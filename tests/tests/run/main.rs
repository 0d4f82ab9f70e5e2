//! `vss run`, as its users meet it: what the command sees, and what everybody else sees meanwhile. In the modules: how it ends
//! and what is left, and what the command has of its caller.

mod callers;
mod ends;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use vss_tests::gate::Gate;
use vss_tests::instance::{Instance, Outcome, Running, wait_until};
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::turn::creation_turn;
use vss_tests::volume::{Mounted, Volume};

/// A service on demand is gone so long after its last command.
const FAREWELL: Duration = Duration::from_secs(10);
/// Uid and gid of `nobody`.
const NOBODY: u32 = 65534;

/// An instance on demand and a volume with the file `file`, whose text is `old`.
struct Scene {
    instance: Instance,
    volume: Volume,
}

impl Scene {
    fn new() -> anyhow::Result<Self> {
        let volume = Volume::new()?;
        volume.write("file", "old")?;
        Ok(Self { instance: Instance::new()?, volume })
    }

    /// Starts `vss run OPTIONS... -- sh -c SCRIPT` and waits until its command stands at the gate.
    fn start(&self, options: &[&str], gate: &Gate, script: &str) -> anyhow::Result<Running> {
        let script = format!("{}\n{script}", gate.shell());
        let _turn = creation_turn();
        let run = self.instance.start_vss([&["run"], options, &["--", "sh", "-c", &script]].concat())?;
        gate.reached_by(&run)?;
        Ok(run)
    }

    /// Runs `vss run OPTIONS... -- COMMAND...` to its end.
    fn run(&self, options: &[&str], command: &[&str]) -> anyhow::Result<Outcome> {
        let _turn = creation_turn();
        self.instance.vss([&["run"], options, &["--"], command].concat())
    }

    fn run_on_volume(&self, command: &[&str]) -> anyhow::Result<Outcome> {
        self.run(&["--volume", self.volume.name()], command)
    }

    /// Nothing is left at once, and soon no process.
    fn is_over(&self) -> anyhow::Result<()> {
        self.volume.is_clean()?;
        let mounts = self.instance.mounts();
        ensure!(mounts.is_empty(), "mounts are left: {mounts:?}");
        let ended = Instant::now();
        let is_gone = wait_until(FAREWELL, || self.instance.processes().is_empty());
        ensure!(is_gone, "{:?} after the command: {:?}", ended.elapsed(), self.instance.processes());
        Ok(())
    }
}

/// The command came to this exit status.
fn ends_with(outcome: &Outcome, code: i32) -> anyhow::Result<()> {
    ensure!(outcome.code == Some(code), "expected exit status {code}: {outcome:?}");
    Ok(())
}

#[test]
fn the_command_sees_the_past_and_everybody_else_the_present() -> anyhow::Result<()> {
    if LoopFs::skips("the_command_sees_the_past_and_everybody_else_the_present", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    let volume = &scene.volume;
    volume.make_subvolume("nested one")?;
    volume.make_subvolume("nested one/deeper")?;
    let files = ["file", "doomed", "nested one/file", "nested one/deeper/file"];
    for file in files {
        volume.write(file, "old\n")?;
    }
    let gate = Gate::new()?;
    let beside = gate.path().join("repository");
    let script = format!(
        "cd '{}' || exit 9\n\
         cat file doomed 'nested one/file' 'nested one/deeper/file'\n\
         for place in . 'nested one' 'nested one/deeper'; do touch \"$place/written\" && echo \"$place is writable\"; done\n\
         rm file && echo gone\n\
         echo backup > {}\n\
         ls -a; echo $VSS_CONSISTENCY",
        volume.name(),
        beside.display()
    );
    let run = scene.start(&["--volume", volume.name()], &gate, &script)?;
    for file in files {
        volume.write(file, "new\n")?;
    }
    fs::remove_file(volume.path().join("doomed"))?;
    gate.open()?;
    let outcome = run.finish()?;
    ends_with(&outcome, 0)?;
    let expected = "old\nold\nold\nold\n.\n..\ndoomed\nfile\nnested one\ncrash\n";
    ensure!(outcome.stdout == expected, "inside: {outcome:?}");
    ensure!(outcome.stderr.matches("Read-only").count() == 4, "inside: {outcome:?}");
    ensure!(volume.read("file")? == "new\n" && volume.read("nested one/deeper/file")? == "new\n", "outside: old");
    ensure!(fs::read_to_string(beside)? == "backup\n", "the repository is not what the command wrote");
    scene.is_over()
}

#[test]
fn a_directory_alone_is_covered() -> anyhow::Result<()> {
    if LoopFs::skips("a_directory_alone_is_covered", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    let volume = &scene.volume;
    volume.write("data/file", "old ")?;
    volume.write("data/spool/file", "old ")?;
    volume.write("repository/file", "old ")?;
    let (data, spool) = (format!("{}/data", volume.name()), format!("{}/data/spool", volume.name()));
    let gate = Gate::new()?;
    let script = format!(
        "cd {} && cat data/file data/spool/file repository/file && echo backup > repository/backup && \
         echo sent > data/spool/sent",
        volume.name()
    );
    let run = scene.start(&["--volume", &data, "--live", &spool], &gate, &script)?;
    for file in ["data/file", "data/spool/file", "repository/file"] {
        volume.write(file, "new ")?;
    }
    gate.open()?;
    let outcome = run.finish()?;
    ends_with(&outcome, 0)?;
    ensure!(outcome.stdout == "old new new ", "{outcome:?}");
    ensure!(volume.read("repository/backup")? == "backup\n" && volume.read("data/spool/sent")? == "sent\n", "not live");
    ensure!(outcome.stderr.is_empty(), "nothing is to be said: {outcome:?}");
    scene.is_over()
}

#[test]
fn a_path_may_be_named_in_every_way() -> anyhow::Result<()> {
    if LoopFs::skips("a_path_may_be_named_in_every_way", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    let volume = &scene.volume;
    volume.make_subvolume("nested one")?;
    let files = ["plain/file", "nested one/directory/file", "a b\tc\nd\\e/file", "\u{e4}\u{4e2d}/file", "-v/file"];
    for file in files {
        volume.write(file, "old")?;
    }
    let gate = Gate::new()?;
    let link = gate.path().join("link");
    symlink(volume.path().join("plain"), &link)?;
    let mounted = Mounted::bind(&volume.path().join("nested one/directory"), &gate.path().join("mounted here"))?;
    let place = |path: &str| format!("{}/{path}", volume.name());
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path in UTF-8");
    for (path, file) in [
        (text(&link)?, place("plain/file")),
        (text(&link)?, format!("{}/file", text(&link)?)),
        (place("plain/../plain/."), place("plain/file")),
        (place("plain/file"), place("plain/file")),
        (place("nested one"), place("nested one/directory/file")),
        (place("nested one/directory"), place("nested one/directory/file")),
        (place(files[2].trim_end_matches("/file")), place(files[2])),
        (place(files[3].trim_end_matches("/file")), place(files[3])),
        (mounted.name().to_owned(), format!("{}/file", mounted.name())),
        ("-v".to_owned(), place("-v/file")),
        ("plain".to_owned(), "plain/file".to_owned()),
    ] {
        for file in files {
            volume.write(file, "old")?;
        }
        let gate = Gate::new()?;
        // What is asked for is seen in the past, and nothing else.
        let script = format!("{}; cat \"$0\" && cat {}/file", gate.shell(), volume.name());
        let mut command = scene.instance.command("vss");
        let volumes = [format!("--volume={path}"), format!("--volume={path}")];
        command.args(scene.instance.arguments()).arg("run").args(volumes).args(["--", "sh", "-c", &script, &file]);
        let turn = creation_turn();
        let run = Running::start({
            command.current_dir(volume.path()).stdin(Stdio::null());
            command
        })?;
        gate.reached_by(&run).with_context(|| format!("{path:?}"))?;
        drop(turn);
        volume.write("file", "live")?;
        for file in files {
            volume.write(file, "new")?;
        }
        gate.open()?;
        let outcome = run.finish()?;
        ensure!(outcome.is_success() && outcome.stdout == "oldlive", "{path:?}: {outcome:?}");
        ensure!(volume.copies()?.is_empty(), "{path:?}: copies are left");
    }
    drop(mounted);
    scene.is_over()
}

#[test]
fn a_mount_below_is_live_or_in_the_set() -> anyhow::Result<()> {
    if LoopFs::skips("a_mount_below_is_live_or_in_the_set", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    let volume = &scene.volume;
    let other = Volume::new()?;
    let below = Mounted::bind(other.path(), &volume.path().join("below"))?;
    let (outer, both) = (["--volume", volume.name()], ["--volume", volume.name(), "--volume", other.name()]);
    let by_the_mount = ["--volume", volume.name(), "--volume", below.name()];
    let live = [&both[..], &["--live", below.name()]].concat();
    for (options, seen, is_told) in
        [(&outer[..], "new", true), (&both, "old", false), (&by_the_mount, "old", false), (&live, "new", false)]
    {
        volume.write("file", "old")?;
        other.write("file", "old")?;
        let gate = Gate::new()?;
        let script = format!("cat {}/file {}/file", volume.name(), below.name());
        let run = scene.start(options, &gate, &script)?;
        volume.write("file", "new")?;
        other.write("file", "new")?;
        gate.open()?;
        let outcome = run.finish()?;
        ends_with(&outcome, 0)?;
        ensure!(outcome.stdout == format!("old{seen}"), "{options:?}: {outcome:?}");
        ensure!(outcome.stderr.contains(below.name()) == is_told, "{options:?}: {outcome:?}");
        ensure!(volume.copies()?.is_empty() && other.copies()?.is_empty(), "{options:?}: copies are left");
    }
    drop(below);
    other.is_clean()?;
    scene.is_over()
}

#[test]
fn two_at_once_on_different_volumes() -> anyhow::Result<()> {
    if LoopFs::skips("two_at_once_on_different_volumes", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    let other = Volume::new()?;
    other.write("file", "old")?;
    for _ in 0..3 {
        let gates = [Gate::new()?, Gate::new()?];
        let start = |volume: &Volume, gate: &Gate| {
            let script = format!("{}; cat {}/file", gate.shell(), volume.name());
            scene.instance.start_vss(["run", "--volume", volume.name(), "--", "sh", "-c", &script])
        };
        let turn = creation_turn();
        // Both find no service, and both want to start it.
        let runs = [start(&scene.volume, &gates[0])?, start(&other, &gates[1])?];
        // Each goes on only when both are inside.
        gates[0].reached_by(&runs[0])?;
        gates[1].reached_by(&runs[1])?;
        drop(turn);
        for (run, gate) in runs.into_iter().zip(&gates) {
            gate.open()?;
            let outcome = run.finish()?;
            ends_with(&outcome, 0)?;
            ensure!(outcome.stdout == "old", "{outcome:?}");
        }
        other.is_clean()?;
        scene.is_over()?;
    }
    Ok(())
}

#[test]
fn restic_backs_up_the_past() -> anyhow::Result<()> {
    let test = "restic_backs_up_the_past";
    if LoopFs::skips(test, &[Kind::Btrfs]) {
        return Ok(());
    }
    if Command::new("restic").arg("version").output().is_err() {
        println!("SKIPPED: {test}: needs restic");
        return Ok(());
    }
    let mut scene = Scene::new()?;
    let gate = Gate::new()?;
    let place = |name: &str| gate.path().join(name);
    for (name, value) in [("RESTIC_REPOSITORY", "repository"), ("RESTIC_CACHE_DIR", "cache")] {
        scene.instance.set(name, place(value));
    }
    scene.instance.set("RESTIC_PASSWORD", "a password");
    let volume = &scene.volume;
    volume.make_subvolume("nested")?;
    volume.write("nested/file", "old")?;
    let restic = |words: &[&str]| -> anyhow::Result<()> {
        let mut command = Command::new("restic");
        let variables = [("RESTIC_REPOSITORY", place("repository")), ("RESTIC_CACHE_DIR", place("cache"))];
        command.args(words).envs(variables).env("RESTIC_PASSWORD", "a password");
        let output = command.output()?;
        ensure!(output.status.success(), "restic {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    restic(&["init"])?;
    let run = scene.start(&["--volume", volume.name()], &gate, &format!("exec restic backup {}", volume.name()))?;
    volume.write("file", "new")?;
    fs::remove_file(volume.path().join("nested/file"))?;
    gate.open()?;
    ends_with(&run.finish()?, 0)?;
    restic(&["check", "--read-data"])?;
    restic(&["restore", "latest", "--target", place("restored").to_str().context("a path in UTF-8")?])?;
    let restored = |file: &str| fs::read_to_string(inside(&place("restored"), &volume.path().join(file)));
    ensure!(restored("file")? == "old" && restored("nested/file")? == "old", "restored: {:?}", restored("file"));
    scene.is_over()
}

/// The absolute `path` below `root`.
fn inside(root: &Path, path: &Path) -> std::path::PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}
