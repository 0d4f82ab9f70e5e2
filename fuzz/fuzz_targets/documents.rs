//! Documents: any bytes. What is read is written as it was, says the same when it is made anew, and stays as it is when it is
//! changed to what it says.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vss_documents::{BackupComponentsDocument, Document, Manifest, WriterMetadataDocument, difference, limits};

fuzz_target!(|bytes: &[u8]| {
    let document = match Document::parse(bytes) {
        Ok(document) => document,
        Err(error) => {
            assert!(error.position.line >= 1 && error.position.column >= 1 && error.message.len() < 2048, "{error}");
            return;
        }
    };
    let written = document.to_bytes();
    assert!(written == bytes, "not written as it was");
    let again = Document::parse(&written).expect("it was read before");
    assert_eq!(difference(&document, &again), None);
    if let Ok(mut read) = WriterMetadataDocument::of(document.clone()) {
        assert!(read.remarks().0.len() <= limits::REMARKS);
        let metadata = read.content().clone();
        let ours = WriterMetadataDocument::new(&metadata).expect("it was read before");
        let ours = WriterMetadataDocument::parse(&ours.document().to_bytes()).expect("we wrote it");
        assert_eq!(ours.content(), &metadata);
        read.set_content(&metadata).expect("nothing is changed");
        assert!(read.document().to_bytes() == bytes, "a change to the same changes it");
    }
    if let Ok(mut read) = BackupComponentsDocument::of(document.clone()) {
        let components = read.content().clone();
        let ours = BackupComponentsDocument::new(&components).expect("it was read before");
        let ours = BackupComponentsDocument::parse(&ours.document().to_bytes()).expect("we wrote it");
        assert_eq!(ours.content(), &components);
        read.set_content(&components).expect("nothing is changed");
        assert!(read.document().to_bytes() == bytes, "a change to the same changes it");
    }
    // Only read.
    let _ = Manifest::of(&document);
});
