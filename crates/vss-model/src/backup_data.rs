//! What writers and requester say of single components in a backup: stamps, metadata, partial and differenced files (spec R
//! 3.8). It travels in events, in answers and in the Backup Components Document.

use crate::differenced_file::DifferencedFiles;
use crate::partial_file::{PartialFile, Ranges};
use serde::{Deserialize, Serialize};

/// What a writer has said of one component.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ComponentData {
    /// The stamp of this backup; none when the writer keeps no stamps. Opaque.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_stamp: Option<String>,
    /// What the writer wants to read at restore; none when nothing. Opaque.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_metadata: Option<String>,
    /// In the order in which they were added.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partial_files: Vec<PartialFile>,
    /// In the order in which they were added.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differenced_files: Vec<DifferencedFiles>,
}

impl ComponentData {
    /// True when the writer has said nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes in what the writer says next: a stamp and metadata replace the earlier ones, files are added to them.
    pub fn add(&mut self, more: Self) {
        self.backup_stamp = more.backup_stamp.or(self.backup_stamp.take());
        self.backup_metadata = more.backup_metadata.or(self.backup_metadata.take());
        self.partial_files.extend(more.partial_files);
        self.differenced_files.extend(more.differenced_files);
    }

    /// About how many bytes it takes in a message.
    #[must_use]
    pub fn size(&self) -> usize {
        /// Names of fields, quotes and numbers around one entry.
        const AROUND: usize = 100;
        /// Two numbers of 64 bits as text.
        const RANGE: usize = 43;
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let ranges = |ranges: &Ranges| match ranges {
            Ranges::List(list) => list.len() * RANGE,
            Ranges::File(path) => path.as_os_str().len(),
        };
        let partial = |file: &PartialFile| {
            AROUND + file.path.as_os_str().len() + file.file_name.len() + ranges(&file.ranges) + file.metadata.len()
        };
        let differenced = |one: &DifferencedFiles| AROUND + one.files.path.as_os_str().len() + one.files.pattern.len();
        text(&self.backup_stamp)
            + text(&self.backup_metadata)
            + self.partial_files.iter().map(partial).sum::<usize>()
            + self.differenced_files.iter().map(differenced).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FileSet, FileTime};

    #[test]
    fn stamps_replace_and_files_add() {
        let differenced = |pattern: &str| DifferencedFiles {
            files: FileSet { path: "/srv".into(), pattern: pattern.into(), recursive: false },
            last_modified: FileTime(0),
        };
        let mut data = ComponentData::default();
        assert!(data.is_empty());
        data.add(ComponentData {
            backup_stamp: Some("1".into()),
            backup_metadata: Some("m".into()),
            ..Default::default()
        });
        data.add(ComponentData { differenced_files: vec![differenced("a")], ..Default::default() });
        data.add(ComponentData {
            backup_stamp: Some("2".into()),
            differenced_files: vec![differenced("b")],
            ..Default::default()
        });
        assert_eq!((data.backup_stamp.as_deref(), data.backup_metadata.as_deref()), (Some("2"), Some("m")));
        assert_eq!(data.differenced_files, [differenced("a"), differenced("b")]);
        assert!(data.size() > 200);
    }
}
