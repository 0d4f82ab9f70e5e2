//! Dependencies between writers: what a backup must not leave out (spec R 3.6).

use crate::{Component, ComponentName, Dependency, WriterMetadata};

/// The components of one writer that are in a backup, explicit and implicit.
#[derive(Debug, Clone)]
pub struct Chosen<'a> {
    /// The writer.
    pub writer: &'a WriterMetadata,
    /// Its components in the backup.
    pub components: Vec<&'a Component>,
}

/// A dependency that a backup does not meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unmet<'a> {
    /// The writer of the component that depends.
    pub writer: &'a WriterMetadata,
    /// That component.
    pub component: &'a ComponentName,
    /// What it depends on.
    pub dependency: &'a Dependency,
    /// True when that is on another machine: whoever asks must see to it there.
    pub is_remote: bool,
}

/// The dependencies that this choice does not meet. The requester adds what they name, or leaves out what depends on it.
#[must_use]
pub fn unmet<'a>(chosen: &[Chosen<'a>]) -> Vec<Unmet<'a>> {
    let is_met = |dependency: &Dependency| {
        chosen.iter().any(|other| {
            other.writer.class_id == dependency.writer && other.components.iter().any(|one| one.name == dependency.on)
        })
    };
    let mut unmet = Vec::new();
    for Chosen { writer, components } in chosen {
        for component in components {
            for dependency in component.dependencies.iter().filter(|dependency| !is_met(dependency)) {
                let is_remote = dependency.is_remote();
                unmet.push(Unmet { writer, component: &component.name, dependency, is_remote });
            }
        }
    }
    unmet
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AppLevel, Declaration, Usage, WriterClassId, WriterInstanceId};

    fn writer(class: u128, components: Vec<Component>) -> WriterMetadata {
        WriterMetadata {
            class_id: WriterClassId::from_u128(class),
            instance_id: WriterInstanceId::random(),
            name: class.to_string(),
            instance_name: String::new(),
            usage: Usage::UserData,
            level: AppLevel::FrontEnd,
            components,
            declaration: Declaration::default(),
            other: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn spec_3_6_dependencies_of_a_choice() {
        let on = |class, path: &str, name: &str| (WriterClassId::from_u128(class), ComponentName::new(path, name));
        let needs = |name: &str, (class, on): (WriterClassId, ComponentName)| {
            Component::file_group(name).depends_on(class, on).build().unwrap()
        };
        let plain = |name: &str| Component::file_group(name).build().unwrap();
        let store = writer(2, vec![plain("data"), plain("rest")]);
        // What the first writer's component depends on, what of the store is in, and the answer.
        let table = [
            (on(2, "", "data"), vec!["data"], None),
            (on(2, "", "data"), vec!["rest"], Some(false)),
            (on(2, "", "data"), vec![], Some(false)),
            (on(3, "", "data"), vec!["data"], Some(false)),
            (on(2, "x", "data"), vec!["data"], Some(false)),
            (on(2, r"\\HOST\x", "data"), vec!["data"], Some(true)),
        ];
        for (dependency, of_store, wanted) in table {
            let first = writer(1, vec![needs("app", dependency)]);
            let components = store.components.iter().filter(|one| of_store.contains(&one.name.name.as_str())).collect();
            let chosen = [
                Chosen { writer: &first, components: first.components.iter().collect() },
                Chosen { writer: &store, components },
            ];
            let unmet = unmet(&chosen);
            assert_eq!(unmet.first().map(|one| one.is_remote), wanted, "{:?}", first.components[0].dependencies);
            assert!(unmet.iter().all(|one| one.writer.name == "1" && one.component.name == "app"));
            assert!(super::unmet(&chosen[1..]).is_empty(), "a target does not know who depends on it");
        }
    }
}
