//! The Writer Metadata Document (spec R 5.1): what one writer owns.

use crate::error::DocumentError;
use crate::fields::Fields;
use crate::schema::{Schema, TypedDocument};
use crate::tree::{Element, Node};
use crate::words::{LEVEL, METHOD, SOURCE, USAGE, WRITER_RESTORE, word};
use std::collections::BTreeMap;
use vss_model::{
    AlternateLocation, BackupSchema, Component, ComponentFlags, ComponentKind, ComponentName, DataSource, Declaration,
    Dependency, FileBackupMask, FileSet, FileSpec, Json, RestoreMethod, Usage, WriterMetadata,
};

/// A Writer Metadata Document.
pub type WriterMetadataDocument = TypedDocument<WriterMetadata>;

impl Schema for WriterMetadata {
    const ROOT: &str = "WRITER_METADATA";
    const NAMESPACE: &str = "x-schema:#VssWriterMetadataInfo";

    fn read(root: &Fields<'_, '_>) -> Result<Self, DocumentError> {
        let backup_schema = root.number("backupSchema")?.map_or_else(BackupSchema::default, BackupSchema);
        root.end();
        let mut metadata = None;
        let (mut has_method, mut restore_method, mut has_locations) = (false, None, false);
        let mut locations = Vec::new();
        let mut rest = (Vec::new(), Vec::new(), Vec::new());
        for (name, fields) in root.elements() {
            match name {
                "IDENTIFICATION" if metadata.is_some() => return Err(fields.twice()),
                "IDENTIFICATION" => metadata = Some(read_identification(&fields)?),
                "RESTORE_METHOD" if has_method => return Err(fields.twice()),
                "RESTORE_METHOD" => {
                    has_method = true;
                    restore_method = read_restore_method(&fields)?;
                    for (name, fields) in fields.elements() {
                        match name {
                            "ALTERNATE_LOCATION_MAPPING" => locations.push(read_location(&fields)?),
                            _ => fields.unknown(),
                        }
                    }
                }
                "BACKUP_LOCATIONS" if has_locations => return Err(fields.twice()),
                "BACKUP_LOCATIONS" => {
                    has_locations = true;
                    read_locations(&fields, &mut rest)?;
                }
                _ => fields.unknown(),
            }
        }
        let mut metadata = metadata.ok_or_else(|| root.missing("IDENTIFICATION"))?;
        metadata.components = rest.0;
        metadata.declaration = Declaration {
            backup_schema,
            restore_method,
            alternate_locations: locations,
            exclude_files: rest.1,
            exclude_files_from_snapshot: rest.2,
            ..metadata.declaration
        };
        Ok(metadata)
    }

    fn write(&self, mut root: Element) -> Element {
        let declaration = &self.declaration;
        if declaration.backup_schema.0 != 0 {
            root = root.with("backupSchema", &declaration.backup_schema.0.to_string());
        }
        root.children.push(Node::Element(write_identification(self)));
        if declaration.restore_method.is_some() || !declaration.alternate_locations.is_empty() {
            root.children.push(Node::Element(write_restore_method(declaration)));
        }
        let mut locations = Element::new("BACKUP_LOCATIONS");
        locations.children.extend(self.components.iter().map(|component| Node::Element(write_component(component))));
        let excluded = |name: &'static str, files: &FileSet| Node::Element(write_file_set(Element::new(name), files));
        let snapshot = declaration.exclude_files_from_snapshot.iter();
        locations.children.extend(declaration.exclude_files.iter().map(|files| excluded("EXCLUDE_FILES", files)));
        locations.children.extend(snapshot.map(|files| excluded("EXCLUDE_FILES_FROM_SNAPSHOT", files)));
        root.children.push(Node::Element(locations));
        root
    }
}

fn read_identification(fields: &Fields<'_, '_>) -> Result<WriterMetadata, DocumentError> {
    let metadata = WriterMetadata {
        class_id: fields.id("writerId")?,
        instance_id: fields.id("instanceId")?,
        name: fields.text("friendlyName")?,
        instance_name: fields.text("instanceName")?,
        usage: fields.word("usage", &USAGE).unwrap_or(Usage::Other),
        level: fields.own("level").and_then(|text| find(&LEVEL, &text)).unwrap_or_default(),
        components: Vec::new(),
        declaration: Declaration {
            source: fields.word("dataSource", &SOURCE).unwrap_or(DataSource::Undefined),
            version_major: fields.number("majorVersion")?.unwrap_or_default(),
            version_minor: fields.number("minorVersion")?.unwrap_or_default(),
            ..Declaration::default()
        },
        other: read_other(fields)?,
    };
    fields.end_leaf();
    Ok(metadata)
}

/// The value of a word.
fn find<T: Copy>(words: &[(T, &str)], text: &str) -> Option<T> {
    words.iter().find(|(_, word)| *word == text).map(|(value, _)| *value)
}

/// Fields that a later release put into messages, as we wrote them.
fn read_other(fields: &Fields<'_, '_>) -> Result<BTreeMap<String, Json>, DocumentError> {
    let Some(text) = fields.own("other") else { return Ok(BTreeMap::new()) };
    serde_json::from_str(&text).map_err(|error| fields.invalid("other", error))
}

/// None for an element that only holds mappings.
fn read_restore_method(fields: &Fields<'_, '_>) -> Result<Option<RestoreMethod>, DocumentError> {
    if fields.element.attributes.is_empty() {
        return Ok(None);
    }
    let method = RestoreMethod {
        method: fields.word("method", &METHOD).unwrap_or_default(),
        service: fields.optional_text("service")?,
        user_procedure: fields.optional_text("userProcedure")?,
        writer_restore: fields.word("writerRestore", &WRITER_RESTORE).unwrap_or_default(),
        reboot_required: fields.yes("rebootRequired")?,
    };
    fields.end();
    Ok(Some(method))
}

type Locations = (Vec<Component>, Vec<FileSet>, Vec<FileSet>);

fn read_locations(fields: &Fields<'_, '_>, found: &mut Locations) -> Result<(), DocumentError> {
    fields.end();
    for (name, fields) in fields.elements() {
        match name {
            "FILE_GROUP" => found.0.push(read_component(&fields, ComponentKind::FileGroup)?),
            "DATABASE" => found.0.push(read_component(&fields, ComponentKind::Database)?),
            "EXCLUDE_FILES" => found.1.push(read_excluded(&fields)?),
            "EXCLUDE_FILES_FROM_SNAPSHOT" => found.2.push(read_excluded(&fields)?),
            _ => fields.unknown(),
        }
    }
    Ok(())
}

fn read_excluded(fields: &Fields<'_, '_>) -> Result<FileSet, DocumentError> {
    let files = read_file_set(fields)?;
    fields.end_leaf();
    Ok(files)
}

/// Path, pattern and recursion, which many elements have.
pub(crate) fn read_file_set(fields: &Fields<'_, '_>) -> Result<FileSet, DocumentError> {
    Ok(FileSet {
        path: fields.path("path")?,
        pattern: fields.required("filespec")?,
        recursive: fields.yes("recursive")?,
    })
}

/// An alternate location mapping, which both documents have.
pub(crate) fn read_location(fields: &Fields<'_, '_>) -> Result<AlternateLocation, DocumentError> {
    let location = AlternateLocation { files: read_file_set(fields)?, alternate_path: fields.path("alternatePath")? };
    fields.end_leaf();
    Ok(location)
}

fn read_component(fields: &Fields<'_, '_>, kind: ComponentKind) -> Result<Component, DocumentError> {
    let mut component = Component {
        kind,
        name: ComponentName { logical_path: fields.text("logicalPath")?, name: fields.required("componentName")? },
        caption: fields.optional_text("caption")?,
        selectable: fields.optional_yes("selectable")?.ok_or_else(|| fields.invalid("selectable", "missing"))?,
        selectable_for_restore: fields.yes("selectableForRestore")?,
        icon: fields.optional_text("icon")?,
        restore_metadata: fields.yes("restoreMetadata")?,
        notify_on_backup_complete: fields.yes("notifyOnBackupComplete")?,
        flags: fields.number("componentFlags")?.map_or_else(ComponentFlags::default, ComponentFlags),
        files: Vec::new(),
        log_files: Vec::new(),
        dependencies: Vec::new(),
        other: read_other(fields)?,
    };
    fields.end();
    for (name, fields) in fields.elements() {
        match (name, kind) {
            ("FILE_LIST", ComponentKind::FileGroup) | ("DATABASE_FILES", ComponentKind::Database) => {
                component.files.push(read_files(&fields)?);
            }
            ("DATABASE_LOGFILES", ComponentKind::Database) => component.log_files.push(read_files(&fields)?),
            ("DEPENDENCY", _) => component.dependencies.push(read_dependency(&fields)?),
            _ => fields.unknown(),
        }
    }
    Ok(component)
}

fn read_files(fields: &Fields<'_, '_>) -> Result<FileSpec, DocumentError> {
    let FileSet { path, pattern, recursive } = read_file_set(fields)?;
    let files = FileSpec {
        path,
        pattern,
        recursive,
        alternate_path: fields.optional_path("alternatePath")?,
        backup_type_mask: fields.number("filespecBackupType")?.map_or_else(FileBackupMask::default, FileBackupMask),
        other: read_other(fields)?,
    };
    fields.end_leaf();
    Ok(files)
}

fn read_dependency(fields: &Fields<'_, '_>) -> Result<Dependency, DocumentError> {
    let dependency = Dependency {
        writer: fields.id("writerId")?,
        on: ComponentName { logical_path: fields.text("logicalPath")?, name: fields.required("componentName")? },
    };
    fields.end_leaf();
    Ok(dependency)
}

fn write_identification(metadata: &WriterMetadata) -> Element {
    let declaration = &metadata.declaration;
    let mut element = Element::new("IDENTIFICATION")
        .with("writerId", &metadata.class_id.to_string())
        .with("instanceId", &metadata.instance_id.to_string())
        .with_some("instanceName", &metadata.instance_name)
        .with("friendlyName", &metadata.name)
        .with("usage", word(&USAGE, &metadata.usage).unwrap_or_default())
        .with("dataSource", word(&SOURCE, &declaration.source).unwrap_or_default())
        .with("majorVersion", &declaration.version_major.to_string())
        .with("minorVersion", &declaration.version_minor.to_string());
    if metadata.level != vss_model::AppLevel::default() {
        element = element.with_own("level", word(&LEVEL, &metadata.level).unwrap_or_default());
    }
    write_other(element, &metadata.other)
}

fn write_other(element: Element, other: &BTreeMap<String, Json>) -> Element {
    if other.is_empty() {
        return element;
    }
    // A map of names to JSON is always written. JSON escapes most of what XML cannot hold, and may escape the rest.
    let text = serde_json::to_string(other).unwrap_or_default();
    let text = text.replace('\u{fffe}', "\\ufffe").replace('\u{ffff}', "\\uffff");
    element.with_own("other", &text)
}

fn write_restore_method(declaration: &Declaration) -> Element {
    let mut element = Element::new("RESTORE_METHOD");
    if let Some(method) = &declaration.restore_method {
        if let Some(word) = word(&METHOD, &method.method) {
            element = element.with("method", word);
        }
        if let Some(service) = &method.service {
            element = element.with("service", service);
        }
        if let Some(procedure) = &method.user_procedure {
            element = element.with("userProcedure", procedure);
        }
        if let Some(word) = word(&WRITER_RESTORE, &method.writer_restore) {
            element = element.with("writerRestore", word);
        }
        element = element.with_yes("rebootRequired", method.reboot_required);
    }
    element.children.extend(declaration.alternate_locations.iter().map(|it| Node::Element(write_location(it))));
    element
}

pub(crate) fn write_file_set(element: Element, files: &FileSet) -> Element {
    element.with_path("path", &files.path).with("filespec", &files.pattern).with_yes("recursive", files.recursive)
}

pub(crate) fn write_location(location: &AlternateLocation) -> Element {
    write_file_set(Element::new("ALTERNATE_LOCATION_MAPPING"), &location.files)
        .with_path("alternatePath", &location.alternate_path)
}

fn write_component(component: &Component) -> Element {
    let (element, files) = match component.kind {
        ComponentKind::FileGroup => ("FILE_GROUP", "FILE_LIST"),
        ComponentKind::Database => ("DATABASE", "DATABASE_FILES"),
    };
    let mut element = Element::new(element)
        .with_some("logicalPath", &component.name.logical_path)
        .with("componentName", &component.name.name);
    if let Some(caption) = &component.caption {
        element = element.with("caption", caption);
    }
    if let Some(icon) = &component.icon {
        element = element.with("icon", icon);
    }
    element = element
        .with_yes("restoreMetadata", component.restore_metadata)
        .with_yes("notifyOnBackupComplete", component.notify_on_backup_complete)
        .with_yes("selectable", component.selectable)
        .with_yes("selectableForRestore", component.selectable_for_restore)
        .with("componentFlags", &component.flags.0.to_string());
    element = write_other(element, &component.other);
    element.children.extend(component.files.iter().map(|one| Node::Element(write_files(files, one))));
    element.children.extend(component.log_files.iter().map(|one| Node::Element(write_files("DATABASE_LOGFILES", one))));
    element.children.extend(component.dependencies.iter().map(|one| {
        Node::Element(
            Element::new("DEPENDENCY")
                .with("writerId", &one.writer.to_string())
                .with_some("logicalPath", &one.on.logical_path)
                .with("componentName", &one.on.name),
        )
    }));
    element
}

fn write_files(name: &str, files: &FileSpec) -> Element {
    let mut element = Element::new(name).with_path("path", &files.path).with("filespec", &files.pattern);
    // Windows has no recursive databases, and no such attribute on their files.
    if name == "FILE_LIST" || files.recursive {
        element = element.with_yes("recursive", files.recursive);
    }
    if let Some(path) = &files.alternate_path {
        element = element.with_path("alternatePath", path);
    }
    element = element.with("filespecBackupType", &files.backup_type_mask.0.to_string());
    write_other(element, &files.other)
}
