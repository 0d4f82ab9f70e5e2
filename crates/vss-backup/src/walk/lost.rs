//! What a walk cannot read, or does not find: told once, of all that is selected there. Nothing that was selected is left out
//! in silence.

use super::{Visitor, Walk};
use crate::selection::Node;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use vss_model::VssError;

/// What cannot be read by one error.
#[derive(Default)]
pub(super) struct Lost<'n> {
    pub(super) sets: &'n [usize],
    pub(super) partial: &'n [usize],
    /// With all that is selected here and below, as far as it is not read elsewhere.
    pub(super) node: Option<&'n Node>,
    /// That too.
    pub(super) elsewhere_too: bool,
}

/// Where a component has its directory, and a symbolic link is.
pub(super) fn over_link() -> io::Error {
    let message = "it is a symbolic link, and none is followed: the component has to name what it leads to";
    io::Error::new(io::ErrorKind::NotADirectory, message)
}

/// On a volume that was not copied.
pub(super) fn in_no_copy() -> io::Error {
    io::Error::new(io::ErrorKind::CrossesDevices, "it is in no shadow copy of this set")
}

impl Walk<'_> {
    pub(super) fn lost(
        &mut self,
        path: &Path,
        lost: Lost<'_>,
        error: io::Error,
        visitor: &mut dyn Visitor,
    ) -> Result<(), VssError> {
        let all = &self.selection.sets;
        let is_lost = |set: &usize| lost.elsewhere_too || all[*set].alternate.is_none();
        let below = lost.node.into_iter().flat_map(Node::selected).filter(is_lost);
        let sets: BTreeSet<usize> = lost.sets.iter().copied().chain(below).collect();
        let partial = lost.node.into_iter().flat_map(Node::partly_selected);
        let partial: BTreeSet<usize> = lost.partial.iter().copied().chain(partial).collect();
        if sets.is_empty() && partial.is_empty() {
            return Ok(());
        }
        let (sets, partial) = (Vec::from_iter(sets), Vec::from_iter(partial));
        self.met.extend(&sets);
        self.partial_met.extend(&partial);
        visitor.trouble(path, &sets, &partial, error)
    }

    /// Tells of a directory that is not there. Patterns may match nothing (spec R 1.9); what has to be there is missing besides.
    pub(super) fn absent(&self, path: &Path, node: &Node, visitor: &mut dyn Visitor) {
        let sets = &self.selection.sets;
        let may_be_empty = |set: usize| sets[set].alternate.is_none() && !sets[set].names_one_file();
        if node.selected().any(may_be_empty) {
            visitor.absent(path);
        }
    }

    /// Tells what was named and is not there.
    pub(super) fn missing(&self, visitor: &mut dyn Visitor) -> Result<(), VssError> {
        for (index, set) in self.selection.sets.iter().enumerate() {
            if set.names_one_file() && !self.met.contains(&index) {
                visitor.trouble(&set.path.join(set.pattern.text()), &[index], &[], Errno::NOENT.into())?;
            }
        }
        for (index, file) in self.selection.partial_files.iter().enumerate() {
            if !self.partial_met.contains(&index) {
                visitor.trouble(&file.path, &[], &[index], Errno::NOENT.into())?;
            }
        }
        Ok(())
    }
}
