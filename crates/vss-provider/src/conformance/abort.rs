//! Abort while EndPrepare runs: what a wish to stop comes to.

use super::{Making, Subject, done, ensure, nothing_left};
use crate::progress::{Progress, Watcher};
use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

/// How long the first sign of progress is waited for; a provider that ends sooner, or tells nothing, has no slow work.
const FIRST_SIGN: Duration = Duration::from_secs(5);
/// The service gives up on a provider that does not heed abort (`limits::PROVIDER_IN_WINDOW` is twice as long).
const HEEDED: Duration = Duration::from_secs(10);

/// Passes on that there was progress.
struct Sign(Sender<()>);

impl Watcher for Sign {
    fn progress(&self, _progress: Progress) {
        // Only the first one is listened to.
        let _ = self.0.send(());
    }
}

/// True when something was told before the work ended.
fn is_at_work(sign: &Receiver<()>) -> bool {
    match sign.recv_timeout(FIRST_SIGN) {
        Ok(()) => true,
        // Its watcher is gone with the call, or it keeps silent.
        Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => false,
    }
}

pub(super) fn abort_from_another_thread_ends_slow_work(subject: &dyn Subject) -> Result<(), String> {
    let provider = subject.provider();
    let making = Making::begin(subject, &*provider, &subject.volumes())?;
    let (set_id, (told, sign)) = (making.set_id, channel());
    let (was_at_work, ended, took) = thread::scope(|scope| {
        let provider = &*provider;
        let phase = scope.spawn(move || provider.end_prepare(set_id, &Sign(told)));
        let was_at_work = is_at_work(&sign) && !phase.is_finished();
        let began = Instant::now();
        // It may say that it could not wait for the phase, which then undoes the set itself.
        let _ = provider.abort(set_id);
        (was_at_work, phase.join(), began.elapsed())
    });
    let ended = ended.map_err(|_| "end_prepare panicked when the set was aborted".to_owned())?;
    ensure(took < HEEDED, &format!("end_prepare went on for {took:?} after abort"))?;
    // Abort may have come when the work was just done.
    if let (true, Err(error)) = (was_at_work, &ended) {
        ensure(error.code.allowed_from_provider(), &format!("end_prepare: {} is no code for a provider", error.code))?;
    }
    // As the service does it, once the phase has returned.
    making.abort()?;
    for copy in &making.copies {
        done("delete", provider.delete(copy))?;
    }
    nothing_left(subject, "abort from another thread")
}
