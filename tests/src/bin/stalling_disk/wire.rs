//! What goes over /dev/fuse, in the machine's own byte order (include/uapi/linux/fuse.h, version 7.31).

pub(crate) use rustix::io::Errno;

/// The one file.
pub(crate) const NAME: &str = "image";
const ROOT: u64 = 1;
const FILE: u64 = 2;
/// Seconds for which the kernel does not ask for the file again: what looks at all loop devices of the machine (mkfs) must not
/// hang with ours. The directory is asked for each time.
const LASTING: u64 = 3600;

pub(crate) const LOOKUP: u32 = 1;
pub(crate) const FORGET: u32 = 2;
pub(crate) const GETATTR: u32 = 3;
pub(crate) const SETATTR: u32 = 4;
pub(crate) const OPEN: u32 = 14;
pub(crate) const READ: u32 = 15;
pub(crate) const WRITE: u32 = 16;
pub(crate) const STATFS: u32 = 17;
pub(crate) const RELEASE: u32 = 18;
pub(crate) const FSYNC: u32 = 20;
pub(crate) const FLUSH: u32 = 25;
pub(crate) const INIT: u32 = 26;
pub(crate) const OPENDIR: u32 = 27;
pub(crate) const READDIR: u32 = 28;
pub(crate) const RELEASEDIR: u32 = 29;
pub(crate) const INTERRUPT: u32 = 36;
pub(crate) const DESTROY: u32 = 38;
pub(crate) const BATCH_FORGET: u32 = 42;

/// `struct fuse_in_header` and `struct fuse_write_in`.
const HEAD: usize = 40;
const WRITE_HEAD: usize = 40;
const MAX_WRITE: u32 = 128 << 10;
/// Asynchronous requests that may be under way: reads have to overtake many slow writes.
const BACKGROUND: u32 = 64;
/// FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ASYNC_DIO: a loop device past the page cache has many requests under way.
const FLAGS: u32 = 1 | 1 << 5 | 1 << 15;

pub(crate) struct Request<'a> {
    pub(crate) operation: u32,
    pub(crate) unique: u64,
    pub(crate) node: u64,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    pub(crate) fn read(packet: &'a [u8]) -> Option<Self> {
        Some(Self {
            operation: u32_at(packet, 4)?,
            unique: u64_at(packet, 8)?,
            node: u64_at(packet, 16)?,
            body: packet.get(HEAD..)?,
        })
    }

    /// The name of a lookup.
    pub(crate) fn name(&self) -> &[u8] {
        self.body.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// Offset and length of a read or write.
    pub(crate) fn range(&self) -> (u64, usize) {
        let length = u32_at(self.body, 16).unwrap_or_default().min(MAX_WRITE);
        (u64_at(self.body, 8).unwrap_or_default(), length as usize)
    }

    /// What is to be written.
    pub(crate) fn data(&self) -> &[u8] {
        self.body.get(WRITE_HEAD..).unwrap_or_default()
    }
}

pub(crate) struct Answer(Result<Vec<u8>, Errno>);

impl Answer {
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        Self(Ok(bytes))
    }

    pub(crate) fn error(errno: Errno) -> Self {
        Self(Err(errno))
    }

    pub(crate) fn init() -> Self {
        let mut body = words(&[7, 31, MAX_WRITE, FLAGS, BACKGROUND | BACKGROUND << 16, MAX_WRITE, 1, 0]);
        body.resize(64, 0);
        Self::of(body)
    }

    pub(crate) fn entry(size: u64) -> Self {
        let mut body = longs(&[FILE, 0, LASTING, LASTING, 0]);
        body.extend(attributes(FILE, size));
        Self::of(body)
    }

    pub(crate) fn attributes(node: u64, size: u64) -> Self {
        let mut body = longs(&[if node == ROOT { 0 } else { LASTING }, 0]);
        body.extend(attributes(node, size));
        Self::of(body)
    }

    pub(crate) fn opened() -> Self {
        Self::of(longs(&[0, 0]))
    }

    pub(crate) fn written(length: usize) -> Self {
        Self::of(words(&[u32::try_from(length).unwrap_or_default(), 0]))
    }

    pub(crate) fn statfs() -> Self {
        let mut body = longs(&[1 << 20, 1 << 19, 1 << 19, 2, 0]);
        body.extend(words(&[4096, 255, 4096, 0]));
        body.resize(80, 0);
        Self::of(body)
    }

    pub(crate) fn packet(&self, unique: u64) -> Vec<u8> {
        let (error, body) = match &self.0 {
            Ok(body) => (0, body.as_slice()),
            Err(errno) => (-errno.raw_os_error(), &[][..]),
        };
        let length = u32::try_from(16 + body.len()).unwrap_or_default();
        let mut packet = words(&[length, error.cast_unsigned()]);
        packet.extend(longs(&[unique]));
        packet.extend(body);
        packet
    }
}

/// `struct fuse_attr`.
fn attributes(node: u64, size: u64) -> Vec<u8> {
    let (mode, links, size) = if node == ROOT { (0o40755, 2, 0) } else { (0o100_600, 1, size) };
    let mut body = longs(&[node, size, size / 512, 0, 0, 0]);
    body.extend(words(&[0, 0, 0, mode, links, 0, 0, 0, 4096, 0]));
    body
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

fn longs(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(offset..offset + 8)?.try_into().ok()?))
}
