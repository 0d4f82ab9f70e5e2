//! Files that a writer declares to be no part of its shadow copies: deleted from the copy while it can be written to, under the
//! writer's own uid, and never out of the copy (spec R 3.7, spec P 3.3, design 7).

use rustix::fs::{AtFlags, Dir, FileType, OFlags, unlinkat};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use vss_linux::mount::open_beneath_same_mount;
use vss_linux::user::{User, with_file_rights};
use vss_model::{FileSet, pattern};

/// Directories that wait to be looked into, at most: more are an error, so that nobody makes us hold a tree of any size.
const WAITING: usize = 100_000;

/// Where the files of a set lie in the copy of the volume that is mounted at `mount_point`: the directory to begin with; none
/// when they lie elsewhere.
#[must_use]
pub fn place_in_copy(set: &FileSet, mount_point: &Path) -> Option<PathBuf> {
    if let Ok(inside) = set.path.strip_prefix(mount_point) {
        return Some(inside.to_owned());
    }
    (set.recursive && mount_point.starts_with(&set.path)).then(PathBuf::new)
}

/// Deletes the files of the set below `begin` in the copy with this root; returns how many. Directories stay. What is not there
/// is no error; the first thing that cannot be done is, after everything else.
///
/// # Errors
/// As openat2(2) and unlinkat(2), with the rights of user `uid`: a symbolic link on the way is ELOOP, another mount EXDEV.
pub fn delete(root: &OwnedFd, begin: &Path, set: &FileSet, uid: u32) -> io::Result<u64> {
    if uid == 0 {
        return delete_as_we_are(root, begin, set);
    }
    let user = User::by_uid(uid)?.ok_or_else(|| io::Error::other(format!("uid {uid} is no user of this machine")))?;
    let groups = user.groups(user.gid)?;
    with_file_rights(uid, user.gid, &groups, || delete_as_we_are(root, begin, set))?
}

fn delete_as_we_are(root: &OwnedFd, begin: &Path, set: &FileSet) -> io::Result<u64> {
    let (mut deleted, mut first) = (0, None);
    let mut waiting = vec![begin.to_owned()];
    while let Some(place) = waiting.pop() {
        match delete_in(root, &place, set, &mut waiting) {
            Ok(more) => deleted += more,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                first.get_or_insert(error);
            }
        }
    }
    first.map_or(Ok(deleted), Err)
}

/// One directory: its files are deleted, the directories in it wait.
fn delete_in(root: &OwnedFd, place: &Path, set: &FileSet, waiting: &mut Vec<PathBuf>) -> io::Result<u64> {
    let directory = open_beneath_same_mount(root, place, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut files: Vec<OsString> = Vec::new();
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        if is_directory(&directory, &entry)? {
            if set.recursive && waiting.len() >= WAITING {
                return Err(io::Error::other(format!("more than {WAITING} directories in {}", place.display())));
            }
            if set.recursive {
                waiting.push(place.join(name));
            }
        } else if pattern::matches(&set.pattern, name.as_bytes()) {
            files.push(name.to_owned());
        }
    }
    for name in &files {
        unlinkat(&directory, name, AtFlags::empty())?;
    }
    Ok(files.len() as u64)
}

fn is_directory(directory: impl AsFd, entry: &rustix::fs::DirEntry) -> io::Result<bool> {
    match entry.file_type() {
        FileType::Unknown => {
            let stat = rustix::fs::statat(directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
        }
        known => Ok(known == FileType::Directory),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    fn set(path: &str, pattern: &str, recursive: bool) -> FileSet {
        FileSet { path: path.into(), pattern: pattern.to_owned(), recursive }
    }

    #[test]
    fn the_place_in_a_copy_is_below_its_mount_point_or_the_whole_of_it() {
        let place = |path: &str, recursive| place_in_copy(&set(path, "*", recursive), Path::new("/srv"));
        assert_eq!(place("/srv/db/tmp", false), Some("db/tmp".into()));
        assert_eq!(place("/srv", false), Some("".into()));
        assert_eq!(place("/", true), Some("".into()));
        assert_eq!(place("/", false), None);
        assert_eq!(place("/srv2", true), None);
    }

    #[test]
    fn files_of_the_set_go_and_nothing_else() {
        let copy = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("a.tmp"), "out").unwrap();
        fs::create_dir_all(copy.path().join("db/below.tmp/deep")).unwrap();
        for file in ["db/a.tmp", "db/b.dat", "db/below.tmp/c.tmp", "db/below.tmp/deep/d.tmp", "e.tmp"] {
            fs::write(copy.path().join(file), "x").unwrap();
        }
        symlink(outside.path(), copy.path().join("db/link")).unwrap();
        symlink(outside.path().join("a.tmp"), copy.path().join("db/l.tmp")).unwrap();
        let root: OwnedFd = File::open(copy.path()).unwrap().into();
        assert_eq!(delete(&root, Path::new("db"), &set("/srv/db", "*.tmp", false), 0).unwrap(), 2);
        assert!(!copy.path().join("db/a.tmp").exists() && copy.path().join("db/below.tmp/c.tmp").exists());
        assert_eq!(delete(&root, Path::new("db"), &set("/srv/db", "*.tmp", true), 0).unwrap(), 2);
        assert!(copy.path().join("db/below.tmp/deep").is_dir() && copy.path().join("db/b.dat").exists());
        assert!(outside.path().join("a.tmp").exists() && copy.path().join("e.tmp").exists());
        assert_eq!(delete(&root, Path::new("none"), &set("/srv/none", "*", true), 0).unwrap(), 0, "not there");
        assert!(delete(&root, Path::new("db/link"), &set("/srv/db/link", "*", true), 0).is_err(), "a way out");
        assert!(outside.path().join("a.tmp").exists());
    }

    #[test]
    fn a_writer_deletes_with_its_own_rights() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: a_writer_deletes_with_its_own_rights: needs root");
            return;
        }
        const NOBODY: u32 = 65_534;
        let copy = tempfile::tempdir().unwrap();
        fs::set_permissions(copy.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["own", "foreign"] {
            fs::create_dir(copy.path().join(name)).unwrap();
            fs::write(copy.path().join(name).join("file"), "x").unwrap();
        }
        chown(copy.path().join("own"), Some(NOBODY), None).unwrap();
        let root: OwnedFd = File::open(copy.path()).unwrap().into();
        assert_eq!(delete(&root, Path::new("own"), &set("/own", "*", false), NOBODY).unwrap(), 1);
        let error = delete(&root, Path::new("foreign"), &set("/foreign", "*", false), NOBODY).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(copy.path().join("foreign/file").exists());
    }
}
