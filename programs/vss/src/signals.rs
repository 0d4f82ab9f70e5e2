//! What signals to `vss` mean while it makes a set, while the command runs, and while it tidies up.
//!
//! ```text
//! making    the first one is a wish to stop: the running operation is cancelled and undone; the second one ends vss at
//!           once, and the end of the connection undoes the same
//! running   a signal that a process sent to vss goes to the command; one from the terminal has reached it already, since
//!           both are in the same process group. vss goes on waiting
//! ending    the first one changes nothing; the second one ends vss at once
//! ```
//!
//! A signal that was ignored when vss started (nohup, a background job) stays ignored, also by the command.

use crate::exit::system_error;
use rustix::event::{PollFd, PollFlags, poll};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vss_linux::process::{PidFd, Signal, signal_descriptor};
use vss_model::VssError;

/// The signals that a user or the system ends a program with, and those that programs give a meaning of their own.
const SIGNALS: [Signal; 6] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2];

/// Size of `struct signalfd_siginfo` (signalfd(2)).
const SIGINFO: usize = 128;
/// Where `ssi_signo`, `ssi_code` and `ssi_pid` lie in it.
const SIGNO: usize = 0;
const CODE: usize = 8;
const PID: usize = 12;

/// Catches the signals of this process.
#[derive(Debug, Clone)]
pub(crate) struct Signals(Arc<Mutex<Phase>>);

#[derive(Debug)]
enum Phase {
    Making { wishes: u32, to_forward: Option<Signal>, give_up: u8 },
    Running { command: PidFd, pid: u32 },
    Ending { wishes: u32, give_up: u8 },
}

/// What is to be done about one signal.
#[derive(Debug, PartialEq, Eq)]
enum Reaction {
    Nothing,
    Forward,
    GiveUp(u8),
}

impl Signals {
    /// Begins to catch signals. Before any other thread exists. `give_up` is the exit status of the second wish to stop.
    ///
    /// # Errors
    /// No descriptor or no thread left.
    pub(crate) fn catch(give_up: u8) -> Result<Self, VssError> {
        let failed = |error| system_error("Cannot catch signals", &error);
        let wanted: Vec<Signal> = not_ignored(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
        let descriptor = signal_descriptor(&wanted).map_err(failed)?;
        let signals = Self(Arc::new(Mutex::new(Phase::Making { wishes: 0, to_forward: None, give_up })));
        let of_thread = signals.clone();
        let thread = std::thread::Builder::new().name("signals".to_owned());
        thread.spawn(move || of_thread.read(&descriptor)).map_err(failed)?;
        Ok(signals)
    }

    /// How often the user wished to stop since the beginning.
    pub(crate) fn wishes(&self) -> u32 {
        match &*self.phase() {
            Phase::Making { wishes, .. } | Phase::Ending { wishes, .. } => *wishes,
            Phase::Running { .. } => 0,
        }
    }

    /// From now on signals go to the command, also one that came just before.
    pub(crate) fn forward_to(&self, command: PidFd, pid: u32) {
        let mut phase = self.phase();
        if let Phase::Making { to_forward: Some(signal), .. } = &*phase {
            // The command may have ended; then there is nobody to tell.
            let _ = command.signal(*signal);
        }
        *phase = Phase::Running { command, pid };
    }

    /// The command has ended; `give_up` is the status of vss from now on.
    pub(crate) fn ending(&self, give_up: u8) {
        *self.phase() = Phase::Ending { wishes: 0, give_up };
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        // A phase is written whole: it is right even after a panic elsewhere.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, descriptor: &OwnedFd) {
        let mut info = [0; SIGINFO];
        loop {
            // Without a timeout poll fails only when interrupted.
            let _ = poll(&mut [PollFd::new(descriptor, PollFlags::IN)], None);
            while let Ok(SIGINFO) = rustix::io::read(descriptor, &mut info) {
                let word = |at: usize| u32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
                let signal = SIGNALS.into_iter().find(|signal| signal.as_raw().cast_unsigned() == word(SIGNO));
                let Some(signal) = signal else { continue };
                // Positive codes are the kernel's (sigaction(2)).
                let from_process = word(CODE).cast_signed() <= 0;
                let mut phase = self.phase();
                match react(&mut phase, signal, from_process, word(PID)) {
                    Reaction::Nothing => {}
                    Reaction::Forward => {
                        if let Phase::Running { command, .. } = &*phase {
                            let _ = command.signal(signal);
                        }
                    }
                    Reaction::GiveUp(status) => std::process::exit(i32::from(status)),
                }
            }
        }
    }
}

fn react(phase: &mut Phase, signal: Signal, from_process: bool, sender: u32) -> Reaction {
    match phase {
        Phase::Making { wishes, to_forward, give_up } => {
            *wishes += 1;
            if from_process {
                *to_forward = Some(signal);
            }
            if *wishes > 1 { Reaction::GiveUp(*give_up) } else { Reaction::Nothing }
        }
        // A command that signals its own process group means itself, and has got it.
        Phase::Running { pid, .. } if from_process && sender != *pid => Reaction::Forward,
        Phase::Running { .. } => Reaction::Nothing,
        Phase::Ending { wishes, give_up } => {
            *wishes += 1;
            if *wishes > 1 { Reaction::GiveUp(*give_up) } else { Reaction::Nothing }
        }
    }
}

/// Those of our signals whose bit is clear in the line `SigIgn` of /proc/self/status (proc_pid_status(5)).
fn not_ignored(status: &str) -> Vec<Signal> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    SIGNALS.into_iter().filter(|signal| mask >> (signal.as_raw() - 1) & 1 == 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> Phase {
        Phase::Running { command: PidFd::open(std::process::id()).unwrap(), pid: 77 }
    }

    #[test]
    fn the_second_wish_ends_it() {
        let mut making = Phase::Making { wishes: 0, to_forward: None, give_up: 125 };
        assert_eq!(react(&mut making, Signal::INT, false, 0), Reaction::Nothing);
        assert_eq!(react(&mut making, Signal::INT, false, 0), Reaction::GiveUp(125));
        let mut ending = Phase::Ending { wishes: 0, give_up: 3 };
        assert_eq!(react(&mut ending, Signal::TERM, true, 5), Reaction::Nothing);
        assert_eq!(react(&mut ending, Signal::TERM, true, 5), Reaction::GiveUp(3));
    }

    #[test]
    fn the_command_gets_what_it_has_not_got_yet() {
        assert_eq!(react(&mut running(), Signal::TERM, true, 5), Reaction::Forward);
        assert_eq!(react(&mut running(), Signal::INT, false, 0), Reaction::Nothing);
        assert_eq!(react(&mut running(), Signal::TERM, true, 77), Reaction::Nothing);
    }

    #[test]
    fn what_nohup_ignores_stays_ignored() {
        let wanted = not_ignored("Name:\tvss\nSigIgn:\t0000000000001001\n");
        assert!(!wanted.contains(&Signal::HUP) && wanted.contains(&Signal::INT) && wanted.len() == SIGNALS.len() - 1);
        assert_eq!(not_ignored("").len(), SIGNALS.len());
    }
}
