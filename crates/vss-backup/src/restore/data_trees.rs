//! The data trees of a chain, each with the directories on the way to the file that was last read from it.

use crate::chain::{Chain, Generation};
use crate::dir_chain::DirChain;
use crate::failure::reading;
use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use vss_model::VssError;

/// So many trees keep the way to their last file open: neighbours mostly come from few backups, and a chain may be longer than
/// a process may have files open.
const WAYS: usize = 16;

/// The data trees, oldest first.
#[derive(Debug)]
pub(super) struct DataTrees {
    trees: Vec<DirChain>,
    /// Those with an open way, the one that was used last at the end.
    open: VecDeque<usize>,
}

impl DataTrees {
    pub(super) fn open(chain: &Chain) -> Result<Self, VssError> {
        let open = |one: &Generation| {
            let data = one.directory.data().map_err(|error| reading(one.directory.path(), &error))?;
            Ok(DirChain::new(data, false))
        };
        let trees = chain.generations().iter().map(open).collect::<Result<_, VssError>>()?;
        Ok(Self { trees, open: VecDeque::with_capacity(WAYS + 1) })
    }

    /// The directory at `path` in the tree of the generation `at`.
    pub(super) fn directory(&mut self, at: usize, path: &Path) -> io::Result<BorrowedFd<'_>> {
        self.open.retain(|other| *other != at);
        self.open.push_back(at);
        if self.open.len() > WAYS
            && let Some(oldest) = self.open.pop_front()
        {
            self.trees[oldest].close();
        }
        self.trees[at].directory(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};

    #[test]
    fn of_many_trees_few_keep_their_way_open() {
        let place = tempfile::tempdir().unwrap();
        let root = |at: usize| {
            let root = place.path().join(at.to_string());
            std::fs::create_dir_all(root.join("a/b/c")).unwrap();
            let opened = rustix::fs::open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
            DirChain::new(opened.unwrap(), false)
        };
        let mut trees = DataTrees { trees: (0..50).map(root).collect(), open: VecDeque::new() };
        for at in (0..50).chain([3, 49, 3]) {
            trees.directory(at, Path::new("/a/b/c")).unwrap();
            assert!(trees.open.len() <= WAYS);
        }
        let open: Vec<usize> = (0..50).filter(|at| trees.trees[*at].is_open()).collect();
        assert_eq!(open, [vec![3], (35..50).collect()].concat());
    }
}
