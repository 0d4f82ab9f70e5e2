//! The last words of a program: its output is read as fast as it comes, and only the end is kept.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Bytes kept of each stream.
const KEPT: usize = 4096;

/// Drains one stream of a program on a thread of its own, until the last process that holds it is gone.
#[derive(Debug, Clone)]
pub(crate) struct Tail(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    kept: Vec<u8>,
    ended: bool,
}

impl Tail {
    /// Begins to drain.
    pub(crate) fn start(mut stream: impl Read + Send + 'static) -> std::io::Result<Self> {
        let tail = Self(Arc::default());
        let shared = Arc::clone(&tail.0);
        thread::Builder::new().name("output".into()).stack_size(64 << 10).spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                let mut state = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
                state.kept.extend_from_slice(&bytes[..count]);
                let surplus = state.kept.len().saturating_sub(KEPT);
                state.kept.drain(..surplus);
            }
            shared.0.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
            shared.1.notify_all();
        })?;
        Ok(tail)
    }

    /// The last line that is not empty, without control characters; waits up to `patience` for the stream's end, so that
    /// what a dead program wrote last is seen.
    pub(crate) fn last_line(&self, patience: Duration) -> Option<String> {
        let state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_timeout_while(state, patience, |state| !state.ended);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&state.kept);
        let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
        Some(line.trim().chars().filter(|character| !character.is_control()).take(512).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_end_of_much() {
        let much = format!("{}the last line\n\n", "x\n".repeat(100_000));
        let tail = Tail::start(std::io::Cursor::new(much)).unwrap();
        assert_eq!(tail.last_line(Duration::from_secs(5)).unwrap(), "the last line");
        assert!(tail.0.0.lock().unwrap().kept.len() <= KEPT);
    }

    #[test]
    fn silence_has_no_last_line() {
        assert_eq!(Tail::start(std::io::empty()).unwrap().last_line(Duration::from_secs(5)), None);
    }
}
