//! What the types of the model say comes back from the documents, whatever it is, and changes leave alone what is not known.

use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use vss_documents::{BackupComponentsDocument, WriterMetadataDocument, difference};
use vss_model::backup_components::{ComponentFailure, FailureMessages, NewTarget};
use vss_model::*;

/// Any text, with what XML cannot hold and what it must escape.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[ -~]{0,12}", any::<String>(), "[<>&\"'\t\n\r\u{1}\u{fffe}%]{1,6}"]
        .prop_map(|text| text.replace('\0', "?"))
}

fn some_text() -> impl Strategy<Value = String> {
    text().prop_map(|text| if text.is_empty() { "x".to_owned() } else { text })
}

/// Any path: any bytes but NUL.
fn path() -> impl Strategy<Value = PathBuf> {
    prop_oneof![
        "/[a-z/]{0,12}".prop_map(PathBuf::from),
        proptest::collection::vec(1..=255u8, 0..12).prop_map(|bytes| PathBuf::from(OsString::from_vec(bytes))),
    ]
}

fn file_set() -> impl Strategy<Value = FileSet> {
    (path(), some_text(), any::<bool>()).prop_map(|(path, pattern, recursive)| FileSet { path, pattern, recursive })
}

fn location() -> impl Strategy<Value = AlternateLocation> {
    (file_set(), path()).prop_map(|(files, alternate_path)| AlternateLocation { files, alternate_path })
}

fn other() -> impl Strategy<Value = BTreeMap<String, Json>> {
    let json = prop_oneof![any::<bool>().prop_map(Json::Bool), text().prop_map(Json::Text), Just(Json::Array(vec![]))];
    proptest::collection::btree_map(some_text(), json, 0..3)
}

fn file_spec() -> impl Strategy<Value = FileSpec> {
    let alternate_path = proptest::option::of(path());
    (file_set(), alternate_path, any::<u32>(), other()).prop_map(|(files, alternate_path, mask, other)| FileSpec {
        path: files.path,
        pattern: files.pattern,
        recursive: files.recursive,
        alternate_path,
        backup_type_mask: FileBackupMask(mask),
        other,
    })
}

fn name() -> impl Strategy<Value = ComponentName> {
    (text(), some_text()).prop_map(|(logical_path, name)| ComponentName { logical_path, name })
}

fn component() -> impl Strategy<Value = Component> {
    let dependency =
        (any::<u128>(), name()).prop_map(|(writer, on)| Dependency { writer: WriterClassId::from_u128(writer), on });
    let lists = (
        proptest::collection::vec(file_spec(), 0..4),
        proptest::collection::vec(file_spec(), 0..3),
        proptest::collection::vec(dependency, 0..3),
    );
    let texts = (name(), proptest::option::of(text()), proptest::option::of(text()), other());
    (any::<[bool; 5]>(), any::<u32>(), texts, lists).prop_map(|(bits, flags, texts, lists)| Component {
        kind: if bits[0] { ComponentKind::Database } else { ComponentKind::FileGroup },
        name: texts.0,
        caption: texts.1,
        selectable: bits[1],
        selectable_for_restore: bits[2],
        icon: texts.2,
        restore_metadata: bits[3],
        notify_on_backup_complete: bits[4],
        flags: ComponentFlags(flags),
        files: lists.0,
        log_files: if bits[0] { lists.1 } else { Vec::new() },
        dependencies: lists.2,
        other: texts.3,
    })
}

fn restore_method() -> impl Strategy<Value = RestoreMethod> {
    let methods = prop_oneof![
        Just(RestoreMethodKind::Undefined),
        Just(RestoreMethodKind::RestoreIfNotThere),
        Just(RestoreMethodKind::RestoreIfCanReplace),
        Just(RestoreMethodKind::StopRestoreStart),
        Just(RestoreMethodKind::RestoreToAlternateLocation),
        Just(RestoreMethodKind::RestoreAtReboot),
        Just(RestoreMethodKind::RestoreAtRebootIfCannotReplace),
        Just(RestoreMethodKind::Custom),
        Just(RestoreMethodKind::RestoreStopStart),
    ];
    let restores = prop_oneof![
        Just(WriterRestore::Undefined),
        Just(WriterRestore::Never),
        Just(WriterRestore::IfReplaceFails),
        Just(WriterRestore::Always),
    ];
    let texts = (proptest::option::of(text()), proptest::option::of(text()));
    (methods, restores, texts, any::<bool>()).prop_map(|(method, writer_restore, texts, reboot_required)| {
        RestoreMethod { method, service: texts.0, user_procedure: texts.1, writer_restore, reboot_required }
    })
}

fn metadata() -> impl Strategy<Value = WriterMetadata> {
    let declaration = (
        prop_oneof![
            Just(DataSource::Undefined),
            Just(DataSource::TransactedDb),
            Just(DataSource::NonTransactedDb),
            Just(DataSource::Other)
        ],
        any::<(u32, u32, u32)>(),
        proptest::option::of(restore_method()),
        proptest::collection::vec(location(), 0..3),
        proptest::collection::vec(file_set(), 0..3),
        proptest::collection::vec(file_set(), 0..3),
    )
        .prop_map(|(source, numbers, restore_method, alternate_locations, exclude_files, from_snapshot)| Declaration {
            source,
            version_major: numbers.0,
            version_minor: numbers.1,
            backup_schema: BackupSchema(numbers.2),
            restore_method,
            alternate_locations,
            exclude_files,
            exclude_files_from_snapshot: from_snapshot,
        });
    let usage = prop_oneof![
        Just(Usage::BootableSystemState),
        Just(Usage::SystemService),
        Just(Usage::UserData),
        Just(Usage::Other)
    ];
    let level = prop_oneof![Just(AppLevel::FrontEnd), Just(AppLevel::BackEnd), Just(AppLevel::System)];
    let components = proptest::collection::vec(component(), 0..4);
    (any::<(u128, u128)>(), (text(), text()), (usage, level), components, declaration, other()).prop_map(
        |(ids, names, (usage, level), components, declaration, other)| WriterMetadata {
            class_id: WriterClassId::from_u128(ids.0),
            instance_id: WriterInstanceId::from_u128(ids.1),
            name: names.0,
            instance_name: names.1,
            usage,
            level,
            components,
            declaration,
            other,
        },
    )
}

fn ranges() -> impl Strategy<Value = Ranges> {
    let range =
        any::<(u32, u32)>().prop_map(|(offset, length)| ByteRange { offset: offset.into(), length: length.into() });
    // The path of a ranges file is written without blanks at its ends: they are no part of one.
    let file = proptest::collection::vec(prop_oneof![Just(b'/'), Just(b'r'), Just(0xFFu8), Just(0x01u8)], 1..6);
    prop_oneof![
        proptest::collection::vec(range, 1..4).prop_map(Ranges::List),
        file.prop_map(|bytes| Ranges::File(PathBuf::from(OsString::from_vec([b"/", bytes.as_slice()].concat())))),
    ]
}

fn session_component() -> impl Strategy<Value = SessionComponent> {
    let texts = proptest::collection::vec(text(), 11);
    let lists = (
        proptest::collection::vec(name(), 0..2),
        proptest::collection::vec(location(), 0..2),
        proptest::collection::vec((file_set(), path()), 0..2),
        proptest::collection::vec((path(), some_text(), ranges(), text()), 0..2),
        proptest::collection::vec((file_set(), any::<u64>()), 0..2),
        proptest::collection::vec((ranges(), ranges(), path(), some_text()), 0..2),
    );
    let words = (
        prop_oneof![
            Just(RestoreTarget::Original),
            Just(RestoreTarget::Undefined),
            Just(RestoreTarget::Alternate),
            Just(RestoreTarget::Directed),
            Just(RestoreTarget::OriginalLocation)
        ],
        prop_oneof![
            Just(FileRestoreStatus::Undefined),
            Just(FileRestoreStatus::None),
            Just(FileRestoreStatus::All),
            Just(FileRestoreStatus::Failed)
        ],
        prop_oneof![
            Just(RollForward::Undefined),
            Just(RollForward::None),
            Just(RollForward::All),
            text().prop_map(RollForward::Partial)
        ],
        proptest::option::of((0..VssCode::ALL.len(), any::<u32>(), text())),
    );
    (name(), any::<[bool; 5]>(), any::<Option<bool>>(), texts, lists, words).prop_map(
        |(name, bits, backup_succeeded, mut texts, lists, words)| {
            let mut next = || texts.pop().unwrap_or_default();
            SessionComponent {
                kind: if bits[0] { ComponentKind::Database } else { ComponentKind::FileGroup },
                name,
                backup_succeeded,
                backup_options: next(),
                backup_stamp: next(),
                previous_backup_stamp: next(),
                backup_metadata: next(),
                restore_metadata: next(),
                restore_options: next(),
                selected_for_restore: bits[1],
                restore_subcomponents: lists.0,
                additional_restores: bits[2],
                restore_target: words.0,
                file_restore_status: words.1,
                roll_forward: words.2,
                restore_name: next(),
                authoritative_restore: bits[3],
                failure_messages: FailureMessages {
                    prepare_for_backup: next(),
                    post_snapshot: next(),
                    pre_restore: next(),
                    post_restore: next(),
                },
                failure: words.3.map(|(code, application_code, message)| ComponentFailure {
                    code: VssCode::ALL[code],
                    application_code,
                    message,
                }),
                alternate_locations: lists.1,
                new_targets: lists
                    .2
                    .into_iter()
                    .map(|(files, alternate_path)| NewTarget { files, alternate_path })
                    .collect(),
                directed_targets: lists
                    .5
                    .into_iter()
                    .map(|(source_ranges, destination_ranges, path, name)| DirectedTarget {
                        source_path: path.clone(),
                        source_file_name: name.clone(),
                        source_ranges,
                        destination_path: path,
                        destination_file_name: name,
                        destination_ranges,
                    })
                    .collect(),
                partial_files: lists
                    .3
                    .into_iter()
                    .map(|(path, file_name, ranges, metadata)| PartialFile { path, file_name, ranges, metadata })
                    .collect(),
                differenced_files: lists
                    .4
                    .into_iter()
                    .map(|(files, time)| DifferencedFiles { files, last_modified: FileTime(time) })
                    .collect(),
            }
        },
    )
}

fn session() -> impl Strategy<Value = BackupComponents> {
    let writer = (any::<(u128, u128, u32)>(), text(), proptest::collection::vec(session_component(), 0..3)).prop_map(
        |(numbers, name, components)| WriterComponents {
            instance_id: WriterInstanceId::from_u128(numbers.0),
            class_id: WriterClassId::from_u128(numbers.1),
            name,
            backup_schema: BackupSchema(numbers.2),
            components,
        },
    );
    let words = (
        prop_oneof![
            Just(BackupType::Full),
            Just(BackupType::Incremental),
            Just(BackupType::Differential),
            Just(BackupType::Log),
            Just(BackupType::Copy),
            Just(BackupType::Other)
        ],
        prop_oneof![
            Just(RestoreType::Undefined),
            Just(RestoreType::ByCopy),
            Just(RestoreType::Import),
            Just(RestoreType::Other)
        ],
    );
    (words, any::<[bool; 3]>(), any::<Option<u128>>(), proptest::collection::vec(writer, 0..3)).prop_map(
        |((backup_type, restore_type), bits, set_id, writers)| BackupComponents {
            state: BackupState {
                select_components: bits[0],
                bootable_system_state: bits[1],
                backup_type,
                partial_file_support: bits[2],
            },
            restore_type,
            set_id: set_id.map(SetId::from_u128),
            writers,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn metadata_comes_back(metadata in metadata()) {
        let document = WriterMetadataDocument::new(&metadata).unwrap();
        let read = WriterMetadataDocument::parse(&document.document().to_bytes()).unwrap();
        prop_assert_eq!(read.content(), &metadata);
        prop_assert_eq!(read.remarks(), (&[][..], 0));
        prop_assert_eq!(difference(read.document(), document.document()), None);
    }

    #[test]
    fn a_session_comes_back(session in session()) {
        let document = BackupComponentsDocument::new(&session).unwrap();
        let read = BackupComponentsDocument::parse(&document.document().to_bytes()).unwrap();
        prop_assert_eq!(read.content(), &session);
        prop_assert_eq!(read.remarks(), (&[][..], 0));
    }

    /// Whatever one document becomes the other, and back: it says so, and nothing of it is left.
    #[test]
    fn any_change_of_metadata_arrives(one in metadata(), other in metadata()) {
        let mut document = WriterMetadataDocument::new(&one).unwrap();
        document.set_content(&other).unwrap();
        let read = WriterMetadataDocument::parse(&document.document().to_bytes()).unwrap();
        prop_assert_eq!(sorted(read.content().clone()), sorted(other));
    }

    #[test]
    fn any_change_of_a_session_arrives(one in session(), other in session()) {
        let mut document = BackupComponentsDocument::parse(&BackupComponentsDocument::new(&one).unwrap().document().to_bytes()).unwrap();
        document.set_content(&other).unwrap();
        document.set_content(&one).unwrap();
        prop_assert_eq!(document.content(), &one);
    }
}

/// Without the orders that a change of a document does not make.
fn sorted(mut metadata: WriterMetadata) -> WriterMetadata {
    fn sort<T: std::fmt::Debug>(list: &mut [T]) {
        list.sort_by_key(|one| format!("{one:?}"));
    }
    for component in &mut metadata.components {
        sort(&mut component.files);
        sort(&mut component.log_files);
        sort(&mut component.dependencies);
    }
    sort(&mut metadata.components);
    sort(&mut metadata.declaration.alternate_locations);
    sort(&mut metadata.declaration.exclude_files);
    sort(&mut metadata.declaration.exclude_files_from_snapshot);
    metadata
}

const WITH_UNKNOWN: &str = "<!-- kept --><WRITER_METADATA xmlns=\"x-schema:#VssWriterMetadataInfo\" version=\"1.2\" \
    colour='red'>\n  <IDENTIFICATION writerId=\"d61d61c8-d73a-4eee-8cdd-f6f9786b7124\" \
    instanceId=\"1bddd48e-5052-49db-9b07-b96f96727e6b\" friendlyName='w' usage=\"USER_DATA\" dataSource=\"OTHER\"/>\n  \
    <BACKUP_LOCATIONS>\n    <PAINT/>\n    <FILE_GROUP componentName='a' selectable=\"yes\" weight = '3'>\n      \
    <FILE_LIST path=\"/a\" filespec=\"*\" depth='2'/><!-- here -->\n      <LABEL>text &amp; more</LABEL>\n    \
    </FILE_GROUP>\n    <FILE_GROUP componentName='b' selectable=\"yes\"/>\n  </BACKUP_LOCATIONS>\n</WRITER_METADATA>\n";

#[test]
fn a_change_keeps_what_is_not_known_in_its_place() {
    let mut document = WriterMetadataDocument::parse(WITH_UNKNOWN.as_bytes()).unwrap();
    assert_eq!(document.remarks().0.len(), 5);
    let mut metadata = document.content().clone();
    metadata.components[0].files[0].recursive = true;
    metadata.components[0].caption = Some("A & B".to_owned());
    metadata.components[0].files.push(FileSpec::below("/new"));
    metadata.components.remove(1);
    metadata.components.insert(0, Component::file_group("first").build().unwrap());
    document.set_content(&metadata).unwrap();
    let text = document.document().to_text();
    let wanted = WITH_UNKNOWN
        .replace(
            "<FILE_GROUP componentName='a' selectable=\"yes\" weight = '3'>",
            "<FILE_GROUP componentName=\"first\" restoreMetadata=\"no\" notifyOnBackupComplete=\"no\" selectable=\"yes\" \
             selectableForRestore=\"no\" componentFlags=\"0\"/>\
             <FILE_GROUP componentName='a' selectable=\"yes\" weight='3' caption=\"A &amp; B\">",
        )
        .replace(
            "<FILE_LIST path=\"/a\" filespec=\"*\" depth='2'/>",
            "<FILE_LIST path=\"/a\" filespec=\"*\" depth='2' recursive=\"yes\"/>\
             <FILE_LIST path=\"/new\" filespec=\"*\" recursive=\"yes\" filespecBackupType=\"3855\"/>",
        )
        .replace("<FILE_GROUP componentName='b' selectable=\"yes\"/>", "");
    assert_eq!(text, wanted);
    assert_eq!(WriterMetadataDocument::parse(text.as_bytes()).unwrap().content(), &metadata);
}

#[test]
fn a_list_that_is_left_out_appears_with_its_first_entry() {
    let begin = WITH_UNKNOWN.find("  <BACKUP_LOCATIONS>").unwrap();
    let end = WITH_UNKNOWN.find("</WRITER_METADATA>").unwrap();
    let without = format!("{}{}", &WITH_UNKNOWN[..begin], &WITH_UNKNOWN[end..]);
    let mut document = WriterMetadataDocument::parse(without.as_bytes()).unwrap();
    let mut metadata = document.content().clone();
    document.set_content(&metadata).unwrap();
    assert_eq!(document.document().to_text(), without);
    metadata.components.push(Component::file_group("first").build().unwrap());
    document.set_content(&metadata).unwrap();
    assert!(document.document().to_text().contains("<BACKUP_LOCATIONS><FILE_GROUP componentName=\"first\""));
}

#[test]
fn what_could_not_be_read_back_is_not_written() {
    let metadata = WriterMetadataDocument::parse(WITH_UNKNOWN.as_bytes()).unwrap().content().clone();
    let mut wrong = metadata.clone();
    wrong.components[0].name.name.clear();
    assert!(WriterMetadataDocument::new(&wrong).is_err());
    let mut document = WriterMetadataDocument::new(&metadata).unwrap();
    document.set_content(&wrong).unwrap_err();
    assert_eq!(document.content(), &metadata);
}
