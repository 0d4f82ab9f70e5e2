//! The cut: the subvolumes of one file system one after another, several file systems side by side.
//!
//! A snapshot waits for a transaction of its file system, so a set over many file systems would pay one wait after another.
//! The threads are started in PreCommit and do nothing but wait, so that Commit has only to let them go.

use crate::creation::Lane;
use rustix::io::Errno;
use std::{
    sync::{Arc, Condvar, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
};
use vss_linux::btrfs;
use vss_model::{Instant, VssCode, VssError};
use vss_provider::failure::{failed, is};

/// A thread's stack: one ioctl's arguments are 4 KiB; the service locks its memory, so a larger one would cost.
const STACK: usize = 128 << 10;

/// Gives its lane back with the outcome of the cut; none when it never got one.
type Thread = JoinHandle<Option<(Lane, Result<(), VssError>)>>;

/// Threads that wait for the moment of the cut, each with the file system that it is to cut.
#[derive(Debug)]
pub(crate) struct Cutters {
    gate: Arc<Gate>,
    /// Cut by the caller itself.
    own: Option<Lane>,
    threads: Vec<Thread>,
    /// Room for the lanes when they come back: the cut allocates nothing.
    back: Vec<Lane>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Wait,
    Cut,
    Leave,
}

#[derive(Debug)]
struct Gate {
    order: Mutex<Order>,
    changed: Condvar,
}

impl Gate {
    fn give(&self, order: Order) {
        *self.order.lock().unwrap_or_else(PoisonError::into_inner) = order;
        self.changed.notify_all();
    }

    fn wait(&self) -> Order {
        let order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        *self.changed.wait_while(order, |order| *order == Order::Wait).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cutters {
    /// Starts the threads. After a failure too, the lanes come back by [`Cutters::dismiss`].
    pub(crate) fn ready(lanes: Vec<Lane>) -> (Self, Result<(), VssError>) {
        let gate = Arc::new(Gate { order: Mutex::new(Order::Wait), changed: Condvar::new() });
        let back = Vec::with_capacity(lanes.len());
        let mut lanes = lanes.into_iter();
        let mut cutters = Self { gate, own: lanes.next(), threads: Vec::with_capacity(lanes.len()), back };
        for lane in lanes.by_ref() {
            // The lane follows when the thread runs: it must not be lost with one that cannot be started.
            let (hand, handed) = mpsc::sync_channel(1);
            let gate = Arc::clone(&cutters.gate);
            let work = move || {
                let mut lane: Lane = handed.recv().ok()?;
                let result = if gate.wait() == Order::Cut { cut(&mut lane) } else { Ok(()) };
                Some((lane, result))
            };
            match thread::Builder::new().name("btrfs-cut".to_owned()).stack_size(STACK).spawn(work) {
                Ok(started) => {
                    // It cannot fail: the thread waits for it.
                    let _ = hand.send(lane);
                    cutters.threads.push(started);
                }
                Err(error) => {
                    cutters.back.push(lane);
                    cutters.back.extend(lanes);
                    return (cutters, Err(failed("A thread for the cut cannot be started", &error)));
                }
            }
        }
        (cutters, Ok(()))
    }

    /// Cuts everything; returns when every thread is done, with the first failure.
    pub(crate) fn cut(mut self) -> (Vec<Lane>, Result<(), VssError>) {
        self.gate.give(Order::Cut);
        let mut result = Ok(());
        if let Some(mut own) = self.own.take() {
            result = cut(&mut own);
            self.back.push(own);
        }
        for thread in std::mem::take(&mut self.threads) {
            if let Ok(Some((lane, cut))) = thread.join() {
                self.back.push(lane);
                result = result.and(cut);
            } else {
                result = result.and(Err(VssError::new(VssCode::ProviderVeto, "A thread of the cut panicked")));
            }
        }
        (std::mem::take(&mut self.back), result)
    }

    /// Sends the threads home without a cut.
    pub(crate) fn dismiss(mut self) -> Vec<Lane> {
        self.gate.give(Order::Leave);
        self.back.extend(self.own.take());
        let threads = std::mem::take(&mut self.threads);
        self.back.extend(threads.into_iter().filter_map(|thread| Some(thread.join().ok()??.0)));
        std::mem::take(&mut self.back)
    }
}

impl Drop for Cutters {
    /// No thread, and nothing that one holds open, outlives the set.
    fn drop(&mut self) {
        self.gate.give(Order::Leave);
        for thread in std::mem::take(&mut self.threads) {
            // One that panicked has dropped what it held.
            let _ = thread.join();
        }
    }
}

/// Cuts the subvolumes of one file system: each volume, and what is nested in it right after it.
fn cut(lane: &mut Lane) -> Result<(), VssError> {
    for copy in &mut lane.copies {
        for (at, part) in copy.parts.iter_mut().enumerate() {
            match btrfs::snapshot(&part.source, &lane.store, &part.name) {
                Ok(()) => part.cut_at = Some(Instant::now()),
                // A nested subvolume that was deleted after it was listed is no failure, nor is one that holds the swap
                // file in use: it is made to be left out of snapshots, and the kernel cuts none.
                Err(error) if at > 0 && (is(&error, Errno::NOENT) || is(&error, Errno::TXTBSY)) => {}
                Err(error) if is(&error, Errno::TXTBSY) => {
                    return Err(VssError::new(
                        VssCode::ProviderVeto,
                        "btrfs makes no snapshot of a subvolume with a swap file in use",
                    )
                    .with_hint("Move the swap file into a subvolume of its own"));
                }
                Err(error) => return Err(failed(format!("The snapshot {} failed", part.name.display()), &error)),
            }
        }
    }
    Ok(())
}
