//! One set in creation: what is open for it, what was cut, and how it is undone.

use crate::{
    cut::Cutters,
    file_system::FileSystem,
    nested::{self, Place},
    store::Parts,
};
use rustix::{fs::OFlags, io::Errno};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};
use vss_linux::{
    btrfs::{self, Access, Nested},
    mount,
};
use vss_model::{Instant, NestedCopy, ShadowId, Volume, VssCode, VssError};
use vss_provider::{
    CommittedCopy, current,
    failure::{failed, is},
    space,
    stage::Stage,
    store::{self, Store},
};

/// A volume that was taken into the set by BeginPrepare.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) shadow_id: ShadowId,
    pub(crate) volume: Volume,
    pub(crate) subvolume: u64,
    /// The copy must survive a power cut.
    pub(crate) lasting: bool,
}

/// The volumes of the set that lie on one file system; they are cut one after another.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) file_system: FileSystem,
    pub(crate) store: Store,
    pub(crate) copies: Vec<Copy>,
}

/// One shadow copy in the making.
#[derive(Debug)]
pub(crate) struct Copy {
    shadow_id: ShadowId,
    subvolume: u64,
    lasting: bool,
    /// The root first, then what is nested in it, outer before inner.
    pub(crate) parts: Vec<Part>,
}

/// One subvolume to be cut.
#[derive(Debug)]
pub(crate) struct Part {
    subvolume: u64,
    /// Its number in its name: 0 for the root.
    index: usize,
    /// Its place, relative to the root of the copy.
    path: PathBuf,
    /// Its live root.
    pub(crate) source: OwnedFd,
    /// Its name in the store.
    pub(crate) name: OsString,
    /// Set by the cut.
    pub(crate) cut_at: Option<Instant>,
}

/// Where the lanes are: here, or with the threads that are to cut them.
#[derive(Debug)]
pub(crate) enum Lanes {
    Here(Vec<Lane>),
    WithCutters(Cutters),
}

/// A set that is not finished.
#[derive(Debug)]
pub(crate) struct Creation {
    stage: Stage,
    pub(crate) members: Vec<Member>,
    lanes: Lanes,
}

impl current::Creation for Creation {
    fn new() -> Self {
        Self { stage: Stage::Preparing, members: Vec::new(), lanes: Lanes::Here(Vec::new()) }
    }

    fn stage(&self) -> Stage {
        self.stage
    }

    fn undo(mut self) -> Result<(), VssError> {
        self.take_lanes().into_iter().map(Lane::undo).fold(Ok(()), Result::and)
    }
}

impl Creation {
    /// Opens everything that the cut needs. `stop` is asked between the steps.
    pub(crate) fn end_prepare(
        &mut self,
        wanted: Option<u64>,
        stop: impl Fn() -> Result<(), VssError>,
    ) -> Result<(), VssError> {
        // What is open after a failure stays known, for the undoing.
        let mut lanes = self.take_lanes();
        let opened = self.members.iter().try_for_each(|member| {
            stop()?;
            let known = lanes.iter().position(|lane| lane.file_system.uuid() == member.volume.uuid);
            let at = known.unwrap_or(lanes.len());
            if known.is_none() {
                lanes.push(Lane::open(&member.volume, wanted)?);
            }
            let lane = &mut lanes[at];
            let mut copy = Copy::new(lane, member)?;
            copy.take_nested(lane, &stop)?;
            lane.copies.push(copy);
            Ok(())
        });
        self.lanes = Lanes::Here(lanes);
        opened?;
        self.stage = Stage::Prepared;
        Ok(())
    }

    /// Takes what was nested since EndPrepare, and sets up the threads of the cut.
    pub(crate) fn pre_commit(&mut self, stop: impl Fn() -> Result<(), VssError>) -> Result<(), VssError> {
        let mut lanes = self.take_lanes();
        let taken = lanes.iter_mut().try_for_each(|lane| {
            let mut copies = std::mem::take(&mut lane.copies);
            let taken = copies.iter_mut().try_for_each(|copy| copy.take_nested(lane, &stop));
            lane.copies = copies;
            taken
        });
        if let Err(error) = taken {
            self.lanes = Lanes::Here(lanes);
            return Err(error);
        }
        let (cutters, ready) = Cutters::ready(lanes);
        self.lanes = Lanes::WithCutters(cutters);
        ready?;
        self.stage = Stage::PreCommitted;
        Ok(())
    }

    /// Cuts every subvolume of the set. Allocates nothing unless it fails.
    pub(crate) fn commit(&mut self) -> Result<(), VssError> {
        if let Lanes::WithCutters(cutters) = std::mem::replace(&mut self.lanes, Lanes::Here(Vec::new())) {
            let (lanes, result) = cutters.cut();
            self.lanes = Lanes::Here(lanes);
            result?;
        }
        self.stage = Stage::Committed;
        Ok(())
    }

    /// What was cut and when.
    pub(crate) fn post_commit(&mut self, data: impl Fn(&FileSystem) -> String) -> Vec<CommittedCopy> {
        let mut lanes = self.take_lanes();
        for copy in lanes.iter_mut().flat_map(|lane| &mut lane.copies) {
            // What vanished between listing and cut is no part of the copy.
            copy.parts.retain(|part| part.cut_at.is_some());
        }
        let mut committed: Vec<CommittedCopy> = Vec::new();
        // In the order in which the volumes were added.
        for member in &self.members {
            let found = lanes.iter().find_map(|lane| {
                let copy = lane.copies.iter().find(|copy| copy.shadow_id == member.shadow_id)?;
                copy.committed(data(&lane.file_system))
            });
            committed.extend(found);
        }
        self.lanes = Lanes::Here(lanes);
        self.stage = Stage::Created;
        committed
    }

    /// Makes the copies whole: places of nested ones checked and written down, `.vss` out of sight.
    pub(crate) fn pre_final_commit(&mut self) -> Result<(), VssError> {
        if let Lanes::Here(lanes) = &self.lanes {
            for lane in lanes {
                lane.copies.iter().try_for_each(|copy| copy.complete(&lane.store))?;
            }
        }
        self.stage = Stage::Writable;
        Ok(())
    }

    /// Makes the copies read-only.
    pub(crate) fn post_final_commit(&mut self) -> Result<(), VssError> {
        if let Lanes::Here(lanes) = &self.lanes {
            lanes.iter().try_for_each(Lane::seal)?;
        }
        Ok(())
    }

    /// The lanes, taken back from the threads of a cut that did not come to be.
    fn take_lanes(&mut self) -> Vec<Lane> {
        match std::mem::replace(&mut self.lanes, Lanes::Here(Vec::new())) {
            Lanes::Here(lanes) => lanes,
            Lanes::WithCutters(cutters) => cutters.dismiss(),
        }
    }
}

impl Lane {
    fn open(volume: &Volume, wanted: Option<u64>) -> Result<Self, VssError> {
        let known = [PathBuf::from(&volume.source)];
        let file_system =
            FileSystem::open(&volume.uuid, &known, Access::ReadWrite)?.ok_or_else(|| no_device(volume))?;
        space::check_fd(&file_system, &volume.mount_point, wanted)?;
        let store = Store::open_or_make(&file_system)?;
        Ok(Self { file_system, store, copies: Vec::new() })
    }

    fn undo(self) -> Result<(), VssError> {
        let mut result = Ok(());
        let mut is_changed = false;
        for copy in &self.copies {
            match self.store.delete_all_of(copy.shadow_id) {
                Ok(deleted) => is_changed |= deleted,
                Err(error) => result = result.and(Err(error)),
            }
        }
        result = result.and(self.store.remove_if_empty(&self.file_system));
        if is_changed {
            result = result.and(self.file_system.commit());
        }
        result
    }

    fn seal(&self) -> Result<(), VssError> {
        for copy in &self.copies {
            for part in &copy.parts {
                let root = part.copy_root(&self.store)?;
                btrfs::set_read_only(&root, true)
                    .map_err(|error| failed(format!("{} cannot be made read-only", part.name.display()), &error))?;
            }
        }
        if self.copies.iter().any(|copy| copy.lasting) {
            self.file_system.commit()?;
        }
        Ok(())
    }
}

impl Copy {
    /// The copy with its root alone.
    fn new(lane: &Lane, member: &Member) -> Result<Self, VssError> {
        let mut copy = Self {
            shadow_id: member.shadow_id,
            subvolume: member.subvolume,
            lasting: member.lasting,
            parts: Vec::new(),
        };
        let root = copy.open(lane, 0, Nested { id: member.subvolume, path: PathBuf::new() })?.ok_or_else(|| {
            VssError::new(
                VssCode::ProviderVeto,
                format!("Subvolume {} at {} was deleted", member.subvolume, member.volume.mount_point.display()),
            )
        })?;
        copy.parts.push(root);
        Ok(copy)
    }

    /// Brings the nested parts up to date: opens what is new or moved, forgets what is gone.
    fn take_nested(&mut self, lane: &Lane, stop: &impl Fn() -> Result<(), VssError>) -> Result<(), VssError> {
        let found = nested::list(&lane.file_system, self.subvolume)?;
        let mut known = std::mem::take(&mut self.parts).into_iter();
        self.parts.extend(known.next());
        let mut known: BTreeMap<u64, Part> = known.map(|part| (part.subvolume, part)).collect();
        for (at, nested) in found.into_iter().enumerate() {
            let index = at + 1;
            if let Some(part) = known.remove(&nested.id) {
                self.parts.push(Part { index, path: nested.path, name: self.part_name(index), ..part });
            } else {
                stop()?;
                let part = self.open(lane, index, nested)?;
                self.parts.extend(part);
            }
        }
        Ok(())
    }

    /// Opens a live subvolume; none when it vanished or moved since it was listed.
    fn open(&self, lane: &Lane, index: usize, nested: Nested) -> Result<Option<Part>, VssError> {
        let opened = btrfs::subvolume_path(&lane.file_system, nested.id).and_then(|path| {
            let root = mount::open_beneath(&lane.file_system, &path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            let is_it = btrfs::subvolume_id(&root)? == nested.id;
            Ok(is_it.then_some(root))
        });
        match opened {
            Ok(root) => Ok(root.map(|source| Part {
                subvolume: nested.id,
                index,
                path: nested.path,
                source,
                name: self.part_name(index),
                cut_at: None,
            })),
            Err(error) if is(&error, Errno::NOENT) => Ok(None),
            Err(error) => Err(failed(format!("Subvolume {} cannot be opened", nested.id), &error)),
        }
    }

    fn part_name(&self, index: usize) -> OsString {
        part_name(self.shadow_id, index)
    }

    /// The record of the copy; none when its root was not cut.
    fn committed(&self, data: String) -> Option<CommittedCopy> {
        let (root, nested) = self.parts.split_first()?;
        Some(CommittedCopy {
            shadow_id: self.shadow_id,
            cut_at: root.cut_at?,
            nested: nested
                .iter()
                .filter_map(|part| Some(NestedCopy { path: part.path.clone(), cut_at: part.cut_at? }))
                .collect(),
            device: None,
            data,
        })
    }

    fn complete(&self, store: &Store) -> Result<(), VssError> {
        let Some((root, nested)) = self.parts.split_first() else { return Ok(()) };
        if self.subvolume == btrfs::TOP_LEVEL {
            store::hide_in_copy(root.copy_root(store)?)?;
        }
        if nested.is_empty() {
            return Ok(());
        }
        let by_path: BTreeMap<&Path, &Part> = self.parts.iter().map(|part| (part.path.as_path(), part)).collect();
        for part in nested {
            let outer = part.path.ancestors().skip(1).find_map(|path| by_path.get(path));
            part.check_place(store, outer.copied().unwrap_or(root))?;
        }
        let places: Vec<Place> = nested.iter().map(|part| Place::new(part.index, part.path.clone())).collect();
        nested::write_places(store, self.shadow_id, &places, self.lasting)
    }
}

impl Part {
    /// A nested part must have its place in the copy of the subvolume around it, which it has not if it was moved between
    /// listing and cut.
    fn check_place(&self, store: &Store, outer: &Self) -> Result<(), VssError> {
        let inside = self.path.strip_prefix(&outer.path).unwrap_or(&self.path);
        if nested::has_place(outer.copy_root(store)?, inside) {
            return Ok(());
        }
        Err(VssError::new(
            VssCode::ProviderVeto,
            format!("The nested subvolume {} was moved while the shadow copy was made", self.path.display()),
        )
        .with_hint("Try again"))
    }

    fn copy_root(&self, store: &Store) -> Result<OwnedFd, VssError> {
        store.open_part(&self.name)?.ok_or_else(|| {
            VssError::new(VssCode::ObjectNotFound, format!("The shadow copy {} is gone", self.name.display()))
        })
    }
}

/// The file system of a mounted volume cannot be reached.
pub(crate) fn no_device(volume: &Volume) -> VssError {
    VssError::new(
        VssCode::ProviderVeto,
        format!("No device of the btrfs file system {} at {} can be opened", volume.uuid, volume.mount_point.display()),
    )
    .with_hint("Its devices must be in /dev")
}

/// The name of one part of a copy in the store; part 0 is its root.
pub(crate) fn part_name(shadow_id: ShadowId, index: usize) -> OsString {
    format!("{shadow_id}.{index}").into()
}
