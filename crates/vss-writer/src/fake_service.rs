//! The service's side of the writer socket, for tests of writers: takes registrations and calls events.

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use vss_api::ErrorParameters;
use vss_api::writer::{
    Event, EventComponent, EventKind, EventReply, EventVolume, INTERFACE, Identify, Identity, Register,
};
use vss_model::time::milliseconds;
use vss_model::{
    Attributes, BackupState, Context, SessionId, SetId, ShadowId, VolumeId, VssCode, VssError, WriterInstanceId,
};

/// Longest wait for a writer to connect or to answer, so that a broken test ends.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest message that is read.
const MESSAGE: usize = 4 << 20;

/// A socket at which writers register.
#[derive(Debug)]
pub struct FakeService {
    listener: UnixListener,
    path: PathBuf,
}

impl FakeService {
    /// Listens at `path`, in place of what was there.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn listen(path: &Path) -> io::Result<Self> {
        let _ = std::fs::remove_file(path);
        Ok(Self { listener: UnixListener::bind(path)?, path: path.to_owned() })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the next writer.
    ///
    /// # Errors
    /// The connection failed, or no `Register` came over it.
    pub fn accept(&self) -> io::Result<FakeConnection> {
        let (mut connection, register) = self.next()?;
        let registered = json!({ "instance_id": WriterInstanceId::random(), "service": "fake 0" });
        connection.send(&json!({ "parameters": registered }), &[])?;
        connection.register = Some(register);
        Ok(connection)
    }

    /// Refuses the next writer.
    ///
    /// # Errors
    /// The connection failed, or no `Register` came over it.
    pub fn refuse(&self, error: &VssError) -> io::Result<Register> {
        let (mut connection, register) = self.next()?;
        let name = format!("{INTERFACE}.VssError");
        connection.send(&json!({ "error": name, "parameters": ErrorParameters::from(error) }), &[])?;
        Ok(register)
    }

    fn next(&self) -> io::Result<(FakeConnection, Register)> {
        let (stream, _) = self.listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut connection = FakeConnection { stream, register: None };
        let mut call = connection.receive()?;
        if call["method"] != format!("{INTERFACE}.Register") || call["upgrade"] != true {
            return Err(io::Error::other(format!("no Register with upgrade: {call}")));
        }
        Ok((connection, serde_json::from_value(call["parameters"].take())?))
    }
}

/// A registered writer, as the service sees it. Its drop is the service's end of the connection.
#[derive(Debug)]
pub struct FakeConnection {
    stream: UnixStream,
    register: Option<Register>,
}

impl FakeConnection {
    /// What the writer registered with.
    #[must_use]
    pub fn register(&self) -> Option<&Register> {
        self.register.as_ref()
    }

    /// Calls Identify.
    ///
    /// # Errors
    /// The connection failed; `Ok(Err)` is the writer's own error.
    pub fn identify(&mut self) -> io::Result<Result<Identity, VssError>> {
        let identify = Identify { session_id: SessionId::random(), time_left_ms: 30_000 };
        self.begin(EventKind::Identify, &identify, &[])?;
        self.answer()
    }

    /// Calls an event.
    ///
    /// # Errors
    /// The connection failed, which is how a dead writer looks, or the answer was an error.
    pub fn call(&mut self, kind: EventKind, event: &Event) -> io::Result<EventReply> {
        self.call_with(kind, event, &[])
    }

    /// Calls an event with file descriptors.
    ///
    /// # Errors
    /// As [`FakeConnection::call`].
    pub fn call_with(&mut self, kind: EventKind, event: &Event, fds: &[BorrowedFd<'_>]) -> io::Result<EventReply> {
        self.begin(kind, event, fds)?;
        self.answer()?.map_err(io::Error::other)
    }

    /// Calls an event and does not wait for the answer.
    ///
    /// # Errors
    /// The connection failed.
    pub fn begin(&mut self, kind: EventKind, parameters: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send(&json!({ "method": format!("{INTERFACE}.{}", kind.name()), "parameters": parameters }), fds)
    }

    /// Sends any message.
    ///
    /// # Errors
    /// The connection failed.
    pub fn send(&mut self, message: &Value, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(message)?;
        bytes.push(0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::other("more than 64 file descriptors"));
        }
        let sent = rustix::net::sendmsg(&self.stream, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
        if sent < bytes.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(())
    }

    /// Receives any message.
    ///
    /// # Errors
    /// The connection failed, or what came is not JSON.
    pub fn receive(&mut self) -> io::Result<Value> {
        let (mut message, mut byte) = (Vec::new(), [0]);
        let until = Instant::now() + PATIENCE;
        while message.len() < MESSAGE && Instant::now() < until {
            self.stream.read_exact(&mut byte)?;
            if byte[0] == 0 {
                return Ok(serde_json::from_slice(&message)?);
            }
            message.push(byte[0]);
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    fn answer<T: DeserializeOwned>(&mut self) -> io::Result<Result<T, VssError>> {
        let mut reply = self.receive()?;
        if reply.get("error").is_none() {
            return Ok(Ok(serde_json::from_value(reply["parameters"].take())?));
        }
        let parameters: Result<ErrorParameters, _> = serde_json::from_value(reply["parameters"].take());
        Ok(Err(parameters.map_or_else(|_| VssError::new(VssCode::Unexpected, reply.to_string()), VssError::from)))
    }
}

/// A session of a full backup of the volume at `volume`, with no components chosen and this much time for each event.
#[must_use]
pub fn event(volume: &Path, time_left: Duration) -> Event {
    Event {
        session_id: SessionId::random(),
        set_id: Some(SetId::random()),
        context: Context::Backup,
        attributes: Attributes::empty(),
        backup_state: BackupState::default(),
        components: Vec::<EventComponent>::new(),
        volumes: vec![EventVolume {
            volume: volume.to_owned(),
            volume_id: VolumeId::file_system("ext4", "00000000-0000-0000-0000-000000000000"),
            shadow_id: ShadowId::random(),
            provider: "fake".into(),
            cut_group: 0,
            directory: None,
        }],
        time_left_ms: milliseconds(time_left),
    }
}
