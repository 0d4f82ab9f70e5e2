//! The error that people and programs see: a VSS code, what happened, and what to do.
//!
//! [`VssCode`] is the stable small kind; [`VssError`] adds words. The codes are those of spec R section 10 without the
//! ones of Windows' disaster recovery (ASR).

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeStruct};
use std::{fmt, str::FromStr};

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $hresult:literal;)*) => {
        /// A failure code of VSS: its `VSS_E_*` (or `E_*`) name and its 32-bit HRESULT (spec R 10).
        ///
        /// Serialised by name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum VssCode {
            $($(#[$doc])* $variant,)*
        }

        impl VssCode {
            /// Every code, in the order of the table.
            pub const ALL: &'static [VssCode] = &[$(VssCode::$variant,)*];

            /// The name as Microsoft spells it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(VssCode::$variant => $name,)*
                }
            }

            /// The HRESULT, with the failure bit set.
            #[must_use]
            pub const fn hresult(self) -> u32 {
                match self {
                    $(VssCode::$variant => $hresult,)*
                }
            }
        }
    };
}

codes! {
    /// The call is known and not available here.
    NotImplemented = "E_NOTIMPL", 0x8000_4001;
    /// Stopped because its caller wished so.
    Aborted = "E_ABORT", 0x8000_4004;
    /// Memory or another resource of the service is used up.
    OutOfMemory = "E_OUTOFMEMORY", 0x8007_000E;
    /// An argument is wrong.
    InvalidArgument = "E_INVALIDARG", 0x8007_0057;
    /// The caller has not the right.
    AccessDenied = "E_ACCESSDENIED", 0x8007_0005;
    /// The session is not initialised, is of the wrong kind, or the call is out of sequence.
    BadState = "VSS_E_BAD_STATE", 0x8004_2301;
    /// The service failed inside; details are in its log.
    Unexpected = "VSS_E_UNEXPECTED", 0x8004_2302;
    /// A provider with this id is registered.
    ProviderAlreadyRegistered = "VSS_E_PROVIDER_ALREADY_REGISTERED", 0x8004_2303;
    /// No provider with this id is registered.
    ProviderNotRegistered = "VSS_E_PROVIDER_NOT_REGISTERED", 0x8004_2304;
    /// A provider refused.
    ProviderVeto = "VSS_E_PROVIDER_VETO", 0x8004_2306;
    /// A provider is busy.
    ProviderInUse = "VSS_E_PROVIDER_IN_USE", 0x8004_2307;
    /// The component, writer, shadow copy, volume or file set is not there.
    ObjectNotFound = "VSS_E_OBJECT_NOT_FOUND", 0x8004_2308;
    /// No provider supports the volume.
    VolumeNotSupported = "VSS_E_VOLUME_NOT_SUPPORTED", 0x8004_230C;
    /// The same logical path and component name twice.
    ObjectAlreadyExists = "VSS_E_OBJECT_ALREADY_EXISTS", 0x8004_230D;
    /// The chosen provider does not support the volume.
    VolumeNotSupportedByProvider = "VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER", 0x8004_230E;
    /// A provider failed in a way that its contract does not know.
    UnexpectedProviderError = "VSS_E_UNEXPECTED_PROVIDER_ERROR", 0x8004_230F;
    /// A stored document is damaged.
    CorruptXmlDocument = "VSS_E_CORRUPT_XML_DOCUMENT", 0x8004_2310;
    /// A document does not follow the schema.
    InvalidXmlDocument = "VSS_E_INVALID_XML_DOCUMENT", 0x8004_2311;
    /// Too many volumes in one set.
    MaximumNumberOfVolumesReached = "VSS_E_MAXIMUM_NUMBER_OF_VOLUMES_REACHED", 0x8004_2312;
    /// Flushing the volumes took too long.
    FlushWritesTimeout = "VSS_E_FLUSH_WRITES_TIMEOUT", 0x8004_2313;
    /// The hold of writes ended before every provider had committed.
    HoldWritesTimeout = "VSS_E_HOLD_WRITES_TIMEOUT", 0x8004_2314;
    /// Talking to a writer failed.
    UnexpectedWriterError = "VSS_E_UNEXPECTED_WRITER_ERROR", 0x8004_2315;
    /// Another shadow copy set is being created.
    SnapshotSetInProgress = "VSS_E_SNAPSHOT_SET_IN_PROGRESS", 0x8004_2316;
    /// The volume has all the shadow copies that it may have.
    MaximumNumberOfSnapshotsReached = "VSS_E_MAXIMUM_NUMBER_OF_SNAPSHOTS_REACHED", 0x8004_2317;
    /// The part of the service that talks to writers is not running.
    WriterInfrastructure = "VSS_E_WRITER_INFRASTRUCTURE", 0x8004_2318;
    /// A writer did not answer.
    WriterNotResponding = "VSS_E_WRITER_NOT_RESPONDING", 0x8004_2319;
    /// The writer is registered already.
    WriterAlreadySubscribed = "VSS_E_WRITER_ALREADY_SUBSCRIBED", 0x8004_231A;
    /// The context is not supported.
    UnsupportedContext = "VSS_E_UNSUPPORTED_CONTEXT", 0x8004_231B;
    /// The volume is busy.
    VolumeInUse = "VSS_E_VOLUME_IN_USE", 0x8004_231D;
    /// Too many diff area associations.
    MaximumDiffareaAssociationsReached = "VSS_E_MAXIMUM_DIFFAREA_ASSOCIATIONS_REACHED", 0x8004_231E;
    /// There is no room for the shadow copy.
    InsufficientStorage = "VSS_E_INSUFFICIENT_STORAGE", 0x8004_231F;
    /// Nothing could be imported.
    NoSnapshotsImported = "VSS_E_NO_SNAPSHOTS_IMPORTED", 0x8004_2320;
    /// Only a part could be imported.
    SomeSnapshotsNotImported = "VSS_E_SOME_SNAPSHOTS_NOT_IMPORTED", 0x8004_2321;
    /// Too many remote machines.
    MaximumNumberOfRemoteMachinesReached = "VSS_E_MAXIMUM_NUMBER_OF_REMOTE_MACHINES_REACHED", 0x8004_2322;
    /// The remote server does not answer.
    RemoteServerUnavailable = "VSS_E_REMOTE_SERVER_UNAVAILABLE", 0x8004_2323;
    /// The remote server cannot do it.
    RemoteServerUnsupported = "VSS_E_REMOTE_SERVER_UNSUPPORTED", 0x8004_2324;
    /// A revert of the volume is running.
    RevertInProgress = "VSS_E_REVERT_IN_PROGRESS", 0x8004_2325;
    /// The volume under revert went away.
    RevertVolumeLost = "VSS_E_REVERT_VOLUME_LOST", 0x8004_2326;
    /// The provider needs a reboot.
    RebootRequired = "VSS_E_REBOOT_REQUIRED", 0x8004_2327;
    /// Transactions could not be frozen in time.
    TransactionFreezeTimeout = "VSS_E_TRANSACTION_FREEZE_TIMEOUT", 0x8004_2328;
    /// Transactions could not be thawed in time.
    TransactionThawTimeout = "VSS_E_TRANSACTION_THAW_TIMEOUT", 0x8004_2329;
    /// A volume that was not selected would be overwritten.
    UnselectedVolume = "VSS_E_UNSELECTED_VOLUME", 0x8004_232A;
    /// The shadow copy is not of this set.
    SnapshotNotInSet = "VSS_E_SNAPSHOT_NOT_IN_SET", 0x8004_232B;
    /// A volume and the volume that it lies on cannot be in one set like this.
    NestedVolumeLimit = "VSS_E_NESTED_VOLUME_LIMIT", 0x8004_232C;
    /// The volume is on another machine.
    VolumeNotLocal = "VSS_E_VOLUME_NOT_LOCAL", 0x8004_232D;
    /// The cluster did not answer in time.
    ClusterTimeout = "VSS_E_CLUSTER_TIMEOUT", 0x8004_232E;
    /// The request is known and not supported.
    NotSupported = "VSS_E_NOT_SUPPORTED", 0x8004_232F;
    /// Some components of a writer failed.
    WriterErrorPartialFailure = "VSS_E_WRITERERROR_PARTIAL_FAILURE", 0x8004_2336;
    /// The set lacks volumes that a component needs.
    WriterErrorInconsistentSnapshot = "VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT", 0x8004_23F0;
    /// A writer ran out of memory, handles or space.
    WriterErrorOutOfResources = "VSS_E_WRITERERROR_OUTOFRESOURCES", 0x8004_23F1;
    /// A writer was frozen for longer than its limit.
    WriterErrorTimeout = "VSS_E_WRITERERROR_TIMEOUT", 0x8004_23F2;
    /// A writer failed; trying again will probably help.
    WriterErrorRetryable = "VSS_E_WRITERERROR_RETRYABLE", 0x8004_23F3;
    /// A writer failed and would fail again.
    WriterErrorNonRetryable = "VSS_E_WRITERERROR_NONRETRYABLE", 0x8004_23F4;
    /// A writer could not recover its data in the shadow copy.
    WriterErrorRecoveryFailed = "VSS_E_WRITERERROR_RECOVERY_FAILED", 0x8004_23F5;
    /// The id could not be put back in a break.
    BreakRevertIdFailed = "VSS_E_BREAK_REVERT_ID_FAILED", 0x8004_23F6;
    /// The provider is too old for the call.
    LegacyProvider = "VSS_E_LEGACY_PROVIDER", 0x8004_23F7;
    /// Fast recovery: a disk is missing.
    MissingDisk = "VSS_E_MISSING_DISK", 0x8004_23F8;
    /// Fast recovery: a hidden volume is missing.
    MissingHiddenVolume = "VSS_E_MISSING_HIDDEN_VOLUME", 0x8004_23F9;
    /// Fast recovery: a volume is missing.
    MissingVolume = "VSS_E_MISSING_VOLUME", 0x8004_23FA;
    /// The shadow copy could not be recovered.
    AutorecoveryFailed = "VSS_E_AUTORECOVERY_FAILED", 0x8004_23FB;
    /// A dynamic disk failed.
    DynamicDiskError = "VSS_E_DYNAMIC_DISK_ERROR", 0x8004_23FC;
    /// The document is of a set that is not transportable.
    NontransportableBcd = "VSS_E_NONTRANSPORTABLE_BCD", 0x8004_23FD;
    /// The disk id cannot be restored.
    CannotRevertDiskId = "VSS_E_CANNOT_REVERT_DISKID", 0x8004_23FE;
    /// A resynchronisation is running.
    ResyncInProgress = "VSS_E_RESYNC_IN_PROGRESS", 0x8004_23FF;
    /// The cluster reported an error.
    ClusterError = "VSS_E_CLUSTER_ERROR", 0x8004_2400;
    /// A writer has no room for another session.
    WriterStatusNotAvailable = "VSS_E_WRITER_STATUS_NOT_AVAILABLE", 0x8004_2409;
    /// The file server did not answer in time.
    FssTimeout = "VSS_E_FSS_TIMEOUT", 0x8004_2417;
}

/// What an asynchronous call came to when it did not fail, and the answers that are no failures: `S_*` and `VSS_S_*` (spec
/// R 10 and 1.2).
pub mod status {
    /// Done.
    pub const S_OK: u32 = 0;
    /// Done, and there was nothing to be found.
    pub const S_FALSE: u32 = 1;
    /// The operation is still running.
    pub const VSS_S_ASYNC_PENDING: u32 = 0x0004_2309;
    /// The operation has succeeded, or a cancel came too late.
    pub const VSS_S_ASYNC_FINISHED: u32 = 0x0004_230A;
    /// The operation was cancelled.
    pub const VSS_S_ASYNC_CANCELLED: u32 = 0x0004_230B;
}

impl VssCode {
    /// True for the codes that a provider may return; any other becomes `VSS_E_UNEXPECTED_PROVIDER_ERROR` (spec P 2.7).
    #[must_use]
    pub const fn allowed_from_provider(self) -> bool {
        matches!(
            self,
            Self::OutOfMemory
                | Self::InvalidArgument
                | Self::AccessDenied
                | Self::BadState
                | Self::ObjectNotFound
                | Self::InsufficientStorage
                | Self::VolumeNotSupported
                | Self::VolumeNotSupportedByProvider
                | Self::MaximumNumberOfSnapshotsReached
                | Self::MaximumNumberOfVolumesReached
                | Self::ProviderVeto
                | Self::CannotRevertDiskId
                | Self::UnsupportedContext
                | Self::NestedVolumeLimit
                | Self::RevertInProgress
        )
    }

    /// True for the codes of causes that pass: a requester waits 10 minutes and tries the whole backup again, 3 times at most
    /// (spec R 2.4).
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(
            self,
            Self::WriterErrorOutOfResources
                | Self::WriterErrorTimeout
                | Self::WriterErrorRetryable
                | Self::FlushWritesTimeout
                | Self::HoldWritesTimeout
                | Self::ProviderVeto
                | Self::UnexpectedProviderError
                | Self::SnapshotSetInProgress
        )
    }

    /// True for the codes that a writer may report of itself (spec R 2.9).
    #[must_use]
    pub const fn allowed_from_writer(self) -> bool {
        matches!(
            self,
            Self::WriterErrorInconsistentSnapshot
                | Self::WriterErrorOutOfResources
                | Self::WriterErrorTimeout
                | Self::WriterErrorRetryable
                | Self::WriterErrorNonRetryable
                | Self::WriterErrorRecoveryFailed
                | Self::WriterErrorPartialFailure
        )
    }
}

impl fmt::Display for VssCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no code of the table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not the name of a VSS error code")]
pub struct UnknownCode(String);

impl FromStr for VssCode {
    type Err = UnknownCode;

    fn from_str(name: &str) -> Result<Self, UnknownCode> {
        Self::ALL
            .iter()
            .copied()
            .find(|code| code.name() == name)
            .ok_or_else(|| UnknownCode(name.chars().take(64).collect()))
    }
}

impl Serialize for VssCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for VssCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

/// What went wrong, for a person and for a program.
///
/// `Display` prints one line: what happened, the code's name and number, and what to do. Serialised with the code's number
/// beside its name; only the name is read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct VssError {
    /// The stable kind.
    pub code: VssCode,
    /// What failed, who, and why: one sentence, capital letter, no full stop.
    pub message: String,
    /// What to do about it; empty when there is nothing to say.
    #[serde(default)]
    pub hint: String,
}

impl VssError {
    /// An error without a hint.
    pub fn new(code: VssCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: String::new() }
    }

    /// The same error with the way out.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The same error, its message preceded by what we were doing.
    #[must_use]
    pub fn while_doing(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl Serialize for VssError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("VssError", 4)?;
        fields.serialize_field("code", &self.code)?;
        fields.serialize_field("number", &self.code.hresult())?;
        fields.serialize_field("message", &self.message)?;
        fields.serialize_field("hint", &self.hint)?;
        fields.end()
    }
}

impl fmt::Display for VssError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {:#X})", self.message, self.code.name(), self.code.hresult())?;
        if !self.hint.is_empty() {
            write!(f, ". {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for VssError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back_and_every_number_is_a_failure() {
        for code in VssCode::ALL {
            assert_eq!(code.name().parse::<VssCode>().unwrap(), *code);
            assert!(code.hresult() & 0x8000_0000 != 0, "{code} is no failure");
        }
    }

    #[test]
    fn of_a_writers_codes_three_pass() {
        let of_writers = VssCode::ALL.iter().filter(|code| code.allowed_from_writer());
        let passing: Vec<&str> = of_writers.filter(|code| code.is_transient()).map(|code| code.name()).collect();
        assert_eq!(passing.len(), 3, "{passing:?}");
        assert!(VssCode::SnapshotSetInProgress.is_transient() && !VssCode::VolumeNotSupported.is_transient());
    }

    #[test]
    fn numbers_are_unique() {
        let mut seen: Vec<u32> = VssCode::ALL.iter().map(|code| code.hresult()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), VssCode::ALL.len());
    }

    #[test]
    fn display_names_cause_code_and_way_out() {
        let error =
            VssError::new(VssCode::VolumeNotSupported, "No provider can copy /tmp").with_hint("Use a btrfs volume");
        let line = "No provider can copy /tmp (VSS_E_VOLUME_NOT_SUPPORTED, 0x8004230C). Use a btrfs volume";
        assert_eq!(error.to_string(), line);
    }
}
