//! What the command has of its caller: surroundings, and with `--as-caller` the user.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use vss_tests::gate::Gate;
use vss_tests::instance::Running;
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::programs::program;
use vss_tests::turn::creation_turn;

use super::{NOBODY, Scene, ends_with};

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
