//! Which components a backup takes, from the words of a user to what is added to the session (spec R 3.4 and 1.9).

use crate::volumes::{Mount, Selected, VolumeKey};
use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::path::PathBuf;
use std::str::FromStr;
use vss_api::requester::ComponentReference;
use vss_model::selection::{check_explicit, choose, included, missing_mandatory};
use vss_model::{Component, ComponentName, VssCode, VssError, WriterMetadata};

/// A component as a user names it: `WRITER/NAME`, `WRITER/LOGICAL/PATH/NAME`, or `WRITER` for all that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentChoice {
    /// The writer's name.
    pub writer: String,
    /// Logical path and name, with `\` or `/` between the parts; none: everything.
    pub component: Option<String>,
}

impl FromStr for ComponentChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (writer, component) = match text.split_once('/') {
            Some((writer, component)) => (writer, Some(component.to_owned())),
            None => (text, None),
        };
        if writer.is_empty() || component.as_ref().is_some_and(String::is_empty) {
            return Err("write WRITER/COMPONENT, as `vss check` shows them, or WRITER".to_owned());
        }
        Ok(Self { writer: writer.to_owned(), component })
    }
}

/// A writer of the session and the explicit components of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterComponents {
    /// What the writer owns.
    pub metadata: WriterMetadata,
    /// What was chosen of it, with what must go with that.
    pub explicit: Vec<ComponentName>,
}

impl WriterComponents {
    /// The components as the session names them.
    pub(crate) fn references(&self) -> impl Iterator<Item = ComponentReference> {
        let known = self.explicit.iter().filter_map(|name| self.metadata.component(name));
        known.map(|component| self.reference(component))
    }

    fn reference(&self, component: &Component) -> ComponentReference {
        ComponentReference {
            instance_id: self.metadata.instance_id,
            class_id: self.metadata.class_id,
            kind: component.kind,
            logical_path: component.name.logical_path.clone(),
            name: component.name.name.clone(),
        }
    }

    /// The directories of their files, each with true when what is below belongs to them too.
    fn directories(&self) -> Vec<(PathBuf, bool)> {
        let files = self.included().into_iter().flat_map(Component::all_files);
        files.map(|files| (files.source().to_owned(), files.recursive)).collect()
    }

    fn included(&self) -> Vec<&Component> {
        let explicit: Vec<&ComponentName> = self.explicit.iter().collect();
        included(&self.metadata.components, &explicit).into_iter().map(|(component, _)| component).collect()
    }
}

/// The explicit components of all writers that the choices name. What is mandatory for a writer goes with its others.
///
/// # Errors
/// `VSS_E_OBJECT_NOT_FOUND` for a writer or a component that is not there; `E_INVALIDARG` for one that cannot be chosen.
pub(crate) fn resolve(
    choices: &[ComponentChoice],
    writers: &[WriterMetadata],
) -> Result<Vec<WriterComponents>, VssError> {
    for choice in choices {
        if writers.iter().all(|writer| writer.name != choice.writer) {
            let message = format!("No writer named \"{}\" says what it owns", choice.writer);
            return Err(VssError::new(VssCode::ObjectNotFound, message)
                .with_hint("`vss list writers` shows those that are there"));
        }
    }
    let mut resolved = Vec::new();
    for writer in writers {
        let of_writer = choices.iter().filter(|choice| choice.writer == writer.name);
        let mut explicit: Vec<ComponentName> = Vec::new();
        for choice in of_writer {
            let wanted: Vec<&ComponentName> = match &choice.component {
                None => choose(&writer.components, |_| false),
                Some(path) => vec![find(writer, path)?],
            };
            for name in wanted {
                let chosen: Vec<&ComponentName> = explicit.iter().collect();
                if chosen.contains(&name) {
                    continue;
                }
                check_explicit(&writer.components, &chosen, name)
                    .map_err(|error| error.while_doing(format!("Writer {}", writer.name)))?;
                explicit.push(name.clone());
            }
        }
        let chosen: Vec<&ComponentName> = explicit.iter().collect();
        let mandatory: Vec<ComponentName> =
            missing_mandatory(&writer.components, &chosen).into_iter().map(|one| one.name.clone()).collect();
        explicit.extend(mandatory);
        if !explicit.is_empty() {
            resolved.push(WriterComponents { metadata: writer.clone(), explicit });
        }
    }
    Ok(resolved)
}

fn find<'a>(writer: &'a WriterMetadata, path: &str) -> Result<&'a ComponentName, VssError> {
    let names = || writer.components.iter().map(|component| &component.name);
    // A name may have a slash in it: what is written exactly so comes first.
    let slashed = path.replace('/', "\\");
    let found =
        names().find(|name| name.to_string() == path).or_else(|| names().find(|name| name.to_string() == slashed));
    found.ok_or_else(|| {
        let few: Vec<String> = names().take(10).map(ToString::to_string).collect();
        VssError::new(VssCode::ObjectNotFound, format!("Writer {} has no component {path}", writer.name))
            .with_hint(format!("It has {}", few.join(", ")))
    })
}

/// Refuses components whose files are named over a symbolic link: another volume may be behind it, and nothing that is read
/// follows it. What is not there yet is no reason.
///
/// # Errors
/// `E_INVALIDARG` for the first one.
pub(crate) fn refuse_links(chosen: &[WriterComponents]) -> Result<(), VssError> {
    for writer in chosen {
        for component in writer.included() {
            let paths = component.all_files().flat_map(|files| iter::once(&files.path).chain(&files.alternate_path));
            for path in paths {
                let Some(real) = path.canonicalize().ok().filter(|real| real != path) else { continue };
                let (of, name, real) = (&writer.metadata.name, &component.name, real.display());
                let message = format!(
                    "Component {name} of writer {of} has files at {}, a way over a symbolic link to {real}",
                    path.display()
                );
                let hint = format!("Name {real} in the writer's description: no backup follows a link");
                return Err(VssError::new(VssCode::InvalidArgument, message).with_hint(hint));
            }
        }
    }
    Ok(())
}

/// What is to be copied for these components: one path on each volume that holds files of theirs, and the mounts below their
/// trees that may be volumes too, those of one volume together.
pub(crate) fn places(chosen: &[WriterComponents], mounts: &[Mount]) -> (Vec<PathBuf>, Vec<Vec<PathBuf>>) {
    let (mut needed, mut below) = (Vec::new(), BTreeMap::new());
    for (directory, recursive) in chosen.iter().flat_map(WriterComponents::directories) {
        if recursive {
            let inside = |mount: &&Mount| mount.mount_point.starts_with(&directory) && mount.mount_point != directory;
            let inside = mounts.iter().filter(inside).filter(|mount| !mount.is_interface);
            below.extend(inside.map(|mount| (mount.mount_point.clone(), mount.volume)));
        }
        // One path on a volume is enough, and the root of a mount is there in any case.
        needed.extend(
            mounts
                .iter()
                .filter(|mount| directory.starts_with(&mount.mount_point))
                .max_by_key(|mount| mount.mount_point.components().count())
                .map(|mount| mount.mount_point.clone()),
        );
    }
    let mut known = BTreeSet::new();
    needed.retain(|path| Selected::among(mounts, path.clone()).is_some_and(|one| known.insert(one.volume)));
    let mut of_volumes: BTreeMap<VolumeKey, Vec<PathBuf>> = BTreeMap::new();
    for (mount_point, volume) in below.into_iter().filter(|(_, volume)| !known.contains(volume)) {
        of_volumes.entry(volume).or_default().push(mount_point);
    }
    (needed, of_volumes.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> WriterMetadata {
        serde_json::from_str(
            r#"{"class_id": "00000000-0000-0000-0000-000000000001", "name": "shop",
                "instance_id": "00000000-0000-0000-0000-000000000002", "components": [
                {"name": "settings", "selectable": false, "files": [{"path": "/etc/shop"}]},
                {"name": "data", "files": [{"path": "/srv/data", "recursive": true}]},
                {"name": "jan", "logical_path": "data\\months", "files": [{"path": "/srv/jan"}]},
                {"name": "a/b", "files": [{"path": "/srv/ab"}]}]}"#,
        )
        .unwrap()
    }

    fn choice(text: &str) -> ComponentChoice {
        text.parse().unwrap()
    }

    fn explicit(choices: &[&str]) -> Result<Vec<String>, VssError> {
        let choices: Vec<ComponentChoice> = choices.iter().map(|text| choice(text)).collect();
        let resolved = resolve(&choices, &[writer()])?;
        Ok(resolved.iter().flat_map(|one| one.explicit.iter().map(ToString::to_string)).collect())
    }

    #[test]
    fn what_is_mandatory_goes_with_what_was_chosen() {
        assert_eq!(explicit(&["shop/data"]).unwrap(), ["data", "settings"]);
        assert_eq!(
            explicit(&["shop/data/months/jan", "shop/data\\months\\jan"]).unwrap(),
            ["data\\months\\jan", "settings"]
        );
        assert_eq!(explicit(&["shop/a/b"]).unwrap(), ["a/b", "settings"]);
        assert_eq!(explicit(&["shop"]).unwrap(), ["settings", "data", "a/b"]);
        assert_eq!(explicit(&["shop/gone"]).unwrap_err().code, VssCode::ObjectNotFound);
        assert_eq!(explicit(&["stall"]).unwrap_err().code, VssCode::ObjectNotFound);
        assert_eq!(explicit(&["shop/data", "shop/data/months/jan"]).unwrap_err().code, VssCode::InvalidArgument);
        assert!("".parse::<ComponentChoice>().is_err() && "shop/".parse::<ComponentChoice>().is_err());
    }

    #[test]
    fn files_over_a_symbolic_link_are_refused_and_those_to_come_are_not() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("real/db")).unwrap();
        std::os::unix::fs::symlink("real", root.join("link")).unwrap();
        let refused = |path: &str, alternate: Option<&str>| {
            let mut metadata = writer();
            let files = &mut metadata.components[1].files[0];
            files.path = root.join(path);
            files.alternate_path = alternate.map(|path| root.join(path));
            refuse_links(&resolve(&[choice("shop/data")], &[metadata]).unwrap()).err()
        };
        assert_eq!(refused("real/db", None), None);
        assert_eq!(refused("not/yet", Some("real/../link/not/yet")), None);
        for error in [refused("link", None), refused("link/db/", None), refused("real", Some("link/db"))] {
            let error = error.unwrap();
            assert_eq!(error.code, VssCode::InvalidArgument);
            assert!(error.message.contains("Component data of writer shop"), "{error}");
            assert!(error.hint.contains(root.join("real").to_str().unwrap()), "{error}");
        }
    }

    #[test]
    fn the_volumes_are_those_of_the_files_and_of_mounts_below_trees() {
        let mounts: Vec<Mount> = [
            ("/", 1),
            ("/srv", 2),
            ("/srv/data/wal", 3),
            ("/srv/data/again", 2),
            ("/srv/jan", 4),
            ("/srv/data/old/wal", 3),
            ("/srv/data/proc", 5),
        ]
        .map(|(at, device)| Mount {
            mount_point: at.into(),
            volume: VolumeKey { device, subvolume: 0 },
            root: PathBuf::new(),
            is_interface: at.ends_with("proc"),
        })
        .into();
        let resolved = resolve(&[choice("shop/data")], &[writer()]).unwrap();
        let (needed, below) = places(&resolved, &mounts);
        // What /srv/data/months/jan brings in is on another one.
        let needed: BTreeSet<PathBuf> = needed.into_iter().collect();
        assert_eq!(needed, ["/", "/srv", "/srv/jan"].map(PathBuf::from).into());
        assert_eq!(below, [["/srv/data/old/wal", "/srv/data/wal"].map(PathBuf::from)]);
    }
}
