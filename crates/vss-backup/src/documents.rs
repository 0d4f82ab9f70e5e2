//! The documents of a backup (spec R 5): one Backup Components Document, and a Writer Metadata Document for each writer.

use crate::directory::BackupDirectory;
use crate::failure::{DAMAGED, reading, writing};
use std::collections::BTreeMap;
use std::io;
use vss_documents::BackupComponentsDocument;
use vss_model::{BackupComponents, VssCode, VssError, WriterInstanceId};

/// The Backup Components Document.
pub const BACKUP_COMPONENTS: &str = "backup-components.xml";

/// Keeps the documents with a backup that is not whole yet: as the service gave them, each by the writer that it is of.
///
/// # Errors
/// They cannot be written.
pub fn write(
    directory: &BackupDirectory,
    documents: &BTreeMap<Option<WriterInstanceId>, Vec<u8>>,
) -> Result<(), VssError> {
    // A run before may have had other writers.
    match std::fs::remove_dir_all(directory.documents()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(writing(&directory.documents(), &error)),
        _ => {}
    }
    for (writer, text) in documents {
        let name = writer.map_or_else(|| BACKUP_COMPONENTS.to_owned(), |writer| format!("writer-{writer}.xml"));
        directory.write_document(&name, text)?;
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
    parse(&bytes).map(Some).map_err(|error| error.while_doing(path.display()).with_hint(DAMAGED))
}

/// What a Backup Components Document says.
///
/// # Errors
/// `VSS_E_CORRUPT_XML_DOCUMENT` when it is damaged.
pub fn parse(text: &[u8]) -> Result<BackupComponents, VssError> {
    let document = BackupComponentsDocument::parse(text).map_err(|error| {
        VssError::new(VssCode::CorruptXmlDocument, format!("The Backup Components Document is damaged: {error}"))
    })?;
    Ok(document.content().clone())
}
