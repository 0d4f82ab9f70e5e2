//! The ledger of a hold: a small text file in the runtime directory that says which file systems a guard may have frozen.
//!
//! It is written by the guard, whole and fsync'ed, before anything is frozen, and kept locked (flock) as long as a thread
//! of the guard lives. From then on single fields are overwritten in place, never moved, so that nothing is allocated or
//! opened in a hold:
//!
//! ```text
//! vss-hold 1
//! boot 0f4f1c0e-...                                        a hold does not outlive its boot
//! guard 0000012345                                         pid
//! deadline 00000000000000000000                            CLOCK_BOOTTIME in ns; 0: nothing was frozen yet
//! expedited - 0                                            S while we have rcu_expedited set; its old value
//! member F 0 00007:00003 0000000000000412 UUID|- PATH      state, level, st_dev, mount id, UUID, path (for people)
//! ```
//!
//! A member's state is marked `F` just before FIFREEZE and taken back at once when FIFREEZE fails, so a kill at any
//! instruction leaves `F` on what may be frozen by us and on nothing else. Only the first write is fsync'ed: what a
//! crash of the machine would lose of the later ones, it thaws too.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::MAX_MEMBERS;
use super::identity::{Identity, parse_uuid};
use crate::clock;

const MAGIC: &str = "vss-hold 1";

/// More than 64 members with paths of 4,096 bytes: a longer file is not ours.
const MAX_LENGTH: u64 = 512 * 1024;

/// What the guard has done to one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing, or FIFREEZE failed.
    Untouched,
    /// FIFREEZE was called and may have succeeded: whoever finds this without a living guard has to thaw.
    Ours,
    /// Somebody else had frozen it: struck out, never thawed by us.
    Struck,
    /// Thawed again.
    Thawed,
}

impl State {
    const fn byte(self) -> u8 {
        match self {
            Self::Untouched => b'-',
            Self::Ours => b'F',
            Self::Struck => b'x',
            Self::Thawed => b't',
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Untouched, Self::Ours, Self::Struck, Self::Thawed].into_iter().find(|state| state.byte() == byte)
    }
}

/// One member as the ledger names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its file system.
    pub identity: Identity,
    /// Nesting level, `None` when it is never frozen.
    pub level: Option<u8>,
    /// Where it was mounted, for people.
    pub path: String,
}

/// An open ledger.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    path: PathBuf,
    /// Id of the boot it was written in.
    pub boot: String,
    /// Process id of the guard that wrote it.
    pub guard: u32,
    /// The members, in the order of the set.
    pub members: Vec<Entry>,
    offsets: Offsets,
}

/// Where the fields that change begin.
#[derive(Debug, Default)]
struct Offsets {
    deadline: u64,
    expedited: u64,
    states: Vec<u64>,
}

impl Ledger {
    /// Creates the ledger at `path`, locked by this process.
    ///
    /// # Errors
    /// EEXIST when there is one, EBUSY when it was taken away between creation and lock, and those of the file system.
    pub fn create(path: &Path, members: Vec<Entry>) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        // A sweep that saw the file before it was locked has removed its name.
        if file.metadata()?.nlink() == 0 {
            return Err(Errno::BUSY.into());
        }
        let boot = clock::boot_id()?;
        let guard = std::process::id();
        let mut offsets = Offsets::default();
        let text = render(&boot, guard, &members, &mut offsets);
        (&file).write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(Self { file, path: path.to_owned(), boot, guard, members, offsets })
    }

    /// Opens a ledger that somebody else wrote, without locking it.
    ///
    /// # Errors
    /// `InvalidData` when it is no whole ledger: its guard was killed before it froze anything.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
        let mut text = String::new();
        (&file).take(MAX_LENGTH).read_to_string(&mut text)?;
        let parsed = parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a whole ledger"))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            boot: parsed.boot,
            guard: parsed.guard,
            members: parsed.members,
            offsets: parsed.offsets,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The device that the ledger itself lies on, as in [`Identity::device`].
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn device(&self) -> Result<(u32, u32), Errno> {
        Ok(Identity::of(self.file.as_fd())?.device)
    }

    /// What has been done to member `index`. One read of one byte. Unreadable counts as [`State::Untouched`]: what is
    /// not known to be ours is not thawed.
    pub fn state(&self, index: usize) -> State {
        let mut byte = [0u8; 1];
        self.offsets
            .states
            .get(index)
            .and_then(|offset| self.file.read_exact_at(&mut byte, *offset).ok())
            .and_then(|()| State::from_byte(byte[0]))
            .unwrap_or(State::Untouched)
    }

    /// Writes down what is done to member `index`.
    ///
    /// # Errors
    /// Those of write(2). The caller must not freeze what it could not mark.
    pub fn mark(&self, index: usize, state: State) -> io::Result<()> {
        let offset = *self.offsets.states.get(index).ok_or(Errno::INVAL)?;
        self.file.write_all_at(&[state.byte()], offset)
    }

    /// CLOCK_BOOTTIME in nanoseconds at which the hold ends by itself; 0 when nothing was frozen yet.
    pub fn deadline_ns(&self) -> u64 {
        let mut digits = [0u8; 20];
        let read = self.file.read_exact_at(&mut digits, self.offsets.deadline);
        read.ok().and_then(|()| std::str::from_utf8(&digits).ok()?.parse().ok()).unwrap_or(0)
    }

    /// Writes the deadline down.
    ///
    /// # Errors
    /// Those of write(2). The caller must not freeze without it.
    pub fn set_deadline_ns(&self, deadline_ns: u64) -> io::Result<()> {
        let mut digits = [0u8; 20];
        write!(&mut digits[..], "{deadline_ns:020}")?;
        self.file.write_all_at(&digits, self.offsets.deadline)
    }

    /// The old value of rcu_expedited, if the guard has it set.
    pub fn expedited(&self) -> Option<u8> {
        let mut field = [0u8; 3];
        self.file.read_exact_at(&mut field, self.offsets.expedited).ok()?;
        (field[0] == b'S').then_some(field[2])
    }

    /// Writes down that rcu_expedited is set and had the value `old`, or that it is no longer (`None`).
    ///
    /// # Errors
    /// Those of write(2). The caller must not set what it could not write down.
    pub fn set_expedited(&self, old: Option<u8>) -> io::Result<()> {
        let field = match old {
            Some(old) => [b'S', b' ', old],
            None => *b"- 0",
        };
        self.file.write_all_at(&field, self.offsets.expedited)
    }

    /// Takes the lock if its guard has none of its threads left. The lock is kept until this ledger is dropped.
    pub fn try_lock(&self) -> bool {
        flock(&self.file, FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    /// Removes the file. The ledger is done with when no member is [`State::Ours`].
    ///
    /// # Errors
    /// Those of unlink(2), but no error when it is gone already.
    pub fn remove(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn render(boot: &str, guard: u32, members: &[Entry], offsets: &mut Offsets) -> String {
    let mut text = format!("{MAGIC}\nboot {boot}\nguard {guard:010}\ndeadline ");
    offsets.deadline = text.len() as u64;
    text.push_str("00000000000000000000\nexpedited ");
    offsets.expedited = text.len() as u64;
    text.push_str("- 0\n");
    for Entry { identity, level, path } in members {
        text.push_str("member ");
        offsets.states.push(text.len() as u64);
        let level = level.map_or_else(|| "-".to_owned(), |level| level.to_string());
        let uuid = identity.uuid.map_or_else(|| "-".to_owned(), |uuid| uuid.to_string());
        let (major, minor) = identity.device;
        let path = path.replace(char::is_control, "?");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "- {level} {major:05}:{minor:05} {:016} {uuid} {path}", identity.mount);
    }
    text
}

struct Parsed {
    boot: String,
    guard: u32,
    members: Vec<Entry>,
    offsets: Offsets,
}

fn parse(text: &str) -> Option<Parsed> {
    // The last line must be whole: the file may have been cut by a kill in its first write.
    let mut lines = text.strip_suffix('\n')?.split('\n').map(|line| {
        let offset = line.as_ptr() as usize - text.as_ptr() as usize;
        (offset as u64, line)
    });
    let mut field = |key: &str| {
        let (offset, line) = lines.next()?;
        let value = line.strip_prefix(key)?;
        Some((offset + key.len() as u64, value))
    };
    field(MAGIC).filter(|(_, rest)| rest.is_empty())?;
    let boot = field("boot ")?.1.to_owned();
    let guard = field("guard ")?.1.parse().ok()?;
    let deadline = field("deadline ").filter(|(_, digits)| digits.len() == 20)?.0;
    let expedited = field("expedited ").filter(|(_, value)| value.len() == 3)?.0;
    let mut offsets = Offsets { deadline, expedited, states: Vec::new() };
    let mut members = Vec::new();
    for (offset, line) in lines {
        let mut words = line.strip_prefix("member ")?.splitn(6, ' ');
        words.next().filter(|state| state.len() == 1)?;
        let level = words.next().map(|level| level.parse().ok())?;
        let (major, minor) = words.next()?.split_once(':')?;
        let mount = words.next()?.parse().ok()?;
        let uuid = words.next().map(parse_uuid)?;
        let path = words.next()?.to_owned();
        let device = (major.parse().ok()?, minor.parse().ok()?);
        members.push(Entry { identity: Identity { device, mount, uuid }, level, path });
        offsets.states.push(offset + "member ".len() as u64);
        if members.len() > MAX_MEMBERS {
            return None;
        }
    }
    (!members.is_empty()).then_some(Parsed { boot, guard, members, offsets })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs_uuid::FsUuid;

    fn entries() -> Vec<Entry> {
        let entry = |minor, level, uuid, path: &str| Entry {
            identity: Identity { device: (7, minor), mount: 412, uuid },
            level,
            path: path.to_owned(),
        };
        vec![
            entry(0, Some(0), Some(FsUuid([0xa5; 16])), "/srv/a b"),
            entry(1, Some(1), None, "/srv/\u{e4}"),
            entry(2, None, None, "/"),
        ]
    }

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("vss-ledger-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    #[test]
    fn what_is_written_is_read_back_and_marked_in_place() -> io::Result<()> {
        let path = scratch("marks");
        let ours = Ledger::create(&path, entries())?;
        let theirs = Ledger::open(&path)?;
        assert_eq!(theirs.members, entries());
        assert_eq!((theirs.guard, theirs.boot.as_str()), (std::process::id(), clock::boot_id()?.as_str()));
        assert_eq!((theirs.deadline_ns(), theirs.expedited()), (0, None));

        ours.set_deadline_ns(u64::MAX)?;
        ours.set_expedited(Some(b'0'))?;
        ours.mark(0, State::Ours)?;
        ours.mark(1, State::Struck)?;
        assert_eq!((theirs.deadline_ns(), theirs.expedited()), (u64::MAX, Some(b'0')));
        let states: Vec<State> = (0..4).map(|index| theirs.state(index)).collect();
        assert_eq!(states, [State::Ours, State::Struck, State::Untouched, State::Untouched]);
        ours.set_expedited(None)?;
        assert_eq!(theirs.expedited(), None);
        assert_eq!(Ledger::open(&path)?.members, entries());

        assert!(!theirs.try_lock(), "locked by its writer");
        drop(ours);
        assert!(theirs.try_lock());
        theirs.remove()?;
        theirs.remove()
    }

    #[test]
    fn a_ledger_cut_short_is_no_ledger() -> io::Result<()> {
        let path = scratch("short");
        let whole = {
            let ledger = Ledger::create(&path, entries())?;
            ledger.mark(2, State::Thawed)?;
            std::fs::read(&path)?
        };
        let header = whole.split(|byte| *byte == b'\n').take(5).map(|line| line.len() + 1).sum::<usize>();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length])?;
            // A cut at the end of a member line cannot be told from a smaller set: that is why it is fsync'ed first.
            let whole_lines = length > header && whole[length - 1] == b'\n';
            assert_eq!(Ledger::open(&path).is_ok(), whole_lines, "{length} bytes");
        }
        std::fs::remove_file(&path)
    }
}
