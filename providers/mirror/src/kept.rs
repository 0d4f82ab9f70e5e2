//! What this instance of the service remembers of each volume's running mirror: where it lies, and which state of it is the
//! last. One small file a volume, `mirror/<volume>.json` in the state directory.
//!
//! A volume has one running mirror, because there is one tracer whose marks are taken for it. One that was given up while its
//! place was not mounted is *left behind*: `mirror/<volume>.<stamp>.left`, until the place is there again.

use crate::{
    place::PlaceName,
    record::{self, Found},
    revert::Note,
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};
use uuid::Uuid;
use vss_model::{Instant, VolumeId, VssCode, VssError};
use vss_provider::failure::failed;

/// The name of a volume in file names: other bytes than letters, digits, `-` and `_` become `%XX`, and `:` becomes `-`.
pub(crate) fn key(volume_id: &VolumeId) -> String {
    let mut key = String::new();
    for byte in volume_id.as_str().bytes() {
        match byte {
            b':' => key.push('-'),
            _ if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) => key.push(char::from(byte)),
            _ => key.push_str(&format!("%{byte:02X}")),
        }
    }
    key
}

/// Most mirrors that are remembered as left behind: disks that never come back are not remembered for ever.
const MOST_LEFT: usize = 64;

/// The end of the names of those files.
const LEFT: &str = ".left";

fn left_name(key: &str, kept: &Kept) -> String {
    format!("{key}.{}{LEFT}", kept.stamp)
}

fn note_name(key: &str) -> String {
    format!("{key}.revert")
}

/// One volume's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Of this structure; 1.
    pub(crate) format: u32,
    pub(crate) volume_id: VolumeId,
    /// Where the volume was mounted.
    #[serde(with = "vss_model::path_text")]
    pub(crate) mount_point: PathBuf,
    /// Where the mirror lies.
    pub(crate) place: PlaceName,
    /// The stamp of the mirror's state; with another one somebody else wrote it, or it was put back.
    pub(crate) stamp: Uuid,
    pub(crate) last_used: Instant,
}

/// The directory of these files.
#[derive(Debug, Clone)]
pub(crate) struct Registry(PathBuf);

impl Registry {
    pub(crate) fn new(state_directory: &Path) -> Self {
        Self(state_directory.join("mirror"))
    }

    fn open(&self) -> io::Result<File> {
        File::open(&self.0)
    }

    /// What is remembered of this volume; none also when it is damaged.
    pub(crate) fn get(&self, key: &str) -> Result<Option<Kept>, VssError> {
        let directory = match self.open() {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.cannot("opened", &error)),
        };
        Ok(match record::read::<Kept>(&directory, &format!("{key}.json"))? {
            Found::Whole(kept) if kept.format == 1 => Some(kept),
            _ => None,
        })
    }

    /// `lasting`: down to the disk. A mirror that was left behind at the same place is this one.
    pub(crate) fn put(&self, key: &str, kept: &Kept, lasting: bool) -> Result<(), VssError> {
        self.make()?;
        let directory = self.open().map_err(|error| self.cannot("opened", &error))?;
        record::write(directory, &format!("{key}.json"), kept, lasting)?;
        let is_it = |left: &(String, Kept)| left.0 == key && left.1.place == kept.place;
        self.left()?.iter().filter(|left| is_it(left)).try_for_each(|(key, left)| self.forget(key, left))
    }

    /// Remembers the volume's mirror as left behind, and no longer as its mirror.
    pub(crate) fn leave(&self, key: &str, kept: &Kept) -> Result<(), VssError> {
        self.make()?;
        let directory = self.open().map_err(|error| self.cannot("opened", &error))?;
        record::write(directory, &left_name(key, kept), kept, true)?;
        self.remove(key)?;
        let left = self.left()?;
        let too_many = left.len().saturating_sub(MOST_LEFT);
        left.iter().take(too_many).try_for_each(|(key, left)| self.forget(key, left))
    }

    /// The mirrors that were left behind, with the keys of their volumes; those that were used last come last.
    pub(crate) fn left(&self) -> Result<Vec<(String, Kept)>, VssError> {
        let directory = match self.open() {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.cannot("opened", &error)),
        };
        let mut all = Vec::new();
        for name in self.names()? {
            let Some((key, _)) = name.strip_suffix(LEFT).and_then(|name| name.split_once('.')) else { continue };
            match record::read::<Kept>(&directory, &name)? {
                Found::Whole(kept) if kept.format == 1 => all.push((key.to_owned(), kept)),
                _ => {}
            }
        }
        all.sort_by_key(|(_, kept)| kept.last_used);
        Ok(all)
    }

    /// Forgets a mirror that was left behind.
    pub(crate) fn forget(&self, key: &str, left: &Kept) -> Result<(), VssError> {
        let directory = self.open().map_err(|error| self.cannot("opened", &error))?;
        self.strike_out(&directory, &left_name(key, left))
    }

    pub(crate) fn remove(&self, key: &str) -> Result<(), VssError> {
        match self.open() {
            Ok(directory) => self.strike_out(&directory, &format!("{key}.json")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.cannot("opened", &error)),
        }
    }

    /// The revert of this volume that was begun and not ended.
    pub(crate) fn note(&self, key: &str) -> Result<Option<Note>, VssError> {
        let directory = match self.open() {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.cannot("opened", &error)),
        };
        let name = note_name(key);
        match record::read(&directory, &name)? {
            Found::Whole(note) => Ok(Some(note)),
            Found::None => Ok(None),
            Found::Damaged => Err(VssError::new(
                VssCode::RevertInProgress,
                format!("A revert was begun, and its note {} is damaged", self.0.join(&name).display()),
            )
            .with_hint("Remove the note and revert the volume again")),
        }
    }

    pub(crate) fn put_note(&self, key: &str, note: &Note) -> Result<(), VssError> {
        self.make()?;
        record::write(self.open().map_err(|error| self.cannot("opened", &error))?, &note_name(key), note, true)
    }

    pub(crate) fn remove_note(&self, key: &str) -> Result<(), VssError> {
        let directory = self.open().map_err(|error| self.cannot("opened", &error))?;
        self.strike_out(&directory, &note_name(key))
    }

    /// Removes a file for good: no power cut brings it back.
    fn strike_out(&self, directory: &File, name: &str) -> Result<(), VssError> {
        record::remove(directory, name)?;
        rustix::fs::fsync(directory).map_err(|error| self.cannot("written", &error.into()))
    }

    fn make(&self) -> Result<(), VssError> {
        DirBuilder::new().mode(0o700).recursive(true).create(&self.0).map_err(|error| self.cannot("made", &error))
    }

    /// Every volume that is remembered, with its key.
    pub(crate) fn all(&self) -> Result<Vec<(String, Kept)>, VssError> {
        let mut all = Vec::new();
        for name in self.names()? {
            let Some(key) = name.strip_suffix(".json") else { continue };
            if let Some(kept) = self.get(key)? {
                all.push((key.to_owned(), kept));
            }
        }
        all.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(all)
    }

    /// The files that lie there.
    fn names(&self) -> Result<Vec<String>, VssError> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.cannot("read", &error)),
        };
        let name = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.map_err(|error| self.cannot("read", &error))?;
            Ok(entry.file_name().into_string().unwrap_or_default())
        };
        entries.map(name).collect()
    }

    fn cannot(&self, what: &str, error: &io::Error) -> VssError {
        failed(format!("{} cannot be {what}", self.0.display()), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_file_name() {
        assert_eq!(key(&VolumeId::file_system("ext4", "ab-12")), "ext4-ab-12");
        assert_eq!(key(&VolumeId::file_system("x", "../é")), "x-%2E%2E%2F%C3%A9");
    }

    fn kept(device: &str, last_used: Instant) -> Kept {
        let outer = serde_json::json!({"fs_type": "xfs", "uuid": device, "device": device});
        let place = serde_json::json!({"outer": outer, "below": "", "shown": "/mnt"});
        Kept {
            format: 1,
            volume_id: VolumeId::file_system("ext4", "u"),
            mount_point: "/srv".into(),
            place: serde_json::from_value(place).unwrap(),
            stamp: Uuid::new_v4(),
            last_used,
        }
    }

    #[test]
    fn so_many_are_remembered_as_left_behind_and_one_that_is_taken_again_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let registry = Registry::new(directory.path());
        assert_eq!(registry.left().unwrap(), []);
        let began = Instant::now();
        let all: Vec<Kept> =
            (0..70).map(|number| kept(&format!("/dev/{number}"), began.after_us(number * 1000))).collect();
        for one in &all {
            registry.put("k", one, false).unwrap();
            registry.leave("k", one).unwrap();
            assert_eq!(registry.get("k").unwrap(), None);
        }
        let left = |registry: &Registry| registry.left().unwrap().into_iter().map(|(_, kept)| kept).collect::<Vec<_>>();
        assert!(left(&registry) == all[6..], "those that were used last");
        // Another volume's mirror at the same place is another one.
        registry.put("other", &all[6], false).unwrap();
        registry.put("k", &Kept { stamp: Uuid::new_v4(), ..all[6].clone() }, false).unwrap();
        assert!(left(&registry) == all[7..]);
        assert_eq!(registry.all().unwrap().len(), 2);
    }
}
