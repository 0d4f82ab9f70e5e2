//! Our units, where systemd is the first process: started with the machine, by a connection, and on demand; killed, stopped and
//! stood still in a hold; what they leave in the journal; and clients that are none of ours.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;
use vss_linux::freeze;
use vss_linux::process::Signal;
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::programs::program;
use vss_tests::systemd::{
    LIMIT, Service, VSSD, create_and_hold, guards, holding, journal, management, property, service_pid, systemctl, vss,
    wait, wait_for_state,
};
use vss_tests::volume::Volume;

use crate::is_elsewhere;

const SOCKETS: [&str; 2] = ["vssd-requester.socket", "vssd-writer.socket"];
const WRITERS: &str = "vss-writers.service";

/// A provider stays so long in Commit: longer than whatever a test does to the hold.
const COMMIT: Duration = Duration::from_secs(6);

/// A hold that somebody ends is over within this time.
const THAWED: Duration = Duration::from_secs(5);

/// Writes get through, and nothing of the hold is left.
fn is_over(volume: &LoopFs, limit: Duration) -> anyhow::Result<Duration> {
    let waited = volume.start_write().finish(limit).with_context(|| format!("frozen still after {limit:?}"))?;
    let is_clean = || {
        let ledgers = fs::read_dir("/run/vss/holds").map(Iterator::count).unwrap_or_default();
        guards().is_ok_and(|guards| guards.is_empty()) && ledgers == 0
    };
    ensure!(wait(is_clean), "guards or ledgers are left: {:?}", guards()?);
    let scopes = || systemctl(&["list-units", "--all", "--plain", "--no-legend", "vss-guard-*.scope"]);
    ensure!(wait(|| scopes().is_ok_and(|scopes| scopes.is_empty())), "scopes are left: {}", scopes()?);
    Ok(waited)
}

#[test]
fn the_units_are_enabled_and_run() -> anyhow::Result<()> {
    if is_elsewhere("the_units_are_enabled_and_run", "systemd") {
        return Ok(());
    }
    for unit in SOCKETS.iter().chain(&[VSSD, WRITERS]) {
        ensure!(systemctl(&["is-enabled", unit])?.trim() == "enabled", "{unit} is not enabled");
    }
    // The writers are wanted by the next boot.
    systemctl(&["start", WRITERS])?;
    for unit in SOCKETS.iter().chain(&[VSSD, WRITERS]) {
        wait_for_state(unit, "active")?;
    }
    ensure!(fs::read_to_string("/etc/group")?.lines().any(|line| line.starts_with("vss:")), "there is no group vss");
    let (status, writers) = (management()?.status()?, management()?.writers()?);
    ensure!(status.pid == service_pid()?, "{status:?}");
    ensure!(writers.is_empty(), "no writer is set up: {writers:?}");
    Ok(())
}

#[test]
fn a_connection_starts_the_service() -> anyhow::Result<()> {
    if is_elsewhere("a_connection_starts_the_service", "systemd") {
        return Ok(());
    }
    // Its writers would connect again by themselves.
    systemctl(&["stop", WRITERS])?;
    systemctl(&["stop", VSSD])?;
    wait_for_state(VSSD, "inactive")?;
    let listed = vss(&["list", "shadows", "--json"])?.json()?;
    ensure!(listed["shadows"].is_array(), "{listed}");
    wait_for_state(VSSD, "active")?;
    ensure!(management()?.status()?.pid == service_pid()?, "somebody else answers");
    systemctl(&["start", WRITERS]).map(drop)
}

#[test]
fn without_the_units_the_service_comes_and_goes_on_demand() -> anyhow::Result<()> {
    if is_elsewhere("without_the_units_the_service_comes_and_goes_on_demand", "systemd") {
        return Ok(());
    }
    let units = [WRITERS, SOCKETS[0], SOCKETS[1], VSSD];
    systemctl(&[&["stop"], &units[..]].concat())?;
    wait_for_state(VSSD, "inactive")?;
    let volume = Volume::new()?;
    let run = vss(&["run", "--volume", volume.name(), "--", "pidof", "vssd"])?;
    ensure!(run.is_success(), "{run:?}");
    ensure!(property(VSSD, "MainPID")? == "0", "it was the unit's");
    let is_gone = || Command::new("pidof").arg("vssd").output().is_ok_and(|output| !output.status.success());
    ensure!(wait(is_gone), "vssd stays when the last command has ended");
    systemctl(&[&["start"], &units[..]].concat())?;
    wait_for_state(VSSD, "active")?;
    let listed = vss(&["list", "shadows", "--json"])?.json()?;
    ensure!(listed["shadows"].as_array().is_some_and(Vec::is_empty), "{listed}");
    ensure!(management()?.status()?.pid == service_pid()?, "somebody else answers");
    volume.is_clean()
}

#[test]
fn btrfs_is_copied_and_exposed_for_every_service() -> anyhow::Result<()> {
    if is_elsewhere("btrfs_is_copied_and_exposed_for_every_service", "systemd") {
        return Ok(());
    }
    let volume = Volume::new()?;
    volume.write("file", "old")?;
    let set = vss(&["create", "--persistent", "--json", volume.name()])?.json()?;
    let id = set["shadows"][0]["id"].as_str().context("an id")?;
    volume.write("file", "new")?;
    let place = "/mnt/exposed";
    fs::create_dir_all(place)?;
    ensure!(vss(&["expose", id, place])?.is_success());
    ensure!(fs::read_to_string("/mnt/exposed/file")? == "old");
    // Seen also by a service with a mount namespace of its own, made before or after.
    let seen = Command::new("systemd-run")
        .args(["--quiet", "--pipe", "--wait", "--property=PrivateTmp=yes", "cat", "/mnt/exposed/file"])
        .output()?;
    ensure!(seen.stdout == b"old", "{seen:?}");
    // The mount is the machine's, not the service's.
    systemctl(&["restart", VSSD])?;
    ensure!(fs::read_to_string("/mnt/exposed/file")? == "old", "it went with the service");
    ensure!(vss(&["unexpose", id])?.is_success() && vss(&["delete", id])?.is_success());
    volume.is_clean()
}

/// `systemctl kill` reaches every process of the unit: only in a scope of its own is the guard not one of them. That it was the
/// guard that thawed is seen at the next start of vssd, which finds nothing frozen.
#[test]
fn the_guard_survives_the_kill_of_the_service() -> anyhow::Result<()> {
    if is_elsewhere("the_guard_survives_the_kill_of_the_service", "systemd") {
        return Ok(());
    }
    let _service = Service::with(&[("VSS_FAKE", &holding(COMMIT))])?;
    let volume = LoopFs::new(Kind::Ext4, 32)?;
    let in_hold = create_and_hold(volume.path())?;
    let (killed, guard) = (service_pid()?, &in_hold.guard);
    ensure!(guard.parent == killed, "the guard is not the service's child: {guard:?}");
    ensure!(guard.unit.starts_with("vss-guard-") && guard.unit.ends_with(".scope"), "no scope: {guard:?}");
    ensure!(property(&guard.unit, "ActiveState")? == "active", "{guard:?}");
    systemctl(&["kill", "--signal=KILL", VSSD])?;
    let waited = is_over(&volume, THAWED)?;
    let outcome = in_hold.run.finish()?;
    ensure!(outcome.code == Some(1), "{outcome:?}");
    // Restart=always.
    ensure!(wait(|| service_pid().is_ok_and(|pid| pid != killed)), "vssd is not started again");
    let recovery = management()?.status()?.recovery;
    ensure!(recovery.iter().all(|line| !line.contains("is thawed")), "the guard died with vssd: {recovery:?}");
    ensure!(recovery.iter().any(|line| line.contains("which was under way")), "{recovery:?}");
    println!("writes flow {waited:?} after they were looked for; {recovery:?}");
    Ok(())
}

/// The other case, which shows what the scope is good for: the bus is gone, so the guard stays in vssd's unit and is killed with
/// it. The set would have been made all the same, and the next start thaws.
#[test]
fn without_the_bus_there_is_no_scope_and_the_sweep_thaws() -> anyhow::Result<()> {
    if is_elsewhere("without_the_bus_there_is_no_scope_and_the_sweep_thaws", "systemd") {
        return Ok(());
    }
    let bus = ["dbus.socket", "dbus.service"];
    systemctl(&[&["stop"], &bus[..]].concat())?;
    let tested = (|| {
        let _service = Service::with(&[("VSS_FAKE", &holding(COMMIT))])?;
        let volume = LoopFs::new(Kind::Ext4, 32)?;
        let in_hold = create_and_hold(volume.path())?;
        let (killed, guard) = (service_pid()?, &in_hold.guard);
        ensure!(guard.unit == VSSD, "{guard:?}");
        let warned = journal(&["--unit=vssd", "PRIORITY=4"])?;
        let warning = warned.iter().find(|entry| entry["VSS_PID"].as_str() == Some(&guard.pid.to_string()));
        let warning = warning.with_context(|| format!("nobody is warned: {warned:?}"))?;
        ensure!(warning["MESSAGE"].as_str().is_some_and(|text| text.contains("no scope of its own")), "{warning}");
        systemctl(&["kill", "--signal=KILL", VSSD])?;
        is_over(&volume, LIMIT)?;
        ensure!(wait(|| service_pid().is_ok_and(|pid| pid != killed)), "vssd is not started again");
        let recovery = management()?.status()?.recovery;
        ensure!(recovery.iter().any(|line| line.contains("was frozen, is thawed")), "{recovery:?}");
        Ok(())
    })();
    systemctl(&[&["start"], &bus[..]].concat())?;
    tested
}

#[test]
fn stopping_the_service_in_a_hold_thaws() -> anyhow::Result<()> {
    if is_elsewhere("stopping_the_service_in_a_hold_thaws", "systemd") {
        return Ok(());
    }
    systemctl(&["stop", WRITERS])?;
    // What a provider has begun is waited for.
    let _service = Service::with(&[("VSS_FAKE", &holding(Duration::from_secs(3)))])?;
    let volume = LoopFs::new(Kind::Ext4, 32)?;
    let in_hold = create_and_hold(volume.path())?;
    let write = volume.start_write();
    let began = Instant::now();
    systemctl(&["stop", VSSD])?;
    let stopped = began.elapsed();
    let outcome = in_hold.run.finish()?;
    ensure!(outcome.code == Some(1), "{outcome:?}");
    ensure!(write.finish(Duration::ZERO).is_some() || write.finish(THAWED).is_some(), "frozen after the stop");
    is_over(&volume, THAWED)?;
    ensure!(property(VSSD, "Result")? == "success", "{}", systemctl(&["show", VSSD])?);
    println!("stopped after {stopped:?}");
    Ok(())
}

/// A vssd that stands still, with everything that is in its unit, keeps the guard's deadline from nothing.
#[test]
fn a_service_that_stands_still_holds_nothing_for_longer() -> anyhow::Result<()> {
    if is_elsewhere("a_service_that_stands_still_holds_nothing_for_longer", "systemd") {
        return Ok(());
    }
    let _service = Service::with(&[("VSS_FAKE", &holding(Duration::from_secs(30)))])?;
    let volume = LoopFs::new(Kind::Ext4, 32)?;
    let in_hold = create_and_hold(volume.path())?;
    systemctl(&["freeze", VSSD])?;
    let waited = volume.start_write().finish(Duration::from_secs(15));
    systemctl(&["thaw", VSSD])?;
    let waited = waited.context("the guard stands still with vssd")?;
    let outcome = in_hold.run.finish()?;
    ensure!(outcome.code == Some(1) && outcome.stderr.contains("VSS_E_HOLD_WRITES_TIMEOUT"), "{outcome:?}");
    println!("thawed {waited:?} after vssd stood still");
    is_over(&volume, THAWED).map(drop)
}

#[test]
fn the_sweep_thaws_what_both_left() -> anyhow::Result<()> {
    if is_elsewhere("the_sweep_thaws_what_both_left", "systemd") {
        return Ok(());
    }
    systemctl(&["stop", WRITERS])?;
    let fake = holding(Duration::ZERO);
    let mut service = Service::that_stays_dead(&[("VSS_FAKE", &fake), ("VSS_FAULT", "commit:kill-both")])?;
    let volume = LoopFs::new(Kind::Ext4, 32)?;
    let outcome = vss(&["create", volume.path().to_str().context("a path in UTF-8")?])?;
    ensure!(outcome.code == Some(1), "{outcome:?}");
    wait_for_state(VSSD, "failed")?;
    ensure!(guards()?.is_empty(), "the guard lives: {:?}", guards()?);
    ensure!(volume.is_frozen(), "both were to be killed in the hold");
    // As it is without the fault: started by the next who wants something.
    service.restore()?;
    let listed = vss(&["list", "shadows", "--json"])?.json()?;
    ensure!(listed["shadows"].as_array().is_some_and(Vec::is_empty), "{listed}");
    is_over(&volume, THAWED)?;
    let recovery = management()?.status()?.recovery;
    ensure!(recovery.iter().any(|line| line.contains("was frozen, is thawed")), "{recovery:?}");
    let told = journal(&["--unit=vssd"])?;
    let is_told = |line: &String| told.iter().any(|entry| entry["MESSAGE"] == line.as_str());
    ensure!(recovery.iter().all(is_told), "the journal does not have {recovery:?}");
    drop(service);
    Ok(())
}

/// The root's file system has the journal, the catalogue and the programs: all of them wait while it is held.
#[test]
fn the_root_file_system_is_held() -> anyhow::Result<()> {
    if is_elsewhere("the_root_file_system_is_held", "systemd") {
        return Ok(());
    }
    let _service = Service::with(&[("VSS_FAKE", &holding(Duration::from_secs(1)))])?;
    let set = vss(&["create", "--json", "/"])?.json()?;
    let id = set["set_id"].as_str().context("an id")?;
    ensure!(set["hold_ms"].as_u64().is_some_and(|held| (1000..10_000).contains(&held)), "{set}");
    let told = journal(&[&format!("VSS_SET_ID={id}")])?;
    ensure!(told.iter().any(|entry| entry["VSS_HOLD_MS"].as_str() == Some(&set["hold_ms"].to_string())), "{told:?}");
    ensure!(matches!(freeze::thaw(File::open("/")?)?, freeze::Thaw::NotFrozen), "the root was frozen still");
    ensure!(vss(&["delete", "--all"])?.is_success());
    Ok(())
}

#[test]
fn the_journal_has_priorities_and_fields() -> anyhow::Result<()> {
    if is_elsewhere("the_journal_has_priorities_and_fields", "systemd") {
        return Ok(());
    }
    let volume = Volume::new()?;
    let set = vss(&["create", "--json", volume.name()])?.json()?;
    let made = set["set_id"].as_str().context("an id")?;
    let entries = journal(&[&format!("VSS_SET_ID={made}")])?;
    let entry = entries.iter().find(|entry| entry["MESSAGE"].as_str().is_some_and(|text| text.contains("is made")));
    let entry = entry.with_context(|| format!("nothing is told of the set: {entries:?}"))?;
    for (field, value) in [
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "vssd"),
        ("_SYSTEMD_UNIT", VSSD),
        ("VSS_SHADOWS", "1"),
        ("_TRANSPORT", "journal"),
    ] {
        ensure!(entry[field] == value, "{field}: {entry}");
    }
    ensure!(vss(&["delete", "--all"])?.is_success());
    let failed = {
        let _service = Service::with(&[("VSS_FAULT", "commit:fail")])?;
        let outcome = vss(&["create", volume.name()])?;
        ensure!(outcome.code == Some(1), "{outcome:?}");
        journal(&["--unit=vssd", "PRIORITY=4"])?
    };
    let is_told = |entry: &&Value| entry["VSS_CAUSE"].as_str().is_some_and(|cause| cause.contains("injected"));
    let entry = failed.iter().find(is_told).with_context(|| format!("nobody is warned: {failed:?}"))?;
    ensure!(entry["VSS_SET_ID"].as_str().is_some_and(|id| id.len() == 36 && id != made), "{entry}");
    ensure!(entry["MESSAGE"].as_str().is_some_and(|text| text.starts_with("the set was not made")), "{entry}");
    volume.is_clean()
}

#[test]
fn varlinkctl_lists_interfaces_and_shadow_copies() -> anyhow::Result<()> {
    if is_elsewhere("varlinkctl_lists_interfaces_and_shadow_copies", "systemd") {
        return Ok(());
    }
    let varlinkctl = |arguments: &[&str]| -> anyhow::Result<String> {
        let output = Command::new("varlinkctl").args(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "varlinkctl {}: {said}", arguments.join(" "));
        Ok(String::from_utf8(output.stdout)?)
    };
    let address = "unix:/run/vss/requester";
    let info = varlinkctl(&["info", address])?;
    let interfaces = varlinkctl(&["list-interfaces", address])?;
    for interface in ["org.linuxvss.Requester", "org.linuxvss.Management", "org.varlink.service"] {
        ensure!(info.contains(interface) && interfaces.contains(interface), "no {interface}: {info}\n{interfaces}");
    }
    let writer = varlinkctl(&["list-interfaces", "unix:/run/vss/writer"])?;
    ensure!(writer.contains("org.linuxvss.Writer"), "{writer}");
    let described = varlinkctl(&["introspect", address, "org.linuxvss.Management"])?;
    ensure!(described.contains("method ListShadows"), "{described}");
    let volume = Volume::new()?;
    let set = vss(&["create", "--json", volume.name()])?.json()?;
    let listed = varlinkctl(&["--json=short", "call", address, "org.linuxvss.Management.ListShadows", "{}"])?;
    let listed: Value = serde_json::from_str(&listed)?;
    ensure!(listed["shadows"][0]["set_id"] == set["set_id"], "{listed}");
    ensure!(vss(&["delete", "--all"])?.is_success());
    volume.is_clean()
}

/// The library lies beside the programs, as the machine outside has it.
#[test]
fn the_python_client_lists_interfaces_and_shadow_copies() -> anyhow::Result<()> {
    let name = "the_python_client_lists_interfaces_and_shadow_copies";
    if is_elsewhere(name, "systemd") {
        return Ok(());
    }
    let library = program("vss").with_file_name("python");
    if !library.is_dir() {
        println!("SKIPPED: {name}: the Python package varlink is not there");
        return Ok(());
    }
    let volume = Volume::new()?;
    let set = vss(&["create", "--json", volume.name()])?.json()?;
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", library);
    let seen = vss_tests::varlink::python_sees(python, Path::new("/run/vss/requester"))?;
    vss_tests::varlink::check(&seen, &set)?;
    ensure!(vss(&["delete", "--all"])?.is_success());
    volume.is_clean()
}

/// SIGTERM ends a guard whatever vssd does: what systemd sends to every scope when the machine goes down.
#[test]
fn stopping_the_scope_thaws() -> anyhow::Result<()> {
    if is_elsewhere("stopping_the_scope_thaws", "systemd") {
        return Ok(());
    }
    let _service = Service::with(&[("VSS_FAKE", &holding(COMMIT))])?;
    let volume = LoopFs::new(Kind::Ext4, 32)?;
    let in_hold = create_and_hold(volume.path())?;
    systemctl(&["stop", &in_hold.guard.unit])?;
    is_over(&volume, THAWED)?;
    in_hold.run.signal(Signal::INT)?;
    let outcome = in_hold.run.finish()?;
    ensure!(!outcome.is_success(), "{outcome:?}");
    Ok(())
}
