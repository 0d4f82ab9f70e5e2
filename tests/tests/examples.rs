//! The examples, run as their readers run them: each as a process. The writers before a service that calls them as it
//! pleases, and both together with a real service and a real volume.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::fs::inotify;
use vss_api::writer::{Event, EventKind};
use vss_linux::process::{PidFd, Signal};
use vss_model::VssCode;
use vss_tests::instance::{Instance, Outcome, Running, wait_until};
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::programs::{example, source};
use vss_tests::traces;
use vss_tests::turn::creation_turn;
use vss_tests::volume::{Mounted, Volume};
use vss_writer::conformance::WHOLE;
use vss_writer::fake_service::{FakeConnection, FakeService, event};

use EventKind::{Abort, BackupShutdown, Freeze, PostSnapshot, PrepareBackup, PrepareSnapshot};

/// So long may an example take to begin and to end.
const LIMIT: Duration = Duration::from_secs(20);

/// What an example is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    Rust,
    Python,
}

use Language::{Python, Rust};

impl Language {
    /// The example of this name; none where it cannot be run, which is told.
    fn command(self, example_name: &str, test: &str) -> Option<Command> {
        match self {
            Rust => Some(Command::new(example(example_name))),
            Python if Command::new("python3").arg("--version").output().is_err() => {
                println!("SKIPPED: {test}: needs python3");
                None
            }
            Python => {
                let mut command = Command::new("python3");
                command.arg(source(&format!("examples/{example_name}.py")));
                Some(command)
            }
        }
    }

    fn writer_name(self) -> &'static str {
        match self {
            Rust => "rust-example",
            Python => "python-example",
        }
    }
}

/// A writer that runs, ended with the test.
struct Writer(Child);

impl Writer {
    fn start(mut command: Command, socket: &Path, data: &Path, lock: &Path) -> anyhow::Result<Self> {
        Ok(Self(command.arg(socket).arg(data).arg(lock).stdin(Stdio::null()).spawn()?))
    }

    fn terminate(&self) -> anyhow::Result<()> {
        Ok(PidFd::open(self.0.id())?.signal(Signal::TERM)?)
    }

    fn end(&mut self) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("the writer does not end")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What every writer has, before a service that calls it as it pleases.
struct Stage {
    directory: tempfile::TempDir,
    service: FakeService,
}

impl Stage {
    fn new() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        fs::create_dir(directory.path().join("data"))?;
        let service = FakeService::listen(&directory.path().join("writer"))?;
        Ok(Self { directory, service })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn is_held(&self) -> bool {
        self.path("lock").exists()
    }

    fn writer(&self, command: Command) -> anyhow::Result<(Writer, FakeConnection)> {
        let writer = Writer::start(command, self.service.path(), &self.path("data"), &self.path("lock"))?;
        Ok((writer, self.service.accept()?))
    }

    /// A session with the volume that holds the writer's data.
    fn session(&self, time_left: Duration) -> Event {
        event(self.directory.path(), time_left)
    }
}

fn call_all(connection: &mut FakeConnection, event: &Event, kinds: &[EventKind]) -> anyhow::Result<()> {
    for kind in kinds {
        let failure = connection.call(*kind, event)?.failure();
        ensure!(failure.is_none(), "{}: {failure:?}", kind.name());
    }
    Ok(())
}

#[test]
fn the_writers_serve_every_event() -> anyhow::Result<()> {
    for language in [Rust, Python] {
        let Some(command) = language.command("writer", "the_writers_serve_every_event") else { continue };
        let stage = Stage::new()?;
        let (mut writer, mut connection) = stage.writer(command)?;
        let register = connection.register().context("it registered")?;
        ensure!(register.name == language.writer_name() && register.freeze_timeout_ms == Some(20_000), "{register:?}");
        let identity = connection.identify()??;
        ensure!(identity.components[0].files[0].path == stage.path("data"), "{identity:?}");
        let event = stage.session(LIMIT);
        call_all(&mut connection, &event, &[PrepareBackup, PrepareSnapshot, Freeze])?;
        ensure!(stage.is_held(), "{language:?} does not hold");
        // Somebody else holds it: a failure, not an end.
        let failure = connection.call(Freeze, &event)?.failure().context("it is held already")?;
        ensure!(failure.code == VssCode::WriterErrorRetryable, "{failure}");
        // The end of another session does not end this one's hold.
        call_all(&mut connection, &stage.session(LIMIT), &[Abort, BackupShutdown])?;
        ensure!(stage.is_held(), "{language:?} does not tell sessions apart");
        call_all(&mut connection, &event, &WHOLE[3..])?;
        ensure!(!stage.is_held(), "{language:?} does not thaw");
        let next = stage.session(LIMIT);
        call_all(&mut connection, &next, &[PrepareBackup, PrepareSnapshot, Freeze, Abort, Abort, BackupShutdown])?;
        ensure!(!stage.is_held(), "{language:?} does not abort");
        call_all(&mut connection, &next, &[PrepareBackup, PrepareSnapshot, Freeze])?;
        // The service is gone. The one in Rust waits for it to come back.
        drop(connection);
        ensure!(wait_until(LIMIT, || !stage.is_held()), "{language:?} does not thaw without its service");
        if language == Rust {
            drop(stage.service.accept()?);
            writer.terminate()?;
        }
        ensure!(writer.end()?.success(), "{language:?} ends with an error");
    }
    Ok(())
}

#[test]
fn the_writers_thaw_by_themselves_and_on_sigterm() -> anyhow::Result<()> {
    for language in [Rust, Python] {
        let test = "the_writers_thaw_by_themselves_and_on_sigterm";
        let Some(command) = language.command("writer", test) else { continue };
        let stage = Stage::new()?;
        let (_late, mut connection) = stage.writer(command)?;
        call_all(&mut connection, &stage.session(Duration::from_millis(300)), &[Freeze])?;
        ensure!(wait_until(LIMIT, || !stage.is_held()), "{language:?} waits for Thaw for ever");
        drop(connection);
        let Some(command) = language.command("writer", test) else { continue };
        let stage = Stage::new()?;
        let (mut writer, mut connection) = stage.writer(command)?;
        call_all(&mut connection, &stage.session(LIMIT), &[Freeze])?;
        ensure!(stage.is_held());
        writer.terminate()?;
        ensure!(writer.end()?.success() && !stage.is_held(), "{language:?} does not end well");
    }
    Ok(())
}

#[test]
fn the_writer_in_rust_refuses_a_set_that_lacks_its_volume_and_mends_the_copy() -> anyhow::Result<()> {
    let test = "the_writer_in_rust_refuses_a_set_that_lacks_its_volume_and_mends_the_copy";
    let Some(command) = Rust.command("writer", test) else { return Ok(()) };
    let stage = Stage::new()?;
    let (_writer, mut connection) = stage.writer(command)?;
    let foreign = event(Path::new("/proc"), LIMIT);
    let failure = connection.call(PrepareSnapshot, &foreign)?.failure().context("its data is not on /proc")?;
    ensure!(failure.code == VssCode::WriterErrorInconsistentSnapshot, "{failure}");
    ensure!(failure.message.contains(&*stage.path("data").to_string_lossy()), "{failure}");
    let copy = tempfile::tempdir()?;
    for file in ["scratch", "orders"] {
        fs::create_dir_all(copy.path().join("data"))?;
        fs::write(copy.path().join("data").join(file), "")?;
    }
    let mut event = stage.session(LIMIT);
    event.volumes[0].directory = Some(0);
    let directory: OwnedFd = File::open(copy.path())?.into();
    let reply = connection.call_with(PostSnapshot, &event, &[std::os::fd::AsFd::as_fd(&directory)])?;
    ensure!(reply.failure().is_none(), "{reply:?}");
    ensure!(!copy.path().join("data/scratch").exists() && copy.path().join("data/orders").exists());
    Ok(())
}

/// A running service, a volume with the data of an application, and a place for its lock.
struct Scene {
    instance: Instance,
    volume: Volume,
    lock: PathBuf,
}

impl Scene {
    fn new() -> anyhow::Result<Self> {
        let volume = Volume::new()?;
        volume.write("shop/orders/1", "one")?;
        volume.write("shop/scratch", "half")?;
        std::os::unix::fs::symlink("orders/1", volume.path().join("shop/latest"))?;
        let mut instance = Instance::new()?;
        instance.start()?;
        let lock = instance.path().join("locks/shop.hold");
        fs::create_dir(instance.path().join("locks"))?;
        Ok(Self { instance, volume, lock })
    }

    fn data(&self) -> PathBuf {
        self.volume.path().join("shop")
    }

    /// Starts the writer and waits until the service has it.
    fn writer(&self, language: Language, command: Command) -> anyhow::Result<Writer> {
        let writer = Writer::start(command, &self.instance.writer_socket(), &self.data(), &self.lock)?;
        let mut management = self.instance.management()?;
        let has_it = || management.writers().is_ok_and(|all| all.iter().any(|one| one.name == language.writer_name()));
        ensure!(wait_until(LIMIT, has_it), "the service does not have the writer in {language:?}");
        Ok(writer)
    }

    fn request(&self, language: Language, mut command: Command, target: &Path) -> anyhow::Result<Outcome> {
        match language {
            Rust => command.arg(self.data()).arg(target).args([self.instance.runtime_dir(), self.instance.state_dir()]),
            Python => command.arg(self.instance.requester_socket()).arg(self.data()).arg(target),
        };
        let _turn = creation_turn();
        Running::start(command)?.finish()
    }

    fn ends_well(&self) -> anyhow::Result<()> {
        ensure!(!self.lock.exists(), "the application is still held");
        // The end of a session is undone a moment after its connection has ended.
        ensure!(wait_until(LIMIT, || traces::has_no_shadows(&self.instance).is_ok()), "a shadow copy is left");
        self.volume.is_clean()
    }
}

/// Names of the files that came and went in a directory since the watch began.
fn came_and_went(watch: &OwnedFd) -> anyhow::Result<Vec<String>> {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(watch, &mut buffer);
    let mut seen = Vec::new();
    loop {
        match events.next() {
            Ok(event) => {
                let name = event.file_name().context("it has a name")?.to_string_lossy().into_owned();
                let came = event.events().contains(inotify::ReadFlags::CREATE);
                seen.push(format!("{}{name}", if came { '+' } else { '-' }));
            }
            Err(rustix::io::Errno::AGAIN) => return Ok(seen),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn watch(directory: &Path) -> anyhow::Result<OwnedFd> {
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
    inotify::add_watch(&watch, directory, inotify::WatchFlags::CREATE | inotify::WatchFlags::DELETE)?;
    Ok(watch)
}

#[test]
fn every_requester_backs_up_with_every_writer() -> anyhow::Result<()> {
    let test = "every_requester_backs_up_with_every_writer";
    if LoopFs::skips(test, &[Kind::Btrfs]) {
        return Ok(());
    }
    for (writing, requesting) in [(Rust, Rust), (Rust, Python), (Python, Rust), (Python, Python)] {
        let writer = writing.command("writer", test);
        let (Some(writer), Some(requester)) = (writer, requesting.command("requester", test)) else { continue };
        let scene = Scene::new()?;
        let _writer = scene.writer(writing, writer)?;
        let locks = watch(&scene.instance.path().join("locks"))?;
        let target = scene.instance.path().join("target");
        let outcome = scene.request(requesting, requester, &target)?;
        let pair = format!("{writing:?} and {requesting:?}: {outcome:?}");
        ensure!(outcome.is_success() && outcome.stdout.contains("consistency: application"), "{pair}");
        // The step of one whole operation: of the steps of a set, short ones may be over before a slow requester asks.
        ensure!(outcome.stderr.contains("telling writers of the backup"), "no progress is told; {pair}");
        ensure!(came_and_went(&locks)? == ["+shop.hold", "-shop.hold"], "it was not held once; {pair}");
        ensure!(fs::read_to_string(target.join("orders/1"))? == "one", "{pair}");
        ensure!(fs::read_link(target.join("latest"))? == Path::new("orders/1"), "{pair}");
        // The one in Rust mends its copy; what is live stays as it is.
        ensure!(target.join("scratch").exists() == (writing == Python), "{pair}");
        ensure!(scene.data().join("scratch").exists(), "{pair}");
        scene.ends_well()?;
    }
    Ok(())
}

#[test]
fn a_writer_that_cannot_hold_still_fails_the_backup_by_name() -> anyhow::Result<()> {
    let test = "a_writer_that_cannot_hold_still_fails_the_backup_by_name";
    if LoopFs::skips(test, &[Kind::Btrfs]) {
        return Ok(());
    }
    for language in [Rust, Python] {
        let (writer, requester) = (language.command("writer", test), language.command("requester", test));
        let (Some(writer), Some(requester)) = (writer, requester) else { continue };
        let scene = Scene::new()?;
        let _writer = scene.writer(language, writer)?;
        // Somebody else's hold, which must not be ended by us.
        fs::write(&scene.lock, "")?;
        let target = scene.instance.path().join("target");
        let outcome = scene.request(language, requester, &target)?;
        ensure!(outcome.code == Some(1) && !target.exists(), "{language:?}: {outcome:?}");
        let said = &outcome.stderr;
        ensure!(said.contains(language.writer_name()) && said.contains("VSS_E_WRITERERROR_RETRYABLE"), "{outcome:?}");
        ensure!(said.contains("Held by another"), "the reason is missing: {outcome:?}");
        ensure!(scene.lock.exists(), "{language:?} ended somebody else's hold");
        fs::remove_file(&scene.lock)?;
        scene.ends_well()?;
    }
    Ok(())
}

#[test]
fn a_requester_that_cannot_write_its_target_says_so_and_leaves_nothing() -> anyhow::Result<()> {
    let test = "a_requester_that_cannot_write_its_target_says_so_and_leaves_nothing";
    if LoopFs::skips(test, &[Kind::Btrfs]) {
        return Ok(());
    }
    for language in [Rust, Python] {
        let Some(requester) = language.command("requester", test) else { continue };
        let scene = Scene::new()?;
        let target = scene.instance.path().join("locks");
        let outcome = scene.request(language, requester, &target)?;
        ensure!(outcome.code == Some(1) && outcome.stderr.contains("locks"), "{language:?}: {outcome:?}");
        scene.ends_well()?;
    }
    Ok(())
}

/// The data directory is seen by a mount of its own: the directory that the writer gets stands for that mount point.
#[test]
fn a_writer_mends_its_copy_also_where_its_directory_is_mounted_elsewhere() -> anyhow::Result<()> {
    let test = "a_writer_mends_its_copy_also_where_its_directory_is_mounted_elsewhere";
    if LoopFs::skips(test, &[Kind::Btrfs]) {
        return Ok(());
    }
    let (Some(writer), Some(requester)) = (Rust.command("writer", test), Rust.command("requester", test)) else {
        return Ok(());
    };
    let scene = Scene::new()?;
    scene.volume.write("scratch", "not the writer's")?;
    let bound = Mounted::bind(&scene.data(), &scene.instance.path().join("bound"))?;
    let _writer = Writer::start(writer, &scene.instance.writer_socket(), bound.path(), &scene.lock)?;
    let mut management = scene.instance.management()?;
    ensure!(wait_until(LIMIT, || management.writers().is_ok_and(|all| !all.is_empty())), "the writer does not join");
    let target = scene.instance.path().join("target");
    let mut requester = requester;
    requester.arg(bound.path()).arg(&target).args([scene.instance.runtime_dir(), scene.instance.state_dir()]);
    let turn = creation_turn();
    let outcome = Running::start(requester)?.finish()?;
    drop(turn);
    ensure!(outcome.is_success() && outcome.stdout.contains("application"), "{outcome:?}");
    ensure!(target.join("orders/1").exists() && !target.join("scratch").exists(), "{outcome:?}");
    ensure!(scene.data().join("scratch").exists());
    drop(bound);
    scene.ends_well()
}

#[test]
fn each_example_is_one_page() -> anyhow::Result<()> {
    for name in ["writer.rs", "writer.py", "requester.rs", "requester.py"] {
        let lines = fs::read_to_string(source("examples").join(name))?.lines().count();
        ensure!(lines <= 80, "examples/{name} has {lines} lines");
    }
    Ok(())
}
