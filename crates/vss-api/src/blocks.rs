//! Messages of `org.linuxvss.Management` about copies as blocks: what changed, the image itself, and the way back.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use vss_model::{Extent, Instant, SetId, ShadowId, VolumeId, VssError};

/// Most extents in one answer of `ChangedBlocks`: with two numbers of 20 digits each it has less than half of the bytes that a
/// message may have.
pub const EXTENTS: usize = 16_384;

/// Parameters of `ChangedBlocks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangedBlocks {
    /// The copy.
    pub shadow_id: ShadowId,
    /// An earlier copy of the same volume; none: every block in use is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_shadow_id: Option<ShadowId>,
    /// Only extents from this place on.
    #[serde(default)]
    pub from: u64,
}

/// Reply to `ChangedBlocks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockList {
    /// Bytes of the volume.
    pub volume_size: u64,
    /// Bytes of one block.
    pub block_size: u64,
    /// Why it is not known; none when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
    /// Ascending and apart, at most [`EXTENTS`].
    pub extents: Vec<Extent>,
    /// Where to go on asking; none when this was the last of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// Parameters of `OpenImage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenImage {
    /// The copy.
    pub shadow_id: ShadowId,
}

/// Reply to `OpenImage`; a file descriptor comes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageOpened {
    /// Which of the message's file descriptors is the image, open for reading: 0.
    pub image: u32,
    /// Where the volume begins in it, in bytes.
    pub offset: u64,
    /// Bytes of the volume.
    pub volume_size: u64,
    /// Bytes of one block.
    pub block_size: u64,
    /// The set that the copy belongs to.
    pub set_id: SetId,
    /// The lasting name of the volume.
    pub volume_id: VolumeId,
    /// The file system type.
    pub fs_type: String,
    /// When the copy was cut.
    pub cut_at: Instant,
}

/// Parameters of `RevertToSnapshot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevertToSnapshot {
    /// The copy that its volume is to be put back to.
    pub shadow_id: ShadowId,
    /// True: an unfinished revert to this copy is forgotten instead.
    #[serde(default)]
    pub give_up: bool,
}

/// Parameters of `QueryRevertStatus`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryRevertStatus {
    /// The volume.
    pub volume_id: VolumeId,
    /// Wait until it has come further than this, or has ended.
    #[serde(default)]
    pub seen_progress: u64,
    /// Longest wait, in milliseconds.
    #[serde(default)]
    pub timeout_ms: u64,
}

/// Where a revert stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevertState {
    /// It is going on.
    Running,
    /// The volume is as it was when the copy was cut.
    Finished,
    /// It broke off: the volume is neither the one nor the other until it is ended.
    Unfinished,
    /// It failed before it changed anything.
    Failed,
}

/// Reply to `RevertToSnapshot` and to `QueryRevertStatus`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevertStatus {
    /// The volume.
    pub volume_id: VolumeId,
    /// Where it was mounted when the copy was made.
    #[serde(with = "vss_model::path_text")]
    pub volume: PathBuf,
    /// The copy.
    pub shadow_id: ShadowId,
    /// Where the revert stands.
    pub state: RevertState,
    /// Counts up with everything that is told.
    pub progress: u64,
    /// Bytes of the volume that are done.
    pub bytes_done: u64,
    /// Bytes that have to be done; 0 when it is not known yet.
    pub bytes_total: u64,
    /// Bytes that differed and were written, when it is finished.
    pub written_bytes: u64,
    /// Why it broke off or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<VssError>,
}
