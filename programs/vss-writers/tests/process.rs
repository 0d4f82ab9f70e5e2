//! The process as a whole, against a fake service.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use vss_api::writer::{Event, EventKind};
use vss_model::{VssCode, VssError};
use vss_writer::conformance::WHOLE;
use vss_writer::fake_service::{FakeConnection, FakeService, event};

use EventKind::{Abort, BackupShutdown, Freeze, PrepareBackup, PrepareSnapshot, Thaw};

/// Answers `ok`, notes what it hears.
const SCRIPT: &str = "while read -r phase rest; do echo \"$phase\" >> $LOG; echo ok; done; echo end >> $LOG";
const HOOK: &str = "echo \"$(basename $0) $1\" >> $LOG";

struct Scene {
    directory: tempfile::TempDir,
    service: FakeService,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let service = FakeService::listen(&directory.path().join("writer")).unwrap();
        Self { directory, service }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn program(&self, name: &str, body: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = format!("#!/bin/sh\nLOG={}\n{body}\n", self.path("log").display());
        let mut writer = Command::new("sh");
        writer.args(["-c", "umask 022; printf '%s' \"$1\" > \"$2\"", "sh", &text]).arg(&path);
        assert!(writer.status().unwrap().success());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn script(&self) {
        let program = self.program("script", SCRIPT);
        fs::create_dir_all(self.path("writers.d")).unwrap();
        let text = format!(
            "name = \"shop\"\ncommand = [\"{}\"]\n[[components]]\nname = \"a\"\nfiles = [{{ path = \"/srv\" }}]\n",
            program.display()
        );
        fs::write(self.path("writers.d/shop.toml"), text).unwrap();
    }

    fn log(&self) -> Vec<String> {
        fs::read_to_string(self.path("log")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn start(&self, more: &[&str]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vss-writers"));
        command.arg("--socket").arg(self.service.path());
        command.arg("--directory").arg(self.path("writers.d"));
        command.arg("--freeze-directory").arg(self.path("freeze.d")).arg("--no-postgresql").args(more);
        Process(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }
}

struct Process(Child);

impl Process {
    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap().success());
    }

    /// Waits for the end, at most 30 s.
    fn end(&mut self) -> ExitStatus {
        let until = Instant::now() + Duration::from_secs(30);
        while Instant::now() < until {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("it did not end");
    }

    fn errors(&mut self) -> String {
        let mut text = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn session() -> Event {
    event(Path::new("/srv"), Duration::from_secs(20))
}

fn call_all(connection: &mut FakeConnection, event: &Event, kinds: &[EventKind]) {
    for kind in kinds {
        assert_eq!(connection.call(*kind, event).unwrap().failure(), None, "{}", kind.name());
    }
}

fn until(condition: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(30), "it never happened");
        std::thread::sleep(Duration::from_millis(1));
    }
    began.elapsed()
}

#[test]
fn both_writers_register_ready_is_told_and_a_backup_goes_through() {
    let scene = Scene::new();
    scene.script();
    scene.program("freeze.d/10-hook", HOOK);
    let mut process = scene.start(&["--notify-ready"]);
    let mut connections = [scene.service.accept().unwrap(), scene.service.accept().unwrap()];
    let mut line = String::new();
    BufReader::new(process.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "READY=1\n");
    connections.sort_by_key(|connection| connection.register().unwrap().name.clone());
    let [hooks, shop] = &mut connections;
    assert_eq!((hooks.register().unwrap().name.as_str(), shop.register().unwrap().name.as_str()), ("freeze.d", "shop"));
    call_all(shop, &session(), &WHOLE);
    call_all(hooks, &session(), &WHOLE);
    assert_eq!(scene.log()[7..], ["end", "10-hook freeze", "10-hook thaw"]);
    process.signal("-TERM");
    assert!(process.end().success());
}

#[test]
fn sigterm_while_frozen_thaws() {
    let scene = Scene::new();
    scene.script();
    scene.program("freeze.d/10-hook", HOOK);
    let mut process = scene.start(&[]);
    let (mut one, mut two) = (scene.service.accept().unwrap(), scene.service.accept().unwrap());
    let event = session();
    for connection in [&mut one, &mut two] {
        call_all(connection, &event, &[PrepareBackup, PrepareSnapshot, Freeze]);
    }
    let began = Instant::now();
    process.signal("-TERM");
    assert!(process.end().success());
    assert!(began.elapsed() < Duration::from_secs(15));
    let log = scene.log();
    for line in ["10-hook freeze", "10-hook thaw", "abort", "backup-shutdown", "end"] {
        assert!(log.iter().any(|logged| logged == line), "{line} is missing in {log:?}");
    }
    assert!(process.errors().contains("Abort by itself: the connection with the service has ended"));
}

#[test]
fn the_log_is_held_back_while_frozen() {
    let scene = Scene::new();
    scene.program("freeze.d/10-hook", HOOK);
    let mut process = scene.start(&[]);
    let mut lines = BufReader::new(process.0.stderr.take().unwrap()).lines();
    let mut connection = scene.service.accept().unwrap();
    assert!(lines.next().unwrap().unwrap().contains("registered with fake 0"));
    let event = session();
    call_all(&mut connection, &event, &[PrepareBackup, PrepareSnapshot, Freeze]);
    let next = std::thread::spawn(move || lines.next().unwrap().unwrap());
    std::thread::sleep(Duration::from_millis(100));
    assert!(!next.is_finished(), "something was printed in the window");
    call_all(&mut connection, &event, &[Thaw]);
    let line = next.join().unwrap();
    assert!(line.starts_with("freeze.d: Freeze done in "), "{line}");
}

#[test]
fn connection_lost_while_frozen_thaws_at_once() {
    let scene = Scene::new();
    scene.program("freeze.d/10-hook", HOOK);
    let _process = scene.start(&[]);
    let mut connection = scene.service.accept().unwrap();
    call_all(&mut connection, &session(), &[PrepareBackup, PrepareSnapshot, Freeze]);
    drop(connection);
    let took = until(|| scene.log().len() == 2);
    assert_eq!(scene.log()[1], "10-hook thaw");
    println!("hook thawed {took:?} after the end of the connection");
    // The loop calls Abort within 100 ms (its own test); starting a shell on a busy machine takes longer.
    assert!(took < Duration::from_secs(10), "thawed after {took:?}");
    // And it is there again.
    scene.service.accept().unwrap();
}

#[test]
fn killed_while_frozen_the_next_one_thaws_hooks_and_scripts_see_the_end() {
    let scene = Scene::new();
    scene.script();
    scene.program("freeze.d/10-hook", HOOK);
    let mut process = scene.start(&[]);
    let (mut one, mut two) = (scene.service.accept().unwrap(), scene.service.accept().unwrap());
    for connection in [&mut one, &mut two] {
        call_all(connection, &session(), &[PrepareBackup, PrepareSnapshot, Freeze]);
    }
    process.signal("-KILL");
    process.end();
    until(|| scene.log().contains(&"end".to_owned()));
    assert!(!scene.log().contains(&"10-hook thaw".to_owned()));
    let _next = scene.start(&[]);
    until(|| scene.log().contains(&"10-hook thaw".to_owned()));
}

#[test]
fn ends_with_its_parent() {
    let scene = Scene::new();
    let mut process = scene.start(&["--exit-with-parent", "--notify-ready"]);
    let mut line = String::new();
    BufReader::new(process.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "READY=1\n");
    assert!(process.0.try_wait().unwrap().is_none());
    drop(process.0.stdin.take());
    assert!(process.end().success());
}

#[test]
fn a_refused_writer_is_ready_too_and_all_refused_is_a_failure() {
    let scene = Scene::new();
    scene.script();
    let mut process = scene.start(&["--notify-ready"]);
    scene.service.refuse(&VssError::new(VssCode::AccessDenied, "The class belongs to uid 7")).unwrap();
    assert_eq!(process.end().code(), Some(1));
    assert!(process.errors().contains("shop: gave up: the service refused the writer: The class belongs to uid 7"));
}

#[test]
fn a_writer_whose_twin_is_registered_waits_for_its_end() {
    let scene = Scene::new();
    scene.script();
    let mut process = scene.start(&["--notify-ready"]);
    let twin = VssError::new(VssCode::WriterAlreadySubscribed, "Writer shop is registered already, by process 7");
    scene.service.refuse(&twin).unwrap();
    let mut line = String::new();
    BufReader::new(process.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "READY=1\n", "it is ready without the writer that waits");
    scene.service.refuse(&twin).unwrap();
    let connection = scene.service.accept().unwrap();
    assert_eq!(connection.register().unwrap().name, "shop");
    process.signal("-TERM");
    assert!(process.end().success());
    let said = process.errors();
    assert_eq!(
        said.matches("the service refuses the writer for now: Writer shop is registered already").count(),
        1,
        "{said}"
    );
}

#[test]
fn hooks_inherit_no_blocked_signal_and_no_descriptor() {
    let scene = Scene::new();
    // Read by the shell itself: while it starts another program it blocks signals for a moment. It uses descriptors from
    // 10 on for itself.
    let body = "while read -r line; do case $line in SigBlk*) echo \"$line\" >> $LOG; esac; done < /proc/$$/status\n\
                for fd in 3 4 5 6 7 8 9; do [ ! -e /proc/$$/fd/$fd ] || echo $fd is open >> $LOG; done";
    scene.program("freeze.d/10-hook", body);
    let _process = scene.start(&[]);
    let mut connection = scene.service.accept().unwrap();
    call_all(&mut connection, &session(), &[PrepareBackup, PrepareSnapshot, Freeze]);
    assert_eq!(scene.log(), ["SigBlk:\t0000000000000000"]);
    call_all(&mut connection, &session(), &[Abort, BackupShutdown]);
}

#[test]
fn help_has_examples() {
    let output = Command::new(env!("CARGO_BIN_EXE_vss-writers")).arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("Examples:") && text.contains("fsfreeze-hook.d") && text.contains("Exit status"), "{text}");
}
