//! Stopping and releasing the writes of one mounted file system: `syncfs`, FIFREEZE and FITHAW on a borrowed descriptor.
//!
//! Who may call them, and when, is not decided here: see [`crate::hold`]. Each of the three can block uninterruptibly
//! for as long as the device takes, so a thread that calls one of them must have nothing else to do.

use std::os::fd::AsFd;

use rustix::io::Errno;

/// Why FIFREEZE did not freeze.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FreezeError {
    /// EBUSY: somebody else holds it frozen (FIFREEZE, a device-mapper suspend). Not ours to thaw.
    #[error("the file system is already frozen by somebody else (EBUSY)")]
    AlreadyFrozen,
    /// EOPNOTSUPP or ENOTTY: this file system has no freeze.
    #[error("the file system cannot be frozen ({0})")]
    NotSupported(Errno),
    /// Anything else, such as EPERM without CAP_SYS_ADMIN or EIO from the flush that is part of a freeze.
    #[error("FIFREEZE failed ({0})")]
    Failed(Errno),
}

impl FreezeError {
    /// The error number that the kernel gave.
    pub fn errno(self) -> Errno {
        match self {
            Self::AlreadyFrozen => Errno::BUSY,
            Self::NotSupported(errno) | Self::Failed(errno) => errno,
        }
    }
}

/// What FITHAW found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thaw {
    /// It was frozen and is no longer.
    Thawed,
    /// EINVAL: nothing was frozen **now**. That is no proof of anything while a FIFREEZE of the same file system may
    /// still be running: FITHAW says EINVAL then too, and the freeze completes afterwards (fs/super.c, `thaw_super`).
    /// A freeze nested under a device-mapper suspend answers EINVAL as well, although it is undone.
    NotFrozen,
}

/// Writes back everything dirty in the file system that `directory` lies on, and waits for it.
///
/// # Errors
/// A write-back error of this file system since `directory` was opened (EIO, ENOSPC; syncfs(2), since Linux 5.8).
pub fn sync(directory: impl AsFd) -> Result<(), Errno> {
    rustix::fs::syncfs(directory)
}

/// Freezes the file system that `directory` lies on: waits for running writes, writes back what is dirty, and keeps
/// every new write waiting until [`thaw`].
///
/// # Errors
/// See [`FreezeError`]; after any of them this call has left nothing frozen.
pub fn freeze(directory: impl AsFd) -> Result<(), FreezeError> {
    // SAFETY: FIFREEZE ignores its argument and writes no user memory (fs/ioctl.c, `ioctl_fsfreeze`).
    let frozen =
        unsafe { rustix::ioctl::ioctl(directory, rustix::ioctl::NoArg::<{ linux_raw_sys::ioctl::FIFREEZE }>::new()) };
    frozen.map_err(|errno| match errno {
        Errno::BUSY => FreezeError::AlreadyFrozen,
        Errno::OPNOTSUPP | Errno::NOTTY => FreezeError::NotSupported(errno),
        other => FreezeError::Failed(other),
    })
}

/// Releases the file system that `directory` lies on.
///
/// # Errors
/// Anything but EINVAL (which is [`Thaw::NotFrozen`]): the file system is still frozen, and the call may be repeated.
pub fn thaw(directory: impl AsFd) -> Result<Thaw, Errno> {
    // SAFETY: FITHAW ignores its argument and writes no user memory (fs/ioctl.c, `ioctl_fsthaw`).
    let thawed =
        unsafe { rustix::ioctl::ioctl(directory, rustix::ioctl::NoArg::<{ linux_raw_sys::ioctl::FITHAW }>::new()) };
    match thawed {
        Ok(()) => Ok(Thaw::Thawed),
        Err(Errno::INVAL) => Ok(Thaw::NotFrozen),
        Err(errno) => Err(errno),
    }
}
