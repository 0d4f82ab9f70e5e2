//! What the fuzzer begins with, made by our own types: `seeds TARGET DIRECTORY` writes one file for each.

use serde_json::{Value, json};
use std::path::Path;
use vss_api::requester as r;
use vss_documents::{BackupComponentsDocument, WriterMetadataDocument};
use vss_model::{
    BackupComponents, BackupSchema, BackupState, Component, ComponentFlags, ComponentName, Declaration,
    DifferencedFiles, FileBackupMask, FileSpec, FileTime, PartialFile, Ranges, RestoreMethod, RestoreMethodKind, SetId,
    WriterClassId, WriterInstanceId, WriterMetadata, WriterRestore,
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [target, directory] = arguments.as_slice() else { panic!("seeds TARGET DIRECTORY") };
    let seeds = match target.as_str() {
        "documents" => documents(),
        "calls" => calls(),
        "replies" => replies(),
        other => panic!("there is no target {other}"),
    };
    std::fs::create_dir_all(directory).expect("the directory");
    for (number, seed) in seeds.iter().enumerate() {
        std::fs::write(Path::new(directory).join(format!("seed-{number}")), seed).expect("a seed");
    }
}

fn components() -> Vec<Component> {
    let built = |claim: vss_model::Claim| claim.build().expect("a component");
    vec![
        built(
            Component::database("orders")
                .logical_path("europe")
                .caption("Orders & <more>\n")
                .files(FileSpec::directly_in("/srv/db").matching("*.db").needed_in(FileBackupMask(0x0F0B)))
                .log_files(FileSpec::below("/srv/wal"))
                .flags(ComponentFlags::BACKUP_RECOVERY),
        ),
        built(
            Component::file_group("files")
                .not_selectable()
                .selectable_for_restore()
                .files(FileSpec::below("/srv/files").read_from("/srv/spit"))
                .depends_on(WriterClassId::from_u128(7), ComponentName::new("x", "y")),
        ),
    ]
}

fn declaration() -> Declaration {
    let set = FileSpec::directly_in("/srv/db").matching("*.db").file_set();
    Declaration {
        version_major: 1,
        backup_schema: BackupSchema(0x1B),
        restore_method: Some(RestoreMethod {
            method: RestoreMethodKind::StopRestoreStart,
            service: Some("shop.service".to_owned()),
            writer_restore: WriterRestore::Always,
            ..RestoreMethod::default()
        }),
        alternate_locations: vec![vss_model::AlternateLocation { files: set.clone(), alternate_path: "/alt".into() }],
        exclude_files: vec![set.clone()],
        exclude_files_from_snapshot: vec![set],
        ..Declaration::default()
    }
}

fn metadata() -> WriterMetadata {
    let identity = vss_api::writer::Identity::of(components()).declaring(declaration());
    let register = vss_api::writer::Register::new(WriterClassId::from_u128(1), "shop");
    register.metadata(WriterInstanceId::from_u128(2), identity)
}

fn session() -> BackupComponents {
    let mut session = BackupComponents::of(BackupState { select_components: true, ..BackupState::default() });
    session.set_id = Some(SetId::from_u128(3));
    let metadata = metadata();
    let name = metadata.components[0].name.clone();
    let component = session.add(&metadata, &name).expect("a component");
    component.backup_succeeded = Some(true);
    component.backup_stamp = "42".to_owned();
    component.partial_files = vec![PartialFile {
        path: "/srv/db".into(),
        file_name: "a.db".to_owned(),
        ranges: Ranges::parse("0:4096, 0x2000:1").expect("ranges"),
        metadata: "m".to_owned(),
    }];
    component.differenced_files = vec![DifferencedFiles {
        files: FileSpec::below("/srv/wal").file_set(),
        last_modified: FileTime(133_444_736_000_000_000),
    }];
    session
}

fn documents() -> Vec<Vec<u8>> {
    let of_writer = WriterMetadataDocument::new(&metadata()).expect("metadata").document().to_bytes();
    let of_session = BackupComponentsDocument::new(&session()).expect("a session").document().to_bytes();
    let manifest = "<Manifest ><ShadowCopySet GUID = '{00000000-0000-0000-0000-000000000003}' MachineName = 'm' \
        ><ShadowCopy GUID = '{00000000-0000-0000-0000-000000000004}' OriginalVolume = '/' ></ShadowCopy></ShadowCopySet>\
        <BackupComponents File = 'b.xml' ></BackupComponents><Writers Count = '1' ><Writer Name = 'a%sb' MetadataFile = \
        'w.xml' ></Writer></Writers></Manifest>";
    let unknown = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- c --><a xmlns:p='u' p:b='&#x41;&lt;'>\n<![CDATA[x]]><c/>\
        <?pi x?> text &amp; more</a>\n";
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    vec![of_writer, of_session, manifest.into(), utf16(manifest), unknown.into()]
}

/// A message with its NUL, behind the byte that chooses the socket.
fn message(face: u8, value: &Value) -> Vec<u8> {
    [&[face], value.to_string().as_bytes(), &[0]].concat()
}

fn calls() -> Vec<Vec<u8>> {
    let call = |call: r::Call| message(0, &serde_json::to_value(call).expect("a call"));
    let component = r::ComponentReference {
        instance_id: WriterInstanceId::from_u128(2),
        class_id: WriterClassId::from_u128(1),
        kind: vss_model::ComponentKind::Database,
        logical_path: "europe".to_owned(),
        name: "orders".to_owned(),
    };
    let mut seeds = vec![
        call(r::Call::InitializeForBackup(r::InitializeForBackup { requester: "fuzz".to_owned() })),
        call(r::Call::SetBackupState(r::SetBackupState { state: BackupState::default() })),
        call(r::Call::AddComponent(component)),
        call(r::Call::AddToSnapshotSet(r::VolumeQuestion { volume: "/srv".into(), provider: None })),
        call(r::Call::StartSnapshotSet(vss_model::CreationOptions::default())),
        message(0, &json!({"method": "org.varlink.service.GetInfo"})),
        message(
            0,
            &json!({"method": "org.varlink.service.GetInterfaceDescription", "parameters": {"interface": "org.linuxvss.Requester"}}),
        ),
        message(0, &json!({"method": "org.linuxvss.Management.Check", "parameters": {"paths": ["/srv"]}})),
        message(0, &json!({"method": "org.linuxvss.Management.DeleteShadows", "parameters": {}, "oneway": true})),
        message(0, &json!({"method": "org.linuxvss.Management.ListShadows", "more": true})),
    ];
    let register = vss_api::writer::Register::new(WriterClassId::from_u128(1), "shop");
    let register = vss_api::writer::Call::Register(register);
    let mut register = serde_json::to_value(register).expect("a call");
    register["upgrade"] = json!(true);
    seeds.push(message(1, &register));
    seeds
}

fn replies() -> Vec<Vec<u8>> {
    let identity = vss_api::writer::Identity::of(components()).declaring(declaration());
    let failed = json!({"state": "FAILED_AT_FREEZE", "code": "VSS_E_WRITERERROR_TIMEOUT", "message": "m",
        "components": [{"name": "orders", "logical_path": "europe", "code": "VSS_E_WRITERERROR_RETRYABLE"}]});
    let event = json!({"method": "org.linuxvss.Writer.Freeze", "parameters": {
        "session_id": "0f2fb4c9-3d38-4b8e-8a4e-9f0c3d2f3f77", "set_id": null, "context": "backup", "backup_state": {},
        "components": [{"logical_path": "europe", "name": "orders"}], "volumes": [{"volume": "/srv", "volume_id": "btrfs:u:5",
        "shadow_id": "056299bf-f98d-4555-983b-faf7772b220e", "provider": "btrfs", "cut_group": 0}], "time_left_ms": 5}});
    let messages = [
        json!({"parameters": serde_json::to_value(identity).expect("an identity")}),
        json!({"parameters": {}}),
        json!({"parameters": failed}),
        json!({"error": "org.linuxvss.Writer.VssError", "parameters": {"name": "E_INVALIDARG", "code": 2_147_942_487_u32,
            "message": "m", "hint": ""}}),
        json!({"parameters": {"components": [{"name": "a", "files": [{"path": "/srv", "new": [1, 2.5, null]}]}], "later": {}}}),
        event,
    ];
    messages.iter().map(|message| message.to_string().into_bytes()).collect()
}
