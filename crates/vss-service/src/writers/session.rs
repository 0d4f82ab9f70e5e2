//! The writers of one session: what each was told, what it answered, and the state that follows (spec R 2.2 to 2.9).

use super::port::PortError;
use super::registry::{RegisteredWriter, milliseconds};
use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};
use tokio::{task::JoinSet, time::Instant};
use vss_api::writer::{Event, EventComponent, EventKind, EventReply, EventVolume, Identify};
use vss_model::involvement::{self, MountTable};
use vss_model::{
    AppLevel, BackupState, ComponentName, Context, SessionId, SetId, VolumeId, VssCode, VssError, WriterMetadata,
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
    /// What kind of backup it is.
    pub backup_state: BackupState,
    /// The volumes of the set.
    pub volumes: Vec<EventVolume>,
}

/// One writer in one session.
pub struct SessionWriter {
    /// The registered writer.
    pub writer: Arc<RegisteredWriter>,
    /// What it owns, as it answered to Identify.
    pub metadata: WriterMetadata,
    /// Its components that the backup concerns; empty: not involved.
    pub components: BTreeSet<ComponentName>,
    /// Components that it gave up by name.
    pub component_failures: BTreeMap<ComponentName, VssError>,
    /// Components that the requester says are in the backup, or are not.
    pub backed_up: BTreeMap<ComponentName, bool>,
    /// Milliseconds from its Freeze to its Thaw (or Abort); 0 when it was not frozen.
    pub frozen_ms: u64,
    state: WriterState,
    failure: Option<VssError>,
    freeze_limit: Duration,
    frozen_at: Option<Instant>,
    /// Told PrepareBackup or more: BackupShutdown is owed.
    began: bool,
    /// Told PrepareSnapshot or more, PostSnapshot not handled yet: Abort is owed if it ends now.
    in_snapshot: bool,
    /// Let the time for an answer pass: nothing is waited for any more.
    is_silent: bool,
}

impl SessionWriter {
    /// True when the backup concerns it.
    #[must_use]
    pub fn is_involved(&self) -> bool {
        !self.components.is_empty()
    }

    /// Its state in this session.
    #[must_use]
    pub fn state(&self) -> WriterState {
        self.state
    }

    /// Why it failed; none while it has not.
    #[must_use]
    pub fn failure(&self) -> Option<&VssError> {
        self.failure.as_ref()
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> WriterStatus {
        WriterStatus {
            instance_id: self.metadata.instance_id,
            class_id: self.metadata.class_id,
            name: self.metadata.name.clone(),
            involved: self.is_involved(),
            state: self.state,
            failure: self.failure.clone(),
        }
    }

    fn fail(&mut self, kind: EventKind, failure: VssError) {
        self.state = if self.state.is_failed() { self.state } else { kind.state_failed() };
        // The first failure is the cause; what follows from it would hide it. But a writer that had given up a component
        // has now failed as a whole.
        if self.failure.as_ref().is_none_or(is_partial) {
            self.failure = Some(failure);
        }
    }

    fn take_reply(&mut self, kind: EventKind, reply: EventReply) {
        let lost = self.take_component_failures(&reply);
        match reply.failure() {
            // Some components failed, the writer goes on with the rest (spec R 2.9).
            Some(failure) if is_partial(&failure) => {
                if self.component_failures.is_empty() {
                    // It does not say which: none of them can be trusted.
                    let all = self.components.iter().map(|name| (name.clone(), failure.clone()));
                    self.component_failures = all.collect();
                }
                self.failure.get_or_insert(failure);
                self.advance(kind);
            }
            Some(failure) => self.fail(kind, failure),
            None => {
                if let Some(name) = lost {
                    let message = format!("it gave up component {name}");
                    self.failure.get_or_insert(VssError::new(VssCode::WriterErrorPartialFailure, message));
                }
                self.advance(kind);
            }
        }
    }

    /// Takes in which of its components in the backup failed alone, and returns one of them.
    fn take_component_failures(&mut self, reply: &EventReply) -> Option<ComponentName> {
        let mut lost = None;
        for component in &reply.components {
            let failure =
                EventReply { code: component.code, message: component.message.clone(), ..EventReply::default() };
            if let Some(failure) = failure.failure()
                && self.components.contains(&component.name)
            {
                lost = Some(component.name.clone());
                self.component_failures.entry(component.name.clone()).or_insert(failure);
            }
        }
        lost
    }

    fn advance(&mut self, kind: EventKind) {
        if !self.state.is_failed()
            && let Some(state) = kind.state_after()
        {
            self.state = state;
        }
    }

    fn end_freeze(&mut self) {
        if let Some(frozen_at) = self.frozen_at.take() {
            self.frozen_ms = milliseconds(frozen_at.elapsed());
        }
    }
}

/// Most bytes of metadata in one session, as JSON: GetWriterMetadata answers in one message of 4 MiB, which has room for what
/// else each entry says.
const METADATA_IN_ALL: usize = 3 << 20;

fn is_partial(failure: &VssError) -> bool {
    failure.code == VssCode::WriterErrorPartialFailure
}

/// The writers of one session.
#[derive(Default)]
pub struct SessionWriters {
    writers: Vec<SessionWriter>,
    prepare_limit: Duration,
}

impl SessionWriters {
    /// Asks these writers what they own, all at once; those that fail are left out (spec R 2.2) and logged, and so are those
    /// that say most when all together say more than one answer to a requester can hold.
    ///
    /// Each comes with its limit from Freeze to Thaw; `prepare_limit` is how long each may take to get ready.
    pub async fn identify(
        session_id: SessionId,
        writers: Vec<(Arc<RegisteredWriter>, Duration)>,
        prepare_limit: Duration,
    ) -> Self {
        let mut answers = JoinSet::new();
        for (index, (writer, _)) in writers.iter().enumerate() {
            let question = Identify { session_id, time_left_ms: milliseconds(limits::WRITER_IDENTIFY) };
            let answer = writer.port.identify(question);
            answers.spawn(async move { (index, tokio::time::timeout(limits::WRITER_IDENTIFY, answer).await) });
        }
        let mut identities: BTreeMap<usize, _> = BTreeMap::new();
        let mut sizes = BTreeSet::new();
        while let Some(answer) = answers.join_next().await {
            let Ok((index, answer)) = answer else { continue };
            if let Ok(Ok(identity)) = &answer {
                sizes.insert((serde_json::to_vec(identity).map_or(usize::MAX, |json| json.len()), index));
            }
            identities.insert(index, answer);
            while sizes.iter().fold(0usize, |sum, (size, _)| sum.saturating_add(*size)) > METADATA_IN_ALL
                && let Some((size, largest)) = sizes.pop_last()
            {
                let error = VssError::new(
                    VssCode::OutOfMemory,
                    format!("it has {size} bytes, and all writers together more than {METADATA_IN_ALL}"),
                );
                identities.insert(largest, Ok(Err(PortError::Refused(error))));
            }
        }
        let mut identified = Vec::new();
        for (index, (writer, freeze_limit)) in writers.into_iter().enumerate() {
            let name = writer.register.name.clone();
            let identity = match identities.remove(&index) {
                Some(Ok(Ok(identity))) => identity,
                Some(Ok(Err(error))) => {
                    tracing::warn!(writer = name, reason = error.into_failure().message, "did not identify itself");
                    continue;
                }
                Some(Err(_)) | None => {
                    tracing::warn!(writer = name, "did not identify itself in time");
                    continue;
                }
            };
            let metadata = WriterMetadata {
                class_id: writer.register.class_id,
                instance_id: writer.instance_id,
                name: name.clone(),
                instance_name: writer.register.instance_name.clone(),
                usage: writer.register.usage,
                level: writer.register.level,
                components: identity.components,
                other: identity.other,
            };
            if let Err(error) = metadata.check() {
                tracing::warn!(writer = name, reason = error.message, "its metadata is refused");
                continue;
            }
            identified.push(SessionWriter {
                writer,
                metadata,
                components: BTreeSet::new(),
                component_failures: BTreeMap::new(),
                backed_up: BTreeMap::new(),
                frozen_ms: 0,
                state: WriterState::Stable,
                failure: None,
                freeze_limit,
                frozen_at: None,
                began: false,
                in_snapshot: false,
                is_silent: false,
            });
        }
        Self { writers: identified, prepare_limit }
    }

    /// All writers that were identified.
    pub fn iter(&self) -> impl Iterator<Item = &SessionWriter> {
        self.writers.iter()
    }

    /// All writers that were identified, to be changed.
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
                .filter(|component| {
                    involvement::volumes_of(component, mounts).iter().any(|volume| volumes.contains(volume))
                })
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
        let call =
            |&index: &usize| (index, self.event(index, facts, self.writers[index].freeze_limit), Vec::new(), left);
        let calls = chosen.iter().map(call).collect();
        self.run(EventKind::Freeze, calls).await;
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
            let mut event = self.event(index, facts, limits::WRITER_FINISH);
            let mut fds = Vec::new();
            for (volume, directory) in directories {
                event.volumes[*volume].directory = u32::try_from(fds.len()).ok();
                fds.push(directory.try_clone().map_err(|error| {
                    VssError::new(VssCode::OutOfMemory, format!("Cannot duplicate a directory of a copy: {error}"))
                })?);
            }
            calls.push((index, event, fds, limits::WRITER_FINISH));
        }
        self.run(EventKind::PostSnapshot, calls).await;
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
                (index, self.event(index, facts, limit), Vec::new(), limit)
            })
            .collect();
        self.run(kind, calls).await;
    }

    fn event(&self, index: usize, facts: &EventFacts, limit: Duration) -> Event {
        let writer = &self.writers[index];
        let component = |name: &ComponentName| EventComponent {
            name: name.clone(),
            backup_succeeded: writer.backed_up.get(name).copied(),
        };
        Event {
            session_id: facts.session_id,
            set_id: facts.set_id,
            context: facts.context,
            backup_state: facts.backup_state,
            components: writer.components.iter().map(component).collect(),
            volumes: facts.volumes.clone(),
            time_left_ms: milliseconds(limit),
        }
    }

    /// Makes these calls at once and takes in every answer. Abort and BackupShutdown change no state by their answers; a
    /// writer that owes an earlier one finds them when it comes back, and keeps nobody waiting until then.
    async fn run(&mut self, kind: EventKind, calls: Vec<(usize, Event, Vec<OwnedFd>, Duration)>) {
        let farewell = matches!(kind, EventKind::Abort | EventKind::BackupShutdown);
        let mut answers = JoinSet::new();
        for (index, event, fds, limit) in calls {
            let writer = &self.writers[index];
            let answer = writer.writer.port.event(kind, event, fds);
            if farewell && writer.is_silent {
                tokio::spawn(tokio::time::timeout(limit, answer));
            } else {
                answers.spawn(async move { (index, limit, tokio::time::timeout(limit, answer).await) });
            }
        }
        while let Some(answer) = answers.join_next().await {
            let Ok((index, limit, answer)) = answer else { continue };
            let writer = &mut self.writers[index];
            writer.is_silent |= answer.is_err();
            match answer {
                Ok(Ok(reply)) if !farewell => writer.take_reply(kind, reply),
                Ok(Ok(_)) => {}
                Ok(Err(error)) if !farewell => writer.fail(kind, error.into_failure()),
                Err(_) if !farewell => {
                    let code = match kind {
                        EventKind::Freeze | EventKind::Thaw => VssCode::WriterErrorTimeout,
                        _ => VssCode::WriterNotResponding,
                    };
                    writer.fail(
                        kind,
                        VssError::new(code, format!("it did not answer to {} within {limit:?}", kind.name())),
                    );
                }
                Ok(Err(_)) | Err(_) => {
                    tracing::warn!(writer = writer.metadata.name, event = kind.name(), "was not acknowledged");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::port::PortFuture;
    use super::super::{PortError, WriterPort};
    use super::*;
    use serde_json::json;
    use vss_api::writer::Identity;
    use vss_model::{WriterClassId, WriterInstanceId};

    /// Owns components `0` and `1`, with words around them, and answers every event alike; with none: never.
    struct Port(Option<Result<EventReply, PortError>>, usize);

    impl WriterPort for Port {
        fn identify(&self, _question: Identify) -> PortFuture<Identity> {
            let component = |name: &str| json!({"name": name, "caption": "x".repeat(self.1), "files": [{"path": "/"}]});
            let identity = serde_json::from_value(json!({"components": [component("0"), component("1")]})).unwrap();
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

    fn registered(name: &str, port: Port) -> (Arc<RegisteredWriter>, Duration) {
        let register = json!({"class_id": WriterClassId::random(), "name": name});
        let writer = RegisteredWriter {
            instance_id: WriterInstanceId::random(),
            register: serde_json::from_value(register).unwrap(),
            uid: 1,
            pid: 1,
            port: Arc::new(port),
        };
        (Arc::new(writer), Duration::from_secs(1))
    }

    async fn identified(writers: Vec<(Arc<RegisteredWriter>, Duration)>) -> SessionWriters {
        SessionWriters::identify(SessionId::random(), writers, Duration::from_secs(1)).await
    }

    /// One writer of two components after PrepareSnapshot.
    async fn told(answer: Result<EventReply, PortError>) -> SessionWriters {
        let mut writers = identified(vec![registered("one", Port(Some(answer), 1))]).await;
        involve_all(&mut writers);
        writers.tell(EventKind::PrepareSnapshot, &facts()).await;
        writers
    }

    fn involve_all(writers: &mut SessionWriters) {
        for writer in writers.iter_mut() {
            writer.components = writer.metadata.components.iter().map(|component| component.name.clone()).collect();
        }
    }

    fn facts() -> EventFacts {
        EventFacts {
            session_id: SessionId::random(),
            set_id: None,
            context: Context::Backup,
            backup_state: BackupState::default(),
            volumes: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_slow_freeze_ends_with_the_first_limit_of_all() {
        let (prompt, _) = registered("prompt", Port(Some(Ok(EventReply::default())), 1));
        let (slow, _) = registered("slow", Port(None, 1));
        let limits = vec![(prompt, Duration::from_millis(100)), (slow, Duration::from_secs(60))];
        let mut writers = identified(limits).await;
        involve_all(&mut writers);
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

    fn reply(answer: serde_json::Value) -> Result<EventReply, PortError> {
        Ok(serde_json::from_value(answer).unwrap())
    }

    #[tokio::test]
    async fn a_component_that_is_given_up_is_a_partial_failure_whatever_else_the_writer_says() {
        let lost = json!([{"name": "1", "code": "VSS_E_WRITERERROR_RETRYABLE", "message": "busy"}]);
        let writers = told(reply(json!({"components": lost}))).await;
        let failure = writers.first_failure().unwrap();
        assert_eq!(failure.code, VssCode::WriterErrorPartialFailure);
        let writer = writers.iter().next().unwrap();
        assert_eq!(writer.state(), WriterState::WaitingForFreeze);
        let given_up: Vec<&str> = writer.component_failures.keys().map(|name| name.name.as_str()).collect();
        assert_eq!(given_up, ["1"]);
    }

    #[tokio::test]
    async fn a_partial_failure_that_names_no_component_is_one_of_all() {
        let writers = told(reply(json!({"code": "VSS_E_WRITERERROR_PARTIAL_FAILURE"}))).await;
        assert_eq!(writers.iter().next().unwrap().component_failures.len(), 2);
    }

    #[tokio::test]
    async fn of_a_writers_answer_only_what_it_was_asked_for_is_kept() {
        let long = "x".repeat(1 << 20);
        let unknown: Vec<_> = (0..1000).map(|n| json!({"name": format!("u{n}"), "code": "E_OUTOFMEMORY"})).collect();
        let writers = told(reply(json!({"components": unknown}))).await;
        assert!(writers.first_failure().is_none());
        assert!(writers.iter().next().unwrap().component_failures.is_empty());

        let lost = json!([{"name": "1", "code": "E_OUTOFMEMORY", "message": long}]);
        let writers = told(reply(json!({"components": lost}))).await;
        let failure = writers.iter().next().unwrap().component_failures.values().next().unwrap().clone();
        assert_eq!(failure.code, VssCode::WriterErrorNonRetryable, "E_OUTOFMEMORY is not a writer's to say");
        assert!(failure.message.len() < 5000);

        let refusal = VssError::new(VssCode::WriterErrorRetryable, &long).with_hint(&long);
        let failure = told(Err(PortError::Refused(refusal))).await.iter().next().unwrap().failure().unwrap().clone();
        assert!(failure.message.len() <= 4096 && failure.hint.len() <= 4096);
    }

    #[tokio::test]
    async fn one_that_says_too_much_does_not_push_out_the_others() {
        let good = || Port(Some(Ok(EventReply::default())), 1);
        let greedy = |name| registered(name, Port(Some(Ok(EventReply::default())), 1 << 20));
        let writers = vec![greedy("a"), registered("b", good()), greedy("c"), registered("d", good())];
        let writers = identified(writers).await;
        let names: Vec<&str> = writers.iter().map(|writer| writer.metadata.name.as_str()).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names.contains(&"b") && names.contains(&"d"));
    }
}
