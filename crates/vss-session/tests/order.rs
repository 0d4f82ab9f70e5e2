//! Spec R 1.8 as a table: what happens when the order is violated. One named row for each violation in a backup.

use std::collections::BTreeMap;
use vss_model::{
    AppLevel, Attributes, BackupState, Component, ComponentKind, ComponentName, Context, Declaration, ProviderId,
    SetId, ShadowId, Usage, VolumeId, VssCode, VssError, WriterClassId, WriterInstanceId, WriterMetadata, limits,
};
use vss_session::{Call, ComponentReference, Effect, Event, Failure, Finished, Member, Phase, State, permits};

const SET: SetId = SetId::from_u128(1);
const CLASS: WriterClassId = WriterClassId::from_u128(2);
const INSTANCE: WriterInstanceId = WriterInstanceId::from_u128(3);

fn name(path: &str) -> ComponentName {
    let (logical_path, name) = path.rsplit_once('\\').unwrap_or(("", path));
    ComponentName { logical_path: logical_path.into(), name: name.into() }
}

/// The worked example of spec R 3.4, and one component whose name only begins like another's.
fn writer() -> WriterMetadata {
    let component = |path, selectable| {
        let ComponentName { logical_path, name } = name(path);
        let claim = Component::file_group(name).logical_path(logical_path);
        if selectable { claim } else { claim.not_selectable() }.build().unwrap()
    };
    WriterMetadata {
        class_id: CLASS,
        instance_id: INSTANCE,
        name: "MyWriter".into(),
        instance_name: String::new(),
        usage: Usage::default(),
        level: AppLevel::default(),
        components: vec![
            component("Executables", false),
            component(r"Executables\ConfigFiles", false),
            component("writerData", true),
            component(r"writerData2\Own", true),
            component(r"writerData\Set1", false),
            component(r"writerData\QueryLogs\Query", false),
            component(r"writerData\Usage", true),
        ],
        declaration: Declaration::default(),
        other: BTreeMap::new(),
    }
}

fn component(path: &str) -> ComponentReference {
    ComponentReference { instance_id: INSTANCE, class_id: CLASS, kind: ComponentKind::FileGroup, name: name(path) }
}

fn add(path: &str) -> Event {
    Event::AddComponent(component(path))
}

fn volume(number: usize) -> Event {
    Event::AddToSnapshotSet(Member {
        shadow_id: ShadowId::from_u128(number as u128),
        volume: VolumeId::file_system("ext4", &number.to_string()),
        provider: ProviderId::from_u128(9),
    })
}

fn succeeded(path: &str) -> Event {
    Event::SetBackupSucceeded { component: component(path), succeeded: true }
}

fn failed() -> Failure {
    VssError::new(VssCode::ProviderVeto, "A provider refused").into()
}

fn context(context: Context) -> Event {
    Event::SetContext(context, Attributes::empty())
}

fn stamp(path: &str) -> Event {
    Event::SetPreviousBackupStamp { component: component(path), stamp: "then".into() }
}

fn options(path: &str, length: usize) -> Event {
    Event::SetBackupOptions { component: component(path), options: "x".repeat(length) }
}

// Parts of a backup, to be strung together.
fn begun() -> Vec<Event> {
    vec![Event::InitializeForBackup]
}
fn stated() -> Vec<Event> {
    vec![Event::SetBackupState(BackupState::default())]
}
fn gathered() -> Vec<Event> {
    vec![Event::GatherWriterMetadata, Event::OperationFinished(Finished::GatherWriterMetadata(Ok(vec![writer()])))]
}
fn with_set() -> Vec<Event> {
    vec![Event::StartSnapshotSet(SET), volume(1)]
}
fn prepared() -> Vec<Event> {
    vec![Event::PrepareForBackup, Event::OperationFinished(Finished::PrepareForBackup(Ok(())))]
}
const DO: Event = Event::DoSnapshotSet { strict: false };
fn snapshot(result: Result<(), Failure>) -> Vec<Event> {
    vec![DO, Event::OperationFinished(Finished::DoSnapshotSet(result))]
}
fn completed() -> Vec<Event> {
    vec![Event::BackupComplete, Event::OperationFinished(Finished::BackupComplete(Ok(())))]
}
fn without_writers() -> Vec<Event> {
    vec![context(Context::FileShareBackup)]
}
fn restore() -> Vec<Event> {
    vec![Event::InitializeForRestore]
}
fn no() -> Vec<Event> {
    Vec::new()
}

fn run(events: Vec<Event>) -> (State, Vec<Effect>) {
    let mut state = State::default();
    let mut effects = Vec::new();
    for event in events {
        let shown = format!("{event:?}");
        effects.extend(state.apply(event).unwrap_or_else(|error| panic!("{shown}: {error}")));
    }
    (state, effects)
}

macro_rules! violations {
    ($($row:ident: [$($before:expr),+], $event:expr => $code:ident, $words:literal, $hint:literal;)*) => {$(
        #[test]
        fn $row() {
            let (mut state, _) = run([$($before),+].concat());
            let before = state.clone();
            let error = state.apply($event).expect_err("accepted");
            assert_eq!(error.code, VssCode::$code, "{error}");
            assert!(error.message.contains($words), "message: {}", error.message);
            assert!(error.hint.contains($hint), "hint: {}", error.hint);
            assert_eq!(state, before, "a refusal changed the session");
        }
    )*};
}

violations! {
    // Any call before InitializeForBackup.
    before_initialize: [no()], Event::GatherWriterMetadata => BadState, "before InitializeForBackup", "Call InitializeForBackup";
    abort_before_initialize: [no()], Event::AbortBackup => BadState, "before InitializeForBackup", "Call InitializeForBackup";

    // A second time, or out of sequence.
    second_initialize: [begun()], Event::InitializeForBackup => BadState, "second time", "new session";
    second_gather: [begun(), gathered()], Event::GatherWriterMetadata => BadState, "second time", "new session";
    second_set_context: [begun(), without_writers()], context(Context::Backup) => BadState, "second time", "new session";
    set_context_after_set: [begun(), with_set()], context(Context::Backup) => BadState, "after StartSnapshotSet", "InitializeForBackup";
    set_context_after_component: [begun(), gathered(), vec![add("writerData")]], context(Context::NasRollback)
        => BadState, "after AddComponent", "InitializeForBackup";
    second_start: [begun(), with_set()], Event::StartSnapshotSet(SET) => BadState, "second time", "AddToSnapshotSet";
    second_prepare: [begun(), stated(), gathered(), prepared()], Event::PrepareForBackup => BadState, "after PrepareForBackup", "new session";
    second_snapshot: [begun(), stated(), gathered(), with_set(), prepared(), snapshot(Ok(()))], DO => BadState, "after DoSnapshotSet", "new session";
    set_backup_state_after_prepare: [begun(), stated(), gathered(), prepared()], Event::SetBackupState(BackupState::default())
        => BadState, "after PrepareForBackup", "new session";
    add_component_before_gather: [begun()], add("writerData") => BadState, "before GatherWriterMetadata", "Call GatherWriterMetadata";
    add_component_after_prepare: [begun(), stated(), gathered(), prepared()], add("writerData") => BadState, "after PrepareForBackup", "new session";
    start_after_prepare: [begun(), stated(), gathered(), prepared()], Event::StartSnapshotSet(SET) => BadState, "after PrepareForBackup", "new session";
    add_volume_before_start: [begun()], volume(1) => BadState, "before StartSnapshotSet", "Call StartSnapshotSet";
    add_volume_after_prepare: [begun(), stated(), gathered(), with_set(), prepared()], volume(2) => BadState, "after PrepareForBackup", "new session";
    prepare_without_gather: [begun(), stated()], Event::PrepareForBackup => BadState, "before GatherWriterMetadata", "Call GatherWriterMetadata";
    status_before_prepare: [begun(), gathered()], Event::GatherWriterStatus => BadState, "before PrepareForBackup", "PrepareForBackup";
    snapshot_without_prepare: [begun(), stated(), gathered(), with_set()], DO => BadState, "before PrepareForBackup", "Call PrepareForBackup";
    succeeded_before_snapshot: [begun(), stated(), gathered(), vec![add("writerData")], with_set(), prepared()], succeeded("writerData")
        => BadState, "before DoSnapshotSet", "Call DoSnapshotSet";
    complete_before_prepare: [begun(), stated(), gathered()], Event::BackupComplete => BadState, "before PrepareForBackup", "Call PrepareForBackup";
    complete_before_snapshot: [begun(), stated(), gathered(), with_set(), prepared()], Event::BackupComplete
        => BadState, "before DoSnapshotSet", "AbortBackup";
    complete_after_failed_snapshot: [begun(), stated(), gathered(), with_set(), prepared(), snapshot(Err(failed()))], Event::BackupComplete
        => BadState, "DoSnapshotSet had failed", "AbortBackup";
    snapshot_after_failed_snapshot: [begun(), stated(), gathered(), with_set(), prepared(), snapshot(Err(failed()))], DO
        => BadState, "DoSnapshotSet had failed", "AbortBackup";
    complete_after_abort: [begun(), stated(), gathered(), prepared(), vec![Event::AbortBackup]], Event::BackupComplete
        => BadState, "after AbortBackup", "new session";
    enable_after_complete: [begun(), stated(), gathered(), prepared(), completed()], Event::EnableWriterClasses(vec![CLASS])
        => BadState, "after BackupComplete", "new session";
    second_operation: [begun(), stated(), gathered(), vec![Event::PrepareForBackup]], Event::GatherWriterStatus
        => BadState, "while PrepareForBackup is running", "cancel";
    synchronous_call_in_operation: [begun(), vec![Event::GatherWriterMetadata]], Event::SetBackupState(BackupState::default())
        => BadState, "while GatherWriterMetadata is running", "Wait";

    // PrepareForBackup without SetBackupState.
    prepare_without_backup_state: [begun(), gathered()], Event::PrepareForBackup => BadState, "before SetBackupState", "Call SetBackupState";

    // DoSnapshotSet without StartSnapshotSet, or without GatherWriterMetadata in a context with writers.
    snapshot_without_start: [begun(), without_writers()], DO => BadState, "before StartSnapshotSet", "Call StartSnapshotSet";
    snapshot_without_start_after_prepare: [begun(), stated(), gathered(), prepared()], DO => BadState, "without StartSnapshotSet", "new session";
    snapshot_without_gather: [begun(), with_set()], DO => BadState, "before GatherWriterMetadata", "Call GatherWriterMetadata";

    // AddComponent, PrepareForBackup, BackupComplete in a context without writers.
    add_component_without_writers: [begun(), without_writers(), gathered()], add("writerData") => BadState, "context without writers", "Leave the call out";
    prepare_without_writers: [begun(), without_writers(), stated(), gathered()], Event::PrepareForBackup
        => BadState, "context without writers", "Leave the call out";
    complete_without_writers: [begun(), without_writers(), with_set(), snapshot(Ok(()))], Event::BackupComplete
        => BadState, "context without writers", "Leave the call out";
    succeeded_without_writers: [begun(), without_writers(), with_set(), snapshot(Ok(()))], succeeded("writerData")
        => BadState, "context without writers", "Leave the call out";

    // The same component or volume twice; too many volumes.
    component_twice: [begun(), gathered(), vec![add("writerData")]], add("writerData") => ObjectAlreadyExists, "Writer MyWriter: Component writerData", "";
    volume_twice: [begun(), with_set()], volume(1) => ObjectAlreadyExists, "ext4:1", "";
    one_volume_too_many: [begun(), vec![Event::StartSnapshotSet(SET)], (0..limits::VOLUMES_PER_SET).map(volume).collect()], volume(1000)
        => MaximumNumberOfVolumesReached, "number 65", "at most 64";

    // AddComponent naming something unknown.
    unknown_component: [begun(), gathered()], add("nothing") => ObjectNotFound, "MyWriter has no component nothing", "GetWriterMetadata";
    component_of_the_other_type: [begun(), gathered()],
        Event::AddComponent(ComponentReference { kind: ComponentKind::Database, ..component("writerData") }) => ObjectNotFound, "of this type", "GetWriterMetadata";
    unknown_writer: [begun(), gathered()],
        Event::AddComponent(ComponentReference { instance_id: WriterInstanceId::from_u128(99), ..component("writerData") })
        => ObjectNotFound, "No writer", "GetWriterMetadata";
    writer_of_another_class: [begun(), gathered()],
        Event::AddComponent(ComponentReference { class_id: WriterClassId::from_u128(99), ..component("writerData") })
        => ObjectNotFound, "No writer", "GetWriterMetadata";
    success_of_what_was_not_added: [begun(), stated(), gathered(), prepared()], succeeded("writerData") => ObjectNotFound, "not added", "AddComponent";

    // AddComponent of a non-selectable subcomponent; of a part of what is in already, and the reverse.
    non_selectable_subcomponent: [begun(), gathered()], add(r"writerData\Set1") => InvalidArgument, "cannot be chosen alone", "Add writerData";
    non_selectable_below_a_plain_element: [begun(), gathered()], add(r"writerData\QueryLogs\Query") => InvalidArgument, "cannot be chosen alone", "Add writerData";
    part_of_what_is_in: [begun(), gathered(), vec![add("writerData")]], add(r"writerData\Usage") => InvalidArgument, "as part of writerData", "Leave";
    whole_of_what_is_in: [begun(), gathered(), vec![add(r"writerData\Usage")]], add("writerData") => InvalidArgument, r"contains writerData\Usage", "one of the two";

    // A call of a backup in a restore, and the reverse; an abort is none of a restore's.
    backup_call_in_a_restore: [restore()], Event::StartSnapshotSet(SET) => BadState, "in a restore session", "backup session";
    stamp_in_a_restore: [restore(), gathered()], stamp("writerData") => BadState, "in a restore session", "backup session";
    abort_in_a_restore: [restore()], Event::AbortBackup => BadState, "in a restore session", "backup session";
    restore_after_backup: [begun()], Event::InitializeForRestore => BadState, "second time", "new session";
    backup_after_restore: [restore()], Event::InitializeForBackup => BadState, "second time", "new session";
    second_gather_in_a_restore: [restore(), gathered()], Event::GatherWriterMetadata => BadState, "second time", "new session";

    // Contexts and their bits.
    no_set_in_the_context_of_all: [begun(), vec![context(Context::All)]], Event::StartSnapshotSet(SET) => UnsupportedContext, "makes no", "context";
    component_in_the_context_of_all: [begun(), gathered(), vec![context(Context::All)]], add("writerData")
        => BadState, "context without writers", "Leave the call out";
    foreign_bit: [begun()], Event::SetContext(Context::Backup, Attributes::PERSISTENT) => InvalidArgument, "0x1", "context";
    transportable: [begun()], Event::SetContext(Context::Backup, Attributes::TRANSPORTABLE) => UnsupportedContext, "transportable", "0x20";

    // Stamps and options.
    stamp_of_what_was_not_added: [begun(), gathered()], stamp("writerData") => ObjectNotFound, "not added", "AddComponent";
    stamp_after_prepare: [begun(), stated(), gathered(), vec![add("writerData")], prepared()], stamp("writerData")
        => BadState, "after PrepareForBackup", "new session";
    options_after_prepare: [begun(), stated(), gathered(), vec![add("writerData")], prepared()], options("writerData", 1)
        => BadState, "after PrepareForBackup", "new session";
    options_without_writers: [begun(), without_writers(), gathered()], options("writerData", 1) => BadState, "without writers", "Leave";
    too_long_options: [begun(), gathered(), vec![add("writerData")]], options("writerData", limits::BACKUP_WORDS + 1)
        => InvalidArgument, "65537 bytes", "At most 65536";

    // A released session.
    after_release: [begun(), vec![Event::RequesterGone]], Event::SetBackupState(BackupState::default()) => BadState, "after the end", "new session";
    too_many_classes: [begun()], Event::EnableWriterClasses(vec![CLASS; limits::WRITERS + 1]) => InvalidArgument, "writer classes", "";

    // The conductor's own mistakes.
    end_of_what_does_not_run: [begun()], Event::OperationFinished(Finished::BackupComplete(Ok(()))) => Unexpected, "not running", "";
    end_of_another_operation: [begun(), vec![Event::GatherWriterMetadata]], Event::OperationFinished(Finished::DoSnapshotSet(Ok(())))
        => Unexpected, "not running", "";
}

#[test]
fn queries_need_what_they_read() {
    let refused = |events: Vec<Event>, call| permits(&run(events).0, call).map_err(|error| error.code);
    assert_eq!(refused(begun(), Call::GetWriterMetadata), Err(VssCode::BadState));
    assert_eq!(
        refused([begun(), stated(), gathered(), prepared()].concat(), Call::GetWriterStatus),
        Err(VssCode::BadState)
    );
    assert_eq!(
        refused([begun(), stated(), gathered(), with_set(), prepared()].concat(), Call::GetSnapshotSet),
        Err(VssCode::BadState)
    );
    let whole = [begun(), stated(), gathered(), with_set(), prepared(), snapshot(Ok(())), completed()].concat();
    assert_eq!(refused([whole, vec![Event::GatherWriterStatus]].concat(), Call::GetSnapshotSet), Ok(()));
    // A query is answered while an operation runs.
    assert_eq!(
        refused([begun(), stated(), gathered(), vec![Event::PrepareForBackup]].concat(), Call::GetWriterMetadata),
        Ok(())
    );
}

#[test]
fn enabling_writers_after_the_gather_is_accepted_without_effect() {
    let other = WriterClassId::from_u128(77);
    let (mut state, _) = run([begun(), gathered()].concat());
    let before = state.clone();
    assert_eq!(state.apply(Event::EnableWriterClasses(vec![other])), Ok(vec![]));
    assert_eq!(state.apply(Event::DisableWriterClasses(vec![CLASS])), Ok(vec![]));
    assert_eq!(state, before);
}

#[test]
fn the_first_enable_keeps_every_other_class_out() {
    let [a, b, c] = [10, 11, 12].map(WriterClassId::from_u128);
    let filter = |events: Vec<Event>| run([begun(), events].concat()).0.draft().unwrap().filter().clone();
    let all = filter(no());
    assert!(all.allows(a, INSTANCE) && all.allows(b, INSTANCE));
    let some = filter(vec![
        Event::EnableWriterClasses(vec![a]),
        Event::EnableWriterClasses(vec![b]),
        Event::DisableWriterClasses(vec![b]),
    ]);
    assert!(some.allows(a, INSTANCE) && !some.allows(b, INSTANCE) && !some.allows(c, INSTANCE));
    let others = filter(vec![Event::DisableWriterClasses(vec![a])]);
    assert!(!others.allows(a, INSTANCE) && others.allows(b, INSTANCE));
    let again = filter(vec![Event::DisableWriterClasses(vec![a]), Event::EnableWriterClasses(vec![a])]);
    assert!(again.allows(a, INSTANCE) && !again.allows(b, INSTANCE));
}

#[test]
fn one_running_writer_can_be_kept_out_of_its_class() {
    let other = WriterInstanceId::from_u128(4);
    let out = vec![Event::DisableWriterInstances(vec![INSTANCE])];
    let (state, _) = run([begun(), out].concat());
    let filter = state.draft().unwrap().filter();
    assert!(!filter.allows(CLASS, INSTANCE) && filter.allows(CLASS, other));
}

#[test]
fn stamps_and_options_are_kept_for_what_was_added() {
    let (state, _) = run([
        begun(),
        gathered(),
        vec![add("writerData"), stamp("writerData"), options("writerData", 2), options("writerData", 3)],
    ]
    .concat());
    let chosen: Vec<_> = state.draft().unwrap().components().map(|(_, chosen)| chosen.clone()).collect();
    assert_eq!((chosen[0].previous_backup_stamp.as_str(), chosen[0].backup_options.as_str()), ("then", "xxx"));
}

#[test]
fn words_that_are_set_again_replace_the_earlier_ones() {
    let all = ["Executables", r"Executables\ConfigFiles", "writerData", r"writerData2\Own"];
    let (mut state, _) = run([begun(), gathered(), all.map(add).to_vec()].concat());
    let most = limits::BACKUP_WORDS;
    for path in all {
        state.apply(options(path, most)).unwrap();
        state.apply(options(path, most)).unwrap();
    }
    let held: usize = state.draft().unwrap().components().map(|(_, chosen)| chosen.backup_options.len()).sum();
    assert_eq!(held, all.len() * most);
    assert!(held <= limits::BACKUP_WORDS_PER_SESSION);
}

#[test]
fn a_restore_asks_who_is_there_and_what_it_cannot_do_yet_is_said() {
    let (mut state, _) = run([restore(), gathered()].concat());
    assert_eq!(permits(&state, Call::GetWriterMetadata), Ok(()));
    assert_eq!(permits(&state, Call::GatherWriterStatus), Ok(()));
    for call in [Call::SetRestoreState, Call::SetSelectedForRestore, Call::PreRestore, Call::PostRestore] {
        assert_eq!(permits(&state, call).unwrap_err().code, VssCode::NotImplemented, "{call}");
        assert_eq!(permits(&run(begun()).0, call).unwrap_err().code, VssCode::BadState, "{call}");
    }
    assert_eq!(state.apply(Event::RequesterGone), Ok(vec![]), "writers were told nothing");
    assert!(state.is_released());
}

#[test]
fn finished_copies_are_anybodys_to_ask_for() {
    for events in [begun(), restore(), [begun(), stated(), gathered(), prepared(), completed()].concat()] {
        let (state, _) = run(events);
        for call in Call::ALL.into_iter().filter(|call| call.is_of_objects()) {
            assert_eq!(permits(&state, call), Ok(()), "{call}");
        }
    }
    assert_eq!(permits(&State::default(), Call::Query).unwrap_err().code, VssCode::BadState);
}

#[test]
fn mandatory_components_and_neighbours_by_name_may_be_added() {
    let all = ["Executables", r"Executables\ConfigFiles", "writerData", r"writerData2\Own"].map(add).to_vec();
    assert_eq!(run([begun(), gathered(), all].concat()).0.draft().unwrap().components().len(), 4);
}

#[test]
fn a_whole_backup() {
    let events = [begun(), stated(), gathered(), vec![add("writerData")], with_set(), prepared(), snapshot(Ok(()))];
    let rest = [vec![succeeded("writerData")], completed(), vec![Event::RequesterGone]];
    let (state, effects) = run([events.concat(), rest.concat()].concat());
    assert!(state.is_released());
    assert_eq!(
        effects[1..],
        [
            Effect::PrepareWriters,
            Effect::CreateSet { set_id: SET, strict: false },
            Effect::ReleaseCreationLock,
            Effect::CompleteBackup,
            Effect::ShutdownWriters { set_id: Some(SET) },
            Effect::DeleteAutoRelease(SET),
        ]
    );
}

#[test]
fn a_backup_without_a_set_and_one_without_writers() {
    let (_, effects) =
        run([begun(), stated(), gathered(), prepared(), completed(), vec![Event::RequesterGone]].concat());
    assert_eq!(
        effects[1..],
        [Effect::PrepareWriters, Effect::CompleteBackup, Effect::ShutdownWriters { set_id: None }]
    );
    // Zero volumes are legal.
    let (_, effects) = run([
        begun(),
        without_writers(),
        vec![Event::StartSnapshotSet(SET)],
        snapshot(Ok(())),
        vec![Event::RequesterGone],
    ]
    .concat());
    assert_eq!(effects[1..], [Effect::ReleaseCreationLock, Effect::DeleteAutoRelease(SET)]);
}

#[test]
fn the_requester_goes_at_each_point() {
    let farewell = |events: Vec<Event>| {
        let (mut state, _) = run(events);
        let effects = state.apply(Event::RequesterGone).unwrap();
        assert!(state.is_released());
        effects
    };
    let drafted = [begun(), stated(), gathered()].concat();
    let open = [drafted.clone(), with_set()].concat();
    let ready = [open.clone(), prepared()].concat();
    let undo = [Effect::ForgetSet(SET), Effect::ReleaseCreationLock];
    let shutdown = Effect::ShutdownWriters { set_id: None };
    assert_eq!(farewell(no()), []);
    assert_eq!(farewell(drafted), []);
    assert_eq!(farewell(open), undo);
    assert_eq!(farewell(ready.clone()), [&[Effect::AbortWriters], &undo[..], std::slice::from_ref(&shutdown)].concat());
    assert_eq!(farewell([ready.clone(), snapshot(Err(failed()))].concat()), [Effect::AbortWriters, shutdown.clone()]);
    assert_eq!(farewell([ready.clone(), vec![Event::AbortBackup]].concat()), [shutdown]);
    let done = [ready, snapshot(Ok(()))].concat();
    assert_eq!(farewell(done), [Effect::ShutdownWriters { set_id: Some(SET) }, Effect::DeleteAutoRelease(SET)]);
}

#[test]
fn a_persistent_set_outlives_its_session() {
    let persistent = vec![context(Context::AppRollback)];
    let (_, effects) = run([
        begun(),
        persistent,
        stated(),
        gathered(),
        with_set(),
        prepared(),
        snapshot(Ok(())),
        vec![Event::RequesterGone],
    ]
    .concat());
    assert_eq!(effects.last(), Some(&Effect::ShutdownWriters { set_id: Some(SET) }));
}

#[test]
fn the_requester_goes_while_the_set_is_made() {
    let making = [begun(), stated(), gathered(), with_set(), prepared(), vec![DO]].concat();
    for (end, farewell) in [
        (
            Err(Failure::Cancelled),
            vec![Effect::ReleaseCreationLock, Effect::AbortWriters, Effect::ShutdownWriters { set_id: None }],
        ),
        // The cancel came too late: the copies are there, and auto-release.
        (
            Ok(()),
            vec![
                Effect::ReleaseCreationLock,
                Effect::ShutdownWriters { set_id: Some(SET) },
                Effect::DeleteAutoRelease(SET),
            ],
        ),
    ] {
        let (mut state, _) = run(making.clone());
        assert_eq!(
            state.apply(Event::RequesterGone).unwrap(),
            [Effect::CancelOperation(vss_session::Operation::DoSnapshotSet)]
        );
        assert!(!state.is_released());
        assert_eq!(state.apply(Event::OperationFinished(Finished::DoSnapshotSet(end))).unwrap(), farewell);
        assert!(state.is_released());
    }
}

#[test]
fn an_abort_while_preparing_waits_for_the_end_of_the_operation() {
    let (mut state, _) = run([begun(), stated(), gathered(), with_set(), vec![Event::PrepareForBackup]].concat());
    assert_eq!(state.apply(Event::AbortBackup).unwrap().len(), 1);
    assert_eq!(state.apply(Event::CancelRequested), Ok(vec![]), "cancelled once is enough");
    let effects = state.apply(Event::OperationFinished(Finished::PrepareForBackup(Err(Failure::Cancelled)))).unwrap();
    assert_eq!(effects, [Effect::AbortWriters, Effect::ForgetSet(SET), Effect::ReleaseCreationLock]);
    assert_eq!(state.session().unwrap().phase(), Phase::Aborted);
}

#[test]
fn an_abort_with_nothing_in_progress_changes_nothing() {
    for events in [begun(), [begun(), stated(), gathered(), prepared(), completed()].concat()] {
        let (mut state, _) = run(events);
        let before = state.clone();
        assert_eq!(state.apply(Event::AbortBackup), Ok(vec![]));
        assert_eq!(state, before);
    }
}

#[test]
fn an_abort_after_the_end_does_not_disturb_the_last_status() {
    let events = [begun(), stated(), gathered(), prepared(), completed(), vec![Event::GatherWriterStatus]];
    let (mut state, _) = run(events.concat());
    assert_eq!(state.apply(Event::AbortBackup), Ok(vec![]));
    assert_eq!(state.apply(Event::OperationFinished(Finished::GatherWriterStatus(Ok(())))), Ok(vec![]));
    assert_eq!(permits(&state, Call::GetWriterStatus), Ok(()));
}

#[test]
fn what_failed_may_be_tried_again() {
    let failures =
        vec![Event::GatherWriterMetadata, Event::OperationFinished(Finished::GatherWriterMetadata(Err(failed())))];
    let unprepared = vec![Event::PrepareForBackup, Event::OperationFinished(Finished::PrepareForBackup(Err(failed())))];
    let incomplete = vec![Event::BackupComplete, Event::OperationFinished(Finished::BackupComplete(Err(failed())))];
    let (state, effects) =
        run([begun(), stated(), failures, gathered(), unprepared, prepared(), incomplete, completed()].concat());
    assert_eq!(state.session().unwrap().phase(), Phase::Completed);
    assert_eq!(effects.iter().filter(|effect| **effect == Effect::AbortWriters).count(), 1);
}
