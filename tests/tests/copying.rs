//! Copies that take long: how far they are is told, a wish to stop is heard at once, and what is kept afterwards is shown and
//! removed. The provider is the fake, which makes believe to copy.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use vss_api::client::Client;
use vss_api::requester::{Call, InitializeForBackup, SessionOpened};
use vss_linux::process::Signal;
use vss_tests::instance::{Instance, Outcome, Running, wait_until};
use vss_tests::loopfs::{Kind, LoopFs, unmount_idle};
use vss_tests::programs::program;
use vss_tests::traces;
use vss_tests::turn::creation_turn;

/// A user who may do what `vss.toml` says.
const NOBODY: u32 = 65534;
/// What must happen happens within this time.
const LIMIT: Duration = Duration::from_secs(30);
/// At once.
const SOON: Duration = Duration::from_secs(15);

/// A service whose fake provider copies a volume for this long.
fn copying_for(time: Duration) -> anyhow::Result<Instance> {
    let mut instance = Instance::new()?;
    let place = instance.path().join("images");
    fs::create_dir(&place)?;
    let fake = json!({"store": traces::fake_store(&instance), "policy": "needs_hold",
        "copying": {"bytes": 1 << 30, "ms": time.as_millis(), "place": place}});
    instance.set("VSS_FAKE", fake.to_string());
    instance.settings(&format!("[requesters]\nuids = [{NOBODY}]"))?;
    instance.start()?;
    Ok(instance)
}

/// What the one session is doing.
fn step(instance: &Instance) -> String {
    let status = instance.management().and_then(|mut management| Ok(management.status()?));
    status.ok().and_then(|status| Some(status.sessions.first()?.step.clone())).unwrap_or_default()
}

fn is_copying(instance: &Instance) -> bool {
    step(instance).starts_with("copying ")
}

/// Nothing is being made, and nothing is left of what was.
fn is_undone(instance: &Instance) -> anyhow::Result<()> {
    let status = instance.management()?.status()?;
    ensure!(status.creating.is_none() && status.sessions.is_empty() && !status.holding, "{status:?}");
    traces::has_no_markers(instance)?;
    traces::has_no_shadows(instance)
}

/// Runs `vss WORDS` on a terminal of its own (script(1)).
fn on_a_terminal(instance: &Instance, words: &[&str]) -> anyhow::Result<Outcome> {
    let line: Vec<OsString> = std::iter::once(program("vss").into())
        .chain(instance.arguments())
        .chain(words.iter().map(Into::into))
        .collect();
    let mut wide = OsString::from("stty cols 200; exec ");
    wide.push(line.join(" ".as_ref()));
    let mut command = Command::new("script");
    command.arg("-qec").arg(wide).arg("/dev/null").stdin(Stdio::null());
    Running::start(command)?.finish()
}

fn name(volume: &LoopFs) -> anyhow::Result<&str> {
    volume.path().to_str().context("a path in UTF-8")
}

#[test]
fn a_person_and_a_program_see_how_far_a_copy_is() -> anyhow::Result<()> {
    let test = "a_person_and_a_program_see_how_far_a_copy_is";
    if LoopFs::skips(test, &[Kind::Ext4]) {
        return Ok(());
    }
    if Command::new("script").arg("--version").output().is_err() {
        println!("SKIPPED: {test}: needs script(1)");
        return Ok(());
    }
    let volume = LoopFs::new(Kind::Ext4, 16)?;
    let path = name(&volume)?;
    let instance = copying_for(Duration::from_millis(2500))?;
    let follower = instance.start_vss(["events", "--follow", "--json"])?;
    // It follows when it hears of somebody else.
    let follows = || {
        let _ = Client::connect(instance.requester_socket()).map(|mut client| {
            let call = Call::InitializeForBackup(InitializeForBackup { requester: "anybody".to_owned() });
            client.call_requester::<SessionOpened>(&call)
        });
        follower.stdout().is_ok_and(|heard| heard.contains("anybody"))
    };
    ensure!(wait_until(LIMIT, follows), "it hears nothing: {}", follower.stderr()?);
    let _turn = creation_turn();
    let seen = on_a_terminal(&instance, &["create", path, "--max-rate", "50M", "--max-hold", "250"])?;
    ensure!(seen.is_success(), "{seen:?}");
    // The wishes come back from the provider in its numbers.
    for round in ["round 1", "round 2"] {
        let line = format!("  copying {path}: {round}, ");
        let shown = seen.stdout.split("\r\u{1b}[K").find(|line_of_many| line_of_many.contains(&line));
        let shown = shown.with_context(|| format!("no line of {round}: {:?}", seen.stdout))?;
        ensure!(shown.contains(" of 1.0 GiB") && !shown.trim_end().contains('\n'), "{shown:?}");
    }
    ensure!(seen.stdout.contains("50 MiB/s, 22 MiB/s being written"), "{:?}", seen.stdout);
    ensure!(seen.stdout.contains("\r\u{1b}[Kvss: "), "a line that stays takes the place of the live one: {seen:?}");

    let events = instance.vss(["events", "--json"])?;
    let events: Vec<Value> = events.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let remembered: Vec<&Value> = events.iter().filter(|event| event["kind"] == "progress").collect();
    ensure!(remembered.len() == 1, "only the newest is remembered: {remembered:?}");
    let progress = &remembered[0]["progress"];
    ensure!(
        progress["copy_rate"] == 50 << 20 && progress["hold_ms"] == 250 && progress["volume"] == path,
        "{progress}"
    );
    follower.signal(Signal::TERM)?;
    let followed = follower.finish()?;
    let told = followed.stdout.lines().filter(|line| line.contains("\"kind\":\"progress\"")).count();
    let at_most = usize::try_from(seen.took.as_secs())? + 2;
    ensure!((2..=at_most).contains(&told), "once a second, in {:?}: {told} in {}", seen.took, followed.stdout);
    ensure!(!followed.stdout.contains("\"lost\":"), "{}", followed.stdout);

    let quiet = instance.vss(["create", path])?;
    ensure!(quiet.is_success() && quiet.stderr.is_empty(), "for so short a copy a program is told nothing: {quiet:?}");
    instance.vss(["delete", "--all"])?;
    is_undone(&instance)
}

#[test]
fn a_wish_to_stop_a_copy_of_hours_is_heard_at_once() -> anyhow::Result<()> {
    if LoopFs::skips("a_wish_to_stop_a_copy_of_hours_is_heard_at_once", &[Kind::Ext4]) {
        return Ok(());
    }
    let volume = LoopFs::new(Kind::Ext4, 16)?;
    let path = name(&volume)?;
    let mut instance = copying_for(Duration::from_secs(7200))?;
    let _turn = creation_turn();

    // Ctrl-C.
    let vss = instance.start_vss(["create", path])?;
    ensure!(wait_until(LIMIT, || is_copying(&instance)), "it does not copy: {}", step(&instance));
    let began = Instant::now();
    vss.signal(Signal::INT)?;
    let stopped = vss.finish()?;
    ensure!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    ensure!(stopped.code == Some(1) && stopped.stderr.contains("vss: stopping; nothing will be kept"), "{stopped:?}");
    ensure!(wait_until(SOON, || is_undone(&instance).is_ok()), "{:?}", is_undone(&instance));

    // The requester dies: its connection ends.
    let vss = instance.start_vss(["run", "--volume", path, "--", "true"])?;
    ensure!(wait_until(LIMIT, || is_copying(&instance)), "it does not copy: {}", step(&instance));
    vss.signal(Signal::KILL)?;
    drop(vss);
    ensure!(wait_until(SOON, || is_undone(&instance).is_ok()), "{:?}", is_undone(&instance));

    // The service is told to stop.
    let vss = instance.start_vss(["create", path])?;
    ensure!(wait_until(LIMIT, || is_copying(&instance)), "it does not copy: {}", step(&instance));
    let began = Instant::now();
    instance.stop()?;
    ensure!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    ensure!(vss.finish()?.code == Some(1), "the requester is told");
    traces::has_no_markers(&instance)
}

#[test]
fn what_is_kept_for_the_next_copy_is_shown_and_removed() -> anyhow::Result<()> {
    if LoopFs::skips("what_is_kept_for_the_next_copy_is_shown_and_removed", &[Kind::Ext4]) {
        return Ok(());
    }
    let volume = LoopFs::new(Kind::Ext4, 16)?;
    let path = name(&volume)?;
    let instance = copying_for(Duration::from_millis(50))?;
    let images = instance.path().join("chosen");
    fs::create_dir(&images)?;
    let place = images.to_str().context("a path in UTF-8")?;

    let first = instance.vss(["check", path])?;
    let wanted = format!("{path} into {}: 1.0 GiB to read", instance.path().join("images").display());
    ensure!(
        first.stdout.contains(&wanted) && first.stdout.contains("Everything is read: nothing was traced yet"),
        "{first:?}"
    );
    ensure!(instance.vss(["storage", "list", "--json"])?.json()? == json!({"storage": []}), "nothing is kept yet");
    // The wishes of a creation are foretold with.
    let wishes = ["--storage", place, "--max-rate", "64M", "--max-hold", "20", "--persistent", "--json"];
    let wished = instance.vss([&["check", path], &wishes[..]].concat())?.json()?;
    let volume = &wished["volumes"][0];
    ensure!(volume["copying"]["storage"] == place && volume["copying"]["places"][0]["storage"] == place, "{wished}");
    ensure!(volume["copying"]["copy_rate"] == 64 << 20 && volume["hold_ms"] == 20, "{wished}");
    let nobodys = as_nobody(&instance, &["check", path, "--storage", place])?;
    ensure!(nobodys.code == Some(1) && nobodys.stderr.contains("E_ACCESSDENIED"), "{nobodys:?}");
    let file = images.join("file");
    fs::write(&file, "")?;
    let refused = instance.vss(["check", path, "--storage", file.to_str().context("UTF-8")?])?;
    ensure!(refused.code == Some(1) && refused.stdout.contains("is no directory, so no image can lie"), "{refused:?}");
    fs::remove_file(&file)?;

    let ran = {
        let _turn = creation_turn();
        instance.vss(["run", "--volume", path, "--storage", place, "--", "true"])?
    };
    let stays = format!(
        "vss: The fake of {path} stays in {place} (1.0 GiB); the next copy reads only what changed; \
         `vss storage remove {path}` removes it"
    );
    ensure!(ran.is_success() && ran.stderr.lines().any(|line| line == stays), "{stays}: {ran:?}");
    let kept = instance.vss(["storage", "list", "--json"])?.json()?;
    let entry = &kept["storage"][0];
    ensure!(entry["provider"] == "fake" && entry["place"] == place && entry["used_bytes"] == 1 << 30, "{kept}");
    ensure!(instance.vss(["list", "storage", "--json"])?.json()? == kept, "one list by two names");
    let table = instance.vss(["storage", "list"])?.stdout;
    ensure!(table.starts_with("VOLUME\tPROVIDER\tPLACE\tUSED") && table.contains("\twhat changed"), "{table}");
    let second = instance.vss(["check", path, "--json"])?.json()?;
    ensure!(second["volumes"][0]["copying"]["full_compare"].is_null(), "{second}");
    ensure!(second["volumes"][0]["copying"]["bytes_to_read"] == 1 << 30, "{second}");

    let others = as_nobody(&instance, &["storage", "remove", path])?;
    ensure!(others.code == Some(1) && others.stderr.contains("E_ACCESSDENIED"), "{others:?}");
    let removed = instance.vss(["storage", "remove", path])?;
    ensure!(removed.stdout == format!("Removed the fake of {path} in {place} (1.0 GiB)\n"), "{removed:?}");
    let again = instance.vss(["storage", "remove", path])?;
    ensure!(again.code == Some(1) && again.stderr.contains("VSS_E_OBJECT_NOT_FOUND"), "{again:?}");
    let empty = instance.vss(["storage", "remove", "--all"])?;
    ensure!(empty.is_success() && empty.stdout == "There was nothing to remove\n", "{empty:?}");
    // So it is after a backup in a directory.
    let to = instance.path().join("backup");
    let backed_up = {
        let _turn = creation_turn();
        instance.vss(["backup", "--volume", path, "--storage", place, "--to", to.to_str().context("UTF-8")?])?
    };
    ensure!(backed_up.is_success() && backed_up.stderr.lines().any(|line| line == stays), "{stays}: {backed_up:?}");
    is_undone(&instance)
}

/// Runs `vss WORDS` as a user who may use the service, with a copy of the program that this user can read.
fn as_nobody(instance: &Instance, words: &[&str]) -> anyhow::Result<Outcome> {
    let place = tempfile::tempdir()?;
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755))?;
    // By another process: one that another thread forks meanwhile must not have the program open for writing.
    ensure!(Command::new("cp").arg(program("vss")).arg(place.path()).status()?.success(), "cp failed");
    let mut vss = Command::new(place.path().join("vss"));
    vss.args(instance.arguments()).args(words).uid(NOBODY).gid(NOBODY).current_dir("/").stdin(Stdio::null());
    Running::start(vss)?.finish()
}

#[test]
fn wishes_that_cannot_be_heeded_are_refused_before_anything_is_done() -> anyhow::Result<()> {
    if LoopFs::skips("wishes_that_cannot_be_heeded_are_refused_before_anything_is_done", &[Kind::Ext4]) {
        return Ok(());
    }
    let volume = LoopFs::new(Kind::Ext4, 16)?;
    let path = name(&volume)?;
    let instance = copying_for(Duration::ZERO)?;
    let file = instance.path().join("file");
    fs::write(&file, "x")?;
    let file = file.to_str().context("a path in UTF-8")?;
    for (wish, words) in [
        (["--max-rate", "50"], Some("64 KiB")),
        (["--max-hold", "8001"], Some("1..=8000")),
        (["--storage", "/no/such/directory"], None),
        (["--storage", file], None),
    ] {
        let refused = {
            let _turn = creation_turn();
            instance.vss(["create", path, wish[0], wish[1]])?
        };
        match words {
            Some(words) => ensure!(refused.code == Some(2) && refused.stderr.contains(words), "{refused:?}"),
            None => {
                let code = if wish[1] == file { "E_INVALIDARG" } else { "VSS_E_OBJECT_NOT_FOUND" };
                ensure!(refused.code == Some(1) && refused.stderr.contains(code), "{refused:?}");
            }
        }
    }
    let others = as_nobody(&instance, &["create", path, "--storage", "/tmp"])?;
    ensure!(others.code == Some(1) && others.stderr.contains("may not choose where images lie"), "{others:?}");
    is_undone(&instance)
}

/// A clone that is mounted beside its original has its uuid: nobody could tell their copies apart.
#[test]
fn a_volume_with_a_mounted_clone_is_refused_until_the_clone_is_gone() -> anyhow::Result<()> {
    if LoopFs::skips("a_volume_with_a_mounted_clone_is_refused_until_the_clone_is_gone", &[Kind::Ext4, Kind::Xfs]) {
        return Ok(());
    }
    let instance = copying_for(Duration::ZERO)?;
    for (kind, size_mib, way_out) in [(Kind::Ext4, 16, "tune2fs -U random"), (Kind::Xfs, 320, "xfs_admin -U generate")]
    {
        let volume = LoopFs::new(kind, size_mib)?;
        let path = name(&volume)?;
        let clone = CloneOf::mount(&volume, kind, &instance.path().join("clone"))?;
        let _turn = creation_turn();
        for place in [volume.path(), &clone.point] {
            let refused = instance.vss(["create".as_ref(), place.as_os_str()])?;
            ensure!(refused.code == Some(1) && refused.stderr.contains("VSS_E_VOLUME_NOT_SUPPORTED"), "{refused:?}");
            for words in [volume.device().to_str(), clone.device.path().to_str(), Some(path), Some(way_out)] {
                let words = words.context("a path in UTF-8")?;
                ensure!(refused.stderr.contains(words), "no {words}: {refused:?}");
            }
        }
        // Two places of one and the same file system are no clones.
        drop(clone);
        let _bind = vss_tests::volume::Mounted::bind(volume.path(), &instance.path().join("bind"))?;
        let made = instance.vss(["create", path])?;
        ensure!(made.is_success(), "{made:?}");
        instance.vss(["delete", "--all"])?;
    }
    is_undone(&instance)
}

/// A clone of a file system, mounted; unmounted when it is dropped.
struct CloneOf {
    point: std::path::PathBuf,
    device: vss_linux::loop_device::LoopDevice,
    _image: tempfile::TempPath,
}

impl CloneOf {
    fn mount(volume: &LoopFs, kind: Kind, point: &Path) -> anyhow::Result<Self> {
        use rustix::mount::{MountFlags, mount};
        use vss_linux::loop_device::{AttachOptions, LoopDevice};
        rustix::fs::syncfs(volume.open()?)?;
        let image = tempfile::NamedTempFile::new()?.into_temp_path();
        fs::copy(volume.image(), &image)?;
        let device = LoopDevice::attach(&image, AttachOptions { autoclear: true, ..AttachOptions::default() })?;
        fs::create_dir_all(point)?;
        let options = (kind == Kind::Xfs).then_some(c"nouuid");
        mount(device.path(), point, kind.name(), MountFlags::empty(), options)?;
        Ok(Self { point: point.to_owned(), device, _image: image })
    }
}

impl Drop for CloneOf {
    fn drop(&mut self) {
        // What is left then fails the test by what it does next.
        let _ = unmount_idle(&self.point);
    }
}
