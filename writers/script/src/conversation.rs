//! One script's process and the lines that pass between it and us.

use crate::program::{Ended, Program};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use vss_api::writer::{ComponentReply, EventKind, EventReply};
use vss_model::{Component, ComponentName, VssCode, VssError, limits};
use vss_writer::{Answer, Call, Interrupted};

/// The longest line from a script.
const LINE: usize = 64 << 10;
/// The longest answer to one phase, all lines together: the service keeps no more of one writer with a backup.
const ANSWER: usize = limits::BACKUP_DATA_PER_WRITER;
/// The longest line to a script: a pipe takes it without waiting (pipe(7): 64 KiB).
const QUESTION: usize = 60 << 10;
/// What is left of the writer's time when a late script is killed: a tenth, at most this. The error that names it must
/// arrive before the service gives up.
const MARGIN: Duration = Duration::from_secs(1);
/// How long a script may still answer after the service is gone, before it is killed: so that it hears `abort`.
const GRACE: Duration = Duration::from_secs(2);
/// How long a script may take to end after `backup-shutdown` and the end of its input.
const END: Duration = Duration::from_secs(1);

/// A running script. Dropping it kills its process group.
#[derive(Debug)]
pub(crate) struct Conversation {
    what: String,
    program: Program,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    /// What it has said and nobody has read.
    heard: Vec<u8>,
    /// Bytes that it has said since the last question.
    answered: usize,
}

/// Why there is no usable answer. Unless it is [`Failure::Said`], the script is dead or was killed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The script itself said `failed`.
    Said(VssError),
    /// It died, was late, or said what is no answer.
    Dead(VssError),
}

impl Conversation {
    /// Starts the script of the writer `name`.
    pub(crate) fn start(name: &str, command: &mut Command) -> Result<Self, VssError> {
        let what = format!("Script {name}");
        let failed = |error: std::io::Error| {
            VssError::new(VssCode::WriterErrorNonRetryable, format!("{what} could not be started: {error}"))
        };
        let mut program = Program::start(command.stdin(Stdio::piped()), false).map_err(failed)?;
        let streams = program.child().and_then(|child| Some((child.stdin.take()?, child.stdout.take()?)));
        let (stdin, stdout) = streams.ok_or_else(|| failed(ErrorKind::BrokenPipe.into()))?;
        Ok(Self { what, program, stdin: Some(stdin), stdout, heard: Vec::new(), answered: 0 })
    }

    /// Tells the script one phase and waits for its answer; `components` are those that it may name in it.
    pub(crate) fn ask(
        &mut self,
        phase: &str,
        words: &[u8],
        components: &[Component],
        call: &Call<'_>,
    ) -> Result<EventReply, Failure> {
        self.answered = 0;
        self.nothing_unasked(phase, call)?;
        self.tell(phase, words)?;
        let mut patience = Patience::new(call);
        let mut reply = EventReply::default();
        loop {
            let line = self.next_line(phase, &mut patience)?;
            match answer(&line, components) {
                Some(Line::Component(component)) => reply.components.push(component),
                Some(Line::Done) => break,
                Some(Line::Failed(code, message)) => {
                    let message = format!("{} failed in {phase}: {message}", self.what);
                    return Err(Failure::Said(VssError::new(code, message)));
                }
                None => return Err(self.garbage(phase, &line)),
            }
        }
        let failed = reply.components.iter().filter(|component| component.code.is_some()).count();
        if failed > 0 {
            reply.code = Some(VssCode::WriterErrorPartialFailure);
            reply.message = format!("{} failed in {phase} for {failed} components", self.what);
        }
        Ok(reply)
    }

    /// Waits for a whole line.
    fn next_line(&mut self, phase: &str, patience: &mut Patience<'_>) -> Result<String, Failure> {
        loop {
            if let Some(line) = self.line() {
                return Ok(line);
            }
            match patience.wait(self.stdout.as_fd()) {
                None => self.hear(phase)?,
                Some(ended) => return Err(self.killed(ended, phase)),
            }
        }
    }

    /// Ends the script: its input ends, it may go, and what is left of it is killed.
    pub(crate) fn end(mut self, call: &Call<'_>) {
        self.stdin = None;
        self.program.ended(END.min(call.time_left()), call);
    }

    /// A script that says something unasked would be taken to answer a question that it has not read.
    fn nothing_unasked(&mut self, phase: &str, call: &Call<'_>) -> Result<(), Failure> {
        if self.heard.is_empty() && !call.wait_for(Some(self.stdout.as_fd()), Instant::now()).unwrap_or(false) {
            return Ok(());
        }
        if self.heard.is_empty() {
            self.hear(phase)?;
        }
        let line = self.line().unwrap_or_else(|| String::from_utf8_lossy(&self.heard).into_owned());
        Err(self.garbage(phase, &line))
    }

    fn tell(&mut self, phase: &str, words: &[u8]) -> Result<(), Failure> {
        let line = [phase.as_bytes(), words, b"\n"].concat();
        if line.len() > QUESTION {
            let message = format!("{}: the names of its volumes are too long for {phase}", self.what);
            return Err(Failure::Said(VssError::new(VssCode::WriterErrorOutOfResources, message)));
        }
        let written = self.stdin.as_mut().map_or(Err(ErrorKind::BrokenPipe.into()), |stdin| stdin.write_all(&line));
        // A script that reads no more is dead or as good as dead; how it ended says more than EPIPE.
        written.map_err(|_| self.gone(phase))
    }

    /// Takes what has arrived.
    fn hear(&mut self, phase: &str) -> Result<(), Failure> {
        let mut bytes = [0; 4096];
        match self.stdout.read(&mut bytes) {
            Ok(0) => Err(self.gone(phase)),
            Ok(count) => {
                self.heard.extend_from_slice(&bytes[..count]);
                self.answered += count;
                match self.answered {
                    _ if self.heard.len() > LINE => Err(self.endless(phase, "a line", LINE)),
                    answered if answered > ANSWER => Err(self.endless(phase, "an answer", ANSWER)),
                    _ => Ok(()),
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(_) => Err(self.gone(phase)),
        }
    }

    /// The next whole line.
    fn line(&mut self) -> Option<String> {
        let end = self.heard.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.heard.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// The script has closed its output: says how it ended.
    fn gone(&mut self, phase: &str) -> Failure {
        let nobody = crate::hooks::nobody();
        let ended =
            self.program.wait(&Call::new(EventKind::Abort, &nobody), Instant::now() + Duration::from_millis(200));
        let what = &self.what;
        let error = match &ended {
            Ended::Exit(status) if status.success() => {
                VssError::new(VssCode::WriterErrorNonRetryable, format!("{what} ended in {phase} without an answer"))
            }
            Ended::Exit(_) => self.program.verdict(&ended, what, phase).unwrap_or_else(|| unreadable(what, phase)),
            Ended::Late | Ended::Interrupted => unreadable(what, phase),
        };
        Failure::Dead(error)
    }

    fn endless(&mut self, phase: &str, what: &str, most: usize) -> Failure {
        self.program.kill(Ended::Late);
        let message = format!("{} gave {what} of more than {} KiB in {phase}; it was killed", self.what, most >> 10);
        Failure::Dead(
            VssError::new(VssCode::WriterErrorNonRetryable, message)
                .with_hint("Standard output carries answers alone (docs/script-writer.md): name each component once, and send other text to standard error"),
        )
    }

    fn garbage(&mut self, phase: &str, line: &str) -> Failure {
        self.program.kill(Ended::Late);
        let line: String = line.chars().filter(|character| !character.is_control()).take(120).collect();
        let message = format!("{} said \"{line}\" in {phase}, which is no answer; it was killed", self.what);
        Failure::Dead(
            VssError::new(VssCode::WriterErrorNonRetryable, message)
                .with_hint("Standard output carries one answer to each line (docs/script-writer.md); send other text to standard error"),
        )
    }

    fn killed(&mut self, ended: Ended, phase: &str) -> Failure {
        let ended = self.program.kill(ended);
        let error = self.program.verdict(&ended, &self.what, phase).unwrap_or_else(|| unreadable(&self.what, phase));
        Failure::Dead(error)
    }
}

/// How long one answer is waited for.
struct Patience<'a> {
    call: Call<'a>,
    until: Instant,
    interrupted: bool,
}

impl<'a> Patience<'a> {
    fn new(call: &Call<'a>) -> Self {
        let until = match call.kind() {
            // Nobody waits for the answers to these two; all the time is the script's.
            EventKind::Abort | EventKind::BackupShutdown => call.deadline(),
            _ => call.deadline().checked_sub((call.time_left() / 10).min(MARGIN)).unwrap_or_else(Instant::now),
        };
        Self { call: call.clone(), until, interrupted: false }
    }

    /// Waits until the script says something; some: it did not.
    fn wait(&mut self, stdout: BorrowedFd<'_>) -> Option<Ended> {
        loop {
            match self.call.wait_for(Some(stdout), self.until) {
                Ok(true) => return None,
                Ok(false) if self.interrupted => return Some(Ended::Interrupted),
                Ok(false) => return Some(Ended::Late),
                Err(Interrupted) => {
                    self.until = self.until.min(Instant::now() + GRACE);
                    self.call = Call::new(self.call.kind(), self.call.event());
                    self.interrupted = true;
                }
            }
        }
    }
}

fn unreadable(what: &str, phase: &str) -> VssError {
    VssError::new(VssCode::WriterErrorNonRetryable, format!("{what} closed its output in {phase}; it was killed"))
}

/// One line of an answer.
enum Line {
    Done,
    Failed(VssCode, String),
    Component(ComponentReply),
}

/// Reads `ok`, `failed CODE MESSAGE`, `component-failed CODE NAME TAB MESSAGE` and `component-data NAME TAB JSON`.
fn answer(line: &str, components: &[Component]) -> Option<Line> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let named = |name: &str| -> Option<&ComponentName> {
        Some(&components.iter().find(|component| component.name.to_string() == name)?.name)
    };
    let (code, text) = rest.split_once(' ').unwrap_or((rest, ""));
    match word {
        "ok" if rest.is_empty() => Some(Line::Done),
        "failed" => {
            let message = if text.is_empty() { "it gave no reason" } else { text };
            Some(Line::Failed(code_of(code)?, message.to_owned()))
        }
        "component-failed" => {
            let (name, message) = text.split_once('\t').unwrap_or((text, ""));
            let code = Some(code_of(code)?);
            Some(Line::Component(ComponentReply {
                code,
                message: message.to_owned(),
                ..ComponentReply::of(named(name)?.clone())
            }))
        }
        "component-data" => {
            let (name, data) = rest.split_once('\t')?;
            let data = serde_json::from_str(data).ok()?;
            Some(Line::Component(ComponentReply { data, ..ComponentReply::of(named(name)?.clone()) }))
        }
        _ => None,
    }
}

/// The codes of spec R 2.9 in a script's words, or by their full names.
fn code_of(word: &str) -> Option<VssCode> {
    Some(match word {
        "retryable" => VssCode::WriterErrorRetryable,
        "nonretryable" => VssCode::WriterErrorNonRetryable,
        "timeout" => VssCode::WriterErrorTimeout,
        "outofresources" => VssCode::WriterErrorOutOfResources,
        "inconsistentsnapshot" => VssCode::WriterErrorInconsistentSnapshot,
        "recoveryfailed" => VssCode::WriterErrorRecoveryFailed,
        name => name.parse::<VssCode>().ok().filter(|code| code.allowed_from_writer())?,
    })
}

/// The answer of a writer whose script failed or not.
impl From<Failure> for VssError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Said(error) | Failure::Dead(error) => error,
        }
    }
}

/// Shorthand for the trait's result.
pub(crate) fn into_answer(result: Result<EventReply, Failure>) -> Answer {
    result.map_err(VssError::from)
}
