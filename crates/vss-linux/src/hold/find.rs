//! Finding a file system again that is known by its [`Identity`] alone, whatever it is mounted on by now.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::identity::Identity;

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
    let mounts = fs::read(process.join("mountinfo")).ok()?;
    mounts.split(|byte| *byte == b'\n').filter_map(parse).find_map(|mount| {
        // st_dev of a btrfs subvolume is not the number in mountinfo, so the mount's id is a hint as good as the device.
        if mount.device != identity.device && mount.id != identity.mount {
            return None;
        }
        let path = process.join("root").join(mount.point.strip_prefix("/").ok()?);
        // The mount point may be a file, and something else may be mounted over it: opened without waiting, then looked at.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).ok()?;
        Identity::of(&file).is_ok_and(|found| found.is_same_file_system(identity)).then_some(file)
    })
}

struct Mount {
    id: u64,
    device: (u32, u32),
    point: PathBuf,
}

/// One line of mountinfo (proc_pid_mountinfo(5)): `ID PARENT MAJOR:MINOR ROOT POINT ...`.
fn parse(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|byte| *byte == b' ');
    let mut number = |skip| std::str::from_utf8(words.nth(skip)?).ok();
    let id = number(0)?.parse().ok()?;
    let (major, minor) = number(1)?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let point = PathBuf::from(OsString::from_vec(unescape(words.nth(1)?)));
    Some(Mount { id, device, point })
}

/// Blanks, tabs, newlines and backslashes are written as `\` and three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(code) if *first == b'\\' => {
                plain.push(code);
                rest = &after[3..];
            }
            _ => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read() {
        let line = br"36 35 98:0 /mnt1 /srv/a\040b\134 rw,noatime master:1 - ext3 /dev/root rw";
        let mount = parse(line).expect("a good line");
        assert_eq!((mount.id, mount.device, mount.point.to_str()), (36, (98, 0), Some("/srv/a b\\")));
        assert!(parse(b"").is_none() && parse(b"1 2 3:4 /").is_none());
    }

    #[test]
    fn the_root_is_found_again() {
        let root = Identity::of(File::open("/").expect("/ opens")).expect("/ has an identity");
        let found = open(&root).expect("/ is mounted");
        assert!(Identity::of(found).is_ok_and(|found| found.is_same_file_system(&root)));
    }
}
