//! Which components a restore may select (spec R 3.5).

use super::backup::{Inclusion, included};
use crate::{Component, ComponentName, SessionComponent, VssCode, VssError};
use std::collections::BTreeMap;

/// May this component be selected for restore? Those that were explicit at the backup may, whatever their flags say.
///
/// # Errors
/// `VSS_E_OBJECT_NOT_FOUND` for a component that was not explicit at the backup.
pub fn check_restore(explicit: &[&ComponentName], wanted: &ComponentName) -> Result<(), VssError> {
    if explicit.contains(&wanted) {
        return Ok(());
    }
    let above = explicit.iter().find(|one| one.contains(wanted));
    let hint = above.map_or_else(
        || "Name a component that the Backup Components Document lists".to_owned(),
        |above| format!("Select {above}, and name {wanted} by AddRestoreSubcomponent"),
    );
    Err(VssError::new(VssCode::ObjectNotFound, format!("Component {wanted} was not chosen at the backup"))
        .with_hint(hint))
}

/// May this part of a selected component be restored without the rest of it?
///
/// # Errors
/// `VSS_E_BAD_STATE` when `selected` is not selected for restore; `VSS_E_OBJECT_NOT_FOUND` when the part is no component of
/// the stored metadata below it; `E_INVALIDARG` when it is not selectable for restore.
pub fn check_restore_subcomponent(
    components: &[Component],
    selected: &SessionComponent,
    wanted: &ComponentName,
) -> Result<(), VssError> {
    if !selected.selected_for_restore {
        let message = format!("Component {} is not selected for restore", selected.name);
        return Err(VssError::new(VssCode::BadState, message).with_hint("Call SetSelectedForRestore first"));
    }
    let part = components.iter().find(|one| one.name == *wanted && selected.name.contains(wanted));
    let Some(part) = part else {
        let message = format!("Component {} has no part {wanted}", selected.name);
        return Err(VssError::new(VssCode::ObjectNotFound, message)
            .with_hint("Name a component of the stored Writer Metadata Document below it"));
    };
    if !part.selectable_for_restore {
        let message = format!("Component {wanted} is not selectable for restore");
        return Err(
            VssError::new(VssCode::InvalidArgument, message).with_hint(format!("Restore {} whole", selected.name))
        );
    }
    Ok(())
}

/// The components that a restore of this selection writes, in the order of the stored metadata: each selected one with all
/// that it brought in at the backup, or only the named parts with what is below them.
#[must_use]
pub fn restored<'a>(components: &'a [Component], selected: &[SessionComponent]) -> Vec<(&'a Component, Inclusion)> {
    let mut found = BTreeMap::new();
    for set in selected.iter().filter(|set| set.selected_for_restore) {
        let is_wanted = |one: &Component| {
            let mut parts = set.restore_subcomponents.iter();
            set.restore_subcomponents.is_empty() || parts.any(|part| *part == one.name || part.contains(&one.name))
        };
        let of_set = included(components, &[&set.name]).into_iter().filter(|(one, _)| is_wanted(one));
        found.extend(of_set.map(|(one, how)| (&one.name, how)));
    }
    components.iter().filter_map(|one| Some((one, *found.get(&one.name)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::backup::tests::{example, name};
    use super::*;

    /// The explicit components of the example of spec R 3.4, those of `selected` selected for restore.
    fn session(selected: &[&str], parts: &[&str]) -> Vec<SessionComponent> {
        let components = example();
        let explicit = super::super::choose(&components, |_| false);
        let one = |path: &&ComponentName| SessionComponent {
            name: (*path).clone(),
            selected_for_restore: selected.contains(&path.to_string().as_str()),
            restore_subcomponents: parts.iter().map(|part| name(part)).filter(|part| path.contains(part)).collect(),
            ..SessionComponent::default()
        };
        explicit.iter().map(one).collect()
    }

    fn restored_paths(selected: &[&str], parts: &[&str]) -> Vec<String> {
        let components = example();
        restored(&components, &session(selected, parts)).iter().map(|(one, _)| one.name.to_string()).collect()
    }

    #[test]
    fn spec_3_5_1_and_2_who_may_be_selected() {
        let components = example();
        let explicit = super::super::choose(&components, |_| false);
        // LicenseInfo and Security say R = N, and were explicit.
        let table = [
            ("LicenseInfo", true),
            ("Security", true),
            ("Executables", true),
            ("writerData", true),
            (r"writerData\Set1", false),
            (r"Security\UserInfo", false),
            ("nothing", false),
        ];
        for (path, wanted) in table {
            let answer = check_restore(&explicit, &name(path));
            assert_eq!(answer.is_ok(), wanted, "{path}");
            assert!(answer.err().is_none_or(|error| error.code == VssCode::ObjectNotFound));
        }
        let hint = check_restore(&explicit, &name(r"writerData\Set1")).unwrap_err().hint;
        assert!(hint.contains("AddRestoreSubcomponent"), "{hint}");
    }

    #[test]
    fn spec_3_5_2_to_5_who_may_be_a_part() {
        let components = example();
        let session = session(&["writerData"], &[]);
        let of = |path: &str| session.iter().find(|one| one.name == name(path)).unwrap();
        let table = [
            ("writerData", r"writerData\Set1", None),
            ("writerData", r"writerData\Usage", None),
            ("writerData", r"writerData\Set1\Jan", Some(VssCode::InvalidArgument)),
            ("writerData", r"writerData\QueryLogs\Query", Some(VssCode::InvalidArgument)),
            ("writerData", r"writerData\Set3", Some(VssCode::ObjectNotFound)),
            ("writerData", r"Security\UserInfo", Some(VssCode::ObjectNotFound)),
            ("Security", r"Security\UserInfo", Some(VssCode::BadState)),
        ];
        for (set, part, code) in table {
            let answer = check_restore_subcomponent(&components, of(set), &name(part));
            assert_eq!(answer.err().map(|error| error.code), code, "{part} of {set}");
        }
    }

    #[test]
    fn spec_3_5_what_is_restored() {
        assert_eq!(restored_paths(&[], &[]), Vec::<String>::new());
        // 4: implicit at backup and not selectable: with its ancestor.
        assert_eq!(restored_paths(&["Security"], &[]), ["Security", r"Security\UserInfo", r"Security\Certificates"]);
        assert_eq!(restored_paths(&["writerData"], &[]).len(), 8);
        // 2 and 3: the named part and what is below it, not the rest.
        assert_eq!(
            restored_paths(&["writerData"], &[r"writerData\Set1", r"writerData\Usage"]),
            [r"writerData\Set1", r"writerData\Set1\Jan", r"writerData\Usage", r"writerData\Usage\Jan"]
        );
        assert_eq!(restored_paths(&["Executables"], &[]), ["Executables"]);
    }
}
