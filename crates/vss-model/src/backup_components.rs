//! What a session says of the components in it: what the Backup Components Document holds (spec R 3.8 and 5.2).
//!
//! The requester and the writers speak to each other through it. Files are not in it: those stand in the writers' metadata.

use crate::component::is_default;
use crate::{
    AlternateLocation, BackupSchema, BackupState, ComponentKind, ComponentName, FileRestoreStatus, FileSet,
    RestoreTarget, RestoreType, RollForward, SetId, VssCode, VssError, WriterClassId, WriterInstanceId, WriterMetadata,
    differenced_file::DifferencedFiles,
    partial_file::{DirectedTarget, PartialFile},
};
use serde::{Deserialize, Serialize};

/// What one session has gathered for its document.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BackupComponents {
    /// What SetBackupState said.
    #[serde(default)]
    pub state: BackupState,
    /// What brings the data back, in a restore.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restore_type: RestoreType,
    /// The shadow copy set; none for a backup without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_id: Option<SetId>,
    /// The writers with components in the session, each once.
    #[serde(default)]
    pub writers: Vec<WriterComponents>,
}

/// One writer with its explicitly included components.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterComponents {
    /// The running writer; means nothing once it has ended.
    pub instance_id: WriterInstanceId,
    /// Its kind.
    pub class_id: WriterClassId,
    /// Its name as it was at the backup; empty in a document of Windows, which keeps none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub name: String,
    /// What it could do beyond full backups.
    #[serde(default, skip_serializing_if = "is_default")]
    pub backup_schema: BackupSchema,
    /// Its components.
    #[serde(default)]
    pub components: Vec<SessionComponent>,
}

/// A failure that a writer reports of one component (spec R 2.9).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentFailure {
    /// One of the five `VSS_E_WRITERERROR_*` that components may have.
    pub code: VssCode,
    /// The application's own number; 0 when it has none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub application_code: u32,
    /// Why, for a person.
    #[serde(default)]
    pub message: String,
}

/// What writers say for a person when an event fails for one component.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FailureMessages {
    /// SetPrepareForBackupFailureMsg.
    #[serde(default, skip_serializing_if = "is_default")]
    pub prepare_for_backup: String,
    /// SetPostSnapshotFailureMsg.
    #[serde(default, skip_serializing_if = "is_default")]
    pub post_snapshot: String,
    /// SetPreRestoreFailureMsg.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pre_restore: String,
    /// SetPostRestoreFailureMsg.
    #[serde(default, skip_serializing_if = "is_default")]
    pub post_restore: String,
}

/// Files that the requester restores to another place than they had (spec R 3.8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewTarget {
    /// A file set of the component or of what is below it.
    #[serde(flatten)]
    pub files: FileSet,
    /// The other directory.
    #[serde(with = "crate::path_text")]
    pub alternate_path: std::path::PathBuf,
}

/// One explicitly included component, and all that is said of it and of what it brings in (spec R 3.8).
///
/// Text that nobody but the writer understands is empty while nobody has set it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionComponent {
    /// Database or file group.
    #[serde(rename = "type")]
    pub kind: ComponentKind,
    /// Logical path and name.
    #[serde(flatten)]
    pub name: ComponentName,
    /// What SetBackupSucceeded said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_succeeded: Option<bool>,
    /// The requester's options for the writer.
    #[serde(skip_serializing_if = "is_default")]
    pub backup_options: String,
    /// The writer's mark of this backup.
    #[serde(skip_serializing_if = "is_default")]
    pub backup_stamp: String,
    /// The mark of the backup that this one builds on.
    #[serde(skip_serializing_if = "is_default")]
    pub previous_backup_stamp: String,
    /// What the writer wants to read again at restore.
    #[serde(skip_serializing_if = "is_default")]
    pub backup_metadata: String,
    /// What the writer tells itself from PreRestore to PostRestore.
    #[serde(skip_serializing_if = "is_default")]
    pub restore_metadata: String,
    /// The requester's options for the writer at restore.
    #[serde(skip_serializing_if = "is_default")]
    pub restore_options: String,
    /// True when it is to be restored.
    #[serde(skip_serializing_if = "is_default")]
    pub selected_for_restore: bool,
    /// Of what it brings in, only these are restored; empty: all of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub restore_subcomponents: Vec<ComponentName>,
    /// True when another restore of the chain follows, so that the writer must not bring it online yet.
    #[serde(skip_serializing_if = "is_default")]
    pub additional_restores: bool,
    /// Where it goes.
    #[serde(skip_serializing_if = "is_default")]
    pub restore_target: RestoreTarget,
    /// What became of its files.
    #[serde(skip_serializing_if = "is_default")]
    pub file_restore_status: FileRestoreStatus,
    /// How far logs are replayed.
    #[serde(skip_serializing_if = "is_default")]
    pub roll_forward: RollForward,
    /// Its name after the restore.
    #[serde(skip_serializing_if = "is_default")]
    pub restore_name: String,
    /// True for an authoritative restore.
    #[serde(skip_serializing_if = "is_default")]
    pub authoritative_restore: bool,
    /// What writers said of failed events.
    #[serde(skip_serializing_if = "is_default")]
    pub failure_messages: FailureMessages,
    /// Why its writer gave it up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<ComponentFailure>,
    /// Mappings that were used, of those that the metadata offers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alternate_locations: Vec<AlternateLocation>,
    /// Files that the requester restores elsewhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub new_targets: Vec<NewTarget>,
    /// Parts of files that the writer restores elsewhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub directed_targets: Vec<DirectedTarget>,
    /// Files of which parts are in the backup.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partial_files: Vec<PartialFile>,
    /// Files that are in the backup when they changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differenced_files: Vec<DifferencedFiles>,
}

impl BackupComponents {
    /// What a session says before it has a set or a component.
    #[must_use]
    pub fn of(state: BackupState) -> Self {
        Self { state, ..Self::default() }
    }

    /// Adds an explicitly included component of this writer, and gives it back for what is said of it. Whether it may be
    /// added beside the others is asked of [`crate::selection::check_explicit`].
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND` when the writer has no such component, `VSS_E_OBJECT_ALREADY_EXISTS` when it was added.
    pub fn add(&mut self, writer: &WriterMetadata, name: &ComponentName) -> Result<&mut SessionComponent, VssError> {
        let Some(component) = writer.component(name) else {
            let message = format!("Writer {} has no component {name}", writer.name);
            return Err(VssError::new(VssCode::ObjectNotFound, message));
        };
        let is_it = |one: &WriterComponents| one.instance_id == writer.instance_id && one.class_id == writer.class_id;
        let place = self.writers.iter().position(is_it).unwrap_or_else(|| {
            self.writers.push(WriterComponents {
                instance_id: writer.instance_id,
                class_id: writer.class_id,
                name: writer.name.clone(),
                backup_schema: writer.declaration.backup_schema,
                components: Vec::new(),
            });
            self.writers.len() - 1
        });
        let components = &mut self.writers[place].components;
        if components.iter().any(|one| one.name == *name) {
            let message = format!("Component {name} of writer {} was added before", writer.name);
            return Err(VssError::new(VssCode::ObjectAlreadyExists, message));
        }
        components.push(SessionComponent { kind: component.kind, name: name.clone(), ..SessionComponent::default() });
        let last = components.len() - 1;
        Ok(&mut components[last])
    }

    /// The components of writers of this kind: an instance id means nothing at restore (spec R 1.7).
    pub fn of_class(&self, class: WriterClassId) -> impl Iterator<Item = &SessionComponent> {
        self.writers.iter().filter(move |writer| writer.class_id == class).flat_map(|writer| &writer.components)
    }

    /// Carries the stamps of the backup that this one builds on: each component's previous stamp becomes the stamp that its
    /// namesake of the same kind of writer has there (spec R 4.2). For backups that build on another alone.
    ///
    /// Returns how many components got one.
    pub fn carry_stamps(&mut self, base: &Self) -> usize {
        if !self.state.backup_type.builds_on_another() {
            return 0;
        }
        let mut carried = 0;
        for writer in &mut self.writers {
            for component in &mut writer.components {
                let before =
                    base.of_class(writer.class_id).find(|one| one.name == component.name && one.kind == component.kind);
                if let Some(before) = before.filter(|before| !before.backup_stamp.is_empty()) {
                    component.previous_backup_stamp.clone_from(&before.backup_stamp);
                    carried += 1;
                }
            }
        }
        carried
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AppLevel, BackupType, Component, Usage};

    fn writer() -> WriterMetadata {
        WriterMetadata {
            class_id: WriterClassId::from_u128(1),
            instance_id: WriterInstanceId::from_u128(2),
            name: "shop".to_owned(),
            instance_name: String::new(),
            usage: Usage::UserData,
            level: AppLevel::BackEnd,
            components: vec![
                Component::database("orders").build().unwrap(),
                Component::database("users").build().unwrap(),
            ],
            declaration: crate::Declaration::default(),
            other: std::collections::BTreeMap::new(),
        }
    }

    fn name(name: &str) -> ComponentName {
        ComponentName::new("", name)
    }

    #[test]
    fn each_component_is_added_once_and_below_one_entry_of_its_writer() {
        let mut session = BackupComponents::of(BackupState::default());
        session.add(&writer(), &name("orders")).unwrap().backup_succeeded = Some(true);
        session.add(&writer(), &name("users")).unwrap();
        assert_eq!(session.add(&writer(), &name("orders")).unwrap_err().code, VssCode::ObjectAlreadyExists);
        assert_eq!(session.add(&writer(), &name("none")).unwrap_err().code, VssCode::ObjectNotFound);
        assert_eq!(session.writers.len(), 1);
        assert_eq!(session.of_class(WriterClassId::from_u128(1)).count(), 2);
        assert_eq!(session.writers[0].components[0].backup_succeeded, Some(true));
    }

    #[test]
    fn spec_4_2_stamps_go_from_the_base_to_what_builds_on_it() {
        let mut base = BackupComponents::of(BackupState::default());
        base.add(&writer(), &name("orders")).unwrap().backup_stamp = "42".to_owned();
        base.add(&writer(), &name("users")).unwrap();
        for (backup_type, wanted) in [
            (BackupType::Incremental, "42"),
            (BackupType::Differential, "42"),
            (BackupType::Log, "42"),
            (BackupType::Full, ""),
            (BackupType::Copy, ""),
        ] {
            let mut next = BackupComponents::of(BackupState { backup_type, ..BackupState::default() });
            // Restarted meanwhile: another instance of the same kind.
            let writer = WriterMetadata { instance_id: WriterInstanceId::from_u128(9), ..writer() };
            next.add(&writer, &name("users")).unwrap();
            next.add(&writer, &name("orders")).unwrap();
            assert_eq!(next.carry_stamps(&base), usize::from(!wanted.is_empty()));
            let stamps: Vec<&str> =
                next.of_class(writer.class_id).map(|one| one.previous_backup_stamp.as_str()).collect();
            assert_eq!(stamps, ["", wanted], "{backup_type:?}");
        }
    }
}
