//! What tests of backups in a directory begin with.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::instance::{Instance, Outcome};
use crate::turn::creation_turn;
use crate::volume::Volume;

/// An instance on demand, a volume with files, and a directory on another file system for backups.
#[derive(Debug)]
pub struct Scene {
    /// The instance.
    pub instance: Instance,
    /// The volume, whose files are below `data`.
    pub volume: Volume,
    place: tempfile::TempDir,
}

impl Scene {
    /// 200 files, a hard link, a symbolic link and a sparse file.
    ///
    /// # Errors
    /// The volume or the directories cannot be made.
    pub fn new() -> anyhow::Result<Self> {
        let volume = Volume::new()?;
        for file in 0..200 {
            volume.write(&format!("data/{}/f{file}", file % 7), &format!("file {file}\n").repeat(1 + file * 20))?;
        }
        fs::hard_link(volume.path().join("data/0/f0"), volume.path().join("data/1/second"))?;
        std::os::unix::fs::symlink("../0/f0", volume.path().join("data/2/link"))?;
        let sparse = File::create(volume.path().join("data/sparse"))?;
        sparse.set_len(1 << 26)?;
        sparse.write_all_at(b"middle", 1 << 25)?;
        Ok(Self { instance: Instance::new()?, volume, place: tempfile::tempdir()? })
    }

    /// This name in the directory for backups.
    #[must_use]
    pub fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// The same as text.
    ///
    /// # Errors
    /// The path is not UTF-8.
    pub fn name(&self, name: &str) -> anyhow::Result<String> {
        Ok(self.at(name).to_str().context("a path in UTF-8")?.to_owned())
    }

    /// Runs `vss` to its end, when no other test makes a set.
    ///
    /// # Errors
    /// As [`Instance::vss`].
    pub fn vss(&self, words: &[&str]) -> anyhow::Result<Outcome> {
        let _turn = creation_turn();
        self.instance.vss(words)
    }

    /// `vss backup --volume` of the whole volume into this directory.
    ///
    /// # Errors
    /// As [`Instance::vss`].
    pub fn back_up(&self, to: &str, more: &[&str]) -> anyhow::Result<Outcome> {
        self.vss(&[&["backup", "--volume", self.volume.name(), "--to", &self.name(to)?], more].concat())
    }

    /// Puts a backup back and finds the directory `data` of the volume there. The root of the volume is not compared with
    /// the live one: there copies come and go.
    ///
    /// # Errors
    /// It is not put back.
    pub fn restored(&self, from: &str, to: &str) -> anyhow::Result<PathBuf> {
        let outcome = self.vss(&["restore", "--from", &self.name(from)?, "--files-only", "--to", &self.name(to)?])?;
        ensure!(outcome.is_success(), "{outcome:?}");
        self.data_in(&self.at(to))
    }

    /// Where the directory `data` is put below this one.
    ///
    /// # Errors
    /// The volume is not at an absolute path.
    pub fn data_in(&self, to: &Path) -> anyhow::Result<PathBuf> {
        Ok(to.join(self.data().strip_prefix("/")?))
    }

    /// The files of the volume.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.volume.path().join("data")
    }

    /// Checks a backup.
    ///
    /// # Errors
    /// It is damaged.
    pub fn verified(&self, directory: &str) -> anyhow::Result<()> {
        let outcome = self.vss(&["verify", &self.name(directory)?])?;
        ensure!(outcome.is_success() && outcome.stdout.contains("undamaged"), "{outcome:?}");
        Ok(())
    }
}

/// True when the directory says that not everything is restored there.
#[must_use]
pub fn is_marked(directory: &Path) -> bool {
    let mut names = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.any(|name| name.to_string_lossy().starts_with(".vss-unfinished-"))
}

/// A command that has failed with this code, or these words.
///
/// # Errors
/// It has not.
pub fn fails(outcome: &Outcome, code: &str) -> anyhow::Result<()> {
    ensure!(outcome.code == Some(1) && outcome.stderr.contains(code), "not {code}: {outcome:?}");
    Ok(())
}
