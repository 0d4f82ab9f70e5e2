//! What is kept for the copies of a volume to come.

use crate::{Instant, VolumeId};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What is kept for one volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storage {
    /// The volume.
    pub volume_id: VolumeId,
    /// Where the volume was mounted when it was last copied.
    #[serde(with = "crate::path_text")]
    pub volume: PathBuf,
    /// The directory that it lies in.
    #[serde(with = "crate::path_text")]
    pub place: PathBuf,
    /// Bytes that it takes there, without the copies' own.
    pub used_bytes: u64,
    /// Bytes of the volume.
    pub volume_bytes: u64,
    /// Shadow copies that lie there.
    pub shadows: u64,
    /// When it was last used.
    pub last_used: Instant,
    /// Why the next copy will read everything, to compare it or to copy it once more, instead of what was written since; none
    /// when it will not.
    pub full_compare: Option<String>,
}
