//! Messages of `org.linuxvss.Writer`: registering, and the events that the service then calls (spec R 2, design 2.4).
//!
//! A writer calls `Register` with `"upgrade": true`. From the reply on the line is turned round: the service calls the
//! events on the same connection, one after another, and each reply is the acknowledgement. The connection's end is the end
//! of the registration; inside the freeze window it is a failed writer.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use vss_model::{
    AppLevel, Attributes, BackupState, Component, ComponentData, ComponentName, Context, Declaration, Json, SessionId,
    SetId, ShadowId, Usage, VolumeId, VssCode, VssError, WriterClassId, WriterInstanceId, WriterMetadata, WriterState,
};

/// The name of the interface.
pub const INTERFACE: &str = "org.linuxvss.Writer";

/// What a writer calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", content = "parameters")]
pub enum Call {
    /// Joins, with `"upgrade": true`.
    #[serde(rename = "org.linuxvss.Writer.Register")]
    Register(Register),
}

/// Parameters of `Register`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// The kind of writer; belongs from the first registration on to the uid that made it.
    pub class_id: WriterClassId,
    /// Its name for people and for `--writer`: 1 to 128 bytes.
    pub name: String,
    /// Unique among the instances of the class on a machine; empty for a class with one instance.
    #[serde(default)]
    pub instance_name: String,
    /// What its data is for.
    #[serde(default)]
    pub usage: Usage,
    /// When it is frozen.
    #[serde(default)]
    pub level: AppLevel,
    /// Longest time from its Freeze to its Thaw in milliseconds, 1 to 60000; none: 60000 (spec R 2.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freeze_timeout_ms: Option<u64>,
}

impl Register {
    /// A front-end writer of user data with one instance and 60 s from Freeze to Thaw.
    #[must_use]
    pub fn new(class_id: WriterClassId, name: impl Into<String>) -> Self {
        Self {
            class_id,
            name: name.into(),
            instance_name: String::new(),
            usage: Usage::default(),
            level: AppLevel::default(),
            freeze_timeout_ms: None,
        }
    }

    /// The metadata of this writer as others see it once it said what it owns.
    #[must_use]
    pub fn metadata(self, instance_id: WriterInstanceId, identity: Identity) -> WriterMetadata {
        WriterMetadata {
            class_id: self.class_id,
            instance_id,
            name: self.name,
            instance_name: self.instance_name,
            usage: self.usage,
            level: self.level,
            components: identity.components,
            declaration: identity.declaration,
            other: identity.other,
        }
    }
}

/// Reply to `Register`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The id of this registration.
    pub instance_id: WriterInstanceId,
    /// Who serves, for example `vssd 0.1.0`.
    pub service: String,
}

/// What the service calls on a writer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", content = "parameters")]
pub enum EventCall {
    /// Say what you own. Any requester, any time; keep no state. Reply: [`Identity`].
    #[serde(rename = "org.linuxvss.Writer.Identify")]
    Identify(Identify),
    /// A backup begins; slow work may start. Reply, here and below: [`EventReply`].
    #[serde(rename = "org.linuxvss.Writer.PrepareBackup")]
    PrepareBackup(Event),
    /// The copy is near: checkpoint, drain, dump; slow work ends here.
    #[serde(rename = "org.linuxvss.Writer.PrepareSnapshot")]
    PrepareSnapshot(Event),
    /// Hold still, quickly.
    #[serde(rename = "org.linuxvss.Writer.Freeze")]
    Freeze(Event),
    /// Go on.
    #[serde(rename = "org.linuxvss.Writer.Thaw")]
    Thaw(Event),
    /// The copy exists and is writable; mend it. File descriptors of its directories come with the call.
    #[serde(rename = "org.linuxvss.Writer.PostSnapshot")]
    PostSnapshot(Event),
    /// It will not complete: go back to normal. May come more than once.
    #[serde(rename = "org.linuxvss.Writer.Abort")]
    Abort(Event),
    /// The files are in the backup; logs may be truncated.
    #[serde(rename = "org.linuxvss.Writer.BackupComplete")]
    BackupComplete(Event),
    /// The session is over.
    #[serde(rename = "org.linuxvss.Writer.BackupShutdown")]
    BackupShutdown(Event),
}

/// The events of a writer, without their parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// See [`EventCall::Identify`].
    Identify,
    /// See [`EventCall::PrepareBackup`].
    PrepareBackup,
    /// See [`EventCall::PrepareSnapshot`].
    PrepareSnapshot,
    /// See [`EventCall::Freeze`].
    Freeze,
    /// See [`EventCall::Thaw`].
    Thaw,
    /// See [`EventCall::PostSnapshot`].
    PostSnapshot,
    /// See [`EventCall::Abort`].
    Abort,
    /// See [`EventCall::BackupComplete`].
    BackupComplete,
    /// See [`EventCall::BackupShutdown`].
    BackupShutdown,
}

impl EventKind {
    /// Every event, in the order of a backup; Abort stands where it replaces the rest.
    pub const ALL: [Self; 9] = [
        Self::Identify,
        Self::PrepareBackup,
        Self::PrepareSnapshot,
        Self::Freeze,
        Self::Thaw,
        Self::PostSnapshot,
        Self::Abort,
        Self::BackupComplete,
        Self::BackupShutdown,
    ];

    /// The method's last word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identify => "Identify",
            Self::PrepareBackup => "PrepareBackup",
            Self::PrepareSnapshot => "PrepareSnapshot",
            Self::Freeze => "Freeze",
            Self::Thaw => "Thaw",
            Self::PostSnapshot => "PostSnapshot",
            Self::Abort => "Abort",
            Self::BackupComplete => "BackupComplete",
            Self::BackupShutdown => "BackupShutdown",
        }
    }

    /// The state of a writer that handled the event; none where the event does not move it (spec R 2.7).
    #[must_use]
    pub const fn state_after(self) -> Option<WriterState> {
        match self {
            Self::PrepareSnapshot => Some(WriterState::WaitingForFreeze),
            Self::Freeze => Some(WriterState::WaitingForThaw),
            Self::Thaw => Some(WriterState::WaitingForPostSnapshot),
            Self::PostSnapshot => Some(WriterState::WaitingForBackupComplete),
            Self::PrepareBackup | Self::BackupComplete => Some(WriterState::Stable),
            Self::Identify | Self::Abort | Self::BackupShutdown => None,
        }
    }

    /// The state of a writer that failed in the event.
    #[must_use]
    pub const fn state_failed(self) -> WriterState {
        match self {
            Self::Identify => WriterState::FailedAtIdentify,
            Self::PrepareBackup => WriterState::FailedAtPrepareBackup,
            Self::PrepareSnapshot => WriterState::FailedAtPrepareSnapshot,
            Self::Freeze => WriterState::FailedAtFreeze,
            Self::Thaw => WriterState::FailedAtThaw,
            Self::PostSnapshot => WriterState::FailedAtPostSnapshot,
            Self::BackupComplete => WriterState::FailedAtBackupComplete,
            Self::Abort | Self::BackupShutdown => WriterState::FailedAtBackupShutdown,
        }
    }
}

/// Parameters of `Identify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identify {
    /// The session that asks; of a check an id that no session has.
    pub session_id: SessionId,
    /// Milliseconds until an answer comes too late.
    pub time_left_ms: u64,
}

/// Reply to `Identify`: what the writer owns.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Identity {
    /// Its components.
    #[serde(default)]
    pub components: Vec<Component>,
    /// What it says beside its components.
    #[serde(flatten)]
    pub declaration: Declaration,
    /// Fields that this release does not know; kept in the metadata.
    #[serde(flatten)]
    pub other: BTreeMap<String, Json>,
}

impl Identity {
    /// A writer that owns these.
    #[must_use]
    pub fn of(components: impl IntoIterator<Item = Component>) -> Self {
        Self { components: components.into_iter().collect(), ..Self::default() }
    }

    /// The same writer, with what it says beside its components.
    #[must_use]
    pub fn declaring(self, declaration: Declaration) -> Self {
        Self { declaration, ..self }
    }
}

/// What every event carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The session.
    pub session_id: SessionId,
    /// The set; none when no snapshot belongs to the backup.
    pub set_id: Option<SetId>,
    /// What the set is for.
    pub context: Context,
    /// `VSS_VOLSNAP_ATTR_*` bits: those of the context and those that the requester added.
    #[serde(default)]
    pub attributes: Attributes,
    /// What kind of backup it is.
    pub backup_state: BackupState,
    /// The writer's components that the backup concerns.
    pub components: Vec<EventComponent>,
    /// The volumes of the set.
    pub volumes: Vec<EventVolume>,
    /// Milliseconds until an answer comes too late; in Freeze: until the writer's own limit from Freeze to Thaw ends.
    pub time_left_ms: u64,
}

/// A component that the backup concerns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventComponent {
    /// Logical path and name.
    #[serde(flatten)]
    pub name: ComponentName,
    /// The requester's words for the writer; none when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_options: Option<String>,
    /// The stamp that the writer gave to the backup that this one builds on; none when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_backup_stamp: Option<String>,
    /// Was it backed up? In BackupComplete only (spec R 2.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_succeeded: Option<bool>,
}

impl EventComponent {
    /// The component, with nothing said of it.
    #[must_use]
    pub const fn of(name: ComponentName) -> Self {
        Self { name, backup_options: None, previous_backup_stamp: None, backup_succeeded: None }
    }
}

/// A volume of the set, as writers see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventVolume {
    /// Where it is mounted.
    #[serde(with = "vss_model::path_text")]
    pub volume: PathBuf,
    /// Its lasting name.
    pub volume_id: VolumeId,
    /// Its shadow copy.
    pub shadow_id: ShadowId,
    /// The provider that makes it.
    pub provider: String,
    /// Volumes with the same number are planned to be cut at one instant.
    pub cut_group: u32,
    /// In PostSnapshot: the index of the directory's file descriptor among those that came with the call; what stands in
    /// the copy for the mount point, writable until the reply. None where the copy cannot be written to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<u32>,
}

/// A writer's answer to an event. `{}` is success.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EventReply {
    /// The state that the writer is in; left out: what the event's success leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<WriterState>,
    /// Why it failed: one of `VSS_E_WRITERERROR_*` (spec R 2.9); left out with a failed state: NONRETRYABLE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<VssCode>,
    /// The application's own number for the failure, for its own support (spec R 2.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application_code: Option<u32>,
    /// Why it failed, for a person: at most 4096 characters are kept.
    #[serde(default)]
    pub message: String,
    /// Components that failed alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<ComponentReply>,
    /// Fields that this release does not know; ignored.
    #[serde(flatten)]
    pub other: BTreeMap<String, Json>,
}

/// What a writer says of one component in its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentReply {
    /// Logical path and name.
    #[serde(flatten)]
    pub name: ComponentName,
    /// Why it failed; left out: it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<VssCode>,
    /// The application's own number for the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application_code: Option<u32>,
    /// Why, for a person.
    #[serde(default)]
    pub message: String,
    /// What the backup is to keep of it; in the answers to PrepareBackup and PostSnapshot alone (spec R 5.2).
    #[serde(flatten)]
    pub data: ComponentData,
}

impl ComponentReply {
    /// Nothing to say of this component, yet.
    #[must_use]
    pub fn of(name: ComponentName) -> Self {
        Self { name, code: None, application_code: None, message: String::new(), data: ComponentData::default() }
    }
}

impl EventReply {
    /// An answer that says: failed.
    #[must_use]
    pub fn failed(event: EventKind, error: VssError) -> Self {
        Self { state: Some(event.state_failed()), code: Some(error.code), message: error.message, ..Self::default() }
    }

    /// The failure that the answer tells of the whole writer; a code that writers may not use reads as NONRETRYABLE with
    /// its name kept in the message.
    #[must_use]
    pub fn failure(&self) -> Option<VssError> {
        let code = match (self.code, self.state) {
            (Some(code), _) => code,
            (None, Some(state)) if state.is_failed() => VssCode::WriterErrorNonRetryable,
            (None, _) => return None,
        };
        let mut message: String = self.message.chars().take(4096).collect();
        if message.is_empty() {
            message.push_str("it gave no reason");
        }
        Some(if code.allowed_from_writer() {
            VssError::new(code, message)
        } else {
            VssError::new(VssCode::WriterErrorNonRetryable, format!("{message} ({code})"))
        })
    }
}
