//! `vss run`, as its users meet it: what the command sees, what everybody else sees meanwhile, what is left, and how it ends.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
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
use vss_tests::volume::{Mounted, Volume};
use vss_tests::writers::ScriptWriter;

/// A service on demand is gone so long after its last command.
const FAREWELL: Duration = Duration::from_secs(1);
/// What nobody waits for is tidied up within this time.
const TIDY: Duration = Duration::from_secs(10);
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

    /// Nothing is left at once, and no process after a second.
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

#[test]
fn the_commands_surroundings_are_the_callers() -> anyhow::Result<()> {
    if LoopFs::skips("the_commands_surroundings_are_the_callers", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    scene.volume.write("dir/file", "old")?;
    let gate = Gate::new()?;
    fs::write(gate.path().join("input"), "from stdin\n")?;
    let _turn = creation_turn();
    let vss = |words: &[&str]| {
        let mut command = scene.instance.command("vss");
        command.args(scene.instance.arguments()).args(["run", "--volume", scene.volume.name(), "--"]).args(words);
        command
    };
    // Outside the volume.
    let mut command = vss(&["sh", "-c", "pwd; cat; echo \"$OURS\"; umask; ulimit -n; echo to stderr >&2"]);
    command.current_dir(gate.path()).env("OURS", "kept").stdin(File::open(gate.path().join("input"))?);
    let expected = Command::new("sh").args(["-c", "umask; ulimit -n"]).output()?.stdout;
    let outcome = Running::start(command)?.finish()?;
    let expected = format!("{}\nfrom stdin\nkept\n{}", gate.path().display(), String::from_utf8(expected)?);
    ensure!(outcome.stdout == expected && outcome.stderr == "to stderr\n", "expected {expected:?}, got {outcome:?}");
    // On the volume: the same directory, of the copy.
    let mut command = vss(&["sh", "-c", "pwd; cat file; touch file"]);
    command.current_dir(scene.volume.path().join("dir")).stdin(Stdio::null());
    let outcome = Running::start(command)?.finish()?;
    let expected = format!("{}/dir\nold", scene.volume.name());
    ensure!(outcome.stdout == expected && outcome.stderr.contains("Read-only"), "{outcome:?}");
    // On a terminal.
    let words: Vec<OsString> = std::iter::once(program("vss").into())
        .chain(scene.instance.arguments())
        .chain(
            ["run", "--volume", scene.volume.name(), "--", "sh", "-c", "'test -t 0 && test -t 1 && tty'"]
                .map(Into::into),
        )
        .collect();
    let mut command = Command::new("script");
    command.args(["-qec"]).arg(words.join(" ".as_ref())).arg("/dev/null").stdin(Stdio::null());
    if Command::new("script").arg("--version").output().is_err() {
        println!("SKIPPED: the_commands_surroundings_are_the_callers: the part on a terminal: needs script(1)");
        return scene.volume.is_clean();
    }
    let outcome = Running::start(command)?.finish()?;
    let is_shown = outcome.stdout.contains("/dev/pts/") && outcome.stdout.contains("Shadow copy set");
    ensure!(outcome.is_success() && is_shown, "on a terminal: {outcome:?}");
    println!("{}", outcome.stdout);
    scene.volume.is_clean()
}

#[test]
fn as_caller_the_command_is_the_sudo_users() -> anyhow::Result<()> {
    if LoopFs::skips("as_caller_the_command_is_the_sudo_users", &[Kind::Btrfs]) {
        return Ok(());
    }
    let scene = Scene::new()?;
    let volume = &scene.volume;
    // The mount point lies in a directory of root's.
    let above = volume.path().parent().context("a mount point below /")?;
    fs::set_permissions(above, fs::Permissions::from_mode(0o755))?;
    volume.write("secret", "for root only")?;
    fs::set_permissions(volume.path().join("secret"), fs::Permissions::from_mode(0o600))?;
    let gate = Gate::new()?;
    let script = format!(
        "id -u; id -g; id -G; echo $USER $LOGNAME; cat {0}/file; cat {0}/secret; touch {1}/backup",
        volume.name(),
        gate.path().display()
    );
    let mut command = scene.instance.command("vss");
    command.args(scene.instance.arguments()).args(["run", "--as-caller", "--volume", volume.name(), "--"]);
    command.args(["sh", "-c", &script]).env("SUDO_UID", NOBODY.to_string()).env("SUDO_GID", NOBODY.to_string());
    let turn = creation_turn();
    let outcome = Running::start(command)?.finish()?;
    drop(turn);
    ends_with(&outcome, 0)?;
    ensure!(outcome.stdout == "65534\n65534\n65534\nnobody nobody\nold", "{outcome:?}");
    ensure!(outcome.stderr.contains("Permission denied"), "root's file was read: {outcome:?}");
    ensure!(gate.path().join("backup").exists(), "the repository is not writable");
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
