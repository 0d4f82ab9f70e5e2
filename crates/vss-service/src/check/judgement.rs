//! The judgement of a check: from what was found on the machine to what a set would be. Pure; asks nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use vss_api::management::{CheckedComponent, CheckedPath, CheckedVolume, CheckedWriter, MissingVolume, SetForecast};
use vss_model::involvement::{self, MountTable};
use vss_model::level::{self, ComponentCut, Cut};
use vss_model::selection::{Kind, kind};
use vss_model::{
    Component, Consistency, FreezePolicy, Volume, VolumeId, VssError, WriterClassId, WriterInstanceId, WriterMetadata,
};
use vss_provider::Forecast;

/// Nested subvolumes that are named, of one volume.
const NESTED_LISTED: usize = 20;
/// Components that are named, of all writers together.
const COMPONENTS_LISTED: usize = 1000;
/// Missing volumes that are named, of one component.
const MISSING_LISTED: usize = 16;

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// What became of each path.
    pub paths: Vec<CheckedPath>,
    /// The volumes of the paths, each once.
    pub volumes: Vec<FoundVolume>,
    /// The writers that were asked.
    pub writers: Vec<FoundWriter>,
    /// Every mount point with its volume.
    pub mounts: Vec<(PathBuf, VolumeId)>,
    /// Every volume of the machine that a component might be missing, and who would copy it.
    pub local: Vec<MissingVolume>,
    /// What keeps a set from being made.
    pub obstacles: Vec<VssError>,
    /// What should be known.
    pub warnings: Vec<VssError>,
}

/// A volume that may join a set.
#[derive(Debug)]
pub struct FoundVolume {
    /// The volume.
    pub volume: Volume,
    /// The provider that was chosen, by name.
    pub provider: String,
    /// What that provider needs of the file system.
    pub freeze_policy: FreezePolicy,
    /// Its shadow copies.
    pub shadows: u64,
    /// What the provider says of a copy made now.
    pub forecast: Result<Forecast, VssError>,
}

/// A writer that was asked what it owns.
#[derive(Debug)]
pub struct FoundWriter {
    /// Its name.
    pub name: String,
    /// Its instance name.
    pub instance_name: String,
    /// Its kind.
    pub class_id: WriterClassId,
    /// This registration.
    pub instance_id: WriterInstanceId,
    /// What it owns, or why that is not known.
    pub metadata: Result<WriterMetadata, VssError>,
}

/// A component that a set of the volumes would concern.
struct Involved<'a> {
    component: &'a Component,
    /// Every volume that it lies on.
    volumes: Vec<&'a VolumeId>,
}

/// What a set would be.
#[must_use]
pub fn judge(found: &Found) -> SetForecast {
    let mounts: Vec<_> = found.mounts.iter().map(|(path, volume)| (path.as_path(), volume)).collect();
    let chosen: Vec<VolumeId> = found.volumes.iter().map(|one| one.volume.id.clone()).collect();
    let cuts: Vec<Cut<'_>> = found.volumes.iter().filter_map(FoundVolume::cut).collect();
    let involved: Vec<Vec<Involved<'_>>> =
        found.writers.iter().map(|writer| writer.involved(&chosen, &mounts)).collect();
    // The writers are taken to succeed: how they fare is not known before.
    let component_cuts: Vec<ComponentCut<'_>> = involved
        .iter()
        .flatten()
        .map(|one| ComponentCut { volumes: one.volumes.clone(), writer_succeeded: true })
        .collect();
    let was_held = cuts.iter().any(|cut| cut.freeze_policy == FreezePolicy::NeedsHold);
    let levels = level::levels(&cuts, was_held, &component_cuts);

    let mut of_volumes = levels.volumes.into_iter();
    let volumes: Vec<CheckedVolume> = found
        .volumes
        .iter()
        .map(|one| one.checked(if one.failure().is_none() { of_volumes.next() } else { None }))
        .collect();
    let mut of_components = levels.components.into_iter();
    let mut left = COMPONENTS_LISTED;
    let mut writers = Vec::new();
    for (writer, involved) in found.writers.iter().zip(&involved) {
        let levels: Vec<Consistency> = of_components.by_ref().take(involved.len()).collect();
        if involved.is_empty() && writer.metadata.is_ok() {
            continue;
        }
        let components: Vec<CheckedComponent> = involved
            .iter()
            .zip(levels)
            .take(left)
            .map(|(one, consistency)| CheckedComponent {
                name: one.component.name.clone(),
                consistency,
                missing: missing(&writer.set_of(one.component), &chosen, found, &mounts),
            })
            .collect();
        left -= components.len();
        writers.push(CheckedWriter {
            name: writer.name.clone(),
            instance_name: writer.instance_name.clone(),
            class_id: writer.class_id,
            instance_id: writer.instance_id,
            failure: writer.metadata.as_ref().err().cloned(),
            component_count: involved.len() as u64,
            components,
        });
    }
    SetForecast {
        possible: !volumes.is_empty()
            && found.paths.iter().all(|path| path.failure.is_none())
            && volumes.iter().all(|volume| volume.failure.is_none())
            && found.obstacles.is_empty(),
        consistency: (!cuts.is_empty()).then_some(levels.set),
        atomic: levels.atomic,
        paths: found.paths.clone(),
        volumes,
        writers,
        obstacles: found.obstacles.clone(),
        warnings: found.volumes.iter().filter_map(FoundVolume::doubt).chain(found.warnings.iter().cloned()).collect(),
    }
}

impl FoundVolume {
    /// Why it cannot be copied now.
    fn failure(&self) -> Option<&VssError> {
        self.forecast.as_ref().map_or_else(Some, |forecast| forecast.refusal.as_ref())
    }

    /// Why it might be refused, with its name.
    fn doubt(&self) -> Option<VssError> {
        let doubt = self.forecast.as_ref().ok()?.doubt.clone()?;
        Some(doubt.while_doing(self.volume.mount_point.display()))
    }

    /// How it would be cut; none when it cannot be copied now.
    fn cut(&self) -> Option<Cut<'_>> {
        let forecast = self.forecast.as_ref().ok().filter(|forecast| forecast.refusal.is_none())?;
        Some(Cut {
            volume: &self.volume.id,
            freeze_policy: self.freeze_policy,
            has_nested: !forecast.nested.is_empty(),
        })
    }

    fn checked(&self, consistency: Option<Consistency>) -> CheckedVolume {
        let nested = self.forecast.as_ref().map(|forecast| forecast.nested.as_slice()).unwrap_or_default();
        CheckedVolume {
            volume: self.volume.mount_point.clone(),
            volume_id: self.volume.id.clone(),
            fs_type: self.volume.fs_type.clone(),
            provider: self.provider.clone(),
            consistency,
            nested_count: nested.len() as u64,
            nested: nested.iter().take(NESTED_LISTED).cloned().collect(),
            shadows: self.shadows,
            hold_ms: self.forecast.as_ref().ok().and_then(|forecast| forecast.hold_ms),
            copying: self.forecast.as_ref().ok().and_then(|forecast| forecast.copying.clone()),
            failure: self.failure().cloned(),
        }
    }
}

impl FoundWriter {
    fn involved<'a>(&'a self, chosen: &[VolumeId], mounts: MountTable<'a>) -> Vec<Involved<'a>> {
        let components = self.metadata.as_ref().map(|metadata| metadata.components.as_slice()).unwrap_or_default();
        components
            .iter()
            .map(|component| Involved { component, volumes: involvement::volumes_of(component, mounts) })
            .filter(|one| involvement::concerns(&one.volumes, chosen))
            .collect()
    }

    /// The component and those that are of no use apart from it: all below it, and what it is a part of.
    fn set_of<'a>(&'a self, component: &'a Component) -> Vec<&'a Component> {
        let components = self.metadata.as_ref().map(|metadata| metadata.components.as_slice()).unwrap_or_default();
        let is_part = kind(components, component) == Kind::Part;
        let belongs = |other: &&Component| {
            component.name.contains(&other.name)
                || (is_part && other.selectable && other.name.contains(&component.name))
        };
        std::iter::once(component).chain(components.iter().filter(belongs)).collect()
    }
}

/// The volumes that components lie on and that were not chosen: those that their files are on by name, and those that could
/// be copied of what is mounted below. A /proc below `/` is nothing that anybody misses.
fn missing(set: &[&Component], chosen: &[VolumeId], found: &Found, mounts: MountTable<'_>) -> Vec<MissingVolume> {
    let paths = set.iter().flat_map(|one| one.all_files()).map(vss_model::FileSpec::source);
    let named: BTreeMap<&VolumeId, &Path> =
        paths.filter_map(|path| Some((involvement::volume_of(path, mounts)?, path))).collect();
    let volumes: BTreeSet<&VolumeId> = set.iter().flat_map(|one| involvement::volumes_of(one, mounts)).collect();
    let outside = volumes.iter().filter(|volume| !chosen.contains(volume));
    outside
        .filter_map(|volume| {
            let local = found.local.iter().find(|local| local.volume_id == **volume);
            local.cloned().or_else(|| Some(not_local(volume, named.get(volume)?, mounts)))
        })
        .take(MISSING_LISTED)
        .collect()
}

/// A volume that is none of the machine's own, and that holds `path`.
fn not_local(volume: &VolumeId, path: &Path, mounts: MountTable<'_>) -> MissingVolume {
    let holders = mounts.iter().filter(|(place, id)| *id == volume && path.starts_with(place));
    let place = holders.map(|(place, _)| *place).max_by_key(|place| place.components().count());
    let kind = volume.as_str().split(':').next().unwrap_or_default();
    MissingVolume {
        volume: place.unwrap_or(path).to_owned(),
        volume_id: volume.clone(),
        provider: None,
        reason: format!("it is {kind}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use vss_model::{ComponentName, VssCode};

    fn id(name: &str) -> VolumeId {
        VolumeId::file_system("btrfs", name)
    }

    /// A machine: `/` is ext4 and cannot be copied; `/data`, `/data/wal` and `/srv` are btrfs; `/mnt/nfs` is remote; and there
    /// is /proc.
    fn machine() -> Found {
        let local = |place: &str, provider: Option<&str>| MissingVolume {
            volume: place.into(),
            volume_id: id(place),
            provider: provider.map(str::to_owned),
            reason: if provider.is_some() { String::new() } else { "btrfs: it is ext4".to_owned() },
        };
        let mut mounts: Vec<(PathBuf, VolumeId)> =
            ["/", "/data", "/data/wal", "/srv"].iter().map(|place| (place.into(), id(place))).collect();
        mounts.push(("/mnt/nfs".into(), VolumeId::file_system("nfs4", "0:40")));
        mounts.push(("/proc".into(), VolumeId::file_system("proc", "0:4")));
        Found {
            mounts,
            local: vec![
                local("/", None),
                local("/data", Some("btrfs")),
                local("/data/wal", Some("btrfs")),
                local("/srv", Some("btrfs")),
            ],
            ..Found::default()
        }
    }

    impl Found {
        fn choosing(mut self, places: &[(&str, &[&str])]) -> Self {
            for (place, nested) in places {
                self.paths.push(CheckedPath { path: place.into(), volume_id: Some(id(place)), failure: None });
                self.volumes.push(FoundVolume {
                    volume: Volume {
                        id: id(place),
                        mount_point: place.into(),
                        fs_type: "btrfs".to_owned(),
                        source: "/dev/x".to_owned(),
                        uuid: "u".to_owned(),
                        subvolume: Some(5),
                        root: "/".into(),
                        device_number: 1,
                        mount_id: 1,
                    },
                    provider: "btrfs".to_owned(),
                    freeze_policy: FreezePolicy::MustNotHold,
                    shadows: 0,
                    forecast: Ok(Forecast {
                        nested: nested.iter().map(PathBuf::from).collect(),
                        ..Forecast::default()
                    }),
                });
            }
            self
        }

        /// With a writer of one component for each list of directories.
        fn writer(mut self, name: &str, components: &[&[&str]]) -> Self {
            let files = |paths: &[&str]| -> Vec<serde_json::Value> {
                paths.iter().map(|path| json!({"path": path, "recursive": true})).collect()
            };
            let components: Vec<_> = components
                .iter()
                .enumerate()
                .map(|(number, paths)| json!({"name": number.to_string(), "files": files(paths)}))
                .collect();
            let (class_id, instance_id) = (WriterClassId::random(), WriterInstanceId::random());
            let metadata =
                json!({"class_id": class_id, "instance_id": instance_id, "name": name, "components": components});
            self.writers.push(FoundWriter {
                name: name.to_owned(),
                instance_name: String::new(),
                class_id,
                instance_id,
                metadata: Ok(serde_json::from_value(metadata).unwrap()),
            });
            self
        }
    }

    fn refusal() -> VssError {
        VssError::new(VssCode::InsufficientStorage, "full")
    }

    /// What is foretold of the second volume.
    fn second(found: &mut Found) -> &mut Forecast {
        found.volumes[1].forecast.as_mut().unwrap()
    }

    /// The words of each component: its level, and the places that it misses.
    fn components(forecast: &SetForecast) -> Vec<(Consistency, Vec<&str>)> {
        let all = forecast.writers.iter().flat_map(|writer| &writer.components);
        all.map(|one| (one.consistency, one.missing.iter().map(|one| one.volume.to_str().unwrap()).collect())).collect()
    }

    #[test]
    fn one_volume_without_writers_is_one_instant() {
        let forecast = judge(&machine().choosing(&[("/srv", &[])]));
        assert!(forecast.possible && forecast.atomic && forecast.writers.is_empty());
        assert_eq!(forecast.consistency, Some(Consistency::FileSystem));
        assert_eq!(forecast.volumes[0].consistency, Some(Consistency::FileSystem));
    }

    #[test]
    fn nested_subvolumes_are_several_instants_and_named_up_to_a_bound() {
        let names: Vec<String> = (0..50).map(|number| format!("n{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let forecast = judge(&machine().choosing(&[("/srv", &names)]));
        assert_eq!((forecast.consistency, forecast.atomic), (Some(Consistency::Crash), false));
        assert_eq!((forecast.volumes[0].nested_count, forecast.volumes[0].nested.len()), (50, NESTED_LISTED));
        assert!(forecast.possible, "it can be made all the same");
    }

    #[test]
    fn a_writer_counts_only_where_it_has_a_component() {
        let found =
            machine().choosing(&[("/srv", &["n"])]).writer("here", &[&["/srv/db"]]).writer("away", &[&["/home"]]);
        let forecast = judge(&found);
        let names: Vec<&str> = forecast.writers.iter().map(|writer| writer.name.as_str()).collect();
        assert_eq!(names, ["here"]);
        assert_eq!(forecast.consistency, Some(Consistency::Application));
        assert!(!forecast.atomic);
    }

    #[test]
    fn a_component_partly_outside_names_what_is_missing() {
        let found =
            machine().choosing(&[("/data", &[])]).writer("db", &[&["/data"], &["/data/wal", "/data/x"], &["/data/y"]]);
        let forecast = judge(&found);
        let level = Consistency::Application;
        assert_eq!(components(&forecast), [(level, vec!["/data/wal"]), (level, vec!["/data/wal"]), (level, vec![])]);
        assert_eq!(forecast.writers[0].components[0].missing[0].provider.as_deref(), Some("btrfs"));
        let whole = judge(&machine().choosing(&[("/data", &[]), ("/data/wal", &[])]).writer("db", &[&["/data"]]));
        assert_eq!(components(&whole), [(level, vec![])]);
    }

    #[test]
    fn a_component_misses_also_the_volumes_of_those_that_come_with_it() {
        let mut found =
            machine().choosing(&[("/data", &[])]).writer("db", &[&["/data/db"], &["/srv/fast"], &["/srv/y"]]);
        let Ok(metadata) = &mut found.writers[0].metadata else { panic!("no metadata") };
        // The second is a part of the first; the third is a thing of its own.
        metadata.components[1].name = ComponentName::new("0", "fast");
        metadata.components[1].selectable = false;
        let level = Consistency::Application;
        assert_eq!(components(&judge(&found)), [(level, vec!["/srv"])]);
        found.volumes.clear();
        assert_eq!(components(&judge(&found.choosing(&[("/srv", &[])])))[0], (level, vec!["/data"]), "a part alone");
    }

    #[test]
    fn what_cannot_be_copied_is_missed_only_when_it_is_named() {
        let found = machine().choosing(&[("/srv", &[])]).writer("db", &[&["/"], &["/srv", "/mnt/nfs/db", "/proc/x"]]);
        let forecast = judge(&found);
        let [whole, named] = &components(&forecast)[..] else { panic!("{forecast:?}") };
        let mut places = whole.1.clone();
        places.sort_unstable();
        assert_eq!(places, ["/", "/data", "/data/wal"], "local volumes, and no /proc");
        let mut places = named.1.clone();
        places.sort_unstable();
        assert_eq!(places, ["/mnt/nfs", "/proc"]);
        let nfs = forecast.writers[0].components[1].missing.iter().find(|one| one.volume.ends_with("nfs")).unwrap();
        assert_eq!((nfs.provider.as_deref(), nfs.reason.as_str()), (None, "it is nfs4"));
    }

    #[test]
    fn anything_that_is_refused_makes_it_impossible_and_the_rest_is_judged() {
        let possible = |change: fn(&mut Found)| {
            let mut found = machine().choosing(&[("/srv", &[]), ("/data", &["n"])]);
            change(&mut found);
            let forecast = judge(&found);
            (forecast.possible, forecast.consistency, forecast.volumes[1].consistency)
        };
        let (low, high) = (Some(Consistency::Crash), Some(Consistency::FileSystem));
        assert_eq!(possible(|_| {}), (true, low, low));
        assert_eq!(possible(|found| found.obstacles.push(refusal())), (false, low, low));
        assert_eq!(possible(|found| found.warnings.push(refusal())), (true, low, low));
        assert_eq!(possible(|found| found.volumes[1].forecast = Err(refusal())), (false, high, None));
        assert_eq!(possible(|found| second(found).refusal = Some(refusal())), (false, high, None));
        assert_eq!(possible(|found| second(found).doubt = Some(refusal())), (true, low, low));
        let refused = CheckedPath { path: "/x".into(), volume_id: None, failure: Some(refusal()) };
        let mut found = machine().choosing(&[("/srv", &[])]);
        found.paths.push(refused.clone());
        assert_eq!((judge(&found).possible, judge(&found).consistency), (false, high));
        let nothing = Found { paths: vec![refused], ..machine() };
        assert_eq!(
            (judge(&nothing).possible, judge(&nothing).consistency, judge(&nothing).atomic),
            (false, None, false)
        );
    }

    #[test]
    fn what_is_only_estimated_warns_and_names_its_volume() {
        let mut found = machine().choosing(&[("/srv", &[]), ("/data", &[])]);
        second(&mut found).doubt = Some(refusal());
        let warnings = judge(&found).warnings;
        assert_eq!((warnings.len(), warnings[0].message.as_str()), (1, "/data: full"));
    }

    #[test]
    fn a_writer_that_does_not_answer_is_named_and_counts_for_nothing() {
        let mut found = machine().choosing(&[("/srv", &[])]).writer("db", &[&["/srv"]]);
        found.writers[0].metadata = Err(refusal());
        let forecast = judge(&found);
        assert!(forecast.possible && forecast.writers[0].failure.is_some() && forecast.writers[0].component_count == 0);
        assert_eq!(forecast.consistency, Some(Consistency::FileSystem));
    }

    #[test]
    fn many_components_are_counted_and_named_up_to_a_bound() {
        let many: Vec<&[&str]> = vec![&["/srv"]; 700];
        let forecast = judge(&machine().choosing(&[("/srv", &[])]).writer("a", &many).writer("b", &many));
        let counts: Vec<_> =
            forecast.writers.iter().map(|writer| (writer.component_count, writer.components.len())).collect();
        assert_eq!(counts, [(700, 700), (700, 300)]);
    }

    #[test]
    fn held_volumes_are_foreseen_as_one_instant() {
        let mut found = machine().choosing(&[("/srv", &[]), ("/data", &[])]);
        assert!(!judge(&found).atomic, "two subvolumes are two instants");
        for volume in &mut found.volumes {
            volume.freeze_policy = FreezePolicy::NeedsHold;
        }
        assert!(judge(&found).atomic);
    }
}
