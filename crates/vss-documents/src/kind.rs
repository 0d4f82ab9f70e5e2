//! A document of any of the three kinds, told by its root.

use crate::backup_components::BackupComponentsDocument;
use crate::error::{DocumentError, Fault, shown};
use crate::manifest::{self, Manifest};
use crate::schema::Schema;
use crate::tree::Document;
use crate::writer_metadata::WriterMetadataDocument;
use vss_model::{BackupComponents, WriterMetadata};

/// A document.
#[derive(Debug, Clone)]
pub enum AnyDocument {
    /// Of one writer.
    WriterMetadata(Box<WriterMetadataDocument>),
    /// Of one session.
    BackupComponents(Box<BackupComponentsDocument>),
    /// Of a cabinet.
    Manifest(Box<Manifest>),
}

impl AnyDocument {
    /// Reads a document.
    ///
    /// # Errors
    /// As [`Document::parse`], and as the kind that its root names; [`Fault::Invalid`] for any other root.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let document = Document::parse(bytes)?;
        match document.root_name() {
            WriterMetadata::ROOT => WriterMetadataDocument::of(document).map(Box::new).map(Self::WriterMetadata),
            BackupComponents::ROOT => BackupComponentsDocument::of(document).map(Box::new).map(Self::BackupComponents),
            manifest::ROOT => Manifest::of(&document).map(Box::new).map(Self::Manifest),
            other => {
                let known = format!("{}, {} and {}", WriterMetadata::ROOT, BackupComponents::ROOT, manifest::ROOT);
                let message = format!("<{}> is the root of no document of VSS; {known} are", shown(other));
                Err(DocumentError::new(Fault::Invalid, document.position(document.root.offset()), message))
            }
        }
    }
}
