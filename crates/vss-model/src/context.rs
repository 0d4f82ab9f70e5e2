//! Contexts and attributes of shadow copies: what a copy is for and how long it lives (spec P 3.1 and 3.2).

use crate::{VssCode, VssError};
use serde::{Deserialize, Serialize};

/// The attribute bits of a shadow copy, `VSS_VOLSNAP_ATTR_*` (spec P 3.1). Serialised as the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attributes(u32);

impl Attributes {
    /// Survives reboot and the end of its session.
    pub const PERSISTENT: Self = Self(0x0000_0001);
    /// Read-only at once: no writer may mend it.
    pub const NO_AUTORECOVERY: Self = Self(0x0000_0002);
    /// For previous versions on shares; never exposed.
    pub const CLIENT_ACCESSIBLE: Self = Self(0x0000_0004);
    /// Not deleted when its session ends.
    pub const NO_AUTO_RELEASE: Self = Self(0x0000_0008);
    /// Made without writers.
    pub const NO_WRITERS: Self = Self(0x0000_0010);
    /// Not exposed now.
    pub const NOT_SURFACED: Self = Self(0x0000_0040);
    /// Shares unchanged blocks with its volume.
    pub const DIFFERENTIAL: Self = Self(0x0002_0000);
    /// A whole image of its own.
    pub const PLEX: Self = Self(0x0004_0000);
    /// Exposed at a directory of this machine.
    pub const EXPOSED_LOCALLY: Self = Self(0x0010_0000);
    /// A writer mended it in PostSnapshot.
    pub const AUTORECOVER: Self = Self(0x0040_0000);

    /// No bit.
    #[must_use]
    pub const fn empty() -> Self {
        Self(0)
    }

    /// The bits as Microsoft numbers them.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// True when every bit of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The bits without those of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// What a set is made for. Decides whether writers take part and how long the copies live.
///
/// Serialised by name, in lower case with underscores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Context {
    /// `VSS_CTX_BACKUP` 0x00: writers, deleted with its session.
    #[default]
    Backup,
    /// `VSS_CTX_FILE_SHARE_BACKUP` 0x10: no writers, deleted with its session.
    FileShareBackup,
    /// `VSS_CTX_APP_ROLLBACK` 0x09: writers, persistent.
    AppRollback,
    /// `VSS_CTX_NAS_ROLLBACK` 0x19: no writers, persistent.
    NasRollback,
    /// NO_AUTO_RELEASE 0x08: writers, lives until reboot or delete (spec P 11, "until reboot").
    UntilReboot,
    /// NO_AUTO_RELEASE and NO_WRITERS 0x18: no writers, lives until reboot or delete.
    UntilRebootNoWriters,
}

impl Context {
    /// Every context that can create a set.
    pub const ALL: [Self; 6] = [
        Self::Backup,
        Self::FileShareBackup,
        Self::AppRollback,
        Self::NasRollback,
        Self::UntilReboot,
        Self::UntilRebootNoWriters,
    ];

    /// The attribute bits that the context stands for.
    #[must_use]
    pub const fn attributes(self) -> Attributes {
        Attributes(match self {
            Self::Backup => 0x00,
            Self::FileShareBackup => 0x10,
            Self::AppRollback => 0x09,
            Self::NasRollback => 0x19,
            Self::UntilReboot => 0x08,
            Self::UntilRebootNoWriters => 0x18,
        })
    }

    /// The context with these bits.
    ///
    /// # Errors
    /// `VSS_E_UNSUPPORTED_CONTEXT` for client-accessible contexts, for `VSS_CTX_ALL`, and for every other number.
    pub fn from_bits(bits: u32) -> Result<Self, VssError> {
        Self::ALL.into_iter().find(|context| context.attributes().bits() == bits).ok_or_else(|| {
            VssError::new(VssCode::UnsupportedContext, format!("Context {bits:#x} cannot create a shadow copy set"))
                .with_hint("Use 0x00, 0x08, 0x09, 0x10, 0x18 or 0x19")
        })
    }

    /// True when writers take part: the bit NO_WRITERS is clear (spec R 1.4).
    #[must_use]
    pub const fn has_writers(self) -> bool {
        !self.attributes().contains(Attributes::NO_WRITERS)
    }

    /// True when the copies survive a reboot.
    #[must_use]
    pub const fn is_persistent(self) -> bool {
        self.attributes().contains(Attributes::PERSISTENT)
    }

    /// True when the copies are deleted with their session.
    #[must_use]
    pub const fn is_auto_release(self) -> bool {
        !self.attributes().contains(Attributes::NO_AUTO_RELEASE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_read_back() {
        for context in Context::ALL {
            assert_eq!(Context::from_bits(context.attributes().bits()).unwrap(), context);
        }
    }

    #[test]
    fn all_and_client_accessible_cannot_create() {
        for bits in [0xffff_ffff, 0x1d, 0x0d, 0x01] {
            assert_eq!(Context::from_bits(bits).unwrap_err().code, VssCode::UnsupportedContext);
        }
    }

    #[test]
    fn table_of_spec_p_3_2() {
        assert!(Context::Backup.has_writers() && Context::Backup.is_auto_release() && !Context::Backup.is_persistent());
        assert!(!Context::FileShareBackup.has_writers() && Context::FileShareBackup.is_auto_release());
        assert!(Context::AppRollback.has_writers() && Context::AppRollback.is_persistent());
        assert!(!Context::NasRollback.has_writers() && !Context::NasRollback.is_auto_release());
        assert!(!Context::UntilReboot.is_auto_release() && !Context::UntilReboot.is_persistent());
    }
}
