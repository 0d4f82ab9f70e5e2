//! Directories of hooks with real programs: order, exit codes, undo, the names of other products.

mod common;

use common::{Scene, session, tell};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use vss_api::writer::{Event, EventComponent, EventKind, Identify};
use vss_model::{ComponentName, SessionId, VssCode};
use vss_writer::{Call, Writer, conformance};
use vss_writer_script::{HookDirectory, HooksConfig, Places, load};

use EventKind::{Abort, BackupShutdown, Freeze, PrepareBackup, PrepareSnapshot, Thaw};

/// Notes its name and its argument.
const NOTE: &str = r#"echo "$(basename $0) $*" >> $LOG"#;

fn hooks(directory: &Path) -> HookDirectory {
    HookDirectory::new(directory, HooksConfig::beside(directory).unwrap())
}

/// Notes, and does the misdeed when it is told to freeze.
fn bad(misdeed: &str) -> String {
    format!("{NOTE}\nif [ \"$1\" = freeze ]; then {misdeed}; fi")
}

#[test]
fn conforms() {
    let scene = Scene::new();
    scene.program("d/10-a", NOTE);
    conformance::check(&mut hooks(&scene.path("d")));
}

#[test]
fn holds_from_freeze_to_thaw_whatever_other_sessions_do() {
    let scene = Scene::new();
    scene.program("d/10-a", "if [ \"$1\" = freeze ]; then touch $LOG.held; else rm -f $LOG.held; fi");
    let held = scene.path("log.held");
    conformance::check_hold(&mut hooks(&scene.path("d")), &mut || held.exists());
}

#[test]
fn freezes_in_order_of_names_and_thaws_in_reverse() {
    let scene = Scene::new();
    for name in ["30-c", "10-a", "20-b"] {
        scene.program(&format!("d/{name}"), NOTE);
    }
    let mut hooks = hooks(&scene.path("d"));
    let event = session(5);
    conformance::sequence(&mut hooks, &event, &conformance::WHOLE);
    assert_eq!(scene.log(), ["10-a freeze", "20-b freeze", "30-c freeze", "30-c thaw", "20-b thaw", "10-a thaw"]);
}

#[test]
fn skips_what_is_no_hook() {
    let scene = Scene::new();
    for name in ["a~", "b.bak", "c.rpmsave", "d.sample", ".hidden", "e.dpkg-old"] {
        scene.program(&format!("d/{name}"), NOTE);
    }
    fs::write(scene.path("d/README"), "not executable").unwrap();
    fs::create_dir(scene.path("d/directory")).unwrap();
    let mut hooks = hooks(&scene.path("d"));
    let identify = Identify { session_id: SessionId::random(), time_left_ms: 1000 };
    assert!(hooks.identify(&identify).unwrap().components.is_empty());
    conformance::sequence(&mut hooks, &session(5), &conformance::WHOLE);
    assert!(scene.log().is_empty());
    scene.program("d/mysql-flush.sh", NOTE);
    let components = hooks.identify(&identify).unwrap().components;
    assert_eq!(components[0].files[0].path, Path::new("/"));
    assert!(components[0].files[0].recursive);
}

#[test]
fn a_failing_hook_is_named_and_what_was_begun_is_thawed() {
    for (misdeed, code, says) in [
        (
            "echo cannot flush >&2; exit 3",
            VssCode::WriterErrorNonRetryable,
            "Hook 20-b ended with exit code 3 in freeze: cannot flush",
        ),
        (
            "echo on stdout; exit 1",
            VssCode::WriterErrorNonRetryable,
            "Hook 20-b ended with exit code 1 in freeze: on stdout",
        ),
        ("exit 75", VssCode::WriterErrorRetryable, "Hook 20-b ended with exit code 75 (try again) in freeze"),
        ("kill -9 $$", VssCode::WriterErrorNonRetryable, "Hook 20-b was killed by signal 9 in freeze"),
    ] {
        let scene = Scene::new();
        scene.program("d/10-a", NOTE);
        scene.program("d/20-b", &bad(misdeed));
        scene.program("d/30-c", NOTE);
        let mut hooks = hooks(&scene.path("d"));
        let event = session(5);
        conformance::sequence(&mut hooks, &event, &[PrepareBackup, PrepareSnapshot]);
        let error = tell(&mut hooks, &event, Freeze).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (code, says));
        conformance::sequence(&mut hooks, &event, &[Abort, Abort, BackupShutdown]);
        assert_eq!(scene.log(), ["10-a freeze", "20-b freeze", "20-b thaw", "10-a thaw"]);
    }
}

#[test]
fn a_hanging_hook_is_killed_with_its_children_and_the_others_are_thawed_in_time() {
    let marker = format!("sleep 614.{}", std::process::id());
    let scene = Scene::new();
    scene.program("d/10-a", NOTE);
    scene.program("d/20-b", &bad(&format!("{marker} & wait")));
    let mut hooks = hooks(&scene.path("d"));
    let event = session(10);
    conformance::sequence(&mut hooks, &event, &[PrepareBackup, PrepareSnapshot]);
    let began = Instant::now();
    let error = tell(&mut hooks, &event, Freeze).unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    assert_eq!(
        (error.code, error.message.as_str()),
        (VssCode::WriterErrorTimeout, "Hook 20-b was killed because it did not end in time in freeze")
    );
    assert_eq!(scene.log(), ["10-a freeze", "20-b freeze", "20-b thaw", "10-a thaw"]);
    assert!(common::nobody_runs(&marker));
}

#[test]
fn an_interrupted_freeze_ends_at_once_and_is_thawed() {
    let scene = Scene::new();
    scene.program("d/10-a", &bad("sleep 30"));
    let mut hooks = hooks(&scene.path("d"));
    let (stopper, stop) = vss_writer::Stop::new().unwrap();
    let log = scene.path("log");
    let stopping = std::thread::spawn(move || {
        // It is there before its first line is.
        while !std::fs::read(&log).is_ok_and(|text| text.ends_with(b"\n")) {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(stopper);
    });
    let event = session(30);
    let began = Instant::now();
    let call = Call::new(Freeze, &event).interrupted_by(std::os::fd::AsFd::as_fd(&stop));
    assert_eq!(hooks.freeze(&call).unwrap_err().code, VssCode::WriterErrorRetryable);
    assert!(began.elapsed() < Duration::from_secs(15));
    stopping.join().unwrap();
    assert_eq!(scene.log(), ["10-a freeze", "10-a thaw"]);
}

#[test]
fn a_failing_thaw_is_told_the_others_are_thawed_and_abort_tries_it_again() {
    let scene = Scene::new();
    scene.program("d/10-a", NOTE);
    scene.program(
        "d/20-b",
        &format!("{NOTE}\nif [ $1 = thaw ] && [ ! -e $LOG.once ]; then touch $LOG.once; exit 4; fi"),
    );
    let mut hooks = hooks(&scene.path("d"));
    let event = session(5);
    conformance::sequence(&mut hooks, &event, &[PrepareBackup, PrepareSnapshot, Freeze]);
    let error = tell(&mut hooks, &event, Thaw).unwrap_err();
    assert_eq!(error.message, "Hook 20-b ended with exit code 4 in thaw");
    conformance::sequence(&mut hooks, &event, &[Abort, Abort, BackupShutdown]);
    assert_eq!(scene.log(), ["10-a freeze", "20-b freeze", "20-b thaw", "10-a thaw", "20-b thaw"]);
}

#[test]
fn a_process_that_a_hook_leaves_behind_lives_until_thaw_and_may_write() {
    // As qemu's mysql-flush.sh: the client that holds the lock stays in the background, with the hook's outputs open.
    let scene = Scene::new();
    let body = r#"case $1 in
freeze) (while [ ! -e $LOG.stop ]; do echo alive; echo alive >&2; sleep 0.01; done; echo released >> $LOG) & ;;
thaw) touch $LOG.stop; while ! grep -q released $LOG; do sleep 0.01; done ;;
esac"#;
    scene.program("d/mysql-flush.sh", body);
    let mut hooks = hooks(&scene.path("d"));
    let event = session(30);
    let began = Instant::now();
    conformance::sequence(&mut hooks, &event, &[PrepareBackup, PrepareSnapshot, Freeze]);
    assert!(began.elapsed() < Duration::from_secs(15), "Freeze waited for the process in the background");
    std::thread::sleep(Duration::from_millis(200));
    assert!(scene.log().is_empty(), "it died");
    conformance::sequence(&mut hooks, &event, &[Thaw, BackupShutdown]);
    assert_eq!(scene.log(), ["released"]);
}

#[test]
fn pairs_of_vmware_and_veeam_come_first_and_end_last() {
    for (freeze, thaw) in [
        ("pre-freeze-script", "post-thaw-script"),
        ("pre-freeze-script.sh", "post-thaw-script.sh"),
        ("pre-freeze", "post-thaw"),
        ("pre-freeze.sh", "post-thaw.sh"),
    ] {
        let scene = Scene::new();
        scene.program(&format!("d/{freeze}"), NOTE);
        scene.program(&format!("d/{thaw}"), NOTE);
        scene.program("d/10-a", NOTE);
        let mut hooks = hooks(&scene.path("d"));
        conformance::sequence(&mut hooks, &session(5), &conformance::WHOLE);
        let expected = [format!("{freeze} freeze"), "10-a freeze".into(), "10-a thaw".into(), format!("{thaw} thaw")];
        assert_eq!(scene.log(), expected);
    }
}

#[test]
fn half_a_pair_is_enough() {
    let scene = Scene::new();
    scene.program("d/post-thaw-script", NOTE);
    conformance::sequence(&mut hooks(&scene.path("d")), &session(5), &conformance::WHOLE);
    assert_eq!(scene.log(), ["post-thaw-script thaw"]);
}

#[test]
fn vmwares_directory_hears_freeze_fail() {
    let scene = Scene::new();
    scene.program("backupScripts.d/10-a", NOTE);
    scene.program("backupScripts.d/20-b", NOTE);
    let mut hooks = hooks(&scene.path("backupScripts.d"));
    let event = session(5);
    conformance::sequence(&mut hooks, &event, &[PrepareBackup, PrepareSnapshot, Freeze, Abort, BackupShutdown]);
    assert_eq!(scene.log(), ["10-a freeze", "20-b freeze", "20-b freezeFail", "10-a freezeFail"]);
    conformance::sequence(&mut hooks, &event, &[PrepareBackup, PrepareSnapshot, Freeze, Thaw, BackupShutdown]);
    assert_eq!(scene.log()[6..], ["20-b thaw", "10-a thaw"]);
}

#[test]
fn hooks_learn_of_the_backup() {
    let scene = Scene::new();
    scene.program("d/10-a", "echo \"$1 $VSS_SET_ID $VSS_VOLUMES $VSS_WRITER $(pwd)\" >> $LOG");
    let event = session(5);
    conformance::sequence(&mut hooks(&scene.path("d")), &event, &[Freeze]);
    assert_eq!(scene.log(), [format!("freeze {} /srv/my data d /", event.set_id.unwrap())]);
}

#[test]
fn what_others_may_change_is_refused_before_anything_is_frozen() {
    use std::os::unix::fs::PermissionsExt;
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: what_others_may_change_is_refused_before_anything_is_frozen: it needs root");
        return;
    }
    let scene = Scene::new();
    scene.program("d/10-a", NOTE);
    let bad = scene.program("d/20-b", NOTE);
    fs::set_permissions(bad, fs::Permissions::from_mode(0o777)).unwrap();
    let mut hooks = hooks(&scene.path("d"));
    let event = session(5);
    for kind in [PrepareBackup, PrepareSnapshot, Freeze] {
        let error = tell(&mut hooks, &event, kind).unwrap_err();
        assert!(error.message.starts_with("Hook refused: ") && error.message.contains("chmod go-w"), "{error}");
    }
    assert!(scene.log().is_empty());
}

#[test]
fn an_environment_that_no_hook_can_have_is_refused_before_anything_is_frozen() {
    let scene = Scene::new();
    scene.program("d/10-a", NOTE);
    let mut hooks = hooks(&scene.path("d"));
    let options = Some("x".repeat(128 << 10));
    let component = EventComponent { backup_options: options, ..EventComponent::of(ComponentName::new("", "hooks")) };
    let event = Event { components: vec![component], ..session(5) };
    let error = tell(&mut hooks, &event, PrepareBackup).unwrap_err();
    assert!(error.message.contains("VSS_BACKUP_OPTIONS") && error.hint.contains("shorter"), "{error}");
    assert!(scene.log().is_empty());
}

#[test]
fn what_failed_in_freeze_and_in_thawing_is_told_with_the_way_out() {
    let scene = Scene::new();
    for name in ["10-a", "20-b"] {
        scene.program(&format!("d/{name}"), &format!("{NOTE}\n[ $1 = freeze ] && [ $(basename $0) = 10-a ]"));
    }
    let mut directory = hooks(&scene.path("d"));
    let error = tell(&mut directory, &session(5), Freeze).unwrap_err();
    assert_eq!(
        (error.message.as_str(), error.hint.as_str()),
        (
            "Hook 20-b ended with exit code 1 in freeze. Thawing failed too: Hook 20-b ended with exit code 1 in thaw; 1 \
             more hooks failed",
            ""
        )
    );
    // One with a way out, which the failing of the other must not hide.
    let options = Some("x".repeat(128 << 10));
    let component = EventComponent { backup_options: options, ..EventComponent::of(ComponentName::new("", "hooks")) };
    let event = Event { components: vec![component], ..session(6) };
    let error = tell(&mut hooks(&scene.path("d")), &event, Freeze).unwrap_err();
    assert!(error.message.contains("VSS_BACKUP_OPTIONS") && error.message.contains("Thawing failed too"), "{error}");
    assert_eq!(error.hint, "Set shorter backup options");
}

#[test]
fn a_toml_beside_says_what_they_hold_still() {
    let scene = Scene::new();
    scene.program("d/10-a", NOTE);
    let text = "name = \"shop\"\nlevel = \"back_end\"\nfreeze_timeout_ms = 5000\n\
                [[components]]\nname = \"db\"\nfiles = [{ path = \"/srv/db\", recursive = true }]\n";
    fs::write(scene.path("d/vss.toml"), text).unwrap();
    let mut hooks = hooks(&scene.path("d"));
    let register = hooks.registration();
    assert_eq!((register.name.as_str(), register.freeze_timeout_ms), ("shop", Some(5000)));
    let identify = Identify { session_id: SessionId::random(), time_left_ms: 1000 };
    assert_eq!(hooks.identify(&identify).unwrap().components[0].files[0].path, Path::new("/srv/db"));
}

#[test]
fn what_a_killed_process_left_frozen_is_thawed_at_the_next_start() {
    let scene = Scene::new();
    for name in ["10-a", "20-b"] {
        scene.program(&format!("freeze.d/{name}"), NOTE);
    }
    let places = Places {
        directory: scene.path("writers.d"),
        freeze_directories: vec![scene.path("freeze.d")],
        runtime: scene.path("run"),
    };
    let mut first = load(&places).writers.remove(0);
    let event = session(5);
    conformance::sequence(&mut *first, &event, &[PrepareBackup, PrepareSnapshot, Freeze]);
    drop(first);
    assert_eq!(fs::read_dir(scene.path("run")).unwrap().count(), 1);
    let mut second = load(&places);
    assert!(second.problems.is_empty());
    assert_eq!(scene.log(), ["10-a freeze", "20-b freeze", "20-b thaw", "10-a thaw"]);
    assert_eq!(fs::read_dir(scene.path("run")).unwrap().count(), 0);
    // A backup that ends well leaves no note.
    conformance::sequence(&mut *second.writers[0], &event, &conformance::WHOLE);
    assert_eq!(fs::read_dir(scene.path("run")).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_read_fails_every_backup_and_is_named() {
    let scene = Scene::new();
    fs::create_dir(scene.path("writers.d")).unwrap();
    let good = "command = [\"/bin/true\"]\n[[components]]\nname = \"a\"\nfiles = [{ path = \"/srv\" }]\n";
    fs::write(scene.path("writers.d/a.toml"), format!("name = \"same\"\n{good}")).unwrap();
    fs::write(scene.path("writers.d/b.toml"), format!("name = \"same\"\n{good}")).unwrap();
    fs::write(scene.path("writers.d/c.toml"), "name = ").unwrap();
    fs::write(scene.path("writers.d/ignored.txt"), "x").unwrap();
    let places = Places {
        directory: scene.path("writers.d"),
        freeze_directories: vec![scene.path("none")],
        runtime: scene.path("run"),
    };
    let mut loaded = load(&places);
    assert_eq!((loaded.writers.len(), loaded.problems.len()), (3, 2));
    for (index, says) in [(1, "b.toml: another file names a writer same too"), (2, "c.toml: ")] {
        let writer = &mut loaded.writers[index];
        let identity = writer.identify(&Identify { session_id: SessionId::random(), time_left_ms: 1000 }).unwrap();
        assert_eq!(identity.components[0].files[0].path, Path::new("/"));
        let error = tell(&mut **writer, &session(5), PrepareBackup).unwrap_err();
        assert!(error.message.contains(says), "{error}");
    }
}
