//! The description (IDL) and the Rust types say the same: names of methods, fields, values.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use vss_api::{
    ErrorParameters, blocks as b, documents as d, interface, management as m, objects as o, requester as r,
    server::Face, writer as w,
};
use vss_model as model;
use zlink::idl::{CustomType, Interface, Type};

fn parse(text: &'static str) -> Interface<'static> {
    Interface::try_from(text).unwrap_or_else(|error| panic!("{error}"))
}

/// The names that serde reads as variants of `T`.
fn variants<T: DeserializeOwned>(probe: Value) -> BTreeSet<String> {
    let Err(error) = serde_json::from_value::<T>(probe) else { panic!("\"?\" is a variant") };
    let text = error.to_string();
    let (_, expected) = text.split_once("expected").unwrap_or_else(|| panic!("{text}"));
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn methods_of<T: DeserializeOwned>() -> BTreeSet<String> {
    variants::<T>(json!({"method": "?", "parameters": {}}))
}

fn methods_in(interface: &Interface<'_>) -> BTreeSet<String> {
    interface.methods().map(|method| format!("{}.{}", interface.name(), method.name())).collect()
}

#[test]
fn every_method_is_described_and_nothing_else() {
    assert_eq!(methods_in(&parse(interface::REQUESTER)), methods_of::<r::Call>());
    assert_eq!(methods_in(&parse(interface::MANAGEMENT)), methods_of::<m::Call>());
    let mut writer = methods_of::<w::Call>();
    let events = methods_of::<w::EventCall>();
    assert_eq!(events, interface::WRITER_EVENTS.iter().map(|event| (*event).to_owned()).collect());
    writer.extend(events);
    assert_eq!(methods_in(&parse(interface::WRITER)), writer);
}

#[test]
fn every_part_is_documented_and_every_socket_describes_itself() {
    for text in [interface::REQUESTER, interface::MANAGEMENT, interface::WRITER] {
        let interface = parse(text);
        assert!(interface.comments().count() > 0);
        for method in interface.methods() {
            assert!(method.comments().count() > 0, "{}.{} has no comment", interface.name(), method.name());
        }
        for custom in interface.custom_types() {
            let comments = custom.as_object().map(|object| object.comments().count());
            let comments = comments.or_else(|| custom.as_enum().map(|values| values.comments().count()));
            assert!(comments.is_some_and(|comments| comments > 0), "{} has no comment", custom.name());
        }
        let errors: Vec<String> = interface.errors().map(|error| error.name().to_string()).collect();
        assert_eq!(errors, ["VssError"]);
    }
    for face in [Face::Requester, Face::Writer] {
        for name in interface::interfaces(face) {
            let text = interface::description(face, name).unwrap();
            assert_eq!(parse(text).name().to_string(), *name);
        }
    }
}

#[test]
fn values_are_those_of_the_types() {
    let described: BTreeMap<&str, BTreeSet<String>> = BTreeMap::from([
        ("Context", variants::<model::Context>(json!("?"))),
        ("BackupType", variants::<model::BackupType>(json!("?"))),
        ("DataSource", variants::<model::DataSource>(json!("?"))),
        ("RestoreMethodKind", variants::<model::RestoreMethodKind>(json!("?"))),
        ("WriterRestore", variants::<model::WriterRestore>(json!("?"))),
        ("ComponentKind", variants::<model::ComponentKind>(json!("?"))),
        ("Usage", variants::<model::Usage>(json!("?"))),
        ("AppLevel", variants::<model::AppLevel>(json!("?"))),
        ("EventKind", variants::<vss_api::event::EventKind>(json!("?"))),
        ("GuardAnswer", variants::<model::GuardAnswer>(json!("?"))),
        ("WriterState", variants::<model::WriterState>(json!("?"))),
        ("Work", variants::<model::Work>(json!("?"))),
        ("OperationState", variants::<r::OperationState>(json!("?"))),
        ("DocumentKind", variants::<d::DocumentKind>(json!("?"))),
        ("RevertState", variants::<b::RevertState>(json!("?"))),
        ("ObjectType", variants::<model::ObjectType>(json!("?"))),
        ("SnapshotProperty", variants::<model::SnapshotProperty>(json!("?"))),
        ("SnapshotState", variants::<model::SnapshotState>(json!("?"))),
        ("RestoreType", variants::<model::RestoreType>(json!("?"))),
    ]);
    let mut seen = BTreeSet::new();
    for text in [interface::REQUESTER, interface::MANAGEMENT, interface::WRITER] {
        for values in parse(text).custom_types().filter_map(CustomType::as_enum) {
            let names: BTreeSet<String> = values.variants().map(|variant| variant.name().to_string()).collect();
            let name = values.name().to_string();
            assert_eq!(Some(&names), described.get(name.as_str()), "{name}");
            seen.insert(name);
        }
    }
    assert_eq!(seen.len(), described.len());
}

/// Walks a value along its described type. Every field of the value must be described; every described field must be in the
/// value, so samples have every field.
struct Walk<'a> {
    interface: &'a Interface<'static>,
    used: BTreeSet<String>,
}

impl Walk<'_> {
    fn fields<'f>(&mut self, place: &str, value: &Value, fields: impl Iterator<Item = (String, &'f Type<'static>)>) {
        let object = value.as_object().unwrap_or_else(|| panic!("{place} is no object: {value}"));
        let fields: BTreeMap<String, &Type<'static>> = fields.collect();
        let described: BTreeSet<&String> = fields.keys().collect();
        assert_eq!(object.keys().collect::<BTreeSet<_>>(), described, "fields of {place}");
        for (name, value) in object {
            self.value(&format!("{place}.{name}"), value, fields[name]);
        }
    }

    fn value(&mut self, place: &str, value: &Value, described: &Type<'static>) {
        match described {
            Type::Bool => assert!(value.is_boolean(), "{place}: {value}"),
            Type::Int => assert!(value.is_i64(), "{place}: {value}"),
            Type::String => assert!(value.is_string(), "{place}: {value}"),
            Type::Optional(inner) => {
                assert!(!value.is_null(), "{place}: the sample leaves it out");
                self.value(place, value, inner.inner());
            }
            Type::Array(inner) => {
                let values = value.as_array().unwrap_or_else(|| panic!("{place} is no array: {value}"));
                assert!(!values.is_empty(), "{place}: the sample is empty");
                values.iter().for_each(|value| self.value(place, value, inner.inner()));
            }
            Type::Custom(name) => {
                self.used.insert(name.to_string());
                let interface = self.interface;
                let custom = interface
                    .custom_types()
                    .find(|custom| custom.name() == name)
                    .unwrap_or_else(|| panic!("no {name}"));
                if let Some(object) = custom.as_object() {
                    self.fields(
                        name.as_ref(),
                        value,
                        object.fields().map(|field| (field.name().to_string(), field.ty())),
                    );
                } else if let Some(values) = custom.as_enum() {
                    let value = value.as_str().unwrap_or_else(|| panic!("{place} is no name: {value}"));
                    assert!(values.variants().any(|variant| *variant.name() == value), "{place}: {value}");
                }
            }
            other => panic!("{place}: {other:?} is not used here"),
        }
    }
}

/// Checks the samples of all calls of an interface: each with its reply.
fn check(text: &'static str, samples: Vec<(Value, Value)>) {
    let interface = parse(text);
    let mut walk = Walk { interface: &interface, used: BTreeSet::new() };
    let mut missing = methods_in(&interface);
    for (call, reply) in samples {
        let name = call["method"].as_str().unwrap();
        assert!(missing.remove(name), "{name}: no such method, or twice");
        let (_, short) = name.rsplit_once('.').unwrap();
        let method = interface.methods().find(|method| *method.name() == short).unwrap();
        let parameters = call.get("parameters").cloned().unwrap_or_else(|| json!({}));
        walk.fields(
            &format!("{short}()"),
            &parameters,
            method.inputs().map(|field| (field.name().to_string(), field.ty())),
        );
        walk.fields(
            &format!("{short}->"),
            &reply,
            method.outputs().map(|field| (field.name().to_string(), field.ty())),
        );
    }
    assert!(missing.is_empty(), "no sample: {missing:?}");
    let error = interface.errors().next().unwrap();
    let sample = to_value(&ErrorParameters::from(&failure()));
    walk.fields("VssError", &sample, error.fields().map(|field| (field.name().to_string(), field.ty())));
    let types: BTreeSet<String> = interface.custom_types().map(|custom| custom.name().to_string()).collect();
    assert_eq!(types, walk.used, "types that nothing uses");
}

fn to_value(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

fn sample(call: &impl Serialize, reply: &impl Serialize) -> (Value, Value) {
    (to_value(call), to_value(reply))
}

fn failure() -> model::VssError {
    model::VssError::new(model::VssCode::BadState, "Too early").with_hint("Later")
}

fn component_name() -> model::ComponentName {
    model::ComponentName { logical_path: "a\\b".to_owned(), name: "c".to_owned() }
}

fn file_spec() -> model::FileSpec {
    model::FileSpec {
        path: "/srv".into(),
        pattern: "*".to_owned(),
        recursive: true,
        alternate_path: Some("/tmp".into()),
        backup_type_mask: model::FileBackupMask(1),
        other: BTreeMap::new(),
    }
}

fn declaration() -> model::Declaration {
    let files = file_spec().file_set();
    model::Declaration {
        source: model::DataSource::TransactedDb,
        version_major: 1,
        version_minor: 2,
        backup_schema: model::BackupSchema::COPY,
        restore_method: Some(model::RestoreMethod {
            method: model::RestoreMethodKind::StopRestoreStart,
            service: Some("shop.service".to_owned()),
            user_procedure: Some("none".to_owned()),
            writer_restore: model::WriterRestore::Always,
            reboot_required: true,
        }),
        alternate_locations: vec![model::AlternateLocation { files: files.clone(), alternate_path: "/tmp".into() }],
        exclude_files: vec![files.clone()],
        exclude_files_from_snapshot: vec![files],
    }
}

fn component() -> model::Component {
    model::Component {
        kind: model::ComponentKind::Database,
        name: component_name(),
        caption: Some("C".to_owned()),
        selectable: true,
        selectable_for_restore: true,
        icon: Some("AAABAA==".to_owned()),
        restore_metadata: true,
        notify_on_backup_complete: true,
        flags: model::ComponentFlags::BACKUP_RECOVERY,
        files: vec![file_spec()],
        log_files: vec![file_spec()],
        dependencies: vec![model::Dependency { writer: model::WriterClassId::random(), on: component_name() }],
        other: BTreeMap::new(),
    }
}

fn shadow() -> model::ShadowCopy {
    model::ShadowCopy {
        id: model::ShadowId::random(),
        set_id: model::SetId::random(),
        volume: "/".into(),
        volume_id: model::VolumeId::subvolume("u", 5),
        provider: "btrfs".to_owned(),
        provider_id: model::ProviderId::random(),
        device: Some("/dev/x".to_owned()),
        path: Some("/run".into()),
        consistency: model::Consistency::Crash,
        cut_at: model::Instant::now(),
        nested: vec![model::NestedCopy { path: "n".into(), cut_at: model::Instant::now() }],
        created_at: model::Instant::now(),
        attributes: model::Attributes::PERSISTENT,
        owner: 0,
        originating_machine: "m".to_owned(),
        service_machine: "m".to_owned(),
    }
}

fn proof() -> model::HoldProof {
    let (at, span) = (model::Instant::now(), model::Span { from_us: -1, took_us: 1 });
    model::HoldProof {
        began_at: at,
        began_boottime_us: 1,
        flush: Some(span),
        flush_in_window: Some(span),
        hold: Some(model::HoldSpan {
            frozen_at: at,
            frozen_us: 1,
            release_at: at,
            release_us: 1,
            thawed_at: at,
            thawed_us: 1,
            expedited: true,
            expedited_restored: true,
            expedited_us: 1,
        }),
        members: vec![model::MemberProof {
            shadow_id: model::ShadowId::random(),
            volume: "/".into(),
            held: true,
            level: Some(0),
            freeze: Some(span),
            commit: span,
            cut_at: at,
            thaw: Some(span),
            answers: vec![model::GuardAnswer::ThawedEarly],
        }],
    }
}

fn set() -> model::ShadowCopySet {
    model::ShadowCopySet {
        set_id: model::SetId::random(),
        consistency: model::Consistency::Application,
        atomic: true,
        hold_ms: 1,
        freeze_ms: 2,
        shadows: vec![shadow()],
        snapshots_count: 1,
        writers: vec![model::WriterRecord {
            name: "w".to_owned(),
            class_id: model::WriterClassId::random(),
            instance_id: model::WriterInstanceId::random(),
            state: model::WriterState::Stable,
            failure: Some(failure()),
            frozen_ms: 1,
            components: vec![model::ComponentRecord {
                name: component_name(),
                consistency: model::Consistency::FileSystem,
                failure: Some(failure()),
            }],
        }],
        context: model::Context::Backup,
        backup_state: model::BackupState::default(),
        owner: 0,
        requester: "x".to_owned(),
        created_at: model::Instant::now(),
        proof: Some(proof()),
    }
}

fn copying() -> vss_api::progress::CopyProgress {
    let progress = model::Progress {
        shadow_id: model::ShadowId::random(),
        work: model::Work::Catching,
        round: 1,
        bytes_done: 1,
        bytes_total: 1,
        copy_rate: Some(1),
        dirty_rate: Some(1),
        hold_ms: Some(1),
        left_ms: Some(1),
    };
    vss_api::progress::CopyProgress { volume: "/".into(), progress }
}

fn component_data() -> model::ComponentData {
    model::ComponentData {
        backup_stamp: Some("1".to_owned()),
        backup_metadata: Some("m".to_owned()),
        partial_files: vec![model::PartialFile {
            path: "/srv".into(),
            file_name: "f".to_owned(),
            ranges: model::Ranges::parse("0:1").unwrap(),
            metadata: "m".to_owned(),
        }],
        differenced_files: vec![model::DifferencedFiles {
            files: model::FileSet { path: "/srv".into(), pattern: "*".to_owned(), recursive: true },
            last_modified: model::FileTime(1),
        }],
    }
}

fn provider() -> m::ProviderEntry {
    let text = || "x".to_owned();
    m::ProviderEntry {
        id: model::ProviderId::random(),
        name: text(),
        version: text(),
        provider_type: text(),
        freeze_policy: text(),
        kind: text(),
        writable_phase: true,
    }
}

fn properties() -> model::SnapshotProperties {
    model::SnapshotProperties { exposed_path: Some("/".into()), ..model::SnapshotProperties::of(&set(), &shadow()) }
}

fn reference() -> r::ComponentReference {
    r::ComponentReference {
        instance_id: model::WriterInstanceId::random(),
        class_id: model::WriterClassId::random(),
        kind: model::ComponentKind::FileGroup,
        logical_path: "a".to_owned(),
        name: "b".to_owned(),
    }
}

#[test]
fn messages_of_requesters_are_as_described() {
    let nothing = vss_api::Empty {};
    let started = r::OperationStarted { operation_id: model::OperationId::random() };
    let operation_id = started.operation_id;
    let status = r::OperationStatus {
        state: r::OperationState::Failed,
        number: 1,
        error: Some(failure()),
        progress: 1,
        step: "Freeze".to_owned(),
        copying: Some(copying()),
    };
    let question = r::VolumeQuestion { volume: "/".into(), provider: Some("btrfs".to_owned()) };
    let classes = r::WriterClasses { class_ids: vec![model::WriterClassId::random()] };
    let metadata = model::WriterMetadata {
        class_id: model::WriterClassId::random(),
        instance_id: model::WriterInstanceId::random(),
        name: "w".to_owned(),
        instance_name: "i".to_owned(),
        usage: model::Usage::UserData,
        level: model::AppLevel::BackEnd,
        components: vec![component()],
        declaration: declaration(),
        other: BTreeMap::new(),
    };
    let writer_status = model::WriterStatus {
        instance_id: model::WriterInstanceId::random(),
        class_id: model::WriterClassId::random(),
        name: "w".to_owned(),
        involved: true,
        state: model::WriterState::FailedAtFreeze,
        failure: Some(failure()),
        application_code: Some(7),
    };
    let shadow_id = model::ShadowId::random();
    let wishes = model::CreationOptions {
        max_rate: Some(1),
        max_hold_ms: Some(1),
        storage: Some("/".into()),
        full_compare: true,
    };
    let samples = vec![
        sample(
            &r::Call::InitializeForBackup(r::InitializeForBackup { requester: "x".to_owned() }),
            &r::SessionOpened { session_id: model::SessionId::random() },
        ),
        sample(
            &r::Call::InitializeForRestore(r::InitializeForBackup { requester: "x".to_owned() }),
            &r::SessionOpened { session_id: model::SessionId::random() },
        ),
        sample(
            &r::Call::DisableWriterInstances(r::WriterInstances {
                instance_ids: vec![model::WriterInstanceId::random()],
            }),
            &nothing,
        ),
        sample(
            &r::Call::SetBackupOptions(r::SetBackupOptions { component: reference(), options: "o".to_owned() }),
            &nothing,
        ),
        sample(
            &r::Call::SetPreviousBackupStamp(r::SetPreviousBackupStamp {
                component: reference(),
                stamp: "s".to_owned(),
            }),
            &nothing,
        ),
        sample(
            &r::Call::GetWriterComponents(r::WriterInstance { instance_id: model::WriterInstanceId::random() }),
            &r::WriterComponents {
                components: vec![r::BackupComponent {
                    kind: model::ComponentKind::Database,
                    name: component_name(),
                    backup_options: Some("o".to_owned()),
                    previous_backup_stamp: Some("s".to_owned()),
                    data: component_data(),
                    failure: Some(failure()),
                    backup_succeeded: Some(true),
                }],
            },
        ),
        sample(
            &r::Call::Query(o::Query {
                queried_type: model::ObjectType::None,
                returned_type: model::ObjectType::Snapshot,
            }),
            &o::Queried { result: 0, snapshots: vec![properties()], providers: vec![provider()] },
        ),
        sample(
            &r::Call::GetSnapshotProperties(o::Snapshot { snapshot_id: shadow_id }),
            &o::Properties { properties: properties() },
        ),
        sample(
            &r::Call::SetSnapshotProperty(o::SetSnapshotProperty {
                snapshot_id: shadow_id,
                property: model::SnapshotProperty::ServiceMachine,
                value: "m".to_owned(),
            }),
            &nothing,
        ),
        sample(
            &r::Call::DeleteSnapshots(o::DeleteSnapshots {
                object_id: shadow_id.to_string(),
                object_type: model::ObjectType::Snapshot,
                force: true,
            }),
            &o::SnapshotsDeleted { deleted: 1, first_not_deleted: Some(shadow_id), failure: Some(failure()) },
        ),
        sample(&r::Call::BreakSnapshotSet(o::BreakSnapshotSet { set_id: model::SetId::random(), flags: 1 }), &nothing),
        sample(&r::Call::ImportSnapshots, &started),
        sample(&r::Call::SetRestoreState(r::SetRestoreState { restore_type: model::RestoreType::ByCopy }), &nothing),
        sample(
            &r::Call::SetSelectedForRestore(r::SetSelectedForRestore { component: reference(), selected: true }),
            &nothing,
        ),
        sample(&r::Call::PreRestore, &started),
        sample(&r::Call::PostRestore, &started),
        sample(
            &r::Call::SetContext(r::SetContext {
                context: model::Context::Backup,
                attributes: model::Attributes::PLEX,
            }),
            &nothing,
        ),
        sample(&r::Call::SetBackupState(r::SetBackupState { state: model::BackupState::default() }), &nothing),
        sample(&r::Call::EnableWriterClasses(classes.clone()), &nothing),
        sample(&r::Call::DisableWriterClasses(classes), &nothing),
        sample(&r::Call::GatherWriterMetadata, &started),
        sample(&r::Call::GetWriterMetadata, &r::Metadata { writers: vec![metadata] }),
        sample(&r::Call::AddComponent(reference()), &nothing),
        sample(
            &r::Call::IsVolumeSupported(question.clone()),
            &r::VolumeSupport { supported: true, provider: Some("btrfs".to_owned()), reason: String::new() },
        ),
        sample(&r::Call::StartSnapshotSet(wishes), &r::SetStarted { set_id: model::SetId::random() }),
        sample(
            &r::Call::AddToSnapshotSet(question),
            &r::VolumeAdded { shadow_id, volume: "/".into(), inner: "x".into(), provider: "btrfs".to_owned() },
        ),
        sample(&r::Call::PrepareForBackup, &started),
        sample(&r::Call::DoSnapshotSet(r::DoSnapshotSet { strict: true }), &started),
        sample(&r::Call::GatherWriterStatus, &started),
        sample(&r::Call::GetWriterStatus, &r::Statuses { writers: vec![writer_status] }),
        sample(&r::Call::GetSnapshotSet, &r::FinishedSet { set: set() }),
        sample(
            &r::Call::ExposeSnapshot(r::ExposeSnapshot { shadow_id, path: Some("/mnt".into()) }),
            &r::Exposed { path: "/mnt".into() },
        ),
        sample(&r::Call::UnexposeSnapshot(r::UnexposeSnapshot { shadow_id }), &nothing),
        sample(
            &r::Call::SetBackupSucceeded(r::SetBackupSucceeded { component: reference(), succeeded: true }),
            &nothing,
        ),
        sample(&r::Call::BackupComplete, &started),
        sample(&r::Call::AbortBackup, &nothing),
        sample(&r::Call::Wait(r::Wait { operation_id, timeout_ms: 1, seen_progress: 1 }), &status),
        sample(&r::Call::QueryStatus(r::OperationReference { operation_id }), &status),
        sample(&r::Call::Cancel(r::OperationReference { operation_id }), &r::OperationCancelled { result: 0, status }),
    ];
    check(interface::REQUESTER, samples);
}

fn forecast() -> m::SetForecast {
    let text = || "x".to_owned();
    let volume_id = || model::VolumeId::file_system("ext4", "u");
    m::SetForecast {
        possible: true,
        consistency: Some(model::Consistency::Crash),
        atomic: true,
        paths: vec![m::CheckedPath { path: "/".into(), volume_id: Some(volume_id()), failure: Some(failure()) }],
        volumes: vec![m::CheckedVolume {
            volume: "/".into(),
            volume_id: volume_id(),
            fs_type: text(),
            provider: text(),
            consistency: Some(model::Consistency::FileSystem),
            nested_count: 1,
            nested: vec!["n".into()],
            shadows: 1,
            hold_ms: Some(1),
            copying: Some(model::CopyForecast {
                work: model::Work::Comparing,
                full_compare: Some(text()),
                storage: Some("/".into()),
                places: vec![model::PlaceForecast { storage: "/".into(), bytes_needed: 1, bytes_available: 1 }],
                rounds: Some(1),
                bytes_to_read: 1,
                copy_rate: Some(1),
                dirty_rate: Some(1),
                read_ms: Some(1),
            }),
            failure: Some(failure()),
        }],
        writers: vec![m::CheckedWriter {
            name: text(),
            instance_name: text(),
            class_id: model::WriterClassId::random(),
            instance_id: model::WriterInstanceId::random(),
            failure: Some(failure()),
            component_count: 1,
            components: vec![m::CheckedComponent {
                name: component_name(),
                consistency: model::Consistency::Application,
                missing: vec![m::MissingVolume {
                    volume: "/".into(),
                    volume_id: volume_id(),
                    provider: Some(text()),
                    reason: text(),
                }],
            }],
        }],
        obstacles: vec![failure()],
        warnings: vec![failure()],
    }
}

#[test]
fn paths_that_are_no_text_come_back_in_lists_too() {
    use std::os::unix::ffi::OsStringExt;
    let path = std::path::PathBuf::from(std::ffi::OsString::from_vec(b"/a\xff".to_vec()));
    let check = m::Check { paths: vec!["/srv".into(), path], ..m::Check::default() };
    let text = serde_json::to_string(&check).unwrap();
    assert!(text.contains(r#"["/srv","/a\u0000ff"]"#), "{text}");
    assert_eq!(serde_json::from_str::<m::Check>(&text).unwrap(), check);
    assert!(serde_json::from_value::<m::Check>(json!({"paths": ["/srv", "/a\u{0}"]})).is_err());
}

fn event() -> vss_api::event::Event {
    use vss_api::event::{Event, EventKind, MemberTimes};
    let (text, span) = (|| Some("x".to_owned()), Some(model::Span { from_us: 1, took_us: 1 }));
    Event {
        seq: 1,
        at: Some(model::Instant::now()),
        kind: EventKind::Member,
        session_id: Some(model::SessionId::random()),
        set_id: Some(model::SetId::random()),
        shadow_id: Some(model::ShadowId::random()),
        uid: Some(1),
        requester: text(),
        writer: text(),
        provider: text(),
        volume: Some("/".into()),
        path: Some("/".into()),
        step: text(),
        took_us: Some(1),
        member: Some(MemberTimes {
            level: Some(1),
            freeze: span,
            commit: span,
            thaw: span,
            answers: vec![model::GuardAnswer::Frozen],
        }),
        consistency: Some(model::Consistency::Crash),
        hold_us: Some(1),
        failure: Some(failure()),
        progress: Some(Box::new(copying())),
        recovery: vec!["x".to_owned()],
    }
}

#[test]
fn messages_of_management_are_as_described() {
    let text = || "x".to_owned();
    let limit = m::WriterLimit { name: text(), freeze_ms: 1 };
    let status = m::Status {
        version: text(),
        pid: 1,
        started_at: model::Instant::now(),
        recovery: vec![text()],
        sessions: vec![m::SessionStatus {
            session_id: model::SessionId::random(),
            requester: text(),
            uid: 0,
            pid: 1,
            state: text(),
            step: text(),
        }],
        writers: 1,
        shadows: 1,
        creating: Some(model::SetId::random()),
        holding: false,
    };
    let limits = m::Limits {
        volumes_per_set: 64,
        shadow_copies_per_volume: 512,
        backup_sessions: 64,
        restore_sessions: 8,
        writer_freeze_ms: 1,
        writer_prepare_ms: 1,
        hold_ms: 1,
        writers: vec![limit.clone()],
    };
    let set_limits = m::SetLimits {
        backup_sessions: Some(1),
        writer_freeze_ms: Some(1),
        writer_prepare_ms: Some(1),
        writer: Some(limit),
    };
    let writer = m::RegisteredWriter {
        name: text(),
        instance_name: text(),
        class_id: model::WriterClassId::random(),
        instance_id: model::WriterInstanceId::random(),
        level: model::AppLevel::System,
        freeze_ms: 1,
        uid: 0,
        pid: 1,
    };
    let provider = provider();
    let volume = m::VolumeEntry {
        volume: "/".into(),
        volume_id: model::VolumeId::file_system("ext4", "u"),
        fs_type: text(),
        source: text(),
        provider: Some(text()),
        reason: text(),
        shadows: 1,
    };
    let selection = m::Selection {
        shadow_ids: vec![model::ShadowId::random()],
        set_id: Some(model::SetId::random()),
        oldest_of: Some("/".into()),
        all: true,
    };
    let storage = m::StorageEntry {
        provider: text(),
        storage: model::Storage {
            volume_id: model::VolumeId::file_system("ext4", "u"),
            volume: "/".into(),
            place: "/".into(),
            used_bytes: 1,
            volume_bytes: 1,
            shadows: 1,
            last_used: model::Instant::now(),
            full_compare: Some(text()),
        },
    };
    let remove = m::RemoveStorage {
        volume: Some("/".into()),
        volume_id: Some(model::VolumeId::file_system("ext4", "u")),
        all: true,
    };
    let question = m::Check {
        paths: vec!["/".into()],
        provider: Some(text()),
        no_writers: true,
        writers: vec![text()],
        context: model::Context::Backup,
        options: model::CreationOptions {
            max_rate: Some(model::creation::LEAST_RATE),
            max_hold_ms: Some(1),
            storage: Some("/".into()),
            full_compare: true,
        },
    };
    let get_set = m::GetSet { set_id: Some(model::SetId::random()), shadow_id: Some(model::ShadowId::random()) };
    let samples = vec![
        sample(&m::Call::GetStatus, &status),
        sample(&m::Call::GetLimits, &limits),
        sample(&m::Call::SetLimits(set_limits), &vss_api::Empty {}),
        sample(&m::Call::ListShadows, &m::Shadows { shadows: vec![shadow()] }),
        sample(&m::Call::GetSet(get_set), &m::SetRecord { set: set() }),
        sample(&m::Call::ListWriters, &m::Writers { writers: vec![writer] }),
        sample(&m::Call::ListProviders, &m::Providers { providers: vec![provider] }),
        sample(&m::Call::ListVolumes, &m::Volumes { volumes: vec![volume] }),
        sample(&m::Call::Check(question), &forecast()),
        sample(
            &m::Call::ListEvents(m::ListEvents { after: Some(1) }),
            &m::EventList { events: vec![event()], lost: 1 },
        ),
        sample(&m::Call::ListStorage, &m::StorageList { storage: vec![storage.clone()] }),
        sample(&m::Call::RemoveStorage(remove), &m::StorageList { storage: vec![storage] }),
        sample(&m::Call::DeleteShadows(selection), &m::Deleted { shadow_ids: vec![model::ShadowId::random()] }),
        sample(&m::Call::AbortAllSnapshotsInProgress, &m::SetsAborted { sets: vec![model::SetId::random()] }),
    ];
    check(interface::MANAGEMENT, [samples, block_samples()].concat());
}

/// What is said of copies as blocks.
fn block_samples() -> Vec<(Value, Value)> {
    let (shadow_id, volume_id) = (model::ShadowId::random(), model::VolumeId::file_system("ext4", "u"));
    let status = b::RevertStatus {
        volume_id: volume_id.clone(),
        volume: "/".into(),
        shadow_id,
        state: b::RevertState::Unfinished,
        progress: 1,
        bytes_done: 1,
        bytes_total: 1,
        written_bytes: 1,
        failure: Some(failure()),
    };
    let list = b::BlockList {
        volume_size: 1,
        block_size: 1,
        unknown: Some("x".to_owned()),
        extents: vec![model::Extent { offset: 0, length: 1 }],
        next: Some(1),
    };
    let image = b::ImageOpened {
        image: 0,
        offset: 0,
        volume_size: 1,
        block_size: 1,
        set_id: model::SetId::random(),
        volume_id: volume_id.clone(),
        fs_type: "ext4".to_owned(),
        cut_at: model::Instant::now(),
    };
    let question = b::ChangedBlocks { shadow_id, since_shadow_id: Some(shadow_id), from: 1 };
    let query = b::QueryRevertStatus { volume_id, seen_progress: 1, timeout_ms: 1 };
    let documents = d::DocumentList {
        documents: vec![d::DocumentEntry {
            kind: d::DocumentKind::WriterMetadata,
            writer: Some("x".to_owned()),
            class_id: Some(model::WriterClassId::random()),
            instance_id: Some(model::WriterInstanceId::random()),
            bytes: 1,
            failure: Some(failure()),
        }],
    };
    let set_id = model::SetId::random();
    let of = d::GetDocument { set_id, instance_id: Some(model::WriterInstanceId::random()) };
    let text = d::DocumentText { bytes: 1, text: Some("x".to_owned()), file: Some(0) };
    vec![
        sample(&m::Call::ListDocuments(d::ListDocuments { set_id }), &documents),
        sample(&m::Call::GetDocument(of), &text),
        sample(&m::Call::ChangedBlocks(question), &list),
        sample(&m::Call::OpenImage(b::OpenImage { shadow_id }), &image),
        sample(&m::Call::RevertToSnapshot(b::RevertToSnapshot { shadow_id, give_up: true }), &status),
        sample(&m::Call::QueryRevertStatus(query), &status),
    ]
}

#[test]
fn messages_of_writers_are_as_described() {
    let event = || w::Event {
        session_id: model::SessionId::random(),
        set_id: Some(model::SetId::random()),
        context: model::Context::Backup,
        backup_state: model::BackupState::default(),
        attributes: model::Attributes::PLEX,
        components: vec![w::EventComponent {
            name: component_name(),
            backup_options: Some("o".to_owned()),
            previous_backup_stamp: Some("s".to_owned()),
            backup_succeeded: Some(true),
        }],
        volumes: vec![w::EventVolume {
            volume: "/".into(),
            volume_id: model::VolumeId::file_system("ext4", "u"),
            shadow_id: model::ShadowId::random(),
            provider: "btrfs".to_owned(),
            cut_group: 0,
            directory: Some(0),
        }],
        time_left_ms: 1,
    };
    let reply = w::EventReply {
        state: Some(model::WriterState::FailedAtFreeze),
        code: Some(model::VssCode::WriterErrorRetryable),
        application_code: Some(7),
        message: "x".to_owned(),
        components: vec![w::ComponentReply {
            name: component_name(),
            code: Some(model::VssCode::WriterErrorTimeout),
            application_code: Some(7),
            message: "x".to_owned(),
            data: component_data(),
        }],
        other: BTreeMap::new(),
    };
    let register = w::Register {
        class_id: model::WriterClassId::random(),
        name: "x".to_owned(),
        instance_name: "i".to_owned(),
        usage: model::Usage::Other,
        level: model::AppLevel::System,
        freeze_timeout_ms: Some(1),
    };
    let registered = w::Registered { instance_id: model::WriterInstanceId::random(), service: "vssd".to_owned() };
    let samples = vec![
        sample(&w::Call::Register(register), &registered),
        sample(
            &w::EventCall::Identify(w::Identify { session_id: model::SessionId::random(), time_left_ms: 1 }),
            &w::Identity { components: vec![component()], declaration: declaration(), other: BTreeMap::new() },
        ),
        sample(&w::EventCall::PrepareBackup(event()), &reply),
        sample(&w::EventCall::PrepareSnapshot(event()), &reply),
        sample(&w::EventCall::Freeze(event()), &reply),
        sample(&w::EventCall::Thaw(event()), &reply),
        sample(&w::EventCall::PostSnapshot(event()), &reply),
        sample(&w::EventCall::Abort(event()), &reply),
        sample(&w::EventCall::BackupComplete(event()), &reply),
        sample(&w::EventCall::BackupShutdown(event()), &reply),
    ];
    check(interface::WRITER, samples);
}
