//! Many small reads or writes of one file at once (io_submit(2)): past the page cache the device has all of them to do, and the
//! thread waits once.
//!
//! A queue of the kernel is made in no time, and ending it takes tens of milliseconds (io_destroy(2) waits for RCU), so those
//! that nobody needs are kept for whoever comes next.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::FileExt},
    ptr,
    sync::{Mutex, PoisonError},
};

/// Requests under way at once in a queue.
pub const DEPTH: usize = 64;

/// Queues that are kept.
const KEPT: usize = 16;

/// `IOCB_CMD_PREAD` and `IOCB_CMD_PWRITE` of include/uapi/linux/aio_abi.h.
const READ: u16 = 0;
const WRITE: u16 = 1;

/// `struct iocb`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Request {
    data: u64,
    /// `aio_key` and `aio_rw_flags`, in an order that the machine's bytes decide; both 0.
    key_and_flags: [u32; 2],
    command: u16,
    priority: i16,
    file: u32,
    memory: u64,
    length: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_file: u32,
}

/// `struct io_event`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Event {
    data: u64,
    request: u64,
    result: i64,
    second_result: i64,
}

/// A queue of the kernel (`aio_context_t`) in which nothing is under way.
#[derive(Debug)]
struct Context(libc::c_ulong);

static SPARE: Mutex<Vec<Context>> = Mutex::new(Vec::new());

impl Context {
    fn new() -> io::Result<Self> {
        let mut context: libc::c_ulong = 0;
        // SAFETY: io_setup writes one aio_context_t, which lives through the call.
        let result = unsafe { libc::syscall(libc::SYS_io_setup, DEPTH, &raw mut context) };
        if result == 0 { Ok(Self(context)) } else { Err(io::Error::last_os_error()) }
    }

    /// Begins the first of these requests; returns how many, 0 when none could be begun.
    ///
    /// # Safety
    /// The memory of each stays valid and is not touched until [`Context::wait`] has returned, or the context is dropped.
    unsafe fn submit(&self, requests: &[*mut Request]) -> usize {
        // SAFETY: the pointers are those of requests that live through the call, which is all that io_submit needs of them;
        // for their memory the caller vouches.
        let begun = unsafe { libc::syscall(libc::SYS_io_submit, self.0, requests.len(), requests.as_ptr()) };
        usize::try_from(begun).unwrap_or(0)
    }

    /// Waits until as many of those that are under way have ended as `events` has room for, so that the thread is woken once,
    /// and puts them to the beginning of `events`; returns how many.
    fn wait(&self, events: &mut [Event]) -> io::Result<usize> {
        loop {
            // SAFETY: io_getevents writes at most so many events, for which there is room. Fewer come when a signal does.
            let ended = unsafe {
                let all = events.len();
                let forever = ptr::null_mut::<libc::timespec>();
                libc::syscall(libc::SYS_io_getevents, self.0, all, all, events.as_mut_ptr(), forever)
            };
            match usize::try_from(ended) {
                Ok(ended) => return Ok(ended),
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context is ours alone. The call waits for what is under way.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}

/// Which piece failed, in the order in which they were given, and why.
#[derive(Debug)]
pub struct Failed {
    /// Its index.
    pub piece: usize,
    /// Why.
    pub error: io::Error,
}

/// Reads and writes many pieces at once. Dropping it lets the next one have its queue.
#[derive(Debug)]
pub struct Queue {
    /// None where the kernel has none to give (`aio-max-nr`): then one piece is done after another.
    context: Option<Context>,
    requests: Vec<Request>,
    /// What each request came to: how many bytes, or the kernel's number of the error.
    done: Vec<Result<usize, i32>>,
}

impl Default for Queue {
    fn default() -> Self {
        let spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let context = spare.or_else(|| Context::new().ok());
        // Filled once, so that a batch finds its memory there: it may be read while writes are held.
        let mut queue = Self { context, requests: vec![Request::default(); DEPTH], done: vec![Ok(0); DEPTH] };
        queue.requests.clear();
        queue.done.clear();
        queue
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < KEPT {
            spare.extend(self.context.take());
        }
    }
}

impl Queue {
    /// Fills each piece of memory from its place in the file.
    ///
    /// # Errors
    /// The first piece that failed. Of the others nothing is known, but that nothing is under way any more.
    pub fn read(&mut self, file: &File, pieces: &mut [(&mut [u8], u64)]) -> Result<(), Failed> {
        for (round, pieces) in pieces.chunks_mut(DEPTH).enumerate() {
            let requests =
                pieces.iter_mut().map(|(memory, offset)| (memory.as_mut_ptr() as u64, memory.len(), *offset));
            // SAFETY: each has memory of its own, which is borrowed and not touched until the call has returned.
            unsafe { self.run(READ, file, requests) };
            for (index, ((memory, offset), done)) in pieces.iter_mut().zip(&self.done).enumerate() {
                // What the kernel left over, for whatever reason, is done here, or fails here.
                let rest = |done: usize| file.read_exact_at(&mut memory[done..], *offset + done as u64);
                let read = done.map_err(io::Error::from_raw_os_error).and_then(rest);
                read.map_err(|error| Failed { piece: round * DEPTH + index, error })?;
            }
        }
        Ok(())
    }

    /// Writes each piece of memory to its place in the file.
    ///
    /// # Errors
    /// As [`Queue::read`].
    pub fn write(&mut self, file: &File, pieces: &[(&[u8], u64)]) -> Result<(), Failed> {
        for (round, pieces) in pieces.chunks(DEPTH).enumerate() {
            let requests = pieces.iter().map(|(memory, offset)| (memory.as_ptr() as u64, memory.len(), *offset));
            // SAFETY: the memory is only read, and borrowed until the call has returned.
            unsafe { self.run(WRITE, file, requests) };
            for (index, ((memory, offset), done)) in pieces.iter().zip(&self.done).enumerate() {
                let rest = |done: usize| file.write_all_at(&memory[done..], *offset + done as u64);
                let written = done.map_err(io::Error::from_raw_os_error).and_then(rest);
                written.map_err(|error| Failed { piece: round * DEPTH + index, error })?;
            }
        }
        Ok(())
    }

    /// Does at most [`DEPTH`] requests (memory, length, place in the file), as far as the kernel takes them, and puts into `done`
    /// what each came to: 0 bytes where it was not begun.
    ///
    /// # Safety
    /// The memory of each is valid for its length, as what the command does to it, and nobody touches it during the call.
    unsafe fn run(&mut self, command: u16, file: &File, requests: impl Iterator<Item = (u64, usize, u64)>) {
        self.requests.clear();
        self.requests.extend(requests.take(DEPTH).zip(0..).map(|((memory, length, offset), data)| Request {
            data,
            command,
            file: file.as_raw_fd().cast_unsigned(),
            memory,
            length: length as u64,
            offset: offset.cast_signed(),
            ..Request::default()
        }));
        self.done.clear();
        self.done.resize(self.requests.len(), Ok(0));
        let Some(context) = &self.context else { return };
        let mut pointers = [ptr::null_mut(); DEPTH];
        for (pointer, request) in pointers.iter_mut().zip(&mut self.requests) {
            *pointer = ptr::from_mut(request);
        }
        let pointers = &pointers[..self.requests.len()];
        let mut begun = 0;
        while begun < pointers.len() {
            // SAFETY: the caller vouches for the memory, and below nothing returns before all has ended.
            match unsafe { context.submit(&pointers[begun..]) } {
                0 => break,
                more => begun += more,
            }
        }
        let mut events = [Event::default(); DEPTH];
        let mut ended = 0;
        while ended < begun {
            let Ok(more) = context.wait(&mut events[..begun - ended]) else {
                // The kernel does not fail here. Should it ever, this waits, and each piece is done once more.
                self.context = None;
                self.done.fill(Ok(0));
                return;
            };
            for event in &events[..more] {
                let result = usize::try_from(event.result);
                self.done[event.data as usize] = result.map_err(|_| i32::try_from(-event.result).unwrap_or(libc::EIO));
            }
            ended += more;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::Pages;
    use rustix::fs::{Mode, OFlags};

    /// More pieces than fit at once, in no order, and one longer than a page.
    fn places() -> Vec<(usize, u64)> {
        let mut places: Vec<_> = (0..150).map(|piece| (4096, piece * 37 % 150 * 12_288)).collect();
        places.push((16_384, 1 << 22));
        places
    }

    /// A file without a name, past the page cache where that is possible.
    fn file() -> File {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::DIRECT;
        let open = |flags| rustix::fs::open(std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR).map(File::from);
        open(flags).or_else(|_| open(flags & !OFlags::DIRECT)).unwrap()
    }

    #[test]
    fn what_is_written_in_many_pieces_is_read_in_many_pieces() {
        let without = Queue { context: None, requests: Vec::new(), done: Vec::new() };
        for (mut queue, seed) in [(Queue::default(), 1), (without, 2)] {
            let (file, places) = (file(), places());
            let length = places.iter().map(|(length, _)| length).sum();
            let (mut written, mut read) = (Pages::new(length, false).unwrap(), Pages::new(length, false).unwrap());
            written.chunks_mut(4096).zip(seed..).for_each(|(page, number)| page.fill(number as u8));
            let (mut from, mut to) = (&written[..], &mut read[..]);
            let (mut writes, mut reads) = (Vec::new(), Vec::new());
            for (length, offset) in places {
                let (piece, rest) = from.split_at(length);
                writes.push((piece, offset));
                from = rest;
                let (piece, rest) = to.split_at_mut(length);
                reads.push((piece, offset));
                to = rest;
            }
            queue.write(&file, &writes).unwrap();
            queue.read(&file, &mut reads).unwrap();
            assert!(written[..] == read[..]);
        }
    }

    #[test]
    fn what_fails_is_named() {
        let path = std::env::current_exe().unwrap();
        let file = File::open(&path).unwrap();
        let end = file.metadata().unwrap().len();
        let (mut one, mut other) = ([0; 16], [0; 16]);
        let mut pieces = [(&mut one[..], 0), (&mut other[..], end - 8)];
        let failed = Queue::default().read(&file, &mut pieces).unwrap_err();
        assert_eq!((failed.piece, failed.error.kind()), (1, io::ErrorKind::UnexpectedEof));
        assert_eq!(one[..4], *b"\x7fELF");
        let failed = Queue::default().write(&file, &[(&one, 0)]).unwrap_err();
        assert_eq!((failed.piece, failed.error.raw_os_error()), (0, Some(libc::EBADF)));
    }
}
