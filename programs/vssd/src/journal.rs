//! Entries for journald, with a priority and searchable fields, when standard error is connected to it (sd-daemon(3)).
//!
//! An entry is made where something is told, and sent by the one thread of the log (`log.rs`): nobody else may wait for
//! journald, which takes nothing while the file system of its files is frozen.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::os::linux::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;

use crate::log::Log;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Where journald takes entries (its native protocol).
const SOCKET: &str = "/run/systemd/journal/socket";

/// True when what we write to standard error goes to journald: it says which stream is its own.
pub(crate) fn is_connected() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let stderr = std::fs::metadata("/proc/self/fd/2");
    stderr.is_ok_and(|stderr| stream == format!("{}:{}", stderr.st_dev(), stderr.st_ino()))
}

/// One entry.
#[derive(Debug)]
pub(crate) struct Entry {
    /// As syslog(3) counts: 3 is an error, 4 a warning, 6 information, 7 debugging.
    priority: u8,
    /// The sentence, and its values after it, for who reads.
    message: String,
    /// The values, for who searches: `set_id` is the field VSS_SET_ID.
    fields: Vec<u8>,
}

impl Entry {
    fn of(event: &Event<'_>) -> Self {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        let mut values = Values::default();
        event.record(&mut values);
        Self { priority, message: values.sentence + &values.shown, fields: values.fields }
    }

    /// The datagram for journald.
    fn datagram(&self) -> Vec<u8> {
        let mut datagram = format!("PRIORITY={}\nSYSLOG_IDENTIFIER=vssd\n", self.priority).into_bytes();
        add_field(&mut datagram, "MESSAGE", &self.message);
        datagram.extend_from_slice(&self.fields);
        datagram
    }

    /// The lines for standard error, where an entry cannot be sent: the priority is all that journald reads from one.
    fn lines(&self) -> String {
        self.message.lines().map(|line| format!("<{}>{line}\n", self.priority)).collect()
    }

    /// Hands the entry to journald. May block.
    pub(crate) fn send(&self, stderr: &mut impl Write) {
        let sent = UnixDatagram::unbound().and_then(|socket| socket.send_to(&self.datagram(), SOCKET));
        if sent.is_err() {
            // A closed stderr is nothing that the log could report.
            drop(stderr.write_all(self.lines().as_bytes()));
        }
    }
}

/// Collects what an event carries.
#[derive(Default)]
struct Values {
    sentence: String,
    shown: String,
    fields: Vec<u8>,
}

impl Visit for Values {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.sentence = format!("{value:?}");
            return;
        }
        let text = format!("{value:?}");
        let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        add_field(&mut self.fields, &format!("VSS_{}", field.name().chars().map(upper).collect::<String>()), &text);
        // Writing to a String cannot fail.
        let _ = write!(self.shown, " {}={text}", field.name());
    }
}

/// A field in journald's native protocol: a value of several lines has its length before it.
fn add_field(datagram: &mut Vec<u8>, name: &str, value: &str) {
    datagram.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        datagram.push(b'\n');
        datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        datagram.push(b'=');
    }
    datagram.extend_from_slice(value.as_bytes());
    datagram.push(b'\n');
}

/// Makes an entry of everything that is told.
pub(crate) struct Entries(pub(crate) Log);

impl<S: Subscriber> Layer<S> for Entries {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        self.0.push(crate::log::Line::Entry(Entry::of(event)));
    }
}

/// Writes a line to `stderr`, as a warning where it is journald's.
pub(crate) fn warn(stderr: &mut impl Write, line: &str) -> io::Result<()> {
    writeln!(stderr, "{}{line}", if is_connected() { "<4>" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    fn told(tell: impl FnOnce()) -> Entry {
        let log = Log::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Entries(log.clone())), tell);
        match log.take() {
            Some(crate::log::Line::Entry(entry)) => entry,
            other => panic!("no entry: {other:?}"),
        }
    }

    #[test]
    fn an_event_is_an_entry_with_fields() {
        let entry = told(|| tracing::warn!(set_id = %"12", count = 3, writer = "sql", "the set was not made"));
        let text = String::from_utf8(entry.datagram()).unwrap();
        assert_eq!(
            text,
            "PRIORITY=4\nSYSLOG_IDENTIFIER=vssd\nMESSAGE=the set was not made set_id=12 count=3 writer=sql\n\
             VSS_SET_ID=12\nVSS_COUNT=3\nVSS_WRITER=sql\n"
        );
        assert_eq!(entry.lines(), "<4>the set was not made set_id=12 count=3 writer=sql\n");
    }

    /// A value that ends a field early could forge another one.
    #[test]
    fn a_value_of_several_lines_has_its_length() {
        let entry = told(|| tracing::error!(reason = "a\nPRIORITY=0", "no"));
        let datagram = entry.datagram();
        let value = b"VSS_REASON\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\n";
        assert!(datagram.ends_with(value), "{}", String::from_utf8_lossy(&datagram));
        assert_eq!(entry.lines(), "<3>no reason=a\n<3>PRIORITY=0\n");
    }

    #[test]
    fn another_stream_is_not_journald() {
        assert!(!is_connected(), "tests do not write to journald");
    }
}
