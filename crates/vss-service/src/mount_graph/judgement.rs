//! What may be held, and in which order.
//!
//! | what lies on a held volume | |
//! |---|---|
//! | another held volume | allowed: it is frozen first and thawed last |
//! | a volume that must not be held (btrfs) | refused: its cut would write there and wait for ever |
//! | the runtime directory | refused: the guard writes its ledger in the hold |
//! | what a provider writes in Commit | refused: Commit would wait for the thaw, and the thaw for Commit |
//! | swap space, through a loop device | refused: memory that has to be swapped out could not be freed in the hold |
//! | a swap file of its own | allowed: the kernel writes to its blocks below the file system, frozen or not |
//! | the state directory | allowed: the catalogue is written before and after, never in a hold |
//! | our programs and libraries | allowed: what is read needs no thaw, and the guard's memory is locked |
//! | anything else | waits for the thaw, as every program does |

use super::{Below, DeviceNumber, MountGraph, superblock_of};
use std::path::{Path, PathBuf};
use vss_model::{Volume, VssCode, VssError};

/// Deepest nesting that is followed; the kernel allows fewer stacked loop devices than this.
const DEEPEST: usize = 64;

/// A directory or file that is written to in a hold.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Where; absolute and without symbolic links.
    pub path: &'a Path,
    /// What it is, at the beginning of a sentence: `The service's runtime directory`.
    pub what: &'a str,
    /// The way out.
    pub hint: &'a str,
}

impl MountGraph {
    /// The nesting level of each held member, 0 for the innermost, more for what others lie on; `others` are the members that
    /// must not be held, `places` what is written to meanwhile.
    ///
    /// # Errors
    /// `VSS_E_NESTED_VOLUME_LIMIT`, naming what lies on which member: see the table of the module.
    pub fn levels(&self, held: &[Volume], others: &[Volume], places: &[Place<'_>]) -> Result<Vec<u8>, VssError> {
        let held: Vec<Held<'_>> = held
            .iter()
            .map(|volume| {
                let superblock = self.superblock(volume);
                Held { volume, superblock, below: self.below(superblock) }
            })
            .collect();
        self.each_once(&held)?;
        for place in places {
            self.is_written_elsewhere(place, &held)?;
        }
        self.is_swapped_elsewhere(&held)?;
        for other in others {
            let below = self.below(self.superblock(other));
            if let Some((host, file)) = on_held(&below, &held) {
                let message = format!(
                    "{} ({}) lies in a file on {}{}, which must be held while it is copied",
                    other.mount_point.display(),
                    other.fs_type,
                    host.mount_point.display(),
                    through(file)
                );
                return Err(refused(message, "Make two sets, one for each of the two volumes"));
            }
        }
        Ok(levels(&held))
    }

    /// A second FIFREEZE of one superblock would find it frozen by somebody else: by us.
    fn each_once(&self, held: &[Held<'_>]) -> Result<(), VssError> {
        let twin = |one: &Held<'_>, before: &[Held<'_>]| {
            before.iter().find(|other| other.superblock == one.superblock).map(|other| other.volume.mount_point.clone())
        };
        let found = held.iter().enumerate().find_map(|(index, one)| Some((one, twin(one, &held[..index])?)));
        found.map_or(Ok(()), |(one, twin)| {
            let message = format!("{} and {} are one file system", twin.display(), one.volume.mount_point.display());
            Err(refused(message, "Name one of them; it is the same copy"))
        })
    }

    fn is_written_elsewhere(&self, place: &Place<'_>, held: &[Held<'_>]) -> Result<(), VssError> {
        let Place { path, what, hint } = place;
        let below = self.below_path(path);
        if let Some((host, file)) = on_held(&below, held) {
            let message = format!(
                "{what} {} lies on {}{}, which must be held while it is copied",
                path.display(),
                host.mount_point.display(),
                through(file)
            );
            return Err(refused(message, hint));
        }
        // Who answers there may itself wait for what is held.
        let waits = |entry: &&vss_linux::mountinfo::MountEntry| {
            below.contains_key(&superblock_of(entry)) && super::walk::may_wait(&entry.fs_type)
        };
        match self.0.mounts.entries().iter().find(waits) {
            Some(entry) if !held.is_empty() => {
                let message = format!(
                    "{what} {} lies on {} ({}), which answers only when a server or a program does, and that cannot be \
                     relied on while writes are held",
                    path.display(),
                    entry.mount_point.display(),
                    entry.fs_type
                );
                Err(refused(message, hint))
            }
            _ => Ok(()),
        }
    }

    /// Swap space whose writes pass through a file on a held volume.
    fn is_swapped_elsewhere(&self, held: &[Held<'_>]) -> Result<(), VssError> {
        for swap in &self.0.swaps {
            let below = match swap.device {
                Some(number) => self.below(number),
                // Its own file system is not asked: the kernel knows the blocks of the file.
                None => {
                    self.0.mounts.holder(&swap.path).map(|entry| self.below(superblock_of(entry))).unwrap_or_default()
                }
            };
            if let Some((host, file)) = on_held(&below, held) {
                let path = swap.path.display();
                let message = format!(
                    "Swap space {path} lies in a file on {}{}, which must be held while it is copied: no memory could be \
                     freed meanwhile",
                    host.mount_point.display(),
                    through(file)
                );
                return Err(refused(
                    message,
                    &format!("Turn it off for that time (swapoff {path}), or swap to a disk"),
                ));
            }
        }
        Ok(())
    }
}

struct Held<'a> {
    volume: &'a Volume,
    superblock: DeviceNumber,
    below: Below,
}

/// The held volume that something lies on, and the file by which it does.
fn on_held<'a>(below: &'a Below, held: &[Held<'a>]) -> Option<(&'a Volume, Option<&'a PathBuf>)> {
    held.iter().find_map(|member| Some((member.volume, below.get(&member.superblock)?.as_ref())))
}

fn through(file: Option<&PathBuf>) -> String {
    file.map(|file| format!(" ({})", file.display())).unwrap_or_default()
}

fn levels(held: &[Held<'_>]) -> Vec<u8> {
    let mut levels = vec![0u8; held.len()];
    // Each pass lifts a host above what lies on it; nesting is finite, so it settles.
    for _ in 0..DEEPEST {
        let mut changed = false;
        for (inner, member) in held.iter().enumerate() {
            for (outer, host) in held.iter().enumerate() {
                if outer != inner && member.below.contains_key(&host.superblock) && levels[outer] <= levels[inner] {
                    levels[outer] = levels[inner].saturating_add(1);
                    changed = true;
                }
            }
        }
        if !changed {
            break;
        }
    }
    levels
}

fn refused(message: String, hint: &str) -> VssError {
    VssError::new(VssCode::NestedVolumeLimit, message).with_hint(hint)
}
