//! What the control thread and the members' threads share.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use vss_linux::hold::channel::{self, Prepared};
use vss_linux::hold::identity::Identity;
use vss_linux::hold::ledger::{Entry, Ledger};
use vss_linux::hold::protocol::{Answer, Refusal};

use crate::member::Member;
use crate::stop::Stop;
use crate::{Options, Refused};

/// One hold: its members, what ends it, and where it is written down.
pub(crate) struct Hold {
    pub(crate) members: Vec<Member>,
    pub(crate) ledger: Ledger,
    pub(crate) stop: Stop,
    pub(crate) limit: Duration,
    /// Readable when a member's thread has finished something.
    pub(crate) progress: OwnedFd,
}

impl Hold {
    /// Identifies the members and writes the ledger.
    pub(crate) fn new(options: &Options, prepared: Vec<Prepared>, signals: OwnedFd) -> Result<Self, Refused> {
        let setup = |errno: Errno| Refused::new(Refusal::Setup, errno);
        let mut members = Vec::with_capacity(prepared.len());
        let mut entries = Vec::with_capacity(prepared.len());
        for (index, Prepared { directory, level }) in (0u8..).zip(prepared) {
            let identity = Identity::of(&directory)
                .map_err(|errno| Refused { member: Some(index), ..Refused::new(Refusal::Member, errno) })?;
            entries.push(Entry { identity, level, path: path_of(&directory) });
            members.push(Member::new(index, directory, level).map_err(setup)?);
        }
        let ledger = write_ledger(&options.ledger, entries)?;
        Ok(Self {
            members,
            ledger,
            stop: Stop::new(signals).map_err(setup)?,
            limit: options.limit,
            progress: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(setup)?,
        })
    }

    /// Tells vssd. When it does not listen any more, the hold ends for that reason, not for this one.
    pub(crate) fn answer(&self, answer: Answer) {
        let _ = channel::send_answer(rustix::stdio::stdin(), answer);
    }

    /// Wakes the control thread.
    pub(crate) fn tell_progress(&self) {
        signal(&self.progress);
    }
}

/// Makes an eventfd readable.
pub(crate) fn signal(event: &OwnedFd) {
    // Fails only when 2^64 - 2 are waiting in it: readable all the same.
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}

fn write_ledger(path: &Path, entries: Vec<Entry>) -> Result<Ledger, Refused> {
    let failed = |error: std::io::Error| Refused::new(Refusal::Ledger, error);
    let ledger = Ledger::create(path, entries).map_err(failed)?;
    let device = ledger.device().map_err(|errno| failed(errno.into()))?;
    let on_it =
        (0u8..).zip(&ledger.members).find(|(_, entry)| entry.level.is_some() && entry.identity.device == device);
    let Some((index, _)) = on_it else { return Ok(ledger) };
    // Nothing was frozen; should it stay, the next sweep takes it away.
    let _ = ledger.remove();
    Err(Refused { refusal: Refusal::LedgerOnMember, member: Some(index), errno: None })
}

/// Where the directory is mounted, for people who read the ledger.
fn path_of(directory: &OwnedFd) -> String {
    use std::os::fd::AsRawFd;
    let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
    std::fs::read_link(link).map_or_else(|_| "?".to_owned(), |path| path.to_string_lossy().into_owned())
}
