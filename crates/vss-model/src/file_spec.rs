//! File sets: where files are and which of them (spec R 3.3), what must be taken of them in which backup, and where else they
//! may be restored to.

use crate::bits::bits;
use crate::component::is_default;
use crate::json::Json;
use crate::{BackupType, path_text, pattern};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One file set of a component (spec R 3.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSpec {
    /// The directory: absolute, no wildcards.
    #[serde(with = "path_text")]
    pub path: PathBuf,
    /// File name pattern with `?` and `*`, no directory part. `*` when left out.
    #[serde(default = "any_file")]
    pub pattern: String,
    /// True: the directories below too.
    #[serde(default)]
    pub recursive: bool,
    /// Read the files here instead at backup; restore still goes to `path`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "path_text::optional")]
    pub alternate_path: Option<PathBuf>,
    /// In which backups they are needed, and in which they must come from a shadow copy.
    #[serde(default, skip_serializing_if = "is_default")]
    pub backup_type_mask: FileBackupMask,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Json>,
}

fn any_file() -> String {
    "*".to_owned()
}

impl FileSpec {
    /// Where the files are read at backup: the alternate path when there is one.
    #[must_use]
    pub fn source(&self) -> &Path {
        self.alternate_path.as_deref().unwrap_or(&self.path)
    }

    /// The path, pattern and recursion alone.
    #[must_use]
    pub fn file_set(&self) -> FileSet {
        FileSet { path: self.path.clone(), pattern: self.pattern.clone(), recursive: self.recursive }
    }
}

/// Path, pattern and recursion: what excludes and mappings name (spec R 3.7).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileSet {
    /// The directory.
    #[serde(with = "path_text")]
    pub path: PathBuf,
    /// File name pattern with `?` and `*`.
    #[serde(default = "any_file")]
    pub pattern: String,
    /// True: the directories below too.
    #[serde(default)]
    pub recursive: bool,
}

impl FileSet {
    /// True when the file set names this file, whether it exists or not.
    #[must_use]
    pub fn covers(&self, file: &Path) -> bool {
        let (Some(directory), Some(name)) = (file.parent(), file.file_name()) else { return false };
        let is_inside = if self.recursive { directory.starts_with(&self.path) } else { directory == self.path };
        is_inside && pattern::matches(&self.pattern, name.as_encoded_bytes())
    }
}

/// Where files may be restored to when their own place cannot be used: an alternate location mapping (spec R 3.7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlternateLocation {
    /// A file set of one of the writer's components.
    #[serde(flatten)]
    pub files: FileSet,
    /// The other directory.
    #[serde(with = "path_text")]
    pub alternate_path: PathBuf,
}

bits! {
    /// `VSS_FILE_SPEC_BACKUP_TYPE` (spec R 3.3): 0x0F0F unless a writer says otherwise.
    FileBackupMask = 0x0F0F;
    /// `VSS_FSBT_FULL_BACKUP_REQUIRED`.
    FULL_BACKUP_REQUIRED = 0x0001, "full";
    /// `VSS_FSBT_DIFFERENTIAL_BACKUP_REQUIRED`.
    DIFFERENTIAL_BACKUP_REQUIRED = 0x0002, "differential";
    /// `VSS_FSBT_INCREMENTAL_BACKUP_REQUIRED`.
    INCREMENTAL_BACKUP_REQUIRED = 0x0004, "incremental";
    /// `VSS_FSBT_LOG_BACKUP_REQUIRED`.
    LOG_BACKUP_REQUIRED = 0x0008, "log";
    /// `VSS_FSBT_FULL_SNAPSHOT_REQUIRED`.
    FULL_SNAPSHOT_REQUIRED = 0x0100, "full from the copy";
    /// `VSS_FSBT_DIFFERENTIAL_SNAPSHOT_REQUIRED`.
    DIFFERENTIAL_SNAPSHOT_REQUIRED = 0x0200, "differential from the copy";
    /// `VSS_FSBT_INCREMENTAL_SNAPSHOT_REQUIRED`.
    INCREMENTAL_SNAPSHOT_REQUIRED = 0x0400, "incremental from the copy";
    /// `VSS_FSBT_LOG_SNAPSHOT_REQUIRED`.
    LOG_SNAPSHOT_REQUIRED = 0x0800, "log from the copy";
    /// `VSS_FSBT_CREATED_DURING_BACKUP`: expected to appear while the shadow copy is made.
    CREATED_DURING_BACKUP = 0x1_0000, "made during the backup";
}

impl FileBackupMask {
    /// The bits for a backup of this type: a current copy is needed, and it must come from a shadow copy. A copy backup
    /// asks as a full one does, and so does one of another kind: the mask knows neither (spec R 3.3).
    const fn bits_of(backup_type: BackupType) -> (Self, Self) {
        match backup_type {
            BackupType::Full | BackupType::Copy | BackupType::Other => {
                (Self::FULL_BACKUP_REQUIRED, Self::FULL_SNAPSHOT_REQUIRED)
            }
            BackupType::Differential => (Self::DIFFERENTIAL_BACKUP_REQUIRED, Self::DIFFERENTIAL_SNAPSHOT_REQUIRED),
            BackupType::Incremental => (Self::INCREMENTAL_BACKUP_REQUIRED, Self::INCREMENTAL_SNAPSHOT_REQUIRED),
            BackupType::Log => (Self::LOG_BACKUP_REQUIRED, Self::LOG_SNAPSHOT_REQUIRED),
        }
    }

    /// True when a backup of this type must hold a current copy of the files, whatever their times.
    #[must_use]
    pub const fn needs_backup(self, backup_type: BackupType) -> bool {
        self.has(Self::bits_of(backup_type).0)
    }

    /// True when a backup of this type must read the files from a shadow copy, never from the live volume.
    #[must_use]
    pub const fn needs_snapshot(self, backup_type: BackupType) -> bool {
        self.has(Self::bits_of(backup_type).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use BackupType::{Copy, Differential, Full, Incremental, Log, Other};

    #[test]
    fn spec_3_3_the_mask_says_which_backup_needs_the_files_and_whence() {
        let table = [
            (0x0001, Full, (true, false)),
            (0x0002, Differential, (true, false)),
            (0x0004, Incremental, (true, false)),
            (0x0008, Log, (true, false)),
            (0x0100, Full, (false, true)),
            (0x0200, Differential, (false, true)),
            (0x0400, Incremental, (false, true)),
            (0x0800, Log, (false, true)),
            (0x0E0E, Full, (false, false)),
            (0x0101, Copy, (true, true)),
            (0x0101, Other, (true, true)),
            (0x0E0E, Copy, (false, false)),
        ];
        for (mask, backup_type, wanted) in table {
            let mask = FileBackupMask(mask);
            assert_eq!(
                (mask.needs_backup(backup_type), mask.needs_snapshot(backup_type)),
                wanted,
                "{mask:?} {backup_type:?}"
            );
        }
        for backup_type in [Full, Differential, Incremental, Log, Copy, Other] {
            let default = FileBackupMask::default();
            assert!(default.needs_backup(backup_type) && default.needs_snapshot(backup_type));
        }
        assert_eq!(FileBackupMask::default().0, 3855);
        assert_eq!(FileBackupMask(0x2_0001).names(), ["full", "0x20000"]);
    }

    #[test]
    fn a_file_set_covers_names_and_recursion_by_whole_directories() {
        let set = |recursive| FileSet { path: "/srv/db".into(), pattern: "*.log".to_owned(), recursive };
        assert!(set(false).covers(Path::new("/srv/db/a.log")) && !set(false).covers(Path::new("/srv/db/x/a.log")));
        assert!(set(true).covers(Path::new("/srv/db/x/a.log")) && !set(true).covers(Path::new("/srv/db2/a.log")));
        assert!(!set(true).covers(Path::new("/srv/db/a.txt")) && !set(true).covers(Path::new("/")));
    }
}
