//! Which components of a writer are in a backup (spec R 3.4).

use crate::{Component, ComponentName, VssCode, VssError};

/// What a component is for a backup, by the table of spec R 3.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Neither selectable nor below a selectable one: must be explicit whenever any component of the writer is.
    Mandatory,
    /// Selectable, and below no selectable one: explicit or not at all.
    Optional,
    /// Not selectable, below a selectable one: comes with it, never explicit.
    Part,
    /// Selectable, below a selectable one: comes with it, or is explicit without it.
    SelectablePart,
}

/// How a component is in a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Inclusion {
    /// Recorded in the session.
    Explicit,
    /// Brought in by one above it.
    Implicit,
}

/// What this component is for a backup.
#[must_use]
pub fn kind(components: &[Component], component: &Component) -> Kind {
    let has_ancestor = selectable_ancestor(components, &component.name).is_some();
    match (component.selectable, has_ancestor) {
        (false, false) => Kind::Mandatory,
        (true, false) => Kind::Optional,
        (false, true) => Kind::Part,
        (true, true) => Kind::SelectablePart,
    }
}

fn selectable_ancestor<'a>(components: &'a [Component], name: &ComponentName) -> Option<&'a Component> {
    components.iter().find(|other| other.selectable && other.name.contains(name))
}

/// May `wanted` be added to a backup that has these explicit components of the writer already (spec R 1.8 and 3.4)?
///
/// # Errors
/// `VSS_E_OBJECT_NOT_FOUND` for no component of the writer; `VSS_E_OBJECT_ALREADY_EXISTS` when it is explicit already;
/// `E_INVALIDARG` for a part that is not selectable, and for an explicit ancestor or descendant.
pub fn check_explicit(
    components: &[Component],
    explicit: &[&ComponentName],
    wanted: &ComponentName,
) -> Result<(), VssError> {
    let Some(component) = components.iter().find(|one| one.name == *wanted) else {
        return Err(VssError::new(VssCode::ObjectNotFound, format!("There is no component {wanted}"))
            .with_hint("Name a component that GetWriterMetadata lists"));
    };
    if explicit.contains(&wanted) {
        return Err(VssError::new(VssCode::ObjectAlreadyExists, format!("Component {wanted} was added before")));
    }
    let refuse = |what: String, hint: String| {
        let message = format!("Component {wanted} {what}");
        Err(VssError::new(VssCode::InvalidArgument, message).with_hint(hint))
    };
    if !component.selectable {
        return match selectable_ancestor(components, wanted) {
            Some(ancestor) => {
                refuse("cannot be chosen alone".to_owned(), format!("Add {}, which brings it in", ancestor.name))
            }
            None => Ok(()),
        };
    }
    let related = explicit.iter().filter(|chosen| chosen.contains(wanted) || wanted.contains(chosen));
    for chosen in related {
        // Looked up only here: a writer may have thousands of components, and as many of them chosen.
        if !components.iter().any(|other| other.selectable && other.name == **chosen) {
            continue;
        }
        if chosen.contains(wanted) {
            return refuse(format!("is in the backup already, as part of {chosen}"), "Leave the call out".to_owned());
        }
        return refuse(format!("contains {chosen}, which was added before"), "Add only one of the two".to_owned());
    }
    Ok(())
}

/// The components that are in a backup with these explicit ones, in the order of the metadata.
///
/// A component that is not selectable is explicit alone: what stands below it is mandatory itself (spec R 11.2).
#[must_use]
pub fn included<'a>(components: &'a [Component], explicit: &[&ComponentName]) -> Vec<(&'a Component, Inclusion)> {
    let sets: Vec<&ComponentName> =
        components.iter().filter(|one| one.selectable && explicit.contains(&&one.name)).map(|one| &one.name).collect();
    let how = |one: &Component| {
        if explicit.contains(&&one.name) {
            Some(Inclusion::Explicit)
        } else {
            sets.iter().any(|set| set.contains(&one.name)).then_some(Inclusion::Implicit)
        }
    };
    components.iter().filter_map(|one| Some((one, how(one)?))).collect()
}

/// The mandatory components that a backup of these explicit ones leaves out, against the contract; none when the writer
/// takes no part at all.
#[must_use]
pub fn missing_mandatory<'a>(components: &'a [Component], explicit: &[&ComponentName]) -> Vec<&'a Component> {
    if explicit.is_empty() {
        return Vec::new();
    }
    let is_missing = |one: &&Component| kind(components, one) == Kind::Mandatory && !explicit.contains(&&one.name);
    components.iter().filter(is_missing).collect()
}

/// The explicit components of a backup of all that is not excluded (spec R 1.9, the algorithm of VShadow): an excluded
/// component takes every one above it out of the choice, and a mandatory one its whole writer.
///
/// Empty when the writer takes no part.
#[must_use]
pub fn choose(components: &[Component], is_excluded: impl Fn(&Component) -> bool) -> Vec<&ComponentName> {
    let excluded: Vec<&ComponentName> = components.iter().filter(|one| is_excluded(one)).map(|one| &one.name).collect();
    let is_out =
        |one: &Component| excluded.iter().any(|excluded| **excluded == one.name || one.name.contains(excluded));
    if components.iter().any(|one| is_out(one) && kind(components, one) == Kind::Mandatory) {
        return Vec::new();
    }
    let can_be_explicit = |one: &Component| !is_out(one) && kind(components, one) != Kind::Part;
    let is_top = |one: &&Component| {
        can_be_explicit(one)
            && !components
                .iter()
                .any(|other| other.selectable && can_be_explicit(other) && other.name.contains(&one.name))
    };
    components.iter().filter(is_top).map(|one| &one.name).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The component at this path, `\` between its parts.
    pub(in crate::selection) fn name(path: &str) -> ComponentName {
        let (logical_path, name) = path.rsplit_once('\\').unwrap_or(("", path));
        ComponentName::new(logical_path, name)
    }

    /// A component: its path, whether it is selectable for backup, and for restore.
    pub(in crate::selection) fn component(path: &str, backup: bool, restore: bool) -> Component {
        let ComponentName { logical_path, name } = name(path);
        let claim = Component::file_group(name).logical_path(logical_path);
        let claim = if backup { claim } else { claim.not_selectable() };
        if restore { claim.selectable_for_restore() } else { claim }.build().unwrap()
    }

    /// The worked example of spec R 3.4: path, B, R, and whether it is explicit when the requester takes everything.
    const EXAMPLE: [(&str, bool, bool, bool); 14] = [
        ("Executables", false, false, true),
        (r"Executables\ConfigFiles", false, false, true),
        ("LicenseInfo", true, false, true),
        ("Security", true, false, true),
        (r"Security\UserInfo", false, false, false),
        (r"Security\Certificates", false, false, false),
        ("writerData", true, true, true),
        (r"writerData\Set1", false, true, false),
        (r"writerData\Set2", false, true, false),
        (r"writerData\Set1\Jan", false, false, false),
        (r"writerData\Set2\Dec", false, false, false),
        (r"writerData\QueryLogs\Query", false, false, false),
        (r"writerData\Usage", true, true, false),
        (r"writerData\Usage\Jan", false, false, false),
    ];

    pub(in crate::selection) fn example() -> Vec<Component> {
        EXAMPLE.iter().map(|&(path, backup, restore, _)| component(path, backup, restore)).collect()
    }

    fn paths(names: &[&ComponentName]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn spec_3_4_the_four_kinds() {
        let components = example();
        let table = [
            ("Executables", Kind::Mandatory),
            (r"Executables\ConfigFiles", Kind::Mandatory),
            ("LicenseInfo", Kind::Optional),
            (r"Security\UserInfo", Kind::Part),
            (r"writerData\QueryLogs\Query", Kind::Part),
            (r"writerData\Usage", Kind::SelectablePart),
            (r"writerData\Usage\Jan", Kind::Part),
        ];
        for (path, wanted) in table {
            let one = components.iter().find(|one| one.name == name(path)).unwrap();
            assert_eq!(kind(&components, one), wanted, "{path}");
        }
    }

    #[test]
    fn spec_3_4_worked_example_column_e() {
        let components = example();
        let wanted: Vec<&str> = EXAMPLE.iter().filter(|row| row.3).map(|row| row.0).collect();
        let chosen = choose(&components, |_| false);
        assert_eq!(paths(&chosen), wanted);
        let all = included(&components, &chosen);
        assert_eq!(all.len(), components.len());
        for ((path, _, _, explicit), (one, how)) in EXAMPLE.iter().zip(all) {
            assert_eq!((one.name.to_string().as_str(), how == Inclusion::Explicit), (*path, *explicit));
        }
        assert!(missing_mandatory(&components, &chosen).is_empty());
    }

    #[test]
    fn spec_3_4_what_may_be_explicit_beside_what() {
        let components = example();
        // What is explicit already, what is wanted, and the answer.
        let table: [(&[&str], &str, Option<VssCode>); 13] = [
            (&[], "Executables", None),
            (&["Executables"], r"Executables\ConfigFiles", None),
            (&[], "LicenseInfo", None),
            (&["LicenseInfo"], "LicenseInfo", Some(VssCode::ObjectAlreadyExists)),
            (&[], "licenseinfo", Some(VssCode::ObjectNotFound)),
            (&[], r"Security\UserInfo", Some(VssCode::InvalidArgument)),
            (&["Security"], r"Security\UserInfo", Some(VssCode::InvalidArgument)),
            (&[], r"writerData\Usage", None),
            (&["writerData"], r"writerData\Usage", Some(VssCode::InvalidArgument)),
            (&[r"writerData\Usage"], "writerData", Some(VssCode::InvalidArgument)),
            (&["Security"], "writerData", None),
            (&[], r"writerData\QueryLogs", Some(VssCode::ObjectNotFound)),
            (&[r"writerData\Usage"], r"writerData\Usage\Jan", Some(VssCode::InvalidArgument)),
        ];
        for (explicit, wanted, code) in table {
            let explicit: Vec<ComponentName> = explicit.iter().map(|path| name(path)).collect();
            let explicit: Vec<&ComponentName> = explicit.iter().collect();
            let answer = check_explicit(&components, &explicit, &name(wanted));
            assert_eq!(answer.err().map(|error| error.code), code, "{wanted} beside {explicit:?}");
        }
    }

    #[test]
    fn spec_3_4_what_an_explicit_component_brings_in() {
        let components = example();
        let table: [(&[&str], &[&str]); 4] = [
            (&["Security"], &["Security", r"Security\UserInfo", r"Security\Certificates"]),
            (&[r"writerData\Usage"], &[r"writerData\Usage", r"writerData\Usage\Jan"]),
            (&["Executables"], &["Executables"]),
            (&[], &[]),
        ];
        for (explicit, wanted) in table {
            let explicit: Vec<ComponentName> = explicit.iter().map(|path| name(path)).collect();
            let explicit: Vec<&ComponentName> = explicit.iter().collect();
            let found: Vec<String> =
                included(&components, &explicit).iter().map(|(one, _)| one.name.to_string()).collect();
            assert_eq!(found, wanted);
        }
    }

    #[test]
    fn spec_3_4_mandatory_components_go_with_any_other() {
        let components = example();
        let license = name("LicenseInfo");
        let missing = missing_mandatory(&components, &[&license]);
        let missing: Vec<&ComponentName> = missing.iter().map(|one| &one.name).collect();
        assert_eq!(paths(&missing), ["Executables", r"Executables\ConfigFiles"]);
        assert!(missing_mandatory(&components, &[]).is_empty(), "a writer may be left out whole");
    }

    #[test]
    fn spec_3_4_membership_is_by_whole_elements_and_case() {
        let table = [
            ("a", r"a\b", true),
            ("a", r"a\b\c", true),
            (r"a\b", r"a\b\c", true),
            ("a", r"ab\c", false),
            ("a", r"A\b", false),
            ("a", "a", false),
            (r"x\a", r"a\b", false),
        ];
        for (outer, inner, wanted) in table {
            assert_eq!(name(outer).contains(&name(inner)), wanted, "{outer} and {inner}");
        }
    }

    #[test]
    fn spec_1_9_exclusion_goes_upward() {
        let components = example();
        let without = |path: &str| {
            let path = name(path);
            paths(&choose(&components, |one| one.name == path))
        };
        // writerData is out with its part, and Usage below it can be explicit then.
        assert_eq!(
            without(r"writerData\Set1\Jan"),
            ["Executables", r"Executables\ConfigFiles", "LicenseInfo", "Security", r"writerData\Usage"]
        );
        assert_eq!(without("Executables"), Vec::<String>::new(), "a mandatory part is missing");
        assert_eq!(without("LicenseInfo").len(), 4);
    }
}
