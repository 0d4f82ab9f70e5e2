//! vss-guard: freezes the file systems of one shadow copy set, and thaws them.
//!
//! Started by vssd with the control channel as standard input (see [`vss_linux::hold`] for the protocol and the ledger).
//! One thread per member makes every system call on that member, so that a thaw can never overtake its freeze and a
//! stuck file system delays no other. A hold ends at `Release`, at its deadline, when vssd closes the channel or dies,
//! or at SIGTERM, whichever is first.
//!
//! Everything is made beforehand: between `Ready` and its end this program allocates nothing, opens nothing and writes
//! to nothing but the channel, the ledger and `/sys/kernel/rcu_expedited`.

mod control;
mod hold;
mod member;
mod stop;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use rustix::io::Errno;
use vss_linux::hold::channel::{self, Prepared};
use vss_linux::hold::protocol::{Answer, Refusal};
use vss_linux::hold::{HOLD_LIMIT, LEDGER_DIRECTORY};
use vss_linux::process::{self, Signal};

use hold::Hold;

const USAGE: &str = "usage: vss-guard --ledger FILE [--limit-ms MILLISECONDS]
Started by vssd, with its control channel as standard input.";

/// Signals that must not end a hold. SIGHUP above all: when vssd dies while this process is stopped, the kernel sends
/// SIGHUP and SIGCONT to its process group, and only the second may have an effect.
const IGNORED: [Signal; 7] =
    [Signal::HUP, Signal::INT, Signal::QUIT, Signal::PIPE, Signal::TSTP, Signal::TTIN, Signal::TTOU];

/// Never killed for lack of memory.
const OOM_SCORE: i16 = -1000;

/// First on a busy processor: while its threads wait for one, writes wait for them.
const NICE: i32 = -20;

/// A refusal to work: sent to vssd, then the end.
struct Refused {
    refusal: Refusal,
    member: Option<u8>,
    errno: Option<Errno>,
}

impl Refused {
    fn new(refusal: Refusal, error: impl Into<std::io::Error>) -> Self {
        Self { refusal, member: None, errno: Errno::from_io_error(&error.into()) }
    }
}

fn main() -> ExitCode {
    // A panic would leave a thread's file system frozen: die at once instead, and vssd thaws. Nothing is printed,
    // because standard error may end in a log on a frozen file system.
    std::panic::set_hook(Box::new(|_| std::process::abort()));
    let options = match Options::parse(std::env::args_os().skip(1)) {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("vss-guard: {wrong}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Refused { refusal, member, errno }) => {
            // vssd may be gone; there is nobody else to tell.
            let _ = channel::send_answer(rustix::stdio::stdin(), Answer::Refused { refusal, member, errno });
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Refused> {
    let setup = |error: std::io::Error| Refused::new(Refusal::Setup, error);
    process::ignore_signals(&IGNORED).map_err(setup)?;
    let signals = process::signal_descriptor(&[Signal::TERM]).map_err(setup)?;
    // Its own group in vssd's session; vssd has usually done it. A leader has one already (EPERM).
    let _ = process::own_process_group();
    let memory_locked = process::lock_memory().is_ok();
    // Without CAP_SYS_RESOURCE the score stays as it is; that is no reason not to work.
    let _ = process::set_oom_score(OOM_SCORE);
    // Likewise without CAP_SYS_NICE.
    let _ = process::set_nice(NICE);

    let members: Vec<Prepared> = channel::receive_prepare(rustix::stdio::stdin()).map_err(setup)?;
    let hold = Hold::new(options, members, signals)?;
    control::run(&hold, memory_locked)
}

/// The command line.
struct Options {
    /// Where the ledger is to be written.
    ledger: PathBuf,
    /// How long a hold may last; never longer than [`HOLD_LIMIT`].
    limit: Duration,
}

/// What is wrong with the command line.
enum Wrong {
    Unknown(OsString),
    NoValue(&'static str),
    BadLimit,
    NoLedger,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, Wrong> {
        let mut ledger = None;
        let mut limit = HOLD_LIMIT;
        while let Some(argument) = arguments.next() {
            match argument.to_str() {
                Some("--ledger") => ledger = Some(arguments.next().ok_or(Wrong::NoValue("--ledger"))?.into()),
                Some("--limit-ms") => {
                    let value = arguments.next().ok_or(Wrong::NoValue("--limit-ms"))?;
                    let milliseconds = value.to_str().and_then(|value| value.parse().ok()).ok_or(Wrong::BadLimit)?;
                    limit = Duration::from_millis(milliseconds);
                    if limit.is_zero() || limit > HOLD_LIMIT {
                        return Err(Wrong::BadLimit);
                    }
                }
                _ => return Err(Wrong::Unknown(argument)),
            }
        }
        Ok(Self { ledger: ledger.ok_or(Wrong::NoLedger)?, limit })
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(argument) => write!(f, "unknown argument {}", argument.display()),
            Self::NoValue(option) => write!(f, "{option} needs a value"),
            Self::BadLimit => write!(f, "--limit-ms is a number of milliseconds from 1 to {}", HOLD_LIMIT.as_millis()),
            Self::NoLedger => write!(f, "--ledger is missing (a file in RUNTIME_DIRECTORY/{LEDGER_DIRECTORY})"),
        }
    }
}
