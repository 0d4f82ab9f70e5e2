//! Who is at the other end of a unix stream socket: its credentials when it connected.
//!
//! What the peer may do is not decided here.

use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::io;

/// The credentials of a peer when it called connect(2); later changes of its process do not show (unix(7)).
#[derive(Debug)]
pub struct PeerCredentials {
    /// Its effective uid.
    pub uid: u32,
    /// Its effective gid.
    pub gid: u32,
    /// Its supplementary groups: at most 65536 (`NGROUPS_MAX`, linux/limits.h).
    pub groups: Vec<u32>,
    /// Its process id; may have been given to another process since.
    pub pid: u32,
    /// Its process: stays this process. None before Linux 6.5, and when the process is gone.
    pub pidfd: Option<OwnedFd>,
}

/// Reads the credentials of the peer of a connected unix socket.
///
/// # Errors
/// ENOTCONN for a socket without a peer; ENOMEM.
pub fn peer_credentials(socket: BorrowedFd<'_>) -> io::Result<PeerCredentials> {
    let basic = rustix::net::sockopt::socket_peercred(socket)?;
    Ok(PeerCredentials {
        uid: basic.uid.as_raw(),
        gid: basic.gid.as_raw(),
        groups: peer_groups(socket)?,
        pid: basic.pid.as_raw_nonzero().get().unsigned_abs(),
        pidfd: peer_pidfd(socket),
    })
}

/// `SO_PEERGROUPS` (Linux 4.13). Answers ERANGE with the size that it wants while the buffer is too small.
fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut bytes = libc::socklen_t::try_from(size_of_val(groups.as_slice())).map_err(io::Error::other)?;
        // SAFETY: the buffer is `bytes` long and any bits are gid_t values; the kernel writes at most `bytes` there and
        // the wanted size to `bytes`.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let wanted = bytes as usize / size_of::<libc::gid_t>();
        if result == 0 {
            groups.truncate(wanted);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || wanted <= groups.len() {
            return Err(error);
        }
        groups.resize(wanted, 0);
    }
}

/// `SO_PEERPIDFD` (Linux 6.5).
fn peer_pidfd(socket: BorrowedFd<'_>) -> Option<OwnedFd> {
    let mut fd: libc::c_int = -1;
    let mut bytes = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option is one int; the kernel writes at most `bytes` to `fd`.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERPIDFD, (&raw mut fd).cast(), &raw mut bytes)
    };
    // SAFETY: on success `fd` is a new descriptor (close-on-exec) that nobody else owns.
    (result == 0 && fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::{fd::AsFd, unix::net::UnixStream};

    #[test]
    fn a_pair_of_sockets_is_us() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = peer_credentials(ours.as_fd()).unwrap();
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert_eq!(peer.pid, std::process::id());
        let mut groups: Vec<u32> = rustix::process::getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
        let mut seen = peer.groups;
        groups.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, groups);
    }
}
