//! The writers of one session: who is told what, when, and how long its answer is waited for (spec R 2.2 to 2.6). What an
//! answer means stands in [`super::session_writer`].

use super::identify::Asked;
use super::port::PortError;
use super::session_writer::SessionWriter;
use crate::events::Teller;
use crate::fault;
use std::{os::fd::OwnedFd, time::Duration};
use tokio::{task::JoinSet, time::Instant};
use vss_api::writer::{Event, EventComponent, EventKind, EventReply, EventVolume};
use vss_model::involvement::{self, MountTable};
use vss_model::time::milliseconds;
use vss_model::{
    AppLevel, Attributes, BackupState, ComponentName, Context, SessionId, SetId, VolumeId, VssCode, VssError,
    WriterState, WriterStatus, limits,
};

/// What all events of one backup have in common.
#[derive(Debug, Clone)]
pub struct EventFacts {
    /// The session.
    pub session_id: SessionId,
    /// The set; none before there is one.
    pub set_id: Option<SetId>,
    /// What the set is for.
    pub context: Context,
    /// The attribute bits that the requester added to it.
    pub attributes: Attributes,
    /// What kind of backup it is.
    pub backup_state: BackupState,
    /// The volumes of the set.
    pub volumes: Vec<EventVolume>,
    /// Who tells what the writers did.
    pub teller: Teller,
}

/// The writers of one session.
#[derive(Default)]
pub struct SessionWriters {
    writers: Vec<SessionWriter>,
    prepare_limit: Duration,
}

impl SessionWriters {
    /// The writers of these that said what they own; those that did not are logged and left out (spec R 2.2).
    ///
    /// `prepare_limit` is how long each may take to get ready.
    #[must_use]
    pub fn new(asked: Vec<Asked>, prepare_limit: Duration) -> Self {
        let identified = asked.into_iter().filter_map(|asked| {
            let Asked { writer, freeze_limit, metadata, .. } = asked;
            match metadata {
                Ok(metadata) => Some(SessionWriter::new(writer, metadata, freeze_limit)),
                Err(error) => {
                    tracing::warn!(writer = writer.register.name, reason = error.message, "did not identify itself");
                    None
                }
            }
        });
        Self { writers: identified.collect(), prepare_limit }
    }

    /// All writers that said what they own.
    pub fn iter(&self) -> impl Iterator<Item = &SessionWriter> {
        self.writers.iter()
    }

    /// All writers that said what they own, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut SessionWriter> {
        self.writers.iter_mut()
    }

    /// The writers that the backup concerns.
    pub fn involved(&self) -> impl Iterator<Item = &SessionWriter> {
        self.writers.iter().filter(|writer| writer.is_involved())
    }

    /// The status of every writer.
    #[must_use]
    pub fn statuses(&self) -> Vec<WriterStatus> {
        self.writers.iter().map(SessionWriter::status).collect()
    }

    /// Involves every writer with a component on one of these volumes, with just those components (design 3).
    pub fn involve_by_volume(&mut self, volumes: &[VolumeId], mounts: MountTable<'_>) {
        for writer in &mut self.writers {
            writer.components = writer
                .metadata
                .components
                .iter()
                .filter(|component| involvement::concerns(&involvement::volumes_of(component, mounts), volumes))
                .map(|component| component.name.clone())
                .collect();
        }
    }

    /// The first involved writer that failed and must fail the set; a partial failure too, since a component is lost.
    #[must_use]
    pub fn first_failure(&self) -> Option<VssError> {
        self.involved().find_map(|writer| {
            writer.failure.clone().map(|failure| {
                let state = if writer.state.is_failed() { format!(" ({})", writer.state) } else { String::new() };
                failure.while_doing(format!("Writer {}{state}", writer.metadata.name)).with_hint(
                    "Mend the writer, leave it out with --writer or --no-writers, or accept less with --allow-degraded",
                )
            })
        })
    }

    /// The instant when the first frozen writer's limit ends; none while none is frozen.
    #[must_use]
    pub fn freeze_deadline(&self) -> Option<Instant> {
        self.writers.iter().filter_map(|writer| writer.frozen_at.map(|at| at + writer.freeze_limit)).min()
    }

    /// Tells PrepareBackup, PrepareSnapshot or BackupComplete to every involved writer that has not failed, all at once.
    pub async fn tell(&mut self, kind: EventKind, facts: &EventFacts) {
        let limit = if kind == EventKind::BackupComplete { limits::WRITER_FINISH } else { self.prepare_limit };
        let chosen = self.chosen(|writer| {
            let told_already = kind == EventKind::PrepareSnapshot && writer.in_snapshot;
            !writer.state.is_failed() && !told_already
        });
        for &index in &chosen {
            self.writers[index].began = true;
            self.writers[index].in_snapshot |= kind == EventKind::PrepareSnapshot;
        }
        self.call(&chosen, kind, facts, |_| limit).await;
    }

    /// Freezes one level; a writer that is frozen already is left alone. No answer is waited for beyond the first limit of
    /// all that are frozen then: one that is slow must not keep the others frozen for longer than they can bear.
    pub async fn freeze(&mut self, level: AppLevel, facts: &EventFacts) {
        let chosen = self.chosen(|writer| {
            writer.metadata.level == level
                && writer.state == WriterState::WaitingForFreeze
                && writer.frozen_at.is_none()
        });
        let now = Instant::now();
        for &index in &chosen {
            self.writers[index].frozen_at = Some(now);
        }
        let left = self.freeze_deadline().map_or(limits::WRITER_FREEZE, |deadline| deadline - now);
        // Each is told its own limit: what it may rely on once it is frozen.
        let call = |&index: &usize| {
            (index, self.event(index, EventKind::Freeze, facts, self.writers[index].freeze_limit), Vec::new(), left)
        };
        let calls = chosen.iter().map(call).collect();
        self.run(EventKind::Freeze, facts, calls).await;
    }

    /// Thaws one level. A writer whose limit has passed gets no Thaw: it failed with TIMEOUT, and Abort follows.
    pub async fn thaw(&mut self, level: AppLevel, facts: &EventFacts) {
        let chosen =
            self.chosen(|writer| writer.metadata.level == level && writer.state == WriterState::WaitingForThaw);
        let now = Instant::now();
        let (in_time, late): (Vec<usize>, Vec<usize>) = chosen.into_iter().partition(|&index| {
            let writer = &self.writers[index];
            writer.frozen_at.is_none_or(|at| now < at + writer.freeze_limit)
        });
        for index in late {
            let writer = &mut self.writers[index];
            let limit = writer.freeze_limit;
            writer.fail(
                EventKind::Freeze,
                VssError::new(
                    VssCode::WriterErrorTimeout,
                    format!("it was frozen for longer than its limit of {limit:?}"),
                ),
            );
        }
        self.call(&in_time, EventKind::Thaw, facts, |writer| writer.freeze_limit.min(limits::WRITER_THAW)).await;
        for index in in_time {
            self.writers[index].end_freeze();
        }
    }

    /// Tells PostSnapshot, each with the directories of its volumes.
    pub async fn post_snapshot(
        &mut self,
        facts: &EventFacts,
        directories: &[(usize, OwnedFd)],
    ) -> Result<(), VssError> {
        let chosen = self.chosen(|writer| writer.state == WriterState::WaitingForPostSnapshot);
        let mut calls = Vec::new();
        for &index in &chosen {
            let mut event = self.event(index, EventKind::PostSnapshot, facts, limits::WRITER_FINISH);
            let mut fds = Vec::new();
            for (volume, directory) in directories {
                event.volumes[*volume].directory = u32::try_from(fds.len()).ok();
                fds.push(directory.try_clone().map_err(|error| {
                    VssError::new(VssCode::OutOfMemory, format!("Cannot duplicate a directory of a copy: {error}"))
                })?);
            }
            calls.push((index, event, fds, limits::WRITER_FINISH));
        }
        self.run(EventKind::PostSnapshot, facts, calls).await;
        for index in chosen {
            self.writers[index].in_snapshot = false;
        }
        Ok(())
    }

    /// Tells Abort to the writers that failed in Freeze or Thaw, so that they go back to normal while the set goes on
    /// without them; a failure in PrepareSnapshot brings no Abort (spec R 2.5).
    pub async fn abort_failed(&mut self, facts: &EventFacts) {
        let failed = [WriterState::FailedAtFreeze, WriterState::FailedAtThaw];
        let chosen = self.chosen(|writer| writer.in_snapshot && failed.contains(&writer.state));
        self.abort(&chosen, facts).await;
    }

    /// Tells Abort to every writer that is between PrepareSnapshot and PostSnapshot (spec R 2.5).
    pub async fn abort_snapshot(&mut self, facts: &EventFacts) {
        let chosen = self.chosen(|writer| writer.in_snapshot);
        self.abort(&chosen, facts).await;
    }

    /// Tells Abort to every writer that took part, whatever it did last: the requester gave up.
    pub async fn abort_all(&mut self, facts: &EventFacts) {
        let chosen = self.chosen(|writer| writer.began);
        self.abort(&chosen, facts).await;
    }

    async fn abort(&mut self, chosen: &[usize], facts: &EventFacts) {
        self.call(chosen, EventKind::Abort, facts, |_| limits::WRITER_FAREWELL).await;
        for &index in chosen {
            let writer = &mut self.writers[index];
            writer.in_snapshot = false;
            writer.end_freeze();
            if !writer.state.is_failed() {
                writer.state = WriterState::Stable;
            }
        }
    }

    /// Tells BackupShutdown, once, to every writer that took part.
    pub async fn shut_down(&mut self, facts: &EventFacts) {
        let chosen = self.chosen(|writer| writer.began);
        for &index in &chosen {
            self.writers[index].began = false;
        }
        self.call(&chosen, EventKind::BackupShutdown, facts, |_| limits::WRITER_FAREWELL).await;
    }

    fn chosen(&self, wanted: impl Fn(&SessionWriter) -> bool) -> Vec<usize> {
        (0..self.writers.len())
            .filter(|&index| self.writers[index].is_involved() && wanted(&self.writers[index]))
            .collect()
    }

    async fn call(
        &mut self,
        chosen: &[usize],
        kind: EventKind,
        facts: &EventFacts,
        limit: impl Fn(&SessionWriter) -> Duration,
    ) {
        let calls = chosen
            .iter()
            .map(|&index| {
                let limit = limit(&self.writers[index]);
                (index, self.event(index, kind, facts, limit), Vec::new(), limit)
            })
            .collect();
        self.run(kind, facts, calls).await;
    }

    fn event(&self, index: usize, kind: EventKind, facts: &EventFacts, limit: Duration) -> Event {
        let writer = &self.writers[index];
        let is_complete = kind == EventKind::BackupComplete;
        let component = |name: &ComponentName| EventComponent {
            name: name.clone(),
            backup_options: writer.words.get(name).and_then(|words| told(&words.backup_options)),
            previous_backup_stamp: writer.words.get(name).and_then(|words| told(&words.previous_backup_stamp)),
            backup_succeeded: writer.backed_up.get(name).copied().filter(|_| is_complete),
        };
        Event {
            session_id: facts.session_id,
            set_id: facts.set_id,
            context: facts.context,
            attributes: facts.context.attributes().with(facts.attributes),
            backup_state: facts.backup_state,
            components: writer.components.iter().map(component).collect(),
            volumes: facts.volumes.clone(),
            time_left_ms: milliseconds(limit),
        }
    }

    /// Makes these calls at once and takes in every answer. Abort and BackupShutdown change no state by their answers; a
    /// writer that owes an earlier one finds them when it comes back, and keeps nobody waiting until then.
    async fn run(&mut self, kind: EventKind, facts: &EventFacts, calls: Vec<(usize, Event, Vec<OwnedFd>, Duration)>) {
        let farewell = matches!(kind, EventKind::Abort | EventKind::BackupShutdown);
        let mut answers = JoinSet::new();
        for (index, event, fds, limit) in calls {
            let writer = &self.writers[index];
            let answer = writer.writer.port.event(kind, event, fds);
            if farewell && writer.is_silent {
                tokio::spawn(tokio::time::timeout(limit, answer));
            } else {
                let began = Instant::now();
                answers.spawn(async move {
                    let answer = tokio::time::timeout(limit, answer).await;
                    (index, limit, began.elapsed(), answer)
                });
            }
        }
        while let Some(answer) = answers.join_next().await {
            let Ok((index, limit, took, answer)) = answer else { continue };
            let writer = &mut self.writers[index];
            writer.is_silent |= answer.is_err();
            let answer = match answer {
                Ok(answer) => answer.map_err(PortError::into_failure),
                Err(_) => {
                    let code = match kind {
                        EventKind::Freeze | EventKind::Thaw => VssCode::WriterErrorTimeout,
                        _ => VssCode::WriterNotResponding,
                    };
                    Err(VssError::new(code, format!("it did not answer to {} within {limit:?}", kind.name()))
                        .with_hint("Look what its process is doing, and restart it if it is stuck"))
                }
            };
            let failure = answer.as_ref().map_or_else(|failure| Some(failure.clone()), EventReply::failure);
            facts.teller.writer(facts.set_id, &writer.metadata.name, kind.name(), took, failure.as_ref());
            match answer {
                Ok(reply) if !farewell => writer.take_reply(kind, reply, &facts.backup_state),
                Ok(_) => {}
                Err(failure) if !farewell => writer.fail(kind, failure),
                Err(_) => tracing::warn!(writer = writer.metadata.name, event = kind.name(), "was not acknowledged"),
            }
        }
    }
}

/// A text that is there.
fn told(text: &str) -> Option<String> {
    (!text.is_empty() && !fault::is_off("words")).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::port::PortFuture;
    use super::super::{RegisteredWriter, WriterPort, identify};
    use super::*;
    use serde_json::json;
    use std::sync::Arc;
    use vss_api::writer::{Identify, Identity};
    use vss_model::{WriterClassId, WriterInstanceId};

    /// Owns one component and answers every event alike; with none: never.
    struct Port(Option<Result<EventReply, PortError>>);

    impl WriterPort for Port {
        fn identify(&self, _question: Identify) -> PortFuture<Identity> {
            let components = json!({"components": [{"name": "data", "files": [{"path": "/"}]}]});
            let identity = serde_json::from_value(components).unwrap();
            Box::pin(async move { Ok(identity) })
        }

        fn event(&self, _kind: EventKind, _event: Event, _directories: Vec<OwnedFd>) -> PortFuture<EventReply> {
            let reply = self.0.clone();
            Box::pin(async move {
                match reply {
                    Some(reply) => reply,
                    None => std::future::pending().await,
                }
            })
        }

        fn close(&self) {}
    }

    /// These writers, each with its limit from Freeze to Thaw, all involved.
    async fn involved(writers: Vec<(Port, Duration)>) -> SessionWriters {
        let registered = writers.into_iter().map(|(port, limit)| {
            let register = json!({"class_id": WriterClassId::random(), "name": "one"});
            let writer = RegisteredWriter {
                instance_id: WriterInstanceId::random(),
                register: serde_json::from_value(register).unwrap(),
                uid: 1,
                pid: 1,
                port: Arc::new(port),
            };
            (Arc::new(writer), limit)
        });
        let asked = identify(SessionId::random(), registered.collect()).await;
        let mut writers = SessionWriters::new(asked, Duration::from_secs(1));
        for writer in writers.iter_mut() {
            writer.components = writer.metadata.components.iter().map(|component| component.name.clone()).collect();
        }
        writers
    }

    fn facts() -> EventFacts {
        EventFacts {
            session_id: SessionId::random(),
            set_id: None,
            context: Context::Backup,
            attributes: Attributes::empty(),
            backup_state: BackupState::default(),
            teller: Teller::default(),
            volumes: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_slow_freeze_ends_with_the_first_limit_of_all() {
        let (prompt, slow) = (Port(Some(Ok(EventReply::default()))), Port(None));
        let mut writers = involved(vec![(prompt, Duration::from_millis(100)), (slow, Duration::from_secs(60))]).await;
        for writer in writers.iter_mut() {
            writer.state = WriterState::WaitingForFreeze;
        }
        let began = Instant::now();
        writers.freeze(AppLevel::FrontEnd, &facts()).await;
        assert!(began.elapsed() < Duration::from_secs(5), "the prompt one was frozen for {:?}", began.elapsed());
        let states: Vec<WriterState> = writers.iter().map(SessionWriter::state).collect();
        assert_eq!(states, [WriterState::WaitingForThaw, WriterState::FailedAtFreeze]);
        assert_eq!(writers.first_failure().unwrap().code, VssCode::WriterErrorTimeout);
    }

    #[tokio::test]
    async fn of_a_refusal_no_more_than_4096_characters_are_kept() {
        let long = "x".repeat(1 << 20);
        let refusal = VssError::new(VssCode::WriterErrorRetryable, &long).with_hint(&long);
        let port = Port(Some(Err(PortError::Refused(refusal))));
        let mut writers = involved(vec![(port, Duration::from_secs(1))]).await;
        writers.tell(EventKind::PrepareSnapshot, &facts()).await;
        let failure = writers.iter().next().unwrap().failure().unwrap().clone();
        assert!(failure.message.len() <= 4096 && failure.hint.len() <= 4096);
    }
}
