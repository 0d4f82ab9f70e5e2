//! The calls to the kernel that aya has no safe form for: pins and information without allocation, and the maps in memory.
//!
//! All `unsafe` of the crate is here.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::AtomicU64;

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_link_info, bpf_map_info, bpf_prog_info};
use rustix::mm::{MapFlags, ProtFlags, mlock, mmap, munlock, munmap};

/// bpf(2).
///
/// # Safety
/// Every pointer in `attr` that the command reads or writes through is valid for that.
unsafe fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: attr is one bpf_attr, and the caller vouches for the pointers in it.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command as u32, ptr::from_mut(attr), mem::size_of::<bpf_attr>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(done).map_err(io::Error::other) }
}

fn zeroed_attr() -> bpf_attr {
    // SAFETY: bpf_attr is a union of structs of integers, for which all-zero is a value, and which the kernel wants so.
    unsafe { mem::zeroed() }
}

/// Opens what is pinned at `path`.
///
/// # Errors
/// Nothing is pinned there; no permission.
pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let mut attr = zeroed_attr();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    // SAFETY: pathname is a string that ends with NUL and lives through the call.
    let fd = unsafe { bpf(bpf_cmd::BPF_OBJ_GET, &mut attr) }?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether bpf(2) can be called at all.
///
/// # Errors
/// `EPERM` from a filter (seccomp(2)); `ENOSYS` from a kernel without it.
pub(crate) fn may_call_bpf() -> io::Result<()> {
    // What is pinned nowhere is not found by whom the kernel lets ask.
    match open_pin(Path::new("/proc/self/no-such-pin")) {
        Err(error) if !matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => Ok(()),
        result => result.map(drop),
    }
}

/// What the kernel says of a program, map or link; `T` is the struct of its kind. No allocation.
///
/// # Safety
/// `T` consists of integers only, and those that the kernel takes for addresses of buffers are 0 with a length of 0.
unsafe fn info<T>(fd: BorrowedFd<'_>) -> io::Result<T> {
    // SAFETY: T consists of integers, for which all-zero is a value.
    let mut info: T = unsafe { mem::zeroed() };
    let mut attr = zeroed_attr();
    attr.info.bpf_fd = fd.as_raw_fd().cast_unsigned();
    attr.info.info = ptr::from_mut(&mut info) as u64;
    attr.info.info_len = mem::size_of::<T>() as u32;
    // SAFETY: the kernel writes at most info_len bytes to info, which lives through the call, and to no buffer named in it.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info)
}

/// How often a program was not run because it was running already, how often and how many nanoseconds it ran. The latter two
/// only while somebody has the kernel count them (sysctl `kernel.bpf_stats_enabled`).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Runs {
    pub(crate) id: u32,
    pub(crate) misses: u64,
    pub(crate) count: u64,
    pub(crate) nanoseconds: u64,
}

/// The runs of a program.
///
/// # Errors
/// It is the descriptor of something else.
pub(crate) fn program_runs(program: BorrowedFd<'_>) -> io::Result<Runs> {
    // SAFETY: bpf_prog_info consists of integers, and all-zero names no buffers.
    let info: bpf_prog_info = unsafe { info(program) }?;
    Ok(Runs { id: info.id, misses: info.recursion_misses, count: info.run_cnt, nanoseconds: info.run_time_ns })
}

/// The number of the program that a link runs.
///
/// # Errors
/// It is the descriptor of something else.
pub(crate) fn linked_program(link: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: bpf_link_info consists of integers, and all-zero names no buffers.
    let info: bpf_link_info = unsafe { info(link) }?;
    Ok(info.prog_id)
}

/// Bytes of a map's values, and their number.
///
/// # Errors
/// It is the descriptor of something else.
pub(crate) fn map_shape(map: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    // SAFETY: bpf_map_info consists of integers, and all-zero names no buffers.
    let info: bpf_map_info = unsafe { info(map) }?;
    Ok((info.value_size, info.max_entries))
}

/// Writes the only value of an array.
///
/// # Errors
/// It is another kind of map, or its values have another size.
pub(crate) fn write_only_value(map: BorrowedFd<'_>, value: &[u8]) -> io::Result<()> {
    ensure_size(map, value.len())?;
    let mut attr = zeroed_attr();
    let key = 0_u32;
    set_element(&mut attr, map, &key, value.as_ptr() as u64);
    // SAFETY: key and value live through the call, and value has the size of the map's values.
    unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr) }?;
    Ok(())
}

/// Reads the only value of an array.
///
/// # Errors
/// As [`write_only_value`].
pub(crate) fn read_only_value(map: BorrowedFd<'_>, value: &mut [u8]) -> io::Result<()> {
    ensure_size(map, value.len())?;
    let mut attr = zeroed_attr();
    let key = 0_u32;
    set_element(&mut attr, map, &key, value.as_mut_ptr() as u64);
    // SAFETY: key and value live through the call, and value has the size of the map's values.
    unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr) }?;
    Ok(())
}

fn ensure_size(map: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let (size, entries) = map_shape(map)?;
    if size as usize == bytes && entries == 1 {
        Ok(())
    } else {
        Err(io::Error::other(format!("{entries} values of {size} bytes instead of one of {bytes}")))
    }
}

fn set_element(attr: &mut bpf_attr, map: BorrowedFd<'_>, key: &u32, value: u64) {
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd().cast_unsigned();
    attr.__bindgen_anon_2.key = ptr::from_ref(key) as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = value;
}

/// The words of a map, shared with the programs that run in the kernel.
#[derive(Debug)]
pub(crate) struct SharedWords {
    start: NonNull<AtomicU64>,
    words: usize,
    bytes: usize,
    is_locked: bool,
}

// SAFETY: it owns the mapping, which no thread is bound to, and gives out only references to atomics.
unsafe impl Send for SharedWords {}
// SAFETY: as above; what is behind a shared reference are atomics.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Maps the `words` words of an array with BPF_F_MMAPABLE.
    ///
    /// # Errors
    /// It is smaller, or no such map.
    pub(crate) fn new(map: BorrowedFd<'_>, words: usize) -> io::Result<Self> {
        let (size, entries) = map_shape(map)?;
        if size as usize / 8 * entries as usize != words || size % 8 != 0 || words == 0 {
            return Err(io::Error::other(format!("{entries} values of {size} bytes instead of {words} words")));
        }
        let page = rustix::param::page_size();
        let bytes = (words * 8).next_multiple_of(page);
        // SAFETY: a new mapping at an address of the kernel's choice; nothing of ours lies there.
        let start =
            unsafe { mmap(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, map, 0) }?;
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { start, words, bytes, is_locked: false })
    }

    /// The words. The programs change them at any time, atomically.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is readable and writable, aligned to a page, holds at least so many words (checked in `new`: an
        // array's memory is whole pages), lives as long as self, and is touched as atomics only.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }

    /// Faults all pages in and keeps them in memory.
    ///
    /// # Errors
    /// RLIMIT_MEMLOCK.
    pub(crate) fn lock(&mut self) -> io::Result<()> {
        // SAFETY: the range is the mapping that self owns.
        unsafe { mlock(self.start.as_ptr().cast(), self.bytes) }?;
        self.is_locked = true;
        Ok(())
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: the range is the mapping that self owns, and no reference to it outlives self.
        unsafe {
            if self.is_locked {
                let _ = munlock(self.start.as_ptr().cast(), self.bytes);
            }
            let _ = munmap(self.start.as_ptr().cast(), self.bytes);
        }
    }
}

/// True when this process has one of the capabilities of these numbers (linux/capability.h), read from `/proc`.
pub(crate) fn has_capability(numbers: &[u32]) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0);
    numbers.iter().any(|number| effective >> number & 1 == 1)
}

/// Turns the counting of program runs on until what is returned is dropped: for benches.
///
/// # Errors
/// No permission.
pub(crate) fn count_runs() -> io::Result<File> {
    let mut attr = zeroed_attr();
    // BPF_STATS_RUN_TIME is 0.
    // SAFETY: the command takes no pointers.
    let fd = unsafe { bpf(bpf_cmd::BPF_ENABLE_STATS, &mut attr) }?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
}

/// The descriptor of anything, borrowed.
pub(crate) fn fd(of: &impl AsFd) -> BorrowedFd<'_> {
    of.as_fd()
}
