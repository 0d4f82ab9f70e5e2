//! Messages of `org.linuxvss.Management` about the documents that are kept with a set (spec R 5).

use serde::{Deserialize, Serialize};
use vss_model::{SetId, VssError, WriterClassId, WriterInstanceId};

/// Most bytes of a document that stand in the answer itself; a longer one comes as a file descriptor. In JSON a character of
/// them may take two, and a message has 4 MiB.
pub const TEXT_BYTES: u64 = 1 << 20;

/// Which document it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentKind {
    /// What the session says of the components in the backup.
    BackupComponents,
    /// What one writer says of itself.
    WriterMetadata,
}

/// Parameters of `ListDocuments`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListDocuments {
    /// The set.
    pub set_id: SetId,
}

/// Reply to `ListDocuments`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentList {
    /// The Backup Components Document first.
    pub documents: Vec<DocumentEntry>,
}

/// One document of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentEntry {
    /// Which one.
    pub kind: DocumentKind,
    /// The writer's name; none for the Backup Components Document.
    pub writer: Option<String>,
    /// The writer's kind.
    pub class_id: Option<WriterClassId>,
    /// The running writer.
    pub instance_id: Option<WriterInstanceId>,
    /// Its length; 0 when it is not kept.
    pub bytes: u64,
    /// Why it is not kept; none when it is.
    pub failure: Option<VssError>,
}

/// Parameters of `GetDocument`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetDocument {
    /// The set.
    pub set_id: SetId,
    /// The Writer Metadata Document of this writer; none: the Backup Components Document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<WriterInstanceId>,
}

/// Reply to `GetDocument`: a text, or a file descriptor that comes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentText {
    /// Its length.
    pub bytes: u64,
    /// The document; none when it is longer than [`TEXT_BYTES`].
    pub text: Option<String>,
    /// Which of the file descriptors that come with the message has it; none when `text` does.
    pub file: Option<u32>,
}
