//! What lies on what: nesting levels of the members that are held, from sysfs alone (design 3).
//!
//! A member on a loop device whose backing file lies on another member is nested in it: it is frozen first and thawed last.
//! Nothing here opens or examines a file system; a dead server elsewhere delays nobody.

use std::path::{Path, PathBuf};
use vss_model::involvement::{MountTable, volume_of};
use vss_model::{Volume, VolumeId, VssCode, VssError};

/// Deepest nesting that is followed; the kernel allows fewer stacked loop devices than this.
const DEEPEST: usize = 64;

/// The file behind a loop device, as sysfs names it; none for other devices.
fn backing_file(source: &str) -> Option<PathBuf> {
    let name = Path::new(source).file_name()?.to_str()?;
    let text = std::fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).ok()?;
    Some(PathBuf::from(text.trim_end_matches('\n')))
}

/// The members that `volume` lies on, the nearest first, found through `mounts`.
fn below<'a>(
    volume: &Volume,
    members: &'a [Volume],
    mounts: MountTable<'_>,
    source_of: &dyn Fn(&VolumeId) -> Option<String>,
) -> Vec<&'a Volume> {
    let mut chain = Vec::new();
    let mut source = volume.source.clone();
    for _ in 0..DEEPEST {
        let Some(file) = backing_file(&source) else { break };
        let Some(host) = volume_of(&file, mounts) else { break };
        if let Some(member) = members.iter().find(|member| member.id == *host) {
            chain.push(member);
        }
        match source_of(host) {
            Some(next) if next != source => source = next,
            _ => break,
        }
    }
    chain
}

/// The nesting level of each held member: 0 for the innermost, more for what others lie on.
///
/// # Errors
/// `VSS_E_NESTED_VOLUME_LIMIT` when a member that must not be held lies on one that is: its cut would write to a frozen
/// file system and wait for ever.
pub fn levels(
    held: &[Volume],
    others: &[Volume],
    mounts: MountTable<'_>,
    source_of: &dyn Fn(&VolumeId) -> Option<String>,
) -> Result<Vec<u8>, VssError> {
    for other in others {
        if let Some(host) = below(other, held, mounts, source_of).first() {
            return Err(VssError::new(
                VssCode::NestedVolumeLimit,
                format!(
                    "{} ({}) lies in a file on {}, which must be held while it is copied",
                    other.mount_point.display(),
                    other.fs_type,
                    host.mount_point.display()
                ),
            )
            .with_hint("Make two sets, one for each of the two volumes"));
        }
    }
    let mut levels = vec![0u8; held.len()];
    // Each pass lifts a host above what lies on it; nesting is finite, so it settles.
    for _ in 0..DEEPEST {
        let mut changed = false;
        for (index, volume) in held.iter().enumerate() {
            for host in below(volume, held, mounts, source_of) {
                let Some(host) = held.iter().position(|member| member.id == host.id) else { continue };
                if host != index && levels[host] <= levels[index] {
                    levels[host] = levels[index].saturating_add(1);
                    changed = true;
                }
            }
        }
        if !changed {
            break;
        }
    }
    Ok(levels)
}
