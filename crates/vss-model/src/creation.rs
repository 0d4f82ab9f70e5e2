//! How a requester wants the copies of a set to be made: wishes that only some providers can heed.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The wishes of one set. A provider that copies nothing heeds none of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CreationOptions {
    /// The most that is read from a volume before the hold, in bytes a second; none: as fast as applications leave room for.
    pub max_rate: Option<u64>,
    /// The longest hold that is begun, in milliseconds, 1 to 8000; none: [`crate::limits::MIRROR_HOLD`].
    pub max_hold_ms: Option<u64>,
    /// The directory for images; none: the settings, then the service's own choice.
    #[serde(with = "crate::path_text::optional")]
    pub storage: Option<PathBuf>,
    /// True: the whole volume is read and compared inside the hold, and nothing is traced.
    pub full_compare: bool,
}
