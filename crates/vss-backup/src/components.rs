//! From what writers say of their components to what a backup takes: file sets, exclusions, parts of files.

use crate::entry::{Parts, Range, Time};
use crate::pattern::Pattern;
use crate::ranges_file;
use crate::selection::{Carried, Exclusion, FileSet, PartialFile, Selection, Take};
use crate::tree::Tree;
use std::path::PathBuf;
use vss_model::partial_file::Ranges;
use vss_model::selection::{included, taken_files};
use vss_model::{
    BackupType, ComponentName, DifferencedFiles, FileSet as ModelFileSet, FileTime, SessionComponent, VssError,
    WriterMetadata,
};

/// A writer and its components that were chosen explicitly, with what it said of them in this session.
#[derive(Debug, Clone)]
pub struct ChosenWriter {
    /// What it owns.
    pub metadata: WriterMetadata,
    /// The explicit components.
    pub components: Vec<SessionComponent>,
}

/// Adds to `selection` what a backup of this type takes of these writers' components. A file of a component that was brought
/// in by another one belongs to that one: the explicit components of all writers are numbered in their order.
///
/// # Errors
/// `E_INVALIDARG` for a ranges file that cannot be read or is none. It is looked for in `trees` too, by the places of
/// `selection`.
pub fn select(
    writers: &[ChosenWriter],
    backup_type: BackupType,
    selection: &mut Selection,
    trees: &[Tree],
) -> Result<(), VssError> {
    let mut number = 0;
    for writer in writers {
        let declaration = &writer.metadata.declaration;
        let excluded = declaration.exclude_files.iter().map(|set| Exclusion {
            path: set.path.clone(),
            pattern: Pattern::new(&set.pattern),
            recursive: set.recursive,
        });
        selection.exclusions.extend(excluded);
        let explicit: Vec<&ComponentName> = writer.components.iter().map(|one| &one.name).collect();
        let of_writer = declaration.backup_schema.effective(backup_type);
        for (component, _) in included(&writer.metadata.components, &explicit) {
            let holder = writer
                .components
                .iter()
                .position(|one| one.name == component.name || one.name.contains(&component.name));
            let Some(holder) = holder else { continue };
            let number = number + holder;
            let differenced = differenced(&writer.components[holder], of_writer);
            let taken = taken_files(component, of_writer);
            for taken in &taken {
                let set = taken.files.file_set();
                // The writer's word on changed files counts more than the mask (spec R 4.2).
                if differenced.iter().all(|one| one.files != set) {
                    selection.sets.push(file_set(&set, taken.files.alternate_path.clone(), Take::Whole, number));
                }
            }
            for changed in differenced {
                let own = component.all_files().find(|files| files.file_set() == changed.files);
                if let Some(own) = own {
                    let take = changed_after(changed.last_modified);
                    selection.sets.push(file_set(&changed.files, own.alternate_path.clone(), take, number));
                }
            }
            for own in component.all_files() {
                let files = own.file_set();
                let changed = differenced.iter().any(|one| one.files == files);
                // Files that were not put to the alternate path have not changed.
                let only_what_is_there = changed && own.alternate_path.is_some();
                let says_nothing = !changed && taken.iter().all(|taken| taken.files.file_set() != files);
                if only_what_is_there || says_nothing {
                    let component = u32::try_from(number).unwrap_or(u32::MAX);
                    selection.carried.push(Carried { files, only_what_is_there, component });
                }
            }
        }
        if counts_changes(of_writer) {
            for (at, component) in writer.components.iter().enumerate() {
                add_new(writer, component, number + at, selection, trees)?;
            }
        }
        number += writer.components.len();
    }
    Ok(())
}

/// Changed files and parts count in these backups alone.
fn counts_changes(backup_type: BackupType) -> bool {
    matches!(backup_type, BackupType::Incremental | BackupType::Differential)
}

/// The changed files that count in a backup of this type.
fn differenced(component: &SessionComponent, backup_type: BackupType) -> &[DifferencedFiles] {
    if counts_changes(backup_type) { &component.differenced_files } else { &[] }
}

/// What the writer named in this session and no file set of its components has.
fn add_new(
    writer: &ChosenWriter,
    component: &SessionComponent,
    number: usize,
    selection: &mut Selection,
    trees: &[Tree],
) -> Result<(), VssError> {
    for changed in &component.differenced_files {
        let is_known =
            writer.metadata.components.iter().any(|one| one.all_files().any(|files| files.file_set() == changed.files));
        if !is_known {
            selection.sets.push(file_set(&changed.files, None, changed_after(changed.last_modified), number));
        }
    }
    for partial in &component.partial_files {
        let path = partial.path.join(&partial.file_name);
        // Named in both lists by an error of its writer, which the changed file wins (spec R 4.2).
        if component.differenced_files.iter().any(|changed| changed.files.covers(&path)) {
            continue;
        }
        let ranges = match &partial.ranges {
            Ranges::List(ranges) => ranges.clone(),
            Ranges::File(file) => ranges_file::read(file, selection, trees).map_err(|error| {
                let message = format!("Writer {}, parts of {}: {error}", writer.metadata.name, path.display());
                VssError::new(error.code, message).with_hint("Make a full backup, which needs no parts")
            })?,
        };
        let ranges = ranges.iter().map(|one| Range { offset: one.offset, length: one.length }).collect();
        let parts = Parts { ranges, metadata: partial.metadata.clone() };
        selection.partial_files.push(PartialFile { path, parts, component: u32::try_from(number).ok() });
    }
    Ok(())
}

fn file_set(of: &ModelFileSet, alternate: Option<PathBuf>, take: Take, component: usize) -> FileSet {
    FileSet {
        path: of.path.clone(),
        pattern: Pattern::new(&of.pattern),
        recursive: of.recursive,
        alternate,
        take,
        component: u32::try_from(component).ok(),
    }
}

/// 0: the writer leaves it to us, and we go by the manifest of the backup before.
fn changed_after(time: FileTime) -> Take {
    if time == FileTime::default() {
        return Take::Changed;
    }
    let nanoseconds = time.unix_nanoseconds();
    let (seconds, rest) = (nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000));
    let clamped = seconds.clamp(i64::MIN.into(), i64::MAX.into());
    Take::ModifiedAfter(Time(clamped as i64, rest as u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vss_model::VssCode;

    fn writer() -> ChosenWriter {
        let text = r#"{"class_id": "00000000-0000-0000-0000-000000000001", "name": "test",
            "instance_id": "00000000-0000-0000-0000-000000000002",
            "backup_schema": 7,
            "exclude_files": [{"path": "/srv/tmp", "recursive": true}],
            "components": [
                {"name": "db", "type": "file_group", "files": [
                    {"path": "/srv/db", "pattern": "*.db", "backup_type_mask": 257},
                    {"path": "/srv/spit", "alternate_path": "/srv/spat", "recursive": true}]},
                {"name": "inner", "logical_path": "db", "selectable": false, "files": [{"path": "/srv/inner"}]},
                {"name": "other", "files": [{"path": "/srv/other"}]}]}"#;
        let metadata = serde_json::from_str(text).unwrap();
        let name = ComponentName::new("", "db");
        ChosenWriter { metadata, components: vec![SessionComponent { name, ..SessionComponent::default() }] }
    }

    fn paths(selection: &Selection) -> Vec<(&str, Take, Option<u32>)> {
        selection.sets.iter().map(|set| (set.path.to_str().unwrap(), set.take, set.component)).collect()
    }

    #[test]
    fn what_a_chosen_component_brings_in_belongs_to_it_and_the_mask_decides() {
        let mut selection = Selection::default();
        select(&[writer(), writer()], BackupType::Full, &mut selection, &[]).unwrap();
        let first = [
            ("/srv/db", Take::Whole, Some(0)),
            ("/srv/spit", Take::Whole, Some(0)),
            ("/srv/inner", Take::Whole, Some(0)),
        ];
        assert_eq!(paths(&selection)[..3], first);
        assert_eq!(paths(&selection)[3], ("/srv/db", Take::Whole, Some(1)));
        assert_eq!(selection.sets[1].alternate.as_deref(), Some(std::path::Path::new("/srv/spat")));
        assert_eq!(selection.exclusions[0].path, std::path::Path::new("/srv/tmp"));
        let mut selection = Selection::default();
        select(&[writer()], BackupType::Incremental, &mut selection, &[]).unwrap();
        assert_eq!(paths(&selection)[0].0, "/srv/spit", "the mask of *.db is of full backups");
    }

    #[test]
    fn changed_files_and_parts_count_more_than_the_mask() {
        let mut writer = writer();
        let set =
            |path: &str, pattern: &str| ModelFileSet { path: path.into(), pattern: pattern.into(), recursive: false };
        let after = FileTime::from_unix_nanoseconds(1_000_000_000_500);
        let component = &mut writer.components[0];
        component.differenced_files = vec![
            DifferencedFiles { files: set("/srv/inner", "*"), last_modified: after },
            DifferencedFiles { files: set("/srv/new", "x"), last_modified: FileTime::default() },
        ];
        component.partial_files = serde_json::from_str(
            r#"[{"path": "/srv/db", "file_name": "a.db", "ranges": "5:2"},
                {"path": "/srv/inner", "file_name": "both", "ranges": "0:1"}]"#,
        )
        .unwrap();
        let mut selection = Selection::default();
        select(&[writer.clone()], BackupType::Incremental, &mut selection, &[]).unwrap();
        let taken = paths(&selection);
        assert_eq!(taken[1], ("/srv/inner", Take::ModifiedAfter(Time(1000, 500)), Some(0)));
        assert_eq!(taken[2], ("/srv/new", Take::Changed, Some(0)));
        assert_eq!(selection.partial_files.len(), 1, "the changed file wins");
        assert_eq!(selection.partial_files[0].path, std::path::Path::new("/srv/db/a.db"));
        writer.components[0].partial_files[0].ranges = Ranges::File("/srv/ranges".into());
        let refused = select(&[writer], BackupType::Incremental, &mut Selection::default(), &[]).unwrap_err();
        assert_eq!(refused.code, VssCode::InvalidArgument);
        assert!(refused.message.contains("/srv/db/a.db: The ranges file /srv/ranges"), "{}", refused.message);
    }
}
