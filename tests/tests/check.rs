//! `vss check`: what stands in the way, said in the words of creation; its bounds.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use serde_json::json;
use vss_api::management::{Check, SetLimits};
use vss_api::writer::EventKind;
use vss_model::{VssCode, VssError, limits};
use vss_requester::Requester;
use vss_tests::forecast::{answer, check, foretold, list};
use vss_tests::instance::{Instance, Running, is_alive, wait_until};
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::programs::program;
use vss_tests::traces;
use vss_tests::turn::creation_turn;
use vss_tests::volume::{Mounted, Volume};
use vss_tests::writers::SocketWriter;
use vss_writer::fake::{FakeWriter, Misdeed};

/// A user who may do what `vss.toml` says.
const NOBODY: u32 = 65534;
/// What must happen happens within this time.
const LIMIT: Duration = Duration::from_secs(30);

/// Each path that `create` refuses is refused in the same words; the others are judged.
#[test]
fn what_create_would_refuse_is_refused_in_its_words() -> anyhow::Result<()> {
    if LoopFs::skips("what_create_would_refuse_is_refused_in_its_words", &[Kind::Btrfs]) {
        return Ok(());
    }
    let volume = Volume::new()?;
    let instance = Instance::new()?;
    let memory = Mounted::memory(&instance.path().join("memory"))?;
    let long = format!("/{}", "x".repeat(5000));
    for bad in ["/no/such/path", memory.name(), "/proc/self", "/sys", &long] {
        let refused = {
            let _turn = creation_turn();
            instance.vss(["create", bad])?
        };
        ensure!(refused.code == Some(1), "{refused:?}");
        let (document, code) = check(&instance, &[bad, volume.name()])?;
        ensure!(code == Some(1) && document["possible"] == false, "{bad}: {document}");
        let failure: VssError = serde_json::from_value(document["paths"][0]["failure"].clone())?;
        ensure!(refused.stderr.trim_end() == format!("vss: {failure}"), "{failure}\n{}", refused.stderr);
        ensure!(document["paths"][1]["failure"].is_null() && document["consistency"] == "file-system", "{document}");
        let said = instance.vss(["check", bad, volume.name()])?;
        let is_said = said.stdout.contains(&failure.to_string()) && said.stdout.contains("What stands in the way:");
        ensure!(said.code == Some(1) && is_said && said.stdout.contains(volume.name()), "{said:?}");
    }
    // A provider that is not there, and one that cannot.
    for (provider, code) in [("nobody", "VSS_E_PROVIDER_NOT_REGISTERED"), ("btrfs", "BY_PROVIDER")] {
        let (document, status) = check(&instance, &[memory.name(), "--provider", provider])?;
        let failure = document["paths"][0]["failure"]["code"].as_str().context("a code")?;
        ensure!(status == Some(1) && failure.contains(code) && document["consistency"].is_null(), "{document}");
    }
    ensure!(instance.vss(["check"])?.code == Some(2), "no path is wrong usage");
    traces::has_no_processes(&instance)
}

#[test]
fn what_its_provider_would_refuse_now_is_told_of_a_volume() -> anyhow::Result<()> {
    if LoopFs::skips("what_its_provider_would_refuse_now_is_told_of_a_volume", &[Kind::Btrfs]) {
        return Ok(());
    }
    let volume = Volume::new()?;
    let instance = Instance::new()?;
    instance.settings("[providers.btrfs]\nmin_free_bytes = 1099511627776")?;
    let refused = {
        let _turn = creation_turn();
        instance.vss(["create", volume.name()])?
    };
    let (document, code) = check(&instance, &[volume.name()])?;
    let failure: VssError = serde_json::from_value(document["volumes"][0]["failure"].clone())?;
    ensure!(failure.code == VssCode::InsufficientStorage && code == Some(1), "{document}");
    // How many MiB are free may change; the words around it do not.
    let words = |text: &str| text.chars().filter(|character| !character.is_ascii_digit()).collect::<String>();
    ensure!(words(refused.stderr.trim_end()) == words(&format!("vss: {failure}")), "{failure}\n{}", refused.stderr);
    ensure!(document["possible"] == false && document["consistency"].is_null(), "{document}");
    Ok(())
}

#[test]
fn a_level_that_would_not_be_met_is_a_no() -> anyhow::Result<()> {
    if LoopFs::skips("a_level_that_would_not_be_met_is_a_no", &[Kind::Btrfs]) {
        return Ok(());
    }
    let volume = Volume::new()?;
    volume.make_subvolume("nested")?;
    let instance = Instance::new()?;
    for (level, status) in [("crash", 0), ("file-system", 1), ("application", 1)] {
        let (document, code) = check(&instance, &[volume.name(), "--require", level])?;
        ensure!(code == Some(status) && document["possible"] == (status == 0), "{level}: {document}");
        let obstacles = list(&document, "obstacles")?;
        let codes: Vec<_> = obstacles.iter().filter_map(|one| one["code"].as_str()).collect();
        ensure!(codes == vec!["VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT"; status as usize], "{level}: {document}");
        ensure!(document["consistency"] == "crash", "{document}");
    }
    Ok(())
}

#[test]
fn writers_that_do_not_answer_are_named() -> anyhow::Result<()> {
    if LoopFs::skips("writers_that_do_not_answer_are_named", &[Kind::Btrfs]) {
        return Ok(());
    }
    let volume = Volume::new()?;
    let mut instance = Instance::new()?;
    instance.start()?;
    let writer = SocketWriter::join(&instance, FakeWriter::new("db", volume.path()))?;
    let refuse = || Misdeed::Fail(VssError::new(VssCode::WriterErrorRetryable, "the disk is on fire"));
    writer.handle().misbehave(EventKind::Identify, refuse(), 3);
    let document = foretold(&instance, &[volume.name()])?;
    let db = &document["writers"][0];
    ensure!(db["name"] == "db" && db["component_count"] == 0 && document["consistency"] == "file-system", "{document}");
    ensure!(db["failure"]["message"] == "the disk is on fire", "{document}");
    let said = instance.vss(["check", volume.name()])?;
    ensure!(said.is_success() && said.stdout.contains("Writer db would take no part: the disk is on fire"), "{said:?}");
    // `create --writer` insists on it, and so does `check`.
    let (document, code) = check(&instance, &[volume.name(), "--writer", "db"])?;
    ensure!(code == Some(1) && document["obstacles"][0]["code"] == "VSS_E_OBJECT_NOT_FOUND", "{document}");
    let (document, code) = check(&instance, &[volume.name(), "--writer", "oracle"])?;
    let obstacle: VssError = serde_json::from_value(document["obstacles"][0].clone())?;
    let refused = instance.vss(["create", volume.name(), "--writer", "oracle"])?;
    ensure!(code == Some(1) && refused.stderr.trim_end() == format!("vss: {obstacle}"), "{obstacle}: {refused:?}");
    Ok(())
}

#[test]
fn another_set_in_the_making_is_told_and_not_waited_for() -> anyhow::Result<()> {
    if LoopFs::skips("another_set_in_the_making_is_told_and_not_waited_for", &[Kind::Btrfs]) {
        return Ok(());
    }
    let volume = Volume::new()?;
    let mut instance = Instance::new()?;
    instance.start()?;
    let writer = SocketWriter::join(&instance, FakeWriter::new("db", volume.path()))?;
    writer.handle().misbehave(EventKind::PrepareSnapshot, Misdeed::Delay(Duration::from_secs(8)), 1);
    let _turn = creation_turn();
    let creation = instance.start_vss(["create", volume.name()])?;
    let has_begun = || writer.handle().events().contains(&EventKind::PrepareSnapshot);
    ensure!(wait_until(LIMIT, has_begun), "{}", creation.stderr()?);
    // Another instance: the lock is the machine's, not the service's. The writer, which is busy, is not asked.
    let other = Instance::new()?;
    let document = foretold(&other, &[volume.name()])?;
    let warning: VssError = serde_json::from_value(document["warnings"][0].clone())?;
    ensure!(warning.code == VssCode::SnapshotSetInProgress && warning.message.contains("vss create"), "{document}");
    let refused = other.vss(["create", volume.name(), "--wait", "0"])?;
    ensure!(refused.stderr.contains(&warning.message) && refused.code == Some(1), "{refused:?}");
    let same = foretold(&instance, &[volume.name(), "--no-writers"])?;
    ensure!(same["warnings"] == document["warnings"], "{same}");
    ensure!(is_alive(creation.pid()), "the creation was over before all had asked: {}", creation.stderr()?);
    let made = creation.finish()?;
    ensure!(made.is_success(), "the check disturbed the creation: {made:?}");
    let free = foretold(&instance, &[volume.name()])?;
    ensure!(!list(&free, "warnings")?.contains(&document["warnings"][0]), "{free}");
    ensure!(instance.vss(["delete", "--all"])?.is_success());
    Ok(())
}

/// Whoever may use the socket may ask, and has at most a fourth of all checks at once.
#[test]
fn a_user_of_the_socket_may_ask_for_its_share() -> anyhow::Result<()> {
    if LoopFs::skips("a_user_of_the_socket_may_ask_for_its_share", &[Kind::Btrfs]) {
        return Ok(());
    }
    let volume = Volume::new()?;
    volume.make_subvolume("nested")?;
    // The directories of tests are closed to others.
    let readable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(volume.path().parent().context("a directory above")?, readable.clone())?;
    let mut instance = Instance::new()?;
    instance.settings(&format!("[requesters]\nuids = [{NOBODY}]"))?;
    instance.start()?;
    let place = tempfile::tempdir()?;
    fs::set_permissions(place.path(), readable)?;
    // By another process: one that another thread forks meanwhile must not have the program open for writing.
    ensure!(Command::new("cp").arg(program("vss")).arg(place.path()).status()?.success(), "cp failed");
    let start = |uid: u32| {
        let mut vss = Command::new(place.path().join("vss"));
        vss.arg("check").args(instance.arguments()).args(["--json", volume.name()]);
        vss.uid(uid).gid(uid).current_dir("/").stdin(Stdio::null());
        Running::start(vss)
    };
    let stranger = start(1)?.finish()?;
    ensure!(stranger.code == Some(1) && stranger.stderr.contains("E_ACCESSDENIED"), "{stranger:?}");
    let (document, code) = answer(start(NOBODY)?.finish()?)?;
    ensure!(code == Some(0) && document["volumes"][0]["nested_count"] == 1, "{document}");

    let writer = SocketWriter::join(&instance, FakeWriter::new("db", volume.path()))?;
    writer.handle().misbehave(EventKind::Identify, Misdeed::Hang, usize::MAX);
    let waiting = [start(NOBODY)?, start(NOBODY)?];
    let mut third = None;
    let is_refused = wait_until(LIMIT, || {
        let quiet = Check { paths: vec![volume.path().to_owned()], no_writers: true, ..Check::default() };
        // Root has places left.
        let root = instance.management().is_ok_and(|mut one| one.check(quiet).is_ok());
        // One that is let in would wait for the writer, and is ended by being dropped.
        third = start(NOBODY).ok().filter(|one| wait_until(Duration::from_secs(1), || !is_alive(one.pid())));
        root && third.is_some()
    });
    writer.handle().release();
    ensure!(is_refused, "nobody was refused");
    let third = third.context("a third")?.finish()?;
    ensure!(third.code == Some(1) && third.stderr.contains("2 of them of uid 65534"), "{third:?}");
    for one in waiting {
        let (document, _) = answer(one.finish()?)?;
        ensure!(document["writers"][0]["failure"]["message"] == "The fake writer hung", "{document}");
    }
    Ok(())
}

#[test]
fn the_session_limit_stands_in_the_way() -> anyhow::Result<()> {
    if LoopFs::skips("the_session_limit_stands_in_the_way", &[Kind::Btrfs]) {
        return Ok(());
    }
    let volume = Volume::new()?;
    let mut instance = Instance::new()?;
    instance.start()?;
    instance.management()?.set_limits(SetLimits { backup_sessions: Some(1), ..SetLimits::default() })?;
    let mut requester = Requester::connect(&instance.directories())?;
    requester.initialize_for_backup("test")?;
    let (document, code) = check(&instance, &[volume.name()])?;
    let obstacle: VssError = serde_json::from_value(document["obstacles"][0].clone())?;
    let refused = instance.vss(["create", volume.name()])?;
    ensure!(code == Some(1) && refused.stderr.trim_end() == format!("vss: {obstacle}"), "{obstacle}: {refused:?}");
    drop(requester);
    let is_free = || check(&instance, &[volume.name()]).is_ok_and(|(_, code)| code == Some(0));
    ensure!(wait_until(LIMIT, is_free), "the session is left");
    Ok(())
}

#[test]
fn settings_that_cannot_be_read_any_more_are_told() -> anyhow::Result<()> {
    if LoopFs::skips("settings_that_cannot_be_read_any_more_are_told", &[Kind::Btrfs]) {
        return Ok(());
    }
    let volume = Volume::new()?;
    let mut instance = Instance::new()?;
    instance.start()?;
    instance.settings("freeze_sm = 7")?;
    let document = foretold(&instance, &[volume.name()])?;
    // Another test's set may be told of, too.
    let is_it = |text: &str| text.contains("vss.toml") && text.contains("freeze_sm");
    let warnings = list(&document, "warnings")?;
    ensure!(warnings.iter().filter_map(|one| one["message"].as_str()).any(is_it), "{document}");
    // Without the service there is no answer at all, and the same file is named.
    instance.stop()?;
    let outcome = instance.vss(["check", volume.name()])?;
    ensure!(
        outcome.code == Some(1) && outcome.stdout.is_empty() && outcome.stderr.contains("freeze_sm"),
        "{outcome:?}"
    );
    Ok(())
}

#[test]
fn mounts_that_run_would_leave_live_are_told() -> anyhow::Result<()> {
    if LoopFs::skips("mounts_that_run_would_leave_live_are_told", &[Kind::Btrfs]) {
        return Ok(());
    }
    let (volume, inner) = (Volume::new()?, Volume::new()?);
    let instance = Instance::new()?;
    let memory = Mounted::memory(&volume.path().join("memory"))?;
    let below = Mounted::bind(inner.path(), &volume.path().join("inner"))?;
    let document = foretold(&instance, &[volume.name()])?;
    ensure!(document["stays_live"] == json!([below.path(), memory.path()]), "{document}");
    let said = instance.vss(["check", volume.name()])?;
    let words = format!("live: {}, {}", below.name(), memory.name());
    ensure!(said.stdout.contains(&words) && !said.stdout.contains("/proc"), "{said:?}");
    // `run` says the same.
    let run = {
        let _turn = creation_turn();
        instance.vss(["run", "--volume", volume.name(), "--", "true"])?
    };
    for place in [below.name(), memory.name()] {
        ensure!(run.is_success() && run.stderr.contains(&format!("{place} is in no copy")), "{run:?}");
    }
    let both = foretold(&instance, &[volume.name(), inner.name()])?;
    ensure!(both["stays_live"] == json!([memory.path()]), "the volume below is in the set: {both}");
    Ok(())
}

#[test]
fn more_than_a_set_can_hold_is_refused_and_odd_names_are_not() -> anyhow::Result<()> {
    if LoopFs::skips("more_than_a_set_can_hold_is_refused_and_odd_names_are_not", &[Kind::Btrfs]) {
        return Ok(());
    }
    let mut instance = Instance::new()?;
    // The fake copies anything: 66 volumes in memory.
    let fake = json!({"store": traces::fake_store(&instance), "policy": "must_not_hold"});
    instance.set("VSS_FAKE", fake.to_string());
    instance.start()?;
    let mounts = (0..limits::VOLUMES_PER_SET + 2)
        .map(|number| Mounted::memory(&instance.path().join(format!("v{number}"))))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let names: Vec<&str> = mounts.iter().map(Mounted::name).collect();
    let (document, code) = check(&instance, &names)?;
    ensure!(code == Some(1) && list(&document, "volumes")?.len() == limits::VOLUMES_PER_SET, "{document}");
    for (number, path) in list(&document, "paths")?.iter().enumerate() {
        let refused = path["failure"]["code"] == "VSS_E_MAXIMUM_NUMBER_OF_VOLUMES_REACHED";
        ensure!(refused == (number >= limits::VOLUMES_PER_SET), "{number}: {path}");
    }
    let (document, code) = check(&instance, &names[..limits::VOLUMES_PER_SET])?;
    ensure!(code == Some(0) && document["possible"] == true, "{document}");
    // Many paths on few volumes are no harm, and too many are refused before anything is asked.
    ensure!(check(&instance, &vec![names[0]; limits::CHECKED_PATHS])?.1 == Some(0));
    let too_many = instance.vss([&["check"], &vec![names[0]; limits::CHECKED_PATHS + 1][..]].concat())?;
    ensure!(too_many.code == Some(1) && too_many.stderr.contains("1 to 256 paths, not 257"), "{too_many:?}");
    let long = Check { paths: vec![PathBuf::from(format!("/{}", "x".repeat(1 << 20)))], ..Check::default() };
    let error = instance.management()?.check(long).unwrap_err();
    ensure!(error.code == VssCode::InvalidArgument && error.message.len() < 200, "{error}");

    let odd = mounts[0].path().join(OsStr::from_bytes(b"b\xff\x1b[31m"));
    fs::create_dir(&odd)?;
    let words = |flag: &'static str| [OsStr::new("check"), OsStr::new(flag), odd.as_os_str()];
    let (document, code) = answer(instance.vss(words("--json"))?)?;
    let path = document["paths"][0]["path"].as_str().and_then(vss_model::path_text::from_text);
    ensure!(code == Some(0) && path.as_deref() == Some(&*odd), "{document}");
    fs::remove_dir(&odd)?;
    let gone = instance.vss(words("--no-writers"))?;
    ensure!(gone.code == Some(1) && !gone.stdout.contains('\u{1b}'), "{gone:?}");
    Ok(())
}

#[test]
fn checks_are_bounded_and_end_with_the_writer_they_wait_for() -> anyhow::Result<()> {
    let mut instance = Instance::new()?;
    instance.start()?;
    let writer = SocketWriter::join(&instance, FakeWriter::new("db", instance.path()))?;
    writer.handle().misbehave(EventKind::Identify, Misdeed::Hang, limits::CHECKS);
    let question = || Check { paths: vec![instance.path().to_owned()], ..Check::default() };
    thread::scope(|scope| -> anyhow::Result<()> {
        // One may find the last place taken by a quiet one, just now.
        let ask = || -> anyhow::Result<()> {
            loop {
                match instance.management()?.check(question()) {
                    Err(error) if error.code == VssCode::OutOfMemory => thread::sleep(Duration::from_millis(5)),
                    answer => return Ok(answer.map(drop)?),
                }
            }
        };
        let asking: Vec<_> = (0..limits::CHECKS).map(|_| scope.spawn(ask)).collect();
        let mut refused = None;
        let is_full = wait_until(LIMIT, || {
            let quiet = Check { no_writers: true, ..question() };
            refused = instance.management().ok().and_then(|mut one| one.check(quiet).err());
            refused.is_some()
        });
        let status = instance.management()?.status();
        writer.handle().release();
        ensure!(is_full && status.is_ok(), "nobody was refused");
        let error = refused.context("an error")?;
        ensure!(error.code == VssCode::OutOfMemory && error.message.contains("8 checks are running"), "{error}");
        for one in asking {
            one.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        Ok(())
    })?;
    // Their places are free again.
    instance.management()?.check(question())?;
    Ok(())
}
