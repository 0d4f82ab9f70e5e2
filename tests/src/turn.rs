//! The turn to create shadow copy sets. Creation is one at a time on the whole machine (`/run/vss/creation.lock`), and who
//! comes second is refused: tests that create sets take turns, so that another test's set is never the cause of a failure.
//!
//! It cannot be forgotten: the service of an [`Instance`](crate::instance::Instance) refuses to begin a set unless the
//! thread that started it has the turn (`VSS_TURN` in `crates/vss-service/src/fault.rs`), also when nobody else wants it.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use vss_service::creation_lock;

use crate::instance::wait_until;

/// Who waits longer says so, and again after the same time.
const PATIENCE: Duration = Duration::from_secs(30);
/// So long may the service of the test before go on with a set whose requester is gone: more than any undo of it takes. What
/// holds the lock longer is none of ours, and the test will be told by whom it is refused.
const LEFTOVER_LIMIT: Duration = Duration::from_secs(60);

/// The turn, given back when the last one of its thread is dropped: a helper may take it again within a test that has it.
#[derive(Debug)]
#[must_use = "the turn is given back when this is dropped"]
pub struct CreationTurn {
    _held: Arc<Held>,
}

/// The locked file; it says who has the turn.
#[derive(Debug)]
struct Held {
    file: File,
}

thread_local! {
    /// What this thread has.
    static OURS: RefCell<Weak<Held>> = const { RefCell::new(Weak::new()) };
}

/// Waits for the turn to create shadow copy sets, and until no set is in creation. Says on standard error for whom it waits
/// when that takes more than 30 s.
///
/// # Panics
/// The lock file in the directory for temporary files cannot be used.
pub fn creation_turn() -> CreationTurn {
    if let Some(held) = OURS.with_borrow(Weak::upgrade) {
        return CreationTurn { _held: held };
    }
    let held = Arc::new(Held::wait(&path()));
    OURS.with_borrow_mut(|ours| *ours = Arc::downgrade(&held));
    let lock = Path::new(creation_lock::FILE);
    if !wait_until(LEFTOVER_LIMIT, || creation_lock::held(lock).is_none()) {
        say(&format!("{} has the turn, but: {:?}", name(), creation_lock::held(lock)));
    }
    CreationTurn { _held: held }
}

/// What the service is told in `VSS_TURN`: who has to have the turn when a set begins, and the file that says who has it.
pub(crate) fn expected() -> String {
    format!("{} {}", whose(), path().display())
}

/// One file for all tests that share the directory for temporary files.
fn path() -> PathBuf {
    std::env::temp_dir().join("vss-tests.lock")
}

/// The name of this thread for machines.
fn whose() -> String {
    format!("{}.{}", std::process::id(), rustix::thread::gettid().as_raw_nonzero())
}

/// The name of this thread for people.
fn name() -> String {
    let program = std::env::current_exe().unwrap_or_default();
    let program = program.file_name().unwrap_or_default().display();
    format!("{} of {program} (process {})", thread::current().name().unwrap_or("a thread"), std::process::id())
}

/// Past the capture of a test's output: it is for whoever looks at a test that does not go on.
fn say(what: &str) {
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stderr(), "{what}");
}

impl Held {
    fn wait(path: &Path) -> Self {
        let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
        let file = opened.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => queue(&file, path),
            Err(error) => panic!("{} cannot be locked: {error}", path.display()),
        }
        let held = Self { file };
        held.write(&format!("{}\n{}", whose(), name())).expect("a lock file can be written");
        held
    }

    fn write(&self, text: &str) -> std::io::Result<()> {
        let mut file = &self.file;
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(text.as_bytes())
    }
}

impl Drop for Held {
    /// Unlocks in so many words: a child of another thread between fork and exec still has the file open, and closing ours
    /// alone would leave the turn with it for that moment.
    fn drop(&mut self) {
        // The next one writes over it.
        let _ = self.write("");
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Waits for the lock in the kernel's queue, where who came first goes first; another thread says so meanwhile.
fn queue(file: &File, path: &Path) {
    let began = Instant::now();
    let waiting = name();
    thread::scope(|scope| {
        let (over, is_over) = mpsc::channel::<()>();
        scope.spawn(move || {
            while is_over.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                let holder = fs::read_to_string(path).unwrap_or_default();
                let holder = holder.lines().nth(1).unwrap_or("somebody").to_owned();
                say(&format!("{waiting} has waited {:.0?} for {holder}, whose turn it is", began.elapsed()));
            }
        });
        while let Err(error) = flock(file, FlockOperation::LockExclusive) {
            assert_eq!(error, Errno::INTR, "a lock can be waited for");
        }
        drop(over);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_takes_the_turn_again_and_it_is_given_back_with_the_last() {
        let outer = creation_turn();
        let inner = creation_turn();
        let has_it = || fs::read_to_string(path()).unwrap().starts_with(&whose());
        drop(outer);
        assert!(has_it());
        // Another thread does not have it.
        let file = File::open(path()).unwrap();
        assert_eq!(flock(&file, FlockOperation::NonBlockingLockExclusive), Err(Errno::WOULDBLOCK));
        drop(inner);
        assert!(!has_it());
    }
}
