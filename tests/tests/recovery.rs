//! vssd is killed while copies are kept, exposed and used: the next start keeps what is to be kept, puts the rest right, and
//! says what it did.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use rustix::mount::{MountFlags, mount};
use vss_linux::process::Signal;
use vss_tests::gate::Gate;
use vss_tests::instance::{Instance, Running};
use vss_tests::loopfs::{Kind, LoopFs, unmount_idle};
use vss_tests::programs::program;
use vss_tests::traces;
use vss_tests::turn::creation_turn;
use vss_tests::volume::Volume;

/// A persistent copy of the volume, whose file `file` is `old`, exposed at the directory `exposed` of the instance. Returns
/// its id.
fn exposed_copy(instance: &Instance, volume: &Volume) -> anyhow::Result<String> {
    volume.make_subvolume("nested")?;
    volume.write("nested/file", "old")?;
    volume.write("file", "old")?;
    let turn = creation_turn();
    let set = instance.vss(["create", "--persistent", "--json", volume.name()])?.json()?;
    drop(turn);
    volume.write("file", "new")?;
    let id = set["shadows"][0]["id"].as_str().context("an id")?.to_owned();
    let place = instance.path().join("exposed");
    fs::create_dir(&place)?;
    let exposed = instance.vss(["expose".as_ref(), id.as_ref(), place.as_os_str()])?;
    ensure!(exposed.is_success(), "{exposed:?}");
    Ok(id)
}

/// The copy is where it was exposed, and the list says so.
fn is_exposed(instance: &Instance, id: &str) -> anyhow::Result<()> {
    let place = instance.path().join("exposed");
    for file in ["file", "nested/file"] {
        ensure!(fs::read_to_string(place.join(file))? == "old", "{file} is not as it was");
    }
    let shadows = instance.management()?.shadows()?;
    ensure!(shadows.len() == 1 && shadows[0].id.to_string() == id, "listed: {shadows:?}");
    ensure!(shadows[0].path.as_ref() == Some(&place), "listed at {:?}", shadows[0].path);
    Ok(())
}

/// Takes away by hand what is mounted in the instance's directory.
fn unmount_all(instance: &Instance) -> anyhow::Result<()> {
    instance.mounts().iter().rev().try_for_each(|place| unmount_idle(place))
}

#[test]
fn a_killed_service_keeps_what_is_to_be_kept() -> anyhow::Result<()> {
    if LoopFs::skips("a_killed_service_keeps_what_is_to_be_kept", &[Kind::Btrfs]) {
        return Ok(());
    }
    let volume = Volume::new()?;
    let mut instance = Instance::new()?;
    instance.start()?;
    let id = exposed_copy(&instance, &volume)?;
    for round in 0..3 {
        // A backup is running; it is killed with the service, so that nobody tidies up.
        let gate = Gate::new()?;
        let turn = creation_turn();
        let run = instance.start_vss(["run", "--volume", volume.name(), "--", "sh", "-c", &gate.shell()])?;
        gate.reached_by(&run)?;
        drop(turn);
        let stray = instance.runtime_dir().join("shadows/b5946137-7b9f-4925-af80-51abd60b20d5");
        fs::create_dir(&stray)?;
        mount("none", &stray, "tmpfs", MountFlags::empty(), Some(c"size=1m"))?;
        run.signal(Signal::STOP)?;
        instance.kill()?;
        run.signal(Signal::KILL)?;
        run.finish()?;
        ensure!(volume.copies()?.len() == 4, "the copies of both, with a nested one each: {:?}", volume.copies());
        ensure!(
            fs::read_to_string(instance.path().join("exposed/file"))? == "old",
            "the exposure went with the service"
        );

        instance.start()?;
        let recovery = instance.management()?.status()?.recovery;
        println!("round {round}: {recovery:?}");
        let is_said = |words: &str| recovery.iter().filter(|line| line.contains(words)).count() == 1;
        ensure!(
            recovery.len() == 2 && is_said("its session has ended") && is_said("Unmounted 1 mount"),
            "{recovery:?}"
        );
        ensure!(recovery.iter().all(|line| !line.contains(&id)), "the kept copy was touched: {recovery:?}");
        ensure!(volume.copies()?.len() == 2, "{:?}", volume.copies());
        let shadows = instance.runtime_dir().join("shadows");
        ensure!(fs::read_dir(&shadows)?.next().is_none(), "something is left in {}", shadows.display());
        let mounts = instance.mounts();
        ensure!(mounts.iter().all(|mount| mount.starts_with(instance.path().join("exposed"))), "left: {mounts:?}");
        is_exposed(&instance, &id)?;
        // The log is for those who were not there.
        ensure!(recovery.iter().all(|line| instance.log().contains(line.as_str())), "not in the log: {recovery:?}");
    }
    // Put right once, there is nothing to say.
    instance.stop()?;
    instance.start()?;
    ensure!(instance.management()?.status()?.recovery.is_empty(), "{:?}", instance.management()?.status()?.recovery);
    is_exposed(&instance, &id)?;
    let deleted = instance.vss(["delete", &id])?;
    ensure!(deleted.is_success(), "{deleted:?}");
    instance.stop()?;
    traces::has_no_shadows(&instance)?;
    volume.is_clean()
}

#[test]
fn an_exposure_is_there_again_after_a_boot() -> anyhow::Result<()> {
    if LoopFs::skips("an_exposure_is_there_again_after_a_boot", &[Kind::Btrfs]) {
        return Ok(());
    }
    let volume = Volume::new()?;
    let instance = Instance::new()?;
    let id = exposed_copy(&instance, &volume)?;
    traces::has_no_processes(&instance)?;
    let place = instance.path().join("exposed");
    unmount_all(&instance)?;
    // Taken away by hand, it is not brought back.
    let listed = instance.vss(["list", "shadows", "--json"])?.json()?;
    ensure!(listed["shadows"][0]["path"].is_null() && instance.mounts().is_empty(), "{listed}");
    let exposed = instance.vss(["expose".as_ref(), id.as_ref(), place.as_os_str()])?;
    ensure!(exposed.is_success(), "{exposed:?}");
    traces::has_no_processes(&instance)?;
    unmount_all(&instance)?;

    // A boot has an id of its own; what it shows is seen in the mount namespace that has it.
    fs::remove_dir_all(instance.runtime_dir())?;
    let boot_id = instance.path().join("boot_id");
    fs::write(&boot_id, "01234567-89ab-4cde-8f01-23456789abcd\n")?;
    let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && place=$1 && shift && \"$@\" && cat \"$place/file\" \"$place/nested/file\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(boot_id).arg(&place).arg(program("vss"));
    command.args(instance.arguments()).args(["list", "shadows"]).stdin(Stdio::null());
    let outcome = Running::start(command)?.finish()?;
    let is_there = outcome.stdout.contains(&id) && outcome.stdout.ends_with("oldold");
    ensure!(outcome.is_success() && is_there, "after the boot: {outcome:?}");
    ensure!(instance.log().contains("again"), "the log: {}", instance.log());
    Ok(())
}
