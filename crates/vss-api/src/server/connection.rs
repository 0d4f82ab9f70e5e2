//! One connection: reads, hands over, answers in order, and sees the peer's end at any moment.

use super::{
    ConnectionId, Face, Handler, Replier, WriterReplier,
    bounds::Admission,
    line::LineEnd,
    replier::{Answer, Decision, Given},
    request::{self, Request, What},
    socket::Socket,
    stream::Part,
};
use crate::{
    frames::{Frames, Outgoing, encode_error},
    writer,
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// Most unanswered or unsent calls of one connection; reading then rests.
const UNANSWERED: usize = 32;

/// Unsent bytes of replies from which on reading rests.
const UNSENT_BYTES: usize = 1 << 20;

/// A message longer than this holds one of its uid's places for long messages.
const LONG_MESSAGE: usize = 64 << 10;

/// One connection that was let in and announced to the handler.
pub(super) struct Connection {
    socket: Socket,
    face: Face,
    announced: Announced,
    admission: Admission,
}

/// Tells the handler of the end, whatever the reason of the end.
struct Announced {
    id: ConnectionId,
    handler: Arc<dyn Handler>,
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.handler.disconnected(self.id);
    }
}

/// One reply to come, at its place in the order.
struct Slot {
    reply: oneshot::Receiver<Given>,
    place: OwnedSemaphorePermit,
}

/// What a connection has not yet got rid of.
struct Backlog {
    places: Arc<Semaphore>,
    unsent: Arc<AtomicUsize>,
    sent: Notify,
}

impl Backlog {
    fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(UNANSWERED)), unsent: Arc::default(), sent: Notify::new() }
    }

    /// A place in the order of replies, and what fills it.
    fn answer(&self, place: OwnedSemaphorePermit) -> (Answer, Slot) {
        let (answer, reply) = Answer::new(self.unsent.clone());
        (answer, Slot { reply, place })
    }

    /// Waits until one more call may be read.
    async fn place(&self) -> io::Result<OwnedSemaphorePermit> {
        while self.unsent.load(Ordering::Relaxed) > UNSENT_BYTES {
            self.sent.notified().await;
        }
        self.places.clone().acquire_owned().await.map_err(io::Error::other)
    }
}

impl Connection {
    pub(super) fn new(
        id: ConnectionId,
        socket: Socket,
        face: Face,
        handler: Arc<dyn Handler>,
        admission: Admission,
    ) -> Self {
        Self { socket, face, announced: Announced { id, handler }, admission }
    }

    /// Serves the connection until the peer ends it, breaks the rules or stops reading, or `shutdown`.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        let mut frames = Frames::new(self.admission.bounds().message_bytes);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            line = self.answer_calls(&mut frames) => match line {
                Ok(Some(line)) => tokio::select! {
                    biased;
                    () = shutdown.cancelled() => {}
                    () = line.run(&self.socket, frames) => {}
                },
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, connection = %self.announced.id, "given up"),
            },
        }
    }

    /// Reads and answers until the line turns round or the peer sends what cannot be understood.
    ///
    /// # Errors
    /// The peer ended the connection, was too slow, or does not read.
    async fn answer_calls(&self, frames: &mut Frames) -> io::Result<Option<LineEnd>> {
        let backlog = Backlog::new();
        let (slots, replies) = mpsc::unbounded_channel();
        let all_read = Notify::new();
        let reading = async {
            let line = self.read_calls(frames, &backlog, slots).await?;
            all_read.notify_one();
            Ok(line)
        };
        tokio::select! {
            answered = async { tokio::try_join!(reading, write_replies(&self.socket, &backlog, replies)) } => {
                answered.map(|(line, ())| line)
            }
            () = async { all_read.notified().await; self.socket.ended().await } => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    async fn read_calls(
        &self,
        frames: &mut Frames,
        backlog: &Backlog,
        slots: mpsc::UnboundedSender<Slot>,
    ) -> io::Result<Option<LineEnd>> {
        let mut first = true;
        loop {
            let place = self.unless_ended(backlog.place()).await??;
            let queue = |bytes, place| {
                let (answer, slot) = backlog.answer(place);
                answer.send(Outgoing { bytes, fds: Vec::new() });
                drop(slots.send(slot));
            };
            let Some(message) = self.next_message(frames, first).await? else {
                queue(request::invalid_parameter("message"), place);
                return Ok(None);
            };
            first = false;
            let Request { what, oneway, more } = request::read(&message, self.face);
            drop(message);
            match what {
                What::Garbage(answer) => {
                    queue(answer, place);
                    return Ok(None);
                }
                What::Answer(_) if oneway => {}
                What::Answer(answer) => queue(answer, place),
                What::Call(interface, call) => {
                    let replier = if oneway {
                        Replier::oneway(interface, place)
                    } else {
                        let (answer, slot) = backlog.answer(place);
                        drop(slots.send(slot));
                        Replier::new(interface, self.admission.bounds().message_bytes, more, answer)
                    };
                    self.announced.handler.call(self.announced.id, call, replier);
                }
                What::Register(register) => match self.unless_ended(self.register(register)).await? {
                    Decision::Accepted(reply, line) => {
                        queue(reply, place);
                        return Ok(Some(line));
                    }
                    Decision::Refused(error) => queue(encode_error(writer::INTERFACE, &error), place),
                },
            }
        }
    }

    /// Waits for something else than the peer, and sees the peer's end meanwhile. While the reader reads, the end comes by
    /// itself, behind the calls that were sent before it.
    async fn unless_ended<T>(&self, waited_for: impl Future<Output = T>) -> io::Result<T> {
        tokio::select! {
            biased;
            value = waited_for => Ok(value),
            () = self.socket.ended() => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    async fn register(&self, register: writer::Register) -> Decision {
        let (replier, decision) = WriterReplier::new();
        self.announced.handler.register(self.announced.id, register, replier);
        match decision.await {
            Ok(decision) => decision,
            Err(_) => Decision::Refused(super::replier::unanswered()),
        }
    }

    /// The next message; none when it is longer than the bound.
    ///
    /// # Errors
    /// `TimedOut` for a message that takes longer than it may, and for a silent connection while the service is crowded.
    async fn next_message(&self, frames: &mut Frames, first: bool) -> io::Result<Option<Vec<u8>>> {
        let message_time = self.admission.bounds().message_time;
        let mut deadline = Instant::now() + message_time;
        let mut begun = frames.held() > 0;
        let mut long = None;
        loop {
            match frames.next() {
                Ok(Some(message)) => return Ok(Some(message)),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, connection = %self.announced.id, "given up");
                    return Ok(None);
                }
            }
            if !begun && frames.held() > 0 {
                begun = true;
                deadline = Instant::now() + message_time;
            }
            if frames.held() > LONG_MESSAGE && long.is_none() {
                let place = self.admission.long_messages.clone().acquire_owned();
                long = Some(self.unless_ended(timeout_at(deadline, place)).await??.map_err(io::Error::other)?);
            }
            let received = match timeout_at(deadline, self.socket.receive(frames)).await {
                Ok(received) => received?,
                Err(_) if begun || (first && self.admission.crowded()) => return Err(io::ErrorKind::TimedOut.into()),
                Err(_) => {
                    deadline = Instant::now() + message_time;
                    continue;
                }
            };
            if received == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Sends the replies in the order of the calls, until there will be no more.
async fn write_replies(
    socket: &Socket,
    backlog: &Backlog,
    mut replies: mpsc::UnboundedReceiver<Slot>,
) -> io::Result<()> {
    while let Some(Slot { reply, place }) = replies.recv().await {
        match reply.await {
            Ok(Given::One(Outgoing { bytes, fds })) => {
                socket.send(&bytes, &fds).await?;
                backlog.unsent.fetch_sub(bytes.len(), Ordering::Relaxed);
            }
            Ok(Given::Many(mut parts)) => {
                while let Some(Part { bytes, sent }) = parts.recv().await {
                    socket.send_patiently(&bytes).await?;
                    // Nobody waits for it any more when the stream was dropped meanwhile.
                    let _gone = sent.send(());
                }
            }
            Err(_) => continue,
        }
        drop(place);
        backlog.sent.notify_one();
    }
    Ok(())
}
