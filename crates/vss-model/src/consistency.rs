//! How good a copy is: the level of every component, volume and set (design 3).

use serde::{Deserialize, Serialize};
use std::fmt;

/// The consistency level, from worst to best; the order of the variants is the order of `<`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// Cut at several instants (nested or several subvolumes), and no writer held still.
    Crash,
    /// No writer, but one instant for that volume: a whole hold, or one subvolume.
    FileSystem,
    /// Its writer reached WAITING_FOR_BACKUP_COMPLETE.
    Application,
}

impl Consistency {
    /// The name used on the command line and in JSON: `crash`, `file-system`, `application`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::FileSystem => "file-system",
            Self::Application => "application",
        }
    }

    /// The level of a volume without writers: one instant or several.
    #[must_use]
    pub const fn of_cut(one_instant: bool) -> Self {
        if one_instant { Self::FileSystem } else { Self::Crash }
    }

    /// The level of a whole: the lowest of its parts; `Application` for no part at all, since nothing is worse.
    pub fn lowest(parts: impl IntoIterator<Item = Self>) -> Self {
        parts.into_iter().min().unwrap_or(Self::Application)
    }
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Consistency::{Application, Crash, FileSystem};
    use super::*;

    #[test]
    fn a_set_is_as_good_as_its_worst_part() {
        assert_eq!(Consistency::lowest([Application, FileSystem]), FileSystem);
        assert_eq!(Consistency::lowest([Application, Crash, FileSystem]), Crash);
    }
}
