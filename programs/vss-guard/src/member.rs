//! The thread of one member: it alone calls syncfs, FIFREEZE and FITHAW on the member's file system.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use vss_linux::clock;
use vss_linux::freeze::{self, FreezeError, Thaw};
use vss_linux::hold::ledger::State;
use vss_linux::hold::protocol::{Answer, Call, Cause, Step};
use vss_linux::hold::{BUSY_LIMIT, BUSY_PAUSE, THAW_PAUSE};
use vss_linux::process;

use crate::hold::{Hold, signal};

/// What the thread is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Not ready for its first order.
    Starting,
    /// Waiting for an order.
    Idle,
    /// Told to freeze; FIFREEZE has not succeeded yet.
    Freezing,
    /// Frozen.
    Held,
    /// The thread has ended.
    Ended,
}

/// Orders not taken yet.
#[derive(Default)]
struct Orders {
    sync: bool,
    freeze: bool,
    end: bool,
}

enum Order {
    Sync,
    Freeze,
    End,
}

pub(crate) struct Member {
    index: u8,
    pub(crate) level: Option<u8>,
    directory: OwnedFd,
    orders: Mutex<Orders>,
    ordered: Condvar,
    /// Readable from the order to release on.
    release: OwnedFd,
    phase: AtomicU8,
}

impl Member {
    pub(crate) fn new(index: u8, directory: OwnedFd, level: Option<u8>) -> Result<Self, Errno> {
        Ok(Self {
            index,
            level,
            directory,
            orders: Mutex::default(),
            ordered: Condvar::new(),
            release: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            phase: AtomicU8::new(Phase::Starting as u8),
        })
    }

    pub(crate) fn is(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Acquire) == phase as u8
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Order: syncfs.
    pub(crate) fn sync(&self) {
        self.orders().sync = true;
        self.ordered.notify_one();
    }

    /// Order: FIFREEZE, and hold. The phase changes with the order, so that the control thread never takes a member for
    /// idle that is about to freeze.
    pub(crate) fn freeze(&self) {
        self.enter(Phase::Freezing);
        self.orders().freeze = true;
        self.ordered.notify_one();
    }

    /// Order: FITHAW, as soon as FIFREEZE has returned.
    pub(crate) fn release(&self) {
        signal(&self.release);
    }

    /// Order: no more orders.
    pub(crate) fn end(&self) {
        self.orders().end = true;
        self.ordered.notify_one();
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_order(&self) -> Order {
        let mut orders = self.orders();
        loop {
            if orders.end {
                return Order::End;
            } else if std::mem::take(&mut orders.sync) {
                return Order::Sync;
            } else if std::mem::take(&mut orders.freeze) {
                return Order::Freeze;
            }
            orders = self.ordered.wait(orders).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The thread.
    pub(crate) fn run(&self, hold: &Hold) {
        process::fault_in_stack();
        loop {
            // A freeze that was ordered meanwhile has set the phase already.
            let _ = self.phase.compare_exchange(
                Phase::Starting as u8,
                Phase::Idle as u8,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            hold.tell_progress();
            match self.next_order() {
                Order::Sync => self.sync_now(hold),
                Order::Freeze => {
                    if self.freeze_now(hold) {
                        self.enter(Phase::Held);
                        hold.tell_progress();
                        let cause = hold.stop.wait(&self.release, None).unwrap_or(Cause::Terminated);
                        self.thaw_now(hold, cause);
                    }
                    self.enter(Phase::Idle);
                }
                Order::End => break,
            }
        }
        self.enter(Phase::Ended);
        hold.tell_progress();
    }

    fn sync_now(&self, hold: &Hold) {
        let called_ns = clock::boottime_ns();
        let synced = freeze::sync(&self.directory);
        hold.answer(match synced {
            Ok(()) => Answer::Synced(self.call(called_ns)),
            Err(errno) => self.failed(Step::Sync, errno),
        });
    }

    /// True when the member is frozen; anything else has been answered.
    fn freeze_now(&self, hold: &Hold) -> bool {
        let index = usize::from(self.index);
        let give_up_ns = clock::boottime_ns() + u64::try_from(BUSY_LIMIT.as_nanos()).unwrap_or(u64::MAX);
        let mut pause = std::time::Duration::ZERO;
        let (state, errno) = loop {
            if hold.stop.wait(&self.release, Some(pause)).is_some() {
                break (State::Untouched, Errno::CANCELED);
            }
            pause = BUSY_PAUSE;
            if hold.ledger.mark(index, State::Ours).is_err() {
                break (State::Untouched, Errno::IO);
            }
            let called_ns = clock::boottime_ns();
            match freeze::freeze(&self.directory) {
                Ok(()) => {
                    hold.answer(Answer::Frozen(self.call(called_ns)));
                    return true;
                }
                Err(FreezeError::AlreadyFrozen) if clock::boottime_ns() < give_up_ns => {
                    // Struck out between the tries too: a kill at any instruction must not let anybody thaw it. An
                    // overwrite of one byte that has just succeeded in the same place does not fail now.
                    let _ = hold.ledger.mark(index, State::Struck);
                }
                Err(FreezeError::AlreadyFrozen) => break (State::Struck, Errno::BUSY),
                Err(error) => break (State::Untouched, error.errno()),
            }
        };
        let _ = hold.ledger.mark(index, state);
        hold.answer(self.failed(Step::Freeze, errno));
        false
    }

    fn thaw_now(&self, hold: &Hold, cause: Cause) {
        let mut told = false;
        loop {
            let called_ns = clock::boottime_ns();
            let thawed = freeze::thaw(&self.directory);
            let answer = match thawed {
                Ok(Thaw::Thawed) => Answer::Thawed(self.call(called_ns), cause),
                Ok(Thaw::NotFrozen) => Answer::Lost(self.call(called_ns), cause),
                Err(errno) => {
                    if !told {
                        hold.answer(self.failed(Step::Thaw, errno));
                    }
                    told = true;
                    std::thread::sleep(THAW_PAUSE);
                    continue;
                }
            };
            // Should it fail, a later sweep calls FITHAW once more in vain.
            let _ = hold.ledger.mark(usize::from(self.index), State::Thawed);
            hold.answer(answer);
            return;
        }
    }

    fn call(&self, called_ns: u64) -> Call {
        Call { member: self.index, called_ns, returned_ns: clock::boottime_ns() }
    }

    fn failed(&self, step: Step, errno: Errno) -> Answer {
        Answer::Failed { member: self.index, step, errno }
    }
}
