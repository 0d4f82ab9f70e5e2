//! The rule of levels: which volumes of a set share an instant, and how good the set and each part of it is (design 3,
//! "Consistency level"). The record of a finished set and the forecast of one that is not made yet both ask here.

use crate::{Consistency, FreezePolicy, VolumeId};

/// One volume of a set, as far as its level goes.
#[derive(Debug, Clone, Copy)]
pub struct Cut<'a> {
    /// The volume.
    pub volume: &'a VolumeId,
    /// What its provider needs of the file system.
    pub freeze_policy: FreezePolicy,
    /// True when nested subvolumes are cut with it, each at an instant of its own.
    pub has_nested: bool,
}

/// One component of an involved writer, as far as its level goes.
#[derive(Debug, Clone)]
pub struct ComponentCut<'a> {
    /// Every volume that its files lie on, whether in the set or not.
    pub volumes: Vec<&'a VolumeId>,
    /// True when its writer reached WAITING_FOR_BACKUP_COMPLETE and did not give it up.
    pub writer_succeeded: bool,
}

/// How good a set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels {
    /// True when all its volumes are cut at one instant.
    pub atomic: bool,
    /// The level of each volume: that of the components on it; without any, what the cut alone gives.
    pub volumes: Vec<Consistency>,
    /// The level of each component.
    pub components: Vec<Consistency>,
    /// The level of the whole: the lowest of all.
    pub set: Consistency,
}

/// Which volumes are cut at one instant: those of the same number. Volumes that are held share one cut, number 0; one that
/// must not be held joins it only if it is alone in that, since each of those is cut at an instant of its own (design 3:
/// several btrfs subvolumes are not one instant).
#[must_use]
pub fn cut_groups(policies: &[FreezePolicy]) -> Vec<u32> {
    let is_held = |policy: &FreezePolicy| *policy == FreezePolicy::NeedsHold;
    let not_held = policies.iter().filter(|policy| !is_held(policy)).count();
    let mut next_group = 0;
    let group = |policy: &FreezePolicy| {
        if is_held(policy) || not_held == 1 {
            return 0;
        }
        next_group += 1;
        next_group
    };
    policies.iter().map(group).collect()
}

/// The levels of a set. `was_held`: one whole hold, from the first volume that needs it to the last cut.
#[must_use]
pub fn levels(cuts: &[Cut<'_>], was_held: bool, components: &[ComponentCut<'_>]) -> Levels {
    let policies: Vec<FreezePolicy> = cuts.iter().map(|cut| cut.freeze_policy).collect();
    let atomic = cut_groups(&policies).iter().all(|group| *group == 0)
        && (cuts.len() == 1 || was_held)
        && cuts.iter().all(|cut| !cut.has_nested);
    let of_cut = |cut: &Cut<'_>| Consistency::of_cut(!cut.has_nested);
    let of_component = |component: &ComponentCut<'_>| {
        if component.writer_succeeded {
            return Consistency::Application;
        }
        let mut levels: Vec<Consistency> =
            cuts.iter().filter(|cut| component.volumes.contains(&cut.volume)).map(of_cut).collect();
        if levels.len() > 1 && !atomic {
            levels.push(Consistency::Crash);
        }
        Consistency::lowest(levels).min(Consistency::FileSystem)
    };
    let of_components: Vec<Consistency> = components.iter().map(of_component).collect();
    let of_volume = |cut: &Cut<'_>| {
        let on_it = components.iter().zip(&of_components).filter(|(one, _)| one.volumes.contains(&cut.volume));
        on_it.map(|(_, level)| *level).min().unwrap_or_else(|| of_cut(cut))
    };
    let of_volumes: Vec<Consistency> = cuts.iter().map(of_volume).collect();
    let set = Consistency::lowest(of_volumes.iter().chain(&of_components).copied());
    Levels { atomic, volumes: of_volumes, components: of_components, set }
}

#[cfg(test)]
mod tests {
    use super::Consistency::{Application, Crash, FileSystem};
    use super::FreezePolicy::{MustNotHold, NeedsHold};
    use super::*;

    /// The volumes `0`, `1`...
    fn ids(count: usize) -> Vec<VolumeId> {
        (0..count).map(|number| VolumeId::file_system("x", &number.to_string())).collect()
    }

    /// The levels of volumes of these policies, with or without nested ones, and of components on the volumes that are named
    /// by their numbers; a number beyond the volumes is one outside of the set.
    fn judged(volumes: &[(FreezePolicy, bool)], components: &[(&[usize], bool)]) -> Levels {
        let ids = ids(8);
        let cuts: Vec<Cut<'_>> = volumes
            .iter()
            .zip(&ids)
            .map(|((freeze_policy, has_nested), volume)| Cut {
                volume,
                freeze_policy: *freeze_policy,
                has_nested: *has_nested,
            })
            .collect();
        let components: Vec<ComponentCut<'_>> = components
            .iter()
            .map(|(on, writer_succeeded)| ComponentCut {
                volumes: on.iter().map(|number| &ids[*number]).collect(),
                writer_succeeded: *writer_succeeded,
            })
            .collect();
        levels(&cuts, volumes.iter().any(|(policy, _)| *policy == NeedsHold), &components)
    }

    #[test]
    fn held_volumes_share_a_cut_and_one_that_must_not_be_held_joins_them() {
        assert_eq!(cut_groups(&[NeedsHold, MustNotHold, NeedsHold]), [0, 0, 0]);
        assert_eq!(cut_groups(&[NeedsHold, MustNotHold, MustNotHold]), [0, 1, 2]);
        assert_eq!(cut_groups(&[MustNotHold]), [0]);
        assert_eq!(cut_groups(&[]), [0; 0]);
    }

    #[test]
    fn a_set_is_atomic_by_one_hold_or_as_one_volume() {
        let atomic = |volumes: &[(FreezePolicy, bool)]| judged(volumes, &[]).atomic;
        assert!(atomic(&[(MustNotHold, false)]) && atomic(&[(NeedsHold, false)]));
        assert!(atomic(&[(NeedsHold, false), (NeedsHold, false), (MustNotHold, false)]));
        assert!(!atomic(&[(MustNotHold, false), (MustNotHold, false)]));
        assert!(!atomic(&[(MustNotHold, true)]));
        assert!(!atomic(&[]), "no volume, no instant");
        let ids = ids(2);
        let held = |volume| Cut { volume, freeze_policy: NeedsHold, has_nested: false };
        assert!(!levels(&[held(&ids[0]), held(&ids[1])], false, &[]).atomic, "the hold was not whole");
    }

    #[test]
    fn without_writers_the_cut_alone_counts() {
        let one = judged(&[(MustNotHold, false)], &[]);
        assert_eq!((one.volumes, one.set), (vec![FileSystem], FileSystem));
        let two = judged(&[(MustNotHold, false), (MustNotHold, true)], &[]);
        assert_eq!((two.volumes, two.set), (vec![FileSystem, Crash], Crash));
    }

    #[test]
    fn a_writer_that_held_still_makes_up_for_several_instants() {
        let set = judged(&[(MustNotHold, true), (MustNotHold, false)], &[(&[0, 1], true)]);
        assert_eq!((set.atomic, set.set), (false, Application));
        assert_eq!((set.volumes, set.components), (vec![Application; 2], vec![Application]));
    }

    #[test]
    fn a_volume_without_a_component_lowers_the_set() {
        let set = judged(&[(MustNotHold, false), (MustNotHold, false)], &[(&[0], true)]);
        assert_eq!((set.volumes, set.set), (vec![Application, FileSystem], FileSystem));
    }

    #[test]
    fn a_failed_writer_leaves_what_the_cuts_give() {
        let component = |volumes: &[(FreezePolicy, bool)], on: &[usize]| {
            let set = judged(volumes, &[(on, false)]);
            assert_eq!(set.set, set.components[0]);
            set.components[0]
        };
        assert_eq!(component(&[(MustNotHold, false)], &[0]), FileSystem);
        assert_eq!(component(&[(MustNotHold, true)], &[0]), Crash);
        assert_eq!(component(&[(MustNotHold, false), (MustNotHold, false)], &[0, 1]), Crash, "two instants");
        assert_eq!(component(&[(NeedsHold, false), (NeedsHold, false)], &[0, 1]), FileSystem, "one hold");
        assert_eq!(component(&[(MustNotHold, false)], &[0, 7]), FileSystem, "what is not in the set has no cut");
    }
}
