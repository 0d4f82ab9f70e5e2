//! Dependencies: a component that is of no use without one of another writer (spec R 3.6).

use crate::{ComponentName, WriterClassId};
use serde::{Deserialize, Serialize};

/// What a component depends on: both are in every backup and every restore, in no order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// The kind of the other writer.
    pub writer: WriterClassId,
    /// Its component. A logical path that begins with `\\COMPUTER\` is on another machine.
    #[serde(flatten)]
    pub on: ComponentName,
}

impl Dependency {
    /// True when the component is on another machine, which a backup of this one cannot hold.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        self.on.logical_path.starts_with("\\\\")
    }
}
