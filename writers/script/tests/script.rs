//! The script writer with real scripts: what they may say, and what becomes of them when they misbehave.

mod common;

use common::{Scene, session, tell};
use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use vss_api::writer::{Event, EventComponent, EventKind, Identify, Identity};
use vss_model::{ComponentName, SessionId, VssCode};
use vss_writer::{Call, Writer, conformance};
use vss_writer_script::{ScriptConfig, ScriptWriter};

use EventKind::{Abort, BackupComplete, BackupShutdown, Freeze, PostSnapshot, PrepareBackup, PrepareSnapshot, Thaw};

/// Answers `ok` to everything and writes down what it is told, and the end of its input.
const GOOD: &str = r#"
while read -r phase rest; do
  printf '%s\n' "$phase${rest:+ $rest}" >> $LOG
  echo ok
done
echo end >> $LOG"#;

/// As `GOOD`, but does `$misdeed` in `$in`.
fn bad(phase: &str, misdeed: &str) -> String {
    format!(
        "while read -r phase rest; do\n echo \"$phase\" >> $LOG\n if [ \"$phase\" = {phase} ] && [ ! -e $LOG.done ]; then \
         touch $LOG.done; {misdeed}\n else echo ok; fi\ndone\necho end >> $LOG"
    )
}

fn writer(scene: &Scene, body: &str) -> ScriptWriter {
    let program = scene.program("script", body);
    let text = format!(
        "name = \"shop\"\ncommand = [\"{}\"]\nlevel = \"back_end\"\nfreeze_timeout_ms = 20000\n\
         [[components]]\nname = \"orders\"\ntype = \"database\"\nfiles = [{{ path = \"/srv/my data\", recursive = true }}]\n\
         [[components]]\nname = \"web logs\"\nlogical_path = \"a\\\\b\"\nfiles = [{{ path = \"/var/log/shop\", pattern = \"*.log\" }}]\n",
        program.display()
    );
    let file = scene.path("shop.toml");
    fs::write(&file, text).unwrap();
    ScriptWriter::new(ScriptConfig::read(&file).unwrap())
}

fn all(writer: &mut ScriptWriter, event: &Event, kinds: &[EventKind]) {
    conformance::sequence(writer, event, kinds);
}

#[test]
fn conforms() {
    let scene = Scene::new();
    conformance::check(&mut writer(&scene, GOOD));
}

/// The whole script of the manual, with an application that is a file.
#[test]
fn the_script_of_the_manual_holds_from_freeze_to_thaw() {
    let scene = Scene::new();
    let manual = fs::read_to_string("../../docs/script-writer.md").unwrap();
    let (_, script) = manual.split_once("```sh\n").unwrap();
    let (script, _) = script.split_once("```").unwrap();
    scene.program("shopctl", "[ $1 = hold ] && touch $LOG.held || rm -f $LOG.held");
    let directory = scene.directory.path().display().to_string();
    let script = script.replace("/run/shop.held", "$LOG.holder").replace("shopctl ", &format!("{directory}/shopctl "));
    let mut writer = writer(&scene, &script);
    conformance::check(&mut writer);
    let held = scene.path("log.held");
    conformance::check_hold(&mut writer, &mut || held.exists());
}

#[test]
fn a_whole_backup_is_told_line_by_line_to_one_process() {
    let scene = Scene::new();
    let mut writer = writer(&scene, GOOD);
    let mut event = session(5);
    all(&mut writer, &event, &[PrepareBackup, PrepareSnapshot, Freeze, Thaw]);
    event.volumes[0].directory = Some(0);
    let directories = [fs::File::open(scene.directory.path()).unwrap().into()];
    let call = Call::new(PostSnapshot, &event).with_directories(&directories);
    writer.post_snapshot(&call).unwrap();
    event.volumes[0].directory = None;
    let name = |path: &str, name: &str| ComponentName { logical_path: path.into(), name: name.into() };
    event.components = vec![
        EventComponent { backup_succeeded: Some(true), ..EventComponent::of(name("", "orders")) },
        EventComponent { backup_succeeded: Some(false), ..EventComponent::of(name("a\\b", "web logs")) },
    ];
    all(&mut writer, &event, &[BackupComplete, BackupShutdown]);
    let log = scene.log();
    assert_eq!(log[..4], ["prepare-backup", "prepare-snapshot", "freeze", "thaw"]);
    let directory = log[4].strip_prefix("post-snapshot /srv/my\\0040data=").expect(&log[4]);
    let fd: std::os::fd::BorrowedFd<'_> = directories[0].as_fd();
    assert_eq!(directory, format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&fd)));
    assert_eq!(
        log[5..],
        ["backup-complete orders=succeeded a\\0134b\\0134web\\0040logs=failed", "backup-shutdown", "end"]
    );
}

#[test]
fn the_directory_of_the_copy_can_be_entered() {
    let scene = Scene::new();
    let body = r#"while read -r phase rest; do
  [ "$phase" = post-snapshot ] && touch "${rest#*=}/mended" && printf '%b\n' "${rest%%=*}" >> $LOG
  echo ok
done"#;
    let mut writer = writer(&scene, body);
    let mut event = session(5);
    all(&mut writer, &event, &[PrepareBackup]);
    let copy = tempfile::tempdir().unwrap();
    let directories = [fs::File::open(copy.path()).unwrap().into()];
    event.volumes[0].directory = Some(0);
    writer.post_snapshot(&Call::new(PostSnapshot, &event).with_directories(&directories)).unwrap();
    assert!(copy.path().join("mended").exists());
    assert_eq!(scene.log(), ["/srv/my data"]);
}

#[test]
fn the_environment_tells_of_the_backup() {
    let scene = Scene::new();
    let mut writer = writer(&scene, "env | grep ^VSS_ | grep -v ^VSS_TESTDATA= | sort >> $LOG\nread -r phase; echo ok");
    let event = session(5);
    all(&mut writer, &event, &[PrepareBackup]);
    let expected = [
        "VSS_BACKUP_OPTIONS=".to_owned(),
        "VSS_BACKUP_TYPE=full".to_owned(),
        "VSS_COMPONENTS=".to_owned(),
        "VSS_CONTEXT=backup".to_owned(),
        "VSS_FREEZE_TIMEOUT_MS=20000".to_owned(),
        "VSS_PREVIOUS_STAMPS=".to_owned(),
        "VSS_PROTOCOL=1".to_owned(),
        format!("VSS_SESSION_ID={}", event.session_id),
        format!("VSS_SET_ID={}", event.set_id.unwrap()),
        "VSS_VOLUMES=/srv/my data".to_owned(),
        "VSS_WRITER=shop".to_owned(),
    ];
    assert_eq!(scene.log(), expected);
}

#[test]
fn failed_is_told_with_code_and_message_and_the_script_lives_on() {
    for (word, code) in [
        ("retryable", VssCode::WriterErrorRetryable),
        ("nonretryable", VssCode::WriterErrorNonRetryable),
        ("timeout", VssCode::WriterErrorTimeout),
        ("outofresources", VssCode::WriterErrorOutOfResources),
        ("inconsistentsnapshot", VssCode::WriterErrorInconsistentSnapshot),
        ("recoveryfailed", VssCode::WriterErrorRecoveryFailed),
        ("VSS_E_WRITERERROR_RETRYABLE", VssCode::WriterErrorRetryable),
    ] {
        let scene = Scene::new();
        let mut writer = writer(&scene, &bad("freeze", &format!("echo failed {word} two words")));
        let event = session(5);
        all(&mut writer, &event, &[PrepareBackup, PrepareSnapshot]);
        let error = tell(&mut writer, &event, Freeze).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (code, "Script shop failed in freeze: two words"));
        all(&mut writer, &event, &[Abort, BackupShutdown]);
        assert_eq!(scene.log()[2..], ["freeze", "abort", "backup-shutdown", "end"]);
    }
}

#[test]
fn every_phase_may_fail() {
    let phases =
        ["prepare-backup", "prepare-snapshot", "freeze", "thaw", "post-snapshot", "backup-complete", "backup-shutdown"];
    for (kind, phase) in conformance::WHOLE.into_iter().zip(phases) {
        let scene = Scene::new();
        let mut writer = writer(&scene, &bad(phase, "echo failed retryable no"));
        let event = session(5);
        for before in conformance::WHOLE.into_iter().take_while(|before| *before != kind) {
            tell(&mut writer, &event, before).unwrap();
        }
        let error = tell(&mut writer, &event, kind).unwrap_err();
        assert_eq!(error.message, format!("Script shop failed in {phase}: no"));
    }
}

#[test]
fn components_may_fail_alone() {
    let scene = Scene::new();
    let misdeed = r#"printf 'component-failed retryable a\\b\\web logs\tstill open\n'; echo ok"#;
    let mut writer = writer(&scene, &bad("freeze", misdeed));
    let event = session(5);
    all(&mut writer, &event, &[PrepareBackup, PrepareSnapshot]);
    let reply = tell(&mut writer, &event, Freeze).unwrap();
    assert_eq!(reply.code, Some(VssCode::WriterErrorPartialFailure));
    assert_eq!(reply.components.len(), 1);
    let component = &reply.components[0];
    assert_eq!((component.name.to_string().as_str(), component.message.as_str()), ("a\\b\\web logs", "still open"));
    assert_eq!(component.code, Some(VssCode::WriterErrorRetryable));
    all(&mut writer, &event, &[Thaw, PostSnapshot, BackupComplete, BackupShutdown]);
}

#[test]
fn garbage_kills_the_script_and_says_what_it_said() {
    for garbage in ["hello", "OK", "failed", "failed strange reason", "component-failed retryable nobody", "ok then"] {
        let scene = Scene::new();
        let mut writer = writer(&scene, &bad("freeze", &format!("echo '{garbage}'")));
        let event = session(5);
        all(&mut writer, &event, &[PrepareBackup, PrepareSnapshot]);
        let error = tell(&mut writer, &event, Freeze).unwrap_err();
        assert_eq!(error.code, VssCode::WriterErrorNonRetryable);
        assert!(error.message.contains(&format!("said \"{garbage}\" in freeze")), "{error}");
        all(&mut writer, &event, &[Abort, BackupShutdown]);
    }
}

#[test]
fn an_answer_too_many_is_not_taken_for_the_next_one() {
    let scene = Scene::new();
    // Both at once.
    let mut writer = writer(&scene, &bad("prepare-snapshot", r"printf 'ok\nok\n'"));
    let event = session(5);
    all(&mut writer, &event, &[PrepareBackup, PrepareSnapshot]);
    let error = tell(&mut writer, &event, Freeze).unwrap_err();
    assert!(error.message.contains("said \"ok\" in freeze, which is no answer"), "{error}");
    assert!(!scene.log().contains(&"freeze".to_owned()));
}

#[test]
fn endless_output_is_bounded() {
    let scene = Scene::new();
    let mut writer = writer(&scene, &bad("freeze", "yes | tr -d '\\n'"));
    let event = session(20);
    all(&mut writer, &event, &[PrepareBackup, PrepareSnapshot]);
    let began = Instant::now();
    let error = tell(&mut writer, &event, Freeze).unwrap_err();
    assert_eq!(error.message, "Script shop gave a line of more than 64 KiB in freeze; it was killed");
    assert!(began.elapsed() < Duration::from_secs(15));
}

/// Line by line it is an answer, and never ends.
#[test]
fn an_answer_without_end_is_bounded() {
    let scene = Scene::new();
    let line = r#"yes "$(printf 'component-data orders\t{"backup_metadata": "%09999d"}' 0)""#;
    let mut writer = writer(&scene, &bad("freeze", line));
    let event = session(60);
    all(&mut writer, &event, &[PrepareBackup, PrepareSnapshot]);
    let began = Instant::now();
    let error = tell(&mut writer, &event, Freeze).unwrap_err();
    assert_eq!(error.message, "Script shop gave an answer of more than 3072 KiB in freeze; it was killed");
    assert!(error.hint.contains("standard error") && began.elapsed() < Duration::from_secs(45), "{error}");
    all(&mut writer, &event, &[Abort, BackupShutdown]);
}

#[test]
fn a_hanging_script_is_killed_with_its_children_before_its_time_is_over() {
    let marker = format!("sleep 612.{}", std::process::id());
    let scene = Scene::new();
    let mut writer = writer(&scene, &bad("freeze", &format!("{marker} & echo I wait >&2; wait")));
    let event = session(10);
    all(&mut writer, &event, &[PrepareBackup, PrepareSnapshot]);
    let began = Instant::now();
    let error = tell(&mut writer, &event, Freeze).unwrap_err();
    let took = began.elapsed();
    assert!((8500..10_000).contains(&took.as_millis()), "it took {took:?}");
    assert_eq!(error.code, VssCode::WriterErrorTimeout);
    assert_eq!(error.message, "Script shop was killed because it did not end in time in freeze: I wait");
    assert!(common::nobody_runs(&marker));
}

#[test]
fn a_death_is_a_failure_of_the_event_it_was_in() {
    for (misdeed, says) in [
        ("echo no room >&2; exit 3", "Script shop ended with exit code 3 in freeze: no room"),
        ("exit 0", "Script shop ended in freeze without an answer"),
        ("kill -9 $$", "Script shop was killed by signal 9 in freeze"),
    ] {
        let scene = Scene::new();
        let mut writer = writer(&scene, &bad("freeze", misdeed));
        let event = session(5);
        all(&mut writer, &event, &[PrepareBackup, PrepareSnapshot]);
        let error = tell(&mut writer, &event, Freeze).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (VssCode::WriterErrorNonRetryable, says));
        // A new one hears of it.
        all(&mut writer, &event, &[Abort, BackupShutdown]);
        assert_eq!(scene.log()[2..], ["freeze", "abort", "backup-shutdown", "end"]);
    }
}

#[test]
fn killed_while_frozen_fails_thaw_and_abort_reaches_a_new_one() {
    let scene = Scene::new();
    let mut writer = writer(&scene, &format!("echo $$ > $LOG.pid\n{GOOD}"));
    let event = session(5);
    all(&mut writer, &event, &[PrepareBackup, PrepareSnapshot, Freeze]);
    let pid = fs::read_to_string(scene.path("log.pid")).unwrap();
    assert!(std::process::Command::new("kill").args(["-9", pid.trim()]).status().unwrap().success());
    let error = tell(&mut writer, &event, Thaw).unwrap_err();
    assert_eq!(error.message, "Script shop was killed by signal 9 in thaw");
    all(&mut writer, &event, &[Abort, BackupShutdown]);
    assert_eq!(scene.log(), ["prepare-backup", "prepare-snapshot", "freeze", "abort", "backup-shutdown", "end"]);
}

#[test]
fn a_script_that_ignores_the_end_is_gone_after_shutdown() {
    let marker = format!("sleep 613.{}", std::process::id());
    let scene = Scene::new();
    let mut writer = writer(&scene, &format!("while read -r phase; do echo ok; done; exec {marker}"));
    let event = session(5);
    all(&mut writer, &event, &[PrepareBackup]);
    let began = Instant::now();
    all(&mut writer, &event, &[BackupShutdown]);
    assert!(began.elapsed() < Duration::from_secs(15));
    assert!(common::nobody_runs(&marker));
}

#[test]
fn an_interrupted_freeze_still_hears_abort() {
    let scene = Scene::new();
    let mut writer = writer(&scene, &bad("freeze", "sleep 0.5; echo ok"));
    let event = session(30);
    all(&mut writer, &event, &[PrepareBackup, PrepareSnapshot]);
    let (stopper, stop) = vss_writer::Stop::new().unwrap();
    drop(stopper);
    let began = Instant::now();
    writer.freeze(&Call::new(Freeze, &event).interrupted_by(stop.as_fd())).unwrap();
    assert!((400..15_000).contains(&began.elapsed().as_millis()));
    all(&mut writer, &event, &[Abort, BackupShutdown]);
    assert_eq!(scene.log()[2..], ["freeze", "abort", "backup-shutdown", "end"]);
}

#[test]
fn a_program_that_cannot_run_fails_prepare_backup_and_names_it() {
    let scene = Scene::new();
    let mut writer = writer(&scene, GOOD);
    fs::remove_file(scene.path("script")).unwrap();
    let event = session(5);
    let error = tell(&mut writer, &event, PrepareBackup).unwrap_err();
    assert!(
        error.message.starts_with("Script refused: ") && error.message.contains("script cannot be used"),
        "{error}"
    );
    assert!(tell(&mut writer, &event, PrepareSnapshot).is_err());
    assert!(tell(&mut writer, &event, BackupShutdown).is_ok());
}

#[test]
fn configurations_that_are_wrong_say_so() {
    let scene = Scene::new();
    let file = scene.path("x.toml");
    let component = "[[components]]\nname = \"a\"\nfiles = [{ path = \"/srv\" }]\n";
    for (text, says) in [
        ("name = 1".to_owned(), "invalid type"),
        (format!("name = \"x\"\ncommand = []\n{component}"), "command is empty"),
        (format!("name = \"x\"\ncommand = [\"run\"]\n{component}"), "run is not an absolute path"),
        ("name = \"x\"\ncommand = [\"/bin/true\"]\ncomponents = []".to_owned(), "no [[components]]"),
        (format!("name = \"x\"\ncommand = [\"/bin/true\"]\nfreeze_timeout_ms = 0\n{component}"), "1 to 60000"),
        (
            format!("name = \"x\"\ncommand = [\"/bin/true\"]\nlevle = \"system\"\n{component}"),
            "line 3: unknown key `levle`; `level` is the nearest",
        ),
        (format!("name = \"\"\ncommand = [\"/bin/true\"]\n{component}"), "name has 0 bytes"),
        (format!("name = \"x\"\ncommand = [\"/bin/true\"]\n{component}{component}"), "listed twice"),
    ] {
        fs::write(&file, text).unwrap();
        let problem = ScriptConfig::read(&file).unwrap_err();
        assert!(problem.contains(says), "{problem}");
    }
}

/// Both descriptions of the manual are read as they stand, but for the program; the long one says what it says.
#[test]
fn the_descriptions_of_the_manual_are_descriptions() {
    let scene = Scene::new();
    let program = scene.program("script", GOOD);
    let manual = fs::read_to_string("../../docs/script-writer.md").unwrap();
    let blocks: Vec<&str> = manual.split("```toml\n").skip(1).filter_map(|part| part.split("```").next()).collect();
    let read = |block: &str| {
        let file = scene.path("manual.toml");
        fs::write(&file, block.replace("/usr/local/lib/shop/vss", &program.display().to_string())).unwrap();
        ScriptWriter::new(ScriptConfig::read(&file).unwrap())
    };
    let [least, every] = blocks.as_slice() else { panic!("{} descriptions", blocks.len()) };
    conformance::check(&mut read(least));
    let mut writer = read(every);
    conformance::check(&mut writer);
    let said = writer.identify(&Identify { session_id: SessionId::random(), time_left_ms: 1000 });
    let Identity { components, declaration, .. } = said.unwrap();
    let [orders, pictures] = components.as_slice() else { panic!("{components:?}") };
    assert!(orders.name.contains(&pictures.name) && !pictures.selectable);
    assert!(orders.dependencies.len() == 1 && orders.log_files.len() == 1 && orders.files[0].alternate_path.is_some());
    assert_eq!(orders.files[0].backup_type_mask.0, 0x0101);
    assert_eq!(declaration.backup_schema.0, 0x2A);
    assert!(declaration.restore_method.is_some_and(|restore| restore.service.as_deref() == Some("shop.service")));
    assert_eq!(declaration.exclude_files, declaration.exclude_files_from_snapshot);
    assert_eq!(declaration.alternate_locations.len(), 1);
}

#[test]
fn what_the_backup_is_to_keep_of_a_component_is_said_in_a_line() {
    let scene = Scene::new();
    let data = r#"printf 'component-data orders\t{"backup_stamp": "7", "backup_metadata": "lsn 9"}\nok\n'"#;
    let mut writer = writer(&scene, &bad("prepare-backup", data));
    let event = session(5);
    let reply = tell(&mut writer, &event, PrepareBackup).unwrap();
    assert_eq!((reply.code, reply.components.len()), (None, 1), "{reply:?}");
    let said = &reply.components[0];
    assert_eq!((said.code, said.name.to_string().as_str()), (None, "orders"));
    assert_eq!(said.data.backup_stamp.as_deref(), Some("7"));
    assert_eq!(said.data.backup_metadata.as_deref(), Some("lsn 9"));
    all(&mut writer, &event, &[Abort, BackupShutdown]);
    for garbage in ["component-data orders", "component-data orders\\t{", "component-data nobody\\t{}"] {
        let scene = Scene::new();
        let mut writer = self::writer(&scene, &bad("prepare-backup", &format!("printf '{garbage}\\n'")));
        let error = tell(&mut writer, &event, PrepareBackup).unwrap_err();
        assert!(error.message.contains("which is no answer"), "{garbage}: {error}");
        all(&mut writer, &event, &[Abort, BackupShutdown]);
    }
}

#[test]
fn what_the_requester_says_of_a_component_is_in_the_environment() {
    let scene = Scene::new();
    let said = "printf '%s|' \"$VSS_BACKUP_OPTIONS\" \"$VSS_PREVIOUS_STAMPS\" > $LOG.said";
    let mut writer = writer(&scene, &format!("{said}\n{GOOD}"));
    let component = EventComponent {
        backup_options: Some("skip = logs".to_owned()),
        previous_backup_stamp: Some("6".to_owned()),
        ..EventComponent::of(ComponentName::new("a\\b", "web logs"))
    };
    let event =
        Event { components: vec![EventComponent::of(ComponentName::new("", "orders")), component], ..session(5) };
    all(&mut writer, &event, &[PrepareBackup, Abort, BackupShutdown]);
    let name = "a\\0134b\\0134web\\0040logs";
    let wanted = format!("{name}=skip\\0040\\0075\\0040logs|{name}=6|");
    assert_eq!(fs::read_to_string(scene.path("log.said")).unwrap(), wanted);
}

/// The kernel would refuse to run it, and say nothing of the cause.
#[test]
fn options_that_no_environment_holds_are_refused_before_the_script_is_started() {
    let component = |options: usize, stamp: usize| EventComponent {
        // A space takes five bytes there.
        backup_options: Some(" ".repeat(options)),
        previous_backup_stamp: Some(" ".repeat(stamp)),
        ..EventComponent::of(ComponentName::new("", "orders"))
    };
    for (options, stamp, says, hint) in [
        // The longest that the kernel takes: 131072 bytes.
        (26_209, 26_208, "", ""),
        (26_210, 0, "VSS_BACKUP_OPTIONS would have 131077 bytes", "Set shorter backup options"),
        (0, 26_209, "VSS_PREVIOUS_STAMPS would have 131073 bytes", "shorter stamps"),
    ] {
        let scene = Scene::new();
        let mut writer = writer(&scene, GOOD);
        let event = Event { components: vec![component(options, stamp)], ..session(5) };
        let outcome = tell(&mut writer, &event, PrepareBackup);
        assert_eq!((outcome.is_ok(), scene.log().is_empty()), (says.is_empty(), !says.is_empty()), "{outcome:?}");
        if let Err(error) = outcome {
            assert_eq!(error.code, VssCode::WriterErrorOutOfResources);
            assert!(error.message.contains(says) && error.hint.contains(hint), "{error:?}");
        }
        let _ended = [Abort, BackupShutdown].map(|kind| tell(&mut writer, &event, kind));
    }
}
