//! The loop that registers a writer, serves its events, and keeps its promises when the service does not.

use crate::call::wait;
use crate::sessions::{Sessions, reply, timed_out};
use crate::{AnyWriter, Call, Interrupted, Stop};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant};
use vss_api::client::{Client, ClientError, IncomingEvent, Received, WriterEvents};
use vss_api::writer::{Event, EventCall, EventKind, EventReply, Identify, Registered};
use vss_model::time::milliseconds;
use vss_model::{VssCode, VssError, WriterInstanceId, limits};

/// First pause before connecting again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause before connecting again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long the service may take to answer `Register`, to send the rest of a call, and to take an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time for an Abort or a BackupShutdown of our own, when nobody waits for the answer.
const FAREWELL: Duration = limits::WRITER_FAREWELL;

/// How [`run`] runs.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Ends the loop; none: it runs until the service refuses.
    pub stop: Option<&'a Stop>,
    /// True: connect again whenever the service comes back, wait for it at first, and wait for a registration that is in the
    /// way to end. False: one connection, then return.
    pub reconnect: bool,
    /// Who is told what happens.
    pub monitor: &'a dyn Monitor,
}

impl Default for Options<'_> {
    /// For ever, reconnecting, silently.
    fn default() -> Self {
        Self { stop: None, reconnect: true, monitor: &Silent }
    }
}

/// Is told what happens. It is called on the writer's thread, also in the freeze window: it must not print, nor write to
/// a file, while a session is frozen.
pub trait Monitor: Sync {
    /// Something happened.
    fn notice(&self, notice: &Notice<'_>);
}

/// Listens to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Monitor for Silent {
    fn notice(&self, _: &Notice<'_>) {}
}

/// What a [`Monitor`] is told.
#[derive(Debug)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// The service took the registration.
    Registered {
        /// The id of this registration.
        instance_id: WriterInstanceId,
        /// Who serves.
        service: &'a str,
    },
    /// The service cannot be reached, or the connection is lost; told once, not for each new attempt.
    Lost {
        /// Why, half a sentence.
        why: &'a str,
    },
    /// The service refuses the registration for now, because this writer is registered already or there are too many; told
    /// once, not for each new attempt.
    Waiting {
        /// Why.
        why: &'a VssError,
    },
    /// The handler of an event begins.
    Began {
        /// Which.
        kind: EventKind,
    },
    /// The handler of an event has ended.
    Handled {
        /// Which.
        kind: EventKind,
        /// Why it failed; none: it did not.
        failure: Option<&'a VssError>,
        /// How long the handler took.
        took: Duration,
    },
    /// The loop called Abort (or BackupShutdown) by itself, because `why`.
    ByItself {
        /// Which.
        kind: EventKind,
        /// Half a sentence.
        why: &'a str,
    },
}

/// Why [`run`] gave up.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The service refused the registration; trying again would not help.
    #[error("the service refused the writer: {0}")]
    Refused(VssError),
    /// What answers at the socket does not speak the interface.
    #[error("what serves the socket does not speak org.linuxvss.Writer: {0}")]
    Protocol(String),
    /// Without `reconnect`: the service cannot be reached, or the connection broke.
    #[error("the connection with the service failed")]
    Connection(#[source] ClientError),
}

/// Registers `writer` at `socket` and serves its events until the stop flag, a refusal that will not pass, or, without
/// `reconnect`, any refusal or the end of the connection.
///
/// The writer's own promises are kept here (spec R 2.4 and 2.5). When Thaw or Abort does not come within the writer's
/// freeze limit, [`Writer::abort`] is called at once and every later answer of that session says
/// `VSS_E_WRITERERROR_TIMEOUT`. When the connection ends, or the stop flag comes, each open session gets Abort (unless its
/// copy is made) and BackupShutdown.
///
/// # Errors
/// See [`RunError`].
pub fn run(socket: &Path, writer: &mut dyn AnyWriter, options: &Options<'_>) -> Result<(), RunError> {
    let stop: Vec<BorrowedFd<'_>> = options.stop.map(AsFd::as_fd).into_iter().collect();
    run_until(socket, writer, options.reconnect, options.monitor, &stop)
}

/// As [`run`], until one of `stop` is closed.
pub(crate) fn run_until(
    socket: &Path,
    writer: &mut dyn AnyWriter,
    reconnect: bool,
    monitor: &dyn Monitor,
    stop: &[BorrowedFd<'_>],
) -> Result<(), RunError> {
    let mut pause = FIRST_PAUSE;
    let (mut told, mut told_to_wait) = (false, false);
    loop {
        let outcome = match register(socket, writer) {
            Ok((Registered { instance_id, service }, line)) => {
                monitor.notice(&Notice::Registered { instance_id, service: &service });
                (pause, told, told_to_wait) = (FIRST_PAUSE, false, false);
                let sessions = Sessions::default();
                let mut service = Service { line, writer: &mut *writer, stop, monitor, sessions };
                let outcome = catch_unwind(AssertUnwindSafe(|| service.serve()));
                // Also when a handler has panicked: the process may live on, and what it holds must not stay held.
                service.farewell();
                outcome.unwrap_or_else(|panic| resume_unwind(panic))
            }
            Err(ClientError::Vss(error)) if reconnect && will_pass(&error) => {
                if !told_to_wait {
                    monitor.notice(&Notice::Waiting { why: &error });
                    told_to_wait = true;
                }
                // The service is there: losing it next would be news.
                told = false;
                if wait(None, stop, Instant::now() + pause).is_err() {
                    return Ok(());
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
                continue;
            }
            Err(ClientError::Vss(error)) => return Err(RunError::Refused(error)),
            Err(error @ (ClientError::Protocol(_) | ClientError::Varlink { .. })) => {
                return Err(RunError::Protocol(error.to_string()));
            }
            Err(error) => Err(error),
        };
        if stopped(stop) {
            return Ok(());
        }
        if !reconnect {
            return outcome.map_err(RunError::Connection);
        }
        if !told {
            let why =
                outcome.err().map_or_else(|| "the service closed the connection".to_owned(), |error| error.to_string());
            monitor.notice(&Notice::Lost { why: &why });
            told = true;
        }
        if wait(None, stop, Instant::now() + pause).is_err() {
            return Ok(());
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// True for a refusal that ends with other registrations: another instance may stop.
fn will_pass(error: &VssError) -> bool {
    matches!(error.code, VssCode::WriterAlreadySubscribed | VssCode::OutOfMemory)
}

fn register(socket: &Path, writer: &dyn AnyWriter) -> Result<(Registered, WriterEvents), ClientError> {
    let client = Client::connect(socket)?;
    client.set_timeout(Some(PATIENCE))?;
    let (registered, line) = client.register(writer.registration())?;
    line.set_timeout(Some(PATIENCE))?;
    Ok((registered, line))
}

/// True when the stop flag has come.
fn stopped(stop: &[BorrowedFd<'_>]) -> bool {
    wait(None, stop, Instant::now()).is_err()
}

/// One connection's life.
struct Service<'a> {
    line: WriterEvents,
    writer: &'a mut dyn AnyWriter,
    stop: &'a [BorrowedFd<'a>],
    monitor: &'a dyn Monitor,
    sessions: Sessions,
}

impl Service<'_> {
    /// Serves calls until the connection ends or the stop flag comes.
    fn serve(&mut self) -> Result<(), ClientError> {
        loop {
            if !self.line.has_read_ahead() {
                let until = self.sessions.next_timeout().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
                match wait(Some(self.line.as_fd()), self.stop, until) {
                    Ok(true) => {}
                    Ok(false) => {
                        self.thaw_the_late();
                        continue;
                    }
                    Err(Interrupted) => return Ok(()),
                }
            }
            let IncomingEvent { call, fds } = match self.line.receive()? {
                Received::Event(event) => *event,
                Received::PassedOver => continue,
                Received::Closed => return Ok(()),
            };
            match event_of(call) {
                Incoming::Identify(identify) => self.identify(&identify)?,
                Incoming::Event(kind, event) => {
                    let answer = self.handle(kind, &event, &fds);
                    self.line.reply(&answer)?;
                }
            }
        }
    }

    fn identify(&mut self, identify: &Identify) -> Result<(), ClientError> {
        self.monitor.notice(&Notice::Began { kind: EventKind::Identify });
        let began = Instant::now();
        let answer = self.writer.identify(identify);
        self.monitor.notice(&Notice::Handled {
            kind: EventKind::Identify,
            failure: answer.as_ref().err(),
            took: began.elapsed(),
        });
        match answer {
            Ok(identity) => self.line.reply(&identity),
            Err(error) => self.line.refuse(&error),
        }
    }

    /// Runs the handler of one event and says what to answer.
    fn handle(&mut self, kind: EventKind, event: &Event, directories: &[OwnedFd]) -> EventReply {
        let limit = self.limit();
        if let Err(error) = self.sessions.begin(kind, event, limit) {
            return reply(kind, Err(error));
        }
        self.monitor.notice(&Notice::Began { kind });
        let began = Instant::now();
        let mut call = Call::new(kind, event).with_directories(directories);
        if kind == EventKind::Freeze {
            call = call.until(began + limit.min(Duration::from_millis(event.time_left_ms)));
        }
        // What ends a hold is never cut short.
        if !matches!(kind, EventKind::Thaw | EventKind::Abort | EventKind::BackupShutdown) {
            call = call.interrupted_by(self.line.as_fd());
            call = self.stop.iter().fold(call, |call, stop| call.interrupted_by(*stop));
        }
        let mut answer = self.writer.event(&call);
        drop(call);
        if self.sessions.end(kind, event.session_id, answer.is_ok()) {
            self.thaw_the_late();
            answer = Err(timed_out(limit));
        }
        self.monitor.notice(&Notice::Handled { kind, failure: answer.as_ref().err(), took: began.elapsed() });
        reply(kind, answer)
    }

    /// The longest time from Freeze to Thaw that the writer allows.
    fn limit(&self) -> Duration {
        let own = self.writer.registration().freeze_timeout_ms.map(Duration::from_millis);
        own.unwrap_or(limits::WRITER_FREEZE).min(limits::WRITER_FREEZE)
    }

    /// Aborts the sessions whose freeze timer has run out.
    fn thaw_the_late(&mut self) {
        for event in self.sessions.take_timed_out() {
            self.by_itself(EventKind::Abort, event, "Thaw did not come in time");
        }
    }

    /// Ends every session that is still open.
    fn farewell(&mut self) {
        for (event, unfinished) in self.sessions.take_all() {
            let why = "the connection with the service has ended";
            if unfinished {
                self.by_itself(EventKind::Abort, event.clone(), why);
            }
            self.by_itself(EventKind::BackupShutdown, event, why);
        }
    }

    fn by_itself(&mut self, kind: EventKind, mut event: Event, why: &str) {
        event.time_left_ms = milliseconds(FAREWELL);
        for volume in &mut event.volumes {
            volume.directory = None;
        }
        self.monitor.notice(&Notice::ByItself { kind, why });
        let began = Instant::now();
        let answer = self.writer.event(&Call::new(kind, &event));
        self.monitor.notice(&Notice::Handled { kind, failure: answer.as_ref().err(), took: began.elapsed() });
    }
}

/// A call, taken apart.
enum Incoming {
    Identify(Identify),
    Event(EventKind, Event),
}

fn event_of(call: EventCall) -> Incoming {
    let (kind, event) = match call {
        EventCall::Identify(identify) => return Incoming::Identify(identify),
        EventCall::PrepareBackup(event) => (EventKind::PrepareBackup, event),
        EventCall::PrepareSnapshot(event) => (EventKind::PrepareSnapshot, event),
        EventCall::Freeze(event) => (EventKind::Freeze, event),
        EventCall::Thaw(event) => (EventKind::Thaw, event),
        EventCall::PostSnapshot(event) => (EventKind::PostSnapshot, event),
        EventCall::Abort(event) => (EventKind::Abort, event),
        EventCall::BackupComplete(event) => (EventKind::BackupComplete, event),
        EventCall::BackupShutdown(event) => (EventKind::BackupShutdown, event),
    };
    Incoming::Event(kind, event)
}

/// An internal failure of a handler that has no better code: it would happen again.
impl From<Interrupted> for VssError {
    fn from(error: Interrupted) -> Self {
        Self::new(VssCode::WriterErrorRetryable, format!("Interrupted: {error}"))
    }
}
