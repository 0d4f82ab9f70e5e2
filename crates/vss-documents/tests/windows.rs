//! Every document that Windows wrote is read, says what is in it, and is written again as it was. They lie in the directory
//! that VSS_TESTDATA names; without it the tests say that they were skipped.

use std::path::PathBuf;
use vss_documents::{
    AnyDocument, BackupComponentsDocument, Document, Encoding, Manifest, WriterMetadataDocument, difference,
};
use vss_model::{
    BackupComponents, BackupSchema, BackupType, ComponentKind, ComponentName, FileBackupMask, RestoreMethodKind, Usage,
    WriterRestore, selection,
};

/// The documents and their bytes; none without test data.
fn documents() -> Option<Vec<(String, Vec<u8>)>> {
    let Some(directory) = std::env::var_os("VSS_TESTDATA") else {
        let thread = std::thread::current();
        println!("SKIPPED: {}: VSS_TESTDATA is not set", thread.name().unwrap_or("windows"));
        return None;
    };
    let directory = PathBuf::from(directory).join("windows/documents");
    let mut found: Vec<(String, Vec<u8>)> = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap())
        })
        .filter(|(name, _)| name.ends_with(".xml"))
        .collect();
    found.sort();
    assert!(found.len() >= 13, "only {} documents in {}", found.len(), directory.display());
    Some(found)
}

fn document(name: &str) -> Option<Vec<u8>> {
    documents()?.into_iter().find(|(other, _)| other == name).map(|(_, bytes)| bytes)
}

fn metadata(name: &str) -> Option<WriterMetadataDocument> {
    Some(WriterMetadataDocument::parse(&document(name)?).unwrap())
}

#[test]
fn every_document_is_written_as_it_was_byte_by_byte() {
    for (name, bytes) in documents().unwrap_or_default() {
        let read = Document::parse(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(read.to_bytes() == bytes, "{name}");
        let again = Document::parse(&read.to_bytes()).unwrap();
        assert_eq!(difference(&read, &again), None, "{name}");
    }
}

#[test]
fn every_document_is_known_to_the_last_attribute() {
    for (name, bytes) in documents().unwrap_or_default() {
        let (remarks, unsaid) = match AnyDocument::parse(&bytes).unwrap_or_else(|error| panic!("{name}: {error}")) {
            AnyDocument::WriterMetadata(it) => (it.remarks().0.to_vec(), it.remarks().1),
            AnyDocument::BackupComponents(it) => (it.remarks().0.to_vec(), it.remarks().1),
            AnyDocument::Manifest(_) => continue,
        };
        assert_eq!((remarks, unsaid), (vec![], 0), "{name}");
    }
}

/// A document of our own from what it says is equal to that of Windows, but for the case of GUIDs, the order of the parts of
/// the root, and what is left out because it is the default.
#[test]
fn what_we_write_of_the_same_is_equal() {
    let Some(documents) = documents() else { return };
    for (name, bytes) in documents {
        match AnyDocument::parse(&bytes).unwrap() {
            AnyDocument::WriterMetadata(read) => {
                let ours = WriterMetadataDocument::new(read.content()).unwrap();
                assert_eq!(ours.content(), read.content(), "{name}");
                // The smallest in whose elements nothing is left out.
                if ["WM1.xml", "WM2.xml", "WM7.xml", "WM10.xml"].contains(&name.as_str()) {
                    let text = String::from_utf8(bytes).unwrap();
                    let theirs = text.replace("75DFB225-E2E4-4d39", "75dfb225-e2e4-4d39");
                    let theirs = theirs.replace("9AC9-FFAFF65DDF06", "9ac9-ffaff65ddf06");
                    let theirs =
                        theirs.replace("088E7A7D-09A8-4cc6-A609-AD90E75DDC93", "088e7a7d-09a8-4cc6-a609-ad90e75ddc93");
                    let theirs = Document::parse(theirs.as_bytes()).unwrap();
                    assert_eq!(difference(&theirs, ours.document()), None, "{name}");
                }
            }
            AnyDocument::BackupComponents(read) => {
                let ours = BackupComponentsDocument::new(read.content()).unwrap();
                assert_eq!(ours.content(), read.content());
                assert_eq!(difference(read.document(), ours.document()), None, "{name}");
                assert_eq!(ours.document().to_text(), String::from_utf8(bytes).unwrap(), "{name}");
            }
            AnyDocument::Manifest(_) => {}
        }
    }
}

#[test]
fn writers_say_what_windows_says_of_them() {
    let Some(sql) = metadata("WM5.xml") else { return };
    let sql = sql.content();
    assert_eq!((sql.name.as_str(), sql.usage), ("SqlServerWriter", Usage::UserData));
    assert_eq!(sql.instance_name, "Microsoft SQL Server 2017:SQLWriter");
    assert_eq!(sql.declaration.backup_schema, BackupSchema(881));
    let method = sql.declaration.restore_method.as_ref().unwrap();
    assert_eq!(method.method, RestoreMethodKind::RestoreIfCanReplace);
    assert_eq!(method.writer_restore, WriterRestore::Always);
    let master = sql.component(&ComponentName::new("WIN2012-SQL17-2", "master")).unwrap();
    assert!(master.kind == ComponentKind::FileGroup && master.notify_on_backup_complete && master.flags.0 == 2);
    assert_eq!(master.files[1].pattern, "mastlog.ldf");
    assert_eq!(master.files[1].backup_type_mask, FileBackupMask::default());
    let asr = metadata("WM4.xml").unwrap();
    let caption = asr.content().components[1].caption.clone().unwrap();
    assert_eq!(caption.lines().count(), 2, "{caption:?}");
    let optimization = metadata("WM6.xml").unwrap();
    assert_eq!(optimization.content().declaration.exclude_files_from_snapshot.len(), 17);
    assert!(optimization.content().declaration.restore_method.is_none());
    let system = metadata("WM3.xml").unwrap();
    let files: usize = system.content().components.iter().map(|one| one.files.len()).sum();
    assert_eq!(files, 18_925);
}

#[test]
fn the_selection_rules_choose_what_windows_chose() {
    let Some(bytes) = document("BCDocument.xml") else { return };
    let session = BackupComponentsDocument::parse(&bytes).unwrap();
    let BackupComponents { state, set_id, writers, .. } = session.content();
    assert!(state.select_components && state.bootable_system_state && state.backup_type == BackupType::Full);
    assert_eq!(set_id.unwrap().to_string(), "e109943b-232e-4b52-8dc4-62b7de94761b");
    assert_eq!(writers.len(), 7);
    let mut compared = 0;
    for (name, bytes) in documents().unwrap() {
        let Ok(AnyDocument::WriterMetadata(read)) = AnyDocument::parse(&bytes) else { continue };
        let metadata = read.content();
        let Some(in_session) = writers.iter().find(|writer| writer.class_id == metadata.class_id) else { continue };
        let explicit: Vec<&ComponentName> = in_session.components.iter().map(|one| &one.name).collect();
        assert_eq!(in_session.instance_id, metadata.instance_id);
        assert_eq!(selection::choose(&metadata.components, |_| false), explicit, "{name}");
        compared += 1;
    }
    assert_eq!(compared, 7);
}

#[test]
fn the_manifest_of_a_cabinet_is_read_in_utf_16() {
    let Some(bytes) = document("Manifest.xml") else { return };
    let with_mark = [&[0xFF, 0xFE], bytes.as_slice()].concat();
    let big_endian: Vec<u8> = with_mark.chunks_exact(2).flat_map(|unit| [unit[1], unit[0]]).collect();
    for (bytes, encoding) in
        [(bytes, Encoding::Utf16Le), (with_mark, Encoding::Utf16Le), (big_endian, Encoding::Utf16Be)]
    {
        let document = Document::parse(&bytes).unwrap();
        assert!(document.encoding() == encoding && document.to_bytes() == bytes);
        let manifest = Manifest::of(&document).unwrap();
        assert_eq!(manifest.machine, "WIN2012-SQL17-2");
        assert_eq!((manifest.shadows.len(), manifest.shadows[0].volume.as_str()), (1, "C:\\"));
        assert_eq!((manifest.writers.len(), manifest.writers[0].name.as_str()), (11, "Task Scheduler Writer"));
        assert_eq!(manifest.backup_components, "BCDocument.xml");
        assert_eq!(manifest.aliases[1].name, "VSS_SHADOW_SET");
        assert_eq!(manifest.aliases[1].value, format!("{{{}}}", manifest.set_id));
    }
}

#[test]
fn a_change_of_what_windows_wrote_leaves_the_rest_alone() {
    let Some(mut document) = metadata("WM8.xml") else { return };
    let before = document.document().to_text();
    document.set_content(&document.content().clone()).unwrap();
    assert_eq!(document.document().to_text(), before, "nothing was changed");
    let mut metadata = document.content().clone();
    metadata.components[0].selectable = true;
    document.set_content(&metadata).unwrap();
    assert_eq!(document.document().to_text(), before.replacen("selectable=\"no\"", "selectable=\"yes\"", 1));
}
