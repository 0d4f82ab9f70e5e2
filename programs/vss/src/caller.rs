//! The user who called sudo, for `--as-caller`.

use crate::exit::system_error;
use std::ffi::OsString;
use vss_linux::user::User;
use vss_model::{VssCode, VssError};

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
        let failed = |error| system_error(format!("Cannot look up user {uid}"), &error);
        let user = User::by_uid(uid).map_err(failed)?;
        let user = user.ok_or_else(|| {
            VssError::new(VssCode::ObjectNotFound, format!("User {uid} is not known to the system"))
                .with_hint("Call sudo as a user who is, or leave --as-caller out")
        })?;
        let groups = user.groups(gid).map_err(failed)?;
        Ok(Self { uid, gid, groups, name: user.name, home: user.home.into() })
    }
}
