//! The words of the house: ids, error codes, contexts, attributes, states, components, limits and records.
//!
//! Everything here is plain data with pure functions. No input, no output, no clock, no system call: those live on the
//! floors above. Numbers are Microsoft's where the concept is Microsoft's; each names its section of the specification
//! ("spec R" is the requester and writer contract, "spec P" the provider and tools contract).

pub mod backup;
pub mod backup_components;
pub mod backup_data;
mod bits;
pub mod bytes;
pub mod claim;
pub mod component;
pub mod consistency;
pub mod context;
pub mod creation;
pub mod dependency;
pub mod differenced_file;
pub mod error;
pub mod extent;
pub mod file_spec;
pub mod id;
pub mod involvement;
pub mod json;
pub mod level;
pub mod limits;
pub mod metadata;
pub mod named_writers;
pub mod object;
pub mod partial_file;
pub mod path_text;
pub mod pattern;
pub mod progress;
pub mod proof;
pub mod restore;
pub mod schema;
pub mod selection;
pub mod shadow;
pub mod storage;
pub mod time;
pub mod volume;
pub mod writer;

pub use backup::{BackupState, BackupType};
pub use backup_components::{BackupComponents, SessionComponent, WriterComponents};
pub use backup_data::ComponentData;
pub use bytes::Bytes;
pub use claim::Claim;
pub use component::{Component, ComponentFlags, ComponentKind, ComponentName};
pub use consistency::Consistency;
pub use context::{Attributes, Context};
pub use creation::{CopyForecast, CreationOptions, PlaceForecast};
pub use dependency::Dependency;
pub use differenced_file::{DifferencedFiles, FileTime};
pub use error::{VssCode, VssError};
pub use extent::Extent;
pub use file_spec::{AlternateLocation, FileBackupMask, FileSet, FileSpec};
pub use id::{OperationId, ProviderId, SessionId, SetId, ShadowId, WriterClassId, WriterInstanceId};
pub use json::Json;
pub use metadata::{DataSource, Declaration, WriterMetadata};
pub use object::{ObjectType, SnapshotProperties, SnapshotProperty, SnapshotState};
pub use partial_file::{ByteRange, DirectedTarget, PartialFile, Ranges};
pub use progress::{Progress, Work};
pub use proof::{GuardAnswer, HoldProof, HoldSpan, MemberProof, Span};
pub use restore::{
    FileRestoreStatus, RestoreMethod, RestoreMethodKind, RestoreTarget, RestoreType, RollForward, WriterRestore,
};
pub use schema::BackupSchema;
pub use shadow::{ComponentRecord, NestedCopy, ShadowCopy, ShadowCopySet, WriterRecord};
pub use storage::Storage;
pub use time::Instant;
pub use volume::{FreezePolicy, Volume, VolumeId};
pub use writer::{AppLevel, Usage, WriterState, WriterStatus};
