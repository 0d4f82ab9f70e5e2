//! The mounts of this process's mount namespace, read from `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
//!
//! Reading it touches no file system that is mounted, so a dead server or a frozen volume delays nobody here.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read},
    os::unix::ffi::OsStringExt,
    path::PathBuf,
};

/// Most bytes that are read: ten times the kernel's default limit of 100,000 mounts (`fs.mount-max`) at 64 bytes each.
const MOST_BYTES: u64 = 64 << 20;

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// The mount's id; unique while it is mounted, used again afterwards.
    pub mount_id: u64,
    /// The mount that it lies on.
    pub parent_id: u64,
    /// Device number of the superblock, major part; 0 for file systems without one block device (btrfs too).
    pub major: u32,
    /// Device number of the superblock, minor part.
    pub minor: u32,
    /// The directory of the file system that the mount shows as its root. On btrfs counted from subvolume 5.
    pub root: PathBuf,
    /// Where it is mounted, as seen from this process's root.
    pub mount_point: PathBuf,
    /// Options of this mount, separated by commas: `rw,nosuid,relatime`.
    pub options: String,
    /// Optional fields, separated by spaces: `shared:5 master:2`; empty for a private mount.
    pub propagation: String,
    /// The file system type, with its subtype: `ext4`, `fuse.sshfs`.
    pub fs_type: String,
    /// What was mounted: a device's path, `server:/export`, or any word.
    pub source: String,
    /// Options of the superblock, separated by commas; on btrfs with `subvolid=` and `subvol=` of the mount's root.
    pub super_options: String,
}

impl MountEntry {
    /// The superblock's device number as `st_dev` has it (on btrfs `st_dev` is another one for each subvolume).
    #[must_use]
    pub fn device_number(&self) -> u64 {
        rustix::fs::makedev(self.major, self.minor)
    }

    /// True when mounts made below it appear in other namespaces too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.propagation.split(' ').any(|field| field.starts_with("shared:"))
    }

    /// True when the whole file system is read-only, not only this mount.
    #[must_use]
    pub fn is_file_system_read_only(&self) -> bool {
        self.super_options.split(',').any(|option| option == "ro")
    }

    /// The value of `name=value` among the superblock's options.
    ///
    /// A value with a comma in it is cut there, except the last option of all, which is taken whole: that is where btrfs
    /// prints `subvol=`, a path with any characters.
    #[must_use]
    pub fn super_option(&self, name: &str) -> Option<&str> {
        let mut rest = self.super_options.as_str();
        loop {
            if let Some(value) = rest.strip_prefix(name).and_then(|value| value.strip_prefix('=')) {
                return Some(if name == "subvol" { value } else { value.split(',').next().unwrap_or(value) });
            }
            rest = rest.split_once(',')?.1;
        }
    }
}

/// Every mount of this process's namespace, in the order of mounting; a later one hides an earlier one at its place.
///
/// # Errors
/// `/proc` is not mounted; more than 64 MiB of mounts; a line that does not follow the format.
pub fn mounts() -> io::Result<Vec<MountEntry>> {
    let mut text = Vec::new();
    File::open("/proc/self/mountinfo")?.take(MOST_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(io::Error::other("/proc/self/mountinfo has more than 64 MiB"));
    }
    parse(&text)
}

/// Reads the text of a mountinfo file.
///
/// # Errors
/// `InvalidData`, quoting the line that does not follow the format.
pub fn parse(text: &[u8]) -> io::Result<Vec<MountEntry>> {
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            parse_line(line).ok_or_else(|| {
                let shown = String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
                io::Error::new(io::ErrorKind::InvalidData, format!("mountinfo line cannot be read: {shown}"))
            })
        })
        .collect()
}

fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut next = || fields.next();
    let mount_id = number(next()?)?;
    let parent_id = number(next()?)?;
    let device = next()?;
    let colon = device.iter().position(|byte| *byte == b':')?;
    let major = u32::try_from(number(&device[..colon])?).ok()?;
    let minor = u32::try_from(number(&device[colon + 1..])?).ok()?;
    let root = path(next()?);
    let mount_point = path(next()?);
    let options = words(next()?);
    let mut propagation = String::new();
    loop {
        match next()? {
            b"-" => break,
            field => {
                if !propagation.is_empty() {
                    propagation.push(' ');
                }
                propagation.push_str(&words(field));
            }
        }
    }
    let fs_type = words(next()?);
    let source = words(next()?);
    // A file system may print an unescaped space in its options; they are the rest of the line.
    let mut super_options = words(next()?);
    for more in fields {
        super_options.push(' ');
        super_options.push_str(&words(more));
    }
    Some(MountEntry {
        mount_id,
        parent_id,
        major,
        minor,
        root,
        mount_point,
        options,
        propagation,
        fs_type,
        source,
        super_options,
    })
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(field)))
}

fn words(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field)).into_owned()
}

/// Undoes the kernel's `\ooo` for space, tab, newline, backslash and (in options) `#`.
pub(crate) fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        if first == b'\\'
            && let Some(digits) = after.get(..3)
            && digits.iter().all(|digit| (b'0'..=b'7').contains(digit))
            && digits[0] <= b'3'
        {
            plain.push(digits.iter().fold(0, |value, digit| value << 3 | (digit - b'0')));
            rest = &after[3..];
        } else {
            plain.push(first);
            rest = after;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn reads_every_field() {
        let text =
            b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime shared:7 master:1 - ext4 /dev/my\\040root rw,errors=continue\n";
        let mounts = parse(text).unwrap();
        let entry = &mounts[0];
        assert_eq!((entry.mount_id, entry.parent_id, entry.major, entry.minor), (36, 35, 98, 0));
        assert_eq!((entry.root.as_path(), entry.mount_point.as_path()), (Path::new("/mnt1"), Path::new("/mnt 2")));
        assert_eq!((entry.options.as_str(), entry.propagation.as_str()), ("rw,noatime", "shared:7 master:1"));
        assert_eq!((entry.fs_type.as_str(), entry.source.as_str()), ("ext4", "/dev/my root"));
        assert_eq!(entry.super_option("errors"), Some("continue"));
        assert_eq!(entry.super_option("rw"), None);
        assert!(entry.is_shared() && !entry.is_file_system_read_only());
    }

    #[test]
    fn a_private_mount_has_no_optional_field() {
        let mounts = parse(b"1 1 0:5 / /a rw - btrfs /dev/vda ro,subvolid=257,subvol=/a,b\\134c d\n").unwrap();
        assert_eq!(mounts[0].propagation, "");
        assert_eq!(mounts[0].super_option("subvolid"), Some("257"));
        assert_eq!(mounts[0].super_option("subvol"), Some("/a,b\\c d"));
        assert!(mounts[0].is_file_system_read_only());
    }

    #[test]
    fn a_line_that_is_cut_short_is_an_error_that_quotes_it() {
        let error = parse(b"36 35 98:0 / /mnt rw shared:7\n").unwrap_err();
        assert!(error.to_string().contains("98:0"));
    }

    #[test]
    fn an_escape_that_is_none_stays_as_it_is() {
        assert_eq!(unescape(b"a\\09\\777\\1"), b"a\\09\\777\\1");
    }

    #[test]
    fn this_process_has_mounts() {
        assert!(mounts().unwrap().iter().any(|entry| entry.mount_point == Path::new("/proc")));
    }
}
