//! What is to be mounted where, as a pure function of the choice and of the mount table.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use vss_requester::volumes::{Mount, Selected, VolumeKey};

/// Directories that never show a copy: they belong to the running system, not to its data.
pub(crate) const ALWAYS_LIVE: [&str; 5] = ["/proc", "/sys", "/dev", "/run", "/tmp"];

/// One mount to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Show a copy: the tree at `from`, read-only and with what is mounted below it, over `to`.
    Copy {
        /// Below the place where the service shows the copy.
        from: PathBuf,
        /// Where the command sees it.
        to: PathBuf,
    },
    /// Show again what is at this place now, with what is mounted below it.
    Live(PathBuf),
}

/// The mounts to make, parents before what lies below them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// In this order.
    pub(crate) actions: Vec<Action>,
    /// Mounts below a chosen path that are in no copy: the user is told.
    pub(crate) not_in_set: Vec<PathBuf>,
}

/// Plans the view.
///
/// Each selected path shows its copy. A mount below it shows its copy too when `copies` has its volume, and stays live
/// otherwise. `live` directories below a selected path stay live with everything in them, except paths that were
/// selected. A selected path that is itself a live directory, or lies in one, was chosen expressly and shows its copy.
pub(crate) fn plan(
    selected: &[Selected],
    mounts: &[Mount],
    copies: &BTreeMap<VolumeKey, PathBuf>,
    live: &[PathBuf],
) -> Plan {
    let below_selected = |path: &Path| selected.iter().any(|one| one.path != path && path.starts_with(&one.path));
    let mut places: BTreeMap<PathBuf, Place> = BTreeMap::new();
    for one in selected {
        if let Some(copy) = copies.get(&one.volume) {
            places.insert(one.path.clone(), Place::Copy(inside(copy, &one.inner)));
        }
    }
    for directory in live.iter().filter(|directory| below_selected(directory)) {
        places.entry(directory.clone()).or_insert(Place::LiveDirectory);
    }
    let mut not_in_set = Vec::new();
    // In the order of paths, so that what lies above a mount is decided before it.
    let mut below: Vec<&Mount> = mounts.iter().filter(|mount| below_selected(&mount.mount_point)).collect();
    below.sort_by(|one, other| one.mount_point.cmp(&other.mount_point));
    for mount in below {
        let above = mount.mount_point.ancestors().find_map(|path| places.get(path));
        let copy = copies.get(&mount.volume).map(|copy| Place::Copy(inside(copy, &mount.root)));
        let place = match (above, copy) {
            (Some(Place::LiveDirectory), _) | (Some(Place::LiveMount), None) => continue,
            (_, Some(copy)) => copy,
            (_, None) => {
                not_in_set.push(mount.mount_point.clone());
                Place::LiveMount
            }
        };
        places.entry(mount.mount_point.clone()).or_insert(place);
    }
    let actions = places.into_iter().map(|(to, place)| match place {
        Place::Copy(from) => Action::Copy { from, to },
        Place::LiveDirectory | Place::LiveMount => Action::Live(to),
    });
    Plan { actions: actions.collect(), not_in_set }
}

/// `inner` below `copy`, without the slash at the end that joining an empty path leaves.
fn inside(copy: &Path, inner: &Path) -> PathBuf {
    if inner.as_os_str().is_empty() { copy.to_owned() } else { copy.join(inner) }
}

/// What one place of the view shows.
enum Place {
    /// The copy's tree at this path.
    Copy(PathBuf),
    /// Everything as it is now.
    LiveDirectory,
    /// A mount that is in no copy.
    LiveMount,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{mounts, selected};

    /// A root, a home, a database with its log below it, a memory file system, and /proc.
    const TABLE: &[(&str, u64)] = &[
        ("/", 1),
        ("/home", 2),
        ("/srv", 3),
        ("/srv/wal", 4),
        ("/srv/scratch", 5),
        ("/srv/scratch/deep", 6),
        ("/proc", 7),
    ];

    /// The plan for `paths` of the volumes that hold them, each action as one word list.
    fn actions(paths: &[&str], live: &[&str]) -> (Vec<String>, Vec<PathBuf>) {
        let mounts = mounts(TABLE);
        let selected = selected(paths, &mounts);
        let copies = selected.iter().map(|one| {
            let holder = mounts.iter().position(|mount| mount.volume == one.volume).unwrap();
            (one.volume, PathBuf::from(format!("/shadows/{}", holder + 1)))
        });
        let live: Vec<PathBuf> = ALWAYS_LIVE.iter().chain(live).map(PathBuf::from).collect();
        let plan = plan(&selected, &mounts, &copies.collect(), &live);
        let words = plan.actions.iter().map(|action| match action {
            Action::Copy { from, to } => format!("copy {} {}", from.display(), to.display()),
            Action::Live(path) => format!("live {}", path.display()),
        });
        (words.collect(), plan.not_in_set)
    }

    #[test]
    fn a_directory_alone_is_covered() {
        assert_eq!(actions(&["/home/me"], &[]), (vec!["copy /shadows/2/me /home/me".to_owned()], vec![]));
    }

    #[test]
    fn mounts_below_are_copies_when_in_the_set_and_live_otherwise() {
        let (words, not_in_set) = actions(&["/srv", "/srv/wal"], &[]);
        assert_eq!(words, ["copy /shadows/3 /srv", "live /srv/scratch", "copy /shadows/4 /srv/wal"]);
        assert_eq!(not_in_set, [PathBuf::from("/srv/scratch")]);
    }

    #[test]
    fn a_mount_in_the_set_below_one_that_is_not_shows_its_copy() {
        let (words, not_in_set) = actions(&["/srv", "/srv/scratch/deep"], &[]);
        assert_eq!(
            words,
            ["copy /shadows/3 /srv", "live /srv/scratch", "copy /shadows/6 /srv/scratch/deep", "live /srv/wal"]
        );
        assert_eq!(not_in_set, [PathBuf::from("/srv/scratch"), PathBuf::from("/srv/wal")]);
    }

    #[test]
    fn the_root_leaves_the_system_directories_live() {
        let (words, not_in_set) = actions(&["/", "/srv"], &["/root"]);
        assert_eq!(
            words,
            [
                "copy /shadows/1 /",
                "live /dev",
                "live /home",
                "live /proc",
                "live /root",
                "live /run",
                "copy /shadows/3 /srv",
                "live /srv/scratch",
                "live /srv/wal",
                "live /sys",
                "live /tmp",
            ]
        );
        assert_eq!(not_in_set.len(), 3);
    }

    #[test]
    fn live_directories_win_over_copies_and_lose_to_what_was_chosen() {
        let (words, _) = actions(&["/srv", "/srv/wal/archive"], &["/srv/wal", "/srv/scratch"]);
        assert_eq!(
            words,
            ["copy /shadows/3 /srv", "live /srv/scratch", "live /srv/wal", "copy /shadows/4/archive /srv/wal/archive"]
        );
        // A selected path in a live directory, and a live directory beside every selected path.
        assert_eq!(actions(&["/tmp/volume"], &["/elsewhere"]).0, ["copy /shadows/1/tmp/volume /tmp/volume"]);
    }
}
