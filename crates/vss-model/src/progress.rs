//! How far slow work on a volume is.

use serde::{Deserialize, Serialize};

use crate::ShadowId;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// The first round: every block in use is read.
    Copying,
    /// A later round: what was written meanwhile is read again.
    Catching,
    /// Every block in use is read and compared with the image.
    Comparing,
    /// Blocks are written back to the volume.
    Reverting,
}

/// How far the work on one volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The copy that is made, or reverted to.
    pub shadow_id: ShadowId,
    /// What is being done.
    pub work: Work,
    /// Which round it is, from 1.
    pub round: u32,
    /// Bytes of this round that are done.
    pub bytes_done: u64,
    /// Bytes of this round.
    pub bytes_total: u64,
    /// Bytes a second that are copied; none when it is not known yet.
    pub copy_rate: Option<u64>,
    /// Bytes a second that applications write to, counted in whole blocks; none when it is not known yet.
    pub dirty_rate: Option<u64>,
    /// How long the hold would be if it began now, in milliseconds; none when it is not known yet.
    pub hold_ms: Option<u64>,
    /// How long the work before the hold will take, in milliseconds; none when it is not known yet.
    pub left_ms: Option<u64>,
}
