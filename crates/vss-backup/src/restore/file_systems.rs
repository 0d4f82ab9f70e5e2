//! The file systems that a restoration writes to: that of its directory, and those that are mounted below it.

use rustix::fs::{fstat, syncfs};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// So many are held open at most; where there are more, those that were met are brought to the disk before their end.
const MOST: usize = 64;

/// One open directory of each, by its device. Errors of writing since it was opened are told when it is synced.
#[derive(Debug, Default)]
pub(super) struct FileSystems(Vec<(u64, OwnedFd)>);

impl FileSystems {
    /// What is in this directory will be written to.
    ///
    /// # Errors
    /// Those of fstat(2) and fcntl(2), and where there are too many those of syncfs(2).
    pub(super) fn meet(&mut self, directory: BorrowedFd<'_>) -> io::Result<()> {
        let device = fstat(directory)?.st_dev;
        if self.0.iter().any(|(known, _)| *known == device) {
            return Ok(());
        }
        if self.0.len() == MOST {
            self.sync()?;
            self.0.clear();
        }
        self.0.push((device, directory.try_clone_to_owned()?));
        Ok(())
    }

    /// Brings all that was written to the disk.
    ///
    /// # Errors
    /// Those of syncfs(2) and of writing.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.0.iter().try_for_each(|(_, directory)| Ok(syncfs(directory)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};
    use std::os::fd::AsFd;
    use std::path::Path;

    fn open(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    #[test]
    fn each_file_system_is_met_once() {
        let place = tempfile::tempdir().unwrap();
        let (first, other) = (open(place.path()), open(Path::new("/proc")));
        let mut met = FileSystems::default();
        for directory in [&first, &other, &first, &other] {
            met.meet(directory.as_fd()).unwrap();
        }
        let devices: Vec<u64> = met.0.iter().map(|(device, _)| *device).collect();
        assert_eq!(devices, [&first, &other].map(|directory| fstat(directory).unwrap().st_dev));
        met.sync().unwrap();
    }

    #[test]
    fn no_more_than_so_many_are_held_open() {
        let directory = open(Path::new("/"));
        let mut met = FileSystems::default();
        for number in 0..MOST as u64 {
            met.0.push((u64::MAX - number, directory.try_clone().unwrap()));
        }
        met.meet(directory.as_fd()).unwrap();
        assert_eq!(met.0.len(), 1);
    }
}
