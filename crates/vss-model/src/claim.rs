//! Claiming: a writer says in one line what it owns.
//!
//! ```
//! use vss_model::{Component, FileSpec};
//!
//! # fn main() -> Result<(), vss_model::VssError> {
//! let everything = Component::file_group("data").files_below("/srv/shop").build()?;
//! let orders = Component::database("orders")
//!     .logical_path("europe")
//!     .caption("Orders of the European shop")
//!     .files(FileSpec::directly_in("/srv/shop/db").matching("*.db"))
//!     .files_below("/srv/shop/wal")
//!     .build()?;
//! assert_eq!(orders.name.to_string(), "europe\\orders");
//! # assert_eq!(everything.files.len(), 1);
//! # Ok(())
//! # }
//! ```

use crate::{
    Component, ComponentFlags, ComponentKind, ComponentName, Dependency, FileBackupMask, FileSpec, VssError,
    WriterClassId,
};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A component in the making; [`Component::file_group`] and [`Component::database`] begin it.
#[derive(Debug, Clone)]
#[must_use = "a claim is nothing until it is built"]
pub struct Claim(Component);

impl Component {
    /// Begins a file group: files of any kind. It is selectable and owns nothing yet.
    pub fn file_group(name: impl Into<String>) -> Claim {
        Claim::new(ComponentKind::FileGroup, name.into())
    }

    /// Begins a database. Unlike Microsoft's it may own whole trees.
    pub fn database(name: impl Into<String>) -> Claim {
        Claim::new(ComponentKind::Database, name.into())
    }
}

impl Claim {
    fn new(kind: ComponentKind, name: String) -> Self {
        Self(Component {
            kind,
            name: ComponentName { logical_path: String::new(), name },
            caption: None,
            selectable: true,
            selectable_for_restore: false,
            icon: None,
            restore_metadata: false,
            notify_on_backup_complete: false,
            flags: ComponentFlags::default(),
            files: Vec::new(),
            log_files: Vec::new(),
            dependencies: Vec::new(),
            other: BTreeMap::new(),
        })
    }

    /// Where it stands among the writer's components: elements separated by `\`. The root, which is empty, when left out.
    pub fn logical_path(mut self, path: impl Into<String>) -> Self {
        self.0.name.logical_path = path.into();
        self
    }

    /// A name for a person.
    pub fn caption(mut self, caption: impl Into<String>) -> Self {
        self.0.caption = Some(caption.into());
        self
    }

    /// No requester may choose it alone: it goes with its writer, or with what it stands below (spec R 3.4).
    pub fn not_selectable(mut self) -> Self {
        self.0.selectable = false;
        self
    }

    /// Owns this file set too.
    pub fn files(mut self, files: FileSpec) -> Self {
        self.0.files.push(files);
        self
    }

    /// Of a database: these are logs, which are all that a log backup takes.
    pub fn log_files(mut self, files: FileSpec) -> Self {
        self.0.log_files.push(files);
        self
    }

    /// It may be restored alone although it was backed up as part of another (spec R 3.5).
    pub fn selectable_for_restore(mut self) -> Self {
        self.0.selectable_for_restore = true;
        self
    }

    /// What else is to be known of it.
    pub fn flags(mut self, flags: ComponentFlags) -> Self {
        self.0.flags = self.0.flags.with(flags);
        self
    }

    /// It is of no use without this component of another writer (spec R 3.6).
    pub fn depends_on(mut self, writer: WriterClassId, component: ComponentName) -> Self {
        self.0.dependencies.push(Dependency { writer, on: component });
        self
    }

    /// Owns every file of the directory and of the directories below.
    pub fn files_below(self, directory: impl Into<PathBuf>) -> Self {
        self.files(FileSpec::below(directory))
    }

    /// Owns every file of the directory, and none of the directories below.
    pub fn files_directly_in(self, directory: impl Into<PathBuf>) -> Self {
        self.files(FileSpec::directly_in(directory))
    }

    /// The finished component.
    ///
    /// # Errors
    /// Those of [`Component::check`].
    pub fn build(self) -> Result<Component, VssError> {
        self.0.check()?;
        Ok(self.0)
    }
}

impl FileSpec {
    /// Every file of the directory and of the directories below.
    #[must_use]
    pub fn below(directory: impl Into<PathBuf>) -> Self {
        Self { recursive: true, ..Self::directly_in(directory) }
    }

    /// Every file of the directory, and none of the directories below.
    #[must_use]
    pub fn directly_in(directory: impl Into<PathBuf>) -> Self {
        Self {
            path: directory.into(),
            pattern: "*".to_owned(),
            recursive: false,
            alternate_path: None,
            backup_type_mask: FileBackupMask::default(),
            other: BTreeMap::new(),
        }
    }

    /// Of those, the files whose names match a pattern with `?` and `*`.
    #[must_use]
    pub fn matching(mut self, pattern: impl Into<String>) -> Self {
        self.pattern = pattern.into();
        self
    }

    /// Those files, needed in backups of these types alone (spec R 3.3).
    #[must_use]
    pub fn needed_in(mut self, mask: FileBackupMask) -> Self {
        self.backup_type_mask = mask;
        self
    }

    /// Those files, read from another directory at backup; a restore writes them to their own.
    #[must_use]
    pub fn read_from(mut self, directory: impl Into<PathBuf>) -> Self {
        self.alternate_path = Some(directory.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VssCode;
    use std::path::Path;

    #[test]
    fn a_claim_is_what_was_said() {
        let component = Component::database("orders")
            .logical_path("shop\\europe")
            .caption("Orders")
            .not_selectable()
            .files(FileSpec::directly_in("/srv/db").matching("*.db").read_from("/srv/spit"))
            .files_below("/srv/wal")
            .files_directly_in("/etc/shop")
            .build()
            .unwrap();
        assert_eq!(component.kind, ComponentKind::Database);
        assert_eq!(component.name.to_string(), "shop\\europe\\orders");
        assert!(component.caption.as_deref() == Some("Orders") && !component.selectable);
        let [db, wal, etc] = component.files.as_slice() else { panic!("{:?}", component.files) };
        assert!(!db.recursive && db.pattern == "*.db" && db.alternate_path.as_deref() == Some(Path::new("/srv/spit")));
        assert!(wal.recursive && wal.pattern == "*" && wal.path == Path::new("/srv/wal") && !etc.recursive);
        let plain = Component::file_group("data").build().unwrap();
        assert!(plain.selectable && plain.kind == ComponentKind::FileGroup && plain.files.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = [
            (Component::file_group(""), "name"),
            (Component::file_group("a\\b"), "backslash"),
            (Component::file_group("a").logical_path("\\"), "empty element"),
            (Component::file_group("a").logical_path("x\\\\y"), "empty element"),
            (Component::file_group("a").files_below("srv"), "absolute"),
            (Component::file_group("a").files_below("/srv/../etc"), ".."),
            (Component::file_group("a").files(FileSpec::below("/srv").read_from("spit")), "spit"),
            (Component::file_group("a").files(FileSpec::below("/srv").matching("")), "pattern"),
            (Component::file_group("a").files(FileSpec::below("/srv").matching("x/*")), "directory part"),
            (Component::file_group("a").files_below("/srv").files_directly_in("/srv"), "twice"),
        ];
        for (claim, why) in wrong {
            let error = claim.build().unwrap_err();
            assert!(error.code == VssCode::InvalidArgument && error.message.contains(why), "{why}: {error}");
        }
        let many = (0..=crate::limits::FILES_PER_COMPONENT).map(|n| FileSpec::below(format!("/srv/{n}")));
        let error = many.fold(Component::file_group("a"), Claim::files).build().unwrap_err();
        assert!(error.message.contains("20000"), "{error}");
    }
}
