//! Which programs root may run: those that nobody but root can change.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// Symbolic links followed on the way to a file, as many as the kernel follows (path_resolution(7)).
const LINKS: usize = 40;

/// Why a file is not trusted: a sentence that names it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Distrust(pub String);

/// Checks that `path` is a program that this process may run.
///
/// For root: the file, every directory on the way to it, and every symbolic link followed belong to root, and neither
/// group nor others may write to any of them (directories with the sticky bit excepted). For others: it is an
/// executable file.
///
/// # Errors
/// The file, directory or link that stands against it, and the command that mends it.
pub fn trusted_program(path: &Path) -> Result<(), Distrust> {
    let metadata = trusted(path)?;
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(Distrust(format!("{} is not executable; run chmod +x on it", path.display())));
    }
    Ok(())
}

/// As [`trusted_program`], for a file that is only read.
pub(crate) fn trusted_file(path: &Path) -> Result<(), Distrust> {
    trusted(path).map(|_| ())
}

fn trusted(path: &Path) -> Result<fs::Metadata, Distrust> {
    let unreadable = |error: std::io::Error| Distrust(format!("{} cannot be used: {error}", path.display()));
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Distrust(format!("{} is not a file", path.display())));
    }
    if rustix::process::geteuid().is_root() {
        walk(&std::path::absolute(path).map_err(unreadable)?)?;
    }
    Ok(metadata)
}

/// Goes from `/` to the file, link by link.
fn walk(path: &Path) -> Result<(), Distrust> {
    let mut ahead: Vec<PathBuf> = parts(path);
    let mut here = PathBuf::from("/");
    let mut links = 0;
    check(&here)?;
    while let Some(part) = ahead.pop() {
        if part == Path::new("..") {
            here.pop();
            continue;
        }
        here.push(part);
        check(&here)?;
        let Ok(target) = fs::read_link(&here) else { continue };
        links += 1;
        if links > LINKS {
            return Err(Distrust(format!("{} is reached through too many symbolic links", path.display())));
        }
        here.pop();
        if target.is_absolute() {
            here = PathBuf::from("/");
        }
        ahead.extend(parts(&target));
    }
    Ok(())
}

/// The names of a path, last first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let named = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    let mut parts: Vec<PathBuf> = named.map(|part| PathBuf::from(part.as_os_str())).collect();
    parts.reverse();
    parts
}

fn check(path: &Path) -> Result<(), Distrust> {
    let shown = path.display();
    let metadata = fs::symlink_metadata(path).map_err(|error| Distrust(format!("{shown} cannot be used: {error}")))?;
    if metadata.uid() != 0 {
        return Err(Distrust(format!("{shown} belongs to uid {}, not to root; run chown root on it", metadata.uid())));
    }
    let mode = metadata.permissions().mode();
    let sticky_directory = metadata.is_dir() && mode & 0o1000 != 0;
    if !metadata.is_symlink() && mode & 0o022 != 0 && !sticky_directory {
        return Err(Distrust(format!(
            "{shown} may be written to by others (mode {:o}); run chmod go-w on it",
            mode & 0o7777
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{chown, symlink};

    fn program(path: &Path, mode: u32) {
        fs::write(path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn takes_what_only_root_can_change() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("hook");
        program(&file, 0o755);
        assert_eq!(trusted_program(&file), Ok(()));
        let link = directory.path().join("link");
        symlink("hook", &link).unwrap();
        assert_eq!(trusted_program(&link), Ok(()));
    }

    #[test]
    fn refuses_what_is_not_executable_or_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("hook");
        assert!(trusted_program(&file).unwrap_err().0.contains("cannot be used"));
        program(&file, 0o644);
        assert!(trusted_program(&file).unwrap_err().0.contains("chmod +x"));
        assert!(trusted_program(directory.path()).unwrap_err().0.contains("is not a file"));
    }

    #[test]
    fn as_root_refuses_what_others_can_change() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: as_root_refuses_what_others_can_change: it needs root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("hook");
        program(&file, 0o775);
        assert!(trusted_program(&file).unwrap_err().0.contains("chmod go-w"));
        program(&file, 0o755);
        chown(&file, Some(65534), None).unwrap();
        assert!(trusted_program(&file).unwrap_err().0.contains("belongs to uid 65534"));
        chown(&file, Some(0), None).unwrap();
        // A link that goes through a directory of somebody else's.
        let others = directory.path().join("others");
        fs::create_dir(&others).unwrap();
        symlink(&file, others.join("hook")).unwrap();
        chown(&others, Some(65534), None).unwrap();
        let link = directory.path().join("link");
        symlink("others/hook", &link).unwrap();
        assert!(trusted_program(&link).unwrap_err().0.contains("others belongs to uid 65534"));
    }
}
