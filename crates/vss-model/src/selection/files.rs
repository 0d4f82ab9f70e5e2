//! Which files of an included component a backup takes, and how (spec R 3.2, 3.3, 3.7 and 4.2).

use crate::{BackupType, Component, ComponentKind, Declaration, FileSpec, FileTime, PartialFile, SessionComponent};
use std::path::Path;

/// How the files of a file set are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Treatment {
    /// Whole, as they are in the shadow copy.
    FromSnapshot,
    /// Whole; the live volume will do.
    FromAnywhere,
}

/// One file set that a backup takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakenFile<'a> {
    /// The file set.
    pub files: &'a FileSpec,
    /// How.
    pub treatment: Treatment,
}

/// The file sets of a component that a backup of this type takes whole. `backup_type` is what the backup is for the writer,
/// see [`crate::BackupSchema::effective`].
///
/// A log backup takes the log list of databases alone (spec R 4.1). What the writer names as differenced or partial files
/// overrides this for the files that it names ([`evaluate`]).
#[must_use]
pub fn taken_files(component: &Component, backup_type: BackupType) -> Vec<TakenFile<'_>> {
    let is_log_backup = backup_type == BackupType::Log;
    let data = component.files.iter().filter(|_| !is_log_backup);
    let logs = component.log_files.iter().filter(|_| component.kind == ComponentKind::Database);
    let treatment = |files: &FileSpec| {
        if files.backup_type_mask.needs_snapshot(backup_type) {
            Treatment::FromSnapshot
        } else {
            Treatment::FromAnywhere
        }
    };
    data.chain(logs)
        .filter(|files| files.backup_type_mask.needs_backup(backup_type))
        .map(|files| TakenFile { files, treatment: treatment(files) })
        .collect()
}

/// True when a backup of this type must make a shadow copy for the component (spec R 1.3, the flow without a snapshot).
#[must_use]
pub fn needs_snapshot(component: &Component, backup_type: BackupType) -> bool {
    taken_files(component, backup_type).iter().any(|taken| taken.treatment == Treatment::FromSnapshot)
}

/// True when the writer excludes the file from every backup, whichever component names it. Asked of the file's own path,
/// also where it is read from an alternate one (spec R 1.9 and 3.7).
#[must_use]
pub fn is_excluded(declaration: &Declaration, file: &Path) -> bool {
    declaration.exclude_files.iter().any(|set| set.covers(file))
}

/// What a backup takes of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evaluation<'a> {
    /// Nothing.
    NotTaken,
    /// All of it.
    Whole(Treatment),
    /// All of it when it was modified after this instant; 0: when the requester's own records say so.
    WhenModifiedAfter(FileTime),
    /// These parts of it.
    Parts(&'a PartialFile),
}

/// What a backup takes of a file that a file set of `component` names, in the order of spec R 4.2: differenced files, partial
/// files, the mask. `session` is the explicit component that brought it in; its lists are whole once PostSnapshot was
/// answered. True beside it: the writer named the file in both lists, which is an error of the writer's to be reported.
#[must_use]
pub fn evaluate<'a>(
    component: &Component,
    session: &'a SessionComponent,
    backup_type: BackupType,
    file: &Path,
) -> (Evaluation<'a>, bool) {
    let counts_changes = matches!(backup_type, BackupType::Incremental | BackupType::Differential);
    let differenced = session.differenced_files.iter().filter(|_| counts_changes);
    let differenced = differenced.filter(|one| one.files.covers(file)).map(|one| one.last_modified).next();
    let parts = session.partial_files.iter().find(|one| counts_changes && one.file() == file);
    match (differenced, parts) {
        (Some(time), parts) => (Evaluation::WhenModifiedAfter(time), parts.is_some()),
        (None, Some(parts)) => (Evaluation::Parts(parts), false),
        (None, None) => {
            let whole = taken_files(component, backup_type);
            let whole = whole.iter().filter(|taken| taken.files.file_set().covers(file));
            // The copy will do for what may also come from elsewhere.
            let whole = whole.map(|taken| taken.treatment).min();
            (whole.map_or(Evaluation::NotTaken, Evaluation::Whole), false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DifferencedFiles, FileBackupMask, Ranges};
    use BackupType::{Copy, Differential, Full, Incremental, Log};

    fn database() -> Component {
        let data = FileSpec::directly_in("/db").matching("*.db");
        Component::database("orders")
            .files(data.clone())
            .files(FileSpec::directly_in("/tmp").needed_in(FileBackupMask(0x0001)))
            .log_files(FileSpec::directly_in("/wal").needed_in(FileBackupMask(0x0F0B)))
            .build()
            .unwrap()
    }

    #[test]
    fn spec_3_2_3_3_and_4_1_which_file_sets_a_backup_takes() {
        let component = database();
        let table: [(BackupType, &[(&str, Treatment)]); 5] = [
            (
                Full,
                &[
                    ("/db", Treatment::FromSnapshot),
                    ("/tmp", Treatment::FromAnywhere),
                    ("/wal", Treatment::FromSnapshot),
                ],
            ),
            (
                Copy,
                &[
                    ("/db", Treatment::FromSnapshot),
                    ("/tmp", Treatment::FromAnywhere),
                    ("/wal", Treatment::FromSnapshot),
                ],
            ),
            (Incremental, &[("/db", Treatment::FromSnapshot)]),
            (Differential, &[("/db", Treatment::FromSnapshot), ("/wal", Treatment::FromSnapshot)]),
            (Log, &[("/wal", Treatment::FromSnapshot)]),
        ];
        for (backup_type, wanted) in table {
            let taken = taken_files(&component, backup_type);
            let taken: Vec<_> = taken.iter().map(|one| (one.files.path.to_str().unwrap(), one.treatment)).collect();
            assert_eq!(taken, wanted, "{backup_type:?}");
        }
        let group = Component::file_group("x").files_below("/srv").build().unwrap();
        assert!(taken_files(&group, Log).is_empty(), "a file group has no logs");
    }

    #[test]
    fn spec_1_3_when_no_shadow_copy_is_needed() {
        let files = FileSpec::below("/srv").needed_in(FileBackupMask(0x0E0F));
        let component = Component::file_group("x").files(files).build().unwrap();
        assert!(!needs_snapshot(&component, Full) && needs_snapshot(&component, Differential));
    }

    #[test]
    fn spec_4_2_the_order_of_evaluation() {
        let component = database();
        let parts = |file_name: &str| PartialFile {
            path: "/db".into(),
            file_name: file_name.to_owned(),
            ranges: Ranges::parse("0:1").unwrap(),
            metadata: String::new(),
        };
        let differenced = |pattern: &str, time| DifferencedFiles {
            files: FileSpec::directly_in("/db").matching(pattern).file_set(),
            last_modified: FileTime(time),
        };
        let session = SessionComponent {
            partial_files: vec![parts("part.db"), parts("both.db")],
            differenced_files: vec![differenced("diff.db", 7), differenced("both.db", 0), differenced("new.txt", 9)],
            ..SessionComponent::default()
        };
        let part = Evaluation::Parts(&session.partial_files[0]);
        let whole = Evaluation::Whole(Treatment::FromSnapshot);
        let table = [
            (Incremental, "/db/diff.db", Evaluation::WhenModifiedAfter(FileTime(7)), false),
            (Differential, "/db/diff.db", Evaluation::WhenModifiedAfter(FileTime(7)), false),
            (Incremental, "/db/part.db", part, false),
            (Incremental, "/db/both.db", Evaluation::WhenModifiedAfter(FileTime(0)), true),
            (Incremental, "/db/rest.db", whole, false),
            (Incremental, "/db/new.txt", Evaluation::WhenModifiedAfter(FileTime(9)), false),
            (Incremental, "/tmp/x", Evaluation::NotTaken, false),
            (Full, "/db/diff.db", whole, false),
            (Full, "/tmp/x", Evaluation::Whole(Treatment::FromAnywhere), false),
            (Log, "/db/rest.db", Evaluation::NotTaken, false),
        ];
        for (backup_type, file, wanted, is_conflict) in table {
            let found = evaluate(&component, &session, backup_type, Path::new(file));
            assert_eq!(found, (wanted, is_conflict), "{backup_type:?} {file}");
        }
    }

    #[test]
    fn spec_3_7_excludes_are_matched_on_the_files_own_path() {
        let files = FileSpec::below("/srv").matching("*.tmp").file_set();
        let declaration = Declaration { exclude_files: vec![files], ..Declaration::default() };
        assert!(is_excluded(&declaration, Path::new("/srv/a/x.tmp")));
        assert!(
            !is_excluded(&declaration, Path::new("/spit/a/x.tmp")) && !is_excluded(&declaration, Path::new("/srv/x"))
        );
    }
}
