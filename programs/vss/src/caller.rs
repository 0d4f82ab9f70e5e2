//! The user who called sudo, for `--as-caller`.

use crate::exit::system_error;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::Command;
use vss_model::{VssCode, VssError};

/// Asks every source of users that the system has (nsswitch.conf(5)), not only /etc/passwd.
const GETENT: &str = "/usr/bin/getent";

/// Who runs the command instead of root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The user's id.
    pub(crate) uid: u32,
    /// The group's id.
    pub(crate) gid: u32,
    /// All groups, `gid` among them.
    pub(crate) groups: Vec<u32>,
    /// The login name.
    pub(crate) name: OsString,
    /// The home directory.
    pub(crate) home: OsString,
}

impl Caller {
    /// The user whom sudo names in the environment.
    ///
    /// # Errors
    /// `E_INVALIDARG` when sudo did not start us; `VSS_E_OBJECT_NOT_FOUND` for a user whom the system does not know.
    pub(crate) fn from_sudo() -> Result<Self, VssError> {
        let id = |name| std::env::var(name).ok().and_then(|id| id.parse::<u32>().ok());
        let (Some(uid), Some(gid)) = (id("SUDO_UID"), id("SUDO_GID")) else {
            return Err(VssError::new(
                VssCode::InvalidArgument,
                "--as-caller needs sudo: SUDO_UID and SUDO_GID are not set",
            )
            .with_hint("Use `sudo vss run --as-caller ...`"));
        };
        let passwd = getent(&["passwd".into(), uid.to_string().into()])?;
        let (name, home) = name_and_home(&passwd)
            .ok_or_else(|| VssError::new(VssCode::ObjectNotFound, format!("User {uid} is not known to the system")))?;
        let groups = groups(&getent(&["initgroups".into(), name.clone()])?, gid);
        Ok(Self { uid, gid, groups, name, home })
    }
}

/// What getent says; empty when it found nothing.
fn getent(arguments: &[OsString]) -> Result<Vec<u8>, VssError> {
    let output = Command::new(GETENT).args(arguments).output();
    output.map(|output| output.stdout).map_err(|error| system_error(format!("Cannot run {GETENT}"), &error))
}

/// The first and the sixth field of a line of passwd(5).
fn name_and_home(passwd: &[u8]) -> Option<(OsString, OsString)> {
    let line = passwd.split(|byte| *byte == b'\n').next()?;
    let mut fields = line.split(|byte| *byte == b':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let home = fields.nth(4)?;
    Some((OsString::from_vec(name.to_vec()), OsString::from_vec(home.to_vec())))
}

/// The groups of a line `NAME GID...`, after the user's own.
fn groups(initgroups: &[u8], gid: u32) -> Vec<u32> {
    let text = String::from_utf8_lossy(initgroups);
    let more = text.split_whitespace().skip(1).filter_map(|group| group.parse().ok()).filter(|group| *group != gid);
    [gid].into_iter().chain(more).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_getent_prints() {
        let (name, home) = name_and_home(b"me:x:1000:100:Me,,,:/home/me:/bin/sh\n").unwrap();
        assert_eq!((name, home), ("me".into(), "/home/me".into()));
        assert_eq!(name_and_home(b""), None);
        assert_eq!(groups(b"me                    4 24 100\n", 100), [100, 4, 24]);
        assert_eq!(groups(b"", 100), [100]);
    }

    #[test]
    fn this_system_knows_root() {
        let passwd = getent(&["passwd".into(), "0".into()]).unwrap();
        assert_eq!(name_and_home(&passwd).unwrap().0, "root");
    }
}
