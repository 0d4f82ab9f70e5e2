//! Directories that take long to make and are kept between runs: made beside their place and moved there whole, with a stamp
//! that says of what they were made and how long their files are. One whose stamp does not fit is made again.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The stamp's file name.
const STAMP: &str = "stamp.json";

/// What the stamp says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    /// What it was made of.
    recipe: String,
    /// The length of each file that must be there, by its path below the directory.
    files: BTreeMap<PathBuf, u64>,
}

/// True when the directory was made by this recipe and nothing of it is missing.
pub(crate) fn is_good(directory: &Path, recipe: &str) -> bool {
    let stamp = fs::read(directory.join(STAMP)).ok().and_then(|text| serde_json::from_slice::<Stamp>(&text).ok());
    stamp.is_some_and(|stamp| {
        let has = |(path, length): (&PathBuf, &u64)| {
            fs::metadata(directory.join(path)).is_ok_and(|found| found.is_file() && found.len() == *length)
        };
        stamp.recipe == recipe && stamp.files.iter().all(has)
    })
}

/// Makes sure that the directory is there as the recipe says: `make` fills an empty one and names the files that must be there,
/// relative to it.
pub(crate) fn ensure(directory: &Path, recipe: &str, make: impl FnOnce(&Path) -> Result<Vec<PathBuf>>) -> Result<()> {
    if is_good(directory, recipe) {
        return Ok(());
    }
    if directory.exists() {
        println!("{} is of another version or incomplete: it is made again", directory.display());
    }
    let parent = directory.parent().context("a cache has a directory above it")?;
    fs::create_dir_all(parent)?;
    let new = tempfile::Builder::new().prefix(".new-").tempdir_in(parent)?;
    let mut stamp = Stamp { recipe: recipe.to_owned(), files: BTreeMap::new() };
    for file in make(new.path())? {
        let found = fs::metadata(new.path().join(&file)).with_context(|| format!("{} was not made", file.display()))?;
        stamp.files.insert(file, found.len());
    }
    fs::write(new.path().join(STAMP), serde_json::to_vec(&stamp)?)?;
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    let new = new.keep();
    fs::rename(&new, directory).with_context(|| format!("cannot move {} to its place", new.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn make(place: &Path, recipe: &str, made: &mut u32) {
        ensure(place, recipe, |new| {
            *made += 1;
            fs::write(new.join("file"), "content")?;
            Ok(vec!["file".into()])
        })
        .unwrap();
        assert_eq!(fs::read_to_string(place.join("file")).unwrap(), "content");
    }

    #[test]
    fn what_is_whole_is_kept_and_what_is_broken_is_made_again() {
        let directory = TempDir::new().unwrap();
        let place = directory.path().join("above/place");
        let mut made = 0;
        make(&place, "recipe 1", &mut made);
        make(&place, "recipe 1", &mut made);
        assert_eq!(made, 1);
        make(&place, "recipe 2", &mut made);
        assert_eq!(made, 2, "another recipe");
        fs::write(place.join("file"), "cont").unwrap();
        make(&place, "recipe 2", &mut made);
        assert_eq!(made, 3, "a file that is cut off");
        fs::remove_file(place.join("file")).unwrap();
        make(&place, "recipe 2", &mut made);
        assert_eq!(made, 4, "a file that is missing");
        fs::write(place.join(STAMP), "{").unwrap();
        make(&place, "recipe 2", &mut made);
        assert_eq!(made, 5, "a stamp that cannot be read");
    }

    #[test]
    fn what_cannot_be_made_leaves_nothing() {
        let directory = TempDir::new().unwrap();
        let place = directory.path().join("place");
        assert!(ensure(&place, "recipe", |_| anyhow::bail!("no")).is_err());
        assert!(ensure(&place, "recipe", |_| Ok(vec!["absent".into()])).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
