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
    /// Not surfaced on the machine that made it; described in the Backup Components Document.
    pub const TRANSPORTABLE: Self = Self(0x0000_0020);
    /// Not exposed now.
    pub const NOT_SURFACED: Self = Self(0x0000_0040);
    /// No transaction manager takes part; Linux has none, so it changes nothing.
    pub const NOT_TRANSACTED: Self = Self(0x0000_0080);
    /// Made by a hardware provider.
    pub const HARDWARE_ASSISTED: Self = Self(0x0001_0000);
    /// Shares unchanged blocks with its volume.
    pub const DIFFERENTIAL: Self = Self(0x0002_0000);
    /// A whole image of its own.
    pub const PLEX: Self = Self(0x0004_0000);
    /// Came by an import.
    pub const IMPORTED: Self = Self(0x0008_0000);
    /// Exposed at a directory of this machine.
    pub const EXPOSED_LOCALLY: Self = Self(0x0010_0000);
    /// Exposed as a share.
    pub const EXPOSED_REMOTELY: Self = Self(0x0020_0000);
    /// A writer mended it in PostSnapshot.
    pub const AUTORECOVER: Self = Self(0x0040_0000);
    /// For another use than backup: writers recover their data in it.
    pub const ROLLBACK_RECOVERY: Self = Self(0x0080_0000);
    /// Reserved (fast creation).
    pub const DELAYED_POSTSNAPSHOT: Self = Self(0x0100_0000);
    /// Transactions of the file system are recovered; Linux file systems have none of that kind, so it changes nothing.
    pub const TXF_RECOVERY: Self = Self(0x0200_0000);
    /// A copy of a remote share.
    pub const FILE_SHARE: Self = Self(0x0400_0000);

    /// The bits that a requester may add to a context (spec P 3.1).
    pub const OF_REQUESTER: Self = Self::NO_AUTORECOVERY
        .with(Self::TRANSPORTABLE)
        .with(Self::NOT_TRANSACTED)
        .with(Self::DIFFERENTIAL)
        .with(Self::PLEX)
        .with(Self::ROLLBACK_RECOVERY)
        .with(Self::TXF_RECOVERY);

    /// No bit.
    #[must_use]
    pub const fn empty() -> Self {
        Self(0)
    }

    /// These bits, whatever they mean.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// True for no bit.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
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
    /// `VSS_CTX_CLIENT_ACCESSIBLE` 0x1d: no writers, persistent, for previous versions on shares. Made by the system
    /// provider alone, never exposed.
    ClientAccessible,
    /// `VSS_CTX_CLIENT_ACCESSIBLE_WRITERS` 0x0d: the same with writers.
    ClientAccessibleWriters,
    /// `VSS_CTX_ALL` 0xffffffff: to query and delete copies of every context; makes none.
    All,
}

impl Context {
    /// Every context that can create a set.
    pub const CREATING: [Self; 8] = [
        Self::Backup,
        Self::FileShareBackup,
        Self::AppRollback,
        Self::NasRollback,
        Self::UntilReboot,
        Self::UntilRebootNoWriters,
        Self::ClientAccessible,
        Self::ClientAccessibleWriters,
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
            Self::ClientAccessible => 0x1d,
            Self::ClientAccessibleWriters => 0x0d,
            Self::All => 0xffff_ffff,
        })
    }

    /// The context in these bits, and what else a requester added to it (the one number of `SetContext`).
    ///
    /// # Errors
    /// `VSS_E_UNSUPPORTED_CONTEXT` for a number without a context; those of [`Self::check_attributes`].
    pub fn from_bits(bits: u32) -> Result<(Self, Attributes), VssError> {
        if bits == Self::All.attributes().bits() {
            return Ok((Self::All, Attributes::empty()));
        }
        let bits = Attributes(bits);
        let added = Attributes(bits.0 & Attributes::OF_REQUESTER.0);
        let context = Self::CREATING.into_iter().find(|context| context.attributes() == bits.without(added));
        let context = context.ok_or_else(|| {
            VssError::new(VssCode::UnsupportedContext, format!("{:#x} names no context", bits.bits()))
                .with_hint("Use 0x00, 0x08, 0x09, 0x0d, 0x10, 0x18, 0x19, 0x1d or 0xffffffff")
        })?;
        context.check_attributes(added)?;
        Ok((context, added))
    }

    /// May a requester add these bits to the context (spec P 3.1 and 11)?
    ///
    /// # Errors
    /// `E_INVALIDARG` for bits that are not a requester's, and for those that exclude each other;
    /// `VSS_E_UNSUPPORTED_CONTEXT` for transportable copies, which no provider makes, and for bits on a client-accessible
    /// context or on [`Self::All`].
    pub fn check_attributes(self, added: Attributes) -> Result<(), VssError> {
        let foreign = added.without(Attributes::OF_REQUESTER);
        if !foreign.is_empty() {
            let message = format!("Attribute bits {:#x} are not a requester's to set", foreign.bits());
            return Err(VssError::new(VssCode::InvalidArgument, message)
                .with_hint("Persistence, release and writers come from the context"));
        }
        for (one, other) in
            [(Attributes::DIFFERENTIAL, Attributes::PLEX), (Attributes::NO_AUTORECOVERY, Attributes::ROLLBACK_RECOVERY)]
        {
            if added.contains(one.with(other)) {
                let message = format!("Attribute bits {:#x} and {:#x} exclude each other", one.bits(), other.bits());
                return Err(VssError::new(VssCode::InvalidArgument, message).with_hint("Set one of the two"));
            }
        }
        let fixed = self == Self::All || self.is_client_accessible();
        if fixed && !added.is_empty() {
            let message = format!("Context {:#x} takes no attribute bits", self.attributes().bits());
            return Err(VssError::new(VssCode::UnsupportedContext, message).with_hint("Leave them out"));
        }
        if added.contains(Attributes::TRANSPORTABLE) {
            let message = "No provider of this machine makes transportable shadow copies";
            return Err(VssError::new(VssCode::UnsupportedContext, message).with_hint("Leave out the bit 0x20"));
        }
        Ok(())
    }

    /// True for the contexts of previous versions on shares.
    #[must_use]
    pub const fn is_client_accessible(self) -> bool {
        matches!(self, Self::ClientAccessible | Self::ClientAccessibleWriters)
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
        for context in Context::CREATING.into_iter().chain([Context::All]) {
            assert_eq!(Context::from_bits(context.attributes().bits()).unwrap(), (context, Attributes::empty()));
        }
        let plex = Context::from_bits(0x0004_0009).unwrap();
        assert_eq!(plex, (Context::AppRollback, Attributes::PLEX));
    }

    #[test]
    fn numbers_without_a_context_are_refused() {
        for bits in [0x01, 0x04, 0x11, 0x0001_0000, 0x8000_0000] {
            assert_eq!(Context::from_bits(bits).unwrap_err().code, VssCode::UnsupportedContext, "{bits:#x}");
        }
    }

    #[test]
    fn what_a_requester_may_add_depends_on_the_context() {
        let refused = |context: Context, bits: u32| {
            context.check_attributes(Attributes::from_bits(bits)).map_err(|error| error.code)
        };
        let may = [0x02, 0x80, 0x0002_0000, 0x0004_0000, 0x0080_0000, 0x0200_0000, 0x0282_0080];
        assert!(may.into_iter().all(|bits| refused(Context::Backup, bits).is_ok()));
        for bits in [0x01, 0x04, 0x08, 0x10, 0x40, 0x0001_0000, 0x0008_0000, 0x0040_0000, 0x0100_0000, 0x0400_0000] {
            assert_eq!(refused(Context::Backup, bits), Err(VssCode::InvalidArgument), "{bits:#x}");
        }
        assert_eq!(refused(Context::Backup, 0x0006_0000), Err(VssCode::InvalidArgument), "differential and plex");
        assert_eq!(refused(Context::Backup, 0x0080_0002), Err(VssCode::InvalidArgument), "no recovery and recovery");
        assert_eq!(refused(Context::Backup, 0x20), Err(VssCode::UnsupportedContext), "transportable");
        for context in [Context::ClientAccessible, Context::ClientAccessibleWriters, Context::All] {
            assert_eq!(refused(context, 0x0002_0000), Err(VssCode::UnsupportedContext));
        }
    }

    #[test]
    fn table_of_spec_p_3_2() {
        assert!(Context::Backup.has_writers() && Context::Backup.is_auto_release() && !Context::Backup.is_persistent());
        assert!(!Context::FileShareBackup.has_writers() && Context::FileShareBackup.is_auto_release());
        assert!(Context::AppRollback.has_writers() && Context::AppRollback.is_persistent());
        assert!(!Context::NasRollback.has_writers() && !Context::NasRollback.is_auto_release());
        assert!(!Context::UntilReboot.is_auto_release() && !Context::UntilReboot.is_persistent());
        assert!(!Context::ClientAccessible.has_writers() && Context::ClientAccessible.is_persistent());
        assert!(Context::ClientAccessibleWriters.has_writers() && !Context::ClientAccessibleWriters.is_auto_release());
        assert!(!Context::All.has_writers());
    }
}
