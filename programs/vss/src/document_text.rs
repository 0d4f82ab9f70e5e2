//! Documents as people read them: a tree of lines.

use crate::output::line;
use std::io;
use std::path::Path;
use vss_documents::{AnyDocument, Encoding, Manifest, Remark};
use vss_model::{
    BackupComponents, Component, ComponentKind, FileBackupMask, FileSet, FileSpec, RollForward, SessionComponent,
    WriterMetadata, selection,
};

/// File sets of a component that are shown unless all are wanted.
const FILES: usize = 5;

/// The name of a kind of document, and how its characters are written.
pub(crate) fn kind(document: &AnyDocument) -> (&'static str, Encoding, &[Remark], usize) {
    match document {
        AnyDocument::WriterMetadata(it) => {
            let (remarks, left_out) = it.remarks();
            ("Writer Metadata Document", it.document().encoding(), remarks, left_out)
        }
        AnyDocument::BackupComponents(it) => {
            let (remarks, left_out) = it.remarks();
            ("Backup Components Document", it.document().encoding(), remarks, left_out)
        }
        AnyDocument::Manifest(it) => ("manifest of a cabinet", it.encoding, &[], 0),
    }
}

/// The name of an encoding.
pub(crate) const fn encoding(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Utf8 => "UTF-8",
        Encoding::Utf16Le => "UTF-16LE",
        Encoding::Utf16Be => "UTF-16BE",
    }
}

/// `vss document check` of a valid document.
pub(crate) fn print_check(file: &Path, document: &AnyDocument) -> io::Result<()> {
    let (kind, how, remarks, left_out) = kind(document);
    let what = match document {
        AnyDocument::WriterMetadata(it) => {
            let metadata = it.content();
            let files: usize = metadata.components.iter().map(|one| one.all_files().count()).sum();
            let components = metadata.components.len();
            format!("writer {}, {}, {}", metadata.name, count(components, "component"), count(files, "file set"))
        }
        AnyDocument::BackupComponents(it) => {
            let writers = &it.content().writers;
            let components: usize = writers.iter().map(|writer| writer.components.len()).sum();
            format!("{}, {}", count(writers.len(), "writer"), count(components, "component"))
        }
        AnyDocument::Manifest(it) => {
            format!("{}, {}", count(it.shadows.len(), "shadow copy"), count(it.writers.len(), "writer"))
        }
    };
    line(&format!("{}: valid {kind} in {}: {what}", file.display(), encoding(how)))?;
    for remark in remarks {
        line(&format!("  {}: {}", remark.position, remark.message))?;
    }
    if left_out > 0 {
        line(&format!("  and {left_out} more that is not known"))?;
    }
    Ok(())
}

/// A number and its noun.
fn count(number: usize, noun: &str) -> String {
    match (number, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {noun}s"),
    }
}

/// `vss document show`.
pub(crate) fn print(document: &AnyDocument, all_files: bool) -> io::Result<()> {
    match document {
        AnyDocument::WriterMetadata(it) => print_metadata(it.content(), all_files),
        AnyDocument::BackupComponents(it) => print_session(it.content()),
        AnyDocument::Manifest(it) => print_manifest(it),
    }
}

/// One line of a list: its name and what it is.
fn entry(name: &str, what: impl std::fmt::Display) -> io::Result<()> {
    line(&format!("  {name:<12} {what}"))
}

fn print_metadata(metadata: &WriterMetadata, all_files: bool) -> io::Result<()> {
    let declaration = &metadata.declaration;
    line(&format!("Writer {}", metadata.name))?;
    entry("Class", metadata.class_id)?;
    entry("Instance", metadata.instance_id)?;
    if !metadata.instance_name.is_empty() {
        entry("Named", &metadata.instance_name)?;
    }
    entry("Version", format!("{}.{}", declaration.version_major, declaration.version_minor))?;
    entry("Usage", word(&metadata.usage))?;
    entry("Source", word(&declaration.source))?;
    entry("Supports", names("full", &declaration.backup_schema.names()))?;
    if let Some(method) = &declaration.restore_method {
        let service = method.service.as_ref().map(|service| format!(" of {service}")).unwrap_or_default();
        let reboot = if method.reboot_required { ", then reboot" } else { "" };
        let events = word(&method.writer_restore);
        entry("Restore", format!("{}{service}, restore events: {events}{reboot}", word(&method.method)))?;
    }
    for component in &metadata.components {
        print_component(&metadata.components, component, all_files)?;
    }
    for location in &declaration.alternate_locations {
        line(&format!("  Alternate location of {}: {}", files(&location.files), location.alternate_path.display()))?;
    }
    let excluded = declaration.exclude_files.iter().map(|set| ("Never backed up", set));
    let deleted = declaration.exclude_files_from_snapshot.iter().map(|set| ("Deleted from the copy", set));
    excluded.chain(deleted).try_for_each(|(what, set)| line(&format!("  {what}: {}", files(set))))
}

fn print_component(components: &[Component], component: &Component, all_files: bool) -> io::Result<()> {
    let chosen = match selection::kind(components, component) {
        selection::Kind::Mandatory => "always with its writer",
        selection::Kind::Optional => "can be chosen",
        selection::Kind::Part => "goes with what it is below",
        selection::Kind::SelectablePart => "can be chosen, or goes with what it is below",
    };
    let mut what = vec![kind_word(component.kind).to_owned(), chosen.to_owned()];
    if component.selectable_for_restore {
        what.push("can be restored alone".to_owned());
    }
    what.extend(component.flags.names());
    line(&format!("  Component {}: {}", component.name, what.join(", ")))?;
    for text in component.caption.iter().flat_map(|caption| caption.lines()) {
        line(&format!("    \"{text}\""))?;
    }
    let data = component.files.iter().map(|one| ("", one));
    let logs = component.log_files.iter().map(|one| ("log: ", one));
    let total = component.all_files().count();
    let shown = if all_files || total <= FILES { total } else { FILES };
    for (what, one) in data.chain(logs).take(shown) {
        line(&format!("    {what}{}", file_spec(one)))?;
    }
    if shown < total {
        line(&format!("    and {} more (--files shows all)", total - shown))?;
    }
    for one in &component.dependencies {
        let remote = if one.is_remote() { ", on another machine" } else { "" };
        line(&format!("    Needs {} of writer class {}{remote}", one.on, one.writer))?;
    }
    Ok(())
}

const fn kind_word(kind: ComponentKind) -> &'static str {
    match kind {
        ComponentKind::Database => "database",
        ComponentKind::FileGroup => "file group",
    }
}

fn files(set: &FileSet) -> String {
    let below = if set.recursive { " and below" } else { "" };
    format!("{} in {}{below}", set.pattern, set.path.display())
}

fn file_spec(spec: &FileSpec) -> String {
    let mut text = files(&spec.file_set());
    if let Some(path) = &spec.alternate_path {
        text.push_str(&format!(", read from {}", path.display()));
    }
    if spec.backup_type_mask != FileBackupMask::default() {
        text.push_str(&format!(", needed in: {}", names("", &spec.backup_type_mask.names())));
    }
    text
}

/// Names with commas between them.
fn names(first: &str, rest: &[String]) -> String {
    let first = Some(first).filter(|first| !first.is_empty());
    let all: Vec<&str> = first.into_iter().chain(rest.iter().map(String::as_str)).collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
}

/// The name of a value, as messages have it, in words.
fn word(value: &impl serde::Serialize) -> String {
    let name = serde_json::to_value(value).ok();
    name.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().replace('_', " ")
}

fn print_session(session: &BackupComponents) -> io::Result<()> {
    let state = &session.state;
    line("Backup")?;
    if let Some(id) = session.set_id {
        entry("Set", id)?;
    }
    entry("Type", word(&state.backup_type))?;
    entry("Chosen", if state.select_components { "components" } else { "whole volumes" })?;
    let of = |yes: bool| if yes { "yes" } else { "no" };
    entry("System state", of(state.bootable_system_state))?;
    entry("Parts", of(state.partial_file_support))?;
    for writer in &session.writers {
        let name = if writer.name.is_empty() { "of class" } else { &writer.name };
        line(&format!("  Writer {name} {}, instance {}", writer.class_id, writer.instance_id))?;
        writer.components.iter().try_for_each(print_session_component)?;
    }
    Ok(())
}

fn print_session_component(component: &SessionComponent) -> io::Result<()> {
    let succeeded = match component.backup_succeeded {
        None => "",
        Some(true) => ", backed up",
        Some(false) => ", NOT backed up",
    };
    line(&format!("    Component {}: {}{succeeded}", component.name, kind_word(component.kind)))?;
    let messages = &component.failure_messages;
    let failure = component.failure.as_ref().map(|it| format!("{} ({})", it.message, it.code)).unwrap_or_default();
    let roll_forward = match &component.roll_forward {
        RollForward::Undefined => String::new(),
        RollForward::None => "none".to_owned(),
        RollForward::All => "all logs".to_owned(),
        RollForward::Partial(point) => format!("up to {point}"),
    };
    let texts = [
        ("Failed", &failure),
        ("Options", &component.backup_options),
        ("Stamp", &component.backup_stamp),
        ("Builds on stamp", &component.previous_backup_stamp),
        ("Metadata", &component.backup_metadata),
        ("Restore options", &component.restore_options),
        ("Restore metadata", &component.restore_metadata),
        ("Restored as", &component.restore_name),
        ("Roll forward", &roll_forward),
        ("PrepareBackup said", &messages.prepare_for_backup),
        ("PostSnapshot said", &messages.post_snapshot),
        ("PreRestore said", &messages.pre_restore),
        ("PostRestore said", &messages.post_restore),
    ];
    for (name, text) in texts.iter().filter(|(_, text)| !text.is_empty()) {
        line(&format!("      {name}: {text}"))?;
    }
    if component.selected_for_restore {
        let status = word(&component.file_restore_status);
        line(&format!("      To be restored to: {}, files: {status}", word(&component.restore_target)))?;
    }
    for part in &component.restore_subcomponents {
        line(&format!("      Only {part}"))?;
    }
    for part in &component.partial_files {
        line(&format!("      Parts of {}: {}", part.file().display(), part.ranges))?;
    }
    for one in &component.differenced_files {
        line(&format!("      When changed: {}", files(&one.files)))?;
    }
    for one in &component.directed_targets {
        let (from, to) =
            (one.source_path.join(&one.source_file_name), one.destination_path.join(&one.destination_file_name));
        line(&format!("      Directed: {} to {}", from.display(), to.display()))?;
    }
    let targets = component.new_targets.iter().map(|one| ("New target", &one.files, &one.alternate_path));
    let locations =
        component.alternate_locations.iter().map(|one| ("Alternate location", &one.files, &one.alternate_path));
    for (what, set, path) in targets.chain(locations) {
        line(&format!("      {what} of {}: {}", files(set), path.display()))?;
    }
    Ok(())
}

fn print_manifest(manifest: &Manifest) -> io::Result<()> {
    line("Manifest")?;
    entry("Set", manifest.set_id)?;
    entry("Machine", &manifest.machine)?;
    entry("Document", &manifest.backup_components)?;
    for shadow in &manifest.shadows {
        line(&format!("  Shadow copy {} of {} {}", shadow.id, shadow.volume, shadow.alias))?;
    }
    for alias in &manifest.aliases {
        line(&format!("  Alias {} = {}", alias.name, alias.value))?;
    }
    for writer in &manifest.writers {
        line(&format!("  Writer {}: {}", writer.name, writer.metadata_file))?;
    }
    Ok(())
}
