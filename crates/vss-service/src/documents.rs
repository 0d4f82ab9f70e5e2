//! The documents of finished sets (spec R 5, design 7): which there are, and their files beside the catalogue.
//!
//! ```text
//! STATE/documents/SET/backup-components.xml    what the session says of the components in the backup
//!                     writer-INSTANCE.xml      what one writer says of itself
//! ```
//!
//! They are written before the catalogue's transaction makes the set, and removed after the one that takes it away: what a
//! crash in between leaves has no set, and goes at the next start. A file is replaced as a whole, never changed, so whoever
//! has opened one reads what it was. The catalogue keeps the list ([`KeptDocument`]).

use crate::fault;
use crate::writers::{SessionWriter, SessionWriters};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use vss_documents::{BackupComponentsDocument, DocumentError, WriterMetadataDocument, limits as of_one};
use vss_model::backup_components::{ComponentFailure, WriterComponents};
use vss_model::{
    BackupComponents, BackupState, Component, SessionComponent, SetId, VssCode, VssError, WriterClassId,
    WriterInstanceId, WriterMetadata, limits,
};

/// One document of a finished set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptDocument {
    /// The writer that it is of; none for the Backup Components Document.
    pub writer: Option<DocumentWriter>,
    /// Why it could not be kept; none when it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<VssError>,
}

/// The writer of a Writer Metadata Document, as it was at the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentWriter {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub class_id: WriterClassId,
    /// The running writer.
    pub instance_id: WriterInstanceId,
}

/// What the Backup Components Document of this set says: the components that the backup concerns, by writer.
#[must_use]
pub fn backup_components(set_id: SetId, state: BackupState, writers: &SessionWriters) -> BackupComponents {
    let of = |writer: &SessionWriter| WriterComponents {
        instance_id: writer.metadata.instance_id,
        class_id: writer.metadata.class_id,
        name: writer.metadata.name.clone(),
        backup_schema: writer.metadata.declaration.backup_schema,
        components: writer
            .metadata
            .components
            .iter()
            .filter(|component| writer.components.contains(&component.name))
            .map(|component| session_component(writer, component))
            .collect(),
    };
    BackupComponents {
        set_id: Some(set_id),
        writers: writers.involved().map(of).collect(),
        ..BackupComponents::of(state)
    }
}

fn session_component(writer: &SessionWriter, component: &Component) -> SessionComponent {
    let name = &component.name;
    let words = writer.words.get(name).cloned().unwrap_or_default();
    let data = writer.data.get(name).cloned().unwrap_or_default();
    let failure = writer.component_failures.get(name).map(|failure| ComponentFailure {
        code: failure.code,
        application_code: writer.status().application_code.unwrap_or_default(),
        message: failure.message.clone(),
    });
    SessionComponent {
        kind: component.kind,
        name: name.clone(),
        backup_succeeded: writer.backed_up.get(name).copied(),
        backup_options: words.backup_options,
        previous_backup_stamp: words.previous_backup_stamp,
        backup_stamp: data.backup_stamp.unwrap_or_default(),
        backup_metadata: data.backup_metadata.unwrap_or_default(),
        partial_files: data.partial_files,
        differenced_files: data.differenced_files,
        failure,
        ..SessionComponent::default()
    }
}

/// The bytes of the Backup Components Document.
///
/// # Errors
/// `VSS_E_INVALID_XML_DOCUMENT` for what no document can say, `E_OUTOFMEMORY` when it is longer than any may be.
pub fn backup_components_bytes(components: &BackupComponents) -> Result<Vec<u8>, VssError> {
    let document = BackupComponentsDocument::new(components).map_err(|error| unsaid("the backup", &error))?;
    bounded("the backup", document.document().to_bytes())
}

/// The bytes of the Writer Metadata Document of one writer.
///
/// # Errors
/// As [`backup_components_bytes`].
pub fn writer_metadata_bytes(metadata: &WriterMetadata) -> Result<Vec<u8>, VssError> {
    let of = format!("writer {}", metadata.name);
    let document = WriterMetadataDocument::new(metadata).map_err(|error| unsaid(&of, &error))?;
    bounded(&of, document.document().to_bytes())
}

fn unsaid(of: &str, error: &DocumentError) -> VssError {
    VssError::new(VssCode::InvalidXmlDocument, format!("The document of {of} cannot be written: {error}"))
}

fn bounded(of: &str, bytes: Vec<u8>) -> Result<Vec<u8>, VssError> {
    if bytes.len() <= of_one::DOCUMENT_BYTES {
        return Ok(bytes);
    }
    let message = format!("The document of {of} has {} bytes; one may have {}", bytes.len(), of_one::DOCUMENT_BYTES);
    Err(VssError::new(VssCode::OutOfMemory, message))
}

/// The files of the documents.
#[derive(Debug)]
pub struct Documents {
    directory: PathBuf,
    /// A document is looked through by one caller at a time: its tree takes many times its own bytes of memory.
    looking: Mutex<()>,
}

impl Documents {
    /// Those of this state directory. Touches nothing.
    #[must_use]
    pub fn new(state_directory: &Path) -> Self {
        Self { directory: state_directory.join("documents"), looking: Mutex::default() }
    }

    /// Writes the documents of a set that is about to be recorded. One that no document can say, or that there is no room
    /// for, is listed with its failure: the copies are worth more.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when the state directory cannot be written to; nothing is left then.
    pub fn write(
        &self,
        set_id: SetId,
        components: &BackupComponents,
        writers: &[WriterMetadata],
    ) -> Result<Vec<KeptDocument>, VssError> {
        let written = self.write_all(set_id, components, writers);
        written.map_err(|error| {
            self.remove(set_id);
            failed("write", &self.of(set_id), &error)
        })
    }

    fn write_all(
        &self,
        set_id: SetId,
        components: &BackupComponents,
        writers: &[WriterMetadata],
    ) -> io::Result<Vec<KeptDocument>> {
        let directory = self.of(set_id);
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let mut room = limits::DOCUMENTS_PER_SET;
        let mut keep = |writer: Option<DocumentWriter>, bytes: Result<Vec<u8>, VssError>| -> io::Result<KeptDocument> {
            let bytes = bytes.and_then(|bytes| match bytes.len() <= room {
                true => Ok(bytes),
                false => Err(no_room(bytes.len())),
            });
            let failure = match bytes {
                Ok(bytes) => {
                    room -= bytes.len();
                    let name = file_name(writer.as_ref().map(|writer| writer.instance_id));
                    replace(&directory.join(name), &bytes)?;
                    None
                }
                Err(failure) => {
                    tracing::warn!(%set_id, %failure, "a document of the set is not kept");
                    Some(failure)
                }
            };
            Ok(KeptDocument { writer, failure })
        };
        let mut kept = vec![keep(None, backup_components_bytes(components))?];
        for metadata in writers {
            let writer = DocumentWriter {
                name: metadata.name.clone(),
                class_id: metadata.class_id,
                instance_id: metadata.instance_id,
            };
            kept.push(keep(Some(writer), writer_metadata_bytes(metadata))?);
        }
        for directory in [&directory, &self.directory] {
            File::open(directory)?.sync_all()?;
        }
        Ok(kept)
    }

    /// Writes the Backup Components Document of a recorded set anew, if it says something else now.
    ///
    /// # Errors
    /// Those of [`backup_components_bytes`]; `VSS_E_UNEXPECTED` when it cannot be written. The earlier one stays.
    pub fn renew(&self, set_id: SetId, components: &BackupComponents) -> Result<(), VssError> {
        let bytes = backup_components_bytes(components)?;
        let path = self.of(set_id).join(file_name(None));
        let renew = || -> io::Result<()> {
            // Of a set that is gone, or whose document there was no room for, there is nothing to renew.
            match fs::read(&path) {
                Ok(before) if before == bytes => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                before => before?,
            };
            replace(&path, &bytes)?;
            File::open(self.of(set_id))?.sync_all()
        };
        match renew() {
            // It was deleted meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            renewed => renewed.map_err(|error| failed("write", &path, &error)),
        }
    }

    /// Bytes of a kept document: of this writer, or with none the Backup Components Document.
    ///
    /// # Errors
    /// Those of [`Documents::open`].
    pub fn bytes(&self, set_id: SetId, of: Option<WriterInstanceId>) -> Result<u64, VssError> {
        let path = self.of(set_id).join(file_name(of));
        fs::metadata(&path).map(|file| file.len()).map_err(|error| failed("read", &path, &error))
    }

    /// Opens a kept document for reading, looks through it, and says how many bytes it has.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when it cannot be read; `VSS_E_CORRUPT_XML_DOCUMENT` and `VSS_E_INVALID_XML_DOCUMENT` when it is no
    /// document of its kind any more.
    pub fn open(&self, set_id: SetId, of: Option<WriterInstanceId>) -> Result<(File, u64), VssError> {
        let path = self.of(set_id).join(file_name(of));
        let _one = self.looking.lock();
        let open = || {
            let mut file = File::open(&path)?;
            // One byte more than a document may have is enough to see that it is none.
            let mut bytes = Vec::new();
            (&mut file).take(of_one::DOCUMENT_BYTES as u64 + 1).read_to_end(&mut bytes)?;
            file.rewind()?;
            Ok((file, bytes))
        };
        let (file, bytes) = open().map_err(|error| failed("read", &path, &error))?;
        let read = match of {
            None => BackupComponentsDocument::parse(&bytes).map(drop),
            Some(_) => WriterMetadataDocument::parse(&bytes).map(drop),
        };
        match read {
            Err(error) if !fault::is_off("integrity") => Err(changed(&path, error)),
            _ => Ok((file, bytes.len() as u64)),
        }
    }

    /// Removes the documents of a set. What cannot be removed has no set any more, and is left for the next start.
    pub fn remove(&self, set_id: SetId) {
        match fs::remove_dir_all(self.of(set_id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%set_id, %error, "the documents of a set are not removed");
            }
            _ => {}
        }
    }

    /// Removes whatever belongs to none of these sets, and says how many sets it was of.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when something cannot be listed or removed.
    pub fn clear(&self, kept: &BTreeSet<SetId>) -> Result<usize, VssError> {
        let clear = || -> io::Result<usize> {
            let entries = match fs::read_dir(&self.directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
                entries => entries?,
            };
            let mut removed = 0;
            for entry in entries {
                let entry = entry?;
                let set_id = entry.file_name().to_str().and_then(|name| name.parse::<SetId>().ok());
                // What has another name was put there by somebody else.
                if set_id.is_some_and(|set_id| !kept.contains(&set_id)) {
                    fs::remove_dir_all(entry.path())?;
                    removed += 1;
                }
            }
            Ok(removed)
        };
        clear().map_err(|error| failed("clear", &self.directory, &error))
    }

    fn of(&self, set_id: SetId) -> PathBuf {
        self.directory.join(set_id.to_string())
    }
}

fn changed(path: &Path, error: DocumentError) -> VssError {
    VssError { hint: String::new(), ..VssError::from(error) }
        .while_doing(format!("{} is not what was kept", path.display()))
        .with_hint("Put it back from a backup of the state directory; the copies of the set are as good as before")
}

fn no_room(bytes: usize) -> VssError {
    let message = format!(
        "There is no room for {bytes} bytes more: the documents of a set may have {}",
        limits::DOCUMENTS_PER_SET
    );
    VssError::new(VssCode::OutOfMemory, message)
}

fn file_name(of: Option<WriterInstanceId>) -> String {
    of.map_or_else(|| "backup-components.xml".to_owned(), |instance| format!("writer-{instance}.xml"))
}

/// Writes a file under another name, brings it to the disk, and gives it its own.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(new, path)
}

fn failed(what: &str, path: &Path, error: &io::Error) -> VssError {
    VssError::new(VssCode::Unexpected, format!("Cannot {what} {}: {error}", path.display()))
        .with_hint("Is the file system of the state directory full, read-only or damaged?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::Read;

    fn metadata(name: &str, files: usize) -> WriterMetadata {
        let files: Vec<_> = (0..files).map(|number| json!({"path": format!("/srv/{number}")})).collect();
        serde_json::from_value(json!({
            "class_id": WriterClassId::random(), "instance_id": WriterInstanceId::random(), "name": name,
            "components": [{"name": "data", "files": files}],
        }))
        .unwrap()
    }

    fn text(documents: &Documents, set_id: SetId, of: Option<WriterInstanceId>) -> Vec<u8> {
        let (mut file, length) = documents.open(set_id, of).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!((length, documents.bytes(set_id, of).unwrap()), (bytes.len() as u64, bytes.len() as u64));
        bytes
    }

    #[test]
    fn documents_are_read_back_as_they_were_said_and_go_with_their_set() {
        let state = tempfile::tempdir().unwrap();
        let documents = Documents::new(state.path());
        let (set_id, other, writer) = (SetId::random(), SetId::random(), metadata("shop", 1000));
        let mut said = BackupComponents { set_id: Some(set_id), ..BackupComponents::of(BackupState::default()) };
        said.add(&writer, &writer.components[0].name).unwrap().backup_stamp = "7".to_owned();
        let kept = documents.write(set_id, &said, std::slice::from_ref(&writer)).unwrap();
        let names: Vec<_> = kept.iter().map(|one| one.writer.as_ref().map(|writer| writer.name.as_str())).collect();
        assert_eq!(names, [None, Some("shop")]);
        let read = BackupComponentsDocument::parse(&text(&documents, set_id, None)).unwrap();
        assert_eq!(*read.content(), said);
        let read = WriterMetadataDocument::parse(&text(&documents, set_id, Some(writer.instance_id))).unwrap();
        assert_eq!(read.content().components, writer.components);

        // Whoever has it open reads what it was.
        let (mut before, _) = documents.open(set_id, None).unwrap();
        said.writers[0].components[0].backup_succeeded = Some(true);
        documents.renew(set_id, &said).unwrap();
        let mut bytes = Vec::new();
        before.read_to_end(&mut bytes).unwrap();
        let old = BackupComponentsDocument::parse(&bytes).unwrap();
        assert_eq!(old.content().writers[0].components[0].backup_succeeded, None);
        let new = BackupComponentsDocument::parse(&text(&documents, set_id, None)).unwrap();
        assert_eq!(*new.content(), said);

        documents.write(other, &said, &[]).unwrap();
        documents.remove(other);
        documents.renew(other, &said).unwrap();
        assert!(documents.open(other, None).is_err(), "a set that is gone gets none");
        assert_eq!(documents.clear(&BTreeSet::from([set_id])).unwrap(), 0);
        assert_eq!(documents.clear(&BTreeSet::new()).unwrap(), 1);
        assert!(documents.open(set_id, None).is_err());
    }

    #[test]
    fn what_there_is_no_room_for_is_listed_with_the_reason() {
        let state = tempfile::tempdir().unwrap();
        let documents = Documents::new(state.path());
        let set_id = SetId::random();
        let said = BackupComponents::of(BackupState::default());
        // Each is an archive of its own of 20,000 file sets with long paths: a few of them fill the room.
        let long = |number: usize| {
            let mut writer = metadata(&format!("w{number}"), 20_000);
            for file in &mut writer.components[0].files {
                file.path = file.path.join("x".repeat(900));
            }
            writer
        };
        let writers: Vec<_> = (0..4).map(long).collect();
        let kept = documents.write(set_id, &said, &writers).unwrap();
        let codes: Vec<_> = kept.iter().map(|one| one.failure.as_ref().map(|failure| failure.code)).collect();
        assert_eq!(codes, [None, None, None, None, Some(VssCode::OutOfMemory)]);
        let last = kept[4].writer.as_ref().map(|writer| writer.instance_id);
        assert!(documents.open(set_id, last).is_err());
    }
}
