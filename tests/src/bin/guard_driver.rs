//! A vssd of the test's own, small enough to be stopped and killed: it has nothing but `vss_service::guard`.
//!
//! ```text
//! guard_driver GUARD RUNTIME_DIRECTORY NAME LIMIT_MS run|step MEMBER[:LEVEL]...
//! ```
//!
//! Reads commands from standard input, one a line (`sync`, `hold`, `release`, `finish`), and answers one line each. With
//! `step` it also prints a line for every message of the protocol (`sent ...`, `received ...`) and goes on only after a
//! line `go`, so that a test can kill anybody at exactly this point.

use std::fs::File;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use vss_linux::hold::protocol::{Answer, Request};
use vss_service::guard::{Guard, GuardError, GuardMember, GuardOptions, Monitor};

/// How long `sync` and `finish` wait.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [guard, runtime, name, limit, mode, members @ ..] = arguments.as_slice() else {
        bail!("usage: guard_driver GUARD RUNTIME_DIRECTORY NAME LIMIT_MS run|step MEMBER[:LEVEL]...");
    };
    let members = members.iter().map(|member| open(member)).collect::<Result<Vec<_>, _>>()?;
    let monitor: Option<Box<dyn Monitor>> = (mode == "step").then(|| Box::new(Steps) as Box<dyn Monitor>);
    let options = GuardOptions { limit: Some(Duration::from_millis(limit.parse()?)), monitor };
    let mut guard = match Guard::spawn(Path::new(guard), Path::new(runtime), name, members, options) {
        Ok(guard) => guard,
        Err(error) => {
            say(&failed(&error));
            return Ok(());
        }
    };
    say(&format!("ready {} memory_locked={} expedites={}", guard.pid(), guard.memory_locked(), guard.expedites()));
    while let Some(command) = next_line() {
        let said = match command.as_str() {
            "sync" => guard.sync(PATIENCE).map(|()| "synced".to_owned()),
            "hold" => guard.hold().map(|hold| format!("held {} {}", hold.began_ns, hold.frozen_ns)),
            "release" => guard.release().map(|released| {
                let held = released.release_ns - released.hold.frozen_ns;
                format!("released {} {}", released.duration().as_nanos(), held)
            }),
            "finish" => {
                let finished = guard.finish(PATIENCE);
                say(&format!("finished {finished}"));
                return Ok(());
            }
            other => bail!("unknown command {other}"),
        };
        say(&said.unwrap_or_else(|error| failed(&error)));
    }
    Ok(())
}

fn open(member: &str) -> anyhow::Result<GuardMember> {
    let (path, level) = match member.split_once(':') {
        Some((path, level)) => (path, Some(level.parse()?)),
        None => (member, None),
    };
    let directory = File::open(path).with_context(|| path.to_owned())?.into();
    Ok(GuardMember { volume: path.to_owned(), directory, level })
}

fn failed(error: &GuardError) -> String {
    format!("error {:?} {} {error}", error.kind(), error.volume().unwrap_or("-"))
}

/// One line of standard input without its end; read one at a time, because a [`Steps`] reads in between.
fn next_line() -> Option<String> {
    let mut line = String::new();
    let length = io::stdin().lock().read_line(&mut line).ok()?;
    (length > 0).then(|| line.trim_end().to_owned())
}

fn say(line: &str) {
    // The test may have gone.
    let _ = writeln!(io::stdout(), "{line}");
}

/// Stops at each message until the test says `go`.
struct Steps;

impl Steps {
    fn stop_at(line: &str) {
        say(line);
        next_line();
    }
}

impl Monitor for Steps {
    fn sent(&mut self, request: &Request) {
        Self::stop_at(&format!("sent {request:?}"));
    }

    fn received(&mut self, answer: &Answer) {
        Self::stop_at(&format!("received {answer:?}"));
    }
}
