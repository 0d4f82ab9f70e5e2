//! The documents of a backup (spec R 5): one Backup Components Document, and a Writer Metadata Document for each writer.

use crate::directory::BackupDirectory;
use crate::failure::{reading, writing};
use std::io;
use vss_documents::{BackupComponentsDocument, DocumentError, WriterMetadataDocument};
use vss_model::{BackupComponents, VssCode, VssError, WriterMetadata};

/// The Backup Components Document.
pub const BACKUP_COMPONENTS: &str = "backup-components.xml";

/// Keeps the documents with a backup that is not whole yet.
///
/// # Errors
/// They cannot be written; `VSS_E_INVALID_XML_DOCUMENT` for something that no document can say.
pub fn write(
    directory: &BackupDirectory,
    components: &BackupComponents,
    writers: &[WriterMetadata],
) -> Result<(), VssError> {
    let of = |what: &str, error: DocumentError| {
        VssError::new(VssCode::InvalidXmlDocument, format!("The document of {what} cannot be written: {error}"))
    };
    // A run before may have had other writers.
    match std::fs::remove_dir_all(directory.documents()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(writing(&directory.documents(), &error)),
        _ => {}
    }
    let document = BackupComponentsDocument::new(components).map_err(|error| of("the backup", error))?;
    directory.write_document(BACKUP_COMPONENTS, &document.document().to_bytes())?;
    for writer in writers {
        let document =
            WriterMetadataDocument::new(writer).map_err(|error| of(&format!("writer {}", writer.name), error))?;
        directory.write_document(&format!("writer-{}.xml", writer.instance_id), &document.document().to_bytes())?;
    }
    Ok(())
}

/// What the Backup Components Document of a whole backup says; none when it was made without writers.
///
/// # Errors
/// It cannot be read; `VSS_E_CORRUPT_XML_DOCUMENT` when it is damaged.
pub fn read(directory: &BackupDirectory) -> Result<Option<BackupComponents>, VssError> {
    let path = directory.documents().join(BACKUP_COMPONENTS);
    let bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(|error| reading(&path, &error))?,
    };
    let document = BackupComponentsDocument::parse(&bytes).map_err(|error| {
        VssError::new(VssCode::CorruptXmlDocument, format!("{} is damaged: {error}", path.display()))
    })?;
    Ok(Some(document.components().clone()))
}
