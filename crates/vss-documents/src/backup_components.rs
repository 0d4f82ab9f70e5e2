//! The Backup Components Document (spec R 5.2): what a session says of the components in it.
//!
//! Windows' own are known with a backup's state and its list of components ([`crate::words`] says what is ours). All else that
//! a component can have (spec R 3.8) stands in attributes and elements that are named after the documented calls: an
//! attribute for a setter, an element for what is added, its attributes for the arguments.

use crate::error::{DocumentError, Remark, shown};
use crate::fields::{Fields, NAMESPACE, PREFIX, Reading};
use crate::merge;
use crate::tree::{Document, Element, Node};
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

/// The root.
pub(crate) const ROOT: &str = "BACKUP_COMPONENTS";
/// Its namespace, as Windows writes it.
const SCHEMA: &str = "x-schema:#VssComponentMetadata";
/// The version that Windows writes.
const VERSION: &str = "1.2";

/// A Backup Components Document: what it says, and how it was written.
#[derive(Debug, Clone)]
pub struct BackupComponentsDocument {
    document: Document,
    components: BackupComponents,
    remarks: Vec<Remark>,
    unsaid: usize,
}

impl BackupComponentsDocument {
    /// A new document of this session.
    ///
    /// # Errors
    /// [`crate::Fault::Invalid`] for what could not be read back: a component without a name, a pattern that is empty.
    pub fn new(components: &BackupComponents) -> Result<Self, DocumentError> {
        Self::of(Document::of(write(components)))
    }

    /// Reads a document.
    ///
    /// # Errors
    /// Those of [`Document::parse`]; [`crate::Fault::Invalid`] for another document, for what is missing and what is no value of
    /// its attribute. What this release does not know is no error: see [`Self::remarks`].
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        Self::of(Document::parse(bytes)?)
    }

    /// The same for a document that was read without its schema.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn of(document: Document) -> Result<Self, DocumentError> {
        let reading = Reading::new(&document, ROOT, SCHEMA)?;
        let components = read(&reading.root())?;
        let (remarks, unsaid) = reading.into_remarks();
        Ok(Self { document, components, remarks, unsaid })
    }

    /// What it says.
    #[must_use]
    pub const fn components(&self) -> &BackupComponents {
        &self.components
    }

    /// Changes what it says. What this release does not know stays where it stands; what did not change stays as it was
    /// written, in its order.
    ///
    /// # Errors
    /// As [`Self::new`]; nothing is changed then.
    pub fn set_components(&mut self, components: &BackupComponents) -> Result<(), DocumentError> {
        let mut document = self.document.clone();
        merge::apply(&mut document, &write(&self.components), write(components));
        *self = Self::of(document)?;
        Ok(())
    }

    /// The document as it is written.
    #[must_use]
    pub const fn document(&self) -> &Document {
        &self.document
    }

    /// What was not known when it was read, and how much more of it there was than is kept.
    #[must_use]
    pub fn remarks(&self) -> (&[Remark], usize) {
        (&self.remarks, self.unsaid)
    }
}

fn read(root: &Fields<'_, '_>) -> Result<BackupComponents, DocumentError> {
    root.text("version")?;
    let mut components = BackupComponents {
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

/// The root with all that the session says, attributes and elements in the order of Windows.
fn write(components: &BackupComponents) -> Element {
    let state = &components.state;
    let mut root = Element::new(ROOT)
        .with("xmlns", SCHEMA)
        .with("version", VERSION)
        .with_yes("bootableSystemStateBackup", state.bootable_system_state)
        .with_yes("selectComponents", state.select_components)
        .with("backupType", word(&BACKUP_TYPE, &state.backup_type).unwrap_or_default())
        .with_yes("partialFileSupport", state.partial_file_support);
    if components.restore_type != RestoreType::Undefined {
        root = root.with("restoreType", word(&RESTORE_TYPE, &components.restore_type).unwrap_or_default());
    }
    if let Some(id) = components.set_id {
        root = root.with("snapshotSetId", &id.to_string());
    }
    root.children.extend(components.writers.iter().map(|writer| Node::Element(write_writer(writer))));
    if root.has_own() {
        root = root.with(&format!("xmlns:{PREFIX}"), NAMESPACE);
    }
    root
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
