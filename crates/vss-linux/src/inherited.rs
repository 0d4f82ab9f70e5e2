//! File descriptors that a process got from whoever started it (sd_listen_fds(3)), as owned values.

use rustix::io::{Errno, FdFlags};
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Mutex;

/// First descriptor that can be passed, SD_LISTEN_FDS_START.
const FIRST: RawFd = 3;

/// What was taken already: a number has one owner.
static TAKEN: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

/// Takes over a descriptor by its number, once, and closes it on exec from now on.
///
/// To be called at the start of a process, before it has opened anything itself.
///
/// # Errors
/// EINVAL for a number below 3, EBUSY when it was taken before, EBADF when it is not open.
pub fn take(number: RawFd) -> io::Result<OwnedFd> {
    if number < FIRST {
        return Err(Errno::INVAL.into());
    }
    let mut taken = TAKEN.lock().map_err(|_| Errno::BUSY)?;
    if taken.contains(&number) {
        return Err(Errno::BUSY.into());
    }
    // SAFETY: fcntl(2) answers EBADF for a number that is not open; the borrow ends with the call.
    rustix::io::fcntl_setfd(unsafe { BorrowedFd::borrow_raw(number) }, FdFlags::CLOEXEC)?;
    taken.push(number);
    // SAFETY: it is open (the call above), was passed to this process to own, and is given out only once (TAKEN).
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
