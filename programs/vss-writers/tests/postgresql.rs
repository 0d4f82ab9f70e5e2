//! The PostgreSQL writer as the process that it is, with real servers, against a fake service.

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs::{self, File, Permissions};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vss_api::writer::{Event, EventComponent, EventKind, EventReply, EventVolume};
use vss_lab::postgresql::{Cluster, missing};
use vss_linux::child::become_user;
use vss_linux::process::{PidFd, Signal};
use vss_linux::user::User;
use vss_model::{Component, VssCode};
use vss_writer::fake_service::{FakeConnection, FakeService, event};

use EventKind::{Abort, BackupShutdown, Freeze, PostSnapshot, PrepareBackup, PrepareSnapshot, Thaw};

/// Time for each event, if the test does not want less.
const TIME: Duration = Duration::from_secs(60);

/// Why the tests of this file cannot run here; none: they can.
fn cannot() -> Option<String> {
    let root = rustix::process::geteuid().is_root();
    if root { missing() } else { Some("needs root, to become another user".into()) }
}

macro_rules! skip_without_postgresql {
    ($name:literal) => {
        if let Some(why) = cannot() {
            println!("SKIPPED: {}: {why}", $name);
            return Ok(());
        }
    };
}

/// A directory for clusters, with a second file system in it, and the writer's process.
struct Scene {
    place: TempDir,
    service: FakeService,
    writer: Option<Child>,
    mounted: Vec<PathBuf>,
}

impl Scene {
    fn new() -> Result<Self> {
        let place = TempDir::with_prefix_in("vss-pgw-", "/var/tmp")?;
        fs::set_permissions(place.path(), Permissions::from_mode(0o755))?;
        let service = FakeService::listen(&place.path().join("writer"))?;
        fs::set_permissions(service.path(), Permissions::from_mode(0o666))?;
        Ok(Self { place, service, writer: None, mounted: Vec::new() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// A file system of its own at `name`.
    fn file_system(&mut self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir(&path)?;
        mount("vss-test", &path, "tmpfs", MountFlags::empty(), Some(c"size=256m,mode=755"))?;
        self.mounted.push(path.clone());
        Ok(path)
    }

    /// Starts the writer as the user of the clusters and takes its registration.
    fn writer(&mut self) -> Result<FakeConnection> {
        let postgres = postgres()?;
        let mut command = Command::new("/proc/self/fd/0");
        command.stdin(File::open(env!("CARGO_BIN_EXE_vss-writers"))?);
        command.arg0("vss-writers").arg("postgresql").arg("--socket").arg(self.service.path());
        command.stdout(Stdio::null()).stderr(File::create(self.path("writer.log"))?).current_dir("/");
        become_user(&mut command, postgres.uid, postgres.gid, vec![postgres.gid]);
        self.writer = Some(command.spawn().context("cannot start vss-writers")?);
        Ok(self.service.accept()?)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(mut writer) = self.writer.take() {
            let _ = writer.kill();
            let _ = writer.wait();
        }
        for path in &self.mounted {
            let _ = unmount(path, UnmountFlags::DETACH);
        }
    }
}

fn postgres() -> Result<User> {
    let text = fs::read_to_string("/etc/passwd")?;
    let uid = text.lines().find_map(|line| line.strip_prefix("postgres:")?.split(':').nth(1)?.parse().ok());
    User::by_uid(uid.context("no user postgres")?)?.context("no user postgres")
}

/// The mount point that shows `path`.
fn mount_point(path: &Path) -> Result<PathBuf> {
    let mounts = vss_linux::mountinfo::mounts()?;
    let around = mounts.into_iter().map(|mount| mount.mount_point).filter(|point| path.starts_with(point));
    around.max_by_key(|point| point.components().count()).context("no mount")
}

/// The components of one cluster.
fn components_of(connection: &mut FakeConnection, cluster: &Cluster) -> Result<Vec<Component>> {
    let name = cluster.data().to_string_lossy().into_owned();
    let all = connection.identify()??.components;
    Ok(all.into_iter().filter(|it| it.name.name == name || it.name.logical_path == name).collect())
}

/// A session with these clusters on the volumes at these mount points, each cut by itself when there are several.
fn session(connection: &mut FakeConnection, clusters: &[&Cluster], volumes: &[&Path], time: Duration) -> Result<Event> {
    let mut session = event(Path::new("/"), time);
    let template = session.volumes[0].clone();
    let volume = |(index, path): (usize, &&Path)| EventVolume {
        volume: path.to_path_buf(),
        cut_group: u32::try_from(index).unwrap_or(0),
        ..template.clone()
    };
    session.volumes = volumes.iter().enumerate().map(volume).collect();
    for cluster in clusters {
        let components = components_of(connection, cluster)?;
        let component = |it: Component| EventComponent::of(it.name);
        session.components.extend(components.into_iter().map(component));
    }
    Ok(session)
}

/// The event with the descriptors of the copies in the order of its volumes.
fn mend(connection: &mut FakeConnection, session: &Event, copies: &[&Path]) -> Result<EventReply> {
    let directories = copies.iter().map(File::open).collect::<std::io::Result<Vec<_>>>()?;
    let fds: Vec<BorrowedFd<'_>> = directories.iter().map(AsFd::as_fd).collect();
    let mut event = session.clone();
    for (index, volume) in event.volumes.iter_mut().enumerate().take(fds.len()) {
        volume.directory = u32::try_from(index).ok();
    }
    Ok(connection.call_with(PostSnapshot, &event, &fds)?)
}

/// Calls these, which must succeed.
fn call(connection: &mut FakeConnection, session: &Event, kinds: &[EventKind]) -> Result<()> {
    for kind in kinds {
        let reply = connection.call(*kind, session)?;
        ensure!(reply.failure().is_none() && reply.components.is_empty(), "{}: {reply:?}", kind.name());
    }
    Ok(())
}

/// Copies `live` to where it would be below the copy of the volume at `mount_point`.
fn copy(live: &Path, mount_point: &Path, copy: &Path) -> Result<PathBuf> {
    let target = copy.join(live.strip_prefix(mount_point)?);
    fs::create_dir_all(target.parent().context("no parent")?)?;
    let done = Command::new("cp").arg("-a").arg(live).arg(&target).status()?;
    ensure!(done.success(), "cp ended with {done}");
    Ok(target)
}

fn sessions(cluster: &Cluster) -> Result<String> {
    cluster.sql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'vss'")
}

/// Waits until we have no session with the server, and nothing is left of one.
fn nothing_is_left(cluster: &Cluster) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(30);
    while sessions(cluster)? != "0" {
        ensure!(Instant::now() < until, "a session is left");
        std::thread::sleep(Duration::from_millis(20));
    }
    ensure!(cluster.sql("postgres", "SELECT count(*) FROM pg_replication_slots")? == "0", "a slot is left");
    Ok(())
}

#[test]
fn a_cluster_is_a_component_with_what_lies_elsewhere_below_it() -> Result<()> {
    skip_without_postgresql!("a_cluster_is_a_component_with_what_lies_elsewhere_below_it");
    let mut scene = Scene::new()?;
    let mut cluster = Cluster::create_with_wal(&scene.path("data"), &scene.path("wal"), &[])?;
    cluster.start()?;
    cluster.create_tablespace("other", &scene.path("other"))?;
    let mut connection = scene.writer()?;
    let register = connection.register().context("not registered")?;
    ensure!(register.name == "postgresql" && register.class_id.to_string() == "b14728f2-8cb9-8b99-b948-d57872601063");

    let name = cluster.data().display().to_string();
    let components = components_of(&mut connection, &cluster)?;
    let told: Vec<_> = components
        .iter()
        .map(|it| (it.name.logical_path.as_str(), it.name.name.as_str(), it.selectable, it.files[0].path.as_path()))
        .collect();
    let oid = cluster.sql("postgres", "SELECT oid FROM pg_tablespace WHERE spcname = 'other'")?;
    let tablespace = format!("tablespace {oid}");
    let (data, wal, other) = (scene.path("data"), scene.path("wal"), scene.path("other"));
    let wanted = [
        ("", name.as_str(), true, data.as_path()),
        (name.as_str(), tablespace.as_str(), false, other.as_path()),
        (name.as_str(), "pg_wal", false, wal.as_path()),
    ];
    ensure!(told == wanted, "{told:?}");

    cluster.kill()?;
    ensure!(components_of(&mut connection, &cluster)?.is_empty(), "a cluster that does not run is named");
    Ok(())
}

#[test]
fn one_instant_takes_a_checkpoint_and_nothing_more() -> Result<()> {
    skip_without_postgresql!("one_instant_takes_a_checkpoint_and_nothing_more");
    let mut scene = Scene::new()?;
    let mut cluster = Cluster::create(&scene.path("data"), &[])?;
    cluster.start()?;
    cluster.sql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 1000) n")?;
    let checkpoint = "SELECT checkpoint_lsn FROM pg_control_checkpoint()";
    let before = cluster.sql("postgres", checkpoint)?;

    let mut connection = scene.writer()?;
    let root = mount_point(cluster.data())?;
    let session = session(&mut connection, &[&cluster], &[&root], TIME)?;
    call(&mut connection, &session, &[PrepareBackup, PrepareSnapshot])?;
    ensure!(cluster.sql("postgres", checkpoint)? != before, "no checkpoint was written");
    nothing_is_left(&cluster)?;
    call(&mut connection, &session, &[Freeze])?;
    let copied = copy(cluster.data(), &root, &scene.path("copy"))?;
    call(&mut connection, &session, &[Thaw])?;
    let reply = mend(&mut connection, &session, &[&scene.path("copy")])?;
    ensure!(reply.failure().is_none(), "{reply:?}");
    ensure!(!copied.join("postmaster.pid").exists() && !copied.join("backup_label").exists());
    ensure!(cluster.data().join("postmaster.pid").exists(), "the live cluster was touched");

    // A copy that cannot be written to is as good: it is of one instant.
    call(&mut connection, &session, &[PrepareSnapshot, Freeze, Thaw, PostSnapshot, BackupShutdown])?;

    // Somebody else's files in the place of the cluster's.
    let mut stranger = Cluster::create(&scene.path("stranger"), &[])?;
    stranger.start()?;
    fs::remove_dir_all(&copied)?;
    fs::rename(copy(stranger.data(), &root, &scene.path("copy"))?, &copied)?;
    call(&mut connection, &session, &[PrepareSnapshot, Freeze, Thaw])?;
    let failure = mend(&mut connection, &session, &[&scene.path("copy")])?.failure().context("it was content")?;
    ensure!(failure.code == VssCode::WriterErrorRecoveryFailed && failure.message.contains("another cluster"));
    ensure!(copied.join("postmaster.pid").exists(), "another cluster's file was removed");
    Ok(())
}

/// A cluster with its log on a file system of its own, in a session that has both.
fn in_two_parts(scene: &mut Scene) -> Result<(Cluster, [PathBuf; 2])> {
    let other = scene.file_system("other")?;
    let mut cluster = Cluster::create_with_wal(&scene.path("data"), &other.join("wal"), &[])?;
    cluster.start()?;
    let volumes = [mount_point(cluster.data())?, other];
    Ok((cluster, volumes))
}

#[test]
fn several_instants_take_backup_mode_and_the_copy_gets_what_recovery_needs() -> Result<()> {
    skip_without_postgresql!("several_instants_take_backup_mode_and_the_copy_gets_what_recovery_needs");
    let mut scene = Scene::new()?;
    let (cluster, [root, other]) = in_two_parts(&mut scene)?;
    let mut connection = scene.writer()?;
    let session = session(&mut connection, &[&cluster], &[&root, &other], TIME)?;
    call(&mut connection, &session, &[PrepareBackup, PrepareSnapshot])?;
    ensure!(sessions(&cluster)? == "1", "backup mode needs its session");
    // The log is cut first, and goes on: what the data needs is not in its copy.
    let (first, second) = (scene.path("first"), scene.path("second"));
    copy(&other.join("wal"), &other, &second)?;
    cluster.sql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 10000) n")?;
    for _ in 0..3 {
        cluster.sql("postgres", "SELECT pg_switch_wal(); INSERT INTO t SELECT generate_series(1, 1000); CHECKPOINT")?;
    }
    call(&mut connection, &session, &[Freeze])?;
    let data = copy(cluster.data(), &root, &first)?;
    call(&mut connection, &session, &[Thaw])?;
    let reply = mend(&mut connection, &session, &[&first, &second])?;
    ensure!(reply.failure().is_none(), "{reply:?}");
    nothing_is_left(&cluster)?;
    let label = fs::read_to_string(data.join("backup_label"))?;
    ensure!(label.contains(&format!("LABEL: vss {}", session.set_id.context("no set")?)), "{label}");
    ensure!(!data.join("postmaster.pid").exists());

    // The proof: a server on the two copies.
    fs::remove_file(data.join("pg_wal"))?;
    std::os::unix::fs::symlink(second.join("wal"), data.join("pg_wal"))?;
    let mut restored = Cluster::adopt(&data)?;
    restored.start()?;
    ensure!(restored.sql("postgres", "SELECT count(*) FROM t")? == "13000");
    call(&mut connection, &session, &[BackupShutdown])
}

#[test]
fn without_a_copy_that_can_be_written_to_backup_mode_is_no_backup() -> Result<()> {
    skip_without_postgresql!("without_a_copy_that_can_be_written_to_backup_mode_is_no_backup");
    let mut scene = Scene::new()?;
    let (cluster, [root, other]) = in_two_parts(&mut scene)?;
    let mut connection = scene.writer()?;
    let session = session(&mut connection, &[&cluster], &[&root, &other], TIME)?;
    call(&mut connection, &session, &[PrepareSnapshot, Freeze, Thaw])?;
    let failure = connection.call(PostSnapshot, &session)?.failure().context("it was content")?;
    ensure!(
        failure.code == VssCode::WriterErrorRecoveryFailed && failure.message.contains("backup_label"),
        "{failure}"
    );
    nothing_is_left(&cluster)
}

#[test]
fn a_session_that_was_lost_is_told_and_no_label_is_written() -> Result<()> {
    skip_without_postgresql!("a_session_that_was_lost_is_told_and_no_label_is_written");
    let mut scene = Scene::new()?;
    let (mut cluster, [root, other]) = in_two_parts(&mut scene)?;
    let mut connection = scene.writer()?;
    for the_server_dies in [false, true] {
        let session = session(&mut connection, &[&cluster], &[&root, &other], TIME)?;
        call(&mut connection, &session, &[PrepareSnapshot, Freeze])?;
        let (first, second) = (scene.path("first"), scene.path("second"));
        let data = copy(cluster.data(), &root, &first)?;
        copy(&other.join("wal"), &other, &second)?;
        if the_server_dies {
            cluster.kill()?;
        } else {
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'vss'";
            cluster.sql("postgres", end)?;
        }
        call(&mut connection, &session, &[Thaw])?;
        let failure = mend(&mut connection, &session, &[&first, &second])?.failure().context("it was content")?;
        ensure!(failure.code == VssCode::WriterErrorRetryable, "{failure}");
        ensure!(failure.message.contains("failed to end backup mode"), "{failure}");
        ensure!(!data.join("backup_label").exists(), "a label that is worth nothing");
        call(&mut connection, &session, &[Abort, BackupShutdown])?;
        fs::remove_dir_all(first)?;
        fs::remove_dir_all(second)?;
    }
    cluster.start()?;
    nothing_is_left(&cluster)
}

#[test]
fn abort_and_the_end_of_the_service_end_backup_mode() -> Result<()> {
    skip_without_postgresql!("abort_and_the_end_of_the_service_end_backup_mode");
    let mut scene = Scene::new()?;
    let (cluster, [root, other]) = in_two_parts(&mut scene)?;
    let mut connection = scene.writer()?;
    for end in [Abort, BackupShutdown] {
        let session = session(&mut connection, &[&cluster], &[&root, &other], TIME)?;
        call(&mut connection, &session, &[PrepareSnapshot, Freeze, end])?;
        nothing_is_left(&cluster)?;
    }
    let session = session(&mut connection, &[&cluster], &[&root, &other], TIME)?;
    call(&mut connection, &session, &[PrepareSnapshot])?;
    ensure!(sessions(&cluster)? == "1");
    drop(connection);
    nothing_is_left(&cluster)?;
    // And when the writer itself is killed.
    let mut connection = scene.service.accept()?;
    call(&mut connection, &session, &[PrepareSnapshot])?;
    ensure!(sessions(&cluster)? == "1");
    scene.writer.take().context("no writer")?.kill()?;
    nothing_is_left(&cluster)
}

#[test]
fn a_directory_outside_the_set_is_refused_with_the_volume_to_add() -> Result<()> {
    skip_without_postgresql!("a_directory_outside_the_set_is_refused_with_the_volume_to_add");
    let mut scene = Scene::new()?;
    let (cluster, [root, other]) = in_two_parts(&mut scene)?;
    let mut connection = scene.writer()?;
    for (given, lacking, what) in [(&root, &other, "pg_wal"), (&other, &root, "data directory")] {
        let session = session(&mut connection, &[&cluster], &[given], TIME)?;
        let failure = connection.call(PrepareSnapshot, &session)?.failure().context("it was content")?;
        ensure!(failure.code == VssCode::WriterErrorInconsistentSnapshot, "{failure}");
        let wanted = format!("has its {what} on {}, which is not in the set", lacking.display());
        ensure!(failure.message.contains(&wanted), "{failure}");
        ensure!(failure.message.contains(&format!("Add the volume of {}", lacking.display())), "{failure}");
    }
    nothing_is_left(&cluster)
}

#[test]
fn a_cluster_fails_alone() -> Result<()> {
    skip_without_postgresql!("a_cluster_fails_alone");
    let mut scene = Scene::new()?;
    let (cluster, [root, _]) = in_two_parts(&mut scene)?;
    let mut good = Cluster::create(&scene.path("good"), &[])?;
    good.start()?;
    let mut connection = scene.writer()?;
    let session = session(&mut connection, &[&cluster, &good], &[&root], TIME)?;
    let reply = connection.call(PrepareSnapshot, &session)?;
    ensure!(reply.failure().is_none(), "the good one must go on: {reply:?}");
    let given_up: Vec<_> = reply.components.iter().map(|it| (it.name.to_string(), it.code)).collect();
    let name = cluster.data().display();
    let code = Some(VssCode::WriterErrorInconsistentSnapshot);
    ensure!(given_up == [(name.to_string(), code), (format!("{name}\\pg_wal"), code)], "{given_up:?}");
    call(&mut connection, &session, &[Freeze, Thaw, PostSnapshot, BackupShutdown])
}

#[test]
fn who_is_not_let_in_is_told_how() -> Result<()> {
    skip_without_postgresql!("who_is_not_let_in_is_told_how");
    let mut scene = Scene::new()?;
    let mut cluster = Cluster::create(&scene.path("data"), &[])?;
    fs::write(cluster.data().join("pg_hba.conf"), "local all all reject\n")?;
    cluster.start()?;
    let mut connection = scene.writer()?;
    let root = mount_point(cluster.data())?;
    let session = session(&mut connection, &[&cluster], &[&root], TIME)?;
    let failure = connection.call(PrepareSnapshot, &session)?.failure().context("it was content")?;
    ensure!(failure.code == VssCode::WriterErrorNonRetryable, "{failure}");
    ensure!(failure.message.contains("`local all postgres peer`"), "{failure}");
    Ok(())
}

#[test]
fn a_server_that_does_not_answer_is_given_up_in_time() -> Result<()> {
    skip_without_postgresql!("a_server_that_does_not_answer_is_given_up_in_time");
    let mut scene = Scene::new()?;
    let mut cluster = Cluster::create(&scene.path("data"), &[])?;
    cluster.start()?;
    cluster.sql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 1000) n")?;
    let mut connection = scene.writer()?;
    let root = mount_point(cluster.data())?;
    let time = Duration::from_secs(10);
    let session = session(&mut connection, &[&cluster], &[&root], time)?;
    let checkpointer = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'";
    let checkpointer = PidFd::open(cluster.sql("postgres", checkpointer)?.parse()?)?;
    checkpointer.signal(Signal::STOP)?;
    let began = Instant::now();
    let reply = connection.call(PrepareSnapshot, &session);
    let took = began.elapsed();
    checkpointer.signal(Signal::CONT)?;
    let failure = reply?.failure().context("it was content")?;
    ensure!(took < time, "it answered after {took:?}");
    ensure!(failure.code == VssCode::WriterErrorRetryable, "{failure}");
    let name = cluster.data().display().to_string();
    ensure!(failure.message.contains(&name) && failure.message.contains("write a checkpoint"), "{failure}");
    call(&mut connection, &session, &[Abort, BackupShutdown])?;
    nothing_is_left(&cluster)?;

    // A server that has just gone is no cluster any more.
    let session = self::session(&mut connection, &[&cluster], &[&root], TIME)?;
    cluster.kill()?;
    let failure = connection.call(PrepareSnapshot, &session)?.failure().context("it was content")?;
    ensure!(failure.code == VssCode::WriterErrorRetryable && failure.message.contains("not running any more"));
    Ok(())
}

/// What root starts: one process for each user, started again when it is killed.
#[test]
fn root_serves_every_owner_by_a_process_of_its_own() -> Result<()> {
    skip_without_postgresql!("root_serves_every_owner_by_a_process_of_its_own");
    let scene = Scene::new()?;
    let mut cluster = Cluster::create(&scene.path("data"), &[])?;
    cluster.start()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_vss-writers"));
    command.arg("--socket").arg(scene.service.path()).args(["--directory", "/nonexistent"]);
    command.args(["--freeze-directory", "/nonexistent", "--exit-with-parent"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(File::create(scene.path("writers.log"))?);
    let mut parent = command.spawn()?;
    let outcome = (|| {
        let mut first = scene.service.accept()?;
        ensure!(!components_of(&mut first, &cluster)?.is_empty(), "it does not see the cluster");
        let child = child_of(parent.id())?;
        let status = fs::read_to_string(format!("/proc/{child}/status"))?;
        let uid = format!("Uid:\t{0}\t{0}\t{0}\t{0}\n", postgres()?.uid);
        ensure!(status.contains(&uid), "{status}");
        PidFd::open(child)?.signal(Signal::KILL)?;
        drop(first);
        let mut second = scene.service.accept()?;
        ensure!(child_of(parent.id())? != child && !components_of(&mut second, &cluster)?.is_empty());
        // The end of its standard input is the end of all.
        let last = PidFd::open(child_of(parent.id())?)?;
        drop(parent.stdin.take());
        let until = Instant::now() + Duration::from_secs(30);
        while parent.try_wait()?.is_none() || !last.is_gone() {
            ensure!(Instant::now() < until, "they do not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    })();
    let _ = parent.kill();
    let _ = parent.wait();
    outcome
}

fn child_of(parent: u32) -> Result<u32> {
    let until = Instant::now() + Duration::from_secs(30);
    while Instant::now() < until {
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        let threads = fs::read_dir(format!("/proc/{parent}/task"))?.flatten();
        let of_threads =
            threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok()).collect::<String>();
        if let Some(child) = (children + " " + &of_threads).split_whitespace().next() {
            return Ok(child.parse()?);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("it has no child")
}
