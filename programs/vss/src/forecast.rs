//! What `vss check` says to people: tables of volumes and writers, a verdict, what stands in the way, and what should be known.

use crate::json::CheckDocument;
use crate::output::{counted, line, table};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::path::Path;
use vss_api::management::{CheckedVolume, MissingVolume};
use vss_api::progress::Milliseconds;
use vss_model::{Bytes, Consistency, PlaceForecast, Work};

/// Names that are listed one by one.
const LISTED: usize = 20;

/// Prints the answer.
pub(crate) fn print(document: &CheckDocument) -> io::Result<()> {
    if !document.volumes.is_empty() {
        let rows: Vec<Vec<String>> = document.volumes.iter().map(volume_row).collect();
        table(&["VOLUME", "TYPE", "PROVIDER", "CONSISTENCY", "NESTED", "SHADOWS"], &rows)?;
    }
    let rows = writer_rows(document);
    if !rows.is_empty() {
        line("")?;
        table(&["WRITER", "COMPONENT", "CONSISTENCY"], &rows)?;
    }
    if !document.volumes.is_empty() {
        line("")?;
    }
    let copying: Vec<String> = document.volumes.iter().filter_map(copying).collect();
    line(&verdict(document))?;
    section("What is copied", &copying)?;
    let places: Vec<Vec<String>> = document.volumes.iter().flat_map(place_rows).collect();
    if !places.is_empty() {
        table(&["VOLUME", "PLACE", "NEEDED", "AVAILABLE"], &places)?;
    }
    section("What stands in the way", &obstacles(document))?;
    section("Worth knowing", &notes(document))
}

fn section(title: &str, lines: &[String]) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    line(&format!("{title}:"))?;
    lines.iter().try_for_each(|text| line(&format!("- {text}")))
}

fn volume_row(volume: &CheckedVolume) -> Vec<String> {
    vec![
        volume.volume.display().to_string(),
        volume.fs_type.clone(),
        volume.provider.clone(),
        volume.consistency.map_or_else(|| "none".to_owned(), |level| level.to_string()),
        volume.nested_count.to_string(),
        volume.shadows.to_string(),
    ]
}

fn writer_rows(document: &CheckDocument) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for writer in &document.writers {
        let of_it = writer.components.iter().take(LISTED);
        rows.extend(of_it.map(|one| vec![writer.name.clone(), one.name.to_string(), one.consistency.to_string()]));
        let more = writer.component_count.saturating_sub(writer.components.len().min(LISTED) as u64);
        if more > 0 {
            rows.push(vec![writer.name.clone(), format!("{more} more"), String::new()]);
        }
    }
    rows
}

fn verdict(document: &CheckDocument) -> String {
    let Some(level) = document.consistency else {
        return "No shadow copy set can be made of this".to_owned();
    };
    let instant = if document.atomic { "one instant" } else { "several instants" };
    let writers = document.writers.iter().any(|writer| writer.component_count > 0);
    let condition = if writers { ", if every writer succeeds" } else { "" };
    let how = format!("{level} ({instant}){condition}");
    if document.possible {
        return format!("A shadow copy set of {} can be made: {how}", counted(document.volumes.len() as u64, "volume"));
    }
    let refused = |volume: &&CheckedVolume| volume.failure.is_none();
    let rest = document.volumes.iter().filter(refused).count();
    format!("No such shadow copy set can be made now; one of {} would be {how}", counted(rest as u64, "volume"))
}

/// What keeps the set from being made, each once: several paths may lie on one volume.
fn obstacles(document: &CheckDocument) -> Vec<String> {
    let of_paths = document.paths.iter().filter_map(|path| path.failure.as_ref());
    let of_volumes = document.volumes.iter().filter_map(|volume| volume.failure.as_ref());
    let mut words: Vec<String> = Vec::new();
    for failure in of_paths.chain(of_volumes).chain(&document.obstacles) {
        let text = failure.to_string();
        if !words.contains(&text) {
            words.push(text);
        }
    }
    words
}

fn notes(document: &CheckDocument) -> Vec<String> {
    let mut notes: Vec<String> = document.volumes.iter().filter_map(nested).collect();
    let mut cut = document.volumes.iter().filter_map(|volume| volume.consistency);
    if !document.atomic && cut.clone().count() > 1 && cut.any(|level| level < Consistency::Application) {
        notes.push(
            "The volumes are cut at different instants: what belongs together and lies on several of them is out of step, \
             unless a writer holds it still"
                .to_owned(),
        );
    }
    for writer in &document.writers {
        if let Some(failure) = &writer.failure {
            notes.push(format!("Writer {} would take no part: {failure}", writer.name));
        }
    }
    notes.extend(missing(document));
    if !document.stays_live.is_empty() {
        let places = document.stays_live.iter().map(|place| place.display());
        let places = listed(places, document.stays_live.len());
        notes.push(format!(
            "In no copy, so that `vss run` would show them live: {places}. Choose them too, or leave them out of the backup"
        ));
    }
    notes.extend(document.warnings.iter().map(ToString::to_string));
    notes
}

/// The room at each place that may be chosen, where blocks are copied.
fn place_rows(volume: &CheckedVolume) -> Vec<Vec<String>> {
    let places = volume.copying.iter().flat_map(|forecast| &forecast.places);
    let row = |place: &PlaceForecast| {
        vec![
            volume.volume.display().to_string(),
            place.storage.display().to_string(),
            Bytes(place.bytes_needed).to_string(),
            Bytes(place.bytes_available).to_string(),
        ]
    };
    places.map(row).collect()
}

/// What it takes where blocks are copied.
fn copying(volume: &CheckedVolume) -> Option<String> {
    let forecast = volume.copying.as_ref()?;
    let per_second = |rate: u64| format!("{}/s", Bytes(rate));
    let what = match forecast.work {
        Work::Copying if forecast.full_compare.is_some() => "everything in use, once more",
        Work::Copying => "everything in use, for the first time",
        Work::Catching => "what was written since the last copy",
        Work::Comparing | Work::Reverting => "everything in use, to compare it",
    };
    let place = forecast.storage.as_ref();
    let into = place.map_or_else(|| " into no place".to_owned(), |place| format!(" into {}", place.display()));
    let mut parts = vec![format!("{} to read ({what})", Bytes(forecast.bytes_to_read))];
    parts.extend(forecast.rounds.filter(|rounds| *rounds > 1).map(|rounds| format!("{rounds} rounds")));
    parts.push(match (forecast.read_ms, forecast.copy_rate) {
        (Some(read), Some(rate)) => format!("about {} at {}", Milliseconds(read), per_second(rate)),
        _ => "how fast is not known before a first copy".to_owned(),
    });
    parts.push(forecast.dirty_rate.map_or_else(
        || "how much is written meanwhile is not known".to_owned(),
        |rate| format!("{} being written", per_second(rate)),
    ));
    parts.push(volume.hold_ms.map_or_else(
        || "how long the hold is, is not known".to_owned(),
        |hold| format!("a hold of about {}", Milliseconds(hold)),
    ));
    let why = forecast.full_compare.as_ref();
    let read = why.map_or_else(String::new, |why| format!(". Everything is read: {why}"));
    Some(format!("{}{into}: {}{read}", volume.volume.display(), parts.join("; ")))
}

fn nested(volume: &CheckedVolume) -> Option<String> {
    if volume.nested_count == 0 {
        return None;
    }
    let count = usize::try_from(volume.nested_count).unwrap_or(usize::MAX);
    let names = listed(volume.nested.iter().map(|place| place.display()), count);
    Some(format!(
        "{} is copied with {} ({names}), each cut at an instant of its own: without a writer the copy is crash-consistent. \
         --one-file-system makes backup tools skip them",
        volume.volume.display(),
        counted(volume.nested_count, "nested subvolume"),
    ))
}

/// What components lack, by the volume that is missing.
fn missing(document: &CheckDocument) -> Vec<String> {
    let mut by_volume: BTreeMap<&Path, (&MissingVolume, Vec<String>)> = BTreeMap::new();
    for writer in &document.writers {
        for component in &writer.components {
            for missing in &component.missing {
                let (_, names) = by_volume.entry(&missing.volume).or_insert_with(|| (missing, Vec::new()));
                names.push(format!("{} of writer {}", component.name, writer.name));
            }
        }
    }
    let words = by_volume.into_values().map(|(missing, names)| {
        let place = missing.volume.display();
        let who = listed(names.iter().take(LISTED), names.len());
        let way_out = match &missing.provider {
            Some(_) => format!("add --volume {}", shell_word(&missing.volume)),
            None => format!("it cannot be copied ({})", missing.reason),
        };
        format!("{place} is not chosen, and {who} lies partly on it: {way_out}")
    });
    words.collect()
}

/// The first names, and how many more there are.
fn listed(names: impl Iterator<Item = impl Display>, count: usize) -> String {
    let names: Vec<String> = names.take(LISTED).map(|name| name.to_string()).collect();
    match count - names.len() {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// The path as a word for the shell.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |character: char| character.is_alphanumeric() || "/._-+=:@%,".contains(character);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::CheckedPathDocument;
    use serde_json::json;
    use vss_model::{VolumeId, VssCode, VssError};

    const ID: &str = "b5946137-7b9f-4925-af80-51abd60b20d5";

    fn volume(place: &str, level: Option<&str>, nested: &[&str], count: u64) -> CheckedVolume {
        serde_json::from_value(json!({"volume": place, "volume_id": place, "fs_type": "btrfs", "provider": "btrfs",
            "consistency": level, "nested_count": count, "nested": nested, "shadows": 2, "failure": null}))
        .unwrap()
    }

    /// An answer with two volumes and a writer of two components, one of which lies partly elsewhere.
    fn document() -> CheckDocument {
        let missing = |place: &str, provider: Option<&str>| json!({"volume": place, "volume_id": place, "provider": provider, "reason": "it is nfs4"});
        let writer = json!({"name": "db", "instance_name": "", "class_id": ID, "instance_id": ID, "failure": null,
            "component_count": 2, "components": [
                {"logical_path": "", "name": "a", "consistency": "application", "missing": []},
                {"logical_path": "", "name": "b", "consistency": "application",
                    "missing": [missing("/mnt/wal log", Some("btrfs")), missing("/mnt/nfs", None)]}]});
        CheckDocument {
            possible: true,
            consistency: Some(Consistency::FileSystem),
            volumes: vec![volume("/srv", Some("application"), &[], 0), volume("/data", Some("file-system"), &[], 0)],
            writers: vec![serde_json::from_value(writer).unwrap()],
            ..CheckDocument::default()
        }
    }

    #[test]
    fn the_verdict_says_whether_how_good_and_on_what_condition() {
        let mut document = document();
        assert_eq!(
            verdict(&document),
            "A shadow copy set of 2 volumes can be made: file-system (several instants), if every writer succeeds"
        );
        document.writers.clear();
        document.volumes.remove(1);
        document.atomic = true;
        assert_eq!(verdict(&document), "A shadow copy set of 1 volume can be made: file-system (one instant)");
        document.possible = false;
        assert!(
            verdict(&document).starts_with("No such shadow copy set can be made now; one of 1 volume would be file")
        );
        assert_eq!(verdict(&CheckDocument::default()), "No shadow copy set can be made of this");
    }

    #[test]
    fn a_missing_volume_is_told_as_the_words_to_type() {
        assert_eq!(
            missing(&document()),
            [
                "/mnt/nfs is not chosen, and b of writer db lies partly on it: it cannot be copied (it is nfs4)",
                "/mnt/wal log is not chosen, and b of writer db lies partly on it: add --volume '/mnt/wal log'",
            ]
        );
        assert_eq!(shell_word(Path::new("/srv/it's")), r"'/srv/it'\''s'");
        assert_eq!(shell_word(Path::new("/srv/db-1")), "/srv/db-1");
    }

    #[test]
    fn the_same_refusal_is_said_once() {
        let failure = || Some(VssError::new(VssCode::VolumeNotSupported, "no").with_hint("Go elsewhere"));
        let path = |path: &str| CheckedPathDocument {
            path: path.into(),
            resolved: None,
            volume_id: Some(VolumeId::file_system("x", "y")),
            failure: failure(),
        };
        let mut document = document();
        document.paths = vec![path("/a"), path("/b")];
        document.volumes[0].failure = failure();
        document.obstacles.extend(failure());
        assert_eq!(obstacles(&document), ["no (VSS_E_VOLUME_NOT_SUPPORTED, 0x8004230C). Go elsewhere"]);
    }

    #[test]
    fn nested_subvolumes_are_named_with_what_follows() {
        let note = nested(&volume("/srv", Some("crash"), &["a", "b"], 7)).unwrap();
        assert!(note.starts_with("/srv is copied with 7 nested subvolumes (a, b and 5 more)"), "{note}");
        assert!(note.contains("crash-consistent") && note.contains("--one-file-system"), "{note}");
        assert_eq!(nested(&volume("/srv", None, &[], 0)), None);
    }

    #[test]
    fn what_a_copy_of_blocks_takes_is_told() {
        let mut volume = volume("/srv", Some("file-system"), &[], 0);
        assert_eq!(copying(&volume), None);
        let place =
            |storage: &str| json!({"storage": storage, "bytes_needed": 1_417_339_207, "bytes_available": 40_u64 << 30});
        let forecast = json!({"work": "copying", "full_compare": null, "storage": "/var/lib/vss",
            "places": [place("/var/lib/vss"), place("/srv")], "rounds": 3, "bytes_to_read": 1_288_490_189,
            "copy_rate": 100 << 20, "dirty_rate": 2 << 20, "read_ms": 12_000});
        volume.copying = serde_json::from_value(forecast).unwrap();
        volume.hold_ms = Some(80);
        assert_eq!(
            copying(&volume).unwrap(),
            "/srv into /var/lib/vss: 1.2 GiB to read (everything in use, for the first time); 3 rounds; about 12 s at 100 \
             MiB/s; 2.0 MiB/s being written; a hold of about 80 ms"
        );
        assert_eq!(
            place_rows(&volume),
            [["/srv", "/var/lib/vss", "1.3 GiB", "40 GiB"], ["/srv", "/srv", "1.3 GiB", "40 GiB"]]
        );
        let forecast = volume.copying.as_mut().unwrap();
        (forecast.read_ms, forecast.copy_rate, forecast.dirty_rate, forecast.rounds) = (None, None, None, None);
        (forecast.storage, forecast.work) = (None, Work::Comparing);
        forecast.places.clear();
        forecast.full_compare = Some("no BPF".to_owned());
        volume.hold_ms = None;
        assert_eq!(
            copying(&volume).unwrap(),
            "/srv into no place: 1.2 GiB to read (everything in use, to compare it); how fast is not known before a first \
             copy; how much is written meanwhile is not known; how long the hold is, is not known. Everything is read: no \
             BPF"
        );
        volume.copying.as_mut().unwrap().work = Work::Copying;
        assert!(copying(&volume).unwrap().contains("(everything in use, once more)"));
    }

    #[test]
    fn what_should_be_known_is_told() {
        let mut document = document();
        document.stays_live = (0..25).map(|number| format!("/srv/{number}").into()).collect();
        document.writers[0].failure = Some(VssError::new(VssCode::WriterNotResponding, "it slept"));
        document.warnings.push(VssError::new(VssCode::SnapshotSetInProgress, "another set"));
        let notes = notes(&document);
        for words in ["different instants: what belongs together", "db would take no part: it slept", "/srv/0, /srv/1"]
        {
            assert!(notes.iter().any(|note| note.contains(words)), "{words}: {notes:?}");
        }
        assert!(notes.iter().any(|note| note.contains("and 5 more. Choose them too")), "{notes:?}");
        assert!(notes.last().unwrap().starts_with("another set (VSS_E_SNAPSHOT_SET_IN_PROGRESS, "), "{notes:?}");
    }

    #[test]
    fn many_components_are_told_up_to_a_bound() {
        let mut document = document();
        document.writers[0].component_count = 5000;
        let one = document.writers[0].components[0].clone();
        document.writers[0].components = vec![one; 1000];
        let rows = writer_rows(&document);
        assert_eq!((rows.len(), rows[LISTED][1].as_str()), (LISTED + 1, "4980 more"));
    }
}
