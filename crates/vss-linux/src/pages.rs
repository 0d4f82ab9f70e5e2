//! Memory in whole pages, as O_DIRECT wants it, that can be kept from being swapped out.

use std::{
    io,
    ops::{Deref, DerefMut},
    ptr::NonNull,
    slice,
};

/// Zeroed memory that begins at a page. Given back when it is dropped.
#[derive(Debug)]
pub struct Pages {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: it owns its memory as a Vec does; nothing else points there.
unsafe impl Send for Pages {}
// SAFETY: shared access gives only shared slices.
unsafe impl Sync for Pages {}

impl Pages {
    /// `length` bytes, rounded up to whole pages. With `locked` every page is there at once and stays in memory (mlock(2)).
    ///
    /// # Errors
    /// `ENOMEM`; with `locked` also above RLIMIT_MEMLOCK without CAP_IPC_LOCK.
    pub fn new(length: usize, locked: bool) -> io::Result<Self> {
        let length = length.max(1).next_multiple_of(rustix::param::page_size());
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new private mapping at a place that the kernel chooses touches no memory that is in use.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let pages = Self { start, length };
        // SAFETY: the range is the mapping made above.
        if locked && unsafe { libc::mlock(start.as_ptr().cast(), length) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(pages)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the range is the mapping made in `new`, and no slice of it lives any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping has `length` bytes that may be read, zeroed by the kernel, as long as self lives.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and &mut self is the only way to it.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_whole_and_zeroed_and_can_be_written() {
        for locked in [false, true] {
            let mut pages = Pages::new(5000, locked).unwrap();
            assert_eq!(pages.len() % 4096, 0);
            assert!(pages.len() >= 5000 && pages.iter().all(|byte| *byte == 0));
            assert_eq!(pages.as_ptr() as usize % 4096, 0);
            pages[4999] = 7;
            assert_eq!(pages[4999], 7);
        }
    }
}
