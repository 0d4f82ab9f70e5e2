//! What a writer may answer, and what a service may call a writer with: one message. What a writer says that it owns is also
//! checked and written as a document, which must say the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vss_api::fuzzing;
use vss_api::writer::Register;
use vss_documents::WriterMetadataDocument;
use vss_model::{WriterClassId, WriterInstanceId};

fuzz_target!(|bytes: &[u8]| {
    fuzzing::event(bytes);
    let Some(identity) = fuzzing::reply(bytes) else { return };
    let register = Register::new(WriterClassId::from_u128(1), "fuzz");
    let metadata = register.metadata(WriterInstanceId::from_u128(2), identity);
    if metadata.check().is_err() {
        return;
    }
    let document = WriterMetadataDocument::new(&metadata).expect("it was checked");
    let read = WriterMetadataDocument::parse(&document.document().to_bytes()).expect("we wrote it");
    assert_eq!(read.content(), &metadata);
});
