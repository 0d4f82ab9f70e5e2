//! The Backup Components Document (spec R 5.2): what a session says of the components in it.
//!
//! Windows' own are known with a backup's state and its list of components ([`crate::words`] says what is ours). All else that
//! a component can have (spec R 3.8) stands in attributes and elements that are named after the documented calls: an
//! attribute for a setter, an element for what is added, its attributes for the arguments.

use crate::error::{DocumentError, shown};
use crate::fields::Fields;
use crate::schema::{Schema, TypedDocument};
use crate::tree::{Element, Node};
use crate::words::{BACKUP_TYPE, COMPONENT_TYPE, FILE_RESTORE_STATUS, RESTORE_TARGET, RESTORE_TYPE, word};
use crate::writer_metadata::{read_file_set, read_location, write_file_set, write_location};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use vss_model::backup_components::{ComponentFailure, FailureMessages, NewTarget};
use vss_model::{
    BackupComponents, BackupSchema, BackupState, BackupType, ComponentName, DifferencedFiles, DirectedTarget,
    FileRestoreStatus, FileTime, PartialFile, Ranges, RestoreTarget, RestoreType, RollForward, SessionComponent,
    VssCode, WriterComponents,
};

/// A Backup Components Document.
pub type BackupComponentsDocument = TypedDocument<BackupComponents>;

impl Schema for BackupComponents {
    const ROOT: &str = "BACKUP_COMPONENTS";
    const NAMESPACE: &str = "x-schema:#VssComponentMetadata";

    fn read(root: &Fields<'_, '_>) -> Result<Self, DocumentError> {
        let mut components = Self {
            state: BackupState {
                select_components: root.yes("selectComponents")?,
                bootable_system_state: root.yes("bootableSystemStateBackup")?,
                backup_type: root.word("backupType", &BACKUP_TYPE).unwrap_or(BackupType::Other),
                partial_file_support: root.yes("partialFileSupport")?,
            },
            restore_type: root.word("restoreType", &RESTORE_TYPE).unwrap_or_default(),
            set_id: root.optional_id("snapshotSetId")?,
            writers: Vec::new(),
        };
        root.end();
        for (name, fields) in root.elements() {
            match name {
                "WRITER_COMPONENTS" => components.writers.push(read_writer(&fields)?),
                _ => fields.unknown(),
            }
        }
        Ok(components)
    }

    fn write(&self, root: Element) -> Element {
        let state = &self.state;
        let mut root = root
            .with_yes("bootableSystemStateBackup", state.bootable_system_state)
            .with_yes("selectComponents", state.select_components)
            .with("backupType", word(&BACKUP_TYPE, &state.backup_type).unwrap_or_default())
            .with_yes("partialFileSupport", state.partial_file_support);
        if self.restore_type != RestoreType::Undefined {
            root = root.with("restoreType", word(&RESTORE_TYPE, &self.restore_type).unwrap_or_default());
        }
        if let Some(id) = self.set_id {
            root = root.with("snapshotSetId", &id.to_string());
        }
        root.children.extend(self.writers.iter().map(|writer| Node::Element(write_writer(writer))));
        root
    }
}

fn read_writer(fields: &Fields<'_, '_>) -> Result<WriterComponents, DocumentError> {
    let mut writer = WriterComponents {
        instance_id: fields.id("instanceId")?,
        class_id: fields.id("writerId")?,
        name: fields.own_text("name")?,
        backup_schema: fields.number("backupSchema")?.map_or_else(BackupSchema::default, BackupSchema),
        components: Vec::new(),
    };
    fields.end();
    for (name, fields) in fields.elements() {
        match name {
            "COMPONENT" => writer.components.push(read_component(&fields)?),
            _ => fields.unknown(),
        }
    }
    Ok(writer)
}

fn read_name(fields: &Fields<'_, '_>) -> Result<ComponentName, DocumentError> {
    Ok(ComponentName { logical_path: fields.text("logicalPath")?, name: fields.required("componentName")? })
}

fn read_component(fields: &Fields<'_, '_>) -> Result<SessionComponent, DocumentError> {
    let kind = fields.word("componentType", &COMPONENT_TYPE);
    let mut component = SessionComponent {
        kind: kind.ok_or_else(|| fields.invalid("componentType", "neither filegroup nor database"))?,
        name: read_name(fields)?,
        backup_succeeded: fields.optional_yes("backupSucceeded")?,
        backup_options: fields.text("backupOptions")?,
        backup_stamp: fields.text("backupStamp")?,
        previous_backup_stamp: fields.text("previousBackupStamp")?,
        backup_metadata: fields.text("backupMetadata")?,
        restore_metadata: fields.text("restoreMetadata")?,
        restore_options: fields.text("restoreOptions")?,
        selected_for_restore: fields.yes("selectedForRestore")?,
        additional_restores: fields.yes("additionalRestores")?,
        restore_target: fields.word("restoreTarget", &RESTORE_TARGET).unwrap_or_default(),
        file_restore_status: fields.word("fileRestoreStatus", &FILE_RESTORE_STATUS).unwrap_or_default(),
        roll_forward: read_roll_forward(fields)?,
        restore_name: fields.text("restoreName")?,
        authoritative_restore: fields.yes("authoritativeRestore")?,
        failure_messages: FailureMessages {
            prepare_for_backup: fields.text("prepareForBackupFailureMsg")?,
            post_snapshot: fields.text("postSnapshotFailureMsg")?,
            pre_restore: fields.text("preRestoreFailureMsg")?,
            post_restore: fields.text("postRestoreFailureMsg")?,
        },
        ..SessionComponent::default()
    };
    fields.end();
    for (name, fields) in fields.elements() {
        match name {
            "RESTORE_SUBCOMPONENT" => component.restore_subcomponents.push(read_name(&fields)?),
            "FAILURE" if component.failure.is_some() => return Err(fields.twice()),
            "FAILURE" => component.failure = Some(read_failure(&fields)?),
            "ALTERNATE_LOCATION_MAPPING" => component.alternate_locations.push(read_location(&fields)?),
            "NEW_TARGET" => component
                .new_targets
                .push(NewTarget { files: read_file_set(&fields)?, alternate_path: fields.path("alternatePath")? }),
            "DIRECTED_TARGET" => component.directed_targets.push(read_directed_target(&fields)?),
            "PARTIAL_FILE" => component.partial_files.push(PartialFile {
                path: fields.path("path")?,
                file_name: fields.required("filename")?,
                ranges: read_ranges(&fields, "ranges")?,
                metadata: fields.text("metadata")?,
            }),
            "DIFFERENCED_FILES" => component.differenced_files.push(DifferencedFiles {
                files: read_file_set(&fields)?,
                last_modified: FileTime(fields.number("lastModifyTime")?.unwrap_or_default()),
            }),
            _ => {
                fields.unknown();
                continue;
            }
        }
        fields.end_leaf();
    }
    Ok(component)
}

fn read_roll_forward(fields: &Fields<'_, '_>) -> Result<RollForward, DocumentError> {
    let point = fields.text("rollForwardPoint")?;
    let kinds = [(0, "none"), (1, "all"), (2, "partial")];
    Ok(match fields.word("rollForwardType", &kinds) {
        Some(0) => RollForward::None,
        Some(1) => RollForward::All,
        Some(_) => RollForward::Partial(point),
        None => RollForward::Undefined,
    })
}

fn read_failure(fields: &Fields<'_, '_>) -> Result<ComponentFailure, DocumentError> {
    let number: u32 = fields.number("hr")?.ok_or_else(|| fields.invalid("hr", "missing"))?;
    let code = VssCode::ALL.iter().find(|code| code.hresult() == number);
    Ok(ComponentFailure {
        code: *code.ok_or_else(|| fields.invalid("hr", format!("{number:#x} is no code of a writer")))?,
        application_code: fields.number("hrApplication")?.unwrap_or_default(),
        message: fields.text("applicationMessage")?,
    })
}

fn read_directed_target(fields: &Fields<'_, '_>) -> Result<DirectedTarget, DocumentError> {
    Ok(DirectedTarget {
        source_path: fields.path("sourcePath")?,
        source_file_name: fields.required("sourceFilename")?,
        source_ranges: read_ranges(fields, "sourceRangeList")?,
        destination_path: fields.path("destinationPath")?,
        destination_file_name: fields.required("destinationFilename")?,
        destination_ranges: read_ranges(fields, "destinationRangeList")?,
    })
}

/// Ranges, or the path of a ranges file.
fn read_ranges(fields: &Fields<'_, '_>, name: &str) -> Result<Ranges, DocumentError> {
    let path = fields.path(name)?;
    match (path.to_str(), path.as_os_str().as_bytes().strip_prefix(b"File=")) {
        // Only the path of a ranges file can have bytes that are no characters.
        (None, rest) => Ok(Ranges::File(rest.map_or_else(|| path.clone(), |rest| OsStr::from_bytes(rest).into()))),
        (Some(text), _) => Ranges::parse(text).map_err(|error| fields.invalid(name, shown(&error.message))),
    }
}

fn write_writer(writer: &WriterComponents) -> Element {
    let mut element = Element::new("WRITER_COMPONENTS")
        .with("instanceId", &writer.instance_id.to_string())
        .with("writerId", &writer.class_id.to_string())
        .with("backupSchema", &writer.backup_schema.0.to_string());
    if !writer.name.is_empty() {
        element = element.with_own_text("name", &writer.name);
    }
    element.children.extend(writer.components.iter().map(|component| Node::Element(write_component(component))));
    element
}

fn write_name(element: Element, name: &ComponentName) -> Element {
    element.with_some("logicalPath", &name.logical_path).with("componentName", &name.name)
}

fn write_component(component: &SessionComponent) -> Element {
    let messages = &component.failure_messages;
    let mut element = write_name(Element::new("COMPONENT"), &component.name)
        .with("componentType", word(&COMPONENT_TYPE, &component.kind).unwrap_or_default());
    if let Some(succeeded) = component.backup_succeeded {
        element = element.with_yes("backupSucceeded", succeeded);
    }
    element = element
        .with_some("backupOptions", &component.backup_options)
        .with_some("backupStamp", &component.backup_stamp)
        .with_some("previousBackupStamp", &component.previous_backup_stamp)
        .with_some("backupMetadata", &component.backup_metadata)
        .with_some("restoreMetadata", &component.restore_metadata)
        .with_some("restoreOptions", &component.restore_options)
        .with_yes_only("selectedForRestore", component.selected_for_restore)
        .with_yes_only("additionalRestores", component.additional_restores);
    if component.restore_target != RestoreTarget::default() {
        element = element.with("restoreTarget", word(&RESTORE_TARGET, &component.restore_target).unwrap_or_default());
    }
    if component.file_restore_status != FileRestoreStatus::default() {
        let status = word(&FILE_RESTORE_STATUS, &component.file_restore_status).unwrap_or_default();
        element = element.with("fileRestoreStatus", status);
    }
    element = match &component.roll_forward {
        RollForward::Undefined => element,
        RollForward::None => element.with("rollForwardType", "none"),
        RollForward::All => element.with("rollForwardType", "all"),
        RollForward::Partial(point) => element.with("rollForwardType", "partial").with_some("rollForwardPoint", point),
    };
    element = element
        .with_some("restoreName", &component.restore_name)
        .with_yes_only("authoritativeRestore", component.authoritative_restore)
        .with_some("prepareForBackupFailureMsg", &messages.prepare_for_backup)
        .with_some("postSnapshotFailureMsg", &messages.post_snapshot)
        .with_some("preRestoreFailureMsg", &messages.pre_restore)
        .with_some("postRestoreFailureMsg", &messages.post_restore);
    let parts = component.restore_subcomponents.iter();
    let mut children: Vec<Element> = parts.map(|name| write_name(Element::new("RESTORE_SUBCOMPONENT"), name)).collect();
    children.extend(component.failure.as_ref().map(|failure| {
        Element::new("FAILURE")
            .with("hr", &failure.code.hresult().to_string())
            .with("hrApplication", &failure.application_code.to_string())
            .with_some("applicationMessage", &failure.message)
    }));
    children.extend(component.alternate_locations.iter().map(write_location));
    children.extend(component.new_targets.iter().map(|target| {
        write_file_set(Element::new("NEW_TARGET"), &target.files).with_path("alternatePath", &target.alternate_path)
    }));
    children.extend(component.directed_targets.iter().map(write_directed_target));
    children.extend(component.partial_files.iter().map(|part| {
        let element = Element::new("PARTIAL_FILE").with_path("path", &part.path).with("filename", &part.file_name);
        write_ranges(element, "ranges", &part.ranges).with_some("metadata", &part.metadata)
    }));
    children.extend(component.differenced_files.iter().map(|one| {
        write_file_set(Element::new("DIFFERENCED_FILES"), &one.files)
            .with("lastModifyTime", &one.last_modified.0.to_string())
    }));
    element.children.extend(children.into_iter().map(Node::Element));
    element
}

fn write_directed_target(target: &DirectedTarget) -> Element {
    let element = Element::new("DIRECTED_TARGET")
        .with_path("sourcePath", &target.source_path)
        .with("sourceFilename", &target.source_file_name);
    let element = write_ranges(element, "sourceRangeList", &target.source_ranges)
        .with_path("destinationPath", &target.destination_path)
        .with("destinationFilename", &target.destination_file_name);
    write_ranges(element, "destinationRangeList", &target.destination_ranges)
}

fn write_ranges(element: Element, name: &str, ranges: &Ranges) -> Element {
    match ranges {
        Ranges::List(_) => element.with(name, &ranges.to_string()),
        Ranges::File(path) => {
            let mut text = OsString::from("File=");
            text.push(path);
            element.with_path(name, Path::new(&text))
        }
    }
}
