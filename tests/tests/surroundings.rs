//! What a machine may be like: names on disk that are no text, and a service that was started from anybody's shell.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use vss_tests::instance::{Instance, Running};
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::traces;
use vss_tests::turn::creation_turn;
use vss_tests::volume::Volume;

/// `b` and a byte that belongs to no character.
fn odd_name() -> &'static OsStr {
    OsStr::from_bytes(b"b\xff")
}

fn words(words: &[&OsStr]) -> Vec<OsString> {
    words.iter().map(|&word| word.to_owned()).collect()
}

#[test]
fn names_that_are_no_text_are_copied_and_shown() -> anyhow::Result<()> {
    if LoopFs::skips("names_that_are_no_text_are_copied_and_shown", &[Kind::Btrfs]) {
        return Ok(());
    }
    let (instance, volume) = (Instance::new()?, Volume::new()?);
    let nested = volume.path().join(odd_name());
    let made = Command::new("btrfs").args(["subvolume", "create"]).arg(&nested).stdout(Stdio::null()).status()?;
    ensure!(made.success(), "no subvolume of this name could be made");
    fs::write(nested.join("file"), "old")?;
    let place = instance.path().join(odd_name());
    fs::create_dir(&place)?;

    let turn = creation_turn();
    let set = instance.vss(["create", "--json", "--persistent", volume.name()])?.json()?;
    let copy = &set["shadows"][0];
    ensure!(copy["nested"][0]["path"] == "b\0ff", "{copy}");
    let id = copy["id"].as_str().context("an id")?;
    let exposed = instance.vss(words(&["expose".as_ref(), id.as_ref(), place.as_os_str()]))?;
    ensure!(exposed.is_success(), "{exposed:?}");
    let file = place.join(odd_name()).join("file");
    ensure!(fs::read_to_string(&file).is_ok_and(|text| text == "old"), "{} is not in the copy", file.display());
    let listed = instance.vss(["list", "shadows", "--json"])?.json()?;
    let shown = listed["shadows"][0]["path"].as_str().context("a path")?;
    ensure!(vss_model::path_text::from_text(shown).as_deref() == Some(&*place), "{listed}");
    let unexposed = instance.vss(words(&["unexpose".as_ref(), place.as_os_str()]))?;
    ensure!(unexposed.is_success(), "{unexposed:?}");

    let inside = nested.join("file");
    let run = ["run", "--volume"].map(OsStr::new);
    let run = [run[0], run[1], nested.as_os_str(), "--".as_ref(), "cat".as_ref(), inside.as_os_str()];
    let outcome = instance.vss(words(&run))?;
    ensure!(outcome.is_success() && outcome.stdout == "old", "{outcome:?}");
    drop(turn);
    ensure!(instance.vss(["delete", "--all"])?.is_success());
    traces::has_no_shadows(&instance)?;
    traces::has_no_processes(&instance)
}

#[test]
fn who_starts_the_service_leaves_nothing_of_its_own_in_it() -> anyhow::Result<()> {
    if LoopFs::skips("who_starts_the_service_leaves_nothing_of_its_own_in_it", &[Kind::Btrfs]) {
        return Ok(());
    }
    let (instance, volume) = (Instance::new()?, Volume::new()?);
    let seen = instance.path().join("seen");
    let hook = instance.freeze_directory().join("hook");
    fs::write(&hook, format!("#!/bin/sh\n{{ env; umask; }} > {}\n", seen.display()))?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
    let _turn = creation_turn();
    let mut shell = Command::new("/bin/sh");
    let vss = instance.command("vss");
    shell.envs(vss.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.env("RESTIC_PASSWORD", "a password").env("LD_LIBRARY_PATH", "/no/such/directory");
    shell.args(["-c", "umask 077; exec \"$@\"", "sh"]).arg(vss.get_program()).args(instance.arguments());
    shell.args(["run", "--volume", volume.name(), "--", "sh", "-c", "echo $RESTIC_PASSWORD; umask"]);
    let outcome = Running::start(shell)?.finish()?;
    ensure!(outcome.is_success() && outcome.stdout == "a password\n0077\n", "{outcome:?}");
    let seen = fs::read_to_string(seen)?;
    ensure!(!seen.contains("RESTIC_PASSWORD") && !seen.contains("LD_LIBRARY_PATH"), "the hook saw {seen}");
    ensure!(seen.ends_with("0022\n") && seen.contains("VSS_SET_ID="), "the hook saw {seen}");
    for (directory, mode) in [("", 0o755), ("shadows", 0o700), ("staging", 0o700)] {
        let path = instance.runtime_dir().join(directory);
        let found = fs::metadata(&path)?.permissions().mode() & 0o777;
        ensure!(found == mode, "{}: mode {found:o}", path.display());
    }
    traces::has_no_shadows(&instance)?;
    traces::has_no_processes(&instance)
}
