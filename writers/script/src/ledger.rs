//! The note of frozen hooks: what a hook did outlives this process, so it is written down before it is done.
//!
//! A text file, one hook's name a line, in the order in which they were frozen. It lies in the runtime directory (memory,
//! gone with a reboot, as everything that a hook of an earlier boot froze). Whoever finds one at start thaws what it names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The largest note that is read: 64 KiB.
const LONGEST: u64 = 64 << 10;

/// The place of one writer's note.
#[derive(Debug)]
pub(crate) struct Ledger(PathBuf);

impl Ledger {
    /// The note of the writer with this class id.
    pub(crate) fn new(runtime: &Path, class_id: &str) -> Self {
        Self(runtime.join(format!("hooks-{class_id}.frozen")))
    }

    /// Writes the note: a new file under another name, then renamed, so that nobody reads half of it.
    pub(crate) fn write<'a>(&self, names: impl Iterator<Item = &'a str>) -> io::Result<()> {
        if let Some(directory) = self.0.parent() {
            fs::create_dir_all(directory)?;
        }
        let lines: Vec<&str> = names.collect();
        let draft = self.0.with_extension("new");
        fs::write(&draft, lines.join("\n"))?;
        fs::rename(draft, &self.0)
    }

    /// The names in the note; none when there is no note.
    pub(crate) fn read(&self) -> io::Result<Option<Vec<String>>> {
        match fs::metadata(&self.0) {
            Ok(metadata) if metadata.len() > LONGEST => return Err(io::ErrorKind::InvalidData.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        Ok(Some(fs::read_to_string(&self.0)?.lines().map(str::to_owned).collect()))
    }

    /// Strikes the note out.
    pub(crate) fn clear(&self) -> io::Result<()> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Where it is, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}
