//! Finding a file system again that is known by its [`Identity`] alone, whatever it is mounted on by now.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::identity::Identity;
use crate::mountinfo;

/// Opens any mount of the file system: our own first, else one of another process's mount namespace.
pub(super) fn open(identity: &Identity) -> Option<File> {
    open_in(Path::new("/proc/self"), identity).or_else(|| {
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let is_process = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
        processes
            .filter(|entry| entry.file_name().to_str().is_some_and(is_process))
            .find_map(|entry| open_in(&entry.path(), identity))
    })
}

fn open_in(process: &Path, identity: &Identity) -> Option<File> {
    let mounts = mountinfo::parse(&fs::read(process.join("mountinfo")).ok()?).ok()?;
    mounts.into_iter().find_map(|mount| {
        // st_dev of a btrfs subvolume is not the number in mountinfo, so the mount's id is a hint as good as the device.
        if (mount.major, mount.minor) != identity.device && mount.mount_id != identity.mount {
            return None;
        }
        let path = process.join("root").join(mount.mount_point.strip_prefix("/").ok()?);
        // The mount point may be a file, and something else may be mounted over it: opened without waiting, then looked at.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).ok()?;
        Identity::of(&file).is_ok_and(|found| found.is_same_file_system(identity)).then_some(file)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_found_again() {
        let root = Identity::of(File::open("/").expect("/ opens")).expect("/ has an identity");
        let found = open(&root).expect("/ is mounted");
        assert!(Identity::of(found).is_ok_and(|found| found.is_same_file_system(&root)));
    }
}
