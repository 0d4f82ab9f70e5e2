//! One walk through everything that is selected, in the order of [`crate::order`]: every directory once, whatever number of
//! file sets it belongs to, and with no more in memory than the names of the directories on the way.

mod lost;
#[cfg(test)]
mod tests;

use self::lost::{Lost, in_no_copy, over_link};
use crate::attributes::{Inode, Stat, is_name};
use crate::entry::Kind;
use crate::selection::{Exclusion, FileSet, Node, Selection};
use crate::tree::{Tree, names};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use vss_model::VssError;

/// Directories within each other, at most: each holds descriptors open, on both sides. A path of names of one letter is
/// then twice as long as the longest that programs can name.
pub(crate) const DEPTH: usize = 4096;

/// Something that was met and is selected, in a directory of this tree.
pub(crate) struct Found<'a> {
    pub(crate) path: &'a Path,
    pub(crate) tree: &'a Tree,
    pub(crate) directory: BorrowedFd<'a>,
    pub(crate) name: &'a OsStr,
    pub(crate) stat: Stat,
    /// The sets that take it.
    pub(crate) sets: &'a [usize],
    /// Only parts of it are taken: the place in the list of partial files.
    pub(crate) partial: Option<usize>,
}

/// A directory of which everything was told.
pub(crate) struct Left<'a> {
    pub(crate) path: &'a Path,
    /// In the copy, or, above all places, the live one; none where that cannot be opened.
    pub(crate) directory: Option<BorrowedFd<'a>>,
    /// The sets that take all of it.
    pub(crate) sets: &'a [usize],
}

/// Hears of a walk. An error ends it.
pub(crate) trait Visitor {
    /// Anything but a directory.
    fn file(&mut self, found: &Found<'_>) -> Result<(), VssError>;
    /// A directory begins.
    fn enter(&mut self, path: &Path) -> Result<(), VssError>;
    /// A directory is over.
    fn leave(&mut self, left: &Left<'_>) -> Result<(), VssError>;
    /// Something of these sets, or of these partial files, cannot be read.
    fn trouble(&mut self, path: &Path, sets: &[usize], partial: &[usize], error: io::Error) -> Result<(), VssError>;
    /// A directory that sets are of is not there: they are empty.
    fn absent(&mut self, _path: &Path) {}
}

/// Where a directory is read for some of the sets.
struct Layer {
    directory: OwnedFd,
    tree: usize,
    sets: Vec<usize>,
    /// False for the alternate path of a set.
    is_own: bool,
}

struct Frame<'n> {
    node: Option<&'n Node>,
    /// Alternate paths first: what is there wins.
    layers: Vec<Layer>,
    names: Vec<OsString>,
    next: usize,
    /// The recursive exclusions from above, and all of this directory.
    exclusions: Vec<usize>,
    /// True at and below a place.
    placed: bool,
}

/// Walks.
pub(crate) struct Walk<'a> {
    selection: &'a Selection,
    trees: &'a [Tree],
    /// The sets that have met a file, or of which trouble was told.
    met: BTreeSet<usize>,
    partial_met: BTreeSet<usize>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(selection: &'a Selection, trees: &'a [Tree]) -> Self {
        Self { selection, trees, met: BTreeSet::new(), partial_met: BTreeSet::new() }
    }

    /// Walks from `/` through all that is selected.
    ///
    /// # Errors
    /// The visitor's.
    pub(crate) fn run(mut self, visitor: &mut dyn Visitor) -> Result<(), VssError> {
        let root = Node::of(self.selection);
        let mut path = PathBuf::from("/");
        let mut frames: Vec<Frame<'_>> = Vec::new();
        if let Some(frame) = self.frame(&path, Some(&root), Vec::new(), &[], false, visitor)? {
            visitor.enter(&path)?;
            frames.push(frame);
        }
        loop {
            let may_go_deeper = frames.len() < DEPTH;
            let Some(frame) = frames.last_mut() else { break };
            let Some(name) = frame.names.get(frame.next).cloned() else {
                self.leave(&path, frame, visitor)?;
                frames.pop();
                path.pop();
                continue;
            };
            frame.next += 1;
            path.push(&name);
            let below = self.name(&path, &name, frame, may_go_deeper, visitor);
            match below? {
                Some(below) => frames.push(below),
                None => {
                    path.pop();
                }
            }
        }
        self.missing(visitor)
    }

    /// Deals with one name of a directory; the result is the directory of that name, where it has to be walked.
    fn name<'n>(
        &mut self,
        path: &Path,
        name: &OsStr,
        frame: &Frame<'n>,
        may_go_deeper: bool,
        visitor: &mut dyn Visitor,
    ) -> Result<Option<Frame<'n>>, VssError> {
        if self.selection.left_out.contains(path) {
            return Ok(None);
        }
        let node = frame.node.and_then(|node| node.child(name)).filter(|node| node.wanted || node.place.is_some());
        let wanted = node.is_some_and(|node| node.wanted);
        // What can be reached by this name alone: at a place another tree begins.
        let by_name = node.filter(|node| node.wanted && node.place.is_none());
        let partial = frame.node.and_then(|node| node.partial_files.get(name)).copied();
        let nothing_below = frame.exclusions.iter().any(|&one| {
            let exclusion = &self.selection.exclusions[one];
            exclusion.recursive && exclusion.pattern.is_everything()
        });
        let mut layers = Vec::new();
        for layer in &frame.layers {
            let node = by_name.filter(|_| layer.is_own);
            let stat = match Stat::of(Inode::Named(layer.directory.as_fd(), name)) {
                Ok(stat) => stat,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if let Some(node) = node {
                        self.absent(path, node, visitor);
                    }
                    continue;
                }
                Err(error) => {
                    let partial = partial.as_slice();
                    let lost = Lost { sets: &layer.sets, partial, node, ..Lost::default() };
                    self.lost(path, lost, error, visitor)?;
                    continue;
                }
            };
            if stat.kind != Kind::Directory {
                let is_link = stat.kind == Kind::Symlink;
                let taken = layers.is_empty() && self.file(path, name, frame, layer, stat, partial, visitor)?;
                if node.is_some() {
                    let error = if is_link { over_link() } else { Errno::NOTDIR.into() };
                    // Where a file was taken no directory can be.
                    self.lost(path, Lost { node, elsewhere_too: taken, ..Lost::default() }, error, visitor)?;
                }
                if taken {
                    return Ok(None);
                }
                continue;
            }
            let recursive = |set: &usize| self.selection.sets[*set].recursive;
            let sets: Vec<usize> = layer.sets.iter().copied().filter(recursive).collect();
            if (sets.is_empty() || nothing_below) && !(layer.is_own && wanted) {
                continue;
            }
            let opened = if may_go_deeper {
                self.trees[layer.tree].child(layer.directory.as_fd(), name)
            } else {
                Err(Errno::NAMETOOLONG.into())
            };
            match opened {
                Ok(directory) => layers.push(Layer { directory, tree: layer.tree, sets, is_own: layer.is_own }),
                Err(error) => {
                    self.lost(path, Lost { sets: &sets, node, ..Lost::default() }, error, visitor)?;
                }
            }
        }
        if layers.is_empty() && !wanted {
            return Ok(None);
        }
        let below = self.frame(path, node, layers, &frame.exclusions, frame.placed, visitor)?;
        if below.is_some() {
            visitor.enter(path)?;
        }
        Ok(below)
    }

    /// Tells of a file, where a set takes it. True: it did.
    #[expect(clippy::too_many_arguments, reason = "what one name of one directory is")]
    fn file(
        &mut self,
        path: &Path,
        name: &OsStr,
        frame: &Frame<'_>,
        layer: &Layer,
        stat: Stat,
        partial: Option<usize>,
        visitor: &mut dyn Visitor,
    ) -> Result<bool, VssError> {
        let sets = &self.selection.sets;
        let matching = |set: &usize| sets[*set].pattern.matches(name.as_bytes());
        let taken: Vec<usize> = layer.sets.iter().copied().filter(matching).collect();
        self.met.extend(&taken);
        self.partial_met.extend(partial.filter(|_| layer.is_own));
        let partial = partial.filter(|_| layer.is_own);
        let excluded = |one: &usize| self.selection.exclusions[*one].pattern.matches(name.as_bytes());
        if frame.exclusions.iter().any(excluded) || (taken.is_empty() && partial.is_none()) {
            return Ok(false);
        }
        let tree = &self.trees[layer.tree];
        let directory = layer.directory.as_fd();
        visitor.file(&Found { path, tree, directory, name, stat, sets: &taken, partial })?;
        Ok(true)
    }

    /// The directory at `path`, ready to be walked; none when it is not there.
    fn frame<'n>(
        &mut self,
        path: &Path,
        node: Option<&'n Node>,
        mut layers: Vec<Layer>,
        exclusions: &[usize],
        placed: bool,
        visitor: &mut dyn Visitor,
    ) -> Result<Option<Frame<'n>>, VssError> {
        let Selection { places, sets, .. } = self.selection;
        let all_exclusions: &[Exclusion] = &self.selection.exclusions;
        let mut placed = placed;
        if let Some(place) = node.and_then(|node| node.place).map(|place| &places[place]) {
            placed = true;
            let own = layers.iter().position(|layer| layer.is_own).map(|at| layers.remove(at));
            let from_above = own.map(|layer| layer.sets).unwrap_or_default();
            match self.trees[place.tree].directory(&place.inner) {
                Ok(directory) => {
                    layers.push(Layer { directory, tree: place.tree, sets: from_above, is_own: true });
                }
                Err(error) => self.lost(path, Lost { sets: &from_above, node, ..Lost::default() }, error, visitor)?,
            }
        }
        let here = node.map(|node| node.sets.as_slice()).unwrap_or_default();
        let (elsewhere, own): (Vec<usize>, Vec<usize>) = here.iter().partition(|&&set| sets[set].alternate.is_some());
        if let Some(layer) = layers.iter_mut().find(|layer| layer.is_own) {
            layer.sets.extend(own);
        } else if !placed {
            let partial: Vec<usize> = node.iter().flat_map(|node| node.partial_files.values().copied()).collect();
            self.lost(path, Lost { partial: &partial, sets: &own, ..Lost::default() }, in_no_copy(), visitor)?;
        }
        for set in elsewhere {
            if let Some(layer) = self.alternate(set, &sets[set], visitor)? {
                layers.insert(0, layer);
            }
        }
        let is_read_elsewhere = |set: usize| sets[set].alternate.is_some();
        let below = |node: &Node| node.children.values().any(|child| child.selected().any(is_read_elsewhere));
        if layers.is_empty() && placed && !node.is_some_and(below) {
            return Ok(None);
        }
        let names = self.names(path, node, &layers, visitor)?;
        let inherited = exclusions.iter().copied().filter(|&one| all_exclusions[one].recursive);
        let of_node = node.map(|node| node.exclusions.as_slice()).unwrap_or_default();
        let exclusions = inherited.chain(of_node.iter().copied()).collect();
        Ok(Some(Frame { node, layers, names, next: 0, exclusions, placed }))
    }

    /// The alternate path of a set; none when it is not there.
    fn alternate(&self, set: usize, of: &FileSet, visitor: &mut dyn Visitor) -> Result<Option<Layer>, VssError> {
        let Some(path) = &of.alternate else { return Ok(None) };
        let opened = match self.selection.place_of(path) {
            Some((tree, inner)) => self.trees[tree].directory(&inner).map(|directory| (directory, tree)),
            None => Err(in_no_copy()),
        };
        match opened {
            Ok((directory, tree)) => Ok(Some(Layer { directory, tree, sets: vec![set], is_own: false })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => visitor.trouble(path, &[set], &[], error).map(|()| None),
        }
    }

    /// Every name that may matter, once, in order.
    fn names(
        &self,
        path: &Path,
        node: Option<&Node>,
        layers: &[Layer],
        visitor: &mut dyn Visitor,
    ) -> Result<Vec<OsString>, VssError> {
        let mut all = Vec::new();
        for layer in layers.iter().filter(|layer| !layer.sets.is_empty()) {
            match names(layer.directory.as_fd()) {
                Ok(names) if all.is_empty() => all = names,
                Ok(names) => all.extend(names),
                Err(error) => visitor.trouble(path, &layer.sets, &[], error)?,
            }
        }
        let listed = all.len();
        if let Some(node) = node {
            let below = node.children.iter().filter(|(_, child)| child.wanted).map(|(name, _)| name);
            all.extend(below.chain(node.partial_files.keys()).filter(|name| is_name(name)).cloned());
        }
        if all.len() > listed || layers.len() > 1 {
            all.sort_unstable();
            all.dedup();
        }
        Ok(all)
    }

    fn leave(&self, path: &Path, frame: &Frame<'_>, visitor: &mut dyn Visitor) -> Result<(), VssError> {
        let sets: BTreeSet<usize> = frame.layers.iter().flat_map(|layer| layer.sets.iter().copied()).collect();
        let sets: Vec<usize> = sets.into_iter().filter(|&set| self.selection.sets[set].recursive).collect();
        let own = frame.layers.iter().find(|layer| layer.is_own).or(frame.layers.first());
        let live = if own.is_none() { std::fs::File::open(path).ok() } else { None };
        let directory = own.map(|layer| layer.directory.as_fd()).or(live.as_ref().map(AsFd::as_fd));
        visitor.leave(&Left { path, directory, sets: &sets })
    }
}
