//! The users of the system, from every source that it has (nsswitch.conf(5)), not only `/etc/passwd`.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// First size of the buffer for the texts of an entry, in bytes.
const BUFFER: usize = 4096;
/// Largest one: an entry that does not fit is none of a user.
const LARGEST_BUFFER: usize = 1 << 20;
/// Groups that are asked for at first.
const GROUPS: usize = 64;
/// Most groups of a process (limits.h, NGROUPS_MAX).
const MOST_GROUPS: usize = 65_536;

/// One user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user's id.
    pub uid: u32,
    /// The user's main group.
    pub gid: u32,
    /// The login name.
    pub name: OsString,
    /// The home directory.
    pub home: PathBuf,
}

impl User {
    /// The user with this id; none when the system knows none (getpwuid_r(3)). May wait for a network, where users come from
    /// there.
    ///
    /// # Errors
    /// The sources cannot be read.
    pub fn by_uid(uid: u32) -> io::Result<Option<Self>> {
        let mut buffer = vec![0u8; BUFFER];
        loop {
            // SAFETY: `entry` is plain old data for which all zeros are valid; every pointer lives through the call, and the
            // buffer's length is its own.
            let (code, entry, found) = unsafe {
                let mut entry = std::mem::zeroed::<libc::passwd>();
                let mut found = std::ptr::null_mut();
                let code =
                    libc::getpwuid_r(uid, &raw mut entry, buffer.as_mut_ptr().cast(), buffer.len(), &raw mut found);
                (code, entry, !found.is_null())
            };
            match code {
                0 if !found => return Ok(None),
                0 => {
                    // SAFETY: after success both are NUL-terminated texts in `buffer`, which is not touched meanwhile.
                    let text = |text: *const libc::c_char| unsafe { CStr::from_ptr(text) };
                    let owned = |text: &CStr| OsStr::from_bytes(text.to_bytes()).to_owned();
                    let (name, home) = (owned(text(entry.pw_name)), owned(text(entry.pw_dir)));
                    return Ok(Some(Self { uid: entry.pw_uid, gid: entry.pw_gid, name, home: home.into() }));
                }
                libc::EINTR => {}
                libc::ERANGE if buffer.len() < LARGEST_BUFFER => buffer.resize(buffer.len() * 4, 0),
                // What different systems say for "no such user" (getpwuid_r(3)).
                libc::ENOENT | libc::ESRCH => return Ok(None),
                code => return Err(io::Error::from_raw_os_error(code)),
            }
        }
    }

    /// The groups that the user gets at a login, `gid` first (getgrouplist(3)).
    ///
    /// # Errors
    /// More groups than any kernel gives a process (65,536, NGROUPS_MAX); a name with a NUL byte.
    pub fn groups(&self, gid: u32) -> io::Result<Vec<u32>> {
        let name = CString::new(self.name.as_bytes())?;
        let mut groups: Vec<libc::gid_t> = vec![0; GROUPS];
        loop {
            let mut count = libc::c_int::try_from(groups.len()).unwrap_or(libc::c_int::MAX);
            // SAFETY: the name is NUL-terminated and lives through the call; `count` is the length of `groups`, beyond which
            // nothing is written.
            let fits = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) } >= 0;
            let count = usize::try_from(count).unwrap_or(0);
            if fits {
                groups.truncate(count);
                groups.retain(|group| *group != gid);
                groups.insert(0, gid);
                return Ok(groups);
            }
            if groups.len() >= MOST_GROUPS {
                return Err(io::Error::other(format!("user {} is in too many groups", self.name.display())));
            }
            groups.resize(count.max(groups.len() * 2).min(MOST_GROUPS), 0);
        }
    }
}

/// Runs `work` on a thread of its own that asks the file systems with the rights of user `uid`, group `gid` and exactly
/// `groups` (setfsuid(2)): the privileges of root over files do not count. Signals still need root's rights.
///
/// # Errors
/// The rights cannot be taken on, or the thread cannot be made; `work` has not run then.
pub fn with_file_rights<T: Send>(uid: u32, gid: u32, groups: &[u32], work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("file-rights".to_owned()).spawn_scoped(scope, || {
            take_file_rights(uid, gid, groups)?;
            Ok(work())
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread with other rights broke off")))
    })
}

/// For the calling thread, for good: it must end with its work.
fn take_file_rights(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    /// An id that no user has: setfsuid with it changes nothing and returns the one in force.
    const NOBODY_AT_ALL: u32 = u32::MAX;
    // SAFETY: the system call reads `groups` for its length, and as a direct call concerns the calling thread alone.
    if unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    for (call, id) in [(libc::SYS_setfsgid, gid), (libc::SYS_setfsuid, uid)] {
        // SAFETY: both take a number and touch no memory; they concern the calling thread alone.
        let in_force = unsafe {
            libc::syscall(call, id);
            libc::syscall(call, NOBODY_AT_ALL)
        };
        if in_force != libc::c_long::from(id) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_and_nobodys_number_is_not() {
        let root = User::by_uid(0).unwrap().unwrap();
        assert_eq!((root.gid, root.name.to_str(), root.home.as_path()), (0, Some("root"), "/root".as_ref()));
        assert_eq!(root.groups(7).unwrap()[0], 7);
        assert_eq!(User::by_uid(4_000_000_123).unwrap(), None);
    }
}
