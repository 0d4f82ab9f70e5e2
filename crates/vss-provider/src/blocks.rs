//! Copies as blocks: which of them are in use, which changed from one copy to another, and the image to read them from.

use crate::StoredCopy;
use serde::{Deserialize, Serialize};
use std::fs::File;
use vss_model::VssError;

pub use vss_model::Extent;

/// Which blocks changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Changes {
    /// These at most, ascending and apart from each other: every other block that is in use in the later copy is the same in
    /// both.
    Known(Vec<Extent>),
    /// It is not known, for this reason (half a sentence).
    Unknown(String),
}

/// The image of a copy, open for reading.
#[derive(Debug)]
pub struct Image {
    /// The file or device.
    pub file: File,
    /// Where the volume begins in it, in bytes.
    pub offset: u64,
    /// Bytes of the volume.
    pub size: u64,
    /// Bytes of one block: every extent is a multiple of it, but for the end of the volume.
    pub block: u64,
}

/// A provider that knows its copies block by block.
pub trait ChangedBlocks: Send + Sync {
    /// What was written to the volume between the cuts of `since` and `copy`, two copies of one volume, the earlier one
    /// first. Without `since`: every block in use in `copy`.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND` when a copy is gone, `E_INVALIDARG` for copies of two volumes or in the wrong order,
    /// `VSS_E_PROVIDER_VETO`.
    fn changed(&self, copy: &StoredCopy, since: Option<&StoredCopy>) -> Result<Changes, VssError>;

    /// Opens the image of a finished copy.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND` when the copy is gone, `VSS_E_PROVIDER_VETO`.
    fn open(&self, copy: &StoredCopy) -> Result<Image, VssError>;
}
