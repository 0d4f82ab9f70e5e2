//! What a backup takes, and where it can be read: file sets of components or whole trees, by the paths of the live system.

use crate::attributes::{Inode, Stat};
use crate::entry::{Entry, Kind, Parts, Time};
use crate::pattern::Pattern;
use crate::tree::Tree;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};

/// Which versions of the files of a set are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// Every file, whole.
    Whole,
    /// What was changed after this moment (a differenced file with a time, spec R 3.8).
    ModifiedAfter(Time),
    /// What is another version than in the backup that this one builds on; the others are noted as held by it.
    Changed,
}

/// Files of one directory, or of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSet {
    /// The directory, absolute.
    pub path: PathBuf,
    /// Which files.
    pub pattern: Pattern,
    /// True: those of the directories below too, and these directories themselves.
    pub recursive: bool,
    /// They are read here instead, and belong to `path` all the same.
    pub alternate: Option<PathBuf>,
    /// Which versions.
    pub take: Take,
    /// The component they belong to, by its place in the caller's list; none for a tree that was asked for by its path.
    pub component: Option<u32>,
}

impl FileSet {
    /// True for a file that has to be there: a pattern may match nothing (spec R 1.9).
    pub(crate) fn names_one_file(&self) -> bool {
        self.pattern.is_literal() && !self.recursive
    }
}

/// Files that are never taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exclusion {
    /// The directory, absolute.
    pub path: PathBuf,
    /// Which files.
    pub pattern: Pattern,
    /// True: those of the directories below too.
    pub recursive: bool,
}

/// A file of which parts are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartialFile {
    /// The file, absolute.
    pub path: PathBuf,
    /// Its parts.
    pub parts: Parts,
    /// The component it belongs to.
    pub component: Option<u32>,
}

/// Files of which this backup says nothing, as the writer wants it: what the backup before has of them counts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// Which.
    pub files: vss_model::FileSet,
    /// True: those alone that are still at their own place in the copy.
    pub only_what_is_there: bool,
    /// The component they belong to.
    pub component: u32,
}

impl Carried {
    /// True for its files, and for the directories that they are in.
    fn names(&self, entry: &Entry) -> bool {
        let own = &self.files.path;
        if entry.kind != Kind::Directory {
            return self.files.covers(&entry.path);
        }
        own.starts_with(&entry.path) || (self.files.recursive && entry.path.starts_with(own))
    }
}

/// Where a directory of the live system, and what is below it, can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The directory: a mount point, or the path that was asked for.
    pub at: PathBuf,
    /// The tree, by its place in the caller's list.
    pub tree: usize,
    /// The directory in that tree; empty for its root.
    pub inner: PathBuf,
}

/// A mount that is in no copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotCopied {
    /// Where it is.
    pub at: PathBuf,
    /// Why, for a person.
    pub why: String,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// The file sets.
    pub sets: Vec<FileSet>,
    /// What no set takes.
    pub exclusions: Vec<Exclusion>,
    /// Files of which parts are taken, whatever the sets say.
    pub partial_files: Vec<PartialFile>,
    /// What the backup before has and this one says nothing of.
    pub carried: Vec<Carried>,
    /// Where to read; the deepest place above a path counts.
    pub places: Vec<Place>,
    /// Mounts that cannot be read. A set that holds one is not whole.
    pub not_copied: Vec<NotCopied>,
    /// Paths that are left out with all that is below them.
    pub left_out: BTreeSet<PathBuf>,
}

impl Selection {
    /// The components by which an entry of the backup before counts on; empty: it does not.
    pub(crate) fn carriers(&self, entry: &Entry, trees: &[Tree]) -> Vec<u32> {
        let is_there = || {
            let Some((tree, inner)) = self.place_of(&entry.path) else { return false };
            let (parent, name) = (inner.parent().unwrap_or(Path::new("")), inner.file_name().unwrap_or_default());
            trees[tree].directory(parent).is_ok_and(|directory| Stat::of(Inode::Named(directory.as_fd(), name)).is_ok())
        };
        let named = self.carried.iter().filter(|one| one.names(entry));
        let carrying = named.filter(|one| !one.only_what_is_there || is_there()).map(|one| one.component);
        carrying.collect::<BTreeSet<u32>>().into_iter().collect()
    }

    /// The sets that hold this mount with all that is in it, as far as that is not excluded by the path that it belongs to.
    pub(crate) fn sets_over(&self, mount: &Path) -> Vec<usize> {
        let is_excluded = |path: &Path| {
            let mut everything = self.exclusions.iter().filter(|one| one.recursive && one.pattern.is_everything());
            everything.any(|one| path.starts_with(&one.path))
        };
        let holds = |set: &FileSet| {
            let below = mount.strip_prefix(set.alternate.as_ref().unwrap_or(&set.path));
            set.recursive && below.is_ok_and(|below| !is_excluded(&set.path.join(below)))
        };
        (0..self.sets.len()).filter(|&set| holds(&self.sets[set])).collect()
    }

    /// Where `path` can be read: the tree and the directory in it.
    pub(crate) fn place_of(&self, path: &Path) -> Option<(usize, PathBuf)> {
        let above = self.places.iter().filter(|place| path.starts_with(&place.at));
        let place = above.max_by_key(|place| place.at.components().count())?;
        Some((place.tree, place.inner.join(path.strip_prefix(&place.at).ok()?)))
    }
}

/// One directory on the way to what is selected. Numbers are places in the lists of the [`Selection`].
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) children: BTreeMap<OsString, Node>,
    pub(crate) place: Option<usize>,
    pub(crate) sets: Vec<usize>,
    pub(crate) exclusions: Vec<usize>,
    pub(crate) partial_files: BTreeMap<OsString, usize>,
    /// True when something is selected here or below; places and exclusions alone are no reason to go there.
    pub(crate) wanted: bool,
}

impl Node {
    /// The way from `/` to all that is selected.
    pub(crate) fn of(selection: &Selection) -> Self {
        let mut root = Self::default();
        for (index, place) in selection.places.iter().enumerate() {
            root.at(&place.at, false).place = Some(index);
        }
        for (index, set) in selection.sets.iter().enumerate() {
            root.at(&set.path, true).sets.push(index);
        }
        for (index, exclusion) in selection.exclusions.iter().enumerate() {
            root.at(&exclusion.path, false).exclusions.push(index);
        }
        for (index, file) in selection.partial_files.iter().enumerate() {
            if let (Some(parent), Some(name)) = (file.path.parent(), file.path.file_name()) {
                root.at(parent, true).partial_files.insert(name.to_owned(), index);
            }
        }
        root
    }

    fn at(&mut self, path: &Path, wanted: bool) -> &mut Self {
        let mut node = self;
        node.wanted |= wanted;
        for part in path.components() {
            if let Component::Normal(name) = part {
                node = node.children.entry(name.to_owned()).or_default();
                node.wanted |= wanted;
            }
        }
        node
    }

    /// The sets of this directory and of those below.
    pub(crate) fn selected(&self) -> impl Iterator<Item = usize> {
        self.all().flat_map(|node| node.sets.iter().copied())
    }

    /// The partial files in this directory and in those below.
    pub(crate) fn partly_selected(&self) -> impl Iterator<Item = usize> {
        self.all().flat_map(|node| node.partial_files.values().copied())
    }

    fn all(&self) -> impl Iterator<Item = &Self> {
        let mut nodes = vec![self];
        std::iter::from_fn(move || {
            let node = nodes.pop()?;
            nodes.extend(node.children.values());
            Some(node)
        })
    }

    pub(crate) fn child(&self, name: &OsStr) -> Option<&Self> {
        self.children.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_belongs_to_the_sets_that_are_read_there_and_not_where_it_is_excluded() {
        let set = |path: &str, recursive, alternate: Option<&str>| FileSet {
            path: path.into(),
            pattern: Pattern::new("*"),
            recursive,
            alternate: alternate.map(PathBuf::from),
            take: Take::Whole,
            component: None,
        };
        let exclusion =
            |path: &str, pattern| Exclusion { path: path.into(), pattern: Pattern::new(pattern), recursive: true };
        let selection = Selection {
            sets: vec![
                set("/srv", true, None),
                set("/srv", false, None),
                set("/srv/data", true, Some("/srv/spit")),
                set("/srv/other", true, Some("/srv/spit")),
            ],
            exclusions: vec![exclusion("/srv/tmp", "*"), exclusion("/srv/some", "*.tmp"), exclusion("/srv/other", "*")],
            ..Selection::default()
        };
        let over = |mount: &str| selection.sets_over(Path::new(mount));
        assert_eq!(over("/srv/hot"), [0]);
        assert_eq!(over("/srv/some"), [0]);
        assert_eq!(over("/srv/spit/hot"), [0, 2]);
        assert!(over("/srv/tmp").is_empty() && over("/srv/tmp/below").is_empty() && over("/srv2").is_empty());
    }

    #[test]
    fn the_deepest_place_counts() {
        let place = |at: &str, tree, inner: &str| Place { at: at.into(), tree, inner: inner.into() };
        let selection = Selection {
            places: vec![place("/", 0, "@"), place("/srv", 1, ""), place("/srv/wal", 2, "pg/wal")],
            ..Selection::default()
        };
        assert_eq!(selection.place_of(Path::new("/etc/x")), Some((0, "@/etc/x".into())));
        assert_eq!(selection.place_of(Path::new("/srv/walls")), Some((1, "walls".into())));
        assert_eq!(selection.place_of(Path::new("/srv/wal/1")), Some((2, "pg/wal/1".into())));
        assert_eq!(Selection::default().place_of(Path::new("/x")), None);
    }
}
