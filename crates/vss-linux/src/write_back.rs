//! Writing a file's data back without waiting for the disk's own cache.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

/// Writes back what is in memory of a file, and waits until its disk has taken it (sync_file_range(2)). It may be lost still when
/// the power is cut, but on ext4 and XFS what is written to the file system's log after this is never there without it.
///
/// # Errors
/// The disk failed, or is full; the file cannot be written back.
pub fn write_back(file: impl AsFd) -> io::Result<()> {
    let all = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: the call reads no memory of ours; 0 bytes from 0 on are the whole file.
    let result = unsafe { libc::sync_file_range(file.as_fd().as_raw_fd(), 0, 0, all) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_back_and_a_pipe_is_not() {
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::TMPFILE;
        let file = rustix::fs::open(std::env::temp_dir(), flags, rustix::fs::Mode::RUSR).unwrap();
        rustix::io::write(&file, b"text").unwrap();
        write_back(&file).unwrap();
        let (reader, _writer) = io::pipe().unwrap();
        assert_eq!(write_back(&reader).unwrap_err().raw_os_error(), Some(libc::ESPIPE));
    }
}
